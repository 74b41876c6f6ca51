"""Anomaly maps and the image scores read off them. Higher = more anomalous. No label is known here.

A score is a map and a reduction, "ssim.max" say. Maps of the autoencoders: `squared` error; `ssim`,
1 - SSIM; `gradient`, 1 - gradient-magnitude similarity (Xue, Zhang, Mou and Bovik, IEEE TIP 2014);
`sum`, the three in deviations of held-out good images. Feature detectors have one map, `distance`.
Reductions: `mean`; `max` and `top1` (mean of the highest 1 %) of the map smoothed by a Gaussian of
1/64 of its side.
"""
from __future__ import annotations

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


def smooth(maps: np.ndarray) -> np.ndarray:
    """Gaussian of 1/64 of the side, at least one cell: [N,h,w] -> [N,h,w], each map on its own."""
    sigma = max(1.0, maps.shape[-1] / 64)
    return ndimage.gaussian_filter(maps, (0, sigma, sigma))


def reduce(maps: np.ndarray, how: str) -> np.ndarray:
    """[N,h,w] -> float64 [N]: `mean`, `max`, or `top1`, the mean of the highest 1 % of the cells
    (at least one)."""
    values = maps.reshape(len(maps), -1)
    if how == "top1":
        count = max(1, round(values.shape[1] / 100))
        values = np.partition(values, values.shape[1] - count, axis=1)[:, -count:]
    reduced = values.max(axis=1) if how == "max" else values.mean(axis=1, dtype=np.float64)
    return reduced.astype(np.float64)


def scale_of(maps: Maps) -> dict[str, tuple[float, float]]:
    """Mean and deviation of each smoothed map over good images, which put maps on one scale.

    A deviation is at least 1e-6, as much as rounding to 8 bits is squared; a map that is the same
    everywhere, but for rounding, stays in its own unit.
    """
    def deviation(values: np.ndarray) -> float:
        found = float(values.std(dtype=np.float64))
        return max(found, 1e-6) if found > 1e-6 * np.abs(values).max() else 1.0

    smoothed = {name: smooth(values) for name, values in maps.items()}
    return {name: (float(values.mean(dtype=np.float64)), deviation(values))
            for name, values in smoothed.items()}


def smoothed_maps(maps: Maps, scale: Scale) -> dict[str, np.ndarray]:
    """The maps smoothed, and `sum`, at the size of the largest, where there is more than one."""
    smoothed = {name: smooth(values) for name, values in maps.items()}
    if len(maps) > 1:
        shape = max(values.shape for values in smoothed.values())
        smoothed["sum"] = sum((_resized(values, shape) - scale[name][0]) / scale[name][1]
                              for name, values in smoothed.items())
    return smoothed


def score_table(maps: Maps, smoothed: Maps) -> pd.DataFrame:
    """Every score of some images: a row an image, a column "map.reduction"."""
    # The mean is that of the map as it is; smoothing changes it by rounding only.
    return pd.DataFrame({
        f"{name}.{how}": reduce(maps[name] if how == "mean" and name in maps else smoothed[name],
                                how)
        for name in smoothed
        for how in REDUCTIONS
    })


def display_map(smoothed: Maps, score: str, size: int) -> np.ndarray:
    """The map that a score is read off ("ssim.max" -> ssim; of a user's own score the last one) at
    the images' own size: float32 [N,size,size]."""
    name = score.split(".")[0]
    values = smoothed[name if name in smoothed else list(smoothed)[-1]]
    values = torch.from_numpy(values).float()[:, None]
    return nn.functional.interpolate(values, size=size, mode="bilinear")[:, 0].numpy()


def _resized(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if values.shape == shape:
        return values
    resized = nn.functional.interpolate(torch.from_numpy(values)[:, None], size=shape[1:],
                                        mode="bilinear")
    return resized[:, 0].numpy()
