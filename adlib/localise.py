"""Where is it? Pixel AUROC, pixel average precision and AU-PRO of anomaly maps.

Conventions: maps [N,H,W], higher = more anomalous; masks bool [N,H,W], True = defective. Every pixel of every given image counts,
those of good images (all-False masks) too: the caller decides which images. Regions are the 8-connected components of each
mask. All pixels of one value cross the threshold together, and every distinct value is a threshold: nothing is binned.

AU-PRO (Bergmann et al., IJCV 2021): the mean over the regions of the share that is found, against the false positive rate
over all good pixels; the area from 0 to `limit`, linear between thresholds, divided by `limit`: in [0,1], 1 = perfect.
"""
from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage
from sklearn.metrics import average_precision_score

from adlib import metrics


def pixel_auroc(maps: np.ndarray, masks: np.ndarray) -> float:
    """AUROC of all pixels, in [0,1]; ties count half. Raises ValueError as `regions` does."""
    _check(maps, masks)
    return metrics.auroc(masks.ravel().astype(int), maps.ravel().astype(float))


def pixel_average_precision(maps: np.ndarray, masks: np.ndarray) -> float:
    """Average precision of all pixels, in [0,1] (scikit-learn's definition: no interpolation). Raises ValueError as `regions` does."""
    _check(maps, masks)
    return float(average_precision_score(masks.ravel(), maps.ravel()))


def au_pro(maps: np.ndarray, masks: np.ndarray, *, limit: float = 0.30) -> float:
    """AU-PRO up to a false positive rate of `limit`, in [0,1]. Raises ValueError as `regions` does."""
    return float(regions(maps, masks, limit=limit)["pro"].mean())


def regions(maps: np.ndarray, masks: np.ndarray, *, limit: float = 0.30) -> pd.DataFrame:
    """A row a defect region: image (index), area (pixels), share (of the image), pro; AU-PRO is the mean of `pro`.

    Raises ValueError for unequal shapes, values that are not finite, and masks without a defective or without a good pixel.
    """
    _check(maps, masks)
    if not 0 < limit <= 1:
        raise ValueError(f"limit is {limit}; give a false positive rate above 0 and up to 1")
    _, block = np.unique(-maps.ravel(), return_inverse=True)  # 0 = the highest value
    block = block.reshape(maps.shape)
    good = np.bincount(block[~masks], minlength=block.max() + 1)
    after = np.cumsum(good) / good.sum()  # false positive rate with this value and all above it called
    before = after - good / good.sum()
    # A region's curve is the sum of its pixels' steps; a step in a block rises from `before` to `after`, then stays. So the area
    # under the curve is the mean over the region's pixels of the area under each one's step, up to the limit.
    width = np.where(good > 0, after - before, 1.0)
    reached = np.clip(limit - before, 0, None)
    credit = np.where(after <= limit, (after - before) / 2 + (limit - after), reached**2 / (2 * width)) / limit
    credit = np.where(before >= limit, 0.0, np.clip(credit, 0, 1))
    rows = []
    for i, mask in enumerate(masks):
        components, count = ndimage.label(mask, structure=np.ones((3, 3)))
        for number, box in enumerate(ndimage.find_objects(components, max_label=count), 1):
            inside = components[box] == number
            rows.append({"image": i, "area": int(inside.sum()), "share": float(inside.sum() / mask.size),
                         "pro": float(credit[block[i][box][inside]].mean())})
    return pd.DataFrame(rows)


def _check(maps: np.ndarray, masks: np.ndarray) -> None:
    if maps.shape != masks.shape or maps.ndim != 3 or masks.dtype != bool:
        raise ValueError(f"maps {maps.shape} and masks {masks.shape} ({masks.dtype}) must both be [N,H,W], the masks bool")
    if not np.isfinite(maps).all():
        raise ValueError("the maps hold values that are not finite")
    if not masks.any() or masks.all():
        raise ValueError(f"the masks hold no {'defective' if not masks.any() else 'good'} pixel")
