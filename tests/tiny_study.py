"""A real study, as small as it goes, in a folder of its own: what is killed, starved and sent to a
cluster."""
from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import time
import typing
from pathlib import Path

import nbformat
import psutil
import yaml

from adlib.data.synthetic import drawing
from adlib.runs import run_folder
from tests import forked

if typing.TYPE_CHECKING:
    import distributed

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = ("metrics.json", "all_results.csv")
GRID = {
    "configs": ["cae_ssim", "mean_grey"], "categories": "all", "seeds": [0], "set": {
        "epochs": 4, "image_size": 32, "batch_size": 4, "weights": "none", "held_out": 0.4,
        "target_fpr": 0.3
    }
}
# else no run here is long enough for a checkpoint
EVERY_EPOCH = "from adlib.models import training\ntraining.CHECKPOINT_EVERY_S = 0"
# the kernel's conftest.small_detectors
SMALL_DETECTORS = """from adlib.evaluation import calibration
from adlib.models import detectors, fused
calibration.SYNTHETIC, fused.SYNTHETIC, fused.VIEWS = 8, 24, 16
detectors.BANK, detectors.POOL = 400, 2000"""


class Study:
    """A study in a folder of its own: notebooks and parameters copied, one synthetic category, and
    its command."""
    def __init__(self, place: Path, lacks: str = "cae_ssim") -> None:
        """lacks: of a copied study, the configuration that has no run."""
        self.place, self.reports, self.data, self.engine, self.lacks = (
            place, place / "reports", place / "data", ["--jobs", "2"], lacks)

    def made(self, like: Study | None = None, done: bool = False, drawn: bool = True) -> Study:
        """like: a study whose data this one shares, and (`done`) all of whose results but the run
        that it lacks. drawn: else it has no data."""
        for name in ("notebooks", "params"):
            shutil.copytree(ROOT / name, self.place / name)
        (self.place / "params" / "grids" / "faults.yaml").write_text(yaml.safe_dump(GRID))
        self.insert("02_cae_baseline", EVERY_EPOCH)
        if done:
            shutil.copytree(like.reports, self.reports,
                            ignore=shutil.ignore_patterns(".batch.lock"))
            shutil.rmtree(self.folder())
        if like:
            shutil.copytree(like.data, self.data)
        elif drawn:
            drawing.write_dataset(self.data, train=8, good=2, anomalous=3, pixels=32)
            shutil.rmtree(self.data / "zipper")
        return self

    def insert(self, notebook: str, code: str, before: str = "") -> None:
        """before: the first cell with these words; else behind the first code cell."""
        path = self.place / "notebooks" / f"{notebook}.ipynb"
        book = nbformat.read(path, 4)
        where = next(i for i, cell in enumerate(book.cells)
                     if cell.cell_type == "code" and before in cell.source) + (not before)
        book.cells.insert(where, nbformat.v4.new_code_cell(code))
        nbformat.write(book, path)

    def words(self, *more: str) -> list[str]:
        return ["run", "params/grids/faults.yaml", "--data", str(self.data), "--reports",
                str(self.reports), *self.engine, *more]

    def begin(self, *more: str, **environment: str) -> forked.Command | subprocess.Popen:
        return forked.begin("adlib", self.words(*more), self.place, environment)

    def run(self, *words: str, code: int = 0, **environment: str) -> str:
        child = self.begin(*words, **environment)
        said = child.communicate(timeout=300)[0]
        assert child.returncode == code, said
        return said

    def folder(self, name: str = "") -> Path:
        return self.reports / "runs" / "hazelnut" / (name or self.lacks) / "seed-0"

    def numbers(self) -> dict[str, bytes]:
        return {
            f"{config}/{name}": (self.folder(config) / name).read_bytes()
            for config in GRID["configs"]
            for name in NUMBERS
        }

    def complete(self) -> bool:
        wanted = [
            self.reports / "index.html", self.reports / "comparison.ipynb",
            self.reports / "eda" / "hazelnut" / "notebook.ipynb"
        ]
        folders = [self.folder(name) for name in GRID["configs"]]
        return (all(path.is_file()
                    for path in [*wanted, *(folder / "notebook.ipynb" for folder in folders)])
                and all(run_folder.status(folder).state == "finished" for folder in folders))


def wait_for(happened, seconds: float = 60.0):
    ends = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.02)
    return found


def kernel_of(batch: subprocess.Popen, study: Study) -> psutil.Process:
    """The kernel that trains, once it has begun with the run."""
    wait_for(lambda: run_folder.manifest(study.folder()).get("status") == "running")
    return psutil.Process(run_folder.manifest(study.folder())["pid"])


@contextlib.contextmanager
def workers(n: int, **options: object) -> typing.Iterator[distributed.LocalCluster]:
    """A Dask cluster of n workers with one thread each, unless `options` say otherwise."""
    import distributed

    usual = {
        "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1", "protocol": "tcp",
        "silence_logs": logging.CRITICAL
    }
    with distributed.LocalCluster(n_workers=n, **usual | options) as local:
        yield local
