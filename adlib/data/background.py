"""`roi: auto`: what of every picture may show the part, from good pictures alone.

A pixel is background where, in every good picture, it has the colour of that picture's rim. All
else is looked at, wherever a part turns or moves to, and a margin around it. That holds where the
rim is of one plain colour, the same one in all pictures, something stands out from it in each, and
a picture shows nothing where no other one does; else nothing is cut off. It cannot be known that a
plain surface with a mark in the middle is the part, and the mark is not: the run's page shows it.
"""
from __future__ import annotations

import typing

import numpy as np
import torch
from scipy import ndimage

SIDE, RIM, MARGIN = 256, 4, 16  # pixels: what is looked at is squeezed to SIDE x SIDE
FEWEST, MOST = 20, 1000  # good pictures
LEAST, PLAIN = 6.0, 24.0  # grey levels off the rim's colour that are background, at least, at most
NOISE = 4.0  # deviations of the rim's pixels that these are
ON_RIM = 0.9  # share of each picture's rim that has its colour: a part may reach beyond it
SMALLEST = 0.02  # share of a picture that stands out, and of the usual one half of that
UNSEEN = 0.05  # share of the pictures that may show something where no other does
SPECK = 0.002  # share of a picture that is dirt, on its own, where few others show anything
WHY = {  # nothing is cut off; the keys are what `region` returns
    "few": f"there are fewer than {FEWEST} good pictures",
    "rim": "the rim of the good pictures is not of one plain colour, the same in all of them",
    "nothing": "not in every good picture something stands out from its rim",
    "moves": "good pictures show something where no other one does",
    "fills": "the part fills the picture, wherever it lies"}
WORTH = 0.1  # share of the picture that there has to be to cut off


def region(pictures: torch.Tensor) -> tuple[np.ndarray | None, str]:
    """What may show the part, and why.

    Args:
        pictures: uint8 [N,3,SIDE,SIDE], good ones.

    Returns:
        bool [SIDE,SIDE], None = all; and `found`, or a key of WHY.
    """
    if len(pictures) < FEWEST:
        return None, "few"
    pictures = pictures[np.unique(np.linspace(0, len(pictures) - 1, MOST).astype(int))
                        ] if len(pictures) > MOST else pictures
    rim = np.ones((SIDE, SIDE), bool)
    rim[RIM:-RIM, RIM:-RIM] = False
    edges = np.stack([one[:, rim] for one in _smooth(pictures)])
    colours = np.median(edges, axis=2)
    off = np.abs(edges - colours[..., None]).max(axis=1)
    tolerance = max(LEAST, NOISE * 1.4826 * float(np.median(off)))
    alike = np.abs(colours - np.median(colours, axis=0)).max() <= PLAIN
    if tolerance > PLAIN or not alike or (off <= tolerance).mean(axis=1).min() < ON_RIM:
        return None, "rim"
    shown = np.stack([ndimage.binary_fill_holes(
        np.abs(one - colour[:, None, None]).max(axis=0) > tolerance)
        for one, colour in zip(_smooth(pictures), colours, strict=True)])
    shares = shown.mean(axis=(1, 2))
    if shares.min() < max(SMALLEST, np.median(shares) / 2):
        return None, "nothing"
    times = shown.sum(axis=0)
    shown = np.stack([_without_dirt(one, times <= UNSEEN * len(shown)) for one in shown])
    times = shown.sum(axis=0)
    alone = [(times[one] == 1).any() and (one & ~_widened(times > one)).any() for one in shown]
    if np.mean(alone) > UNSEEN:
        return None, "moves"
    left = ndimage.binary_fill_holes(_widened(times > 0))
    return (left, "found") if left.mean() <= 1 - WORTH else (None, "fills")


def _smooth(pictures: torch.Tensor) -> typing.Iterator[np.ndarray]:
    """float32 [3,SIDE,SIDE] of each: what is left of noise is a third."""
    for one in pictures:
        yield ndimage.uniform_filter(one.numpy().astype(np.float32), (0, 3, 3))


def _without_dirt(mask: np.ndarray, rare: np.ndarray) -> np.ndarray:
    pieces, _ = ndimage.label(mask)
    dirt = np.bincount(pieces.ravel()) < SPECK * mask.size
    dirt[np.unique(pieces[~rare])] = False
    return mask & ~dirt[pieces]


def _widened(mask: np.ndarray) -> np.ndarray:
    return ndimage.maximum_filter(mask, 2 * MARGIN + 1)
