"""What a threshold does to the scores of a run: the confusion matrix and its rates, and the
thresholds one may want to jump to."""
from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd

from adlib.evaluation import evaluate


@dataclasses.dataclass(frozen=True)
class Counts:
    """A confusion matrix of images; anomalous is the positive class."""

    found: int  # anomalous, called anomalous
    missed: int  # anomalous, called good
    false_positives: int  # good, called anomalous
    passed: int  # good, called good

    @property
    def recall(self) -> float:
        """Share of the anomalous images that are found; NaN where there is none."""
        return _share(self.found, self.found + self.missed)

    @property
    def precision(self) -> float:
        """Share of the images called anomalous that are; NaN where none is called so."""
        return _share(self.found, self.found + self.false_positives)

    @property
    def fpr(self) -> float:
        """Share of the good images that are called anomalous; NaN where there is none."""
        return _share(self.false_positives, self.false_positives + self.passed)


def counts(labels: np.ndarray, scores: np.ndarray, threshold: float) -> Counts:
    """labels [N] of 0 and 1, scores [N], higher = more anomalous: an image is called anomalous
    where its score reaches `threshold`."""
    labels, called = np.asarray(labels), np.asarray(scores) >= threshold
    return Counts(*(int(((labels == truth) & (called == call)).sum())
                    for truth, call in ((1, True), (1, False), (0, True), (0, False))))


def cuts(scores: np.ndarray) -> np.ndarray:
    """Every threshold that parts scores [N], N > 0, in a way of its own, ascending: from all
    anomalous, midway between two neighbours, to none anomalous (inf)."""
    levels = np.unique(scores)
    return np.r_[levels[0], (levels[:-1] + levels[1:]) / 2, np.inf]


def asked(results: pd.DataFrame, rate: float, prefix: str = "") -> float:
    """The threshold on the score that says of the test images what their p-values say, p <= rate
    being anomalous. No label is used.

    Midway between the images that it parts; inf where none is called anomalous. Where p-values and
    scores order the images differently (cross-conformal ones do a little), the threshold with the
    fewest images on the wrong side. NaN without p-values. results: evaluate.results. rate: share of
    good parts that may be called anomalous. prefix: "" for the configuration's own score, "chosen_"
    for the one chosen without labels.
    """
    test = results[(results["split"] == "test") & results[f"{prefix}p_value"].notna()]
    if test.empty:
        return math.nan
    scores, called = test[f"{prefix}score"].to_numpy(float), (test[f"{prefix}p_value"]
                                                              <= rate).to_numpy()
    candidates = cuts(scores)
    wrong = [(called != (scores >= level)).sum() for level in candidates]
    # of equals the highest: the fewest false alarms
    return float(candidates[len(wrong) - 1 - int(np.argmin(wrong[::-1]))])


def oracle(results: pd.DataFrame, prefix: str = "") -> float:
    """The threshold of the best F1 on the test split. It uses the test labels; NaN where they are
    not of both classes."""
    best = evaluate.operating(results, prefix)["test"]["oracle_f1"]
    return best["threshold"] if best else math.nan


def select_informative(rows: pd.DataFrame, threshold: float, most: int) -> pd.DataFrame:
    """All rows (score; label, empty = unknown), or `most` of them: good ones with the highest
    scores, anomalous ones with the lowest, and as many nearest the threshold (or, without one,
    nearest the median). In the order of `rows`."""
    if len(rows) <= most:
        return rows
    level = threshold if math.isfinite(threshold) else rows["score"].median()
    anomalous = (rows["label"] == 1).fillna(False)
    first = [
        *rows[~anomalous].nlargest(most // 3, "score").index,
        *rows[anomalous].nsmallest(most // 3, "score").index
    ]
    nearest = (rows["score"] - level).abs().drop(first).nsmallest(most - len(first)).index
    return rows.loc[rows.index.isin([*first, *nearest])]


PICKS = ("worst misses", "worst false alarms", "borderline", "random")


def pick(rows: pd.DataFrame, what: str, threshold: float, *, seed: int = 0) -> pd.DataFrame:
    """Rows (score; label, empty = unknown) in the order of one of PICKS: anomalous ones, the lowest
    score first; good ones, the highest first; all, those nearest the threshold (without one, the
    median) first; all, in a random order of the seed."""
    if what == "random":
        return rows.sample(frac=1, random_state=seed)
    if what == "borderline":
        level = threshold if math.isfinite(threshold) else rows["score"].median()
        return rows.loc[(rows["score"] - level).abs().sort_values(kind="stable").index]
    missed = what == "worst misses"
    return rows[(rows["label"] == int(missed)).fillna(False)].sort_values(
        "score", ascending=missed, kind="stable")


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
