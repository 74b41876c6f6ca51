"""Which good pictures show one and the same thing: a part taken again in another light, a place
photographed twice (`groups`), a file saved again (`copies`).

A part made tomorrow has no such siblings among the good pictures. So what a picture's siblings say
of it is left out with the picture wherever good pictures stand in for parts to come: else they look
too usual, and the threshold is too low. Parts that happen to lie alike are no siblings, and neither
are those of one of a few types: a part made tomorrow has its like among the good pictures then, and
without it would look unusual, whatever it is.
"""
from __future__ import annotations

import math
import typing

import numpy as np
import torch
from scipy import ndimage
from scipy.sparse.csgraph import connected_components
from torch.nn import functional

SIDE, FINE = 64, 2  # pixels of the grey picture that is compared; finer than this, it is detail
FAR = 6.0  # deviations of a picture's correlations with others that one with a sibling lies beyond
SAME = 0.95  # a correlation that is a sibling's whatever others are
FLOOR = 0.02  # of the deviation: fewer than 4,096 pixels do not tell less
FEWEST, MOST = 20, 2000  # good pictures; and fewer things than FEWEST are types
COPY = 0.2  # of the usual difference to the fifth nearest picture: a copy is at most as different
CHANCE = 0.1  # that a picture which is no copy is so much nearer than the next one is
Images = typing.Sequence[torch.Tensor] | torch.Tensor  # uint8 [3,h,w] or [4,h,w] each


def groups(*sets: Images) -> torch.Tensor:
    """Siblings have one number: int64 [N], numbered from 0 as they come, a set after the other.

    What is compared is fine detail at equal contrast, without what all pictures share, so that
    neither light nor the part's usual shape counts; each with each, against how much the two are
    like others. What shows one thing is alike pair by pair, of most pairs at least. Pictures that
    are joined by a chain of others are of many things, each lying a little differently; where most
    that have their like are so, the rest are by chance. Of fewer than FEWEST pictures or things, or
    more than MOST, each is on its own.
    """
    if not FEWEST <= (n := sum(map(len, sets))) <= MOST:
        return torch.arange(n)
    fine = np.stack([_detail(images[i]) for images in sets for i in range(len(images))])
    fine -= fine.mean(axis=0)
    fine /= np.linalg.norm(fine, axis=1, keepdims=True).clip(1e-6)
    alike = fine @ fine.T
    np.fill_diagonal(alike, np.nan)
    middle = np.nanmedian(alike, axis=1, keepdims=True)
    far = (alike - middle) / (1.4826 * np.nanmedian(np.abs(alike - middle), axis=1,
                                                    keepdims=True)).clip(FLOOR)
    siblings = (np.minimum(far, far.T) > FAR) | (alike > SAME)
    _, group = connected_components(siblings, directed=False)
    size, linked = np.bincount(group), np.bincount(group, siblings.sum(axis=1))
    chained = (linked < size * (size - 1) / 2)[group]
    alike_by_pair = ~chained & (size[group] > 1)
    group = np.where(chained, len(size) + np.arange(n), group)
    if len(np.unique(group)) < FEWEST or chained.sum() > alike_by_pair.sum():
        return torch.arange(n)
    _, first, number = np.unique(group, return_index=True, return_inverse=True)
    return torch.from_numpy(first.argsort().argsort()[number])


def numbered(good: Images, fitted_on: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """The numbers of good images by those that some of them were fitted with: int64 [N], -1 where
    neither an image nor a sibling of it was.

    Args:
        fitted_on: int64 [n], indices of `good`. of: int64 [n], their numbers.
    """
    group = groups(good)
    numbers = torch.full((len(group), ), -1)
    numbers[group[fitted_on]] = of
    return numbers[group]


def copies(images: torch.Tensor) -> np.ndarray:
    """For each of uint8 [N,3,S,S] an earlier one of which it is nearly a copy (saved again,
    resized, in a little other light), -1 where there is none: int [N]. What is alike in less than
    that may be a sibling, and is no copy.

    Where parts differ in a few ways only, such as where they lie, some are alike by chance: if a
    picture has others within a distance r in proportion to r^2w, one is within q of the distance of
    the next with a chance of q^2w. w is from how much farther the tenth is than the fifth.
    """
    small = torch.cat([details(chunk) for chunk in images.split(64)])
    different = (1 - small @ small.T).clamp_min(0)  # half of the distance's square
    nearest = different.fill_diagonal_(0).sort(dim=1).values  # the first is itself
    near = different < COPY * nearest[:, 5].median().clamp(max=0.25)
    beyond = different.where(~near, torch.inf).amin(dim=1)
    far = min(10, len(images) - 1)
    ratio = (nearest[:, far // 2] / nearest[:, far].clamp_min(1e-9)).median().clamp(1e-6, 0.999)
    ways = math.log(far // 2 / far) / ratio.log()
    chance = (different / torch.minimum(beyond[:, None], beyond)) ** ways
    near = (near & (chance < CHANCE)).tril(-1)
    return np.where(near.any(dim=1), near.int().argmax(dim=1), -1)


def details(images: torch.Tensor) -> torch.Tensor:
    """What is finer than its surroundings, in SIDE x SIDE pixels of grey: uint8 [N,3,S,S] ->
    float32 [N,4096] of length 1, so that a product is a correlation."""
    fine = functional.adaptive_avg_pool2d(images.float().mean(dim=1, keepdim=True), SIDE)
    fine = fine - functional.avg_pool2d(functional.pad(fine, (4, ) * 4, mode="reflect"), 9, 1)
    return functional.normalize(fine.flatten(1) - fine.flatten(1).mean(dim=1, keepdim=True))


def _detail(image: torch.Tensor) -> np.ndarray:
    grey = functional.adaptive_avg_pool2d(image[:3].float().mean(dim=0)[None], SIDE)[0].numpy()
    fine = grey - ndimage.gaussian_filter(grey, FINE)
    contrast = np.sqrt(ndimage.gaussian_filter(fine * fine, 4 * FINE))
    return (fine / (contrast + 1)).ravel()  # of less than a grey level there is only noise
