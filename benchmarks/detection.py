"""How well, after how many epochs: the reference's way and ours, scored alike. One JSON file a
cell, kept, so it can go on later.

    # hours: measure what is missing
    python -m benchmarks.detection --data DATA --weights FILE --way reference|ours [--seeds 0 1 2]
    # further seeds, their end alone
    python -m benchmarks.detection --data DATA --weights FILE --way ours --seeds 3 4 5 --last
    # the table of what is measured
    python -m benchmarks.detection

Scored alike: the held-out split, the score chosen without labels, and the test images are those of
a run of the study; the reference's way trains on the same images and never sees the held-out ones.
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
from adlib.data import files
from adlib.data.part import Part, open_part
from adlib.evaluation import results
from adlib.evaluation.calibration import calibrate, score_table
from adlib.models import training
from adlib.models.autoencoders import Autoencoder
from adlib.models.fast.device import pick_device, precision
from adlib.runs import grid
from benchmarks import reference

MEASURED = Path(__file__).parent / "measured"
MARGIN = 0.01  # of AUROC: as much as ours may lie below the reference's way and be called as good
FOUR = ("cae_mse", "cae_ssim", "resnet_mse", "resnet_ssim")
LOOKS = {"ours": (*range(1, 13), *range(15, 30, 5), *range(30, 1000, 10)),
         "reference": range(10, 1000, 10)}
GRIDS = {"reference": "params/grids/reference.yaml", "ours": "params/grids/four.yaml"}


@dataclasses.dataclass
class Observed:
    """What training tells (the `run` of training.train): each epoch calls `after`."""

    folder: Path
    after: typing.Callable[[int], None]
    identity: str = ""

    def progress(self, state: dict[str, typing.Any]) -> None:
        self.after(state["epoch"])


def configs(grid_file: str, *, data_root: Path, weights: str, seeds: list[int]) -> list[Config]:
    """The four configurations of a grid on every category, one seed after the other."""
    planned = [task.config for task in grid.plan(grid_file, data_root=str(data_root),
                                                 weights=weights) if task.kind == "run"]
    cells = {(config.category, config.name): config for config in planned if config.name in FOUR}
    return [dataclasses.replace(config, seed=seed) for seed in seeds for config in cells.values()]


def look(network: nn.Module, part: Part) -> dict[str, typing.Any]:
    """The test split's AUROC by the reference's score and by the one chosen without labels; the
    study's loss of the held-out images."""
    detector = Autoencoder(dataclasses.replace(part.config, weights="none"))
    # A copy: scoring lays the weights out anew under inference mode, after which they could not be
    # trained on.
    detector.network = copy.deepcopy(network)
    decision = calibrate(detector, part)
    test = score_table(detector, decision.scale, part.test)
    table = results.results_table(part, decision, decision.good_scores | {"test": test})
    held = part.held_out.tensor.to(pick_device(part.config.device))
    return {"chosen": decision.score,
            "held_out_loss": training.mean_loss(detector.network, held, part.config),
            "auroc": results.auroc_of(table, "chosen_score")["test"]["value"],
            "auroc_mse": results.auroc_of(table)["test"]["value"]}


def measure(way: str, part: Part, only_last: bool = False) -> dict[str, typing.Any]:
    """Train one cell to its end and look at it at some epochs and at the last, or at the last one
    alone."""
    looks: list[dict[str, typing.Any]] = []
    if way == "reference":
        config = dataclasses.replace(part.config, precision="float32")
        part = dataclasses.replace(part, config=config)
    config, device = part.config, pick_device(part.config.device)

    def after(epoch: int, network: nn.Module) -> None:
        if epoch == config.epochs or (not only_last and epoch in LOOKS[way]):
            looks.append({"epoch": epoch, **look(network, part)})

    if way == "reference":
        # Decoded once, and in the faster layout: the same pixels and the same arithmetic, and its
        # numbers a third sooner.
        pictures = list(reference.Pictures(part.train.paths, config.image_size))
        reference.fit(pictures, config, device, after, torch.channels_last)
    else:
        detector = Autoencoder(config)
        with tempfile.TemporaryDirectory() as folder:
            detector.fit(part.train.tensor, part.held_out.tensor, run=Observed(
                Path(folder), lambda epoch: after(epoch, detector.network)))
    return {"way": way, "config": config.name, "category": config.category, "seed": config.seed,
            "epochs": config.epochs, "schedule": config.schedule,
            "precision": precision(config, device, learning=True), "torch": torch.__version__,
            "looks": looks}


def curve(folder: Path, category: str, config: str) -> tuple[dict[int, float], int]:
    """{epoch: AUROC, mean over the seeds} of one cell, and how many seeds that are: those that were
    looked at in as many epochs as any. Of a seed that was looked at in its last alone nothing is
    known of the others, and a mean of more seeds there would be no point of this curve."""
    cells = [{seen["epoch"]: seen["auroc"] for seen in cell["looks"]}
             for cell in _cells(folder, category, config)]
    most = max(map(len, cells), default=0)
    whole = [cell for cell in cells if len(cell) == most]
    epochs = sorted(set.intersection(*map(set, whole))) if whole else []
    return {epoch: statistics.mean(cell[epoch] for cell in whole) for epoch in epochs}, len(whole)


def _cells(folder: Path, category: str, config: str) -> list[dict[str, typing.Any]]:
    """What was measured of one cell, a seed each."""
    return [files.read_json(path) for path in sorted(folder.glob(f"{category}-{config}-*.json"))]


def _last(folder: Path, category: str, config: str) -> list[float]:
    """A cell's final AUROC, a seed each."""
    return [cell["looks"][-1]["auroc"] for cell in _cells(folder, category, config)]


def stays(curve_of: dict[int, float], target: float) -> int | None:
    """The first epoch from which the AUROC stays at `target` or above; None where it never does."""
    first = None
    if math.isnan(target):
        return None
    for epoch, value in curve_of.items():
        first = None if value < target - 1e-9 else epoch if first is None else first
    return first


def _error(last: list[float]) -> float:
    """The standard error of a cell's mean final AUROC over its seeds."""
    return statistics.stdev(last) / math.sqrt(len(last)) if len(last) > 1 else math.nan


def table(folder: Path) -> pd.DataFrame:
    """A row a cell: final AUROCs of both ways, their difference, and the epoch from which each
    stays within MARGIN of the reference's.

    seeds: of the final AUROCs; curves: of them those whose epochs are counted (`curve`). error: of
    the difference, one standard error from the spread over the seeds; NaN where a way has fewer
    than two.
    """
    rows, ways = [], ("reference", "ours")
    for name in sorted({tuple(path.stem.split("-")[:2]) for way in ways
                        for path in (folder / way).glob("*.json")}):
        (its, its_seeds), (own, own_seeds) = (curve(folder / way, *name) for way in ways)
        last = [_last(folder / way, *name) for way in ways]
        final = [statistics.mean(values) if values else math.nan for values in last]
        rows.append({
            "category": name[0], "configuration": name[1],
            "seeds": ", ".join(str(len(values)) for values in last),
            "the reference's way": final[0], "ours": final[1], "difference": final[1] - final[0],
            "error": math.hypot(*map(_error, last)), "curves": f"{its_seeds}, {own_seeds}",
            "its epochs to detection": stays(its, final[0] - MARGIN),
            "our epochs to detection": stays(own, final[0] - MARGIN)})
    return pd.DataFrame(rows).astype({"its epochs to detection": "Int64",
                                      "our epochs to detection": "Int64"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights")
    parser.add_argument("--way", choices=tuple(GRIDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--last", action="store_true", help="look at the last epoch alone")
    parser.add_argument("--folder", type=Path, default=MEASURED)
    given = parser.parse_args()
    if not given.way:
        print(table(given.folder).to_string(index=False, float_format="{:.3f}".format))
        return
    if not (given.data and given.weights):
        parser.error("--way measures: give --data and --weights, too")
    for config in configs(GRIDS[given.way], data_root=given.data, weights=given.weights,
                          seeds=given.seeds):
        target = given.folder / given.way / f"{config.category}-{config.name}-{config.seed}.json"
        if not target.exists():
            files.write_json(target, measure(given.way, open_part(config), given.last))
        last = files.read_json(target)["looks"][-1]
        print(f"{given.way:9} {config.category:9} {config.name:12} seed {config.seed}: {last}",
              flush=True)


if __name__ == "__main__":
    main()
