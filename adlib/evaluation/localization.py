"""Where is it? Pixel AUROC, pixel average precision and AU-PRO of anomaly maps.

Conventions: maps [N,H,W], higher = more anomalous; masks bool [N,H,W], True = defective; or
sequences of [H,W] of any sizes. They are gone through one by one: memory does not grow with their
number. Every pixel of every given image counts, those of good images (all-False masks) too: the
caller decides which images, and by `areas`, bool of the same shapes, which pixels. Regions are the
8-connected components of each mask. All pixels of one value cross the threshold together, and every
distinct value of a defective pixel is a threshold; beyond LEVELS of them, every second one.

AU-PRO (Bergmann et al., IJCV 2021): the mean over the regions of the share that is found, against
the false positive rate over all good pixels; the area from 0 to `limit`, linear between thresholds,
divided by `limit`: in [0,1], 1 = perfect. At 0.30 it forgives much: 0.05 is what a line could bear.
"""
from __future__ import annotations

import typing

import numpy as np
import pandas as pd
from scipy import ndimage

from adlib.data.lazy import Lazy
from adlib.evaluation.auroc import OneClassError

LIMITS = {"au_pro_30": 0.30, "au_pro_05": 0.05}
LEVELS = 4_000_000  # thresholds at most: then a rate is off by one in as many defective pixels
Pixels = np.ndarray | typing.Sequence[np.ndarray]


def measure(maps: Pixels, masks: Pixels, areas: Pixels | None = None
            ) -> tuple[dict[str, float], pd.DataFrame]:
    """({pixel_auroc, pixel_ap, au_pro_30, au_pro_05}, all in [0,1], and a row a defect region).

    pixel_auroc: ties count half. pixel_ap: average precision, scikit-learn's definition (no
    interpolation). Regions: image (index), area (pixels), share (of the image), au_pro_30,
    au_pro_05 (its own; the metric is their mean). Raises ValueError for unequal shapes and values
    that are not finite, OneClassError for masks without a defective or without a good pixel.
    """
    counts = [len(one) for one in (maps, masks, areas) if one is not None]
    if len(set(counts)) > 1:
        raise ValueError(f"{counts} maps, masks and areas must be of the same images")
    if areas is not None:
        given, masks = masks, Lazy(len(masks), lambda i: given[i] & areas[i])
    levels, above, at_least, bad, good = _counted(maps, masks, areas)
    hits = np.cumsum(bad[::-1])[::-1]  # defective pixels at or above each level
    regions = _regions(maps, masks, levels, {
        name: _credit(above / good, at_least / good, limit) for name, limit in LIMITS.items()})
    return {"pixel_auroc": float(bad @ (1 - (above + at_least) / 2 / good) / bad.sum()),
            "pixel_ap": float(bad @ (hits / (hits + at_least)) / bad.sum()),
            **{name: float(regions[name].mean()) for name in LIMITS}}, regions


def _counted(maps: Pixels, masks: Pixels, areas: Pixels | None
             ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """The distinct values of the defective pixels, ascending; how many good pixels lie above each,
    and at or above it; how many defective ones have it; and the number of good pixels.

    Only these values move a number of this module, and a good pixel counts by where it lies among
    them. So the images are gone through one by one, and no sort of all pixels is needed.
    """
    levels, waiting, kept = np.empty(0), [], 0
    for one, mask in zip(maps, masks, strict=True):
        _check(one, mask)
        waiting.append(np.unique(one[mask]))
        kept += len(waiting[-1])
        if kept > LEVELS:
            levels, waiting, kept = _thinned(levels, waiting), [], 0
    levels = _thinned(levels, waiting)
    above, at_least = (np.zeros(len(levels) + 1, np.int64) for _ in range(2))
    bad, total = np.zeros(len(levels), np.int64), 0
    for i, (one, mask) in enumerate(zip(maps, masks, strict=True)):
        good = np.sort(one[~mask if areas is None else areas[i] & ~mask])
        total += len(good)
        above += np.bincount(np.searchsorted(levels, good, side="left"), minlength=len(levels) + 1)
        at_least += np.bincount(np.searchsorted(levels, good, side="right"),
                                minlength=len(levels) + 1)
        bad += np.bincount(_level(levels, one[mask]), minlength=len(levels))
    if not bad.any() or not total:
        raise OneClassError(f"the masks hold no {'good' if bad.any() else 'defective'} pixel")
    above, at_least = (np.cumsum(counts[:0:-1])[::-1] for counts in (above, at_least))
    return levels, above, at_least, bad, total


def _thinned(levels: np.ndarray, more: list[np.ndarray]) -> np.ndarray:
    levels = np.unique(np.concatenate([levels, *more])) if len(levels) or more else levels
    while len(levels) > LEVELS:
        levels = levels[::2]
    return levels


def _level(levels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The place of each value among the levels; of one that was thinned out, the next lower."""
    return np.searchsorted(levels, values, side="right") - 1


def _credit(before: np.ndarray, after: np.ndarray, limit: float) -> np.ndarray:
    """What a defective pixel of each value adds to its region's area under the curve, in [0,1].

    A region's curve is the sum of its pixels' steps; a step rises while the false positive rate
    goes from `before` (good pixels above its value) to `after` (those of that value, too), then
    stays. So the region's area is the mean over its pixels of the area under each one's step, up to
    the limit.
    """
    width = np.where(after > before, after - before, 1.0)
    reached = np.clip(limit - before, 0, None)
    credit = np.where(after <= limit,
                      (after - before) / 2 + (limit - after), reached**2 / (2 * width)) / limit
    return np.where(before >= limit, 0.0, np.clip(credit, 0, 1))


def _regions(maps: Pixels, masks: Pixels, levels: np.ndarray,
             credits_of: dict[str, np.ndarray]) -> pd.DataFrame:
    rows = []
    for i, (map_, mask) in enumerate(zip(maps, masks, strict=True)):
        components, count = ndimage.label(mask, structure=np.ones((3, 3)))
        for number, box in enumerate(ndimage.find_objects(components, max_label=count), 1):
            inside = components[box] == number
            place = _level(levels, map_[box][inside])
            rows.append({
                "image": i, "area": int(inside.sum()), "share": float(inside.sum() / mask.size),
                **{name: float(credit[place].mean()) for name, credit in credits_of.items()}})
    return pd.DataFrame(rows)


def _check(map_: np.ndarray, mask: np.ndarray) -> None:
    if map_.shape != mask.shape or map_.ndim != 2 or mask.dtype != bool:
        raise ValueError(f"a map {map_.shape} and its mask {mask.shape} ({mask.dtype}) must both "
                         "be [H,W], the mask bool")
    if not np.isfinite(map_).all():
        raise ValueError("the maps hold values that are not finite")
