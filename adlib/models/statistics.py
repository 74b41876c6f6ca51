"""Model-free baselines: one number of the image, and how unusual it is. A detector that doesn't
beat them has learned nothing."""
from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from adlib.config import STATISTICS


def statistic(pictures: torch.Tensor, name: str) -> np.ndarray:
    """uint8 [N,3,S,S] -> float64 [N]: mean_grey [0,255], contrast (deviation of grey),
    laplacian_variance, compressed_size (PNG bytes).

    Raises ValueError for an unknown name.
    """
    if name not in STATISTICS:
        raise ValueError(f"unknown statistic {name!r}; known are {', '.join(STATISTICS)}")
    return np.array([_one(picture.numpy(), name) for picture in pictures], dtype=float)


def distance(values: np.ndarray, good: np.ndarray) -> np.ndarray:
    """|value - median of the good| in robust deviations: [N], [M] -> [N]; higher = more anomalous. Both sides count.
    """
    centre = np.median(good)
    return np.abs(values - centre) / max(1.4826 * np.median(np.abs(good - centre)), 1e-9)


def _one(picture: np.ndarray, name: str) -> float:
    if name == "compressed_size":
        buffer = io.BytesIO()
        Image.fromarray(picture.transpose(1, 2, 0)).save(buffer, "png", compress_level=6)
        return float(buffer.tell())
    grey = picture.mean(axis=0, dtype=float)
    return float({
        "mean_grey": np.mean, "contrast": np.std,
        "laplacian_variance": lambda g: np.var(ndimage.laplace(g))
    }[name](grey))
