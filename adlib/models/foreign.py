"""Is this a picture of the part at all? How far a whole picture lies from the good ones, whatever
detector looks for defects in it.

An anomaly map compares patches with patches, and an empty fixture has only good ones. Here a
picture is one vector: the means and deviations of a frozen ResNet18's layer2 and layer3 over it,
the means of its quarters, and the deviation of its grey values; the distance is Mahalanobis to all
good pictures, with a ridge. The finer layer tells light, colour and sharpness, the deeper one what
is there and where; it has twice the features, and each counts for half.
"""
from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import nn

from adlib.config import MODELS, Config, log
from adlib.data import images as pictures
from adlib.models import backbone
from adlib.models.fast.device import placed

SIDE = 128  # pixels that it looks at, or up to twice as many: larger pictures are averaged down
RIDGE = 1.0  # on the covariance of features of (about) unit variance
FLOOR = 0.1  # of the mean deviation, is added to each: a feature that hardly varies counts for less
DEEPER = 0.5  # what a feature of layer3 counts for
FEWEST = 10  # fewer say nothing of how good pictures vary
EMPTY = 0.5  # of the detail of the good picture with the least: a broken part still has more


class Foreign(nn.Module):
    """The distance of a picture from the good ones, higher = less like the part.

    Its state dict is the whole of it: the network, the good pictures' statistics, and
    `calibration`, float64 [n]: the distance of each good picture from all others, leave-one-out.
    Since it was fitted, also `own`, float64 [n], their distances with all left in, and `of`, which
    picture each is of, int64 [n].

    Reference: a Gaussian of global features is Rippel, Mertens and Merhof (ICPR 2020); the ridge is
        Ledoit and Wolf's shrinkage (2004) with a fixed weight.
    """

    keeps_features = True  # on disk, as the backbone's

    def __init__(self, config: Config) -> None:
        """The ResNet18 has the run's pretrained weights; random ones, as `weights` then says, where
        the run has none, or where a detector of one's own names none that can be had.

        Raises:
            InputError: where weights cannot be had or do not fit.
        """
        super().__init__()
        weights = config.weights if config.uses_weights else "none"
        self.config = dataclasses.replace(
            config, model="resnet18", weights=weights, precision="float32", device="cpu",
            weights_fallback=config.weights_fallback or config.model not in MODELS)
        with torch.random.fork_rng(devices=[]):  # random weights are the run's own, too
            network, word = backbone.load_backbone(self.config)
        self.weights = "random:unasked" if weights == "none" else word
        if weights != "none" and word.startswith("random"):
            log.warning("whether a picture shows the part is told by a ResNet18 of RANDOM weights, "
                        "not ImageNet's (%s); give the run weights: PATH", word)
        self.network = network
        self.register_buffer("set_aside", torch.tensor(0))  # good pictures too unlike the others

    def fit(self, features: torch.Tensor, of: torch.Tensor | None = None) -> Foreign:
        """Fit on what `features` gives of good pictures: float64 [N,D], N > 1. of: int64 [N], the
        same for copies and siblings, which leave-one-out leaves out together; None where there are
        none.
        """
        n, deviation = len(features), features.std(dim=0)
        self.register_buffer("mean", features.mean(dim=0))
        deviation = (deviation + FLOOR * deviation.mean()).clamp_min(1e-6)
        deviation[1 + 6 * backbone.CHANNELS[1]:] /= DEEPER
        self.register_buffer("deviation", deviation)
        z = (features - self.mean) / self.deviation
        values, vectors = torch.linalg.eigh(z @ z.T / n)
        # ||z||^2 - ||basis z||^2 = z' (covariance / ridge + 1)^-1 z, without a D x D matrix.
        self.register_buffer(
            "basis", (vectors / (n * (values.clamp_min(0) + RIDGE)).sqrt()).T @ z)
        apart = of is None or len(of.unique()) == 1
        self.own = self.distances(features)
        self.of = torch.arange(n) if apart else of
        self.register_buffer(
            "calibration", self._left_out() if apart else self._left_out_together(z, of))
        self.register_buffer("least_detail", _detail(features).min())
        return self

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [N,3,S,S] -> float64 [N,D] on the CPU."""
        width = 1 + 6 * sum(backbone.CHANNELS[1:])
        return backbone.remembered(self._compute, "foreign 1", self.network, images, self.config,
                                   (width, np.float64), self.keeps_features)

    @torch.inference_mode()
    def _compute(self, images: torch.Tensor) -> np.ndarray:
        network = placed(backbone.folded(self.network))
        return features_of(network, pictures.to_float(images).contiguous(
            memory_format=torch.channels_last)).numpy()

    def distances(self, features: torch.Tensor) -> torch.Tensor:
        """float64 [N,D] -> float64 [N]."""
        z = (features - self.mean) / self.deviation
        square = z.square().sum(dim=1) - (z @ self.basis.T).square().sum(dim=1)
        return (square / RIDGE).clamp_min(0).sqrt()

    def _left_out(self) -> torch.Tensor:
        """The distances of the pictures that it was fitted on, each from all others."""
        # Without picture i the mean moves by z_i/(n-1), and the scatter loses n/(n-1) z_i z_i':
        # Sherman-Morrison, no refit.
        n, own = len(self.own), self.own.square()
        return n / (n - 1) * (own / (1 - own / (n - 1)).clamp_min(1e-9)).sqrt()

    def _left_out_together(self, z: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
        """As `_left_out`, each from all that are of others: Woodbury, no refit."""
        n, near = len(z), z @ self.basis.T
        products = (z @ z.T - near @ near.T) / RIDGE
        squares = z.new_empty(n)
        for one in of.unique():
            some = (of == one).nonzero()[:, 0]
            m, own = len(some), products[some][:, some]
            eye = torch.eye(m + 1, dtype=z.dtype)
            away = eye[:m, :m] + 1 / (n - m)  # from the mean of the others
            gone = torch.cat([eye[:m, :m], torch.full((1, m), (n - m) ** -0.5, dtype=z.dtype)])
            shared = away @ own @ gone.T
            squares[some] = (away @ own @ away.T + shared @ torch.linalg.solve(
                n * eye - gone @ own @ gone.T, shared.T)).diagonal()
        return squares.clamp_min(0).sqrt()

    def is_empty(self, features: torch.Tensor) -> torch.Tensor:
        """Does it show less than half of the detail of any good picture? bool [N]: of a foreign one
        that says, the part is absent or covered."""
        return _detail(features) < EMPTY * self.least_detail


def features_of(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """float32 [N,3,S,S] in [0,1] -> float64 [N,D], by a frozen ResNet18."""
    x = nn.functional.avg_pool2d(x, max(1, x.shape[-1] // SIDE))
    summaries = [x.mean(dim=1).flatten(1).std(dim=1, keepdim=True)]
    for cells in backbone.stages_of(network, x)[1:]:
        half = cells.shape[-1] // 2
        halves, whole = (slice(half), slice(half, None)), cells.flatten(2)
        summaries += [whole.std(dim=-1), whole.mean(dim=-1)]
        summaries += [cells[:, :, rows, columns].mean(dim=(2, 3)) for rows in halves
                      for columns in halves]
    return torch.cat(summaries, dim=1).double()


def _detail(features: torch.Tensor) -> torch.Tensor:
    """The deviation of the grey values, which `features_of` puts first."""
    return features[:, 0]
