"""Tiles by place: is a cell compared with all good ones, or with those of the tiles around its own?

A connector's pin is good where pins belong, and a fault on the housing. Where a part lies alike in
every picture, a memory that knows places sees that; where it does not, places would part what
belongs together. Which is so is decided from good pictures alone.
"""
from __future__ import annotations

import typing

import torch

from adlib.models.fast.device import rounded_products

REACH = 1.001  # sides of a tile, up to which another one that begins there is around it
# If what belongs elsewhere comes to lie farther from the nearest good cell by so large a share, and
# so many times as large a one as what is at home does, it is compared by place: at .29 it had
# helped a memory and cost `fused` as much (docs/results_in_use.md).
LEAST, TIMES = 0.5, 30
ASKED = 400  # good cells that are looked at


class Found(typing.NamedTuple):
    """What comparing by place does to the mean distance of cells to the nearest of other images."""
    chosen: bool
    cost: float  # by which share good cells lie farther from it
    gain: float  # and good cells that are put to another one's place


def with_origins(features: torch.Tensor, origins: torch.Tensor) -> torch.Tensor:
    """Features of tiles [N,C,g,g] with two channels more: where the tile begins in its picture,
    down and across, in its sides. origins: float32 [N,2]."""
    everywhere = origins[:, :, None, None].expand(-1, -1, *features.shape[2:])
    return torch.cat([features, everywhere], dim=1)


def elsewhere(origins: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """Which of some tiles, that begin at `of` [M,2], do not lie around those that begin at origins
    [P,2]: bool [P,M]; none of them for one around which there are none."""
    far = torch.zeros(len(origins), len(of), dtype=torch.bool)
    for axis in range(2):
        far = far | ((origins[:, axis, None] - of[:, axis]).abs() > REACH)
    return far & ~far.all(dim=1, keepdim=True)


def compare(cells: torch.Tensor, origins: torch.Tensor, image: torch.Tensor) -> Found | None:
    """Are cells to be compared by place? None where nothing can be told: all tiles lie around each
    other, or most cells have no other image's around them.

    Args:
        cells: float32 [P,C], random good ones. origins: [P,2], of their tiles. image: int64 [P],
            that each is of.
    """
    asked = slice(0, ASKED)
    with rounded_products(False):
        distances = torch.cdist(cells[asked], cells)
    distances.masked_fill_(image[asked, None] == image, torch.inf)

    def nearest_around(tiles: torch.Tensor) -> torch.Tensor:
        return distances.masked_fill(elsewhere(tiles, origins), torch.inf).amin(dim=1)

    anywhere, own = distances.amin(dim=1), nearest_around(origins[asked])
    moved = nearest_around(origins[asked].roll(1, dims=0))  # they are in no order: another's place
    known = own.isfinite() & moved.isfinite()
    if known.float().mean() <= 0.5 or not elsewhere(origins[asked], origins).any():
        return None
    anywhere, own, moved = (max(float(one[known].mean()), 1e-12)
                            for one in (anywhere, own, moved))
    cost, gain = own / anywhere - 1, moved / own - 1
    return Found(gain > max(TIMES * cost, LEAST), cost, gain)
