"""Runs made by hand: what a notebook leaves in a run's folder, mostly from scores that a test
gives, and without a network."""
from __future__ import annotations

import typing
from pathlib import Path

import numpy as np
import pandas as pd

from adlib.config import PIXEL_MODELS, Config
from adlib.data import files, images, layout
from adlib.evaluation import calibration, conformal, evaluate
from adlib.models import anomaly_maps, autoencoders, featurespace, training
from adlib.report import study
from adlib.runs import run_folder

OWN, OTHER, DISTANCE = "squared.mean", "ssim.max", "distance.top1"
HELD = np.linspace(0, 1, 19)  # scores of the held-out images: they support 5 %

SMALL = {
    "category": "nut",
    "image_size": 32,
    "precision": "float32",
    "device": "cpu",
    "epochs": 1,
    "batch_size": 4,
    "held_out": 0.4,
    # of course_root's eight good images three are held out, and support 25 %
    "target_fpr": 0.3,
    "weights": "none"
}


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


def scored(where: layout.Category, tests: dict[str, np.ndarray], *, chosen: str = "",
           held: np.ndarray = HELD, bad: float = 2.0,
           label_free: float = 0.7) -> calibration.Scored:
    """tests: {score: [N test images]}, the configuration's own score first. chosen: empty = its
    own. bad: the score of all train/bad."""
    own, n = next(iter(tests)), len(held)
    paths = {
        "train": where.train[n:], "held_out": where.train[:n], "test": where.test,
        "train_bad": where.train_bad
    }

    def values(split: str, test: np.ndarray) -> np.ndarray:
        return {"test": test, "held_out": held}.get(
            split, np.full(len(paths[split]), bad if split == "train_bad" else 0.0))

    splits = {
        split: (list(names),
                pd.DataFrame({score: values(split, test)
                              for score, test in tests.items()}))
        for split, names in paths.items() if names
    }
    p_values = {
        score: {
            split: conformal.p_values(held, table[score]) if n else np.full(len(table), np.nan)
            for split, (_, table) in splits.items() if split not in ("train", "held_out")
        }
        for score in {own, chosen or own}
    }
    known = label_free + 0.1 * np.arange(len(tests))
    ranking = pd.DataFrame({"score": list(tests)} | ({"spot": known, "all": known} if n else {}))
    return calibration.Scored(ranking, own, chosen or own, {}, splits, 0.0, 1.0, p_values, n,
                              "split" if n else "none", held,
                              np.zeros((len(where.test), 8, 8), np.float32))


def results(where: layout.Category, tests: dict[str, np.ndarray], rate: float = 0.05,
            **options: typing.Any) -> pd.DataFrame:
    return evaluate.results(where, scored(where, tests, **options), rate)


def finished(reports: Path, name: str, tests: dict[str, np.ndarray], *,
             where: layout.Category | None = None, seed: int = 0,
             localisation: dict[str, typing.Any] | None = None, fingerprint: str = "f",
             **options: typing.Any) -> Path:
    """A finished run's folder: run.json, all_results.csv and metrics.json, as the notebooks leave
    them."""
    where = where or category()
    config = Config(category=where.name, name=name, seed=seed, reports=str(reports))
    folder, found = run_folder.folder(config), scored(where, tests, **options)
    table = evaluate.results(where, found, 0.05)
    evaluate.write_csv(table, folder / "all_results.csv")
    files.write_json(
        folder / "run.json", {
            "status": "finished", "params": config.as_dict(),
            "inputs": {"params": {}, "data": fingerprint}, "weights": "none", "device": "cpu",
            "threads": 1, "precision": "float32", "git": "abc",
            "started": "2026-01-01T00:00:00+00:00", "train_seconds": 10.0 + seed, "data": {
                "root": "/data", "layout": where.layout, "synthetic": where.synthetic,
                "source": "parameter", "fingerprint": fingerprint
            }
        })
    follows = {"brightness": 0.5 + seed, "size": None, "pose": 0.1}
    files.write_json(folder / "metrics.json", study.metrics([], found, table, follows,
                                                            localisation))
    return folder


def failed(reports: Path, name: str, reason: str, *, seed: int = 0, where: str = "nut") -> Path:
    config = Config(category=where, name=name, seed=seed, reports=str(reports))
    files.write_json(
        run_folder.folder(config) / "run.json", {"status": "running", "params": config.as_dict()})
    run_folder.fail(run_folder.folder(config), reason)
    return run_folder.folder(config)


def ranks(where: layout.Category, shift: float, seed: int = 0) -> np.ndarray:
    """Random scores of the test images, those of the bad ones `shift` deviations higher."""
    bad = np.array([path.parent.name != "good" for path in where.test])
    return np.random.default_rng(seed).normal(0, 1, len(bad)) + shift * bad


def small_run(root: Path, reports: Path, **changes: typing.Any) -> Path:
    """A run with a real network or detector, as the notebooks do it, without their figures; returns
    its folder."""
    config = Config(**SMALL | {"data_root": str(root), "reports": str(reports)} | changes)
    where, source = layout.open_from(config.data_root, config.category)
    network, weights = autoencoders.build(
        config) if config.model in PIXEL_MODELS else featurespace.backbone(config)
    run = run_folder.start(config, where, source=source, weights=weights, **study.machine(config))
    good = images.load(where.train, config.image_size)
    if config.model in PIXEL_MODELS:  # trained, so that no fresh network can be mistaken for it
        training.fit(network, good, config, folder=run.folder, identity=run.identity,
                     say=lambda text: None)
        scorer = anomaly_maps.autoencoder_scorer(network, config)
    else:
        scorer = featurespace.fit(network, good,
                                  *training.split(len(good), config.held_out, config.seed), config)
    study.save_model(network if config.model in PIXEL_MODELS else scorer.detector,
                     run.folder / "model.pt")
    found = calibration.scores(scorer, where, config)
    table = evaluate.results(where, found, config.target_fpr)
    evaluate.write_csv(table, run.folder / "all_results.csv")
    run.finish(study.metrics([], found, table, {}, None), train_seconds=0.0)
    return run.folder
