"""Ranks over categories, against scipy and by hand."""
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from adlib.config import InputError
from adlib.evaluation import ranks
from adlib.evaluation.auroc import best_against_each, holm, paired_test

DEMSAR = pd.DataFrame({  # table 6 of Demsar (2006): AUC of C4.5 and three variants on 14 data sets
    "C4.5": [.763, .599, .954, .628, .882, .936, .661, .583, .775, 1.0, .940, .619, .972, .957],
    "+m": [.768, .591, .971, .661, .888, .931, .668, .583, .838, 1.0, .962, .666, .981, .978],
    "+cf": [.771, .590, .968, .654, .886, .916, .609, .563, .866, 1.0, .965, .614, .9751, .946],
    "+m+cf": [.798, .569, .967, .657, .898, .931, .685, .625, .875, 1.0, .962, .669, .975, .970]})


def test_the_example_of_the_paper():
    """Average ranks 3.143, 2.000, 2.893, 1.964, and F(3, 39) = 3.69, which leaves ties uncorrected.
    """
    found = ranks.average_ranks(DEMSAR)
    assert found.round(3).tolist() == [3.143, 2.000, 2.893, 1.964]
    n, k = DEMSAR.shape
    chi2 = 12 * n / (k * (k + 1)) * ((found**2).sum() - k * (k + 1)**2 / 4)
    f = (n - 1) * chi2 / (n * (k - 1) - chi2)
    assert f == pytest.approx(3.69, abs=0.005)
    assert stats.f.sf(f, 3, 39) / 3 < ranks.friedman(DEMSAR) < stats.f.sf(f, 3, 39)


def test_friedman_agrees_with_scipy_in_its_other_form():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(9, 4)).round(1))
    n, k = table.shape
    chi2 = stats.friedmanchisquare(*table.to_numpy().T).statistic
    f = (n - 1) * chi2 / (n * (k - 1) - chi2)
    assert ranks.friedman(table) == pytest.approx(stats.f.sf(f, k - 1, (k - 1) * (n - 1)))
    assert ranks.friedman(table * 0) == 1.0 and math.isnan(ranks.friedman(table[:1]))
    always = pd.DataFrame([[3, 2, 1]] * 4)
    assert ranks.friedman(always) == 0.0


@pytest.mark.parametrize("n", [3, 6, 11])
def test_wilcoxon_is_scipys_exact_one_without_ties(n):
    differences = np.random.default_rng(n).normal(0.4, 1, n)
    assert ranks.wilcoxon(differences) == pytest.approx(
        stats.wilcoxon(differences, method="exact").pvalue)
    assert ranks.wilcoxon(-differences) == pytest.approx(ranks.wilcoxon(differences))


def test_wilcoxon_with_ties_is_what_all_sign_changes_give():
    differences = np.array([0.0, 0.1, 0.1, -0.1, 0.2, 0.3, 0.3, 0.0])
    rank = stats.rankdata(np.abs(differences))
    observed = abs((np.sign(differences) * rank).sum())
    signs = itertools.product((-1, 1), repeat=len(rank))
    sums = [abs((np.array(sign) * np.where(differences == 0, 0, rank)).sum()) for sign in signs]
    assert ranks.wilcoxon(differences) == pytest.approx(np.mean(np.array(sums) >= observed - 1e-9))
    assert ranks.wilcoxon(np.zeros(5)) == 1.0
    # zeros keep their ranks: of 4, 5, 6, 7 five of 16 sums are 7 or less; of 1, 2, 3, 4 seven
    assert ranks.wilcoxon([0, 0, 0, 0.1, 0.2, 0.3, -0.4]) == 10 / 16


def test_too_few_categories_can_distinguish_nothing_and_the_least_number_can():
    for columns in (2, 3, 6):
        least = ranks.rows_needed(columns)
        for n, apart in ((least - 1, False), (least, True)):
            values = np.tile(np.arange(columns) / columns, (n, 1))
            noise = np.random.default_rng(0).uniform(0, 0.01, values.shape)
            tested = ranks.pairs(pd.DataFrame(values + noise).rename(columns=str))
            assert (tested["p_holm"] < 0.05).all() == apart or n != least
            assert (tested["p_holm"] < 0.05).any() == apart
    assert ranks.rows_needed(2) == 6


def test_cliques_are_the_longest_runs_without_a_distinguishable_pair():
    average = pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0})
    tested = pd.DataFrame([("a", "c", 0.01), ("a", "d", 0.01), ("b", "d", 0.2), ("a", "b", 0.3),
                           ("b", "c", 0.5), ("c", "d", 0.9)], columns=["a", "b", "p_holm"])
    assert ranks.cliques(average, tested) == [["a", "b"], ["b", "c", "d"]]
    tested["p_holm"] = 0.001
    assert ranks.cliques(average, tested) == []


def test_the_best_against_each_is_corrected_for_these_comparisons_alone():
    rng, labels = np.random.default_rng(1), np.array([0] * 40 + [1] * 30)
    scores = {name: rng.normal(shift * labels, 1)
              for name, shift in (("best", 2.0), ("near", 1.5), ("far", 0.4))}
    found = best_against_each("best", labels, scores)
    alone = [paired_test(labels, scores["best"], scores[name])[1] for name in ("near", "far")]
    assert found == dict(zip(("near", "far"), holm(alone), strict=True))
    # a row that nobody is near multiplies the others' p by one more, and not by its pairs
    more = best_against_each("best", labels, scores | {"noise": rng.normal(size=70)})
    assert more["near"] == found["near"]


def test_the_rank_correlation_is_scipys_of_the_pairs_without_a_gap():
    rng = np.random.default_rng(0)
    for n in (3, 5, 40):
        one = pd.Series(rng.integers(0, 9, n) * 1.0)  # with ties
        other = one + pd.Series(rng.normal(0, 3, n))
        assert ranks.rank_correlation(one, other) == pytest.approx(stats.spearmanr(one, other)[0])
    other[::3] = np.nan
    there = other.notna()
    assert ranks.rank_correlation(one, other) == pytest.approx(
        stats.spearmanr(one[there], other[there])[0])
    assert math.isnan(ranks.rank_correlation(one, 0 * one))


def test_what_differs_by_the_rounding_of_a_mean_is_a_tie():
    exact = pd.DataFrame([[.8, .8, .7], [.9, .9, .5], [.6, .7, .7], [.5, .4, .3]])
    noise = 1e-15 * np.random.default_rng(0).integers(-3, 4, exact.shape)
    noise[:2, :2] = [[1e-15, -1e-15], [2e-15, -2e-15]]  # for the first, where it is none's
    rounded = exact + noise
    assert not exact.rank(axis=1).equals(rounded.rank(axis=1))
    assert ranks.average_ranks(rounded).equals(ranks.average_ranks(exact))
    assert ranks.friedman(rounded) == ranks.friedman(exact)
    assert ranks.pairs(rounded).equals(ranks.pairs(exact))
    assert ranks.wilcoxon([0.1 + 0.2 - 0.3] * 6) == 1.0  # and not 2 / 2**6


def test_a_gap_is_named_and_no_rank_is_made_of_it():
    table = pd.DataFrame({"pca": [.8, .9], "fused": [.9, np.nan]}, index=["nut", "tile"])
    for of_table in (ranks.average_ranks, ranks.friedman, ranks.pairs):
        with pytest.raises(InputError, match="fused has no figure for tile; .* leave the row"):
            of_table(table)
    for unknown in (np.nan, np.inf):
        with pytest.raises(InputError, match="1 of 3 paired differences are no numbers"):
            ranks.wilcoxon([0.1, unknown, 0.2])


def test_one_column_proves_nothing_and_bars_are_in_the_order_of_the_ranks():
    assert math.isnan(ranks.friedman(pd.DataFrame([[.8], [.9], [.7]])))
    tested = pd.DataFrame([("a", "b", 0.01), ("a", "c", 0.9), ("b", "c", 0.9)],
                          columns=["a", "b", "p_holm"])
    average = pd.Series({"a": 3.0, "b": 1.0, "c": 2.0})
    assert ranks.cliques(average, tested) == [["b", "c"], ["c", "a"]]
    tested["p_holm"] = [0.049, 0.051, 0.9]
    assert ranks.cliques(average, tested) == [["b", "c"], ["c", "a"]]
