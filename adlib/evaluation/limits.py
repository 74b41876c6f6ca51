"""How small, how faint, how noisy: where a fitted detector stops working. Nothing found here goes
back into a choice.

Two experiments: real test images disturbed as a camera or a line would (data.corruptions), and,
where the data are drawn by adlib, defects of controlled size and contrast with a psychometric curve
through found-or-missed.
"""
from __future__ import annotations

import itertools
import math
import typing

import numpy as np
import pandas as pd
import torch
from PIL import Image

from adlib.data import corruptions
from adlib.data.lazy import Lazy
from adlib.data.part import Part, frames
from adlib.data.synthetic import drawing
from adlib.evaluation import psychometric
from adlib.evaluation.auroc import auroc
from adlib.evaluation.calibration import Decision, chosen_scores
from adlib.evaluation.results import truth_of
from adlib.models.detector import Detector, Images

SIZES = (0.15, 0.25, 0.4, 0.6, 0.8, 1.0, 1.5)  # of a defect, 1 = like the real ones
CONTRASTS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
EACH = 8  # parts drawn for every defect, size and contrast
FIRST_PART = 3_000_000  # index of the first part: none of them is in a data set (see drawing)


def robustness(detector: Detector, decision: Decision, part: Part) -> pd.DataFrame:
    """What is left on disturbed test images, the threshold staying that of undisturbed ones.

    Returns:
        Columns disturbance, strength (0 = as they are), auroc, false_positives, detections; the two
        rates are NaN where no threshold is attainable. Empty without labels of both classes.
    """
    labels = truth_of(part)
    used = np.flatnonzero(labels >= 0)
    truth = labels[used]
    columns = ["disturbance", "strength", "auroc", "false_positives", "detections"]
    if not 0 < truth.sum() < len(truth):
        return pd.DataFrame(columns=columns)
    given, rows = part.test.select(used).given, []
    for name, strength in [("none", 0), *((name, strength) for name in corruptions.CORRUPTIONS
                                          for strength in corruptions.STRENGTHS)]:
        scores = chosen_scores(detector, decision, _disturbed(
            given, name, strength, part.config.seed) if strength else given)
        called = np.where(decision.threshold.is_attainable, decision.threshold.exceeded(scores),
                          math.nan)
        rows.append((name, strength, auroc(truth, scores),
                     *(float(called[truth == of].mean()) for of in (0, 1))))
    return pd.DataFrame(rows, columns=columns)


def detectability(detector: Detector, decision: Decision, part: Part) -> pd.DataFrame:
    """A row a drawn part: defect, size, contrast, area (share of the image that the defect
    changed), found (at the run's threshold).

    Empty where the data are not drawn by adlib: only there is a defect of any size to be had.
    """
    rows: list[dict[str, typing.Any]] = []
    category, (whole, tiled) = part.category, frames(part.config, part.looked_at)
    drawable = category.synthetic and category.name in drawing.CATEGORIES
    if not drawable or not decision.threshold.is_attainable:
        return pd.DataFrame(columns=["defect", "size", "contrast", "area", "found"])
    about = drawing.about(category.root)
    settings = [(scale, 1.0) for scale in SIZES] + [(1.0, c) for c in CONTRASTS if c < 1]
    for defect in drawing.CATEGORIES[category.name]:
        drawn, scores, images = [], [], []
        for (scale, contrast), number in itertools.product(settings, range(EACH)):
            image, mask = drawing.tray(
                category.name, index=FIRST_PART + number, defect=defect, size=scale,
                contrast=contrast, **{key: about[key] for key in ("seed", "pixels", "across",
                                                                  "down")})
            drawn.append({"defect": defect, "size": scale, "contrast": contrast,
                          "area": float(mask.mean())})
            images.append(torch.from_numpy((tiled or whole).lay(Image.fromarray(image)).copy()))
            if tiled or len(drawn) == len(settings) * EACH:  # large ones one by one
                scores.append(chosen_scores(detector, decision, torch.stack(images)))
                images = []
        called = decision.threshold.exceeded(np.concatenate(scores))
        rows += [row | {"found": bool(found)} for row, found in zip(drawn, called, strict=True)]
    return pd.DataFrame(rows)


def smallest(found: pd.DataFrame, target_fpr: float) -> pd.DataFrame:
    """Where each defect is found 50 and 95 times in 100, off the fitted psychometric curves.

    Args:
        found: detectability. target_fpr: the chance of a detection where there is no defect.

    Returns:
        A row a defect: area50, area95 (share of the image) and contrast95; smallest, largest,
        faintest of those drawn; found_at_real_size. NaN where a curve never gets there within them;
        a value of `smallest` or `faintest` means "or less", for what lies beyond is the curve's
        guess.
    """
    rows = []
    for defect, part in found.groupby("defect", sort=False):
        by_size = part[(part["contrast"] == 1) & (part["area"] > 0)]
        by_contrast = part[part["size"] == 1]
        size, contrast = (psychometric.fit(some[x].to_numpy(), some["found"].to_numpy(),
                                           fpr=target_fpr)
                          for some, x in ((by_size, "area"), (by_contrast, "contrast")))
        least, largest = by_size["area"].min(), by_size["area"].max()
        faintest = by_contrast["contrast"].min()
        at50, at95 = (max(least, value) if (value := size.at(level)) <= largest else math.nan
                      for level in (0.5, 0.95))
        real = part[(part["size"] == 1) & (part["contrast"] == 1)]
        rows.append({"defect": defect, "area50": at50, "area95": at95, "smallest": least,
                     "largest": largest, "faintest": faintest,
                     "found_at_real_size": float(real["found"].mean()),
                     "contrast95": max(faintest, value) if (value := contrast.at(0.95)) <= 1 else
                     math.nan})
    return pd.DataFrame(rows, columns=["defect", "area50", "area95", "smallest", "largest",
                                       "faintest", "found_at_real_size", "contrast95"])


def _disturbed(given: Images, name: str, strength: int, seed: int) -> Images:
    """The images as a worse camera would have taken them; what does not count stays as it is."""
    if not isinstance(given, torch.Tensor):
        return Lazy(len(given), lambda i: _disturbed(given[i][None], name, strength, seed + i)[0])
    disturbed, counts = corruptions.apply(given, name, strength, seed=seed), given[:, 3:] > 0
    return torch.where(counts, disturbed, given) if counts.shape[1] else disturbed
