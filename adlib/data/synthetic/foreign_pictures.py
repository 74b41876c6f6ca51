"""Pictures that do not show the part: a dead or covered camera, an empty fixture, half a part, two
of them, another part. For the exam of the verdict "foreign" (evaluation.foreign_exam); nothing is
fitted on them.

What is made of a good picture is made of its own border: beyond it there is nothing known of what
would be seen without the part. A mirrored or turned picture is foreign where the good pictures
never look like it, which they alone decide (`unlike`): of parts that lie in all directions, and are
few, more than half of those turned can be unlike the others.
"""
from __future__ import annotations

import typing

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

THUMBNAIL = 16  # cells a side in which pictures are compared here
LEAST_UNLIKE = 0.9  # of the mirrored pictures unlike the good ones: the part is never seen so
Made = typing.Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def make(good: torch.Tensor, others: torch.Tensor, n: int, *,
         seed: int) -> tuple[torch.Tensor, list[str]]:
    """n foreign pictures: number i is of the kind i modulo the number of kinds, and depends on
    (seed, i) and the images only.

    Args:
        good: uint8 [N,3,S,S], N > 1. Where all are grey, so is what is made.
        others: uint8 [M,3,S,S], good pictures of other parts; none for M = 0.

    Returns:
        (uint8 [n,3,S,S], kinds [n]); of KINDS, `mirrored` and `turned` only where that is foreign,
        `other part` only where there are others.
    """
    moved = {"mirrored": [good.flip(-1), good.flip(-2)],
             "turned": [good.rot90(k, (-2, -1)) for k in (1, 2, 3)]}
    ready = {kind: torch.cat([good[:0], *(
        one[far] for one in ways if (far := unlike(one, good)).float().mean() > LEAST_UNLIKE)])
        for kind, ways in moved.items()} | {"other part": others}
    kinds = [kind for kind in KINDS if kind in _MAKERS or len(ready[kind])]
    grey = bool((good == good[:, :1]).all())
    made, names = np.empty((n, *good.shape[1:]), np.uint8), []
    for i in range(n):
        rng, kind = np.random.default_rng([seed, i]), kinds[i % len(kinds)]
        pool = ready.get(kind, good)
        image, second = (pool[int(rng.integers(len(pool)))].numpy() for _ in range(2))
        values = image.astype(float)
        if kind in _MAKERS:
            values = _MAKERS[kind](values, second.astype(float), rng)
        if grey:
            values = np.repeat(values.mean(axis=0, keepdims=True), 3, axis=0)
        made[i] = np.clip(np.rint(values), 0, 255)
        names.append(kind)
    return torch.from_numpy(made), names


def unlike(images: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    """Is each of uint8 [M,3,S,S] farther from the nearest good one, [N,3,S,S], than any good one is
    from its nearest other one? bool [M], by the mean difference of thumbnails."""
    own, thumbnails = _thumbnails(images), _thumbnails(good)
    among = torch.cdist(thumbnails, thumbnails).fill_diagonal_(torch.inf).amin(dim=1)
    return torch.cdist(own, thumbnails).amin(dim=1) > among.max()


def _thumbnails(images: torch.Tensor) -> torch.Tensor:
    chunks = [torch.nn.functional.adaptive_avg_pool2d(part.float(), THUMBNAIL).flatten(1)
              for part in images.split(64)]
    return torch.cat(chunks)


def _fill(image: np.ndarray) -> np.ndarray:
    """The picture with all but its border gone: each place is between the four edges' colours."""
    size = image.shape[-1]
    width = max(1, size // 32)
    smooth = ndimage.uniform_filter(image, (0, width, width), mode="nearest")
    near = np.arange(size)
    weights = 1 / (1 + np.minimum(near, size - 1 - near))
    share = (near / (size - 1))[None, :]
    rows = smooth[:, :1] * (1 - share.T[None]) + smooth[:, -1:] * share.T[None]
    columns = smooth[:, :, :1] * (1 - share[None]) + smooth[:, :, -1:] * share[None]
    down, across = weights[:, None], weights[None]
    return (rows * down + columns * across) / (down + across)


def _grain(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise as strong as the finest differences within the picture's edges."""
    edge = np.concatenate([image[:, :2].reshape(len(image), 2, -1),
                           image[:, -2:].reshape(len(image), 2, -1)], axis=-1)
    deviation = min(6.0, 1.05 * float(np.median(np.abs(edge[:, 0] - edge[:, 1]))))
    return deviation * rng.standard_normal(image.shape[1:])


def _flat(image: np.ndarray, level: typing.Any, noise: float, rng: np.random.Generator
          ) -> np.ndarray:
    level = np.broadcast_to(np.reshape(level, (-1, 1, 1)), image.shape)
    return level + noise * rng.standard_normal(image.shape[1:])


def _background(image: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    edges = np.concatenate([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], axis=1)
    return _flat(image, np.median(edges, axis=1), 0, rng) + _grain(image, rng)


def _absent(image: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _fill(image) + _grain(image, rng)


def _covered(image: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = image.shape[-1]
    y, x = np.mgrid[:size, :size] / size - rng.uniform(0, 1, (2, 1, 1))
    light = rng.uniform(2, 25) * np.exp(-(y**2 + x**2) / rng.uniform(0.1, 1))
    return _flat(image, rng.uniform(0, 12), rng.uniform(0.3, 2), rng) + light


def _gradient(image: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size, angle = image.shape[-1], rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size] / (size - 1) - 0.5
    share = 0.5 + (np.cos(angle) * x + np.sin(angle) * y) / (abs(np.cos(angle)) +
                                                             abs(np.sin(angle)))
    first, last = rng.uniform(0, 255, (2, 3, 1, 1))
    return first * (1 - share) + last * share


def _noise(image: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    grain = image.shape[-1] * rng.choice([0, 0.005, 0.02, 0.08])
    draw = ndimage.gaussian_filter(rng.standard_normal(image.shape), (0, grain, grain), mode="wrap")
    return rng.uniform(60, 200) + rng.uniform(20, 60) * draw / draw.std()


def _half(image: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    kept, size = _absent(image, second, rng), image.shape[-1]
    side = (slice(0, size // 2), slice(size // 2, size))[rng.integers(2)]
    where = ((slice(None), side), (slice(None), slice(None), side))[rng.integers(2)]
    kept[where] = image[where]
    return kept


def _doubled(image: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two of them, a third of the frame apart: of each place the one that is less like the
    background."""
    axis, step = 1 + rng.integers(2), image.shape[-1] // 6
    first, other = _shifted(image, step, axis), _shifted(second, -step, axis)
    apart = [np.abs(values - _fill(values)).sum(axis=0) for values in (first, other)]
    return np.where(apart[0] >= apart[1], first, other)


def _shifted(image: np.ndarray, step: int, axis: int) -> np.ndarray:
    return np.take(image, np.clip(np.arange(image.shape[-1]) - step, 0, image.shape[-1] - 1), axis)


def _blurred(image: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    sigma = rng.uniform(0.05, 0.15) * image.shape[-1]
    return ndimage.gaussian_filter(image, (0, sigma, sigma), mode="nearest")


def _tiny(image: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = image.shape[-1]
    side = max(4, int(rng.uniform(0.1, 0.3) * size))
    y, x = rng.integers(0, size - side, 2)
    empty = _background(image, second, rng)
    empty[:, y:y + side, x:x + side] = _resized(image, side)
    return empty


def _huge(image: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = image.shape[-1]
    side = max(4, int(rng.uniform(0.1, 0.3) * size))
    y, x = rng.integers(0, size - side, 2)
    return _resized(image[:, y:y + side, x:x + side], size)


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    channels = [Image.fromarray(values.astype(np.float32)).resize((side, side),
                                                                  Image.Resampling.BILINEAR)
                for values in image]
    return np.stack([np.asarray(channel) for channel in channels])


_MAKERS: dict[str, Made] = {
    "black": lambda image, _, rng: _flat(image, 0, rng.uniform(0, 2), rng),
    "white": lambda image, _, rng: _flat(image, 255, rng.uniform(0, 2), rng),
    "grey": lambda image, _, rng: _flat(image, rng.uniform(20, 235), rng.uniform(0, 4), rng),
    "colour": lambda image, _, rng: _flat(image, rng.uniform(0, 255, 3), rng.uniform(0, 4), rng),
    "covered": _covered, "gradient": _gradient, "noise": _noise, "background": _background,
    "absent": _absent, "half": _half, "doubled": _doubled, "blurred": _blurred, "tiny": _tiny,
    "huge": _huge}
KINDS = (*_MAKERS, "mirrored", "turned", "other part")
