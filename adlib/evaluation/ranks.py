"""Several detectors over several categories: average ranks, and which of them are distinguishable.

Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets (JMLR 2006): Friedman's test
in Iman and Davenport's form, then, instead of Nemenyi's critical difference, which depends on the
detectors that happen to be compared, Wilcoxon's signed-rank test of every pair with Holm's
correction (Benavoli, Corani and Mangili, JMLR 2016). A category is one observation here; how sure
its own figure is does not enter.
"""
from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from scipy import special

from adlib.config import InputError
from adlib.evaluation.auroc import LEVEL, holm


def rank_correlation(one: pd.Series, other: pd.Series) -> float:
    """Spearman's, in [-1,1], of the pairs without a gap; NaN where either does not vary. (That of
    pandas loads scipy.stats, for a second of every run.)"""
    pairs = pd.concat([one, other], axis=1).dropna().rank()
    varies = (pairs.nunique() > 1).all()
    return float(pairs.iloc[:, 0].corr(pairs.iloc[:, 1])) if varies else float("nan")


def average_ranks(table: pd.DataFrame) -> pd.Series:
    """The mean rank of each column over the rows, 1 = the highest value; ties share theirs.

    table: a row a category, a column a detector. Rounded, so that sums of other seeds tie, too.
        Raises InputError where there is a gap.
    """
    return _complete(table).round(9).rank(axis=1, ascending=False).mean()


def friedman(table: pd.DataFrame) -> float:
    """p-value of "all columns are equally good": Friedman's statistic with its correction for ties
    in Iman and Davenport's form, an F of k - 1 and (k - 1)(n - 1) degrees of freedom. NaN for less
    than two rows or columns, 1 where all values of each row are equal. Raises as `average_ranks`.
    """
    ranks = _complete(table).round(9).rank(axis=1).to_numpy()
    n, k = ranks.shape
    if n < 2 or k < 2:
        return float("nan")
    spread = ((ranks - (k + 1) / 2)**2).sum()
    if spread == 0:
        return 1.0
    between = n * ((ranks.mean(axis=0) - (k + 1) / 2)**2).sum()
    within = spread - between
    return 0.0 if within < 1e-9 else float(special.fdtrc(
        k - 1, (k - 1) * (n - 1), (n - 1) * between / within))


def wilcoxon(differences: np.ndarray) -> float:
    """Two-sided p-value of the signed-rank test of [n] paired differences, exact under sign
    changes, ties included; differences of 0 keep their ranks and favour nobody (Pratt 1959).
    Raises InputError for a difference that is NaN or infinite.
    """
    differences = np.round(np.asarray(differences, float), 9)
    if unknown := int((~np.isfinite(differences)).sum()):
        raise InputError(f"{unknown} of {len(differences)} paired differences are no numbers; "
                         "compare the two where both were measured")
    doubled = np.round(2 * pd.Series(np.abs(differences)).rank().to_numpy()).astype(int)
    counted = doubled[differences != 0]
    chances = np.ones(1)  # of every sum of the positive ranks, doubled so that all are whole
    for rank in counted:
        chances = 0.5 * (np.r_[chances, np.zeros(rank)] + np.r_[np.zeros(rank), chances])
    positive, middle = doubled[differences > 0].sum(), counted.sum() / 2
    extreme = np.abs(np.arange(len(chances)) - middle) >= abs(positive - middle) - 1e-9
    return float(min(1.0, chances[extreme].sum()))


def pairs(table: pd.DataFrame) -> pd.DataFrame:
    """`wilcoxon` of every two columns: a, b, p, p_holm. Raises as `average_ranks`."""
    table = _complete(table)
    names = list(itertools.combinations(table.columns, 2))
    p_values = [wilcoxon(table[a].to_numpy() - table[b].to_numpy()) for a, b in names]
    return pd.DataFrame(names, columns=["a", "b"]).assign(p=p_values, p_holm=holm(p_values))


def cliques(ranks: pd.Series, tested: pd.DataFrame) -> list[list[str]]:
    """The bars of a critical-difference diagram: the longest runs of columns, in the order of
    `average_ranks`, no two of which are distinguishable (`pairs`)."""
    order = list(ranks.sort_values(kind="stable").index)
    apart = {frozenset((row.a, row.b)) for row in tested.itertuples() if row.p_holm < LEVEL}
    runs: list[list[str]] = []
    for start, end in itertools.combinations(range(len(order)), 2):
        run = order[start:end + 1]
        if not any(frozenset(two) in apart for two in itertools.combinations(run, 2)):
            runs.append(run)
    return [run for run in runs if not any(set(run) < set(other) for other in runs)]


def rows_needed(columns: int) -> int:
    """The fewest categories in which a detector that always wins could be distinguishable: Holm's
    first step asks the smallest p of all pairs, 2 / 2**n, to be below LEVEL / pairs."""
    count = columns * (columns - 1) // 2
    n = 1
    while 2.0**(1 - n) * count >= LEVEL:
        n += 1
    return n


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    """The table, if it has no gap: a rank among fewer columns is another rank."""
    if (gaps := table.isna()).any(axis=None):
        row, column = np.argwhere(gaps.to_numpy())[0]
        raise InputError(f"{table.columns[column]} has no figure for {table.index[row]}; ranks "
                         "need one in every cell: measure it, or leave the row or column out")
    return table
