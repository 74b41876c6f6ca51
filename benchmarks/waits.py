"""What people wait for, each row beside what this machine could do at best.

    python -m benchmarks.waits --data ROOT --weights FILE                # all rows, half an hour
    python -m benchmarks.waits --data ROOT --weights FILE --rows one_picture predict --times 5
    python -m benchmarks.waits --table                                   # what was measured last
    python -m benchmarks.waits ... --check                               # 1 where a row got worse

Every time is of a fresh process with empty caches unless its name says warm. One line a call is
added to benchmarks/measured/waits.jsonl: revision, machine, ceiling, every single time. Worse is a
row whose best time is longer than the longest of the last call on the same machine.
"""
from __future__ import annotations

import argparse
import functools
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from adlib.config import Config
from adlib.data import layout
from adlib.data.part import open_part
from adlib.models import registry
from adlib.models.detector import fit
from adlib.models.fast.device import pick_device, precision
from adlib.runs import freshness, run_folder
from adlib.runs.engines import local
from benchmarks import common, speed

HISTORY = Path(__file__).parent / "measured" / "waits.jsonl"
STUDY = "params/grids/quick.yaml"
PICTURES = {"new": 50, "predict": 1000}
MODELS = (("fused", 256), ("cae", 128), ("resnet18", 128))  # pixels
# {row: {unit, times of it, and of one of them the work that the ceiling is a bound of}}
Row = dict[str, typing.Any]
Rows = dict[str, Row]


def decode_rate(root: Path, category: str) -> float:
    """Pictures a second that one core decodes, of those at hand."""
    contents = [path.read_bytes() for path in layout.open_category(root, category).train[:40]]

    def decode() -> None:
        for content in contents:
            Image.open(io.BytesIO(content)).convert("RGB").load()

    return len(contents) / speed.best_of(decode, 3)


def row(times: list[float], unit: str = "s", ideal: float | None = None) -> Row:
    """ideal: seconds that the row's arithmetic or decoding takes at the machine's ceiling."""
    return {"unit": unit, "times": times, "ideal": ideal}


def study(given: argparse.Namespace) -> Rows:
    """`make study` from nothing: to the first finished run's page, and to the whole report."""
    first, whole = [], []
    for _ in range(given.times):
        with tempfile.TemporaryDirectory() as place:
            seen: list[float] = []
            started = time.perf_counter()
            done = threading.Event()

            def look(runs: Path = Path(place) / "reports" / "runs", started: float = started,
                     done: threading.Event = done, seen: list[float] = seen) -> None:
                while not done.wait(0.2) and not seen:
                    if any(runs.glob("*/*/*/index.html")):
                        seen.append(time.perf_counter() - started)

            looking = threading.Thread(target=look)
            looking.start()
            command = ["run", STUDY, "--data", str(given.data), "--weights", given.weights,
                       "--jobs", "2", "--report", "--reports", f"{place}/reports"]
            whole.append(cli(command, place)["seconds"])
            done.set()
            looking.join()
            first += seen
    return {"make study, to the first page": row(first), "make study, whole": row(whole)}


def new(given: argparse.Namespace) -> Rows:
    """`adlib new` with 50 pictures of good parts, to its report."""
    took = []
    for _ in range(given.times):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "good"
            pictures(given, folder, PICTURES["new"])
            took.append(cli(["new", "part", "--good", str(folder), "--data", f"{place}/data",
                             "--weights", given.weights, "--reports", f"{place}/reports"],
                            place)["seconds"])
    return {"adlib new, 50 pictures, to its report": row(took)}


def fused(given: argparse.Namespace) -> Rows:
    """`fused` at 256 px in a cold process with empty caches, to its AUROC."""
    script = speed.TO_METRICS.format(weights=given.weights, root=str(given.data),
                                     name=given.category)
    took = []
    for _ in range(given.times):
        with tempfile.TemporaryDirectory() as place:
            took.append(speed.watched([sys.executable, "-c", script], ADLIB_CACHE=place,
                                      **local.KEEP_MEMORY)["seconds"])
    return {"fused, cold, to its metrics": row(took)}


def one_picture(given: argparse.Namespace) -> Rows:
    """The maps of one picture after another in a warm process, 30 times; the median of each of
    some such series."""
    rows: Rows = {}
    for model, size in MODELS:
        part = open_part(Config(model=model, weights=given.weights, image_size=size,
                                category=given.category, data_root=str(given.data)))
        detector = registry.build(part.config)
        if model == "fused":
            some = part.train.select(range(min(72, len(part.train))))
            detector = fit(detector, some, part.held_out)
        picture = part.good.tensor[:1]
        with FlopCounterMode(display=False) as counter:
            detector.anomaly_maps(picture)
        how = precision(part.config, pick_device("auto"))
        look = functools.partial(detector.anomaly_maps, picture)
        series = [1e3 * statistics.median(speed.seconds_of(look) for _ in range(30))
                  for _ in range(given.times + 1)][1:]
        ideal = 1e3 * counter.get_total_flops() / 1e9 / given.ceiling[f"{how}_gflops"]
        rows[f"one picture, warm: {model} at {size} px"] = row(series, "ms", ideal)
    return rows


def predict(given: argparse.Namespace) -> Rows:
    """`adlib predict` on 1,000 pictures by `fused`, without overlays, and one through ONNX."""
    with tempfile.TemporaryDirectory() as place:
        reports = f"{place}/reports"
        cli(["run", "params/configurations/fused.yaml", "--data", str(given.data), "--weights",
             given.weights, "--only", f"category={given.category}", "--reports", reports], place)
        run, = (path for path in run_folder.all_runs(Path(reports)))
        folder = Path(place) / "new"
        pictures(given, folder, PICTURES["predict"])
        took = [cli(["predict", str(run), str(folder), "--out", f"{place}/out{i}",
                     "--no-overlays"], place)["seconds"] for i in range(given.times)]
        rows = {"adlib predict, 1,000 pictures, fused at 256 px": row(
            took, ideal=PICTURES["predict"] / given.ceiling["decode_per_s"] / given.cores)}
        try:
            import onnxruntime
        except ImportError:
            return rows
        cli(["export", str(run), "--onnx", f"{place}/run.onnx"], place)
        session = onnxruntime.InferenceSession(f"{place}/run.onnx")
        pixels = np.asarray(Image.open(next(folder.iterdir())).convert("RGB"))
        feed = {"picture": pixels.transpose(2, 0, 1)[None].copy()}
        look = functools.partial(session.run, ["score"], feed)
        series = [1e3 * statistics.median(speed.seconds_of(look) for _ in range(30))
                  for _ in range(given.times + 1)][1:]
        return rows | {"one picture, warm: fused at 256 px, onnxruntime": row(series, "ms")}


def starting(given: argparse.Namespace) -> Rows:
    """To print the help, and to import what a kernel needs beyond torch."""
    def took(*words: str) -> list[float]:
        return [speed.seconds_of(functools.partial(
            subprocess.run, [sys.executable, *words], check=True, stdout=subprocess.DEVNULL))
            for _ in range(given.times)]

    return {"adlib --help": row(took("-m", "adlib.cli", "--help")),
            "import torch": row(took("-c", "import torch")),
            "import torch and every module of adlib": row(took(
                "-c", f"import torch, {', '.join(speed.modules())}"))}


MEASURED = {one.__name__: one for one in (study, new, fused, one_picture, predict, starting)}


def cli(words: list[str], place: str) -> dict[str, typing.Any]:
    fine = range(6) if words[0] == "predict" else (0,)  # it also ends with what it found
    return speed.watched([sys.executable, "-m", "adlib.cli", *words], fine,
                         ADLIB_CACHE=f"{place}/cache")


def pictures(given: argparse.Namespace, folder: Path, count: int) -> None:
    """Good pictures at hand, over and over; from the second time on each a little darker, so that
    it is another."""
    folder.mkdir()
    known = layout.open_category(given.data, given.category).train
    for i in range(count):
        path, again = known[i % len(known)], i // len(known)
        if not again:
            shutil.copy(path, folder / f"{i:04d}{path.suffix}")
        else:
            with Image.open(path) as image:
                image.convert("RGB").point(lambda value, by=again: max(0, value - by)).save(
                    folder / f"{i:04d}.png", compress_level=1)


def worse(now: dict[str, typing.Any], history: list[dict[str, typing.Any]]) -> list[str]:
    """The rows that took longer than the last time on this machine, by more than they vary."""
    said = []
    for name, found in now["rows"].items():
        before = [entry["rows"][name] for entry in history
                  if entry["machine"] == now["machine"] and name in entry["rows"]]
        if before and min(found["times"]) > max(before[-1]["times"]):
            said.append(f"{name}: {min(found['times']):.3g} {found['unit']} at best, where it was "
                        f"{max(before[-1]['times']):.3g} {found['unit']} at most")
    return said


def table(entry: dict[str, typing.Any]) -> str:
    """One call's rows in Markdown."""
    lines = [f"{entry['machine']}, {entry['cores']} cores, torch {entry['torch']}, revision "
             f"{entry['revision']}; ceiling: " + ", ".join(
                 f"{name} {value:.0f}" for name, value in entry["ceiling"].items()), "",
             "| what | best | median | worst | at the ceiling | share reached |",
             "|---|---|---|---|---|---|"]
    for name, found in entry["rows"].items():
        times, unit, ideal = found["times"], found["unit"], found["ideal"]
        lines.append(" | ".join([f"| {name}", *(
            f"{value:.3g} {unit}" for value in (min(times), statistics.median(times), max(times))),
            f"{ideal:.2g} {unit}" if ideal else "", f"{ideal / min(times):.0%} |" if ideal else "|"
        ]))
    return "\n".join(lines)


def main(words: list[str] | None = None) -> None:
    parser = common.of_this_machine(__doc__)
    parser.add_argument("--rows", nargs="+", choices=list(MEASURED), default=list(MEASURED))
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--history", type=Path, default=HISTORY)
    parser.add_argument("--table", action="store_true", help="print what was measured last")
    parser.add_argument("--check", action="store_true", help="end with 1 where a row got worse")
    given = parser.parse_args(words)
    history = ([json.loads(line) for line in given.history.read_text(encoding="utf-8").splitlines()]
               if given.history.is_file() else [])
    if given.table:
        print(table(history[-1]) if history else f"nothing was measured yet in {given.history}")
        return
    given = common.completed(given)
    given.cores = os.cpu_count()
    given.ceiling = speed.ceiling() | {
        "decode_per_s": decode_rate(given.data, given.category)}
    now = {"revision": freshness.revision(), "machine": speed.processor(), "cores": given.cores,
           "torch": torch.__version__, "ceiling": given.ceiling, "rows": {}}
    for name in given.rows:
        now["rows"] |= MEASURED[name](given)
        print(f"{name} measured", flush=True)
    print("", table(now), sep="\n")
    slower = worse(now, history)
    print(*slower, sep="\n")
    given.history.parent.mkdir(parents=True, exist_ok=True)
    with given.history.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(now) + "\n")
    sys.exit(int(bool(slower and given.check)))


if __name__ == "__main__":
    main()
