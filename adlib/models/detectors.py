"""Closed-form and memory detectors on frozen features, and the head that is taught by synthetic
anomalies.

Each is fitted on the features of good images, float32 [N,C,g,g] (features.grid), and maps such
features to [N,g,g], higher = more anomalous. What was fitted lies in buffers and parameters, so
that `state_dict` is the whole detector.
"""
from __future__ import annotations

import typing

import torch
from torch import nn

from adlib.config import InputError
from adlib.models import training

COMPONENTS = 96  # of the linear autoencoder
# of the Gaussian: randomly chosen feature dimensions (PaDiM), added to the covariance's diagonal
DIMENSIONS, RIDGE = 100, 0.01
BANK, POOL = 4000, 20000  # patches the memory keeps, and random patches it chooses them from
PROJECTED = 64  # dimensions in which the memory's coreset is chosen
HIDDEN, EPOCHS, PEAK_LR, BATCH = 128, 10, 2e-3, 2048  # of the taught head; a batch is of cells
# cells it sees of each good image, and good ones beside each anomalous one
GOOD_CELLS, GOOD_PER_ANOMALOUS = 256, 2


class PCAResidual(nn.Module):
    """The closed-form linear autoencoder: squared distance of a cell's features to the span of the
    leading components.

    The optimum of a linear autoencoder with squared loss is PCA (Baldi and Hornik 1989); as a
    detector: DFM (Ahuja et al. 2019).
    """
    def fit(self, features: torch.Tensor) -> PCAResidual:
        x = features.permute(0, 2, 3, 1).flatten(0, 2)
        self.register_buffer("mean", x.mean(dim=0))
        x = x - self.mean
        _, vectors = torch.linalg.eigh(x.T @ x / len(x))
        self.register_buffer("components", vectors[:,
                                                   -min(COMPONENTS, x.shape[1] - 1):].contiguous())
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = features.permute(0, 2, 3, 1) - self.mean
        return (x - (x @ self.components) @ self.components.T).square().sum(dim=-1)


class GaussianPerPosition(nn.Module):
    """Mahalanobis distance to a Gaussian of each grid position (PaDiM; Defard et al., ICPR 2020).
    For aligned parts."""
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
    """The same with one Gaussian for all positions and all feature dimensions: for parts that lie
    as they fall."""
    def fit(self, features: torch.Tensor) -> GaussianAnywhere:
        x = features.permute(0, 2, 3, 1).flatten(0, 2)
        self.register_buffer("mean", x.mean(dim=0))
        x = x - self.mean
        self.register_buffer(
            "whiten",
            torch.linalg.inv(
                torch.linalg.cholesky(x.T @ x / len(x) + RIDGE * torch.eye(x.shape[1]))))
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return ((features.permute(0, 2, 3, 1) - self.mean) @ self.whiten.T).norm(dim=-1)


class Memory(nn.Module):
    """Distance of a cell's features to the nearest of a bank of good ones (PatchCore; Roth et al.,
    CVPR 2022).

    The bank is a greedy k-centre coreset of random good patches, chosen in a random projection as
    in the paper. Without the paper's re-weighting of the image score.
    """
    def fit(self, features: torch.Tensor, seed: int = 0) -> Memory:
        generator = torch.Generator().manual_seed(seed)
        patches = features.permute(0, 2, 3, 1).flatten(0, 2)
        patches = patches[torch.randperm(len(patches), generator=generator)[:POOL]]
        projection = torch.randn(patches.shape[1], PROJECTED, generator=generator) / PROJECTED**0.5
        self.register_buffer("bank", patches[_coreset(patches @ projection, min(BANK,
                                                                                len(patches)))])
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        n, _, h, w = features.shape
        patches, squares = features.permute(0, 2, 3, 1).flatten(0, 2), self.bank.square().sum(dim=1)
        # |a - b|^2 = |a|^2 + (|b|^2 - 2ab): the part in brackets is one matrix product, small
        # enough for the processor's cache.
        nearest = [
            torch.addmm(squares, part, self.bank.T, alpha=-2).amin(dim=1)
            for part in patches.split(1024)
        ]
        square = torch.cat(nearest) + patches.square().sum(
            dim=1) if nearest else patches.new_zeros(0)
        return square.clamp_min(0).sqrt().view(n, h, w)


class Taught(nn.Module):
    """A two-layer perceptron on each cell's features, taught to tell good cells from cells of
    synthetic anomalies.

    It learns a direction "away from normal" that real defects share, where distances weigh all
    directions alike. Related: CutPaste (Li et al. 2021), DRAEM (Zavrtanik et al. 2021), SimpleNet
    (Liu et al. 2023). The map is the logit.
    """
    def fit(self, features: torch.Tensor, anomalous: torch.Tensor, masks: torch.Tensor, *,
            seed: int = 0) -> Taught:
        """masks: bool [M,S,S] of the `anomalous` images' changed pixels. A cell is anomalous where
        most of a 2x2 block is; it counts as good where no pixel is, and is left out in between. A
        sample of the good cells serves as well as all of them."""
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("mean", features.mean(dim=(0, 2, 3)))
        self.register_buffer("std", features.std(dim=(0, 2, 3)) + 1e-6)
        coarse = nn.functional.adaptive_max_pool2d(
            nn.functional.avg_pool2d(masks[:, None].float(), 2), features.shape[-1]).flatten()
        cells = anomalous.permute(0, 2, 3, 1).flatten(0, 2)
        bad, beside = cells[coarse > 0.5], (coarse == 0).nonzero()[:, 0]
        if not len(bad):
            raise InputError(
                "no synthetic anomaly covers most of a 2x2 block of pixels; give a larger "
                "image_size")
        pick = torch.rand(len(features), features[0, 0].numel(),
                          generator=generator).argsort(dim=1)[:, :GOOD_CELLS]
        good = features.permute(0, 2, 3, 1).flatten(1, 2)[torch.arange(len(features))[:, None],
                                                          pick].flatten(0, 1)
        beside = cells[beside[torch.randperm(len(beside),
                                             generator=generator)[:GOOD_PER_ANOMALOUS * len(bad)]]]
        x = (torch.cat([good, beside, bad]) - self.mean).div_(self.std)
        y = torch.cat([torch.zeros(len(good) + len(beside)), torch.ones(len(bad))])
        self.head = _head(x.shape[1])

        def loss_of(index: torch.Tensor) -> torch.Tensor:
            return nn.functional.binary_cross_entropy_with_logits(
                self.head(x[index])[:, 0], y[index])

        self.history = training.one_cycle(self.head.parameters(), loss_of, len(x), epochs=EPOCHS,
                                          batch_size=BATCH, peak=PEAK_LR, seed=seed)
        self.head.eval()
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        n, _, h, w = features.shape
        return self.head((features.permute(0, 2, 3, 1).flatten(0, 2) - self.mean).div_(
            self.std))[:, 0].view(n, h, w)


CLOSED_FORM: dict[str, typing.Callable[[], nn.Module]] = {
    "pca": PCAResidual, "gaussian": GaussianPerPosition, "gaussian_anywhere": GaussianAnywhere,
    "memory": Memory
}
RANDOM = ("gaussian", "memory")  # those whose fit draws random numbers, and takes a seed


def position_share(features: torch.Tensor) -> float:
    """The share of the features' variance over good images, float32 [N,C,g,g], that their position
    explains: in [0,1].

    1 = every image is alike at a place, so that a detector may expect something of each place; 1/N
    = position says nothing.
    """
    variance, mean = torch.var_mean(features, dim=(0, 2, 3), correction=0)
    return float((features.mean(dim=0) - mean[:, None, None]).square().mean() /
                 variance.mean().clamp_min(1e-12))


def restore(name: str, state: typing.Mapping[str, torch.Tensor]) -> nn.Module:
    """A fitted detector again from its state_dict; name: a key of CLOSED_FORM, or taught."""
    detector = Taught() if name == "classifier" else CLOSED_FORM[name]()
    for key, tensor in state.items():
        if "." not in key:
            detector.register_buffer(key, tensor)
    if isinstance(detector, Taught):
        detector.head, detector.history = _head(len(state["mean"])), []
    detector.load_state_dict(state)
    return detector.eval()


def _head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(),
                         nn.Linear(HIDDEN, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(),
                         nn.Linear(HIDDEN, 1))


def _coreset(points: torch.Tensor, count: int) -> torch.Tensor:
    """Greedy k-centre: each next point is the farthest from all chosen so far. [P,D] -> int64
    [count]."""
    chosen = torch.zeros(count, dtype=torch.long)
    squares = points.square().sum(dim=1)
    distance = torch.full((len(points), ), torch.inf)
    for i in range(1, count):
        last = points[chosen[i - 1]]
        distance = torch.minimum(distance, squares - 2 * (points @ last) + last @ last)
        chosen[i] = distance.argmax()
    return chosen
