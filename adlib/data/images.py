"""Images as tensors: decoded and resized once with all cores, kept as uint8 on disk, and mapped
into memory after that."""
from __future__ import annotations

import hashlib
import os
import typing
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from adlib.data import files, layout
from adlib.config import InputError, cache_dir

# part of every cache key: raise it when decode() gives other pixels for the same file
DECODER = "1"


def decode(path: Path, size: int) -> np.ndarray:
    """One image file -> uint8 [3,size,size], RGB.

    Turned as its EXIF tag says, alpha laid over black, 16-bit grey scaled by its full range,
    resized with antialiasing (Pillow's bilinear) without keeping the aspect ratio. Raises OSError
    or ValueError for a file that is no image.
    """
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith(("I", "F")):
            grey = np.asarray(image, dtype=np.float64)
            if image.mode == "F" or grey.min() < 0 or grey.max() > 65535:
                raise ValueError(
                    "its grey values are not 8-bit or 16-bit ones; save it as 8-bit or 16-bit PNG")
            image = Image.fromarray((grey / 257 + 0.5).astype(np.uint8))  # 65535 -> 255
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
        image = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def load(paths: typing.Sequence[Path], size: int) -> torch.Tensor:
    """Image files -> uint8 [N,3,size,size], memory-mapped from the cache; decoded there first if
    need be.

    The cache is keyed by the files' content, so a renamed or copied image is never decoded twice,
    and a changed one is never mistaken. Several processes may do this at once. Raises InputError
    naming every file that cannot be read, or that changes while it is: nothing is kept of such a
    moment.
    """
    if not paths:
        return torch.zeros(0, 3, size, size, dtype=torch.uint8)
    # before the content is hashed, which is before it is decoded
    stamps = [layout.stamp_of(path) for path in paths]
    hashes = layout.content_hashes(paths)
    key = hashlib.sha256("\n".join([DECODER, str(size),
                                    *(hashes[path] for path in paths)]).encode()).hexdigest()[:32]
    cached, shape = cache_dir() / "images" / f"{key}.npy", (len(paths), 3, size, size)
    pictures = _mapped(cached, shape)
    if pictures is None:
        _decode_all(paths, stamps, size, cached, shape)
        pictures = _mapped(cached, shape)
    return torch.from_numpy(pictures)


def to_float(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 of any shape -> float32 in [0,1]."""
    return pictures.float().div_(255)


def brightness(pictures: torch.Tensor) -> np.ndarray:
    """Mean grey value of each image: uint8 [N,3,S,S] -> float64 [N] in [0,1]."""
    return np.array([to_float(picture).mean().item() for picture in pictures])


def appearance(pictures: torch.Tensor, good: torch.Tensor) -> dict[str, np.ndarray]:
    """What a score may follow instead of a defect: uint8 [N,3,S,S], and good ones to compare with
    -> {name: float64 [N]}.

    brightness: mean grey value in [0,1]. size: share of the image that Otsu's threshold (IEEE SMC
    1979) calls bright. pose: how unusually that bright part lies, the mean of |it - the mean of
    those of the good images|, in [0,1]. No label is needed.
    """
    usual = sum(_bright(picture).astype(int) for picture in good) / len(good)
    parts = [(part.mean(), np.abs(part - usual).mean()) for part in map(_bright, pictures)]
    size, pose = np.array(parts, dtype=float).reshape(-1, 2).T
    return {"brightness": brightness(pictures), "size": size, "pose": pose}


def otsu(grey: np.ndarray) -> float:
    """The grey level that parts uint8 values of any shape into the two classes of the largest
    variance between; `>` is the bright one."""
    counts = np.bincount(grey.ravel(), minlength=256).astype(float)
    below, levels = np.cumsum(counts), np.arange(256)
    above = below[-1] - below
    sums = np.cumsum(counts * levels)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above)**2
    return float(np.nanargmax(np.where(np.isfinite(between), between, -1)))


def _bright(picture: torch.Tensor) -> np.ndarray:
    grey = picture.float().mean(dim=0).round().to(torch.uint8).numpy()
    return grey > otsu(grey)


def load_masks(paths: typing.Sequence[Path | None], size: int) -> torch.Tensor:
    """Ground-truth masks -> bool [N,size,size], True = anomalous (value > 0, resized with nearest
    neighbour); None = all good."""
    masks = torch.zeros(len(paths), size, size, dtype=torch.bool)
    for i, path in enumerate(paths):
        if path is not None:
            with Image.open(path) as mask:
                masks[i] = torch.from_numpy(
                    np.asarray(mask.convert("L").resize((size,
                                                         size), Image.Resampling.NEAREST)) > 0)
    return masks


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The cached array, or None where there is none, or a damaged one. Copy-on-write: nobody can
    change the file."""
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def _decode_all(paths: typing.Sequence[Path], stamps: list[str], size: int, target: Path,
                shape: tuple[int, ...]) -> None:
    bad: list[str] = []
    with files.atomic_path(target) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        # a disk that fills up while a mapped file is written kills the process
        if hasattr(os, "posix_fallocate"):
            with temporary.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, temporary.stat().st_size)

        def one(i: int) -> None:
            try:
                array[i] = decode(paths[i], size)
            # whatever a decoder trips over in a damaged file, the file is named
            except Exception as error:
                bad.append(f"{paths[i]} ({str(error) or type(error).__name__})")

        # Pillow decodes without holding Python's lock
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(one, range(len(paths))))
        array.flush()
        if bad:
            raise InputError(
                f"{len(bad)} of {len(paths)} images cannot be read: {'; '.join(sorted(bad))}; "
                f"mend or remove them")
        if moved := [
                str(path) for path, stamp in zip(paths, stamps, strict=True)
                if layout.stamp_of(path) != stamp
        ]:
            raise InputError(
                f"{layout.some(moved)} changed while being read; run this again when nothing "
                f"writes there")
