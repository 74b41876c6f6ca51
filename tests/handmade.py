"""Runs made by hand: what a notebook leaves in a run's folder, mostly from scores that a test
gives, and without a network."""
from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adlib.config import Config
from adlib.data import files, layout
from adlib.data.part import Part
from adlib.evaluation import results as evaluation
from adlib.evaluation.calibration import Decision, calibrate
from adlib.evaluation.conformal import Threshold
from adlib.evaluation.fits import open_part
from adlib.models import registry
from adlib.models.detector import Detector, fit
from adlib.runs import run_folder

OWN, OTHER, DISTANCE = "squared.mean", "ssim.max", "distance.top1"
HELD = np.linspace(0, 1, 19)  # scores of the held-out images: they support 5%

# Of course_root's eight good images three are held out, and support 25%.
SMALL = {"category": "nut", "image_size": 32, "precision": "float32", "device": "cpu", "epochs": 1,
         "batch_size": 4, "held_out": 0.4, "target_fpr": 0.3, "weights": "none"}


def category(name: str = "nut", good: int = 20, bad: int = 15, train_bad: int = 0,
             start: int = 0) -> layout.Category:
    """A category of paths alone: nothing here reads an image. Its test images are good, then bad,
    numbered from `start`."""
    root = Path("/data")

    def paths(folder: str, n: int, first: int = 0) -> tuple[Path, ...]:
        return tuple(root / name / folder / f"{i:03d}.png" for i in range(first, first + n))

    return layout.Category(root, name, "mvtec", False, paths("train/good", 30),
                           paths("test/good", good, start) + paths("test/spot", bad, start),
                           paths("train/bad", train_bad))


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """A part of paths alone, what was decided on it, and every score of its images."""

    part: Part
    decision: Decision
    by_split: dict[str, pd.DataFrame]

    @property
    def table(self) -> pd.DataFrame:
        """all_results.csv."""
        return evaluation.results_table(self.part, self.decision, self.by_split)


def scored(where: layout.Category, tests: dict[str, np.ndarray], *, chosen: str = "",
           held: np.ndarray = HELD, bad: float = 2.0, label_free: float = 0.7,
           target_fpr: float = 0.05, synthetic: np.ndarray | None = None,
           config: Config | None = None) -> Scored:
    """tests: {score: [N test images]}, the configuration's own score first. chosen: empty = its
    own. bad: the score of all train/bad. synthetic: every score of the synthetic anomalies."""
    own, n, good = next(iter(tests)), len(held), len(where.train)
    counts = {"train": good - n, "held_out": n, "test": len(where.test),
              "train_bad": len(where.train_bad)}

    def values(split: str, test: np.ndarray) -> np.ndarray:
        known = {"test": test, "held_out": held}
        return known.get(split, np.full(counts[split], bad if split == "train_bad" else 0.0))

    by_split = {split: pd.DataFrame({score: values(split, test) for score, test in tests.items()})
                for split, count in counts.items() if count}
    ranked = label_free + 0.1 * np.arange(len(tests))
    ranking = pd.DataFrame({"score": list(tests)} | ({"spot": ranked, "all": ranked} if n else {}))
    threshold = Threshold(np.asarray(held, float), target_fpr, "split" if n else "none")
    decision = Decision(
        ranking, own, chosen or own, {}, {own: threshold, chosen or own: threshold},
        {split: by_split[split] for split in ("train", "held_out") if split in by_split}, 0.0, 1.0,
        synthetic=None if synthetic is None else pd.DataFrame(dict.fromkeys(tests, synthetic)))
    config = config or Config(category=where.name, target_fpr=target_fpr)
    part = Part(config, where, "parameter", torch.arange(n, good), torch.arange(n))
    return Scored(part, decision, by_split)


def results(where: layout.Category, tests: dict[str, np.ndarray], rate: float = 0.05,
            **options: typing.Any) -> pd.DataFrame:
    return scored(where, tests, target_fpr=rate, **options).table


def finished(reports: Path, name: str, tests: dict[str, np.ndarray], *,
             where: layout.Category | None = None, seed: int = 0,
             localisation: dict[str, typing.Any] | None = None, fingerprint: str = "f",
             **options: typing.Any) -> Path:
    """A finished run's folder: run.json, all_results.csv and metrics.json, as the notebooks leave
    them."""
    where = where or category()
    config = Config(category=where.name, name=name, seed=seed, reports=str(reports))
    folder, run = run_folder.folder(config), scored(where, tests, config=config, **options)
    table = run.table
    evaluation.write_csv(table, folder / "all_results.csv")
    files.write_json(folder / "run.json", {
        "status": "finished", "params": config.as_dict(),
        "inputs": {"params": {}, "data": fingerprint}, "weights": "none", "device": "cpu",
        "threads": 1, "precision": "float32", "git": "abc",
        "started": "2026-01-01T00:00:00+00:00", "train_seconds": 10.0 + seed,
        "data": {"root": "/data", "layout": where.layout, "synthetic": where.synthetic,
                 "source": "parameter", "fingerprint": fingerprint}})
    confounders = {"brightness": 0.5 + seed, "size": None, "pose": 0.1}
    files.write_json(
        folder / "metrics.json",
        evaluation.measured(table, run.decision, localisation, confounders)
        | {"epochs": 0, "final_loss": None, "final_held_out_loss": None, "position_share": None})
    return folder


class Maps(Detector):
    """A detector without training: a function of uint8 images [N,3,S,S] that gives {name: [N,h,w]}
    as arrays."""

    def __init__(self, maps: typing.Callable[[torch.Tensor], dict[str, np.ndarray]]) -> None:
        super().__init__()
        self.maps = maps

    def fit(self, images: torch.Tensor, validation: torch.Tensor | None = None) -> Maps:
        return self

    def anomaly_maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(values) for name, values in self.maps(images).items()}


def failed(reports: Path, name: str, reason: str, *, seed: int = 0, where: str = "nut") -> Path:
    config = Config(category=where, name=name, seed=seed, reports=str(reports))
    folder = run_folder.folder(config)
    files.write_json(folder / "run.json", {"status": "running", "params": config.as_dict()})
    run_folder.fail(folder, reason)
    return folder


def of_earlier_version(folder: Path) -> None:
    """A run that does not say of which files it is reopened."""
    about = files.read_json(folder / "run.json")
    files.write_json(folder / "run.json", {key: value for key, value in about.items()
                                           if key != "reopened_from"})


def ranks(where: layout.Category, shift: float, seed: int = 0) -> np.ndarray:
    """Random scores of the test images, those of the bad ones `shift` deviations higher."""
    bad = np.array([path.parent.name != "good" for path in where.test])
    return np.random.default_rng(seed).normal(0, 1, len(bad)) + shift * bad


def small_run(root: Path, reports: Path, **changes: typing.Any) -> Path:
    """A run with a real network or detector, as the notebooks do it, without their figures; returns
    its folder."""
    return spine(Config(**SMALL | {"data_root": str(root), "reports": str(reports)} | changes))[0]


def spine(config: Config) -> tuple[Path, Detector, Decision, evaluation.Results]:
    """A whole run, as the notebooks do it: its folder, and what its steps gave."""
    part = open_part(config)
    detector = registry.build(part.config)
    run = run_folder.start(part, detector)
    detector = fit(detector, part.train, part.held_out, run=run)
    decision = calibrate(detector, part)
    results = evaluation.evaluate(detector, decision, part)
    run.save(detector, decision, results)
    return run.folder, detector, decision, results
