"""A few points that lie near all others."""
from __future__ import annotations

import typing

import numpy as np
import torch

from adlib.models.fast.device import threads

PROJECTED = 64  # dimensions in which it is chosen
AHEAD = 64  # points that it is chosen from at a time


def coreset(patches: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Greedy k-centre in a random projection: [P,C] -> int64 [count]."""
    projection = torch.randn(patches.shape[1], PROJECTED, generator=generator) / PROJECTED**0.5
    points = patches @ projection
    with threads(1):
        return k_centre(points, count)


def k_centre(points: torch.Tensor, count: int) -> torch.Tensor:
    """Greedy k-centre, [P,D] -> int64 [count]: each next point is the farthest from all chosen.

    Distances only shrink. So as long as the farthest of those that were the farthest AHEAD is
    farther than the last of these was, it is the farthest of all points, and these need not be
    compared with each that is chosen, but with dozens in one matrix product.
    """
    squares = points.square().sum(dim=1)

    def squared(index: typing.Any, to: typing.Any = slice(None)) -> torch.Tensor:
        return torch.addmm(squares[index, None], points[index], points[to].T, alpha=-2
                           ).add_(squares[to])

    distance, chosen, new = torch.full((len(points), ), torch.inf), [0], [0]
    while len(chosen) < count:
        distance = torch.minimum(distance, squared(new).amin(dim=0))
        ahead = distance.topk(min(AHEAD, len(points))).indices.sort().values
        far, among, new = distance[ahead].numpy(), squared(ahead, ahead).numpy(), []
        others = far.min()
        while len(chosen) + len(new) < count and far.max() > others:
            new.append(int(ahead[farthest := int(far.argmax())]))
            far = np.minimum(far, among[farthest])
        new = new or [int(distance.argmax())]  # all are as far
        chosen += new
    return torch.tensor(chosen)
