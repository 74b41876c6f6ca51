"""How well scores tell anomalous from good: arrays in, numbers out. Higher score = more anomalous, label 1 = anomalous."""
from __future__ import annotations

import numpy as np
from scipy import stats
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


def delong_interval(labels: np.ndarray, scores: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of the AUROC for the finite test set (DeLong et al., Biometrics 1988), clipped to [0,1].

    The variance is that of the placement values by midranks (Sun and Xu, IEEE SPL 2014). At an AUROC of exactly 0 or 1
    it is zero, which would claim certainty: there the far bound comes from the "rule of three" kind of argument on the
    smaller class, 1 - (1 - level)**(1/n), which is wide and honest. Where all scores are equal it is zero too, though
    the scores say nothing: then, and where a class has one image, the interval is [0,1]. Raises as `auroc`.
    """
    labels, scores = _checked(labels, scores)
    bad, good = scores[labels == 1], scores[labels == 0]
    m, n = len(bad), len(good)
    ranks = stats.rankdata(np.concatenate([bad, good]))
    bad_placed = (ranks[:m] - stats.rankdata(bad)) / n  # [m] share of good images below each anomalous one
    good_placed = 1 - (ranks[m:] - stats.rankdata(good)) / m  # [n] share of anomalous images above each good one
    area = float(bad_placed.mean())
    if min(m, n) < 2:
        return 0.0, 1.0  # one image of a class carries no variance to estimate
    variance = bad_placed.var(ddof=1) / m + good_placed.var(ddof=1) / n
    if variance == 0 and area == 0.5:
        return 0.0, 1.0
    if variance == 0:
        reach = 1 - (1 - level) ** (1 / min(m, n))
        return (1 - reach, 1.0) if area == 1.0 else (0.0, reach)
    half = stats.norm.ppf((1 + level) / 2) * np.sqrt(variance)
    return float(max(0.0, area - half)), float(min(1.0, area + half))


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
