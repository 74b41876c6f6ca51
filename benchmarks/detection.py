"""How well, after how many epochs: the reference's way and ours, scored alike. One JSON file a
cell, kept, so it can go on later.

    # hours: measure what is missing
    python -m benchmarks.detection --data DATA --weights FILE --way seed|ours [--seeds 0 1 2]
    # further seeds, their end alone
    python -m benchmarks.detection --data DATA --weights FILE --way ours --seeds 3 4 5 --last
    # the table of what is measured
    python -m benchmarks.detection

Scored alike: the held-out split, the score chosen without labels, and the test images are those of
a run of the study (`decide.scores`); the reference's way trains on the same images and never sees
the held-out ones.
"""
from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import statistics
import tempfile
import typing
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from adlib.config import Config
from adlib.data import files, images, layout
from adlib.evaluation import calibration, evaluate
from adlib.models import anomaly_maps, autoencoders, training
from adlib.runs import grid
from benchmarks import reference

MEASURED = Path(__file__).parent / "measured"
MARGIN = 0.01  # of AUROC: as much as ours may lie below the reference's way and be called as good
FOUR = ("cae_mse", "cae_ssim", "resnet_mse", "resnet_ssim")
LOOKS = (*range(1, 13), *range(15, 30, 5), *range(30, 1000, 10))
SEED_LOOKS = range(10, 1000, 10)


def configs(grid_file: str, *, data_root: Path, weights: str, seeds: list[int]) -> list[Config]:
    """The four configurations of a grid on every category, one seed after the other."""
    planned = [
        task.config for task in grid.plan(grid_file, data_root=str(data_root), weights=weights)
        if task.kind == "run"
    ]
    cells = {(config.category, config.name): config for config in planned if config.name in FOUR}
    return [dataclasses.replace(config, seed=seed) for seed in seeds for config in cells.values()]


def look(model: nn.Module, category: layout.Category, config: Config) -> dict[str, typing.Any]:
    """The test split's AUROC by the reference's score and by the one chosen without labels; the
    study's loss of the held-out images."""
    # A copy: scoring lays the weights out anew under inference mode, after which they could not be
    # trained on.
    scored = calibration.scores(anomaly_maps.autoencoder_scorer(copy.deepcopy(model), config),
                                category, config)
    results = evaluate.results(category, scored, config.target_fpr)
    _, held = training.split(len(category.train), config.held_out, config.seed)
    loss = training.held_out_loss(copy.deepcopy(model),
                                  images.load(category.train, config.image_size), held, config)
    return {
        "chosen": scored.chosen, "held_out_loss": loss, "auroc": evaluate.auroc(
            results, "chosen_score")["test"]["value"],
        "auroc_mse": evaluate.auroc(results)["test"]["value"]
    }


def measure(way: str, config: Config, category: layout.Category,
            only_last: bool = False) -> dict[str, typing.Any]:
    """Train one cell to its end and look at it at some epochs and at the last, or at the last one
    alone."""
    looks: list[dict[str, typing.Any]] = []

    def after(epoch: int, model: nn.Module) -> None:
        if epoch == config.epochs or (not only_last
                                      and epoch in (SEED_LOOKS if way == "seed" else LOOKS)):
            looks.append({"epoch": epoch, **look(model, category, config)})

    if way == "seed":
        config = dataclasses.replace(config, precision="float32")
        # Decoded once, and in the faster layout: the same pixels and the same arithmetic, and its
        # numbers a third sooner.
        pictures = list(
            reference.Pictures(calibration.split_of(category, config)["train"], config.image_size))
        reference.fit(pictures, config, training.pick_device(config.device), after,
                      torch.channels_last)
    else:
        model, _ = autoencoders.build(config)
        with tempfile.TemporaryDirectory() as folder:
            training.fit(model, images.load(
                category.train, config.image_size), config, folder=Path(folder), identity="",
                         progress=lambda state: after(state["epoch"], model))
    return {
        "way": way, "config": config.name, "category": config.category, "seed": config.seed,
        "epochs": config.epochs, "schedule": config.schedule, "precision": training.precision(
            config, training.pick_device(config.device)), "torch": torch.__version__, "looks": looks
    }


def curve(folder: Path, category: str, config: str) -> tuple[dict[int, float], int]:
    """{epoch: AUROC, mean over the seeds measured} of one cell, and how many seeds that are."""
    cells = [files.read_json(path) for path in sorted(folder.glob(f"{category}-{config}-*.json"))]
    by_epoch: dict[int, list[float]] = {}
    for cell in cells:
        for seen in cell["looks"]:
            by_epoch.setdefault(seen["epoch"], []).append(seen["auroc"])
    return {epoch: statistics.mean(found) for epoch, found in sorted(by_epoch.items())}, len(cells)


def stays(curve_of: dict[int, float], target: float) -> int | None:
    """The first epoch from which the AUROC stays at `target` or above; None where it never does."""
    first = None
    if math.isnan(target):
        return None
    for epoch, value in curve_of.items():
        first = None if value < target - 1e-9 else epoch if first is None else first
    return first


def _error(folder: Path, category: str, config: str) -> float:
    """The standard error of a cell's mean final AUROC over its seeds."""
    last = [
        files.read_json(path)["looks"][-1]["auroc"]
        for path in folder.glob(f"{category}-{config}-*.json")
    ]
    return statistics.stdev(last) / math.sqrt(len(last)) if len(last) > 1 else math.nan


def table(folder: Path) -> pd.DataFrame:
    """A row a cell: final AUROCs of both ways, their difference, and the epoch from which each
    stays within MARGIN of the reference's.

    error: of the difference, one standard error from the spread over the seeds; NaN where a way has
    fewer than two.
    """
    rows = []
    for name in sorted({tuple(path.stem.split("-")[:2]) for path in folder.glob("*/*.json")}):
        (seed, seeds), (own, own_seeds) = (curve(folder / way, *name) for way in ("seed", "ours"))
        final = [list(values.values())[-1] if values else math.nan for values in (seed, own)]
        error = math.hypot(*(_error(folder / way, *name) for way in ("seed", "ours")))
        rows.append({
            "category": name[0], "configuration": name[1], "seeds": f"{seeds}, {own_seeds}",
            "the reference's way": final[0], "ours": final[1],
            "difference": final[1] - final[0], "error": error, "its epochs to detection": stays(
                seed, final[0] - MARGIN), "our epochs to detection": stays(own, final[0] - MARGIN)
        })
    return pd.DataFrame(rows).astype(
        {"its epochs to detection": "Int64", "our epochs to detection": "Int64"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights")
    parser.add_argument("--way", choices=("seed", "ours"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--last", action="store_true", help="look at the last epoch alone")
    parser.add_argument("--folder", type=Path, default=MEASURED)
    arguments = parser.parse_args()
    if not arguments.way:
        print(table(arguments.folder).to_string(index=False, float_format="{:.3f}".format))
        return
    if not (arguments.data and arguments.weights):
        parser.error("--way measures: give --data and --weights, too")
    grid_file = {"seed": "params/grids/reference.yaml", "ours": "params/grids/four.yaml"}[arguments.way]
    for config in configs(grid_file, data_root=arguments.data, weights=arguments.weights,
                          seeds=arguments.seeds):
        target = arguments.folder / arguments.way / f"{config.category}-{config.name}-{config.seed}.json"
        if not target.exists():
            found = measure(arguments.way, config,
                            layout.open_category(arguments.data, config.category), arguments.last)
            files.write_json(target, found)
        last = files.read_json(target)["looks"][-1]
        print(f"{arguments.way:4} {config.category:9} {config.name:12} seed {config.seed}: {last}",
              flush=True)


if __name__ == "__main__":
    main()
