"""Squeezed, padded or in tiles? AUROC and AU-PRO of one detector on real parts with paired tests,
what `fit: auto` chooses without labels, and how surely small defects in large pictures are found,
in what time and memory.

    python -m benchmarks.tiles --data ROOT/CATEGORY... --weights FILE [--model fused] [--most 40]
    python -m benchmarks.tiles --large 4096 3072 --weights FILE [--defects 100]
    python -m benchmarks.tiles --places 2048 512 --weights FILE

The second draws textured parts with an `--side` pixel wide square on them, 5% of whose good ones
may be called anomalous; good images alone are fitted on and calibrate. Everything in one process:
the memory told is its peak. The third draws long boards: in a bad one some of what belongs on one
end is at the other. AUROC with tiles compared by place (models/by_place), and all with one memory.
"""
from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import tempfile
import time
import typing
from pathlib import Path

import numpy as np
from PIL import Image

from adlib.config import FITS, Config
from adlib.data import layout
from adlib.data.part import Part, open_part, split
from adlib.evaluation.auroc import auroc, paired_test
from adlib.evaluation.calibration import calibrate
from adlib.evaluation.fits import open_part as decided
from adlib.evaluation.results import arrays, evaluate
from adlib.models import by_place
from adlib.models.detector import fit
from benchmarks import common


def real(folder: Path, given: argparse.Namespace) -> list[dict[str, typing.Any]]:
    """A row a fit: AUROC, AU-PRO, seconds, and the difference to squeeze with its p-value."""
    rows, scores = [], {}
    common.labelled(layout.open_category(folder.parent, folder.name))
    choice = decided(config(folder, "auto", given)).fit_choice
    print(json.dumps({"part": folder.name, "auto": choice}), flush=True)
    for how in FITS:
        started = time.perf_counter()
        part = limited(open_part(config(folder, how, given)), given.most)
        detector, decision = common.decided(part)
        results = evaluate(detector, decision, part)
        labels, scores[how] = arrays(results.table, "test", "chosen_score")
        difference, p = paired_test(labels, scores[how], scores["squeeze"])
        rows.append({"part": folder.name, "fit": how, "images": len(labels),
                     "auroc": auroc(labels, scores[how]), "difference": difference, "p": p,
                     "au_pro_30": (results.localization or {}).get("au_pro_30"),
                     "by_place": getattr(detector.of_squares, "by_place", None),
                     "seconds": time.perf_counter() - started})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def large(given: argparse.Namespace) -> dict[str, typing.Any]:
    """How many drawn defects are found, and what it takes."""
    with tempfile.TemporaryDirectory() as place:
        root = plates(Path(place) / "part", given)
        part = open_part(config(root, "tile", given))
        started = time.perf_counter()
        detector = fit(part.config, part.train, part.held_out)
        decision = calibrate(detector, part)
        fitted = time.perf_counter()
        print(json.dumps({"fit_s": fitted - started, "of_it_calibrating":
                          fitted - started - detector.seconds}), flush=True)
        results = evaluate(detector, decision, part)
        seconds = (time.perf_counter() - fitted) / len(part.test)
    chosen = results.chosen
    operating = chosen["operating"]["test"]
    return {"size": given.large, "side": given.side, "auroc": chosen["auroc"]["test"]["value"],
            "found": operating["detections"], "false": operating["false_positives"],
            "fit_s": fitted - started, "image_s": seconds, "peak_gb": resource.getrusage(
                resource.RUSAGE_SELF).ru_maxrss / 1e6}


def places(given: argparse.Namespace) -> list[dict[str, typing.Any]]:
    """A row with one memory, and one by place."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        root = boards(Path(place) / "boards", given.places)
        part = open_part(config(root, "tile", given))
        for least in (np.inf, 0):  # whatever would be chosen
            by_place.LEAST = least
            detector, decision = common.decided(part)
            results = evaluate(detector, decision, part)
            found = detector.of_squares.by_place
            rows.append({"model": given.model, **found._asdict(),
                         "auroc": results.chosen["auroc"]["test"]["value"]})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def plates(root: Path, given: argparse.Namespace) -> Path:
    """A category of drawn plates. Good ones are numbered on: two of one number are one picture."""
    for folder, first, n, side in (("train/good", 0, given.train, 0),
                                   ("test/good", given.train, given.good, 0),
                                   ("test/spot", 0, given.defects, given.side)):
        for i in range(first, first + n):
            draw(root / folder / f"{i:03d}.png", given.large, side)
    return root


def boards(root: Path, size: typing.Sequence[int]) -> Path:
    """A category of drawn boards, numbered as `plates`."""
    for folder, first in (("train/good", 0), ("test/good", 40), ("test/swapped", 0)):
        for i in range(first, first + 40):
            board(root / folder / f"{i:03d}.png", size, swapped="swapped" in folder)
    return root


def board(path: Path, size: typing.Sequence[int], *, swapped: bool) -> None:
    """Rectangles and discs, the same on each board, which lies up to three pixels elsewhere; on a
    bad one a square of 96 pixels shows what belongs half a board away. Its number is its seed."""
    width, height = size
    drawn, rng = np.random.default_rng(5), np.random.default_rng(
        [*path.name.encode(), len(path.parts[-2])])
    grey, (rows, columns) = np.full((height, width), 90.0), np.ogrid[:height, :width]
    for _ in range(width * height // 1500):
        y, x, a, b = drawn.integers([0, 0, 6, 6], [height, width, 40, 40])
        round_ = (rows - y)**2 + (columns - x)**2 < (a / 2)**2
        grey[round_ if drawn.random() < 0.5 else
             (abs(rows - y) < a / 2) & (abs(columns - x) < b / 2)] = drawn.uniform(30, 220)
    if swapped:
        y, x = rng.integers(16, height - 112), rng.integers(16, width // 2 - 112)
        grey[y:y + 96, x:x + 96] = grey[y:y + 96, x + width // 2:x + width // 2 + 96]
    grey = np.roll(grey, rng.integers(-3, 4, 2), axis=(0, 1)) + rng.normal(0, 4, grey.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(path, compress_level=1)


def draw(path: Path, size: typing.Sequence[int], side: int) -> None:
    """A brushed plate with holes; a defect is a square a little brighter than what is around it.
    Its number is its seed."""
    width, height = size
    rng = np.random.default_rng([*path.name.encode(), side, len(path.parts[-2])])
    brushed = rng.normal(0, 6, (height, 1)) + 12 * np.sin(np.arange(width) / 97)
    grey = 130 + brushed + rng.normal(0, 2.2, (height, width))
    rows, columns = np.ogrid[:height, :width]
    for y in range(height // 6, height, height // 3):
        for x in range(width // 8, width, width // 4):
            grey[(rows - y)**2 + (columns - x)**2 < (min(size) / 25)**2] = 40
    if side:
        y, x = rng.integers(side, height - 2 * side), rng.integers(side, width - 2 * side)
        grey[y:y + side, x:x + side] += 50
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(path, compress_level=1)


def config(folder: Path, how: str, given: argparse.Namespace) -> Config:
    return Config(category=folder.name, data_root=str(folder.parent), model=given.model, fit=how,
                  weights=given.weights, image_size=256, tile_size=given.tile_size,
                  overlap=given.overlap, scale=given.scale, held_out=0.1)


def limited(part: Part, most: int) -> Part:
    """Every k-th image of each set, `most` of each at the most; all where most is 0."""
    def some(paths: typing.Sequence[Path]) -> tuple[Path, ...]:
        return tuple(paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(
            most, len(paths))).astype(int)))

    if not most:
        return part
    train = some(part.category.train)
    category = dataclasses.replace(part.category, train=train, test=some(part.category.test))
    kept, held = split(len(train), part.config.held_out, part.config.seed)
    return dataclasses.replace(part, category=category, train_index=kept, held_out_index=held)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="*", type=Path, default=[])
    parser.add_argument("--large", nargs=2, type=int, metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--places", nargs=2, type=int, metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--model", default="fused")
    for name, value in (("most", 0), ("tile-size", 256), ("overlap", 32), ("train", 50),
                        ("good", 20), ("defects", 100), ("side", 10)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args()
    for folder in given.data:
        real(folder, given)
    if given.large:
        print(json.dumps(large(given)))
    if given.places:
        places(given)


if __name__ == "__main__":
    main()
