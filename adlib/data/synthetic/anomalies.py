"""Synthetic anomalies put into real good images: for label-free choices, and to train a classifier
head on.

Four kinds, none of them drawn after a defect of any test set:

    cutpaste    a piece of a good image somewhere else (Li et al., CVPR 2021)
    perlin      another texture in a cloud-shaped region (DRAEM, Zavrtanik et al., ICCV 2021)
    scratch     a thin curved line, darker or lighter
    structural  a region displaced, turned or swollen: the material is right, its place is wrong

They sit where good images have structure, so that few of them fall on an empty background.
"""
from __future__ import annotations

import typing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from adlib.config import KINDS, InputError
from adlib.data.lazy import Lazy

PLACES = 5  # that are drawn


def insert(images: typing.Sequence[torch.Tensor], n: int, *, seed: int,
           kinds: typing.Sequence[str] = KINDS) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """n anomalous images made from good ones: number i from image i modulo N, of the kind i modulo
    len(kinds); it depends on (seed, i) and the images only.

    Args:
        images: uint8 [3,S,S] each, good ones, or [4,S,S], 255 in the fourth channel where a pixel
            counts: the others stay as they are.

    Returns:
        (images uint8 [n,...] alike, masks bool [n,S,S], kinds [n]). The mask is where the image was
        visibly changed (by at least 6 of 255 grey levels in a channel); it is never empty.

    Raises:
        ValueError: an unknown kind; no images.
    """
    shape = images[0].shape if len(images) else (3, 0, 0)
    changed = Changed(images, n, side=shape[-1], seed=seed, kinds=kinds)
    made = torch.empty(n, *shape, dtype=torch.uint8)
    masks = torch.empty(n, *shape[1:], dtype=torch.bool)

    def make(i: int) -> None:
        made[i], masks[i] = changed.with_mask(i)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # as many as the run may have
        list(pool.map(make, range(n)))
    return made, masks, changed.kinds


class Changed(Lazy):
    """Anomalies in pictures of any size, each made when it is looked at: number i in picture i
    modulo N, in the one of PLACES squares of it in which the most pixels count, or where one does.

    Args:
        pictures: uint8 [3,h,w] each, or [4,h,w], 255 in the fourth channel where a pixel counts.
        side: of the squares, in pixels.

    Raises:
        ValueError: as `insert`.
    """

    def __init__(self, pictures: typing.Sequence[torch.Tensor], n: int, *, side: int, seed: int,
                 kinds: typing.Sequence[str] = KINDS) -> None:
        unknown = set(kinds) - set(KINDS)
        if unknown or not len(pictures) or not kinds:
            raise ValueError(f"unknown kinds {sorted(unknown)}"
                             if unknown else "anomalies need at least one picture and one kind")
        self.n, self.pictures, self.side, self.seed = n, pictures, side, seed
        self.kinds = [kinds[i % len(kinds)] for i in range(n)]

    def make(self, i: int) -> torch.Tensor:
        return self.with_mask(i)[0]

    def with_mask(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The picture, and its mask, bool [h,w]."""
        rng, *indices = _sources(self.seed, i, len(self.pictures))
        picture, other = (self.pictures[j] for j in indices)
        picture, side = picture.clone(), self.side
        places = [[int(rng.integers(length - side + 1)) for length in picture.shape[1:]]
                  for _ in range(PLACES)]
        y, x = max(places, key=lambda at: _counts(self._square(picture, *at)).sum())
        square = self._square(picture, y, x)
        if not _counts(square).any():  # all missed a small region: around a pixel of it
            if not len(inside := np.argwhere(_counts(picture))):
                raise InputError("no pixel of a picture counts, so that nothing can be put into "
                                 "it; give another roi or ignore mask")
            middle = rng.choice(inside)
            y, x = (int(np.clip(at - side // 2, 0, length - side))
                    for at, length in zip(middle, picture.shape[1:], strict=True))
            square = self._square(picture, y, x)
        beside = self._square(other, *(min(at, length - side) for at, length in zip(
            (y, x), other.shape[1:], strict=True)))
        image, changed = _insert(self.kinds[i], _channels_last(square[:3]),
                                 _channels_last(beside[:3]), rng, _counts(square))
        square[:3] = torch.from_numpy(image.transpose(2, 0, 1).copy())
        mask = torch.zeros(picture.shape[1:], dtype=torch.bool)
        mask[y:y + side, x:x + side] = torch.from_numpy(changed)
        return picture, mask

    def _square(self, picture: torch.Tensor, y: int, x: int) -> torch.Tensor:
        return picture[:, y:y + self.side, x:x + self.side]


def into(given: torch.Tensor | typing.Sequence[torch.Tensor], n: int, *, side: int | None,
         seed: int) -> tuple[torch.Tensor | Changed, np.ndarray, list[str]]:
    """`insert`, or `Changed`, with images as a detector is given them: uint8 [N,3,S,S] or
    [N,4,S,S], or one by one, and squares of `side` pixels. Returns the same, the share of each that
    the anomaly covers, float64 [n], and its kind."""
    if not isinstance(given, torch.Tensor):
        changed = Changed(given, n, side=side, seed=seed)
        shares = [float(changed.with_mask(i)[1].float().mean()) for i in range(n)]
        return changed, np.array(shares), changed.kinds
    images, masks, kinds = insert(given, n, seed=seed)
    return images, masks.float().mean(dim=(1, 2)).double().numpy(), kinds


def drop(image: torch.Tensor, other: torch.Tensor, kind: str, *, centre: tuple[float, float],
         size: float = 1.0, contrast: float = 1.0,
         seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """One anomaly where one wants it. The seed gives its shape, whatever the other values are.

    Args:
        image: uint8 [3,S,S].
        other: uint8 [3,S,S], a good image that it may be made from.
        centre: (y, x) as shares of the side.
        size: its lengths are this many times those of `insert`.
        contrast: in [0,1], from the image as it is to the anomaly as it is.

    Returns:
        (uint8 [3,S,S], mask bool [S,S] as in `insert`, but empty where nothing can be seen).
    """
    base, source = _channels_last(image), _channels_last(other)
    y, x = (int(np.clip(share * len(base), 0, len(base) - 1)) for share in centre)
    changed = _GENERATORS[kind](base, source, (y, x), np.random.default_rng(seed), size)
    blended = (base + contrast * (changed.astype(float) - base) + 0.5).astype(np.uint8)
    return (torch.from_numpy(blended.transpose(2, 0, 1).copy()),
            torch.from_numpy(_visible(base, blended)))


def drop_into(picture: torch.Tensor, other: torch.Tensor, kind: str, *, side: int,
              place: tuple[float, float], **how: typing.Any) -> tuple[torch.Tensor, torch.Tensor]:
    """`drop` around a place (y, x), in shares of the sides, of pictures uint8 [3,h,w] or [4,h,w]
    (255 in the fourth channel where a pixel counts; the others stay as they are), as large as in a
    square of `side` pixels. Returns the picture and its mask, bool [h,w]."""
    changed, mask = picture.clone(), torch.zeros(picture.shape[1:], dtype=torch.bool)
    (square, centre), (beside, _), (marked, _) = (
        _square_at(one, side, place) for one in (changed, other, mask[None]))
    drawn, visible = drop(square[:3], beside[:3], kind, centre=centre, **how)
    if len(picture) == 4:
        visible &= square[3] > 0
        drawn = torch.where(square[3] > 0, drawn, square[:3])
    square[:3], marked[0] = drawn, visible
    return changed, mask


def _square_at(image: torch.Tensor, side: int, place: tuple[float, float]
               ) -> tuple[torch.Tensor, tuple[float, float]]:
    """The square of an image [C,h,w] around a place, and where that lies in it."""
    at = [share * length for share, length in zip(place, image.shape[1:], strict=True)]
    top, left = (int(min(max(0, middle - side / 2), length - side))
                 for middle, length in zip(at, image.shape[1:], strict=True))
    return (image[:, top:top + side, left:left + side],
            ((at[0] - top) / side, (at[1] - left) / side))


def sources(n: int, count: int, *, seed: int) -> np.ndarray:
    """Which two of `count` images each of the n images of `insert` may have something of: int64
    [n,2]."""
    return np.array([_sources(seed, i, count)[1:] for i in range(n)], dtype=np.int64).reshape(n, 2)


def _sources(seed: int, i: int, count: int) -> tuple[np.random.Generator, int, int]:
    rng = np.random.default_rng([seed, i])
    return rng, i % count, int(rng.integers(count))


def _counts(picture: torch.Tensor) -> np.ndarray:
    """Which pixels of [3,h,w] or [4,h,w] count: bool [h,w]."""
    return np.ones(picture.shape[1:], bool) if len(picture) == 3 else (picture[3] > 0).numpy()


def _channels_last(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.numpy().transpose(1, 2, 0))


def _insert(kind: str, base: np.ndarray, other: np.ndarray, rng: np.random.Generator,
            area: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Try places and sizes until the change can be seen."""
    for _ in range(20):
        centre = _place(base, rng, area)
        image = np.where(area[..., None], _GENERATORS[kind](base, other, centre, rng), base)
        mask = _visible(base, image)
        if mask.sum() >= max(4, base.shape[0]**2 // 4000):
            return image, mask
    # a uniform image, where nothing that is moved can be seen: a plain spot
    image, spot = base.copy(), _disc(base.shape[0], centre, base.shape[0] / 16)
    image[spot] = 255 - image[spot]
    image[spot & ~_visible(base, image)] = 0
    image = np.where(area[..., None], image, base)
    return image, _visible(base, image)


def _visible(base: np.ndarray, image: np.ndarray) -> np.ndarray:
    changed = np.abs(np.subtract(image, base, dtype=np.int16)) >= 6
    return changed[..., 0] | changed[..., 1] | changed[..., 2]  # three times as fast as any(axis=2)


def _cutpaste(base: np.ndarray, other: np.ndarray, centre: tuple[int, int],
              rng: np.random.Generator, times: float = 1) -> np.ndarray:
    size = base.shape[0]
    h, w = (max(3, int(size * min(1, side * times))) for side in _sides(rng))
    y, x = (int(np.clip(v - side // 2, 0, size - side))
            for v, side in zip(_place(other, rng), (h, w), strict=True))
    piece = Image.fromarray(_jitter(other, rng)[y:y + h, x:x + w])
    turn = float(rng.uniform(-60, 60))
    turned, cover = (image.rotate(turn, expand=True, resample=Image.Resampling.BILINEAR)
                     for image in (piece, Image.new("L", (w, h), 255)))
    picture = Image.fromarray(base)
    picture.paste(turned, (centre[1] - turned.width // 2, centre[0] - turned.height // 2), cover)
    return np.asarray(picture)


def _perlin(base: np.ndarray, other: np.ndarray, centre: tuple[int, int], rng: np.random.Generator,
            times: float = 1) -> np.ndarray:
    size = base.shape[0]
    clouds = sum(_noise(size, cells, rng) / cells**0.5 for cells in (4, 8, 16))
    near = _disc(size, centre, size * rng.uniform(0.06, 0.2) * times)
    region = near & (clouds > np.median(clouds[near]))
    if rng.random() < 0.5:
        texture = _jitter(np.rot90(other[::-1], int(rng.integers(4))), rng)
    else:  # a texture of its own: coloured noise of a random grain
        grain = int(rng.choice([8, 16, 32, 64]))
        texture = np.clip(_colour(other, rng) + 60 * _noise(size, grain, rng)[..., None], 0, 255)
    soft = ndimage.gaussian_filter(region.astype(float), size / 256)[..., None]
    soft = soft * rng.uniform(0.3, 1.0)
    return (base * (1 - soft) + texture * soft + 0.5).astype(np.uint8)


def _scratch(base: np.ndarray, other: np.ndarray, centre: tuple[int, int], rng: np.random.Generator,
             times: float = 1) -> np.ndarray:
    size, steps = base.shape[0], 12
    angle, points = rng.uniform(0, 2 * np.pi), [np.array(centre[::-1], float)]
    bend, length = rng.normal(0, 0.12), size * rng.uniform(0.06, 0.3) * times
    for _ in range(steps):
        angle += bend + rng.normal(0, 0.1)
        points.append(points[-1] + length / steps * np.array([np.cos(angle), np.sin(angle)]))
    # drawn large, then shrunk: a line of any width with soft edges
    canvas = Image.new("L", (4 * size, 4 * size), 0)
    width = max(2, round(4 * size * rng.uniform(0.003, 0.012) * times))
    ImageDraw.Draw(canvas).line([tuple(4 * p) for p in points], fill=255, width=width)
    cover = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), float)[..., None]
    cover = cover / 255 * rng.uniform(0.4, 1.0)
    colour = base[centre] + rng.choice([-1, 1]) * rng.uniform(30, 110)
    return (base * (1 - cover) + np.clip(colour, 0, 255) * cover + 0.5).astype(np.uint8)


def _structural(base: np.ndarray, other: np.ndarray, centre: tuple[int, int],
                rng: np.random.Generator, times: float = 1) -> np.ndarray:
    size = base.shape[0]
    radius = size * rng.uniform(0.04, 0.14) * times
    # beyond 2.2 radii nothing moves by a millionth of a pixel
    window = tuple(slice(max(0, int(middle - 2.2 * radius)), int(middle + 2.2 * radius) + 1)
                   for middle in centre)
    rows, columns = (axis.astype(float) for axis in np.mgrid[:size, :size][(slice(None), *window)])
    dy, dx = rows - centre[0], columns - centre[1]
    weight = np.exp(-((dy**2 + dx**2) / radius**2)**2)  # 1 inside, soft at the rim
    kind = rng.integers(3)
    if kind == 0:  # displaced
        turn, shift = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.3, 1.0)
        rows = rows - weight * shift * np.sin(turn)
        columns = columns - weight * shift * np.cos(turn)
    elif kind == 1:  # turned
        turn = weight * rng.choice([-1, 1]) * rng.uniform(0.5, 2.0)
        rows = centre[0] + dy * np.cos(turn) - dx * np.sin(turn)
        columns = centre[1] + dy * np.sin(turn) + dx * np.cos(turn)
    else:  # swollen or shrunk
        scale = 1 + weight * rng.choice([-0.5, 0.8])
        rows, columns = centre[0] + dy * scale, centre[1] + dx * scale
    image = base.copy()
    for c in range(3):
        image[..., c][window] = ndimage.map_coordinates(
            base[..., c].astype(float), [rows, columns], order=1, mode="nearest").round()
    return image


_GENERATORS = {"cutpaste": _cutpaste, "perlin": _perlin, "scratch": _scratch,
               "structural": _structural}


def _place(base: np.ndarray, rng: np.random.Generator,
           area: np.ndarray | None = None) -> tuple[int, int]:
    """A random pixel, likelier where the image has structure (gradient energy, smoothed), away from
    the rim; of those that count."""
    grey = base.sum(axis=2) / 3
    energy = ndimage.gaussian_filter(ndimage.gaussian_gradient_magnitude(grey, 1.0),
                                     grey.shape[0] / 32) + 1e-3
    if area is not None:
        energy[~area] = 0
    rim, whole = grey.shape[0] // 16, energy.copy()
    energy[:rim] = energy[-rim:] = energy[:, :rim] = energy[:, -rim:] = 0
    energy = energy if energy.any() else whole  # what counts lies on the rim
    index = rng.choice(energy.size, p=(energy / energy.sum()).ravel())
    return int(index // grey.shape[1]), int(index % grey.shape[1])


def _sides(rng: np.random.Generator) -> tuple[float, float]:
    """Height and width of a piece as shares of the image's side: 0.2% to 4% of its area, from
    compact to long."""
    area, ratio = rng.uniform(0.002, 0.04), np.exp(rng.uniform(-1.5, 1.5))
    return min(0.5, (area * ratio)**0.5), min(0.5, (area / ratio)**0.5)


def _jitter(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness and contrast a little off."""
    mean = image.mean()
    changed = (image - mean) * rng.uniform(0.7, 1.3) + mean + rng.normal(0, 15)
    return np.clip(changed, 0, 255).astype(np.uint8)


def _colour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random colour, a random grey where the image is grey: colour alone would give every anomaly
    of a grey workpiece away."""
    grey = int(np.ptp(image, axis=2).max()) < 8
    return np.full(3, rng.uniform(20, 235)) if grey else rng.uniform(20, 235, 3)


def _noise(size: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of about unit variance, `cells` bumps along a side: [size,size]."""
    coarse = rng.normal(size=(cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC), float)


def _disc(size: int, centre: tuple[int, int], radius: float) -> np.ndarray:
    rows, columns = np.ogrid[:size, :size]
    return (rows - centre[0])**2 + (columns - centre[1])**2 <= max(radius, 2.0)**2
