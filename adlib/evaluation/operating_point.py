"""What a threshold does to the scores of a run: the confusion matrix and its rates, and the
thresholds one may want to jump to.

One comparison everywhere: an image is called anomalous where `score > threshold`.
"""
from __future__ import annotations

import math

import numpy as np


def counts(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    """The confusion matrix, anomalous being the positive class, and its rates.

    Args:
        labels: [N] of 0 and 1. scores: [N], higher = more anomalous.

    Returns:
        Images: found and missed (anomalous, called anomalous and good), false_positives and passed
        (good, called so). Shares, NaN of nothing: recall (of the anomalous, found), precision (of
        those called anomalous, that are), fpr (of the good, called anomalous).
    """
    labels, called = np.asarray(labels), np.asarray(scores) > threshold
    found, missed, alarms, passed = (
        int(((labels == truth) & (called == call)).sum())
        for truth, call in ((1, True), (1, False), (0, True), (0, False)))
    return {"found": found, "missed": missed, "false_positives": alarms, "passed": passed,
            "recall": _share(found, found + missed), "precision": _share(found, found + alarms),
            "fpr": _share(alarms, alarms + passed)}


def cuts(scores: np.ndarray) -> np.ndarray:
    """Every threshold that parts scores [N], N > 0, in a way of its own.

    Returns:
        float64, ascending: -inf (all anomalous), midway between two neighbours, inf (none).
    """
    levels = np.unique(np.asarray(scores, float))
    middle = levels[:-1] + np.diff(levels) / 2
    # midway between two neighbouring floats is one of them: the lower parts them
    return np.r_[-math.inf, np.where(middle < levels[1:], middle, levels[:-1]), math.inf]


def oracle(labels: np.ndarray, scores: np.ndarray) -> float:
    """The threshold of the best F1, of equals the lowest. It uses the labels [N]; NaN where they
    are not of both classes."""
    labels, scores = np.asarray(labels), np.asarray(scores, float)
    if not 0 < labels.sum() < len(labels):
        return math.nan
    thresholds = cuts(scores)[:-1]
    alarms, found = (len(some) - np.searchsorted(np.sort(some), thresholds, side="right")
                     for some in (scores[labels == 0], scores[labels == 1]))
    return float(thresholds[np.argmax(2 * found / (found + alarms + labels.sum()))])


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
