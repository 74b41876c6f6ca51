"""Detectors on frozen features that are fitted in seconds, and the best of them: two maps fused."""
from __future__ import annotations

import typing

import numpy as np
import torch
from torch import nn

from adlib.config import Config, InputError
from adlib.data.synthetic import anomalies
from adlib.models import anomaly_maps, backbone, detectors
from adlib.models.backbone import OnBackbone

SYNTHETIC = 240  # anomalies that the classifier is trained with
MOST = 500  # good images that are looked at: a sample of more would say the same, and fill memory
FEW = 10  # validation images below which the fused scales are standard deviations
TRAINING_SEED = 1_000_000  # added: it is not trained with the anomalies that choices are made with
CLOSED_FORM = {"pca": detectors.PCAResidual, "gaussian": detectors.GaussianPerPosition,
               "gaussian_anywhere": detectors.GaussianAnywhere, "memory": detectors.Memory}
Synthetic = tuple[torch.Tensor, torch.Tensor]  # features [M,C,g,g] and masks [M,S,S]


class Fused(nn.Module):
    """The sum of the memory's and the classifier's map, each in robust deviations of validation
    images' scores (in standard deviations where these are few)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList([detectors.Memory(),
                                    detectors.SyntheticAnomalyClassifier(width)])
        self.register_buffer("centre", torch.zeros(2))
        self.register_buffer("spread", torch.ones(2))

    @property
    def history(self) -> list[dict[str, float]]:
        return self.parts[1].history

    def fit(self, features: torch.Tensor, synthetic: Synthetic, *, seed: int) -> Fused:
        # The classifier comes first: the order in which random numbers are drawn is kept.
        self.parts[1].fit(features, *synthetic, seed=seed)
        self.parts[0].fit(features, seed)
        return self

    def scale(self, features: torch.Tensor) -> Fused:
        """Put both maps on one scale by the features of good images it was not fitted on."""
        tops = [anomaly_maps.reduce(anomaly_maps.smooth(part(features).numpy()), "top1")
                for part in self.parts]
        centre = [float(np.median(top)) for top in tops]
        # Of a few values the median deviation is often next to nothing, and would silence the
        # other.
        spread = [1.4826 * float(np.median(np.abs(top - c))) if len(top) >= FEW else
                  float(top.std(ddof=1)) for top, c in zip(tops, centre, strict=True)]
        self.centre = torch.tensor(centre)
        self.spread = torch.tensor(spread).clamp_min(detectors.DIGIT)
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return sum((part(features) - c) / s
                   for part, c, s in zip(self.parts, self.centre, self.spread, strict=True))


class FeatureDetector(OnBackbone):
    """A closed form, a memory, a classifier or their fusion on the backbone's features, as
    config.model says. Its one map is `distance`, [N,S/8,S/8]."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.head = self._new_head()

    def fit(self, images: torch.Tensor, validation: torch.Tensor | None = None) -> FeatureDetector:
        """As Detector.fit. `fused` needs at least two validation images, else InputError."""
        held = 0 if validation is None else len(validation)
        if self.config.model == "fused" and held < 2:
            raise InputError(
                "the fused detector puts its maps on one scale by held-out good images, and "
                f"{held} of {held + len(images)} are too few; give a larger held_out, such as 0.2")
        good = images[self._sample(len(images))]
        features = self.features(good)
        self.head = self._fit_head(features, self._synthetic(good))
        if isinstance(self.head, Fused):
            with torch.no_grad():
                self.head.scale(self.features(validation[self._sample(held)]))
        self.history = getattr(self.head, "history", [])
        self.position_share = detectors.position_share(features)
        return self

    @torch.no_grad()
    def anomaly_maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.head.eval()
        # In chunks, so that memory does not grow with the number of images.
        return {"distance": torch.cat([self.head(self.features(chunk))
                                       for chunk in images.split(backbone.CHUNK)])}

    def cross_fitted_maps(self, good: torch.Tensor, fitted_on: torch.Tensor, folds: typing.Sequence[
            tuple[np.ndarray, np.ndarray]]) -> typing.Iterator[dict[str, torch.Tensor]] | None:
        """As Detector.cross_fitted_maps; None for more than MOST images.

        Synthetic anomalies that have anything of a held image are left out of that fold's training.
        The fused detector's two scales stay.
        """
        return None if len(good) > MOST else self._cross_fit(good, fitted_on, folds)

    @torch.no_grad()
    def _cross_fit(self, good: torch.Tensor, fitted_on: torch.Tensor, folds: typing.Sequence[
            tuple[np.ndarray, np.ndarray]]) -> typing.Iterator[dict[str, torch.Tensor]]:
        features, synthetic = self.features(good), self._synthetic(good[fitted_on])
        made_of = fitted_on.numpy()[anomalies.sources(
            SYNTHETIC, len(fitted_on), seed=TRAINING_SEED + self.config.seed)]
        for rest, held in folds:
            unseen = torch.from_numpy(~np.isin(made_of, held).any(axis=1))
            part = synthetic and tuple(tensor[unseen] for tensor in synthetic)
            with torch.enable_grad():
                head = self._fit_head(features[rest], part)
            if isinstance(head, Fused):
                head.centre, head.spread = self.head.centre, self.head.spread
            yield {"distance": head(features[held])}

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [N,3,S,S] -> float32 [N,C,S/8,S/8]."""
        return backbone.grid(self.stages(images), self.config.layers)

    def _sample(self, n: int) -> torch.Tensor:
        """All indices of n images, or MOST of them, drawn by the seed."""
        if n <= MOST:
            return torch.arange(n)
        generator = torch.Generator().manual_seed(self.config.seed)
        return torch.randperm(n, generator=generator)[:MOST].sort().values

    def _synthetic(self, good: torch.Tensor) -> Synthetic | None:
        """What the classifier is trained with: image i is made from good image i modulo N."""
        if self.config.model not in ("classifier", "fused"):
            return None
        changed, masks, _ = anomalies.insert(good, SYNTHETIC, seed=TRAINING_SEED + self.config.seed,
                                             kinds=self.config.kinds.replace(" ", "").split(","))
        return self.features(changed), masks

    def _new_head(self) -> nn.Module:
        if self.config.model in CLOSED_FORM:
            return CLOSED_FORM[self.config.model]()
        width = backbone.width(self.config.layers)
        fused = self.config.model == "fused"
        return Fused(width) if fused else detectors.SyntheticAnomalyClassifier(width)

    def _fit_head(self, good: torch.Tensor, synthetic: Synthetic | None) -> nn.Module:
        head, seed = self._new_head(), self.config.seed
        if isinstance(head, Fused):
            return head.fit(good, synthetic, seed=seed)
        return head.fit(good, seed) if synthetic is None else head.fit(good, *synthetic, seed=seed)
