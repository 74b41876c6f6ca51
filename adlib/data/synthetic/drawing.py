"""Embedded data: a hazelnut and a zipper drawn by arithmetic, with defects and exact masks, for
when no real images are there.

Every image follows from (seed, category, index) alone, in whatever order and process it is drawn. A
defect's mask is the set of pixels that it changed, by construction: the same workpiece is drawn
with and without it, and only those differ.
"""
from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import typing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from PIL import Image

from adlib.config import InputError, check_known, did_you_mean
from adlib.data import files
from adlib.data.layout import MARKER, some
from adlib.data.synthetic import hazelnut, zipper

VERSION = "1"
CATEGORIES = {"hazelnut": hazelnut.DEFECTS, "zipper": zipper.DEFECTS}
MOST = 64  # workpieces along a side of a picture
PLACE = 10_000_000  # added to the index of a picture for each further workpiece on it
NOISE = 2.2  # grey levels, the camera's
MOST_PIXELS = 4096  # a side, of what is drawn


def render(category: str, *, seed: int, index: int, defect: str | None = None, size: float = 1.0,
           contrast: float = 1.0, pixels: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Draw one workpiece.

    Args:
        defect: one of CATEGORIES[category]; None = a good workpiece.
        size, contrast: scale the defect; 1 is like the real ones, contrast 0 leaves nothing of it.

    Returns:
        (uint8 [pixels,pixels,3], mask bool [pixels,pixels], True = changed by the defect).

    Raises:
        InputError: an unknown category or defect; sizes out of range.
    """
    _check(category, defect, size, contrast, pixels)

    # one stream a purpose: a defect leaves the workpiece's own numbers alone
    def stream(purpose: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{seed}/{category}/{index}/{purpose}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))

    if category == "hazelnut":
        good, shell = hazelnut.paint(stream("part"), pixels)
        bad = good if defect is None else hazelnut.damage(
            stream(defect), good, shell, defect, size, contrast)
    else:
        good = zipper.paint(stream("part"), pixels)
        bad = good if defect is None else zipper.paint(
            stream("part"), pixels, zipper.bend(stream(defect), pixels, defect, size, contrast))
    mask = np.abs(bad - good).max(axis=-1) > 1.0  # a grey level: less is below the camera's noise
    clean = np.where(mask[..., None], bad, good)
    channels = 3 if category == "hazelnut" else 1
    noise = stream("camera").normal(0, NOISE, (pixels, pixels, channels))
    return np.clip(clean + noise + 0.5, 0, 255).astype(np.uint8), mask


def tray(category: str, *, index: int, defect: str | None = None, across: int = 1, down: int = 1,
         **how: typing.Any) -> tuple[np.ndarray, np.ndarray]:
    """Draw several workpieces beside each other, one of which has the defect: a larger or longer
    picture of the same things. Other arguments, returns and errors: as `render`."""
    count = across * down
    drawn = [render(category, index=index + place * PLACE, **how,
                    defect=defect if place == index % count else None) for place in range(count)]
    image, mask = (np.concatenate([
        np.concatenate([part[which] for part in drawn[row * across:][:across]], axis=1)
        for row in range(down)]) for which in (0, 1))
    return image, mask


def about(root: Path) -> dict[str, typing.Any]:
    """What the marker of a drawn set says: its `seed` and `pixels`, whole numbers, among others.
    InputError where it does not, since anybody may have written it."""
    said = files.read_json(root / MARKER)
    said = {"across": 1, "down": 1, **said} if isinstance(said, dict) else {}
    values = [said.get(key) for key in ("seed", "pixels", "across", "down")]
    if not all(type(value) is int for value in values) or not (
            32 <= values[1] <= MOST_PIXELS and 1 <= values[2] <= MOST and 1 <= values[3] <= MOST):
        raise InputError(f"{root / MARKER} must hold a whole number as seed, one of 32 to "
                         f"{MOST_PIXELS} as pixels, and of 1 to {MOST} as across and down; delete "
                         "it if adlib did not draw this set")
    return said


def write_dataset(root: Path | str, *, train: int = 200, good: int = 60, anomalous: int = 100,
                  seed: int = 0, size: float = 1.0, contrast: float = 1.0, pixels: int = 256,
                  across: int = 1, down: int = 1,
                  categories: typing.Sequence[str] = tuple(CATEGORIES)) -> Path:
    """Draw a data set in MVTec AD's layout, with synthetic.json in its root, and return the root.

    `anomalous` images per category are spread evenly over its defects. A picture shows `across` x
    `down` workpieces of `pixels` a side: 4 x 3 of 1024 are 4096 x 3072 pixels. Drawn beside and
    renamed: a kill leaves nothing half-made, and of two processes that do this at once one wins
    and both go on.

    Raises:
        InputError: unknown names; counts that leave nothing to train on; `root` holds something
            else or cannot be written.
    """
    root = Path(root)
    for category in categories:
        _check(category, None, size, contrast, pixels)
    if not (1 <= across <= MOST and 1 <= down <= MOST):
        raise InputError(f"across {across}, down {down}: give 1 to {MOST} workpieces a picture")
    if train < 2 or good < 0 or anomalous < 0:
        raise InputError(f"train {train}, good {good}, anomalous {anomalous}: give at least 2 "
                         f"training images and no negative numbers")
    replacing = (root / MARKER).is_file()
    # what may be replaced: no part of one's own, nor what somebody put into a drawn one
    drawn = {MARKER, ".DS_Store", *(f"{category}/{name}" for category in CATEGORIES for name in (
        "train", "test", "ground_truth", ".DS_Store"))} if replacing else set()
    within = [path for path in (root.iterdir() if root.is_dir() else ()) for path in (
        path.iterdir() if replacing and path.name in CATEGORIES and path.is_dir() else [path])]
    others = {path.relative_to(root).as_posix() for path in within} - drawn
    if root.is_file() or others:
        raise InputError(f"{root} is a file, or a folder with something else in it"
                         + f" ({some(sorted(others))})" * bool(others)
                         + "; choose another folder, nothing was written")
    with files.saying(f"cannot write {root}", "free some space or choose another folder", OSError):
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as temporary:
            beside = Path(temporary) / root.name
            beside.mkdir()
            how = {"seed": seed, "size": size, "contrast": contrast, "pixels": pixels,
                   "across": across, "down": down}
            _draw_all([(beside / category, category, *place, how) for category in categories
                       for place in _plan(category, train, good, anomalous)])
            said = {"generator": VERSION, "train": train, "good": good, "anomalous": anomalous,
                    **how, "categories": list(categories)}
            files.write_json(beside / MARKER, said)
            if replacing:
                shutil.rmtree(root)
            try:
                beside.rename(root)
            except OSError:  # where its marker is there, another process was quicker: the same set
                if not (root / MARKER).is_file():
                    raise
    return root


def _plan(category: str, train: int, good: int,
          anomalous: int) -> typing.Iterator[tuple[str, str, int, int]]:
    """(split, defect or good, number in its folder, index): no two images show the same one."""
    yield from (("train", "good", i, i) for i in range(train))
    yield from (("test", "good", i, 1_000_000 + i) for i in range(good))
    defects = CATEGORIES[category]
    yield from (("test", defects[i % len(defects)], i // len(defects), 2_000_000 + i)
                for i in range(anomalous))


def _draw_all(jobs: list[tuple]) -> None:
    workers = min(os.cpu_count() or 1, 8)
    if len(jobs) >= 40 and workers > 1:
        # a script read from stdin cannot be spawned: draw here then, more slowly
        with contextlib.suppress(BrokenProcessPool), ProcessPoolExecutor(
                workers, multiprocessing.get_context("spawn")) as pool:
            with _uninterrupted():
                drawn = pool.map(_draw, jobs, chunksize=8)
            list(drawn)
            return
    for job in jobs:
        _draw(job)


@contextlib.contextmanager
def _uninterrupted() -> typing.Iterator[None]:
    """Processes started meanwhile leave Ctrl-C to this one, whose it is: they would each print a
    traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _draw(job: tuple) -> None:
    folder, category, split, kind, number, index, how = job
    defect = None if kind == "good" else kind
    image, mask = tray(category, index=index, defect=defect, **how)
    _save(folder / split / kind / f"{number:03d}.png",
          image if category == "hazelnut" else image[..., 0])
    if defect:
        _save(folder / "ground_truth" / kind / f"{number:03d}_mask.png", mask)


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, compress_level=1)


def _check(category: str, defect: str | None, size: float, contrast: float, pixels: int) -> None:
    if category not in CATEGORIES:
        raise InputError(
            f"category {category!r} cannot be drawn{did_you_mean(category, CATEGORIES)}")
    check_known([] if defect is None else [defect], CATEGORIES[category],
                f"{category} has no defect")
    if not (0 < size <= 100 and 0 <= contrast <= 100 and 32 <= pixels <= MOST_PIXELS):
        raise InputError(f"size {size}, contrast {contrast}, pixels {pixels}: size must be above "
                         "0, contrast not below 0, both up to 100, and pixels from 32 to "
                         f"{MOST_PIXELS}")
