"""How well scores tell anomalous from good: arrays in, numbers out. Higher score = more anomalous, label 1 = anomalous."""
from __future__ import annotations

import numpy as np
from sklearn import metrics as sk

from adlib.config import InputError


class OneClassError(InputError):
    """There are no anomalous images, or no good ones, so ranking them against each other is undefined."""


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve in [0,1]: the chance that an anomalous image scores above a good one; ties count half.

    labels: [N] of 0/1. scores: [N], any range. Raises OneClassError, and InputError for scores that are not finite.
    """
    labels, scores = _checked(labels, scores)
    return float(sk.roc_auc_score(labels, scores))


def roc_curve(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(false positive rate, true positive rate, threshold) at every useful threshold; scikit-learn's. Raises as `auroc`."""
    return sk.roc_curve(*_checked(labels, scores))


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must be two lists of one length")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 (good) or 1 (anomalous)")
    labels = labels.astype(int)
    if not np.isfinite(scores).all():
        raise InputError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite; look for a network "
                         "that diverged")
    good, bad = int((labels == 0).sum()), int((labels == 1).sum())
    if good == 0 or bad == 0:
        raise OneClassError(f"AUROC needs good and anomalous images, and there are {good} good and {bad} anomalous ones")
    return labels, scores
