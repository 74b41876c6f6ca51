"""How a picture is laid into what a detector sees, and which of its pixels count.

A pixel does not count where a mask says so (a category's folders roi and ignore), and beyond the
picture's rim. The first is painted in one colour before anything is resized, so that what is
ignored reaches no number at all; beyond the rim the picture is mirrored. A fourth channel, 255
where a pixel counts, goes with it from the file to the scores: detectors see three and, if their
`fit` takes it, the `area`. Of fit tile an image set has two sides: whole pictures squeezed
(`tensor`), and pictures of their own sizes, decoded one by one (`given`, what a detector is given).
"""
from __future__ import annotations

import dataclasses
import hashlib
import typing
from pathlib import Path

import numpy as np
from PIL import Image

from adlib.config import InputError
from adlib.data import files

AUTO = Path("roi: auto")  # stands for the mask that is found (data/background)
FILL = (124, 116, 104)  # ImageNet's mean colour, which is 0 to a pretrained network
CELL = 8  # pixels: squares of fit tile begin at multiples of it, where the features' cells begin
Size = tuple[int, int]  # height, width


class Box(typing.NamedTuple):
    """Where a picture lies in its frame."""

    top: int
    left: int
    height: int
    width: int

    @property
    def inside(self) -> tuple[slice, slice]:
        """It, of an array of the frame."""
        return (slice(self.top, self.top + self.height), slice(self.left, self.left + self.width))


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """fit: squeeze | pad | tile. size: pixels a side; of fit tile, of a square, and a picture is
    laid into as much as it takes, at `scale` pixels for each of its own. looked_at: bool [h,w],
    stretched over every picture; None = all of it."""

    fit: str
    size: int
    scale: float = 1.0
    looked_at: np.ndarray | None = None

    @classmethod
    def of(cls, size: int | Frame) -> Frame:
        """A square of so many pixels a side, which pictures are squeezed into; a frame as it is."""
        return cls("squeeze", size) if isinstance(size, int) else size

    @property
    def marks(self) -> bool:
        """Does a fourth channel go with its pictures?"""
        return self.fit != "squeeze" or self.looked_at is not None

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from other frames in a cache."""
        if not self.marks:
            return (self.size, )
        seen = None if self.looked_at is None else (
            self.looked_at.shape, hashlib.sha256(np.packbits(self.looked_at)).hexdigest())
        return ("mirrored", self.fit, self.size, self.scale, seen)

    def place(self, height: int, width: int) -> tuple[Size, Box]:
        """The frame of a picture, and where it lies there: in the middle."""
        if self.fit == "squeeze":
            return (self.size, self.size), Box(0, 0, self.size, self.size)
        scale = self.size / max(height, width) if self.fit == "pad" else self.scale
        inner = [max(1, round(side * scale)) for side in (height, width)]
        outer = [self.size if self.fit == "pad" else max(self.size, -(-side // CELL) * CELL)
                 for side in inner]
        top, left = ((all_ - side) // 2 for all_, side in zip(outer, inner, strict=True))
        return (outer[0], outer[1]), Box(top, left, *inner)

    def lay(self, picture: Image.Image) -> np.ndarray:
        """An upright RGB picture -> uint8 [3,h,w], or [4,h,w] where the frame `marks`; resized with
        antialiasing (Pillow's bilinear). Raises ValueError where none of its pixels counts."""
        (height, width), box = self.place(picture.height, picture.width)
        if not self.marks:
            return np.asarray(_resized(picture, box)).transpose(2, 0, 1)
        counts = np.ones((picture.height, picture.width), bool)
        if self.looked_at is not None:
            counts = stretched(self.looked_at, counts.shape)
            painted = np.array(picture)
            painted[~counts] = FILL
            picture = Image.fromarray(painted)
        area = np.asarray(_resized(Image.fromarray(counts.astype(np.uint8) * 255), box))
        area = np.where(area > 127, 255, 0).astype(np.uint8)  # at least half of it counts
        if not area.any():
            raise ValueError("nothing is left of what roi and ignore show of it, at this size")
        rim = ((box.top, height - box.top - box.height), (box.left, width - box.left - box.width))
        # Mirrored: an edge that no picture has would be what a detector learns, and looks at.
        resized, laid = _resized(picture, box), np.pad(area[None], ((3, 0), *rim))
        for channel in range(3):
            laid[channel] = np.pad(resized.getchannel(channel), rim, mode="symmetric")
        return laid


def unlaid(values: np.ndarray, frame: Frame, size: Size) -> np.ndarray:
    """A map of a laid picture, float [h,w] of any resolution, on the picture's own pixels: bilinear
    [H,W]."""
    outer, box = frame.place(*size)
    edges = [(start * side / all_, (start + length) * side / all_) for start, length, side, all_ in
             zip((box.left, box.top), (box.width, box.height), values.shape[::-1], outer[::-1],
                 strict=True)]
    (left, right), (top, bottom) = edges
    picture = Image.fromarray(values.astype(np.float32))
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR,
                                     box=(left, top, right, bottom)))


def stretched(mask: np.ndarray, size: Size) -> np.ndarray:
    """bool [h,w] -> bool [H,W]: each pixel takes the value at its middle."""
    rows, columns = ((2 * np.arange(n) + 1) * m // (2 * n)
                     for n, m in zip(size, mask.shape, strict=True))
    return mask[rows[:, None], columns]


def looked_at(roi: typing.Sequence[Path], ignore: typing.Sequence[Path],
              read: typing.Callable[[Path], np.ndarray], found: np.ndarray | None = None
              ) -> np.ndarray | None:
    """What masks leave to be looked at: all that any of `roi` shows (everything where there is
    none) without what any of `ignore` shows. bool [h,w] at the size of the largest mask; None where
    there are no masks.

    Args:
        read: a mask's file -> bool [h,w]. found: one more mask of `roi`, bool [h,w], or None.

    Raises:
        InputError: a mask that cannot be read; masks that leave nothing.
    """
    masks = {}
    for path in (*roi, *ignore):
        with files.saying(f"the mask {path} cannot be read"):
            masks[path] = read(path)
    if found is not None:
        roi, masks = (*roi, AUTO), masks | {AUTO: found}
    if not masks:
        return None
    size = max((mask.shape for mask in masks.values()), key=lambda shape: shape[0] * shape[1])
    shown, hidden = ([stretched(masks[path], size) for path in paths] for paths in (roi, ignore))
    left = np.any(shown, axis=0) if shown else np.ones(size, bool)
    for mask in hidden:
        left = left & ~mask
    if not left.any():
        raise InputError(f"{', '.join(map(str, masks))} leave nothing to be looked at; white is "
                         "what roi shows and what ignore hides")
    return left


def keep(looked_at: np.ndarray | None, path: Path) -> None:
    """Write what is looked at beside a run's results, white on black; None leaves no file."""
    if looked_at is None:
        path.unlink(missing_ok=True)
        return
    with files.atomic_path(path) as temporary:
        Image.fromarray(looked_at).save(temporary)


def kept(path: Path) -> np.ndarray | None:
    """What `keep` has written: bool [h,w], None where there is no file. InputError for one that
    cannot be read."""
    if not path.exists():
        return None
    with (files.saying(f"the mask {path} cannot be read"),
          Image.open(path, formats=["PNG"]) as picture):
        return np.asarray(picture.convert("L")) > 0


def _resized(picture: Image.Image, box: Box) -> Image.Image:
    # Across, then down: left to itself, Pillow takes the other order for some tall pictures from
    # version 13 on, and every fifth pixel is a grey level off.
    for shape in ((box.width, picture.height), (box.width, box.height)):
        if picture.size != shape:  # Pillow would make a copy
            picture = picture.resize(shape, Image.Resampling.BILINEAR)
    return picture
