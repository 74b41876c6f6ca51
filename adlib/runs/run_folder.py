"""A run's folder, its manifest, and its life: start, progress, finish, fail.

The folder is the only thing notebooks hand to each other. `metrics.json` is written last: a run
without it has not finished, whatever else it says. The lock tells a running run from one that was
killed.
"""
from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
import typing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import filelock

from adlib.config import FEATURE_MODELS, STATISTICS, Config, InputError, project_root
from adlib.data import files, layout
from adlib.runs import provenance

if typing.TYPE_CHECKING:  # whoever lists runs need not wait for torch
    from adlib.data.part import Part
    from adlib.evaluation.calibration import Decision
    from adlib.evaluation.results import Results
    from adlib.models.detector import Detector

NOTEBOOKS = {"cae": "02_cae_baseline.ipynb", "resnet18": "03_resnet_ssim.ipynb"} | dict.fromkeys(
    FEATURE_MODELS + STATISTICS, "04_feature_space.ipynb")
PATIENCE_S = 5.0  # a kernel sees within a second that its papermill was killed
# where things lie decides no number; what lies there does
NOT_INPUTS = ("category", "data_root", "reports")


@dataclass(frozen=True)
class Status:
    state: str  # missing | running | finished | failed | interrupted
    reason: str = ""


@dataclass(frozen=True)
class Run:
    """A run under way, owned by this process until `finish`."""

    folder: Path
    config: Config
    identity: str  # hash of everything the numbers depend on
    lock: filelock.FileLock
    category: layout.Category
    contents: dict[str, str]  # data.contents at the start
    began: float  # of a clock that only goes forward

    def progress(self, state: dict[str, typing.Any]) -> None:
        """Say how far training is ({"epoch", "epochs", "loss", "seconds_left"}), for whoever
        watches the folder."""
        files.write_json(self.folder / "progress.json", state)

    def show(self, figure: typing.Any) -> None:
        """Save a captioned figure of adlib.report in the run's folder, and display it."""
        figure.show(self.folder)

    def save(self, detector: Detector, decision: Decision, results: Results) -> None:
        """Write everything the run came to, the metrics last: then it is finished."""
        from adlib.evaluation.results import write_csv

        write_csv(results.table, self.folder / "all_results.csv")
        write_csv(results.score_study, self.folder / "score_study.csv")
        write_csv(results.regions, self.folder / "regions.csv")
        if len(results.epochs):
            write_csv(results.epochs, self.folder / "epochs.csv")
        if detector.history:
            from adlib.models.training import write_history

            write_history(self.folder / "history.csv", detector.history)
        if detector.can_be_reopened:
            _save_state(detector, self.folder / "model.pt")
        else:
            (self.folder / "model.pt").unlink(missing_ok=True)
        trained = sum(row.get("seconds", 0.0) for row in detector.history)
        epochs_count = hasattr(detector, "scores_over_epochs") and trained  # over all of its lives
        self.finish(results.metrics, train_seconds=epochs_count or detector.seconds)

    def finish(self, metrics: dict[str, typing.Any], *, train_seconds: float) -> None:
        """Record the metrics and the end of the run; drop what only an unfinished run needs.

        Times go into the manifest and not into metrics.json, which is the same, byte for byte, for
        equal inputs. Raises InputError naming the files of the data that changed meanwhile: these
        numbers would be nobody's.
        """
        if changed := layout.changed(self.category, self.contents):
            raise InputError(
                f"the data changed while this run was at work: {layout.some(changed)}; its "
                f"numbers would be of neither state, "
                "so there are none; run it again")
        about = files.read_json(self.folder / "run.json")
        about |= {
            "status": "finished", "finished": datetime.now(timezone.utc).isoformat(),
            "seconds": time.monotonic() - self.began, "train_seconds": train_seconds
        }
        files.write_json(self.folder / "run.json", about)
        files.write_json(self.folder / "metrics.json", metrics)
        _clear_work(self.folder)
        self.lock.release(force=True)  # also when a cell was run twice


def reports_dir(reports: str = "") -> Path:
    return Path(reports) if reports else project_root() / "reports"


def folder(config: Config) -> Path:
    return reports_dir(
        config.reports) / "runs" / config.category / config.name / f"seed-{config.seed}"


def inputs(config: Config, category: layout.Category) -> dict[str, typing.Any]:
    """Everything the run's numbers depend on; two runs of equal inputs have equal numbers (on one
    machine, on CPU)."""
    params = {key: value for key, value in config.as_dict().items() if key not in NOT_INPUTS}
    given = params.pop("weights")
    weights = "none" if config.model in ("cae", *STATISTICS) else given
    if weights not in ("imagenet", "none"):
        path = Path(weights)
        weights = "sha256:" + hashlib.sha256(
            path.read_bytes()).hexdigest()[:16] if path.is_file() else f"missing {path}"
    return {
        "params": params, "data": layout.fingerprint(category), "weights": weights,
        "code": provenance.code(NOTEBOOKS.get(config.model, "04_feature_space.ipynb"))
    }


def start(part: Part, detector: Detector) -> Run:
    """Take the run's folder, and write down what is about to be run.

    Keeps the checkpoint of a killed run with the same inputs. Raises InputError when another
    process is at work in the folder.
    """
    from adlib.models.fast import device as devices

    config, category, source, weights = part.config, part.category, part.source, detector.weights
    machine = devices.describe(config)
    here, began = folder(config), time.monotonic()
    lock = _take(here)
    known, contents = inputs(config, category), layout.contents(category)
    identity = hashlib.sha256(json.dumps([known, weights], sort_keys=True).encode()).hexdigest()
    if manifest(here).get("inputs") != known:
        _clear_work(here)
    (here / "metrics.json").unlink(missing_ok=True)
    files.write_json(
        here / "run.json", {
            "status": "running", "pid": os.getpid(), "host": platform.node(),
            "params": config.as_dict(), "inputs": known, "data": {
                "root": str(category.root.resolve()), "layout": category.layout,
                "synthetic": category.synthetic, "source": source, "fingerprint": known["data"],
                "counts": {
                    "train": len(category.train), "test": len(category.test), "train_bad": len(
                        category.train_bad)
                }
            }, "weights": weights, **machine,
            "versions": provenance.versions(), "git": provenance.revision(),
            "started": datetime.now(timezone.utc).isoformat()
        })
    return Run(here, config, identity, lock, category, contents, began)


def status(run_folder: Path) -> Status:
    """What became of a run. Never raises: a folder that cannot be understood is a failed run, with
    the reason."""
    if not (run_folder / "run.json").exists():
        return Status("missing", "never run")
    about = manifest(run_folder)
    said = about.get("status")
    if said == "failed":
        return Status("failed", str(about.get("error", "no reason recorded")))
    if said == "finished":
        try:
            metrics = files.read_json(run_folder / "metrics.json")
            if isinstance(metrics, dict) and "auroc" in metrics:
                return Status("finished")
            return Status("failed", f"{run_folder / 'metrics.json'} holds no AUROC; run it again")
        except InputError as error:
            return Status("failed", str(error))
    if said == "running":
        return Status("running") if _locked(run_folder) else Status(
            "interrupted", "its process ended before it finished")
    return Status("failed", f"{run_folder / 'run.json'} cannot be understood; run it again")


def left_alone(run_folder: Path) -> bool:
    """Is nobody at work in the folder? Waits some seconds for whoever is: a kernel outlives a
    killed papermill by one."""
    ends = time.monotonic() + PATIENCE_S
    while status(run_folder).state == "running":
        if time.monotonic() > ends:
            return False
        time.sleep(0.1)
    return True


def fail(run_folder: Path, reason: str) -> None:
    """The runner's verdict that a run failed; it stands above what the notebook said of itself."""
    files.write_json(run_folder / "run.json",
                     manifest(run_folder) | {"status": "failed", "error": reason})
    (run_folder / "progress.json").unlink(missing_ok=True)


def stale(run_folder: Path, now: dict[str, typing.Any]) -> str | None:
    """Why a finished run no longer answers what is asked (`now`: runs.inputs), in words; None when
    it does."""
    about = manifest(run_folder)
    before = about.get("inputs")
    if not isinstance(before, dict) or not isinstance(before.get("params"), dict):
        return "it was made by another version of adlib"
    if before == now and str(about.get("weights")).startswith("RANDOM") and imagenet_at_hand():
        return "it ran with random weights, and ImageNet's are at hand now"
    if before == now:
        return None
    old, new = before["params"], now["params"]
    changed = [
        f"{key}: {old.get(key)} -> {new.get(key)}" for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    words = {
        "data": "the data changed", "weights": "the weights changed",
        "code": "the code that makes the numbers changed"
    }
    changed += [text for key, text in words.items() if before.get(key) != now[key]]
    # a key that this version does not know
    return "; ".join(changed) or "it was made by another version of adlib"


def all_runs(reports: Path) -> list[Path]:
    """The folders of all runs, finished or not, in the order of category, configuration and seed.
    """
    def order(run_folder: Path) -> tuple[object, ...]:
        seed = run_folder.name.removeprefix("seed-")
        # seed-10 after seed-2
        return (run_folder.parent.parts, int(seed) if seed.isdecimal() else -1, seed)

    return sorted((path.parent for path in (reports / "runs").glob("*/*/seed-*/run.json")),
                  key=order)


def _save_state(detector: Detector, path: Path) -> None:
    """The state dict, loadable with torch.load(path, weights_only=True)."""
    import torch

    state = {name: tensor.detach().cpu() if isinstance(tensor, torch.Tensor) else tensor
             for name, tensor in detector.state_dict().items()}
    with files.atomic_path(path) as temporary:
        torch.save(state, temporary)


def data_root(run_folder: Path) -> str:
    """Where the data of a run lie on this machine."""
    return manifest(run_folder)["data"]["root"]


def _take(here: Path) -> filelock.FileLock:
    try:
        here.mkdir(parents=True, exist_ok=True)
        # a cell run again in one kernel takes its own lock
        lock = filelock.FileLock(here / ".lock", is_singleton=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise InputError(f"another process is working on {here}; wait for it, or end it") from None
    except OSError as error:
        raise InputError(
            f"cannot write in {here}: {error.strerror or error}; make it writable or choose "
            f"another reports "
            "folder") from error
    return lock


def _locked(here: Path) -> bool:
    try:
        with filelock.FileLock(here / ".lock", timeout=0):
            return False
    # Timeout is one; so is a lock in a folder we may only read: then run.json's word stands
    except OSError:
        return True


def manifest(here: Path) -> dict[str, typing.Any]:
    """What run.json says; {} when it is missing or cannot be understood."""
    try:
        about = files.read_json(here / "run.json")
    except InputError:
        return {}
    return about if isinstance(about, dict) else {}


def _clear_work(here: Path) -> None:
    for name in ("progress.json", "checkpoint.pt"):
        (here / name).unlink(missing_ok=True)
    shutil.rmtree(here / "snapshots", ignore_errors=True)


def imagenet_at_hand() -> bool:
    """Is torchvision's ResNet18 file in torch's cache? Asked without loading torch."""
    home = os.environ.get("TORCH_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME",
                       Path.home() / ".cache")) / "torch"
    return any((Path(home) / "hub" / "checkpoints").glob("resnet18-*.pth"))
