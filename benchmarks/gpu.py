"""The study on a CUDA machine, in under 8 minutes: all of it with five seeds, one picture at a
time, pictures a second.

    python -m benchmarks.gpu --data ROOT --weights FILE        # where torch sees a GPU
    python -m benchmarks.gpu --short                           # anywhere: the tests' grid, one seed

Prints a table and adds a line to benchmarks/measured/gpu.jsonl.
"""
from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import statistics
import tempfile
from pathlib import Path

import torch
import yaml

from adlib.config import Config
from adlib.data.part import open_part
from adlib.models.detector import fit
from adlib.runs import freshness
from benchmarks import common, speed, waits

HISTORY = Path(__file__).parent / "measured" / "gpu.jsonl"
SEEDS = [0, 1, 2, 3, 4]
JOBS = min(12, max(1, (os.cpu_count() or 1) * 3 // 4))  # the runs share one GPU


def study(given: argparse.Namespace) -> waits.Rows:
    """From nothing to the rendered report."""
    grid = yaml.safe_load(Path("params/grids/smoke.yaml" if given.short else waits.STUDY).read_text(
        encoding="utf-8"))
    seeds = SEEDS[:1] if given.short else SEEDS
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree("params/configurations", Path(place) / "configurations")
        path = Path(place) / "grids" / "grid.yaml"
        path.parent.mkdir()
        path.write_text(yaml.safe_dump(grid | {"seeds": seeds}), encoding="utf-8")
        seen = waits.cli(["run", str(path), "--data", str(given.data), "--weights", given.weights,
                          "--jobs", str(JOBS), "--report", "--reports", f"{place}/reports"], place)
    return {f"the study with {len(seeds)} seed(s), {JOBS} runs at a time": waits.row(
        [seen["seconds"]])}


def pictures(given: argparse.Namespace) -> waits.Rows:
    """One picture after another, and many at once, of each kind of detector."""
    rows: waits.Rows = {}
    for model, size in waits.MODELS:
        size = 64 if given.short else size
        part = open_part(Config(model=model, weights=given.weights, image_size=size, epochs=1,
                                category=given.category, data_root=str(given.data)))
        detector = fit(part.config, part.train, part.held_out)
        many = part.good.tensor.repeat(1 if given.short else 4, 1, 1, 1)
        alone = functools.partial(detector.anomaly_maps, many[:1])
        speed.seconds_of(alone)
        rows[f"one picture: {model} at {size} px"] = waits.row(
            [1e3 * statistics.median(speed.seconds_of(alone) for _ in range(30))
             for _ in range(given.times)], "ms")
        # shifted each time: no features of it are on disk
        rows[f"a picture among {len(many)}: {model} at {size} px"] = waits.row([
            1e3 / len(many) * speed.seconds_of(functools.partial(
                detector.anomaly_maps, torch.roll(many, i + 1, dims=-1)))
            for i in range(given.times)], "ms")
    return rows


def main(words: list[str] | None = None) -> None:
    parser = common.of_this_machine(__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--history", type=Path, default=HISTORY)
    given = parser.parse_args(words)
    if not given.short and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --short runs the same on the processor")
    given = common.completed(given)
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else speed.processor()
    now = {"revision": freshness.revision(), "machine": machine, "cores": os.cpu_count(),
           "torch": torch.__version__, "ceiling": speed.ceiling(
               "cuda" if torch.cuda.is_available() else "cpu"), "rows": pictures(given)}
    print(waits.table(now))  # said before the study: what ends it early loses nothing
    now["rows"] |= study(given)
    print(waits.table(now))
    given.history.parent.mkdir(parents=True, exist_ok=True)
    with given.history.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(now) + "\n")


if __name__ == "__main__":
    main()
