"""Where is it? Pixel AUROC, pixel average precision and AU-PRO of anomaly maps.

Conventions: maps [N,H,W], higher = more anomalous; masks bool [N,H,W], True = defective. Every
pixel of every given image counts, those of good images (all-False masks) too: the caller decides
which images. Regions are the 8-connected components of each mask. All pixels of one value cross the
threshold together, and every distinct value is a threshold: nothing is binned.

AU-PRO (Bergmann et al., IJCV 2021): the mean over the regions of the share that is found, against
the false positive rate over all good pixels; the area from 0 to `limit`, linear between thresholds,
divided by `limit`: in [0,1], 1 = perfect. At 0.30 it forgives much: 0.05 is what a line could bear.
"""
from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage

LIMITS = {"au_pro_30": 0.30, "au_pro_05": 0.05}


def measure(maps: np.ndarray, masks: np.ndarray) -> tuple[dict[str, float], pd.DataFrame]:
    """({pixel_auroc, pixel_ap, au_pro_30, au_pro_05}, all in [0,1], and a row a defect region).

    pixel_auroc: ties count half. pixel_ap: average precision, scikit-learn's definition (no
    interpolation). Regions: image (index), area (pixels), share (of the image), au_pro_30,
    au_pro_05 (its own; the metric is their mean). Raises ValueError for unequal shapes, values that
    are not finite, and masks without a defective or without a good pixel.
    """
    _check(maps, masks)
    levels, above, at_least = _good_above(maps, masks)
    good = masks.size - np.count_nonzero(masks)
    bad = np.bincount(np.searchsorted(levels, maps[masks]), minlength=len(levels))
    hits = np.cumsum(bad[::-1])[::-1]  # defective pixels at or above each level
    regions = _regions(
        maps, masks, levels,
        {name: _credit(above / good, at_least / good, limit)
         for name, limit in LIMITS.items()})
    return {
        "pixel_auroc": float(bad @ (1 - (above + at_least) / 2 / good) / bad.sum()),
        "pixel_ap": float(bad @ (hits / (hits + at_least)) / bad.sum()),
        **{name: float(regions[name].mean())
           for name in LIMITS}
    }, regions


def au_pro(maps: np.ndarray, masks: np.ndarray, *, limit: float = 0.30) -> float:
    """AU-PRO up to a false positive rate of `limit`, in (0,1]; the result is in [0,1]. Raises
    ValueError as `measure` does."""
    _check(maps, masks)
    if not 0 < limit <= 1:
        raise ValueError(f"limit is {limit}; give a false positive rate above 0 and up to 1")
    levels, above, at_least = _good_above(maps, masks)
    good = masks.size - np.count_nonzero(masks)
    return float(
        _regions(maps, masks, levels,
                 {"pro": _credit(above / good, at_least / good, limit)})["pro"].mean())


def _good_above(maps: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct values of the defective pixels, ascending, and how many good pixels lie above
    each, and at or above it.

    Only these values move a number of this room, and a good pixel counts by where it lies among
    them. So the images are gone through one by one, and no sort of all pixels is needed.
    """
    levels = np.unique(maps[masks])
    above, at_least = (np.zeros(len(levels) + 1, np.int64) for _ in range(2))
    for one, mask in zip(maps, masks, strict=True):
        good = np.sort(one[~mask])
        above += np.bincount(np.searchsorted(levels, good, side="left"), minlength=len(levels) + 1)
        at_least += np.bincount(np.searchsorted(levels, good, side="right"),
                                minlength=len(levels) + 1)
    return levels, *(np.cumsum(counts[:0:-1])[::-1] for counts in (above, at_least))


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


def _regions(maps: np.ndarray, masks: np.ndarray, levels: np.ndarray,
             credits_of: dict[str, np.ndarray]) -> pd.DataFrame:
    rows = []
    for i, mask in enumerate(masks):
        components, count = ndimage.label(mask, structure=np.ones((3, 3)))
        for number, box in enumerate(ndimage.find_objects(components, max_label=count), 1):
            inside = components[box] == number
            place = np.searchsorted(levels, maps[i][box][inside])
            rows.append({
                "image": i, "area": int(inside.sum()), "share": float(inside.sum() / mask.size),
                **{name: float(credit[place].mean())
                   for name, credit in credits_of.items()}
            })
    return pd.DataFrame(rows)


def _check(maps: np.ndarray, masks: np.ndarray) -> None:
    if maps.shape != masks.shape or maps.ndim != 3 or masks.dtype != bool:
        raise ValueError(
            f"maps {maps.shape} and masks {masks.shape} ({masks.dtype}) must both be [N,H,W], the "
            f"masks bool")
    if not np.isfinite(maps).all():
        raise ValueError("the maps hold values that are not finite")
    if not masks.any() or masks.all():
        raise ValueError(f"the masks hold no {'defective' if not masks.any() else 'good'} pixel")
