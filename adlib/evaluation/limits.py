"""How small, how faint, how noisy: where a finished run's detector stops working. Reads runs,
changes none of them.

Two experiments: real test images disturbed as a line would (corrupt), and, where the data are drawn
by adlib, defects of controlled size and contrast (synthetic.render) with a psychometric curve
through found-or-missed.
"""
from __future__ import annotations

import dataclasses
import math
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from adlib.config import Config, InputError
from adlib.data import corruptions, files, images, layout
from adlib.data.synthetic import drawing as generator
from adlib.evaluation import metrics, psychometric
from adlib.runs import run_folder
from adlib.runs.reopen import Detector, detector

SIZES = (0.15, 0.25, 0.4, 0.6, 0.8, 1.0, 1.5)  # of a defect, 1 = like the real ones
CONTRASTS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
EACH = 8  # parts drawn for every defect, size and contrast
FIRST_PART = 3_000_000  # index of the first part: none of them is in a data set (see synthetic)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reopened(Detector):
    """A finished run's detector with the data that it ran on."""

    category: layout.Category


def folder(config: Config) -> Path:
    """Where the limits of a run are written: reports/limits/<category>/<configuration>."""
    return run_folder.reports_dir(config.reports) / "limits" / config.category / config.name


def reopen(run: Path, data_root: str = "") -> Reopened:
    """The detector of a finished run, and its data. data_root: where they are now; empty = where
    the run found them.

    Raises InputError for a run that has not finished, or whose data have changed since.
    """
    found, about = detector(run), run_folder.manifest(run)
    category = layout.open_category(Path(data_root or about["data"]["root"]), found.config.category)
    if layout.fingerprint(category) != about["data"]["fingerprint"]:
        raise InputError(
            f"the data of {run} have changed since it ran; run its configuration again first")
    return Reopened(
        **{field.name: getattr(found, field.name)
           for field in dataclasses.fields(found)}, category=category)


def robustness(run: Reopened) -> pd.DataFrame:
    """AUROC, false positives and detections on disturbed test images: columns disturbance,
    strength, auroc, false_positives, detections.

    Strength 0 is the images as they are; the threshold stays that of undisturbed images. The two
    rates are NaN where the held-out images support no threshold (cross-conformal p-values have none
    of their own). Empty without labels of both classes.
    """
    labels = layout.read_labels(run.category)
    paths = [path for path in run.category.test if run.category.key(path) in labels]
    truth = np.array([labels[run.category.key(path)].anomalous for path in paths], dtype=int)
    columns = ["disturbance", "strength", "auroc", "false_positives", "detections"]
    if not 0 < truth.sum() < len(truth):
        return pd.DataFrame(columns=columns)
    pictures = images.load(paths, run.config.image_size)
    rows = [("none", 0, run.scores(pictures))]
    rows += [(name, strength, run.scores(corruptions.apply(pictures, name, strength, seed=run.config.seed)))
             for name in corruptions.CORRUPTIONS for strength in corruptions.STRENGTHS]
    rates = [[
        math.nan if math.isinf(run.threshold) else float(
            (scores[truth == of] > run.threshold).mean()) for of in (0, 1)
    ] for *_, scores in rows]
    return pd.DataFrame([(name, strength, metrics.auroc(truth, scores), *pair)
                         for (name, strength, scores), pair in zip(rows, rates, strict=True)],
                        columns=columns)


def detectability(run: Reopened) -> pd.DataFrame:
    """A row a drawn part: defect, size, contrast, area (share of the image that the defect
    changed), found (at the run's threshold).

    Empty where the data are not drawn by adlib: only there is a defect of any size to be had.
    """
    rows: list[dict[str, typing.Any]] = []
    if not run.category.synthetic or run.category.name not in generator.CATEGORIES or math.isinf(
            run.threshold):
        return pd.DataFrame(columns=["defect", "size", "contrast", "area", "found"])
    about = files.read_json(run.category.root / generator.MARKER)
    for defect in generator.CATEGORIES[run.category.name]:
        settings = [(size, 1.0) for size in SIZES] + [(1.0, contrast)
                                                      for contrast in CONTRASTS if contrast < 1]
        drawn = [
            (size, contrast,
             *generator.render(run.category.name, seed=about["seed"], index=FIRST_PART + part,
                               defect=defect, size=size, contrast=contrast, pixels=about["pixels"]))
            for size, contrast in settings for part in range(EACH)
        ]
        scores = run.scores(
            torch.from_numpy(
                np.stack([_resized(picture, run.config.image_size) for *_, picture, _ in drawn])))
        rows += [{
            "defect": defect, "size": size, "contrast": contrast, "area": float(mask.mean()),
            "found": bool(value > run.threshold)
        } for (size, contrast, _, mask), value in zip(drawn, scores, strict=True)]
    return pd.DataFrame(rows)


def smallest(found: pd.DataFrame, guess: float) -> pd.DataFrame:
    """Where each defect is found: a row a defect, area50 and area95 (share of the image) and
    contrast95 of the fitted curves.

    found: detectability. smallest, largest, faintest: of those drawn. NaN where a curve never
    reaches 95 % within them; a value of `smallest` or `faintest` says "or less": what lies beyond
    those drawn is the curve's guess and not a finding.
    """
    rows = []
    for defect, part in found.groupby("defect", sort=False):
        by_size = part[(part["contrast"] == 1) & (part["area"] > 0)]
        by_contrast = part[part["size"] == 1]
        size = psychometric.fit(by_size["area"].to_numpy(), by_size["found"].to_numpy(),
                                guess=guess)
        contrast = psychometric.fit(by_contrast["contrast"].to_numpy(),
                                    by_contrast["found"].to_numpy(), guess=guess)
        least, largest, faintest = by_size["area"].min(), by_size["area"].max(
        ), by_contrast["contrast"].min()
        at50, at95 = (max(least, value) if (value := size.at(level)) <= largest else math.nan
                      for level in (0.5, 0.95))
        rows.append({
            "defect": defect, "area50": at50, "area95": at95, "smallest": least, "largest": largest,
            "faintest": faintest, "found_at_real_size": float(
                part[(part["size"] == 1) & (part["contrast"] == 1)]["found"].mean()),
            "contrast95": max(faintest, value) if (value := contrast.at(0.95)) <= 1 else math.nan
        })
    return pd.DataFrame(
        rows, columns=[
            "defect", "area50", "area95", "smallest", "largest", "faintest", "found_at_real_size",
            "contrast95"
        ])


def _resized(picture: np.ndarray, size: int) -> np.ndarray:
    """As images.decode would: uint8 [S,S,3] -> [3,size,size]."""
    return np.asarray(Image.fromarray(picture).resize((size, size),
                                                      Image.Resampling.BILINEAR)).transpose(
                                                          2, 0, 1)
