"""Which of the good training pictures may not be good? Asked before anything is fitted.

A folder of good pictures is never clean. Each picture is compared with all others, by its patches,
as a whole (models/foreign, leave-one-out) and by its sharpness; and copies of another one, which
would vouch for each other, are looked for. What lies far beyond most is suspect. Half of a folder
may not be wrong, and a defect that many pictures share is normal to any such comparison: this is a
list for a user to look through. With `robust: true` a run leaves out by itself what looks damaged
or unlike the part (`left_out`).
"""
from __future__ import annotations

import dataclasses
import typing

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from adlib.config import Config
from adlib.data import siblings
from adlib.data.frame import Frame
from adlib.data.part import ImageSet
from adlib.evaluation.conditions import Conditions
from adlib.models import anomaly_maps, backbone
from adlib.models.fast.device import CHUNK, CPU, spread
from adlib.models.fast.nearest import Nearest
from adlib.models.foreign import FEWEST, Foreign

SIDE, GRID = 256, 16  # pixels a side that are looked at; cells a side that are compared
# Of so many pictures a cell is compared with each. The nearest counts, and the third nearest: of
# those that show one defect two do not vouch for each other.
AMONG, SUPPORT = 200, (1, 3)
BLOCK = 16  # pictures that are compared with as many at a time
FAR, FARTHER = 3.0, 3.5  # deviations of most pictures, of patches and of a whole picture
REASONS = ("copy", "anomalous", "unlike", "blurred")  # the first that holds is given
LEFT_OUT = "anomalous", "unlike"  # reasons for which `robust` leaves a picture out
LEAST = 20  # pictures that `robust` leaves any out of: of fewer the usual spread is too unsure
ROUNDS, MANY = 3, 0.05  # asked so often at most; again only where more than this share went
SAME = 1e-6  # of a patch's distance, 0 to the copy of a picture


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
    good = dataclasses.replace(good, size=Frame(
        "squeeze", SIDE, looked_at=Frame.of(good.size).looked_at))
    config = dataclasses.replace(config, model="memory", image_size=SIDE, fit="squeeze",
                                 precision="float32")
    whole = Foreign(config)
    scores = _patch_scores(good.tensor, config)
    local = np.max([_deviations(np.log(some + SAME)) for some in scores], axis=0)
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


def left_out(good: ImageSet, config: Config) -> list[dict[str, typing.Any]]:
    """The good pictures that `robust` leaves out: path, reason and distance, as in `rank`.

    Of fewer than LEAST none. Where many go, the rest is asked again without them: what is bad
    widens the usual spread, and vouches for its like. Where few do, the next ones would be good.

    Raises:
        InputError: as rank.
    """
    rows: list[dict[str, typing.Any]] = []
    for _ in range(ROUNDS if len(good) >= LEAST else 0):
        table = rank(good, config)
        gone = table.loc[table["reason"].isin(LEFT_OUT), ["path", "reason", "distance"]]
        good = good.select(np.flatnonzero(~np.isin(good.keys, gone["path"])))
        rows += gone.to_dict("records")
        if len(gone) <= max(1, MANY * len(table)):
            break
    return rows


def _patch_scores(images: torch.Tensor, config: Config) -> np.ndarray:
    """The mean of the top 1% of each picture's map, whose cells are compared with the nearest one
    of each other picture, AMONG of these at most, and take the first and the third distance:
    float64 [2,N]. Which cell is nearest may be rounded (fast/nearest); how far it is, is not."""
    network, _ = backbone.load_backbone(config)
    cells = torch.cat([functional.adaptive_avg_pool2d(backbone.grid(backbone.extract(
        network, chunk, config), config.layers), GRID).half()
        for chunk in images.split(CHUNK)]).flatten(2).mT  # (N, cells, channels)
    others = torch.linspace(0, len(cells) - 1, min(len(cells), AMONG)).round().long()
    patches = cells[others].float()
    searches = [Nearest(some.flatten(0, 1), CPU, exact=False) for some in patches.split(BLOCK)]
    thing = siblings.groups(images)  # what shows one and the same thing is damaged alike

    def look(i: int) -> torch.Tensor:
        own, cell, squares = cells[i:i + BLOCK].float().flatten(0, 1), [], []
        for search in searches:  # of each other picture the nearest cell to each own one
            found = search.squares(own).numpy().reshape(len(own), -1, GRID * GRID)
            cell.append(found.argmin(axis=2))
            squares.append(np.take_along_axis(found, cell[-1][..., None], axis=2)[..., 0]
                           + (own - search.centre).square().sum(dim=1).numpy()[:, None])
        cell, squares = (torch.from_numpy(np.concatenate(each, axis=1)) for each in (cell, squares))
        of = thing[i:i + BLOCK].repeat_interleave(GRID * GRID)
        squares[of[:, None] == thing[others]] = torch.inf
        every, pictures = torch.arange(len(own)), [
            squares.kthvalue(k, dim=1).indices for k in SUPPORT]
        return torch.stack([(own - patches[one, cell[every, one]]).norm(dim=1)
                            for one in pictures])

    maps = torch.cat(spread(look, range(0, len(cells), BLOCK)), dim=1)
    maps = maps.view(len(SUPPORT), -1, GRID, GRID)
    return np.stack([anomaly_maps.reduce(anomaly_maps.smooth(some.numpy()), "top1")
                     for some in maps]).astype(float)


def _deviations(values: np.ndarray) -> np.ndarray:
    """How far each lies above most, in their deviations, by the middle half. What lies far is left
    out, and the rest is asked once again; asked until nothing changes, a few pictures that happen
    to be alike would end as the only good ones."""
    kept = np.ones(len(values), bool)
    for _ in range(2):
        low, middle, high = np.quantile(values[kept], (0.25, 0.5, 0.75))
        deviations = (values - middle) / max((high - low) / 1.349, 1e-9)
        kept = deviations <= FAR
    return deviations
