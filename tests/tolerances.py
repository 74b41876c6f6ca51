"""How far two computations of one thing may lie apart: it follows from the number formats in them.

1. The same operations on the same numbers in the same order: equal, bit for bit.
2. float64: a million roundings are still 1e-10 apart, so pytest's 1e-6 forgives no mistake.
3. float32, in another order (another library, batch or processor): a sum of n terms is a random walk
   of n roundings, `summed(n)` of the size of its terms. That size is not the result's where terms
   cancel (a distance between near neighbours): then the tolerance is of what was subtracted.
4. A coarser format on the way (features are kept as float16): numbers that differ by float32's
   rounding may fall on two sides of a border and differ by a whole digit, `DIGIT16`. What that does
   to a score depends on the detector, so it is tried out: `of_rounding`.
5. Training and greedy choices amplify rounding without bound: only what they decide is compared, or
   one machine with itself.
"""
from __future__ import annotations

import math
import typing

import numpy as np
import torch

from adlib.models import backbone
from adlib.models.autoencoders import Autoencoder

if typing.TYPE_CHECKING:
    from adlib.runs.inference import Reopened

UNIT = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}  # largest relative error of one rounding
DIGIT16 = 2.0**-10  # from one float16 to the next, relative to the smaller numbers of a power of 2


def summed(n: int, dtype: torch.dtype = torch.float32) -> float:
    """The deviation of a sum of n terms, or of a chain of n operations, relative to their size."""
    return math.sqrt(n) * UNIT[dtype]


NETWORK = summed(17 * 9 * 256)  # 17 convolutions of 9 x 256 terms a pixel: 1.2e-5; we see 6e-7


def size_of(values: torch.Tensor) -> float:
    """The size of the terms: the root of their mean square."""
    return float(values.float().square().mean().sqrt()) if values.numel() else 0.0


def of_features(stage: torch.Tensor) -> dict[str, float]:
    """Between two computations of the same float16 stage: the digit, and a network's rounding."""
    return {"rtol": DIGIT16, "atol": 6 * NETWORK * size_of(stage)}


def of_rounding(run: Reopened, picture: torch.Tensor, *, tries: int = 16, noise: float = NETWORK
                ) -> tuple[np.ndarray, np.ndarray]:
    """What rounding can do to a run's scores [N] and maps [N,S,S] of uint8 images [N,3,S,S]: six
    deviations over tries with a float32 network's rounding (`noise`, relative) added, before what
    is kept as float16 is rounded. Nothing is assumed about the detector."""
    detector, generator = run.detector, torch.Generator().manual_seed(0)

    def noisy(values: torch.Tensor) -> torch.Tensor:
        drawn = torch.randn(values.shape, generator=generator) * noise * size_of(values)
        return values + drawn * (values != 0)  # a rectified 0 is 0 on every machine

    if isinstance(detector, Autoencoder):
        name, clean = "pairs", list(detector.pairs(picture))

        def rounded(images: torch.Tensor) -> typing.Any:
            return ((x, noisy(y)) for x, y in clean)
    else:
        name, network = "stages", detector.backbone
        with torch.no_grad():
            stages = backbone.stages_of(network, picture.float() / 255)

        def rounded(images: torch.Tensor) -> typing.Any:
            return [noisy(stage).half() for stage in stages]

    setattr(detector, name, rounded)
    try:
        scores, maps = zip(*(run.score_with_maps(picture) for _ in range(tries)), strict=True)
    finally:
        delattr(detector, name)
    # Whatever follows the network rounds, too: at most as many terms as one convolution sums.
    floor = summed(9 * 256)
    return (6 * np.std(scores, axis=0) + floor * np.abs(scores[0]),
            6 * np.std(maps, axis=0).max(axis=(1, 2), keepdims=True)
            + floor * np.abs(maps[0]).max(axis=(1, 2), keepdims=True))
