"""A finished run's threshold anew, from pictures taken as pictures are taken now.

Nothing is fitted again. The detector's scores of good pictures taken after a change of camera,
light or batch become the calibration scores: split-conformal p-values (evaluation/conformal) need
exchangeable calibration pictures, and nothing of the detector. If some of the pictures are bad, the
promise is of all pictures: no more than a share `target_fpr` of them is called anomalous.
"""
from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
import typing
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adlib.config import InputError, log
from adlib.data import files
from adlib.evaluation.conditions import Conditions
from adlib.evaluation.conformal import min_calibration_size
from adlib.evaluation.refusal import fit_foreign, one_budget
from adlib.runs import inference, run_folder
from adlib.runs.prediction_record import Source

KEPT = ("score", "chosen", "label_free", "maps")  # of the parent's metrics: all but what was tested


def recalibrate(folder: Path, pictures: typing.Sequence[Source], out: Path) -> inference.Reopened:
    """Write a run folder beside its parent's, which `predict` and `export` take like any other.

    Args:
        folder: of a finished run.
        pictures: good ones, taken as those to come will be; 19 are the least for 5%.
        out: where the new folder is made; none may be there.

    Raises:
        InputError: too few pictures, one that cannot be read, mostly ones that the run has learned
            from, or a folder that is there.
    """
    if out.exists():
        raise InputError(f"{out} is there already; give another --out")
    run = inference.reopen(folder)
    least = min_calibration_size(run.config.target_fpr)
    if len(pictures) < least:
        raise InputError(f"{len(pictures)} pictures cannot support a false-positive rate of "
                         f"{run.config.target_fpr:g}; give {least} or more")
    if 2 * (known := _learned(folder, pictures)) > len(pictures):
        raise InputError(f"{known} of these {len(pictures)} pictures are among those that the run "
                         "has learned from, which look too usual to calibrate by; give pictures "
                         "that were taken since")
    wholes, scores = [], []
    for source in pictures:  # one by one, as a camera gives them: a batch rounds otherwise
        with files.saying(f"{source.path} cannot be read", "take it out, or give another one"):
            picture = run.decode(source.path)
        wholes.append(picture.whole[:3])
        scores.append(float(run.scores(picture.given[None])[0]))
        if not math.isfinite(scores[-1]):
            raise InputError(f"{source.path} has the score {scores[-1]}; take it out")
    if (different := len({one.numpy().tobytes() for one in wholes})) < least:
        raise InputError(f"only {different} of these {len(pictures)} pictures differ, which cannot "
                         f"support a false-positive rate of {run.config.target_fpr:g}; give "
                         f"{least} or more")
    images, unlike, values = torch.stack(wholes), run.decision.foreign, np.array(scores)
    before = run.threshold
    if (refused := int(before.exceeded(values).sum())) > run.config.target_fpr * len(values):
        log.warning("by the run's own threshold, %.6g, %d of these %d pictures are anomalous. "
                    "After a change of light that is to be expected; else look at them, for what "
                    "is bad among them is good from now on", before.value, refused, len(values))
    if unlike:  # what is foreign is told by pictures as they are now
        distances = fit_foreign(unlike, images, seed=run.config.seed).distances(
            unlike.features(images)).numpy()
        values = one_budget(unlike, distances, values, run.config.target_fpr)
    measured = files.read_json(folder / "metrics.json")
    metrics = {key: measured[key] for key in KEPT}
    metrics |= {"chosen": {"score": run.decision.score}, "auroc": {}}  # that was the parent's
    metrics["calibration"] = {"images": len(values), "how": "recalibrated",
                              "scores": values.tolist()}
    if before.is_attainable:
        metrics["calibration"]["before"] = {"threshold": before.value, "refused": refused}
    about = run_folder.manifest(folder) | {
        "parent": folder.resolve().name, "finished": datetime.now(timezone.utc).isoformat()}
    with files.saying(f"cannot write {out}", "nothing was left there; make room, or give another "
                      "--out", OSError):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".recalibrated-", dir=out.parent) as made:
            beside = Path(made) / out.name
            beside.mkdir()
            for name in ("model.pt", run_folder.LOOKED_AT):
                if (folder / name).exists():
                    shutil.copy2(folder / name, beside / name)
            if unlike:
                run_folder.save_state(unlike, beside / "foreign.pt")
            files.write_json(beside / "conditions.json", Conditions.of(images).as_dict())
            files.write_json(beside / "run.json", about)
            files.write_json(beside / "metrics.json", metrics)
            beside.rename(out)
    return inference.reopen(out)


def _learned(folder: Path, pictures: typing.Sequence[Source]) -> int:
    """How many of the pictures are, byte for byte, among those that a run has learned from, as far
    as its data are still there; of a recalibrated run none are on record."""
    path = folder / "all_results.csv"
    if not path.exists():
        return 0
    with files.saying(f"{path} cannot be read", "run it again"):
        table = pd.read_csv(path)
        names = table.loc[table["split"] == "train", "path"]
    root, given = Path(run_folder.data_root(folder)), [one.path for one in pictures]
    sizes = {one.stat().st_size for one in given if one.is_file()}
    known = {_hash(one) for one in map(root.joinpath, names)
             if one.is_file() and one.stat().st_size in sizes}
    return sum(one.is_file() and _hash(one) in known for one in given)


def _hash(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
