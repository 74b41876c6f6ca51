"""What several benchmarks ask for and do alike."""
from __future__ import annotations

import argparse
import typing
from pathlib import Path

from adlib.config import Config
from adlib.data import layout
from adlib.data.part import Part
from adlib.evaluation.calibration import Decision, calibrate
from adlib.models.detector import Detector, fit


def of_categories(doc: str) -> argparse.ArgumentParser:
    """A command that takes folders of categories, and weights."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("categories", nargs="+", type=Path, metavar="ROOT/CATEGORY")
    parser.add_argument("--weights", required=True)
    return parser


def of_this_machine(doc: str) -> argparse.ArgumentParser:
    """A command whose times are of this machine; `completed` takes what it was given."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("--data", type=Path, help="default: the synthetic set")
    parser.add_argument("--weights", default="none",
                        help="of the ResNet18 (default: random ones, which cost as much)")
    return parser


def completed(given: argparse.Namespace) -> argparse.Namespace:
    """With the data's and the weights' whole paths, which hold in any folder, and a category."""
    given.data = (given.data or layout.find_root("")[0]).absolute()
    if given.weights != "none":
        given.weights = str(Path(given.weights).absolute())
    given.category = layout.categories(given.data)[0]
    return given


def config(folder: Path, weights: str | None, model: str = "fused", **more: typing.Any) -> Config:
    """A detector at 256 px on the category in ROOT/CATEGORY."""
    return Config(name=model, model=model, image_size=256, category=folder.name,
                  data_root=str(folder.parent), weights=weights, **more)


def labelled(category: layout.Category) -> dict[str, layout.Label]:
    """The labels of all its test images, by key. Where some have none, nothing can be measured, and
    the command ends."""
    labels = layout.read_labels(category)
    if absent := [path for path in category.test if category.key(path) not in labels]:
        raise SystemExit(f"{category.root / category.name}: {len(absent)} of {len(category.test)} "
                         "test images have no label; sort them into test/good and test/<defect>")
    return labels


def decided(part: Part) -> tuple[Detector, Decision]:
    """The part's detector fitted, and what was decided without labels."""
    detector = fit(part.config, part.train, part.held_out)
    return detector, calibrate(detector, part)
