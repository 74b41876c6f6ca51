"""What a feature detector computes from frozen features: closed forms, a memory, a small
classifier.

Each is fitted on the features of good images, float32 [N,C,g,g] (backbone.grid), and maps such
features to [N,g,g], higher = more anomalous. What is fitted lies in buffers and parameters.
"""
from __future__ import annotations

import torch
from torch import nn

from adlib.config import InputError
from adlib.models import training

COMPONENTS = 96  # of the linear autoencoder
DIMENSIONS, RIDGE = 100, 0.01  # of the Gaussian: random dimensions (PaDiM); on its diagonal
BANK, POOL = 4000, 20000  # patches the memory keeps, and random patches it chooses them from
PROJECTED = 64  # dimensions in which the memory's coreset is chosen
HIDDEN, EPOCHS, PEAK_LR, BATCH = 128, 10, 2e-3, 2048  # of the classifier; a batch is of cells
GOOD_CELLS, GOOD_PER_ANOMALOUS = 256, 2  # it sees of each good image, and beside an anomalous one
DIGIT = 2.0**-10  # of float16, as features are kept: what good images vary by at least


class PCAResidual(nn.Module):
    """The closed-form linear autoencoder: squared distance of a cell's features to the span of the
    leading components.

    Reference: the optimum of a linear autoencoder with squared loss is PCA (Baldi and Hornik 1989);
    as a detector it is DFM (Ahuja et al. 2019).
    """

    def fit(self, features: torch.Tensor, seed: int = 0) -> PCAResidual:
        x = _cells(features)
        self.register_buffer("mean", x.mean(dim=0))
        x = x - self.mean
        _, vectors = torch.linalg.eigh(x.T @ x / len(x))
        kept = min(COMPONENTS, x.shape[1] - 1)
        self.register_buffer("components", vectors[:, -kept:].contiguous())
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = features.permute(0, 2, 3, 1) - self.mean
        return (x - (x @ self.components) @ self.components.T).square().sum(dim=-1)


class GaussianPerPosition(nn.Module):
    """Mahalanobis distance to a Gaussian of each grid position, for aligned parts.

    Reference: PaDiM (Defard et al., ICPR 2020).
    """

    def fit(self, features: torch.Tensor, seed: int = 0) -> GaussianPerPosition:
        order = torch.randperm(features.shape[1], generator=torch.Generator().manual_seed(seed))
        self.register_buffer("chosen", order[:DIMENSIONS].sort().values)
        x = features[:, self.chosen].permute(2, 3, 0, 1).flatten(0, 1)  # (positions, N, D)
        self.register_buffer("mean", x.mean(dim=1, keepdim=True))
        x = x - self.mean
        covariance = x.mT @ x / max(1, x.shape[1] - 1) + RIDGE * torch.eye(x.shape[2])
        # The inverse of the Cholesky factor whitens: ||L^-1 x|| is the Mahalanobis distance.
        self.register_buffer("whiten", torch.linalg.inv(torch.linalg.cholesky(covariance)))
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        n, _, h, w = features.shape
        x = features[:, self.chosen].permute(2, 3, 0, 1).flatten(0, 1) - self.mean
        return (x @ self.whiten.mT).norm(dim=-1).T.reshape(n, h, w)


class GaussianAnywhere(nn.Module):
    """The same with one Gaussian for all positions and all dimensions: for parts that lie
    freely."""

    def fit(self, features: torch.Tensor, seed: int = 0) -> GaussianAnywhere:
        x = _cells(features)
        self.register_buffer("mean", x.mean(dim=0))
        x = x - self.mean
        covariance = x.T @ x / len(x) + RIDGE * torch.eye(x.shape[1])
        self.register_buffer("whiten", torch.linalg.inv(torch.linalg.cholesky(covariance)))
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return ((features.permute(0, 2, 3, 1) - self.mean) @ self.whiten.T).norm(dim=-1)


class Memory(nn.Module):
    """Distance of a cell's features to the nearest of a bank of good ones.

    The bank is a greedy k-centre coreset of random good patches, chosen in a random projection.

    Reference: PatchCore (Roth et al., CVPR 2022), without its re-weighting of the image score.
    """

    def fit(self, features: torch.Tensor, seed: int = 0) -> Memory:
        generator = torch.Generator().manual_seed(seed)
        patches = _cells(features)
        patches = patches[torch.randperm(len(patches), generator=generator)[:POOL]]
        projection = torch.randn(patches.shape[1], PROJECTED, generator=generator) / PROJECTED**0.5
        chosen = _coreset(patches @ projection, min(BANK, len(patches)))
        self.register_buffer("bank", patches[chosen])
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        n, _, h, w = features.shape
        patches, squares = _cells(features), self.bank.square().sum(dim=1)
        # |a - b|^2 = |a|^2 + (|b|^2 - 2ab): the part in brackets is one matrix product, small
        # enough
        # for the processor's cache.
        nearest = [torch.addmm(squares, part, self.bank.T, alpha=-2).amin(dim=1)
                   for part in patches.split(1024)]
        if not nearest:
            return patches.new_zeros(0).view(n, h, w)
        return (torch.cat(nearest) + patches.square().sum(dim=1)).clamp_min(0).sqrt().view(n, h, w)


class SyntheticAnomalyClassifier(nn.Module):
    """A two-layer perceptron on each cell's features, trained to separate good cells from cells of
    synthetic anomalies; the map is its logit.

    It learns which directions of feature space lead away from normal, where distances weigh all
    directions alike.

    Reference: related are CutPaste (Li et al. 2021), DRAEM (Zavrtanik et al. 2021) and SimpleNet
    (Liu et al. 2023).
    """

    def __init__(self, width: int) -> None:
        """width: channels of the features."""
        super().__init__()
        self.head = _perceptron(width)
        self.history: list[dict[str, float]] = []

    def fit(self, features: torch.Tensor, anomalous: torch.Tensor, masks: torch.Tensor, *,
            seed: int = 0) -> SyntheticAnomalyClassifier:
        """Train on cells of good images and of anomalous ones; a sample of the good cells will do.

        Args:
            features: float32 [N,C,g,g] of good images. anomalous: [M,C,g,g] of synthetic anomalies.
            masks: bool [M,S,S], the pixels changed. A cell is anomalous where most of a 2x2 block
                of pixels is, good where no pixel is, and left out in between.
        """
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("mean", features.mean(dim=(0, 2, 3)))
        self.register_buffer("std", features.std(dim=(0, 2, 3)).clamp_min(DIGIT) + 1e-6)
        blocks = nn.functional.avg_pool2d(masks[:, None].float(), 2)
        coarse = nn.functional.adaptive_max_pool2d(blocks, features.shape[-1]).flatten()
        cells = _cells(anomalous)
        bad, beside = cells[coarse > 0.5], (coarse == 0).nonzero()[:, 0]
        if not len(bad):
            raise InputError("no synthetic anomaly covers most of a 2x2 block of pixels; give a "
                             "larger image_size")
        pick = torch.rand(len(features), features[0, 0].numel(),
                          generator=generator).argsort(dim=1)[:, :GOOD_CELLS]
        by_image = features.permute(0, 2, 3, 1).flatten(1, 2)
        good = by_image[torch.arange(len(features))[:, None], pick].flatten(0, 1)
        order = torch.randperm(len(beside), generator=generator)
        beside = cells[beside[order[:GOOD_PER_ANOMALOUS * len(bad)]]]
        x = (torch.cat([good, beside, bad]) - self.mean).div_(self.std)
        y = torch.cat([torch.zeros(len(good) + len(beside)), torch.ones(len(bad))])
        self.head = _perceptron(x.shape[1])

        def loss_of(index: torch.Tensor) -> torch.Tensor:
            logits = self.head(x[index])[:, 0]
            return nn.functional.binary_cross_entropy_with_logits(logits, y[index])

        self.history = training.one_cycle(self.head.parameters(), loss_of, len(x), epochs=EPOCHS,
                                          batch_size=BATCH, peak=PEAK_LR, seed=seed)
        self.head.eval()
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        n, _, h, w = features.shape
        return self.head((_cells(features) - self.mean).div_(self.std))[:, 0].view(n, h, w)


def position_share(features: torch.Tensor) -> float:
    """The share of the features' variance over good images, float32 [N,C,g,g], that their position
    explains, in [0,1].

    1: every image is alike at a place, so that a detector may expect something of each place; 1/N:
    position says nothing.
    """
    variance, mean = torch.var_mean(features, dim=(0, 2, 3), correction=0)
    between = (features.mean(dim=0) - mean[:, None, None]).square().mean()
    return float(between / variance.mean().clamp_min(1e-12))


def _cells(features: torch.Tensor) -> torch.Tensor:
    """[N,C,g,g] -> [N*g*g,C]."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def _perceptron(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(),
                         nn.Linear(HIDDEN, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(),
                         nn.Linear(HIDDEN, 1))


def _coreset(points: torch.Tensor, count: int) -> torch.Tensor:
    """Greedy k-centre, [P,D] -> int64 [count]: each next point is the farthest from all chosen."""
    chosen = torch.zeros(count, dtype=torch.long)
    squares = points.square().sum(dim=1)
    distance = torch.full((len(points), ), torch.inf)
    for i in range(1, count):
        last = points[chosen[i - 1]]
        distance = torch.minimum(distance, squares - 2 * (points @ last) + last @ last)
        chosen[i] = distance.argmax()
    return chosen
