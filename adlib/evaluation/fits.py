"""A part opened as its configuration asks: without what `robust` leaves out, and for `fit: auto`
squeezed, padded or in tiles, decided from good pictures alone.

A cheap detector (`memory`) is fitted under each fit on some good pictures, and tells others from
the same ones with a synthetic anomaly, put in on the pictures' own pixels: half of them of the size
that they have in a whole picture, half of that in a square. The simplest fit is taken whose AUROC
lies within one standard error, of the paired difference, of the best one's. No label is read.

Reference: the one-standard-error rule of Breiman, Friedman, Olshen and Stone 1984.
"""
from __future__ import annotations

import dataclasses
import typing

import numpy as np
import torch
from PIL import Image

from adlib.config import FITS, Config
from adlib.data import masks, part
from adlib.data.frame import CELL, Frame
from adlib.data.images import Pictures
from adlib.data.lazy import Lazy
from adlib.data.part import ImageSet, Part
from adlib.data.synthetic.anomalies import Changed
from adlib.evaluation import suspects
from adlib.evaluation.auroc import auroc, paired_test
from adlib.evaluation.calibration import score_table
from adlib.models.detector import Images, fit

LONG = 1.1  # longer sides by shorter ones, up to which nothing is lost by squeezing
FAR = 8  # working sides: of longer pictures a feature's cell would hide all that is small
GOOD, FEWEST, SYNTHETIC = 60, 12, 80  # pictures that are looked at, a third of them not fitted on
PIXELS = 80e6  # of all pictures that maps are made of; less than SYNTHETIC where they are large
LEVEL = 0.317  # of the paired test: one standard error


def open_part(config: Config) -> Part:
    """As data.part.open_part, without the good images that `robust` leaves out, and with
    `fit: auto` decided: part.config has what was chosen, and part.fit_choice says why.

    Raises:
        InputError: as that, and where `robust` has no pretrained weights to compare images by.
    """
    opened = part.open_part(config)
    if config.robust:
        opened = opened.without(suspects.left_out(opened.good, config))
    return opened if config.fit != "auto" else decided(opened)


def decided(opened: Part) -> Part:
    """The part with the fit that suits its good pictures.

    Its fit_choice: `fit`, `reason` (`square`: none is larger than what is worked on, or long;
    `large`: all are far larger; `few`: too few to measure by; `measured`), `sizes` (the smallest
    and the largest width and height), and where they are measured `auroc`, label-free, of each fit,
    `good` and `synthetic`, how many pictures that is of.
    """
    config, n = opened.config, len(opened.good)
    order = np.unique(np.linspace(0, n - 1, min(n, GOOD)).astype(int))
    try:
        sizes = np.array([masks.shown_size(opened.good.paths[i]) for i in order])
    except Exception:
        opened.good.framed  # noqa: B018 (whatever cannot be read is named)
        raise
    longer, shorter = sizes.max(axis=1), sizes.min(axis=1)
    long, larger = (longer / shorter).max() > LONG, np.median(longer) > config.image_size
    choice: dict[str, typing.Any] = {"sizes": [[int(v) for v in ends(sizes, axis=0)[::-1]]
                                               for ends in (np.min, np.max)]}
    if not (long or larger):
        choice |= {"fit": "squeeze", "reason": "square"}
    elif longer.min() > FAR * config.image_size:
        choice |= {"fit": "tile", "reason": "large"}
    elif n < FEWEST:
        choice |= {"fit": "pad" if long else "squeeze", "reason": "few"}
    else:
        choice |= _measured(opened, order, sizes, [
            how for how in FITS if how == "squeeze" or how == "pad" and long
            or how == "tile" and larger])
    return dataclasses.replace(opened, config=dataclasses.replace(config, fit=choice["fit"]),
                               fit_choice=choice)


def _measured(opened: Part, order: np.ndarray, sizes: np.ndarray,
              candidates: typing.Sequence[str]) -> dict[str, typing.Any]:
    kept, most = order[np.arange(len(order)) % 3 > 0], int(PIXELS / np.prod(sizes, axis=1).mean())
    held = order[::3][:max(8, most // 5)]
    good, n = opened.good.select(held), int(np.clip(most - len(held), 16, SYNTHETIC)) // 2 * 2
    drawn = _anomalous(opened, good, n)
    scores = {}
    for how in candidates:
        config = dataclasses.replace(
            opened.config, model="memory", fit=how, loss="", score="", options="",
            weights=opened.config.weights if opened.config.uses_weights else "none")
        under = dataclasses.replace(opened, config=config)
        detector = fit(config, under.good.select(kept))
        scores[how] = np.concatenate([
            score_table(detector, {"distance": (0.0, 1.0)}, images)["distance.top1"]
            for images in (under.good.select(held), _laid(under, drawn))])
    labels = np.r_[np.zeros(len(held), int), np.ones(n, int)]
    aurocs = {how: auroc(labels, values) for how, values in scores.items()}
    best = max(aurocs, key=aurocs.get)
    chosen = next(how for how in candidates if how == best or paired_test(
        labels, scores[best], scores[how])[1] >= LEVEL)
    return {"fit": chosen, "reason": "measured", "auroc": aurocs, "good": len(held), "synthetic": n}


def _anomalous(opened: Part, good: ImageSet, n: int) -> Lazy:
    """Good pictures with an anomaly in them, on their own pixels: uint8 [H,W,3] each."""
    own = Pictures(good.paths, Frame("tile", CELL, looked_at=opened.looked_at), good.read_by)
    shapes = [masks.shown_size(path) for path in good.paths]
    whole = min(map(min, shapes))
    square = min(whole, round(opened.config.tile_size / opened.config.scale))
    halves = [Changed(own, n // 2, side=side, seed=opened.config.seed + i)
              for i, side in enumerate((whole, square))]

    def make(i: int) -> np.ndarray:
        half, i = divmod(i, n // 2)
        _, box = own.frame.place(*shapes[i % len(shapes)])
        return halves[half][i][(slice(3), *box.inside)].permute(1, 2, 0).numpy()

    return Lazy(n, make)


def _laid(under: Part, drawn: Lazy) -> Images:
    """Pictures as a detector of the part's fit is given them."""
    whole, tiled = part.frames(under.config, under.looked_at)

    def lay(i: int) -> torch.Tensor:
        return torch.from_numpy((tiled or whole).lay(Image.fromarray(drawn[i])).copy())

    return Lazy(len(drawn), lay) if tiled else torch.stack([lay(i) for i in range(len(drawn))])
