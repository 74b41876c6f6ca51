"""Which of the good training pictures may not be good? Asked before anything is fitted.

A folder of good pictures is never clean. Each picture is compared with all others, by its patches
(a memory without its own), as a whole (models/foreign, leave-one-out) and by its sharpness; and
copies of another one, which would vouch for each other, are looked for. What lies far beyond most
is suspect. Half of a folder may not be wrong, and a defect that many pictures share is normal to
any such comparison: this is a list for a person to look through, and nothing leaves a picture out
by itself.
"""
from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from adlib.config import Config
from adlib.data import siblings
from adlib.data.part import ImageSet
from adlib.evaluation.conditions import Conditions
from adlib.models import anomaly_maps, backbone
from adlib.models.detectors import Memory
from adlib.models.fast.device import CHUNK, spread
from adlib.models.foreign import FEWEST, Foreign

SIDE, GRID = 256, 16  # pixels a side that are looked at; cells a side that are compared
BANK, POOL = 2000, 8000  # patches of the memory, a quarter as many cells as a detector's
FAR, FARTHER = 3.0, 3.5  # deviations of most pictures, of patches and of a whole picture
REASONS = ("copy", "anomalous", "unlike", "blurred")  # the first that holds is given


def rank(good: ImageSet, config: Config) -> pd.DataFrame:
    """Every good picture, the most suspect first.

    Returns:
        A row a picture: path (its key), reason ("" or one of REASONS), of (the picture that it is a
        copy of), distance (deviations of most pictures; higher = more suspect). Empty where there
        are fewer than FEWEST pictures.

    Raises:
        InputError: where pretrained weights cannot be had.
    """
    columns = ["path", "reason", "of", "distance"]
    if len(good) < FEWEST:
        return pd.DataFrame(columns=columns)
    good = dataclasses.replace(good, size=SIDE)
    config = dataclasses.replace(config, model="memory", image_size=SIDE)
    whole = Foreign(config)
    scores = _patch_scores(good.tensor, config)
    local = _deviations(np.log(scores))
    unlike = _deviations(whole.fit(whole.features(good.tensor)).calibration.log().numpy())
    blurred = _deviations(-Conditions(torch.zeros(32, 32), {}).measure(good.tensor)["sharpness"])
    copy_of = siblings.copies(good.tensor)
    holds = np.stack([copy_of >= 0, local > FAR, unlike > FARTHER, blurred > FARTHER])
    table = pd.DataFrame({
        "path": good.keys, "of": ["" if i < 0 else good.keys[i] for i in copy_of],
        "reason": np.where(holds.any(axis=0), np.array(REASONS)[holds.argmax(axis=0)], ""),
        "distance": np.max([local, unlike, blurred], axis=0)})[columns]
    order = np.lexsort((-table["distance"], table["reason"] == ""))
    return table.iloc[order].reset_index(drop=True)


def _patch_scores(images: torch.Tensor, config: Config) -> np.ndarray:
    """The mean of the top 1 % of each picture's map, by the patches of all others: float64 [N]."""
    network, _ = backbone.load_backbone(config)
    features = torch.cat([functional.adaptive_avg_pool2d(backbone.grid(backbone.extract(
        network, chunk, config), config.layers), GRID).half()
        for chunk in images.split(CHUNK)])
    memory = Memory(BANK, POOL).fit(features.float())
    table = memory.table()
    maps = spread(lambda i: memory.difference(features[i].float().flatten(1).T, torch.tensor([i]),
                                              table).norm(dim=1), range(len(features)))
    smoothed = anomaly_maps.smooth(torch.stack(maps).view(-1, GRID, GRID).numpy())
    return anomaly_maps.reduce(smoothed, "top1").astype(float)


def _deviations(values: np.ndarray) -> np.ndarray:
    """How far each lies above most, in their deviations, by the middle half. What lies far is left
    out, and the rest is asked once again; asked until nothing changes, a few pictures that happen
    to be alike would end as the only good ones."""
    kept = np.ones(len(values), bool)
    for _ in range(2):
        low, middle, high = np.quantile(values[kept], (0.25, 0.5, 0.75))
        found = (values - middle) / max((high - low) / 1.349, 1e-9)
        kept = found <= FAR
    return found
