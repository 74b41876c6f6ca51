"""Images in a plane, alike ones near each other: pooled features of the frozen ResNet18, laid out
by t-SNE. Nothing is decided by it."""
from __future__ import annotations

import typing

import numpy as np
import torch
from torch import nn

from adlib.config import Config
from adlib.models import backbone as features

# images below which t-SNE has no neighbourhoods to keep, and the two first principal components are
# taken
FEW = 10


def pooled(encoder: nn.Module, pictures: torch.Tensor, config: Config) -> np.ndarray:
    """uint8 [N,3,S,S] -> float64 [N,448]: each channel's mean over the image, in deviations over
    the images. encoder: features.backbone."""
    parts = [
        np.concatenate([
            stage.float().mean(dim=(2, 3)).numpy()
            for stage in features.extract(encoder, part, config)
        ], axis=1) for part in pictures.split(features.CHUNK)
    ]
    found = np.concatenate(parts).astype(float)
    return (found - found.mean(axis=0)) / np.maximum(found.std(axis=0), 1e-12)


def plane(found: np.ndarray) -> tuple[np.ndarray, str]:
    """[N,D] -> [N,2], and how: t-SNE (van der Maaten and Hinton 2008) begun at the principal
    components, or these where images are FEW."""
    centred = found - found.mean(axis=0)
    if len(found) < FEW:
        left, values, _ = np.linalg.svd(centred, full_matrices=False)
        flat = np.zeros((len(found), 2))
        flat[:, :values[:2].size] = left[:, :2] * values[:2]
        return flat, "PCA"
    from sklearn.manifold import TSNE  # here, because its import takes a second

    return TSNE(init="pca", perplexity=min(30.0, (len(found) - 1) / 3),
                random_state=0).fit_transform(centred).astype(float), "t-SNE"


def alike(found: np.ndarray, anomalous: np.ndarray) -> tuple[int, int]:
    """How many of the anomalous images, bool [N], have an anomalous one as their nearest neighbour
    of all, [N,D]; and their number."""
    squares = (found**2).sum(axis=1)
    distance = squares[:, None] + squares - 2 * found @ found.T
    np.fill_diagonal(distance, np.inf)
    return int(anomalous[distance[anomalous].argmin(
        axis=1)].sum()) if anomalous.any() and len(found) > 1 else 0, int(anomalous.sum())


def spread(counts: typing.Sequence[int], most: int) -> list[int]:
    """How many images of each kind to show so that they are `most` at the most: of the largest
    kinds a share, of the small ones all."""
    left, kept = most, [0] * len(counts)
    for place, i in enumerate(sorted(range(len(counts)), key=lambda i: counts[i])):
        kept[i] = min(counts[i], left // (len(counts) - place))
        left -= kept[i]
    return kept
