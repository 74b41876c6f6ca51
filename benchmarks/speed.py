"""The reference's way and ours side by side: the same machine, the same images, one run. Prints a
table and writes a JSON file.

    # about 20 minutes on 2 cores: the reference's epochs are extrapolated from a few
    make bench DATA=path WEIGHTS=file
    make bench DATA=path WEIGHTS=file FULL=1     # hours: the reference's way to its end

Every number is of a fresh process unless its name says warm, with empty caches unless its name says
second. Ratios are what to compare between machines; the seconds are this one's.
"""
from __future__ import annotations

import contextlib
import functools
import os
import pkgutil
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import typing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import torch
from PIL import Image

import adlib
from adlib.config import Config
from adlib.data import files, images, layout
from adlib.data.part import open_part
from adlib.evaluation.calibration import score_table
from adlib.models import anomaly_maps, autoencoders, registry, training
from adlib.models.fast.device import has_bf16, pick_device, precision
from adlib.runs import run_folder
from benchmarks import common, detection

# Epochs measured where the reference's way is not run to its end; the first pays for starting the
# loader.
REFERENCE_EPOCHS = 3
TO_METRICS = """
from adlib.config import Config
from adlib.data.part import open_part
from adlib.evaluation.calibration import calibrate
from adlib.evaluation.results import evaluate
from adlib.models.detector import fit
part = open_part(Config(model="fused", image_size=256, weights={weights!r}, data_root={root!r},
                        category={name!r}))
detector = fit(part.config, part.train, part.held_out)
print(evaluate(detector, calibrate(detector, part), part).auroc["test"]["value"])
"""
GROWTH = ((0.25, 128), (1, 64), (1, 128), (1, 256), (4, 128))  # share of the images, pixels
LARGE = 1024  # pixels: MVTec AD's own size, where decoding counts


def ceiling(device: str = "cpu") -> dict[str, float]:
    """What a device can do: matrix products in GFLOP/s, copies in GB/s."""
    found = {}
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        # bf16 that is only imitated would take a minute
        side = 2048 if name == "float32" or has_bf16(torch.device(device)) else 256
        a, b = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
        found[f"{name}_gflops"] = 2 * side**3 / 1e9 / best_of(lambda a=a, b=b: a @ b)
    x, y = torch.randn(64_000_000, device=device), torch.empty(64_000_000, device=device)
    found["copy_gb"] = 2 * 4 * len(x) / 1e9 / best_of(lambda: y.copy_(x))
    return found


def processor() -> str:
    """Its name and whether it computes bf16, which decides more than the name does."""
    place = Path("/proc/cpuinfo")
    about = place.read_text(encoding="utf-8") if place.exists() else ""
    name = re.search(r"model name\s*: (.+)", about)
    bf16 = "with" if "avx512_bf16" in about else "without"
    return f"{name.group(1) if name else 'unknown processor'} ({bf16} bf16)"


def best_of(function: typing.Callable[[], typing.Any], times: int = 6) -> float:
    """The shortest of some calls, in seconds."""
    return min(seconds_of(function) for _ in range(times))


def seconds_of(function: typing.Callable[[], typing.Any]) -> float:
    """To the end of what a GPU was asked to do."""
    started = time.perf_counter()
    function()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def watched(command: list[str], fine: typing.Collection[int] = (0,), **environment: str
            ) -> dict[str, typing.Any]:
    """Run a command to its end: {seconds, peak_mb (of the process with all its descendants, mapped
    files aside), output}. fine: the exit codes that are no failure."""
    started, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said,
                                   stderr=subprocess.STDOUT, env=os.environ | environment)
        tree = psutil.Process(running.pid)
        while running.poll() is None:
            used = 0
            with contextlib.suppress(psutil.NoSuchProcess):
                for member in (tree, *tree.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        memory = member.memory_info()
                        used += memory.rss - getattr(memory, "shared", 0)
            peak = max(peak, used / 2**20)
            time.sleep(0.5)  # looking costs the watched ones time
        seconds = time.perf_counter() - started
        said.seek(0)
        output = said.read()
    if running.returncode not in fine:
        raise SystemExit(f"{' '.join(command)} failed:\n{output[-2000:]}")
    return {"seconds": seconds, "peak_mb": peak, "output": output}


def enlarged(root: Path, target: Path) -> Path:
    """The same data with every image as a PNG of LARGE pixels."""
    def one(path: Path) -> None:
        place = target / path.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"):
            with Image.open(path) as image:
                image.convert("RGB").resize((LARGE, LARGE), Image.Resampling.BICUBIC).save(
                    place, compress_level=6)
        elif path.is_file():
            shutil.copy(path, place)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, [path for path in sorted(root.rglob("*")) if path.is_file()]))
    return target


def the_reference(root: Path, weights: str, full: bool) -> dict[str, typing.Any]:
    """Its runs one after the other, as its notebook does: {cells: {category-config: ...}, seconds,
    peak_mb, extrapolated}."""
    cells = {}
    for config in detection.configs(detection.GRIDS["reference"], data_root=root, weights=weights,
                                    seeds=[0]):
        with tempfile.TemporaryDirectory() as folder:
            seen = watched([sys.executable, "-m", "benchmarks.reference", "--data", str(root),
                            "--weights", weights, "--folder", folder, "--category", config.category,
                            "--config", config.name,
                            *([] if full else ["--epochs", str(REFERENCE_EPOCHS)])])
            cell = files.read_json(Path(folder) / "reference.json")
        epoch = warm_epoch(cell["epoch_seconds"])
        left = cell["epochs"] - len(cell["epoch_seconds"])
        cell |= {"epoch": epoch, "peak_mb": seen["peak_mb"],
                 "seconds": seen["seconds"] + left * epoch}
        cells[f"{config.category}-{config.name}"] = cell
        print(f"  reference's way, {config.category} {config.name}: {epoch:.2f} s an epoch, "
              f"{cell['seconds']:.0f} s in all", flush=True)
    return {"cells": cells, "seconds": sum(cell["seconds"] for cell in cells.values()),
            "extrapolated": not full, "peak_mb": max(cell["peak_mb"] for cell in cells.values())}


def warm_epoch(seconds: typing.Sequence[float]) -> float:
    """The mean without the first, which pays for what is made once; of either way."""
    return statistics.mean(seconds[1:] or seconds)


def ours(root: Path, weights: str) -> dict[str, typing.Any]:
    """`adlib run` from nothing to the rendered report, two runs at a time, and the same command
    once more."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "adlib.cli", "run", detection.GRIDS["ours"], "--data",
                   str(root), "--weights", weights, "--jobs", "2", "--report", "--reports",
                   f"{place}/reports"]
        first = watched(command, ADLIB_CACHE=f"{place}/cache")
        cells = {}
        for run in run_folder.all_runs(Path(place) / "reports"):
            about, measured = run_folder.manifest(run), files.read_json(run / "metrics.json")
            cells[f"{run.parts[-3]}-{run.parts[-2]}"] = {
                "seconds": about["seconds"], "train_seconds": about["train_seconds"],
                "epochs": measured["epochs"]}
        second = watched(command, ADLIB_CACHE=f"{place}/cache")
        tasks, again = (seen["output"].count("done (") for seen in (first, second))
    print(f"  ours: {first['seconds']:.0f} s; once more: {second['seconds']:.1f} s, {again} of "
          f"{tasks} tasks done again", flush=True)
    return {"cells": cells, "seconds": first["seconds"], "peak_mb": first["peak_mb"],
            "second_seconds": second["seconds"], "tasks": tasks, "done_again": again}


def training_rates(root: Path, weights: str, limits: dict[str, float]) -> dict[str, typing.Any]:
    """Warm epochs of each configuration with all cores: images a second, and the share of the
    matrix-product ceiling."""
    from torch.utils.flop_counter import FlopCounterMode

    rates = {}
    for config in detection.configs(detection.GRIDS["ours"], data_root=root, weights=weights,
                                    seeds=[0])[:4]:
        part = open_part(config)
        network, _ = autoencoders.build_network(config)
        with FlopCounterMode(display=False) as counter:
            x = images.to_float(part.train.tensor[:4])
            training.loss_terms(x, network(x), config.ssim_weight)[0].backward()
        history = training.train(network, part.train.tensor, part.held_out.tensor, config)
        rate = len(part.train) / warm_epoch([row["seconds"] for row in history])
        gflop, how = counter.get_total_flops() / 4 / 1e9, precision(
            config, pick_device("auto"), learning=True)
        rates[config.name] = {"images_per_second": rate, "gflop_per_image": gflop, "precision": how,
                              "share_of_ceiling": gflop * rate / limits[f"{how}_gflops"]}
    return rates


def scoring(root: Path, weights: str) -> float:
    """Images a second of the CAE in a warm process: every map and score."""
    part = open_part(Config(weights=weights, image_size=128, data_root=str(root),
                            category=layout.categories(root)[0]))
    detector, good = registry.build(part.config), part.good.tensor
    maps = detector.anomaly_maps(good[:8])
    arrays = {name: values.numpy() for name, values in maps.items()}
    scale = anomaly_maps.scale_of([(arrays, anomaly_maps.WHOLE)])
    return len(good) / best_of(functools.partial(score_table, detector, scale, good), 3)


def growth(root: Path, weights: str) -> dict[str, float]:
    """Seconds of a warm CAE + SSIM epoch: {"images x pixels": seconds}, from a quarter of the
    images to four times as many."""
    took, category = {}, layout.categories(root)[0]
    for share, size in GROWTH:
        config = Config(ssim_weight=0.5, image_size=size, epochs=2, weights=weights, held_out=0,
                        category=category, data_root=str(root))
        good = open_part(config).good.tensor
        pictures = good.repeat(4, 1, 1, 1)[:int(share * len(good))]
        history = training.train(autoencoders.build_network(config)[0], pictures, None, config)
        took[f"{len(pictures)} x {size}"] = history[-1]["seconds"]
    return took


def modules() -> list[str]:
    """Every module of adlib that needs no optional extra."""
    optional = ("adlib.cli", "adlib.runs.engines.dask", "adlib.models.anomalib_adapter")
    return [found.name for found in pkgutil.walk_packages(adlib.__path__, "adlib.")
            if not found.ispkg and found.name not in optional]


def compared(result: dict[str, typing.Any]) -> str:
    """The table that is printed."""
    lines = [
        f"{result['machine']}, {result['cores']} cores, torch {result['torch']}; ceiling: " +
        ", ".join(f"{name} {value:.0f}" for name, value in result["ceiling"].items()), ""
    ]
    rows = [("what", "the reference's way", "ours", "ratio")]
    for size, both in result["sizes"].items():
        its, own = both["reference"], both["ours"]
        about = " (extrapolated)" if its["extrapolated"] else ""
        rows.append(
            (f"{size} px files: all runs, finished and rendered", f"{its['seconds']:.0f} s{about}",
             f"{own['seconds']:.0f} s", f"{its['seconds'] / own['seconds']:.1f} x"))
        rows.append((f"{size} px files: peak memory", f"{its['peak_mb']:.0f} MB",
                     f"{own['peak_mb']:.0f} MB (2 runs at once)",
                     f"{its['peak_mb'] / own['peak_mb']:.2f} x"))
        for name, found in result["training"].items():
            rates = [
                cell["images"] / cell["epoch"] for key, cell in its["cells"].items()
                if key.endswith(f"-{name}")
            ]
            before = statistics.mean(rates)
            rows.append((f"{size} px files: {name}, training, ours warm", f"{before:.0f} images/s",
                         f"{found['images_per_second']:.0f} images/s",
                         f"{found['images_per_second'] / before:.1f} x"))
        rate = statistics.mean(cell["scored_per_second"] for cell in its["cells"].values())
        fast = result["scoring"]
        rows.append((f"{size} px files: scoring, ours warm",
                     f"{rate:.0f} images/s (1 score, decoded)",
                     f"{fast:.0f} images/s (12 scores)", f"{fast / rate:.1f} x"))
        again = f"{own['second_seconds']:.1f} s, {own['done_again']} of {own['tasks']} tasks"
        rows.append((f"{size} px files: the same command again", "", again, ""))
    for name, found in result["training"].items():
        rows.append((f"{name}: share of the {found['precision']} ceiling in training", "",
                     f"{found['share_of_ceiling']:.0%}", ""))
    rows += [(f"an epoch of CAE + SSIM, {name} px", "", f"{seconds:.2f} s", "")
             for name, seconds in result["growth"].items()]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(lines + [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ])


def main() -> None:
    parser = common.of_this_machine(__doc__)
    parser.add_argument("--full", action="store_true", help="run the reference's way to its end")
    parser.add_argument("--sizes", nargs="+", default=["256", str(LARGE)],
                        choices=["256", str(LARGE)], help="of the image files")
    parser.add_argument("--out", type=Path,
                        default=Path(__file__).parent / "measured" / "speed.json")
    given = common.completed(parser.parse_args())
    root, weights = given.data, given.weights
    result: dict[str, typing.Any] = {
        "machine": processor(), "cores": os.cpu_count(), "torch": torch.__version__,
        "ceiling": ceiling(), "sizes": {}
    }
    with tempfile.TemporaryDirectory() as place:
        for size in given.sizes:
            print(f"{size} px files:", flush=True)
            here = root if size != str(LARGE) else enlarged(root, Path(place) / "large")
            result["sizes"][size] = {"reference": the_reference(here, weights, given.full),
                                     "ours": ours(here, weights)}
            # what took longest is kept, whatever becomes of the rest
            files.write_json(given.out, result)
        os.environ["ADLIB_CACHE"] = f"{place}/cache"
        result |= {
            "training": training_rates(root, weights, result["ceiling"]),
            "scoring": scoring(root, weights), "growth": growth(root, weights)
        }
    files.write_json(given.out, result)
    print("", compared(result), "", f"written to {given.out}", sep="\n")


if __name__ == "__main__":
    main()
