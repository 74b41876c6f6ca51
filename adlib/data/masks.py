"""Ground-truth masks as tensors: which pixels are defective, and what had to be assumed to say so.

A note is a code, the same in metrics.json and as a message:

    empty     no pixel is defective
    most      more than half of the pixels are: is it inverted?
    levels    more than two values, so that "above 0" (lossy: above half) was a choice
    exif      the image is turned by its EXIF tag, and the mask would fit either way: taken as shown
    turned    the mask had the sensor's orientation, and was turned as the image is
    kept      defects so small that each keeps one cell, its largest (a count)
"""
from __future__ import annotations

import functools
import typing
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage, sparse

from adlib.config import InputError
from adlib.data import files, reading
from adlib.data.frame import Frame, stretched

LOSSY = {"JPEG", "JPEG2000", "WEBP", "AVIF", "HEIF"}
COLUMNS = 1024  # of a mask, summed at once
Notes = typing.Counter[str]


def load(pictures: typing.Sequence[Path], masks: typing.Sequence[Path | None],
         size: int | Frame) -> tuple[torch.Tensor, list[Notes]]:
    """The masks of images -> (bool [N,size,size], True = defective, the notes of each); None = all
    good. size: a square's side, or the frame that the images are laid into.

    Raises:
        InputError: masks cannot be read or do not have their image's shape; each is named.
    """
    frame = Frame.of(size)
    side = frame.size

    def load_one(picture: Path, mask: Path | None) -> tuple[np.ndarray, Notes]:
        grid = np.zeros((side, side), bool)
        if mask is None:
            return grid, Counter()
        try:
            pixels, notes = read(mask, picture)
            _, box = frame.place(*pixels.shape)
            inside = grid[box.inside]
            inside[:], notes["kept"] = on_grid(pixels, inside.shape)
        except Exception as error:  # whatever a decoder trips over, the file is named
            problems.append((mask, files.reason_of(error)))
            return load_one(picture, None)
        return grid, +notes

    problems: list[tuple[Path, str]] = []
    loaded = files.in_threads(load_one, pictures, masks)
    if problems:
        said = "; ".join(f"{mask} ({why})" for mask, why in sorted(problems))
        raise InputError(f"{len(problems)} masks cannot be used: {said}; mend or remove them",
                         "unusable", problems=sorted(problems))
    grids = np.stack([grid for grid, _ in loaded]) if loaded else np.zeros((0, side, side), bool)
    return torch.from_numpy(grids), [notes for _, notes in loaded]


def read(path: Path, picture: Path) -> tuple[np.ndarray, Notes]:
    """A mask at its own size, turned as its image is shown -> (bool [H,W], notes).

    Defective is what is above 0 in any channel, alpha laid over black; in a lossy format, whose
    compression rings about the edges, what is above half of the mask's maximum.

    Raises:
        OSError, ValueError: it is no image, or has another shape than `picture`.
    """
    shown, tag = _shown(picture)
    mask, lossy = _upright(path)
    mask, turned = _turned(mask, shown, tag)
    pixels, grey = _marked(mask, lossy)
    share = pixels.mean()
    noted = {"empty": share == 0, "most": share > 0.5, "levels": len(np.unique(grey)) > 2,
             turned: bool(turned)}
    return pixels, Counter(note for note, holds in noted.items() if holds)


def native(picture: Path, mask: Path | None) -> np.ndarray:
    """The mask of an image at the image's own size, bool [H,W]; None = all good. Raises as
    `read`."""
    size = shown_size(picture)
    return np.zeros(size, bool) if mask is None else stretched(read(mask, picture)[0], size)


def shown_size(picture: Path) -> tuple[int, int]:
    """The height and width of an image as it is shown."""
    (width, height), _ = _shown(picture)
    return height, width


def region(path: Path) -> np.ndarray:
    """A mask of no picture's own (roi, ignore), as it is shown: bool [H,W], read as `read` does."""
    return _marked(*_upright(path))[0]


def _upright(path: Path) -> tuple[Image.Image, bool]:
    """A mask as it is shown; is its format lossy?"""
    with reading.opened(path) as mask:
        lossy = mask.format in LOSSY or mask.info.get("compression") == "jpeg"
        reading.load(mask, reading.ENTIRE, path)  # after which a TIFF has turned itself
        turn = reading.UPRIGHT.get(reading.orientation(mask))
        return mask if turn is None else mask.transpose(turn), lossy


def _marked(mask: Image.Image, lossy: bool) -> tuple[np.ndarray, np.ndarray]:
    """What is marked, bool [H,W], and the grey values that say so."""
    mask = reading.over_black(mask)
    grey = np.asarray(mask.convert("RGB") if mask.mode not in ("1", "L", "F") and
                      not mask.mode.startswith("I") else mask)
    grey = grey.max(axis=2) if grey.ndim == 3 else grey
    return grey > (grey.max() / 2 if lossy else 0), grey


def on_grid(pixels: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, int]:
    """bool [H,W] -> (bool of another shape, how many defects would have been lost).

    A cell is defective where at least half of its area is. A defect (an 8-connected component) of
    which no cell would be left keeps the one that holds most of it.
    """
    (rows, tall), (columns, broad) = (
        _cells(n, size) for n, size in zip(pixels.shape, shape, strict=True))
    grid = 2 * _covered(_covered(pixels, rows, tall).T, columns, broad).T >= pixels.size
    labels, count = ndimage.label(pixels, structure=np.ones((3, 3)))
    touched = functools.reduce(np.logical_or, [grid[i][:, j] for i in rows.T for j in columns.T])
    left = np.zeros(count + 1, bool)
    left[labels[touched]] = True
    y, x = np.nonzero(pixels & ~left[labels])
    if not len(y):
        return grid, 0
    # how much of each lost defect lies in each cell that it touches; the largest is kept
    cell = rows[y][:, :, None] * shape[1] + columns[x][:, None, :]
    area = tall[y][:, :, None] * broad[x][:, None, :]
    keys, which = np.unique(labels[y, x][:, None, None] * grid.size + cell, return_inverse=True)
    defect, cell = np.divmod(keys, grid.size)
    order = np.lexsort((cell, -np.bincount(which.ravel(), area.ravel()), defect))
    largest = order[np.unique(defect[order], return_index=True)[1]]
    grid.flat[cell[largest]] = True
    return grid, len(largest)


def _shown(picture: Path) -> tuple[tuple[int, int], int | None]:
    """The width and height of an image as it is shown, and its EXIF tag."""
    with reading.opened(picture) as image:
        return reading.shown_size(image), reading.orientation(image)


def _turned(mask: Image.Image, shown: tuple[int, int], tag: int | None) -> tuple[Image.Image, str]:
    """The mask as its image is shown, and a note ("" = there is nothing to say)."""
    sensor = shown[::-1] if tag in reading.SWAPPED else shown
    exact = mask.size in (shown, sensor)
    as_shown, as_sensor = (mask.size == size if exact else alike(mask.size, size)
                           for size in (shown, sensor))
    if as_shown:
        return mask, "exif" if as_sensor and tag in reading.UPRIGHT else ""
    if as_sensor:
        return mask.transpose(reading.UPRIGHT[tag]), "turned"
    raise ValueError(f"its {mask.width}x{mask.height} pixels do not have the shape of the image's "
                     f"{shown[0]}x{shown[1]}")


def alike(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one is the other at another scale, but for the rounding of its sides."""
    return 2 * abs(size[0] * other[1] - size[1] * other[0]) <= sum(other)


def _cells(n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of `size` cells each of n pixels touches along an axis, and how much of the pixel lies
    in each: two of [n,k], in whole numbers, of which a pixel has `size` and a cell `n`."""
    pixel = np.arange(n)[:, None]
    first, last = pixel * size // n, -(-(pixel + 1) * size // n) - 1
    cells = np.minimum(first + np.arange((last - first).max() + 1), last)
    area = (np.minimum((pixel + 1) * size, (cells + 1) * n) - np.maximum(pixel * size, cells * n))
    area[:, 1:][np.diff(cells) == 0] = 0  # the last, named again
    return cells, area


def _covered(values: np.ndarray, cells: np.ndarray, area: np.ndarray) -> np.ndarray:
    """The sums of values [n,m] in the cells of the first axis, weighted by area: [size,m]."""
    n, k = cells.shape
    weights = sparse.csr_array((area.ravel(), (cells.ravel(), np.repeat(np.arange(n), k))))
    return np.hstack([weights @ values[:, at:at + COLUMNS].astype(np.int64)
                      for at in range(0, values.shape[1], COLUMNS)])
