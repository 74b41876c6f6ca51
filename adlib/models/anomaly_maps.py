"""Anomaly maps and the image scores read off them. Higher = more anomalous. No label is known here.

A score is a map and a reduction, "ssim.max" say. Maps of the autoencoders: `squared` error; `ssim`,
1 - SSIM; `gradient`, 1 - gradient-magnitude similarity (Xue, Zhang, Mou and Bovik, IEEE TIP 2014);
`sum`, the three in deviations of held-out good images. Feature detectors have one map, `distance`.
Reductions: `mean`; `max` and `top1` (mean of the highest 1%) of the map smoothed by a Gaussian of
1/64 of its side. Of a picture that is looked at by tiles, a tile's side and a tile's 1%: a defect
that a tile of its size shows is not less so in a larger picture.

Cells that do not count (data.frame) have the lowest value of those that do, and enter no score.
"""
from __future__ import annotations

import dataclasses
import typing

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from torch import nn

from adlib.models import ssim

REDUCTIONS = ("top1", "max", "mean")
GMS_C = 170 / 255**2  # Xue et al.'s constant, for images in [0,1]
Maps = typing.Mapping[str, np.ndarray]  # {name: float [N,h,w]}, not smoothed
Scale = typing.Mapping[str, tuple[float, float]]  # {name of a map: (mean, deviation)}


def pixel_maps(x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """How two float32 [N,3,H,W] in [0,1] differ: {name: [N,H,W]}, 0 = alike.

    squared is in [0,1], ssim in [0,2], gradient in [0,1].
    """
    return {"squared": (x - y).square().mean(dim=1),
            "ssim": 1 - ssim.ssim_map(x, y, data_range=1.0).mean(dim=1),
            "gradient": 1 - gradient_similarity(x.mean(dim=1), y.mean(dim=1))}


def gradient_similarity(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Gradient-magnitude similarity of two grey [N,H,W] in [0,1] -> [N,H,W] in (0,1], 1 = alike.

    Reference: Xue et al. 2014, with Prewitt's gradient, without their downsampling.
    """
    kernel = torch.tensor([[1.0, 0, -1], [1, 0, -1], [1, 0, -1]], device=x.device) / 3
    weight = torch.stack([kernel, kernel.T])[:, None]
    squares = [nn.functional.conv2d(nn.functional.pad(z[:, None], (1, 1, 1, 1), mode="replicate"),
                                    weight).square().sum(dim=1) for z in (x, y)]
    product = (squares[0] * squares[1]).sqrt()
    return (2 * product + GMS_C) / (squares[0] + squares[1] + GMS_C)


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """How some images of one size are looked at: which of their pixels count, bool [N,H,W] (None =
    all), and of those looked at by tiles a tile's side as a share of their width."""

    area: torch.Tensor | None = None
    share: float | None = None

    def cells(self, shape: tuple[int, ...]) -> np.ndarray | None:
        """Which cells of maps [N,h,w] count: bool [N,h,w]; None = all."""
        return None if self.area is None else counted(self.area, shape[-2:]).numpy()

    def side(self, shape: tuple[int, ...]) -> float:
        """How many cells of maps [N,h,w] a tile is wide, or all of it."""
        return shape[-1] * (1.0 if self.share is None else self.share)


WHOLE = View()


def counted(area: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Which cells count: those of which at least half does; where none is, any that does at all.
    bool [N,H,W] -> bool [N,h,w]."""
    covered = nn.functional.adaptive_avg_pool2d(area[:, None].float(), shape)[:, 0]
    half = covered > 0.499
    return torch.where(half.flatten(1).any(dim=1)[:, None, None], half, covered > 0)


def within(maps: np.ndarray, view: View) -> np.ndarray:
    """Maps [N,h,w] with the lowest value that counts where nothing does."""
    cells = view.cells(maps.shape)
    if cells is None:
        return maps
    lowest = np.where(cells, maps, np.inf).min(axis=(1, 2), keepdims=True)
    return np.where(cells, maps, np.where(np.isfinite(lowest), lowest, 0)).astype(maps.dtype)


def smooth(maps: np.ndarray, view: View = WHOLE) -> np.ndarray:
    """Gaussian of 1/64 of the side, at least one cell: [N,h,w] -> [N,h,w], each map on its own, a
    mean of the cells that count."""
    sigma, cells = max(1.0, view.side(maps.shape) / 64), view.cells(maps.shape)
    if cells is None:
        return ndimage.gaussian_filter(maps, (0, sigma, sigma))
    weights, values = (ndimage.gaussian_filter(array.astype(maps.dtype), (0, sigma, sigma))
                       for array in (cells, np.where(cells, maps, 0)))
    return within(values / np.maximum(weights, 1e-6), view)


def reduce(maps: np.ndarray, how: str, view: View = WHOLE) -> np.ndarray:
    """[N,h,w] -> float64 [N]: `mean`, `max`, or `top1`, the mean of the highest 1% of the cells
    (at least one); of those that count."""
    cells = view.cells(maps.shape)
    images = [maps.reshape(len(maps), -1)] if cells is None else [
        one[inside][None] for one, inside in zip(maps, cells, strict=True)]
    reduced = []
    for values in images:
        if how == "top1":
            of = values.shape[1] if view.share is None else view.side(maps.shape)**2
            count = max(1, round(min(of, values.shape[1]) / 100))
            values = np.partition(values, values.shape[1] - count, axis=1)[:, -count:]
        reduced.append(values.max(axis=1) if how == "max" else values.mean(axis=1,
                                                                           dtype=np.float64))
    return np.concatenate(reduced).astype(np.float64)


def scale_of(batches: typing.Iterable[tuple[Maps, View]]) -> dict[str, tuple[float, float]]:
    """Mean and deviation of each smoothed map over the cells that count of good images, which put
    maps on one scale.

    A deviation is at least 1e-6, as much as rounding to 8 bits is squared; a map that is the same
    everywhere, but for rounding, stays in its own unit.
    """
    moments: dict[str, tuple[int, float, float, float]] = {}
    for maps, view in batches:
        for name, values in maps.items():
            values, cells = smooth(values, view), view.cells(values.shape)
            values = (values if cells is None else values[cells]).astype(np.float64)
            n, mean, squares, most = moments.get(name, (0, 0.0, 0.0, 0.0))
            step, total = values.mean() - mean, n + values.size  # Chan, Golub and LeVeque 1983
            moments[name] = (total, mean + step * values.size / total,
                             squares + np.square(values - values.mean()).sum()
                             + step**2 * n * values.size / total,
                             max(most, float(np.abs(values).max())))

    scale = {}
    for name, (n, mean, squares, most) in moments.items():
        deviation = float(np.sqrt(squares / n))
        scale[name] = float(mean), max(deviation, 1e-6) if deviation > 1e-6 * most else 1.0
    return scale


def smoothed_maps(maps: Maps, scale: Scale, view: View = WHOLE) -> dict[str, np.ndarray]:
    """The maps smoothed, and `sum`, at the size of the largest, where there is more than one."""
    smoothed = {name: smooth(values, view) for name, values in maps.items()}
    if len(maps) > 1:
        shape = max(values.shape for values in smoothed.values())
        smoothed["sum"] = sum((_resized(values, shape) - scale[name][0]) / scale[name][1]
                              for name, values in smoothed.items())
    return smoothed


def score_table(maps: Maps, smoothed: Maps, view: View = WHOLE) -> pd.DataFrame:
    """Every score of some images: a row an image, a column "map.reduction"."""
    # The mean is that of the map as it is; smoothing changes it by rounding only.
    return pd.DataFrame({
        f"{name}.{how}": reduce(maps[name] if how == "mean" and name in maps else smoothed[name],
                                how, view) for name in smoothed for how in REDUCTIONS})


def display_map(smoothed: Maps, score: str, size: int) -> np.ndarray:
    """The map that a score is read off ("ssim.max" -> ssim; of a user's own score the last one) at
    the images' own size: float32 [N,size,size]. Of a larger map each pixel is the highest cell."""
    values = torch.from_numpy(map_of(smoothed, score)).float()[:, None]
    if max(values.shape[-2:]) > size:
        values = nn.functional.adaptive_max_pool2d(values, [min(size, side)
                                                            for side in values.shape[-2:]])
    return nn.functional.interpolate(values, size=size, mode="bilinear")[:, 0].numpy()


def map_of(smoothed: Maps, score: str) -> np.ndarray:
    """The map that a score is read off, [N,h,w]."""
    name = score.split(".")[0]
    return smoothed[name if name in smoothed else list(smoothed)[-1]]


def _resized(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if values.shape == shape:
        return values
    resized = nn.functional.interpolate(torch.from_numpy(values)[:, None], size=shape[1:],
                                        mode="bilinear")
    return resized[:, 0].numpy()
