"""Images as tensors: decoded and resized once with all cores, kept as uint8 on disk, and mapped
into memory after that."""
from __future__ import annotations

import hashlib
import os
import typing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from adlib.config import InputError, cache_dir
from adlib.data import files, layout

DECODER = "1"  # part of every cache key: raise it when decode() gives other pixels for a file


def opened(path: Path | typing.BinaryIO) -> Image.Image:
    """One image file -> RGB, turned as its EXIF tag says, alpha laid over black, 16-bit grey scaled
    by its full range.

    Raises:
        OSError, ValueError: the file is no image.
    """
    with Image.open(path) as raw:
        image = ImageOps.exif_transpose(raw)
        if image.mode.startswith(("I", "F")):
            grey = np.asarray(image, dtype=np.float64)
            if image.mode == "F" or grey.min() < 0 or grey.max() > 65535:
                raise ValueError(
                    "its grey values are not 8-bit or 16-bit ones; save it as 8-bit or 16-bit PNG")
            image = Image.fromarray((grey / 257 + 0.5).astype(np.uint8))  # 65535 -> 255
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
        return image.convert("RGB")


def decode(path: Path | typing.BinaryIO, size: int) -> np.ndarray:
    """One image file -> uint8 [3,size,size], RGB: `opened`, and resized with antialiasing (Pillow's
    bilinear) without keeping the aspect ratio.

    Raises:
        OSError, ValueError: the file is no image.
    """
    image = opened(path).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def load(paths: typing.Sequence[Path], size: int) -> torch.Tensor:
    """Image files -> uint8 [N,3,size,size], memory-mapped from the cache; decoded there first if
    need be.

    The cache is keyed by the files' content: a renamed or copied image is never decoded twice, and
    a changed one never mistaken. Several processes may do this at once.

    Raises:
        InputError: files cannot be read or change meanwhile; each is named, and nothing is kept.
    """
    if not paths:
        return torch.zeros(0, 3, size, size, dtype=torch.uint8)
    # before the content is hashed, which is before it is decoded
    stamps = [layout.stamp_of(path) for path in paths]
    hashes = layout.content_hashes(paths)
    key = hashlib.sha256("\n".join([DECODER, str(size),
                                    *(hashes[path] for path in paths)]).encode()).hexdigest()[:32]
    cached, shape = cache_dir() / "images" / f"{key}.npy", (len(paths), 3, size, size)
    array = files.open_mapped(cached, shape, np.uint8)
    if array is None:
        _decode_all(paths, stamps, size, cached)
        array = files.open_mapped(cached, shape, np.uint8)
    return torch.from_numpy(array)


def load_masks(paths: typing.Sequence[Path | None], size: int) -> torch.Tensor:
    """Ground-truth masks -> bool [N,size,size], True = anomalous (value > 0, resized with nearest
    neighbour); None = all good."""
    masks = torch.zeros(len(paths), size, size, dtype=torch.bool)
    for i, path in enumerate(paths):
        if path is not None:
            with Image.open(path) as mask:
                resized = mask.convert("L").resize((size, size), Image.Resampling.NEAREST)
            masks[i] = torch.from_numpy(np.asarray(resized) > 0)
    return masks


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 of any shape -> float32 in [0,1]."""
    return images.float().div_(255)


def brightness(images: torch.Tensor) -> np.ndarray:
    """Mean grey value of each image: uint8 [N,3,S,S] -> float64 [N] in [0,1]."""
    return np.array([to_float(image).mean().item() for image in images])


def appearance(images: torch.Tensor, good: torch.Tensor) -> dict[str, np.ndarray]:
    """The confounders that a score may follow instead of a defect; no label is needed.

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
    return float(np.nanargmax(np.where(np.isfinite(between), between, -1)))


def _bright(image: torch.Tensor) -> np.ndarray:
    grey = image.float().mean(dim=0).round().to(torch.uint8).numpy()
    return grey > otsu(grey)


def _decode_all(paths: typing.Sequence[Path], stamps: list[str], size: int, target: Path) -> None:
    unreadable: list[str] = []
    with files.atomic_path(target) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8,
                                          shape=(len(paths), 3, size, size))
        # a disk that fills up while a mapped file is written kills the process
        if hasattr(os, "posix_fallocate"):
            with temporary.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, temporary.stat().st_size)

        def decode_one(i: int) -> None:
            try:
                array[i] = decode(paths[i], size)
            except Exception as error:  # whatever a decoder trips over, the file is named
                unreadable.append(f"{paths[i]} ({str(error) or type(error).__name__})")

        # Pillow decodes without holding Python's lock
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(decode_one, range(len(paths))))
        array.flush()
        if unreadable:
            raise InputError(f"{len(unreadable)} of {len(paths)} images cannot be read: "
                             f"{'; '.join(sorted(unreadable))}; mend or remove them")
        if changed := [str(path) for path, stamp in zip(paths, stamps, strict=True)
                       if layout.stamp_of(path) != stamp]:
            raise InputError(f"{layout.some(changed)} changed while being read; run this again "
                             f"when nothing writes there")
