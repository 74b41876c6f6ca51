"""What a real line does to pictures that have nothing wrong: noise, focus, light, compression and
alignment, in five strengths.

For robustness curves: how much of its AUROC does a detector lose, and how many good parts does it
call anomalous, when the camera and not the part has changed? The idea of named corruptions in five
strengths is Hendrycks and Dietterich's (ICLR 2019); the amounts are our own, smaller at the lower
end: strength 1 is hardly visible, and a person would send for the technician at 5. They are given
in units that do not depend on the picture's size, except noise, which is per pixel.

Nothing is ever filled in with black: beyond the border the edge pixels are repeated, as for a part
on a plain ground.
"""
from __future__ import annotations

import io
import typing

import numpy as np
from PIL import Image
from scipy import ndimage, special

from adlib.report.i18n import Text, t

if typing.TYPE_CHECKING:  # a comparison asks for the words alone, and need not wait for torch
    import torch

STRENGTHS = (1, 2, 3, 4, 5)
_TABLE = {  # name: amount at each strength; `describe` says of what
    "noise": (1, 2, 4, 7, 12), "blur": (0.2, 0.35, 0.55, 0.8, 1.2), "brighter": (2, 4, 7, 11, 16),
    "darker": (2, 4, 7, 11, 16), "contrast": (90, 80, 65, 50, 35), "jpeg": (90, 75, 50, 30, 15),
    "rotation": (1, 2, 4, 7, 10), "shift": (1, 2, 3, 4, 5)
}
CORRUPTIONS: tuple[str, ...] = tuple(_TABLE)


def apply(pictures: torch.Tensor, name: str, strength: int, *, seed: int = 0) -> torch.Tensor:
    """The same pictures as a worse camera would have taken them: uint8 [N,3,S,S] -> a new uint8
    [N,3,S,S] on the CPU.

    Image i of the result depends on image i, on i and, for noise, on the seed; never on the other
    images. Noise is the same draw at every strength, only louder, and the same in the three
    channels of a grey picture: a grey camera has no colour noise. Raises ValueError for an unknown
    name or strength, and for anything but uint8 [N,3,S,S].
    """
    import torch

    amount = _amount(name, strength)
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[
            1] != 3 or pictures.shape[2] != pictures.shape[3]:
        raise ValueError(
            f"corruptions need uint8 [N,3,S,S], got {pictures.dtype} {tuple(pictures.shape)}")
    changed = np.empty(pictures.shape, np.uint8)
    for i, picture in enumerate(pictures.cpu().numpy()):
        changed[i] = np.clip(np.rint(_one(picture, name, amount, i, seed)), 0, 255)
    return torch.from_numpy(changed)


def describe(name: str, strength: int) -> Text:
    """The corruption in words, for a legend: "sensor noise, standard deviation 4 % of the range".
    Raises as `apply`."""
    amount = _amount(name, strength)
    return {
        "noise": t("limits.sensor_noise_standard_deviation_amount", amount=amount), "blur": t(
            "limits.out_focus_gaussian_sigma_amount", amount=amount), "brighter": t(
                "limits.brighter_amount_range", amount=amount), "darker": t(
                    "limits.darker_amount_range", amount=amount), "contrast": t(
                        "limits.contrast_about_image_s_mean", amount=amount), "jpeg": t(
                            "limits.jpeg_compression_quality_amount", amount=amount), "rotation": t(
                                "limits.turned_amount_degrees_every_other", amount=amount),
        "shift": t("limits.shifted_amount_image_s_side", amount=amount)
    }[name]


def _amount(name: str, strength: int) -> float:
    if name not in _TABLE:
        raise ValueError(f"unknown corruption {name!r}; known are {', '.join(CORRUPTIONS)}")
    if strength not in STRENGTHS:
        raise ValueError(
            f"unknown strength {strength!r}; known are {', '.join(map(str, STRENGTHS))}")
    return _TABLE[name][STRENGTHS.index(strength)]


def _one(picture: np.ndarray, name: str, amount: float, i: int, seed: int) -> np.ndarray:
    """uint8 [3,S,S] -> [3,S,S], not yet rounded and clipped."""
    size = picture.shape[-1]
    if name == "noise":
        grey = (picture == picture[:1]).all()
        return picture + amount / 100 * 255 * np.random.default_rng([seed, i]).standard_normal(
            (1 if grey else 3, size, size))
    if name == "blur":
        return _blur(picture.astype(float), amount / 100 * size)
    if name in ("brighter", "darker"):
        return picture + (1 if name == "brighter" else -1) * amount / 100 * 255
    if name == "contrast":
        mean = picture.mean()
        return mean + amount / 100 * (picture - mean)
    if name == "jpeg":
        buffer = io.BytesIO()
        Image.fromarray(picture.transpose(1, 2, 0)).save(buffer, "jpeg", quality=amount)
        with Image.open(buffer) as compressed:
            return np.asarray(compressed).transpose(2, 0, 1)
    if name == "rotation":  # cubic, so that the picture is turned and not also blurred
        turn = amount if i % 2 == 0 else -amount
        return ndimage.rotate(picture.astype(float), turn, axes=(2, 1), reshape=False, order=3,
                              mode="nearest")
    # shift: whole pixels, for the same reason; at least one
    pixels = max(1, round(amount / 100 * size))
    across, down = ((1, 0), (0, 1), (-1, 0), (0, -1))[i % 4]
    place = np.arange(size)
    return picture[:,
                   np.clip(place - down * pixels, 0, size - 1)[:, None],
                   np.clip(place - across * pixels, 0, size - 1)]


def _blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Lindeberg's discrete Gaussian (IEEE TPAMI 1990): its deviation is sigma exactly, where a
    sampled one of under half a pixel does nothing at all and the same share of the side would mean
    less in a small picture."""
    radius = int(5 * sigma) + 3
    taps = special.ive(np.abs(np.arange(-radius, radius + 1)), sigma**2)
    for axis in (1, 2):
        picture = ndimage.correlate1d(picture, taps / taps.sum(), axis=axis, mode="nearest")
    return picture
