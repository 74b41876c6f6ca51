"""Embedded data: a hazelnut and a zipper drawn by arithmetic, with defects and exact masks, for
when no real images are there.

Every picture follows from (seed, category, index) alone, in whatever order and process it is drawn.
A defect's mask is the set of pixels that it changed, by construction: the same part is drawn with
and without it, and only those differ.
"""
from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
import typing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from PIL import Image

from adlib.config import InputError, did_you_mean
from adlib.data.synthetic import hazelnut, zipper

VERSION = "1"
CATEGORIES = {"hazelnut": hazelnut.DEFECTS, "zipper": zipper.DEFECTS}
NOISE = 2.2  # grey levels, the camera's
MARKER = "synthetic.json"  # in the root of every synthetic set: what makes each page say SYNTHETIC


def render(category: str, *, seed: int, index: int, defect: str | None = None, size: float = 1.0,
           contrast: float = 1.0, pixels: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Draw one part: (uint8 [pixels,pixels,3], bool mask [pixels,pixels], True = changed by the
    defect).

    defect: one of CATEGORIES[category], None = a good part. size and contrast scale it; 1 is like
    the real ones, contrast 0 leaves the part as it was. Raises InputError for an unknown category
    or defect, and for sizes below 0.
    """
    _check(category, defect, size, contrast, pixels)

    # one stream a purpose: a defect leaves the part's own numbers alone
    def stream(purpose: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{seed}/{category}/{index}/{purpose}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))

    if category == "hazelnut":
        good, shell = hazelnut.paint(stream("part"), pixels)
        bad = good if defect is None else hazelnut.damage(stream(defect), good, shell, defect, size,
                                                          contrast)
    else:
        good = zipper.paint(stream("part"), pixels)
        bad = good if defect is None else zipper.paint(
            stream("part"), pixels, zipper.bend(stream(defect), pixels, defect, size, contrast))
    mask = np.abs(bad - good).max(axis=-1) > 1.0  # a grey level: less is below the camera's noise
    clean = np.where(mask[..., None], bad, good)
    channels = 3 if category == "hazelnut" else 1
    noise = stream("camera").normal(0, NOISE, (pixels, pixels, channels))
    return np.clip(clean + noise + 0.5, 0, 255).astype(np.uint8), mask


def write_dataset(root: Path | str, *, train: int = 200, good: int = 60, anomalous: int = 100,
                  seed: int = 0, size: float = 1.0, contrast: float = 1.0, pixels: int = 256,
                  categories: typing.Sequence[str] = tuple(CATEGORIES)) -> Path:
    """Draw a data set in MVTec AD's layout, with synthetic.json in its root, and return the root.

    `anomalous` images per category are spread evenly over its defects. Drawn beside and renamed: a
    kill leaves nothing half-made, and of two processes that do this at once one wins and both go
    on. Raises InputError for unknown names, for counts that leave nothing to train on, and when
    `root` holds something else.
    """
    root = Path(root)
    for category in categories:
        _check(category, None, size, contrast, pixels)
    if train < 2 or good < 0 or anomalous < 0:
        raise InputError(
            f"train {train}, good {good}, anomalous {anomalous}: give at least 2 training images "
            f"and no negative numbers")
    if root.is_file() or (root.is_dir() and any(root.iterdir()) and not (root / MARKER).is_file()):
        raise InputError(
            f"{root} is a file, or a folder with something else in it; choose another folder, "
            f"nothing was written")
    replacing = (root / MARKER).is_file()
    beside = root.parent
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
        jobs = [(beside / category, category, split, name, i, number, seed, size, contrast, pixels)
                for category in categories
                for split, name, i, number in _plan(category, train, good, anomalous)]
        _draw_all(jobs)
        about = {
            "generator": VERSION, "train": train, "good": good, "anomalous": anomalous,
            "seed": seed, "size": size, "contrast": contrast, "pixels": pixels,
            "categories": list(categories)
        }
        (beside / MARKER).write_text(json.dumps(about, indent=1) + "\n")
        beside.chmod(0o755)
        if replacing:
            shutil.rmtree(root)
        try:
            beside.rename(root)
        except OSError:
            # else another process was quicker, and its set is the same
            if not (root / MARKER).is_file():
                raise
    except OSError as error:
        raise InputError(
            f"cannot write {root}: {error.strerror or error}; free some space or choose another "
            f"folder") from error
    finally:
        if beside != root.parent:
            shutil.rmtree(beside, ignore_errors=True)
    return root


def _plan(category: str, train: int, good: int,
          anomalous: int) -> typing.Iterator[tuple[str, str, int, int]]:
    """(split, kind, number in its folder, index of the part): no two images show the same part."""
    yield from (("train", "good", i, i) for i in range(train))
    yield from (("test", "good", i, 1_000_000 + i) for i in range(good))
    defects = CATEGORIES[category]
    yield from (("test", defects[i % len(defects)], i // len(defects), 2_000_000 + i)
                for i in range(anomalous))


def _draw_all(jobs: list[tuple]) -> None:
    workers = min(os.cpu_count() or 1, 8)
    if len(jobs) < 40 or workers == 1:
        for job in jobs:
            _draw(job)
        return
    try:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            list(pool.map(_draw, jobs, chunksize=8))
    except BrokenProcessPool:  # a script read from stdin cannot be spawned: draw here, more slowly
        for job in jobs:
            _draw(job)


def _draw(job: tuple) -> None:
    here, category, split, kind, number, index, seed, size, contrast, pixels = job
    defect = None if kind == "good" else kind
    picture, mask = render(category, seed=seed, index=index, defect=defect, size=size,
                           contrast=contrast, pixels=pixels)
    _save(here / split / kind / f"{number:03d}.png",
          picture if category == "hazelnut" else picture[..., 0])
    if defect:
        _save(here / "ground_truth" / kind / f"{number:03d}_mask.png", mask)


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, compress_level=1)


def _check(category: str, defect: str | None, size: float, contrast: float, pixels: int) -> None:
    if category not in CATEGORIES:
        raise InputError(
            f"category {category!r} cannot be drawn{did_you_mean(category, CATEGORIES)}")
    if defect is not None and defect not in CATEGORIES[category]:
        raise InputError(
            f"{category} has no defect {defect!r}{did_you_mean(defect, CATEGORIES[category])}")
    if not size > 0 or contrast < 0 or pixels < 32:
        raise InputError(
            f"size {size}, contrast {contrast}, pixels {pixels}: size must be above 0, contrast "
            f"not below 0, "
            "pixels at least 32")
