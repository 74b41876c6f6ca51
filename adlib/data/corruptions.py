"""What a real line does to images that have nothing wrong: noise, focus, light, compression and
alignment, in five strengths.

Named corruptions in five strengths are the idea of Hendrycks and Dietterich (ICLR 2019); the
amounts are our own, smaller at the lower end: strength 1 is hardly visible, and one would send for
the technician at 5. Beyond the border the edge pixels are repeated, as for a workpiece on a plain
ground.
"""
from __future__ import annotations

import io
import typing

import numpy as np
from PIL import Image
from scipy import ndimage, special

if typing.TYPE_CHECKING:  # a comparison asks for the amounts alone, and need not wait for torch
    import torch

STRENGTHS = (1, 2, 3, 4, 5)
USUAL = 3  # the strongest that good images are varied by
CALIBRATING_SEED = 1_000_000  # of noise: not that of images that are tested
_AMOUNTS = {  # of each strength, in per cent of the grey range or of the image's side, except:
    "noise": (1, 2, 4, 7, 12), "blur": (0.2, 0.35, 0.55, 0.8, 1.2), "brighter": (2, 4, 7, 11, 16),
    "darker": (2, 4, 7, 11, 16),
    "contrast": (90, 80, 65, 50, 35),  # per cent that remain
    "jpeg": (90, 75, 50, 30, 15),  # quality
    "rotation": (1, 2, 4, 7, 10),  # degrees
    "shift": (1, 2, 3, 4, 5)
}
CORRUPTIONS: tuple[str, ...] = tuple(_AMOUNTS)


def apply(images: torch.Tensor, name: str, strength: int, *, seed: int = 0) -> torch.Tensor:
    """The same images as a worse camera would have taken them.

    Image i of the result depends on image i, on i and, for noise, on the seed; never on the other
    images. Noise is the same draw at every strength, only louder, and the same in the three
    channels of a grey image: a grey camera has no colour noise.

    Args:
        images: uint8 [N,3,H,W], or [N,4,H,W], whose fourth channel stays.
        name: one of CORRUPTIONS.
        strength: one of STRENGTHS.

    Returns:
        A new tensor of that shape, on the CPU.

    Raises:
        ValueError: an unknown name or strength; images of another type or shape.
    """
    import torch

    level, shape = amount(name, strength), images.shape
    if images.dtype != torch.uint8 or len(shape) != 4 or shape[1] not in (3, 4):
        raise ValueError(f"corruptions need uint8 [N,3,H,W], got {images.dtype} {tuple(shape)}")
    corrupted = images.cpu().numpy().copy()
    for i, image in enumerate(corrupted[:, :3]):
        image[:] = np.clip(np.rint(_corrupt(image, name, level, i, seed)), 0, 255)
    return torch.from_numpy(corrupted)


def varied(images: torch.Tensor, *, seed: int) -> torch.Tensor:
    """A copy of each image as the line might take it another day: one of the corruptions, of
    strength 1 to USUAL, drawn by (seed, its number). Images as in `apply`."""
    changed = images.clone()
    for i, image in enumerate(images):
        random = np.random.default_rng([seed, i])
        name, strength = random.choice(CORRUPTIONS), int(random.integers(1, USUAL + 1))
        changed[i] = apply(image[None], name, strength, seed=i)[0]
    return changed


def every(images: torch.Tensor) -> torch.Tensor:
    """The images, uint8 [N,C,H,W] as in `apply`, and after them as many copies by every corruption
    of strength USUAL: uint8 [9N,C,H,W]."""
    import torch

    return torch.cat([images, *(
        apply(images, name, USUAL, seed=CALIBRATING_SEED) for name in CORRUPTIONS)])


def amount(name: str, strength: int) -> float:
    """How much of a corruption a strength is, in the units of _AMOUNTS. Raises ValueError for an
    unknown name or strength."""
    if name not in _AMOUNTS:
        raise ValueError(f"unknown corruption {name!r}; known are {', '.join(CORRUPTIONS)}")
    if strength not in STRENGTHS:
        raise ValueError(
            f"unknown strength {strength!r}; known are {', '.join(map(str, STRENGTHS))}")
    return _AMOUNTS[name][STRENGTHS.index(strength)]


def _corrupt(image: np.ndarray, name: str, level: float, i: int, seed: int) -> np.ndarray:
    """uint8 [3,H,W] -> [3,H,W], not yet rounded and clipped."""
    height, width = image.shape[1:]
    size = max(height, width)
    if name == "noise":
        grey = (image == image[:1]).all()
        draw = np.random.default_rng([seed, i]).standard_normal((1 if grey else 3, height, width))
        return image + level / 100 * 255 * draw
    if name == "blur":
        return _blur(image.astype(float), level / 100 * size)
    if name in ("brighter", "darker"):
        return image + (1 if name == "brighter" else -1) * level / 100 * 255
    if name == "contrast":
        mean = image.mean()
        return mean + level / 100 * (image - mean)
    if name == "jpeg":
        buffer = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "jpeg", quality=level)
        with Image.open(buffer) as compressed:
            return np.asarray(compressed).transpose(2, 0, 1)
    if name == "rotation":  # cubic, so that the image is turned and not also blurred
        turn = level if i % 2 == 0 else -level
        return ndimage.rotate(image.astype(float), turn, axes=(2, 1), reshape=False, order=3,
                              mode="nearest")
    # shift: whole pixels, for the same reason; at least one
    pixels = max(1, round(level / 100 * size))
    across, down = ((1, 0), (0, 1), (-1, 0), (0, -1))[i % 4]
    return image[:, np.clip(np.arange(height) - down * pixels, 0, height - 1)[:, None],
                 np.clip(np.arange(width) - across * pixels, 0, width - 1)]


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Lindeberg's discrete Gaussian (IEEE TPAMI 1990): its deviation is sigma exactly, where a
    sampled one of under half a pixel does nothing at all and the same share of the side would mean
    less in a small image."""
    radius = int(5 * sigma) + 3
    taps = special.ive(np.abs(np.arange(-radius, radius + 1)), sigma**2)
    for axis in (1, 2):
        image = ndimage.correlate1d(image, taps / taps.sum(), axis=axis, mode="nearest")
    return image
