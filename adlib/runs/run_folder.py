"""A run's folder, its manifest, and its life: start, progress, finish, fail.

The folder is the only thing notebooks hand to each other. `metrics.json` is written last: a run
without it has not finished, whatever else it says. A finished run that is run again works in the
hidden folder AGAIN, and its numbers stand until the new ones are complete. The lock tells a running
run from one that was killed. What names this machine lies in `.local.json` alone, so that the rest
can be passed on.
"""
from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import shutil
import time
import typing
from datetime import datetime, timezone
from pathlib import Path

import filelock

from adlib.config import (
    RENAMED_LAYOUTS,
    Config,
    InputError,
    log,
    project_root,
    upgrade,
    upgrade_metrics,
    upgrade_weights,
)
from adlib.data import files, layout
from adlib.runs import freshness

if typing.TYPE_CHECKING:  # whoever lists runs need not wait for torch
    import numpy as np
    from torch import nn

    from adlib.data.part import Part
    from adlib.evaluation.calibration import Decision
    from adlib.evaluation.results import Results
    from adlib.models.detector import Detector

LOOKED_AT = "looked_at.png"  # white = what roi and ignore leave to be looked at
REOPENED_FROM = ("model.pt", "foreign.pt", "conditions.json", LOOKED_AT)
AGAIN, SCRATCH = ".again", "scratch"
PATIENCE_S = 5.0  # a kernel sees within a second that its papermill was killed
PLACES = ("data_root", "reports", "weights")  # parameters that may be paths of this machine
SIXTEEN_BITS = (0, 65535)


@dataclasses.dataclass(frozen=True)
class Status:
    state: str  # missing | running | finished | failed | interrupted
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run under way, owned by this process until `finish`."""

    home: Path  # the run's folder
    config: Config
    identity: str  # hash of everything the numbers depend on
    lock: filelock.FileLock
    category: layout.Category
    contents: dict[str, str]  # layout.contents at the start
    began: float  # of a clock that only goes forward
    looked_at: np.ndarray | None  # what roi and ignore leave to be looked at: bool [h,w]

    @property
    def folder(self) -> Path:
        """Where its files are written now."""
        return work(self.home)

    def progress(self, state: dict[str, typing.Any]) -> None:
        """Say how far training is ({"epoch", "epochs", "loss", "seconds_left"}), for whoever
        watches the folder."""
        files.write_json(self.folder / "progress.json", state)

    def save(self, detector: Detector, decision: Decision, results: Results) -> None:
        """Write everything the run came to, the metrics last: then it is finished.

        Raises InputError as `finish`, and where cells were run out of order.
        """
        import pandas as pd

        from adlib.data import frame
        from adlib.evaluation.results import write_csv
        from adlib.models.detector import check_fitted

        check_fitted(detector)
        if not set(results.table["path"]) <= self.contents.keys():
            raise InputError(f"these results are not of the images of {self.home}: run the "
                             "notebook's cells again, in their order")
        frame.keep(self.looked_at, self.folder / LOOKED_AT)
        write_csv(results.table, self.folder / "all_results.csv")
        write_csv(results.score_study, self.folder / "score_study.csv")
        write_csv(results.regions, self.folder / "regions.csv")
        if len(results.epochs):
            write_csv(results.epochs, self.folder / "epochs.csv")
        if detector.history:
            write_csv(pd.DataFrame(detector.history), self.folder / "history.csv")
        if detector.can_be_reopened:
            save_state(detector, self.folder / "model.pt")
        if decision.conditions is not None:
            files.write_json(self.folder / "conditions.json", decision.conditions.as_dict())
        if decision.foreign is not None:
            save_state(decision.foreign, self.folder / "foreign.pt")
            about = files.read_json(self.folder / "run.json")
            files.write_json(self.folder / "run.json",
                             about | {"foreign_weights": decision.foreign.weights})
        trained = sum(row.get("seconds", 0.0) for row in detector.history)
        epochs_count = hasattr(detector, "scores_over_epochs") and trained  # over all of its lives
        self.finish(results.metrics, train_seconds=epochs_count or detector.seconds)

    def finish(self, metrics: dict[str, typing.Any], *, train_seconds: float) -> None:
        """Record the metrics and the end of the run; drop what only an unfinished run needs.

        Times go into the manifest and not into metrics.json, which is the same, byte for byte, for
        equal inputs.

        Raises:
            InputError: naming the files of the data that changed meanwhile; these numbers would be
                of neither state.
        """
        if changed := layout.changed(self.category, self.contents):
            raise InputError(f"the data changed while this run was at work: "
                             f"{layout.some(changed)}; its numbers would be of neither state, so "
                             f"there are none; run it again")
        here = self.folder
        about = files.read_json(here / "run.json")
        about |= {"status": "finished", "finished": datetime.now(timezone.utc).isoformat(),
                  "seconds": time.monotonic() - self.began, "train_seconds": train_seconds,
                  "reopened_from": [name for name in REOPENED_FROM if (here / name).exists()]}
        files.write_json(here / "run.json", about)
        files.write_json(here / "metrics.json", metrics)
        _clear_work(here)
        _replace(self.home)
        self.lock.release(force=True)  # also when a cell was run twice


def reports_dir(reports: str = "") -> Path:
    return Path(reports) if reports else project_root() / "reports"


def folder(config: Config) -> Path:
    runs = reports_dir(config.reports) / "runs"
    return runs / config.category / config.name / f"seed-{config.seed}"


def folder_after(config: Config, kind: str) -> Path:
    """Where what is found out about a finished run goes: `limits`, `how_many`."""
    return reports_dir(_kept(config).reports) / kind / config.category / config.name


def work(run_folder: Path) -> Path:
    """Where the latest attempt at a run keeps its files: beside the numbers of an earlier one, if
    these stand until it is complete."""
    again = run_folder / AGAIN
    return again if (again / "run.json").exists() else run_folder


def start(part: Part, detector: Detector) -> Run:
    """Take the run's folder, and write down what is about to be run.

    Keeps the checkpoint of a killed run with the same inputs. A notebook with somebody at it takes
    a folder below reports/scratch, unless its parameter save_as names the run.

    Raises:
        InputError: when another process is at work in the folder, or it cannot be written.
    """
    from adlib.models.fast import device as devices

    config, category, weights = _kept(part.requested), part.category, detector.weights
    home, began = folder(config), time.monotonic()
    # a cell run again in one kernel takes its own lock
    lock = files.taken(home / ".lock", f"another process is working on {home}; wait for it, or end "
                       "it", "make it writable or choose another reports folder", is_singleton=True)
    inputs, contents = freshness.of_run(config, category), layout.contents(category)
    if freshness.attended():
        inputs["code"] = freshness.by_hand()
        if not config.save_as:
            log.info("this run is kept in %s; give save_as a name to keep it among the others",
                     home)
    identity = hashlib.sha256(json.dumps([inputs, weights], sort_keys=True).encode()).hexdigest()
    _replace(home)
    here = home / AGAIN if numbers(home).state == "finished" else home
    same = freshness.read(here / "run.json").get("inputs") == inputs
    if not same:
        _clear_work(here)
    if not same or here == home:
        shutil.rmtree(home / AGAIN, ignore_errors=True)
    if here == home:
        _clear_results(home)
    root, params = category.root.resolve(), config.as_dict()
    files.write_json(here / ".local.json", {
        "host": platform.node(), "data_root": str(root), "params": {
            key: params[key] for key in PLACES}})
    counts = {split: len(getattr(category, split)) for split in ("train", "test", "train_bad")}
    files.write_json(here / "run.json", {
        "status": "running", "pid": os.getpid(), "inputs": inputs,
        "params": params | {key: Path(str(params[key])).name for key in PLACES}, "data": {
            "root": root.name, "layout": category.layout, "synthetic": category.synthetic,
            "source": part.source, "counts": counts,
            "fingerprint": inputs["data"], "grey_range": part.grey_range, "fit": part.fit_choice,
            "left_out": part.left_out},
        "weights": weights, **devices.describe(part.config), "versions": freshness.versions(),
        "git": freshness.revision(),
        "started": datetime.now(timezone.utc).isoformat()})
    return Run(home, config, identity, lock, category, contents, began, part.looked_at)


def status(run_folder: Path) -> Status:
    """What became of a run. Never raises: a folder that cannot be understood is a failed run, with
    the reason.

    Numbers that are complete stand while the run is tried again, and after: but where the runner
    says that this failed, and it was for other inputs, the run has failed.
    """
    if not (run_folder / "run.json").exists():
        return Status("missing", "never run")
    about, again = (freshness.read(here / "run.json") for here in (run_folder, run_folder / AGAIN))
    complete = (run_folder / AGAIN / "metrics.json").exists()
    running = "running" in (about.get("status"), again.get("status"))
    if (complete or running) and _locked(run_folder):
        return Status("running")
    if again.get("status") == "failed" and again.get("inputs") != about.get("inputs"):
        return Status("failed", str(again.get("error", "no reason recorded")))
    return numbers(run_folder)


def manifest(run_folder: Path) -> dict[str, typing.Any]:
    """What run.json says, in this version's words; {} when it is missing or cannot be understood.
    """
    about = freshness.read(run_folder / "run.json")
    if isinstance(about.get("params"), dict):
        about["params"] = upgrade(about["params"], "run folders of an earlier version")
    about |= {key: upgrade_weights(about[key]) for key in ("weights", "foreign_weights")
              if isinstance(about.get(key), str)}
    if isinstance(data := about.get("data"), dict) and "layout" in data:
        data["layout"] = RENAMED_LAYOUTS.get(data["layout"], data["layout"])
    return about


def metrics(run_folder: Path) -> dict[str, typing.Any]:
    """What metrics.json holds, in this version's words. Raises InputError where it cannot be read.
    """
    return upgrade_metrics(files.read_json(run_folder / "metrics.json"))


def local(run_folder: Path) -> dict[str, typing.Any]:
    """What a run's folder keeps of the machine that made it, and does not pass on.

    Returns:
        `data_root`: full path of the data, and `params`: those of PLACES, as the run was given
        them; {} in a folder that came from elsewhere. `host`: the machine's name.
    """
    if kept := freshness.read(run_folder / ".local.json"):
        return kept
    about = freshness.read(run_folder / "run.json")  # an earlier version kept them there
    if "host" not in about:
        return {}
    return {"host": about["host"], "data_root": about["data"]["root"], "params": {
        key: value for key, value in about["params"].items() if key in PLACES}}


def data_root(run_folder: Path) -> str:
    """Where the data of a run lie on this machine, or its folder's name where that is not known."""
    return local(run_folder).get("data_root") or manifest(run_folder)["data"]["root"]


def config_of(run_folder: Path) -> Config:
    """A run's parameters, with the paths of this machine where it ran here, and what was decided
    where nothing was given: by these, new pictures are read and laid as its own were."""
    about = manifest(run_folder)
    config = Config.from_mapping((about.get("params") or {}) | local(run_folder).get("params", {}),
                                 str(run_folder / "run.json"))
    # A run that notes none is of an earlier version, for which 16 bits were all that is above 8.
    low_high = about["data"].get("grey_range", SIXTEEN_BITS)
    return dataclasses.replace(config, grey_range=",".join(map(str, low_high or ())),
                               fit=(about["data"].get("fit") or {}).get("fit", config.fit))


def wait_until_idle(run_folder: Path) -> bool:
    """Is nobody at work in the folder? Waits some seconds for whoever is: a kernel outlives a
    killed papermill by one."""
    ends = time.monotonic() + PATIENCE_S
    while status(run_folder).state == "running":
        if time.monotonic() > ends:
            return False
        time.sleep(0.1)
    return True


def fail(run_folder: Path, reason: str, before: object = None) -> None:
    """The runner's verdict that an attempt failed; it stands above what the notebook said of
    itself.

    before: when the run began whose numbers lay there earlier; these are kept.
    """
    about = freshness.read(run_folder / "run.json")
    earlier = about.get("status") == "finished" and about.get("started") == before
    here = run_folder / AGAIN if earlier else run_folder
    files.write_json(here / "run.json", freshness.read(here / "run.json") | {
        "status": "failed", "error": reason})
    (here / "progress.json").unlink(missing_ok=True)


def all_runs(reports: Path) -> list[Path]:
    """The folders of all runs, finished or not, in the order of category, configuration and seed.
    """
    def order(run_folder: Path) -> tuple[object, ...]:
        seed = run_folder.name.removeprefix("seed-")  # seed-10 after seed-2
        return (run_folder.parent.parts, int(seed) if seed.isdecimal() else -1, seed)

    return sorted((path.parent for path in (reports / "runs").glob("*/*/seed-*/run.json")),
                  key=order)


def save_state(detector: nn.Module, path: Path) -> None:
    """The state dict, loadable with torch.load(path, weights_only=True)."""
    import torch

    state = {name: tensor.detach().cpu() if isinstance(tensor, torch.Tensor) else tensor
             for name, tensor in detector.state_dict().items()}
    with files.atomic_path(path) as temporary:
        torch.save(state, temporary)


def _locked(home: Path) -> bool:
    """Is another process at work in the folder? Where none is, new numbers are put in place."""
    try:
        with filelock.FileLock(home / ".lock", timeout=0):
            _replace(home)
            return False
    # Timeout is one; so is a lock in a folder we may only read: then run.json's word stands
    except OSError:
        return True


def numbers(here: Path) -> Status:
    """What became of the run whose numbers a folder holds, whatever was tried since."""
    about = manifest(here)
    said = about.get("status")
    if said == "failed":
        return Status("failed", str(about.get("error", "no reason recorded")))
    if said == "finished":
        try:
            measured = files.read_json(here / "metrics.json")
        except InputError as error:
            return Status("failed", str(error))
        if isinstance(measured, dict) and "auroc" in measured:
            return Status("finished")
        return Status("failed", f"{here / 'metrics.json'} holds no AUROC; run it again")
    if said == "running":
        return Status("interrupted", "its process ended before it finished")
    return Status("failed", f"{here / 'run.json'} cannot be understood; run it again")


def home_of(folder: Path) -> Path:
    """Where what is written into a run's folder will lie when the run is finished."""
    return folder.parent if folder.name == AGAIN else folder


def _replace(home: Path) -> None:
    """Put new numbers that are complete in the place of the earlier ones. The metrics go first and
    come last: whoever looks after a kill in between goes on from there."""
    again = home / AGAIN
    if not (again / "metrics.json").exists():
        return
    if (home / "metrics.json").exists():  # nothing has been moved yet
        _clear_results(home)
    for new in sorted(again.iterdir(), key=lambda path: path.name == "metrics.json"):
        if new.is_dir():
            shutil.rmtree(home / new.name, ignore_errors=True)
        new.replace(home / new.name)
    shutil.rmtree(again)


def _clear_results(home: Path) -> None:
    """Delete what an earlier attempt came to, the metrics last."""
    for old in (*home.glob("*.csv"), *home.glob("*.png"), *map(home.joinpath, REOPENED_FROM),
                home / "metrics.json"):
        old.unlink(missing_ok=True)


def _kept(config: Config) -> Config:
    """The configuration with the reports folder that the running notebook writes to."""
    if config.save_as or not freshness.attended():
        return config
    return dataclasses.replace(config, reports=str(reports_dir(config.reports) / SCRATCH))


def _clear_work(here: Path) -> None:
    for name in ("progress.json", "checkpoint.pt"):
        (here / name).unlink(missing_ok=True)
    shutil.rmtree(here / "snapshots", ignore_errors=True)
