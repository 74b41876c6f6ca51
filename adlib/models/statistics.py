"""Model-free baselines: one number of the image, and how unusual it is. A detector that doesn't
beat them has learned nothing."""
from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from adlib.config import Config
from adlib.models.detector import Detector


class Statistic(Detector):
    """How far a number of the image lies from the good images' median, in robust deviations; in the
    number's own unit (a grey level, a byte) where these are smaller."""

    is_thread_safe = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.name = config.model
        self.register_buffer("good", torch.zeros(0, dtype=torch.float64))

    def fit(self, images: torch.Tensor, validation: torch.Tensor | None = None) -> Statistic:
        self.good = torch.from_numpy(statistic(images, self.name))
        return self

    def anomaly_maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """{"distance": float64 [N,1,1]}; both sides of the median count."""
        values, good = statistic(images, self.name), self.good.numpy()
        centre = np.median(good)
        spread = max(1.4826 * np.median(np.abs(good - centre)), 1.0)
        return {"distance": torch.from_numpy(np.abs(values - centre) / spread)[:, None, None]}


def statistic(images: torch.Tensor, name: str) -> np.ndarray:
    """uint8 [N,3,S,S] -> float64 [N].

    Args:
        name: mean_grey [0,255] | contrast (deviation of grey) | laplacian_variance (sharpness) |
            compressed_size (bytes as PNG).
    """
    return np.array([_one(image.numpy(), name) for image in images], dtype=float)


def _one(image: np.ndarray, name: str) -> float:
    if name == "compressed_size":
        buffer = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "png", compress_level=6)
        return float(buffer.tell())
    grey = image.mean(axis=0, dtype=float)
    if name == "laplacian_variance":
        return float(np.var(ndimage.laplace(grey)))
    return float(grey.mean() if name == "mean_grey" else grey.std())
