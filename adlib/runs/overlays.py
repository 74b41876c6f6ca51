"""Anomaly maps as pictures, fast enough to follow a slider: arrays in, arrays and data URIs out."""
from __future__ import annotations

import base64
import functools
import io
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from adlib.data import files

# deep blue = as expected, through red to yellow = not; even steps in lightness, unlike jet
HEAT = "plasma"
# outlines: where the map exceeds its level; the true defect
FOUND, TRUE = (0, 213, 255), (255, 255, 255)


def heat(map_: np.ndarray, low: float, high: float) -> np.ndarray:
    """A map [h,w] in colours, `low` and below blue, `high` and above yellow: uint8 [h,w,3]."""
    share = np.clip((map_ - low) / max(high - low, 1e-12), 0, 1)
    return _colours()[(share * 255 + 0.5).astype(np.uint8)]


def outlined(picture: np.ndarray, region: np.ndarray, colour: tuple[int, int, int] = FOUND, *,
             dashed: bool = False) -> np.ndarray:
    """A copy of uint8 [h,w,3] with the rim of bool [h,w] drawn into it, dark on its outer side so
    that it shows on any ground."""
    drawn = picture.copy()
    inner = region & ~ndimage.binary_erosion(region)
    drawn[ndimage.binary_dilation(region) & ~region] = 0
    if dashed:
        rows, columns = np.indices(region.shape)
        inner &= (rows + columns) // 4 % 2 == 0
    drawn[inner] = colour
    return drawn


def overlay(picture: np.ndarray, map_: np.ndarray, *, low: float, level: float,
            truth: np.ndarray | None = None) -> np.ndarray:
    """uint8 [h,w,3] tinted by its map [h,w] where that exceeds `low`, outlined where it exceeds
    `level`, and where the true defect is."""
    share = np.clip((map_ - low) / max(2 * (level - low), 1e-12), 0, 1)[..., None] * 0.8
    mixed = (picture * (1 - share) + heat(map_, low, low + 2 * (level - low)) * share + 0.5).astype(
        np.uint8)
    mixed = outlined(mixed, map_ > level, FOUND, dashed=True)
    return mixed if truth is None or not truth.any() else outlined(mixed, truth, TRUE)


def uri(picture: np.ndarray, size: int | None = None, *, exact: bool = False) -> str:
    """uint8 [h,w,3] as a data URI: JPEG, or PNG where it must be `exact`; scaled to `size` pixels a
    side if given."""
    image = Image.fromarray(picture)
    if size and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    kind, buffer = ("png", io.BytesIO()) if exact else ("jpeg", io.BytesIO())
    image.save(buffer, kind, **({} if exact else {"quality": 82}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def save(picture: np.ndarray, path: Path, side: int) -> None:
    """uint8 [h,w,3] as a JPEG file, enlarged to `side` pixels where it is smaller."""
    image = Image.fromarray(picture)
    if image.width < side:
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    with files.atomic_path(path) as temporary:
        image.save(temporary, "jpeg", quality=90)


@functools.cache
def _colours() -> np.ndarray:
    import matplotlib

    return (matplotlib.colormaps[HEAT](np.arange(256))[:, :3] * 255 + 0.5).astype(np.uint8)
