"""Where a tile lies in its part: is a cell compared with all good ones, or with those that lie
around its own place?

A connector's pin is good where pins belong, and a fault on the housing. Where the part lies alike
in every picture, a memory that knows places sees that; where it does not, places would part what
belongs together. Which is so is decided from good pictures alone.
"""
from __future__ import annotations

import typing

import torch

from adlib.models.fast.device import rounded_products

WEIGHT = 4.0  # distances to the nearest good cell, that a tile's side between two cells counts as
GAIN = 10  # times as much as good cells do, those of other places have to come to lie farther
LEAST = 0.1  # by which share they have to
ASKED = 1000  # good cells that are looked at


class Found(typing.NamedTuple):
    """What comparing by place does to the mean distance of cells to the nearest of other images."""
    unit: torch.Tensor | None  # what a tile's side counts as, as a distance; None: it does not
    cost: float  # by which share good cells lie farther
    gain: float  # and good cells that are put to another one's place


def with_positions(features: torch.Tensor, origins: torch.Tensor) -> torch.Tensor:
    """Features of tiles [N,C,g,g] with two channels more: where each cell's middle lies in the
    picture, down and across, in sides of a tile. origins: float32 [N,2], where the tiles begin."""
    middles = [(torch.arange(side) + 0.5) / side for side in features.shape[-2:]]
    inside = torch.stack(torch.meshgrid(*middles, indexing="ij"))
    return torch.cat([features, origins[:, :, None, None] + inside], dim=1)


def compare(cells: torch.Tensor, positions: torch.Tensor, image: torch.Tensor) -> Found:
    """Are cells to be compared by place? They are where a cell that belongs elsewhere is given away
    by it, GAIN times as much as a good one is made to look less usual.

    Args:
        cells: float32 [P,C], random good ones. positions: [P,2]. image: int64 [P], that each is of.
    """
    asked = slice(0, ASKED)
    with rounded_products(False):
        distances = torch.cdist(cells[asked], cells)
        away = torch.cdist(positions[asked], positions)
    distances.masked_fill_(image[asked, None] == image, torch.inf)
    nearest = distances.amin(dim=1)
    known = nearest.isfinite()
    if not known.any():  # there is one image
        return Found(None, 0.0, 0.0)
    unit = WEIGHT * nearest[known].median()

    def mean(away: torch.Tensor) -> float:
        around = (distances.square() + (unit * away).square()).argmin(dim=1)
        return float(distances.gather(1, around[:, None])[known].mean())

    at_home, elsewhere = mean(away), mean(away.roll(1, dims=0))  # in no order: another one's place
    cost = at_home / max(float(nearest[known].mean()), 1e-12) - 1
    gain = elsewhere / max(at_home, 1e-12) - 1
    return Found(unit if gain > max(GAIN * cost, LEAST) else None, cost, gain)
