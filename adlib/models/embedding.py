"""Images in a plane, alike ones near each other. It is for looking at; nothing is decided by it."""
from __future__ import annotations

import typing

import numpy as np
import torch
from torch import nn

from adlib.config import Config
from adlib.models import backbone
from adlib.models.fast.device import CHUNK

FEW = 10  # images below which t-SNE has no neighbourhoods to keep, and PCA is taken


def pooled(network: nn.Module, images: torch.Tensor, config: Config) -> np.ndarray:
    """Each channel's mean over the image, in deviations over the images.

    Args:
        network: backbone.load_backbone. images: uint8 [N,3,S,S].

    Returns:
        float64 [N,448].
    """
    means = [np.concatenate([stage.float().mean(dim=(2, 3)).numpy()
                             for stage in backbone.extract(network, chunk, config)], axis=1)
             for chunk in images.split(CHUNK)]
    features = np.concatenate(means).astype(float)
    return (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-12)


def plane(features: np.ndarray) -> tuple[np.ndarray, str]:
    """[N,D] -> [N,2], and how: "t-SNE" (van der Maaten and Hinton 2008) begun at the principal
    components, or "PCA", these alone, where images are FEW."""
    centred = features - features.mean(axis=0)
    if len(features) < FEW:
        left, values, _ = np.linalg.svd(centred, full_matrices=False)
        flat = np.zeros((len(features), 2))
        flat[:, :values[:2].size] = left[:, :2] * values[:2]
        return flat, "PCA"
    from sklearn.manifold import TSNE  # here, because its import takes a second

    perplexity = min(30.0, (len(features) - 1) / 3)
    tsne = TSNE(init="pca", perplexity=perplexity, random_state=0)
    return tsne.fit_transform(centred).astype(float), "t-SNE"


def alike(features: np.ndarray, anomalous: np.ndarray) -> tuple[int, int]:
    """How many of the anomalous images have an anomalous one as their nearest neighbour of all, and
    their number. features: [N,D]; anomalous: bool [N]."""
    squares = (features**2).sum(axis=1)
    distance = squares[:, None] + squares - 2 * features @ features.T
    np.fill_diagonal(distance, np.inf)
    if not anomalous.any() or len(features) < 2:
        return 0, int(anomalous.sum())
    nearest = distance[anomalous].argmin(axis=1)
    return int(anomalous[nearest].sum()), int(anomalous.sum())


def spread(counts: typing.Sequence[int], most: int) -> list[int]:
    """How many images of each kind to show so that they are `most` at the most: of the largest
    kinds a share, of the small ones all."""
    left, kept = most, [0] * len(counts)
    for place, i in enumerate(sorted(range(len(counts)), key=lambda i: counts[i])):
        kept[i] = min(counts[i], left // (len(counts) - place))
        left -= kept[i]
    return kept
