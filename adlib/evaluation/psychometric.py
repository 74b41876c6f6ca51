"""How small, how faint: the psychometric function, the chance of detecting a defect as its size or
contrast grows.

P(detect | x) = fpr + (1 - fpr - lapse) * logistic(slope * (log10 x - log10 x50))

after Wichmann and Hill, Perception & Psychophysics 63 (2001), 1293-1313. `fpr` is the false-alarm
rate, known from good images and not fitted; `lapse` in [0,0.1] is the share missed at any size. So
x50 is the size halfway between the two asymptotes, not the size of which half are found: that is
`curve.at(0.5)`. `slope` is per decade.

The fit is the maximum of the likelihood times a weak prior, without which perfectly separated data
would have an infinite slope: log10 x50 normal about the middle of the tested sizes with a deviation
of their span (in decades), and slope times span half-normal with a deviation of 50. A crossing
outside the tested sizes is an extrapolation that leans on the prior.
"""
from __future__ import annotations

import dataclasses
import math
import typing

import numpy as np
from scipy import optimize, special

if typing.TYPE_CHECKING:
    from adlib.evaluation.calibration import Decision

MOST_LAPSES, MOST_FPR = 0.1, 0.5
# deviation of the prior of slope times span: the rise from 5% to 95% takes an eighth of the span
STEEPEST = 50.0
# where the fit starts, in spans
STEEPNESS, PLACES = (1.0, 4.0, 12.0, 40.0, 100.0), np.linspace(-0.8, 0.8, 33)


@dataclasses.dataclass(frozen=True)
class Curve:
    """A fitted psychometric function. x50 is 0 where everything was detected, inf where nothing
    was; slope is inf there."""

    x50: float
    slope: float
    fpr: float
    lapse: float
    n: int  # stimuli it was fitted to

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The chance of detection at sizes x > 0: any shape -> the same shape, in [fpr, 1 -
        lapse]."""
        with np.errstate(divide="ignore"):  # log10(0) = -inf is meant
            rise = special.expit(self.slope * (np.log10(x) - np.log10(self.x50)))
        return self.fpr + (1 - self.fpr - self.lapse) * rise

    def at(self, probability: float) -> float:
        """The size at which the curve crosses a probability; nan if it never does, 0 if it does
        below anything tested (x50 = 0)."""
        share = (probability - self.fpr) / (1 - self.fpr - self.lapse)
        if not 0 < share < 1 or self.slope == 0:
            return math.nan
        with np.errstate(divide="ignore", over="ignore"):
            size = float(np.power(10, np.log10(self.x50) + special.logit(share) / self.slope))
        return size if math.isfinite(size) else math.nan


def fit(x: np.ndarray, detected: np.ndarray, *, fpr: float) -> Curve:
    """The curve through N stimuli: sizes x [N] > 0 in any unit, two of them different; detected [N]
    of bool; fpr in [0,1), of which no more than MOST_FPR counts.

    Where all or none were detected there is nothing to fit, and the curve says so: x50 = 0,
    somewhere below the smallest size tested (it passes 1 everywhere), or x50 = inf (it is `fpr`
    everywhere, and `at` is nan). Neither is an estimate.
    """
    logs, fpr = np.log10(x), min(fpr, MOST_FPR)
    n, middle, span = len(detected), (logs.min() + logs.max()) / 2, np.ptp(logs)
    if detected.all() or not detected.any():
        return Curve(0.0 if detected.all() else math.inf, math.inf, fpr, 0.0, n)
    t = (logs - middle) / span  # in [-0.5,0.5]: the problem looks the same in every unit

    def loss(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Minus the log posterior and its gradient at [...,3] of (place of x50, slope in spans,
        lapse): [...] and [...,3]."""
        place, slope, lapse = np.moveaxis(parameters, -1, 0)[..., None]
        room, off = 1 - fpr - lapse, t - place
        up, down = special.expit(slope * off), special.expit(-slope * off)
        # 1 - P written as a sum, since a difference would lose the small ones. Tiny: log(0) where
        # fpr or lapse is 0.
        chance = np.maximum(np.where(detected, fpr + room * up, lapse + room * down), 1e-300)
        by_p = np.where(detected, 1, -1) / chance
        by_z = by_p * room * up * down
        gradient = -np.stack([-slope * by_z, by_z * off, -by_p * up]).sum(axis=-1)
        pull = np.stack([place[..., 0], slope[..., 0] / STEEPEST**2, np.zeros(place.shape[:-1])])
        prior = place[..., 0]**2 / 2 + (slope[..., 0] / STEEPEST)**2 / 2
        value = -np.log(chance).sum(axis=-1) + prior
        return value, np.moveaxis(gradient + pull, 0, -1)

    # There may be several summits, most of all for steep curves, which fit between any two stimuli.
    # Climb from the best place for each steepness, at the three best of these.
    grid = np.stack(np.meshgrid(STEEPNESS, PLACES, 0.02, indexing="ij"), axis=-1)
    grid = grid[:, :, 0, [1, 0, 2]]
    heights = loss(grid)[0]
    starts = grid[np.arange(len(grid)), heights.argmin(axis=1)][np.argsort(heights.min(axis=1))[:3]]
    bounds = [(-5, 5), (0, 10 * STEEPEST), (0, MOST_LAPSES)]
    best = min((optimize.minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B")
                for start in starts), key=lambda r: r.fun)
    place, slope, lapse = best.x
    return Curve(float(10**(middle + span * place)), float(slope / span), fpr, float(lapse), n)


def half_found(decision: Decision) -> dict[str, float | None] | None:
    """Of how many of the file's pixels a synthetic anomaly has to be for half to be found, off the
    psychometric curve through those that were put into held-out good images.

    Returns:
        pixels (None = more than largest; least means "or less"), least and largest of those drawn,
        n. None without a threshold, or where all are of one size.
    """
    sizes, threshold = decision.synthetic_pixels, decision.threshold
    if sizes is None or not threshold.is_attainable:
        return None
    seen = sizes > 0
    called, sizes = (threshold.exceeded(decision.synthetic[decision.score].to_numpy())[seen],
                     sizes[seen])
    if len(np.unique(sizes)) < 2:
        return None
    at = fit(sizes, called, fpr=threshold.target_fpr).at(0.5)
    least, largest = float(sizes.min()), float(sizes.max())
    return {"pixels": max(least, at) if at <= largest else None, "least": least,
            "largest": largest, "n": len(sizes)}
