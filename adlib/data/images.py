"""Images as tensors: decoded and resized once with all cores, kept as uint8 on disk, and mapped
into memory after that."""
from __future__ import annotations

import contextlib
import hashlib
import os
import typing
from pathlib import Path

import numpy as np
import torch

from adlib.config import InputError, cache_dir, log
from adlib.data import files, layout, reading
from adlib.data.frame import Frame
from adlib.data.lazy import Lazy
from adlib.data.reading import GreyRange

# Kept on disk, the oldest go first: of whole sets (a study looks at all of its own in turn, so that
# too few would be decoded at each start), and of pictures for tiles.
KEPT_SETS, KEPT_PICTURES = 64e9, 16e9


def load(paths: typing.Sequence[Path], size: int | Frame, grey_range: GreyRange | None = None,
         tiled: Frame | None = None) -> torch.Tensor:
    """Image files -> uint8 [N,3,size,size], or [N,4,S,S] in a frame that marks what counts,
    memory-mapped from the cache; decoded there first if need be.

    The cache is keyed by the files' content: a renamed or copied image is never decoded twice, and
    a changed one never mistaken. Several processes may do this at once.

    Args:
        grey_range: of images of more than 8 bits, as `grey_range` finds it.
        tiled: a frame of fit tile, whose `Pictures` are kept from the same decoding.

    Raises:
        InputError: files cannot be read or change meanwhile; each is named, and nothing is kept.
    """
    frame = Frame.of(size)
    shape = (len(paths), 3 + frame.marks, frame.size, frame.size)
    if not paths:
        return torch.zeros(shape, dtype=torch.uint8)
    # before the content is hashed, which is before it is decoded
    stamps = [files.stamp_of(path) for path in paths]
    cached = cache_dir() / "images" / f"{_key(paths, *frame.key, grey_range)}.npy"
    array = files.open_mapped(cached, shape, np.uint8)
    if array is None:
        _decode_all(paths, stamps, [frame, tiled] if tiled else [frame], grey_range, cached, shape)
        array = files.open_mapped(cached, shape, np.uint8)
        if array is None:
            raise InputError(f"{cached} cannot be read back; run this again, or give another "
                             "ADLIB_CACHE")
        files.forget(cached, KEPT_SETS, array.nbytes)
    return torch.from_numpy(array)


class Pictures(Lazy):
    """Image files at the size of a frame of fit tile, each decoded when it is first looked at:
    uint8 [4,h,w] each, memory-mapped, the fourth channel 255 where a pixel counts."""

    def __init__(self, paths: typing.Sequence[Path], frame: Frame,
                 grey_range: GreyRange | None) -> None:
        self.n, self.paths, self.frame, self.grey_range = len(paths), paths, frame, grey_range

    def make(self, i: int) -> torch.Tensor:
        path = self.paths[i]
        stamp, kept = files.stamp_of(path), _kept(path, self.frame, self.grey_range)
        array = files.open_mapped(kept, None, np.uint8)
        if array is None:
            with files.saying(f"{path} cannot be read"):
                array = reading.read(path, self.frame, self.grey_range)
            _keep(kept, array, path, stamp)
        return torch.from_numpy(np.ascontiguousarray(array))

    def select(self, indices: typing.Iterable[int]) -> Pictures:
        """Those of some indices, in that order."""
        return Pictures([self.paths[int(i)] for i in indices], self.frame, self.grey_range)


def grey_range(good: typing.Sequence[Path], given: str = "") -> GreyRange | None:
    """What becomes 0 and 255 in a category's images of more than 8 bits: the same for all of them,
    so that a dark image stays darker than a bright one.

    Args:
        good: its good training images. given: the parameter grey_range, "low,high".

    Returns:
        As given, else the extent of the good training images (`reading.extent`); None where these
        are of 8 bits. What cannot be read is left out: `load` names it.
    """
    if given:
        return reading.parsed(given)
    memory = cache_dir() / "ranges" / f"{_key(good)}.json"
    with contextlib.suppress(InputError, TypeError, ValueError):  # missing, or damaged
        kept = tuple(map(float, files.read_json(memory)))
        if len(kept) in (0, 2):
            return kept or None

    def extent(path: Path) -> GreyRange | None:
        with contextlib.suppress(Exception):
            return reading.extent(path)

    extent_of_all = reading.union(files.in_threads(extent, good))
    files.write_json(memory, extent_of_all or ())
    return extent_of_all


def small(path: Path, side: int, grey_range: GreyRange | None = None) -> np.ndarray:
    """A picture to be looked at, uint8 [h,w,3], in its own shape, for nobody judges a long part
    squeezed to a square: `side` pixels high at the most, and twice as wide. Raises InputError for a
    file that cannot be read."""
    with files.saying(f"{path} cannot be read"):
        picture, _ = reading.upright(path, 2 * side, grey_range)
    picture.thumbnail((2 * side, side))
    return np.asarray(picture)


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 of any shape -> float32 in [0,1]."""
    return images.float().div_(255)


def brightness(images: torch.Tensor) -> np.ndarray:
    """Mean grey value of each image: uint8 [N,3,S,S] -> float64 [N] in [0,1]."""
    return np.array([to_float(image).mean().item() for image in images])


def appearance(images: torch.Tensor, good: torch.Tensor) -> dict[str, np.ndarray]:
    """What may confound a score where there is no defect; no label is needed.

    Args:
        images: uint8 [N,3,S,S].
        good: uint8 [M,3,S,S], what to compare with.

    Returns:
        {name: float64 [N]}. brightness: mean grey value in [0,1]. size: share of the image that
        Otsu's threshold calls bright. pose: how unusually that bright part lies, the mean of
        |it - the mean of those of the good images|, in [0,1].
    """
    usual = sum(_bright(image).astype(int) for image in good) / len(good)
    bright = [(mask.mean(), np.abs(mask - usual).mean()) for mask in map(_bright, images)]
    size, pose = np.array(bright, dtype=float).reshape(-1, 2).T
    return {"brightness": brightness(images), "size": size, "pose": pose}


def otsu(grey: np.ndarray) -> float:
    """The grey level that splits uint8 values of any shape into the two classes of the largest
    variance between; `>` is the bright one.

    Reference:
        Otsu, A threshold selection method from gray-level histograms, IEEE SMC 1979.
    """
    counts = np.bincount(grey.ravel(), minlength=256).astype(float)
    below, levels = np.cumsum(counts), np.arange(256)
    above = below[-1] - below
    sums = np.cumsum(counts * levels)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above)**2
    return float(np.argmax(np.where(np.isfinite(between), between, -1)))


def _bright(image: torch.Tensor) -> np.ndarray:
    grey = image.float().mean(dim=0).round().to(torch.uint8).numpy()
    return grey > otsu(grey)


def _key(paths: typing.Sequence[Path], *how: object) -> str:
    hashes = files.content_hashes(paths)
    return hashlib.sha256("\n".join([reading.DECODER, *map(str, how), *(
        hashes[path] for path in paths)]).encode()).hexdigest()[:32]


def _kept(path: Path, frame: Frame, grey_range: GreyRange | None) -> Path:
    return cache_dir() / "pictures" / f"{_key([path], *frame.key, grey_range)}.npy"


def _keep(kept: Path, array: np.ndarray, path: Path, stamp: str) -> None:
    """Unless the file changed since it had that stamp: it was decoded to something else then."""
    if files.stamp_of(path) == stamp:
        files.write_array(kept, array)
        files.forget(kept, KEPT_PICTURES, array.nbytes)


def _decode_all(paths: typing.Sequence[Path], stamps: list[str], frames: list[Frame],
                grey_range: GreyRange | None, target: Path, shape: tuple[int, ...]) -> None:
    unreadable, outside = [], []
    with files.atomic_path(target) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        # a disk that fills up while a mapped file is written kills the process
        if hasattr(os, "posix_fallocate"):
            with temporary.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, temporary.stat().st_size)

        def decode_one(i: int) -> None:
            try:
                (array[i], *tiled), extent = reading.laid(paths[i], frames, grey_range)
                for frame, picture in zip(frames[1:], tiled, strict=True):
                    _keep(_kept(paths[i], frame, grey_range), picture, paths[i], stamps[i])
                if reading.is_outside(extent, grey_range):
                    outside.append(paths[i].name)
            except Exception as error:  # whatever a decoder trips over, the file is named
                unreadable.append(f"{paths[i]} ({files.reason_of(error)})")

        files.in_threads(decode_one, range(len(paths)))
        array.flush()
        array = None  # Windows renames no file that is mapped
        if unreadable:
            raise InputError(f"{len(unreadable)} of {len(paths)} images cannot be read: "
                             f"{'; '.join(sorted(unreadable))}; mend or remove them")
        if changed := [str(path) for path, stamp in zip(paths, stamps, strict=True)
                       if files.stamp_of(path) != stamp]:
            raise InputError(f"{layout.some(changed)} changed while being read; run this again "
                             f"when nothing writes there")
    if outside:
        log.warning("%d of %d images have values outside the range %g to %g, which are clipped "
                    "(%s); the parameter grey_range sets another range", len(outside), len(paths),
                    *grey_range, layout.some(sorted(outside)))
