"""A threshold without labels: conformal p-values from good images (Vovk et al. 2005; Bates et al.,
Annals of Statistics 2023).

A p-value is the share of good images that score at least as high, counting the image itself: if the
image is good, and exchangeable with the calibration images, it is at most `rate` with a probability
of at most `rate`. Cross-conformal (Vovk 2015) uses every good image once as calibration; its
guarantee is 2 x rate in theory and about rate in practice.
"""
from __future__ import annotations

import math
import typing

import numpy as np
from scipy import special

from adlib.report.i18n import Text, t


def p_values(calibration: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(1 + number of calibration scores >= score) / (n + 1): [n], [N] -> [N] in (0,1]; small =
    anomalous."""
    ordered = np.sort(np.asarray(calibration, float))
    return (1 + len(ordered) -
            np.searchsorted(ordered, np.asarray(scores, float), side="left")) / (len(ordered) + 1)


def cross_p_values(calibration_scores: typing.Sequence[np.ndarray],
                   fold_scores: typing.Sequence[np.ndarray]) -> np.ndarray:
    """The same over folds: held scores of each fold, and the N images scored by each fold's
    detector -> [N]."""
    counts = sum(
        len(held) - np.searchsorted(np.sort(held), scores, side="left")
        for held, scores in zip(calibration_scores, fold_scores, strict=True))
    return (1 + counts) / (1 + sum(len(held) for held in calibration_scores))


def threshold(calibration: np.ndarray, rate: float) -> float:
    """The calibration score t for which `score > t` says the same as p_value <= rate; inf where n
    cannot support the rate."""
    n = len(calibration)
    k = math.floor(rate * (n + 1) + 1e-9)  # p <= rate means at most k-1 calibration scores reach it
    return float(np.sort(calibration)[n - k]) if k >= 1 else math.inf


def min_calibration_size(rate: float) -> int:
    """The fewest good images that support a false-alarm rate: 19 for 5 %."""
    return math.ceil(1 / rate - 1e-9) - 1


def is_attainable(n: int, rate: float) -> bool:
    """Can n good images support a false-alarm rate? Below this every p-value is above the rate, and
    nothing is ever called."""
    return n >= min_calibration_size(rate)


def sentence(n: int, rate: float) -> Text:
    """What to say when they cannot."""
    return t("run.n_held_out_good_images_cannot", n=n, rate=rate, least=min_calibration_size(rate))


def folds(n: int, k: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """k pairs of (fit, held) indices, sorted int64; each of n is held exactly once."""
    order = np.random.default_rng(seed).permutation(n)
    return [(np.sort(np.delete(order, range(i, n, k))), np.sort(order[i::k])) for i in range(k)]


def rate_interval(hits: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a rate; (0, 1) for n = 0."""
    tail = (1 - level) / 2
    low = float(special.betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    high = float(special.betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return low, high
