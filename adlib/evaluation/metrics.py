"""How well scores tell anomalous from good: arrays in, numbers out. Higher score = more anomalous,
label 1 = anomalous."""
from __future__ import annotations

import numpy as np

from adlib.config import InputError


class OneClassError(InputError):
    """There are no anomalous images, or no good ones, so ranking them against each other is
    undefined."""


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve in [0,1]: the chance that an anomalous image scores above a good
    one; ties count half.

    labels: [N] of 0/1. scores: [N], any range. Raises OneClassError, and InputError for scores that
    are not finite.
    """
    labels, scores = _checked(labels, scores)
    return float(placements(scores[labels == 1], scores[labels == 0]).mean())


def placements(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share of `others` that each score is above, in [0,1]; ties count half: [N], [M] ->
    float64 [N]."""
    ordered = np.sort(others)
    below, not_above = (np.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
    return (below + not_above) / (2 * len(ordered))


def roc_curve(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(false positive rate, true positive rate, threshold) where the curve turns, from (0, 0, inf)
    to (1, 1). Raises as `auroc`.

    Called anomalous: score >= threshold. Points on a straight line between two others are left out,
    as scikit-learn does.
    """
    labels, scores = _checked(labels, scores)
    thresholds, block = np.unique(-scores, return_inverse=True)
    bad, all_ = (np.r_[0, np.cumsum(np.bincount(block, weights))]
                 for weights in (labels, np.ones(len(labels))))
    good = all_ - bad
    turns = np.r_[True, (np.diff(good, 2) != 0) | (np.diff(bad, 2) != 0), True]
    turns[1] = True  # scikit-learn's has it too
    return good[turns] / good[-1], bad[turns] / bad[-1], np.r_[np.inf, -thresholds][turns]


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(
            f"labels {labels.shape} and scores {scores.shape} must be two lists of one length")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 (good) or 1 (anomalous)")
    labels = labels.astype(int)
    if not np.isfinite(scores).all():
        raise InputError(
            f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite; look "
            f"for a network "
            "that diverged")
    good, bad = int((labels == 0).sum()), int((labels == 1).sum())
    if good == 0 or bad == 0:
        raise OneClassError(
            f"AUROC needs good and anomalous images, and there are {good} good and {bad} "
            f"anomalous ones")
    return labels, scores
