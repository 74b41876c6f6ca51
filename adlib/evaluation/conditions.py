"""Are the pictures in use still taken as those were that the threshold rests on?

That is tested after every picture, so the test has to bear being looked at as often as one likes.
Of each picture a few numbers are measured (light, contrast, colour, sharpness, noise, position, the
anomaly score). The rank of each number among all earlier ones, calibration and stream, is a
conformal p-value: uniform and independent as long as nothing changes. A bettor stakes on small or
on large p-values; the sum over all starting points of what the stakes have become
(Shiryaev-Roberts) has the expectation n after n pictures, whatever the distribution, so that a
warning at ARL comes at most once in ARL pictures in the mean.

The stakes are high on purpose: they gain where most pictures lie beyond most of the calibration
pictures, within some ten of them, and lose where the two differ a little, as good parts of another
day do, or where one part in ten is anomalous.

References: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World (2005), chapter 7
(conformal test martingales); Vovk, Petej, Nouretdinov et al., Retrain or not retrain: conformal
test martingales for change-point detection (COPA 2021), for Shiryaev-Roberts.
"""
from __future__ import annotations

import bisect
import dataclasses
import typing

import numpy as np
import torch
from torch.nn import functional

from adlib.models.fast.device import spread

ARL = 20_000  # the fewest pictures between two false warnings, in the mean: the average run length
MATTERS = 1.25  # deviations of the calibration pictures: a smaller change is no news
RARE = 0.05  # nor is one to where more than this share of them lie: it is one of their kinds
FAR = 5.0  # deviations beyond which one difference is as plain as another
STAKE = 1.9  # of at most 2: a picture multiplies what was staked by up to 1.95, or takes it
SCORE = "score"
MEASURED = ("brightness", "contrast", "colour", "noise", "sharpness", "alignment")
LEAST = {  # deviations that good pictures have at the least: of less no camera could be told
    "brightness": 1.0, "contrast": 1.0, "colour": 0.02, "noise": 0.02, "sharpness": 0.02,
    "alignment": 0.002}
MOST = 1000  # pictures, of twice as many or more not all are measured
CAUSES = {  # (what is measured, its direction): a message key of report/; what explains more first
    ("brightness", 1): "brighter", ("brightness", -1): "darker", ("colour", 1): "redder",
    ("colour", -1): "bluer", ("noise", 1): "noisier", ("sharpness", -1): "blurrier",
    ("noise", -1): "blurrier", ("sharpness", 1): "sharper", ("contrast", 1): "more_contrast",
    ("contrast", -1): "less_contrast", ("alignment", -1): "moved", ("alignment", 1): "aligned",
    (SCORE, 1): "more_anomalous", (SCORE, -1): "less_anomalous"  # which earlier files have
}
LAPLACE = torch.tensor([[0., 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
IMMERKAER = torch.tensor([[1., -2, 1], [-2, 4, -2], [1, -2, 1]])[None, None]


@dataclasses.dataclass(frozen=True, eq=False)
class Conditions:
    """How good pictures were taken, in numbers that do not depend on a detector.

    mean_image: float32 [32,32], the mean grey picture of every other good picture, mean 0 and
        deviation 1.
    calibration: {what is measured: float64 [n]} of good pictures; alignment of those between.
    """

    mean_image: torch.Tensor
    calibration: dict[str, np.ndarray]

    @classmethod
    def of(cls, images: torch.Tensor) -> Conditions:
        """Of good pictures, uint8 [N,3,S,S]; of 2 MOST and more, every k-th, at least MOST."""
        images = images[::max(1, len(images) // MOST)]
        small = torch.cat(spread(lambda chunk: _small(chunk.float()), images.split(16)))
        usual = cls(_standard(small[::2].mean(dim=0, keepdim=True))[0], {})
        measured = usual.measure(images)
        # Of pictures that are not in the mean, as a new one is not.
        measured["alignment"] = measured["alignment"][min(1, len(images) - 1)::2]
        usual.calibration.update(measured)
        return usual

    def measure(self, images: torch.Tensor) -> dict[str, np.ndarray]:
        """What a camera and its light do to a picture.

        Args:
            images: uint8 [N,3,S,S].

        Returns:
            {name: float64 [N]}: brightness and contrast (mean and deviation of grey, 0 to 255),
            colour (red minus blue), noise (log of what Immerkaer's mask leaves, Computer Vision and
            Image Understanding 1996), sharpness (log of the Laplacian at half the size, where noise
            is averaged away), these three relative to the contrast; alignment (correlation with the
            mean image).
        """
        rows = spread(lambda chunk: self._measure(chunk.float()), images.split(16))
        return {name: torch.cat([row[name] for row in rows]).double().numpy() for name in MEASURED}

    def _measure(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        grey = x.mean(dim=1, keepdim=True)
        contrast = grey.std(dim=(1, 2, 3))
        return {"brightness": grey.mean(dim=(1, 2, 3)), "contrast": contrast,
                "colour": (x[:, 0] - x[:, 2]).mean(dim=(1, 2)) / (contrast + 0.1),
                "noise": _detail(grey, IMMERKAER),
                "sharpness": _detail(functional.avg_pool2d(grey, 2), LAPLACE),
                "alignment": (_small(x) * self.mean_image).mean(dim=(1, 2))}

    def as_dict(self) -> dict[str, typing.Any]:
        """For JSON; `from_dict` reads it."""
        return {"mean_image": self.mean_image.tolist(),
                "calibration": {name: values.tolist()
                                for name, values in self.calibration.items()}}

    @classmethod
    def from_dict(cls, given: dict[str, typing.Any]) -> Conditions:
        return cls(torch.tensor(given["mean_image"]),
                   {name: np.array(given["calibration"][name], float) for name in MEASURED})


def _detail(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    strength = functional.conv2d(x, kernel).abs().mean(dim=(1, 2, 3)) + 0.1
    return (strength / (x.std(dim=(1, 2, 3)) + 0.1)).log()


def _small(x: torch.Tensor) -> torch.Tensor:
    return _standard(functional.adaptive_avg_pool2d(x.mean(dim=1, keepdim=True), 32)[:, 0])


def _standard(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(dim=(1, 2), keepdim=True)) / x.std(dim=(1, 2), keepdim=True).clamp_min(1e-6)


@dataclasses.dataclass(frozen=True)
class Change:
    """The conditions have changed: `since` that picture of the stream (1 is the first); `noticed`
    at this one; `cause`, a value of CAUSES; `by`, how far the pictures since then lie from the
    calibration pictures, in their deviations."""

    since: int
    noticed: int
    cause: str
    by: float


class ConditionsTest:
    """The test over one stream, a picture at a time; after a warning it stands.

    Args:
        calibration: {what is measured: float [n]} of good pictures, and perhaps `score`: the
            calibration scores, as many as there are.
    """

    def __init__(self, calibration: typing.Mapping[str, np.ndarray], *, seed: int = 0) -> None:
        self.n, self.change = 0, None
        self._random = np.random.default_rng(seed)
        self._calibration = {name: np.sort(np.asarray(values, float))
                             for name, values in calibration.items()}
        self._seen = {name: list(values) for name, values in self._calibration.items()}
        # A good picture scored by what was fitted without it, which is a little less, may look less
        # usual than a new one: of that no test can be made, and no threshold is hurt by it.
        self._bets = {(name, sign): _Bet() for name in calibration for sign in (1, -1)
                      if (name, sign) != (SCORE, -1)}
        self._recent: dict[str, list[float]] = {name: [] for name in calibration}

    @property
    def evidence(self) -> float:
        """The mean over all bets: it reaches ARL where a warning is given."""
        return float(np.mean([bet.total for bet in self._bets.values()]))

    def add(self, values: typing.Mapping[str, float]) -> Change | None:
        """The next picture's numbers; a Change when it is this picture that brings the warning."""
        self.n += 1
        for name, seen in self._seen.items():
            value = float(values[name])
            p = self._p_value(seen, value)
            self._recent[name].append(value)
            bisect.insort(seen, value)
            for sign, u in ((1, 1 - p), (-1, p)):
                if (name, sign) in self._bets:
                    self._bets[name, sign].add(u)
        if self.change is None and self.evidence >= ARL:
            change = self._explain()
            self.change = change if change and change.by >= MATTERS else None
            return self.change
        return None

    def _p_value(self, seen: list[float], value: float) -> float:
        """The share of earlier values above this one, ties and itself broken at random: uniform in
        (0,1). Small = larger than the earlier ones."""
        low, high = bisect.bisect_left(seen, value), bisect.bisect_right(seen, value)
        return (len(seen) - high + self._random.random() * (high - low + 1)) / (len(seen) + 1)

    def _explain(self) -> Change | None:
        """The first in the order of CAUSES among the strongest deviations whose bets have gained:
        light that saturates also takes contrast, and contrast takes detail; not the reverse. None
        where pictures of the calibration are so, too: of several kinds, one comes now."""
        best = max(bet.total for bet in self._bets.values())
        changes = []
        for (name, sign), cause in CAUSES.items():
            bet = self._bets.get((name, sign))
            if bet is None or bet.total < min(ARL, best):
                continue
            good = self._calibration[name]
            deviation = max(float(np.std(good)), LEAST.get(name, 1e-9))
            off = (np.array(self._recent[name]) - np.median(good)) / deviation
            start = _last_shift(sign * off.clip(-FAR, FAR))
            now = np.median(self._recent[name][start:])
            if np.mean(sign * good >= sign * now) <= RARE:
                by = sign * float(np.median(off[start:]))
                changes.append(Change(start + 1, self.n, cause, by))
        most = max((change.by for change in changes), default=0.0)
        return next((change for change in changes if change.by >= min(most, FAR) / 3), None)


def compare(calibration: typing.Mapping[str, np.ndarray], values: typing.Mapping[str, np.ndarray],
            *, seed: int = 0) -> Change | None:
    """Are some pictures, {what is measured: float [N]}, taken as the good ones were? The test of a
    stream over all of them once, in an order that the seed draws."""
    test = ConditionsTest(calibration, seed=seed)
    for i in np.random.default_rng(seed).permutation(len(values["brightness"])):
        if change := test.add({name: some[i] for name, some in values.items()}):
            return change
    return None


def _last_shift(off: np.ndarray) -> int:
    """Since which index deviations, [n], have been larger than 0: the most likely start of a shift
    of their mean that goes on to the end, under normal noise."""
    sums = off[::-1].cumsum()[::-1].clip(0)
    return int(np.argmax(sums**2 / np.arange(len(off), 0, -1)))


class _Bet:
    """Shiryaev-Roberts: every picture a unit is staked anew, and all that is there is bet on `u`
    (uniform in (0,1) while nothing changes) being large."""

    total = 0.0

    def add(self, u: float) -> None:
        self.total = (1 + self.total) * (1 + STAKE * (u - 0.5))
