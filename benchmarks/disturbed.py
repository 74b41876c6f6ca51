"""What does a changed camera do to the verdicts of `fused`, and what brings them back? Good test
pictures that are refused and anomalous ones that are, each undisturbed and by every disturbance of
strength 3:

- `asis`: as a run calibrates itself;
- `recalibrated`: that run, from PICTURES held-out good ones, so disturbed (`adlib recalibrate`);
- `vary`: a run with `vary: true`, which has learned and calibrated on disturbed copies.

    python -m benchmarks.disturbed --weights FILE --out FILE.csv ROOT/CATEGORY [ROOT/CATEGORY ...]

A row a category, disturbance and way: `alarms` of `good` (anomalous or foreign), `found` of `bad`,
and of these by the score alone. At the end the categories together, with 95% intervals. Labels are
read when everything is decided.
"""
from __future__ import annotations

import typing
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adlib.config import Config
from adlib.data import corruptions, layout
from adlib.data.part import open_part
from adlib.evaluation import refusal
from adlib.evaluation.calibration import chosen_scores
from adlib.evaluation.conformal import TailThreshold, Threshold, rate_interval
from adlib.evaluation.results import truth_of
from adlib.models.foreign import Foreign
from benchmarks import common

PICTURES, TESTED = 40, 60  # good ones that recalibrate; tested of a class, at the most
NAMES = ("", *corruptions.CORRUPTIONS)
COUNTS = ["good", "alarms", "alarms by score", "bad", "found", "found by score"]


def disturbed(images: torch.Tensor, name: str, seed: int = 0) -> torch.Tensor:
    """seed: of noise, another one for what calibrates than for what is tested."""
    return corruptions.apply(images, name, corruptions.USUAL, seed=seed) if name else images


def some(indices: np.ndarray) -> np.ndarray:
    """TESTED of them at the most, evenly: test images come defect by defect."""
    return indices[np.linspace(0, len(indices) - 1, min(TESTED, len(indices))).astype(int)]


def recalibrated(config: Config, images: torch.Tensor, scores: np.ndarray
                 ) -> tuple[Threshold, Foreign, TailThreshold]:
    model = refusal.fit_foreign(Foreign(config), images, seed=config.seed)
    scores = refusal.one_budget(model, model.distances(model.features(images)).numpy(), scores,
                                config.target_fpr)
    return (Threshold(scores, config.target_fpr), model,
            TailThreshold(model.calibration.numpy(), refusal.FOREIGN_FPR))


def measure(folder: Path, weights: str) -> typing.Iterator[dict[str, typing.Any]]:
    category = layout.open_category(folder.parent, folder.name)
    common.labelled(category)
    n = len(category.train)
    for way in ("asis", "vary"):
        config = common.config(folder, weights, held_out=PICTURES / n, vary=way == "vary")
        part = open_part(config)
        detector, decision = common.decided(part)
        truth = truth_of(part)
        tested = np.concatenate([some(np.flatnonzero(truth == one)) for one in (0, 1)])
        test, truth = part.test.tensor[torch.from_numpy(tested)], truth[tested]

        for name in NAMES:
            images, held = disturbed(test, name), disturbed(
                part.held_out.tensor, name, corruptions.CALIBRATING_SEED)
            values = chosen_scores(detector, decision, images)
            ways = {way: (decision.threshold, decision.foreign, decision.foreign_threshold)}
            if way == "asis":
                ways["recalibrated"] = recalibrated(
                    config, held, chosen_scores(detector, decision, held))
            for called, (threshold, model, tail) in ways.items():
                anomalous = threshold.exceeded(values)
                refused = anomalous | tail.exceeded(model.distances(model.features(images)).numpy())
                good, bad = truth == 0, truth == 1
                yield {"category": config.category, "way": called, "disturbance": name or "none",
                       **dict(zip(COUNTS, map(int, (
                           good.sum(), refused[good].sum(), anomalous[good].sum(), bad.sum(),
                           refused[bad].sum(), anomalous[bad].sum())), strict=True))}


def together(table: pd.DataFrame) -> pd.DataFrame:
    rows = table.groupby(["way", "disturbance"], sort=False)[COUNTS].sum().reset_index()
    intervals = [rate_interval(k, n) for k, n in zip(rows["alarms"], rows["good"], strict=True)]
    return rows.assign(rate=rows["alarms"] / rows["good"], low=[low for low, _ in intervals],
                       high=[high for _, high in intervals])


def main() -> None:
    parser = common.of_categories(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    given, rows = parser.parse_args(), []
    for path in given.categories:
        for row in measure(path, given.weights):
            rows.append(row)
            print(row, flush=True)
        pd.DataFrame(rows).to_csv(given.out, index=False)
    print(together(pd.DataFrame(rows)).to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
