"""Anomaly maps as pictures, fast enough to follow a slider: arrays in, arrays and data URIs out."""
from __future__ import annotations

import base64
import functools
import io

import numpy as np
from PIL import Image
from scipy import ndimage

# deep blue = as expected, through red to yellow = not; even steps in lightness, unlike jet
HEAT = "plasma"
FOUND = (0, 213, 255)  # outlines where the map exceeds its level


def heat(map_: np.ndarray, low: float, level: float) -> np.ndarray:
    """A map [h,w] in the run's colours, `low` and below blue, twice as far as `level` and above
    yellow: uint8 [h,w,3]."""
    return _colours()[(_share(map_, low, level) * 255 + 0.5).astype(np.uint8)]


def layer(map_: np.ndarray, low: float, level: float) -> np.ndarray:
    """The same to be laid over its input: uint8 [h,w,4], clear at `low` and below."""
    alpha = (_share(map_, low, level) * 0.8 * 255 + 0.5).astype(np.uint8)
    return np.dstack([heat(map_, low, level), alpha])


def overlay(picture: np.ndarray, map_: np.ndarray, *, low: float, level: float) -> np.ndarray:
    """uint8 [h,w,3] tinted by its map [h,w] where that exceeds `low`, and outlined where it exceeds
    `level`, dashed, dark on the outer side so that it shows on any ground."""
    tint = layer(map_, low, level)
    alpha = tint[..., 3:] / 255
    mixed = (picture * (1 - alpha) + tint[..., :3] * alpha + 0.5).astype(np.uint8)
    region = map_ > level
    mixed[ndimage.binary_dilation(region) & ~region] = 0
    rows, columns = np.indices(region.shape)
    mixed[region & ~ndimage.binary_erosion(region) & ((rows + columns) // 4 % 2 == 0)] = FOUND
    return mixed


def encoded(picture: np.ndarray | Image.Image) -> bytes:
    """uint8 [h,w,3] or [h,w,4] as a WebP file: half a JPEG file of a photograph, a third of a
    map's."""
    image, buffer = Image.fromarray(np.asarray(picture)), io.BytesIO()
    image.save(buffer, "webp", quality=82)
    return buffer.getvalue()


def uri(picture: np.ndarray, size: int | None = None) -> str:
    """The same as a data URI; scaled to `size` pixels a side if given."""
    if size and picture.shape[:2] != (size, size):
        picture = np.asarray(Image.fromarray(picture).resize((size, size),
                                                             Image.Resampling.LANCZOS))
    return data_uri(encoded(picture))


def data_uri(content: bytes) -> str:
    """A file of `encoded`, to be shown without one."""
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"


def jpeg(picture: np.ndarray, size: tuple[int, int], side: int) -> bytes:
    """uint8 [h,w,3] as a JPEG file in the shape of a `size`, (height, width), `side` pixels on its
    longer side."""
    height, width = (max(1, round(side * one / max(size))) for one in size)
    buffer = io.BytesIO()
    Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC).save(
        buffer, "jpeg", quality=90)
    return buffer.getvalue()


def _share(map_: np.ndarray, low: float, level: float) -> np.ndarray:
    return np.clip((map_ - low) / max(2 * (level - low), 1e-12), 0, 1)


@functools.cache
def _colours() -> np.ndarray:
    import matplotlib

    return (matplotlib.colormaps[HEAT](np.arange(256))[:, :3] * 255 + 0.5).astype(np.uint8)
