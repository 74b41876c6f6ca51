"""From which score on is a part called anomalous? Decided from good images alone, by one object.

Conformal p-values (Vovk, Gammerman and Shafer 2005; Bates et al., Annals of Statistics 2023): the
share of good images that score at least as high, counting the image itself. If an image is good,
and exchangeable with the calibration images, its p-value is at most `target_fpr` with a probability
of at most `target_fpr`.

The calibration scores are of images that the detector was not fitted on. `split`: images that were
held out. `cross-conformal`: every good image, scored by the detector without what it has of that
image (a memory without its patches, a classifier trained again without its fold), or by one of the
same kind fitted on the other folds (cross-validated scores; Vovk 2015, Barber et al. 2021). It uses
more images, so that the rate can be asked for in steps of 1 / (n + 1) of all good ones, and has no
guarantee for a finite sample: an image in use is compared with all patches, none left out.
"""
from __future__ import annotations

import dataclasses
import functools
import math
import typing

import numpy as np
from scipy import special

UPPER = 0.25  # share of the calibration values that the tail is fitted to


@dataclasses.dataclass(frozen=True, eq=False)
class Threshold:
    """The one answer to "is this score too high?". An image is called anomalous where `score >
    value`.

    Args:
        calibration: float64 [n], scores of good images that the detector was not fitted on.
        target_fpr: the share of good parts that may be called anomalous, in (0,1).
        how: split | cross-conformal | recalibrated (runs.recalibration) | none (no good image was
            kept apart).
        foreign: how many of the n count as the most anomalous, since the others call them foreign
            (refusal.counted_first).
    """

    calibration: np.ndarray
    target_fpr: float
    how: str = "split"
    foreign: int = 0

    @classmethod
    def recorded(cls, metrics: dict[str, typing.Any], target_fpr: float) -> Threshold:
        """That of a finished run, from what its metrics.json holds."""
        kept = metrics["calibration"]
        return cls(np.array(kept["scores"], float), target_fpr, kept["how"])

    @property
    def rank(self) -> int:
        """Which of the calibration scores it is, 1 = the highest; 0 where none would do. So many
        less one of them may exceed it."""
        return math.floor(self.target_fpr * (len(self.calibration) + 1) + 1e-9)

    @functools.cached_property
    def value(self) -> float:
        """The calibration score that only a share of `target_fpr` may exceed; inf where that is not
        attainable, so that nothing is called anomalous."""
        n, k = len(self.calibration), self.rank  # p <= rate: at most k - 1 scores reach it
        return float(np.sort(self.calibration)[n - k]) if k >= 1 else math.inf

    @property
    def is_attainable(self) -> bool:
        """Are there enough good images for the asked rate? Else every p-value is above it."""
        return len(self.calibration) >= min_calibration_size(self.target_fpr)

    @property
    def least_target_fpr(self) -> float:
        """The least rate that these images support, 1/(n+1), rounded up to three digits: what is
        said can be asked for."""
        least = 1 / (len(self.calibration) + 1)
        unit = 10.0**(math.floor(math.log10(least)) - 2)
        return float(f"{math.ceil(least / unit - 1e-9) * unit:.3g}")

    def exceeded(self, scores: np.ndarray) -> np.ndarray:
        """float [N] -> bool [N], True = called anomalous."""
        return np.asarray(scores, float) > self.value

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """float [N] -> float64 [N] in (0,1], small = anomalous; NaN without calibration images.

        `p <= target_fpr` says the same as `score > value`.
        """
        if not len(self.calibration):
            return np.full(len(scores), np.nan)
        return p_values(self.calibration, scores)

    def at(self, target_fpr: float) -> Threshold:
        """The threshold of another asked rate, from the same images."""
        return dataclasses.replace(self, target_fpr=target_fpr)


@dataclasses.dataclass(frozen=True, eq=False)
class TailThreshold:
    """The same for a rate that the calibration values are too few for: beyond the largest of them
    the tail is taken for exponential, as its upper quarter is. That is an assumption and no
    guarantee, for values that lie far out it is enough. A picture is called foreign where `value >
    this value`.

    Args:
        calibration: float64 [n], a value of each good image by what was fitted on the others.
        target_fpr: the share of good parts that may exceed it.

    Reference: peaks over a threshold, with the exponential tail of the generalised Pareto family
        (Pickands, Annals of Statistics 1975).
    """

    calibration: np.ndarray
    target_fpr: float

    @functools.cached_property
    def tail(self) -> tuple[float, float]:
        """Where the upper quarter begins, and its mean excess."""
        start = float(np.quantile(self.calibration, 1 - UPPER))
        beyond = self.calibration[self.calibration > start]
        return start, float((beyond - start).mean()) if len(beyond) else 0.0

    @functools.cached_property
    def value(self) -> float:
        """No good image's own value exceeds it."""
        start, excess = self.tail
        return max(float(self.calibration.max()),
                   start + excess * math.log(UPPER / self.target_fpr))

    def exceeded(self, values: np.ndarray) -> np.ndarray:
        """float [N] -> bool [N], True = called foreign."""
        return np.asarray(values, float) > self.value

    def p_values(self, values: np.ndarray) -> np.ndarray:
        """float [N] -> float64 [N] in [0,1]: as `p_values` as far as the calibration goes, and
        never below the tail."""
        values, (start, excess) = np.asarray(values, float), self.tail
        beyond = np.maximum(values - start, 0)
        tail = UPPER * np.exp(-beyond / max(excess, 1e-300))
        counted = p_values(self.calibration, values)
        return np.where(values > self.calibration.max(), tail, np.maximum(tail, counted))


def outlying(values: np.ndarray, rate: float) -> np.ndarray:
    """Which of [n] lie beyond what a share `rate` would, by the tail of most of them: bool [n]. As
    TailThreshold, with the median for the mean, which one in ten cannot move far."""
    start = float(np.quantile(values, 1 - UPPER))
    beyond = values[values > start] - start
    excess = float(np.median(beyond)) / math.log(2) if len(beyond) else math.inf
    return values > start + excess * math.log(UPPER / rate)


def p_values(calibration: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(1 + number of calibration scores >= score) / (n + 1): [n], [N] -> [N] in (0,1]."""
    ordered = np.sort(np.asarray(calibration, float))
    reached = len(ordered) - np.searchsorted(ordered, np.asarray(scores, float), side="left")
    return (1 + reached) / (len(ordered) + 1)


def min_calibration_size(target_fpr: float) -> int:
    """The fewest good images that support a false-positive rate: 19 for 5%."""
    return math.ceil(1 / max(target_fpr, 1e-12) - 1e-9) - 1  # what is less overflows


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
