"""Where is it? Pixel AUROC, pixel average precision and AU-PRO of anomaly maps.

Conventions: maps [N,H,W], higher = more anomalous; masks bool [N,H,W], True = defective. Every pixel of every given image counts,
those of good images (all-False masks) too: the caller decides which images. Regions are the 8-connected components of each
mask. All pixels of one value cross the threshold together, and every distinct value is a threshold: nothing is binned.

AU-PRO (Bergmann et al., IJCV 2021): the mean over the regions of the share that is found, against the false positive rate
over all good pixels; the area from 0 to `limit`, linear between thresholds, divided by `limit`: in [0,1], 1 = perfect. At 0.30
it forgives much: 0.05 is what a line could bear.
"""
from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage

LIMITS = {"au_pro_30": 0.30, "au_pro_05": 0.05}


def measure(maps: np.ndarray, masks: np.ndarray) -> tuple[dict[str, float], pd.DataFrame]:
    """({pixel_auroc, pixel_ap, au_pro_30, au_pro_05}, all in [0,1], and a row a defect region).

    pixel_auroc: ties count half. pixel_ap: average precision, scikit-learn's definition (no interpolation). Regions: image (index),
    area (pixels), share (of the image), au_pro_30, au_pro_05 (its own; the metric is their mean). Raises ValueError for unequal
    shapes, values that are not finite, and masks without a defective or without a good pixel.
    """
    _check(maps, masks)
    block, good, bad = _blocks(maps, masks)
    below, hits = 1 - (np.cumsum(good) - good / 2) / good.sum(), np.cumsum(bad)
    precision = hits / (hits + np.cumsum(good))
    regions = _regions(block, masks, {name: _credit(good, limit) for name, limit in LIMITS.items()})
    return {"pixel_auroc": float(bad @ below / bad.sum()), "pixel_ap": float(bad @ precision / bad.sum()),
            **{name: float(regions[name].mean()) for name in LIMITS}}, regions


def au_pro(maps: np.ndarray, masks: np.ndarray, *, limit: float = 0.30) -> float:
    """AU-PRO up to a false positive rate of `limit`, in (0,1]; the result is in [0,1]. Raises ValueError as `measure` does."""
    _check(maps, masks)
    if not 0 < limit <= 1:
        raise ValueError(f"limit is {limit}; give a false positive rate above 0 and up to 1")
    block, good, _ = _blocks(maps, masks)
    return float(_regions(block, masks, {"pro": _credit(good, limit)})["pro"].mean())


def _blocks(maps: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each pixel's place among the distinct values (0 = the highest), and how many good and bad pixels each value has."""
    _, block = np.unique(-maps.ravel(), return_inverse=True)
    block = block.reshape(maps.shape)
    count = int(block.max()) + 1
    return block, np.bincount(block[~masks], minlength=count), np.bincount(block[masks], minlength=count)


def _credit(good: np.ndarray, limit: float) -> np.ndarray:
    """What a defective pixel of each value adds to its region's area under the curve, in [0,1].

    A region's curve is the sum of its pixels' steps; a step rises from `before` to `after` while its value crosses the
    threshold, then stays. So the region's area is the mean over its pixels of the area under each one's step, up to the limit.
    """
    after = np.cumsum(good) / good.sum()  # false positive rate with this value and all above it called
    before = after - good / good.sum()
    width = np.where(good > 0, after - before, 1.0)
    reached = np.clip(limit - before, 0, None)
    credit = np.where(after <= limit, (after - before) / 2 + (limit - after), reached**2 / (2 * width)) / limit
    return np.where(before >= limit, 0.0, np.clip(credit, 0, 1))


def _regions(block: np.ndarray, masks: np.ndarray, credits_of: dict[str, np.ndarray]) -> pd.DataFrame:
    rows = []
    for i, mask in enumerate(masks):
        components, count = ndimage.label(mask, structure=np.ones((3, 3)))
        for number, box in enumerate(ndimage.find_objects(components, max_label=count), 1):
            inside = components[box] == number
            rows.append({"image": i, "area": int(inside.sum()), "share": float(inside.sum() / mask.size),
                         **{name: float(credit[block[i][box][inside]].mean()) for name, credit in credits_of.items()}})
    return pd.DataFrame(rows)


def _check(maps: np.ndarray, masks: np.ndarray) -> None:
    if maps.shape != masks.shape or maps.ndim != 3 or masks.dtype != bool:
        raise ValueError(f"maps {maps.shape} and masks {masks.shape} ({masks.dtype}) must both be [N,H,W], the masks bool")
    if not np.isfinite(maps).all():
        raise ValueError("the maps hold values that are not finite")
    if not masks.any() or masks.all():
        raise ValueError(f"the masks hold no {'defective' if not masks.any() else 'good'} pixel")
