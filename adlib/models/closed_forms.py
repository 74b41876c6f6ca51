"""Detectors on frozen features that are fitted by a formula.

Each is fitted on the features of good images, float32 [N,C,g,g] (backbone.grid), those cells of
them that count, and maps such features to [N,g,g], higher = more anomalous.
"""
from __future__ import annotations

import torch
from torch import nn

COMPONENTS = 96  # of the linear autoencoder
DIMENSIONS, RIDGE = 100, 0.01  # of the Gaussian: random dimensions (PaDiM); on its diagonal
Counts = torch.Tensor | None  # bool [N,g,g]: which cells of the good images count; None = all


class PCAResidual(nn.Module):
    """The closed-form linear autoencoder: squared distance of a cell's features to the span of the
    leading components.

    Reference: the optimum of a linear autoencoder with squared loss is PCA (Baldi and Hornik 1989);
    as a detector it is DFM (Ahuja et al. 2019).
    """

    def fit(self, features: torch.Tensor, seed: int = 0, counts: Counts = None) -> PCAResidual:
        x = cells_of(features, counts)
        self.register_buffer("mean", x.mean(dim=0))
        x = x - self.mean
        # float32 mixes directions that vary little, by which distances were off by a tenth, and
        # came to NaN where pictures are alike (torch 2.14.1 on an EPYC, one thread)
        _, vectors = torch.linalg.eigh((x.T @ x / len(x)).double())
        kept = min(COMPONENTS, x.shape[1] - 1)
        self.register_buffer("components", vectors[:, -kept:].to(x.dtype).contiguous())
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = features.permute(0, 2, 3, 1) - self.mean
        return (x - (x @ self.components) @ self.components.T).square().sum(dim=-1)


class GaussianPerPosition(nn.Module):
    """Mahalanobis distance to a Gaussian of each grid position, for aligned parts.

    Reference: PaDiM (Defard et al., ICPR 2020).
    """

    def fit(self, features: torch.Tensor, seed: int = 0,
            counts: Counts = None) -> GaussianPerPosition:
        order = torch.randperm(features.shape[1], generator=torch.Generator().manual_seed(seed))
        self.register_buffer("chosen", order[:DIMENSIONS].sort().values)
        x = features[:, self.chosen].permute(2, 3, 0, 1).flatten(0, 1)  # (positions, N, D)
        if counts is None:
            mean = x.mean(dim=1, keepdim=True)
            x = x - mean
            covariance = x.mT @ x / max(1, x.shape[1] - 1)
        else:  # a position where no good image has anything takes what all positions have
            weights = counts.permute(1, 2, 0).flatten(0, 1)[..., None].float()
            n = weights.sum(dim=1, keepdim=True)
            sums = (x * weights).sum(dim=1, keepdim=True)
            mean = torch.where(n > 0, sums / n.clamp_min(1), sums.sum(dim=0) / n.sum())
            x = (x - mean) * weights
            products = x.mT @ x
            covariance = torch.where(n > 1, products / (n - 1).clamp_min(1),
                                     products.sum(dim=0) / n.sum())
        self.register_buffer("mean", mean)
        covariance = covariance + RIDGE * torch.eye(x.shape[2])
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

    def fit(self, features: torch.Tensor, seed: int = 0, counts: Counts = None) -> GaussianAnywhere:
        x = cells_of(features, counts)
        self.register_buffer("mean", x.mean(dim=0))
        x = x - self.mean
        covariance = x.T @ x / len(x) + RIDGE * torch.eye(x.shape[1])
        self.register_buffer("whiten", torch.linalg.inv(torch.linalg.cholesky(covariance)))
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return ((features.permute(0, 2, 3, 1) - self.mean) @ self.whiten.T).norm(dim=-1)


def cells_of(features: torch.Tensor, counts: Counts = None) -> torch.Tensor:
    """[N,C,g,g] -> those cells that count, [P,C]."""
    cells = features.permute(0, 2, 3, 1).flatten(0, 2)
    return cells if counts is None else cells[counts.flatten()]
