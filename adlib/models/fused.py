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
from adlib.models.detector import Fold
from adlib.models.detectors import Counts, Views

SYNTHETIC = 240  # anomalies that the classifier is trained with
VIEWS = 200  # mirrored and turned good images that the memory has patches of, too
MOST = 500  # good images that are looked at: a sample of more would say the same, and fill memory
TRAINING_SEED = 1_000_000  # added: it is not trained with the anomalies that choices are made with
CLOSED_FORM = {"pca": detectors.PCAResidual, "gaussian": detectors.GaussianPerPosition,
               "gaussian_anywhere": detectors.GaussianAnywhere, "memory": detectors.Memory}
# features [M,C,g,g], masks [M,S,S], and which of the good images each is made of, int64 [M,2]
Synthetic = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Fused(nn.Module):
    """The sum of the memory's and the classifier's map, each in deviations of validation images'
    scores; one search for the nearest good cells gives both."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.classifier = detectors.SyntheticAnomalyClassifier(width)
        self.register_buffer("centre", torch.zeros(2))
        self.register_buffer("spread", torch.ones(2))

    @property
    def history(self) -> list[dict[str, float]]:
        return self.classifier.history

    def fit(self, *learned: torch.Tensor | Views, seed: int, counts: Counts = None) -> Fused:
        """As the classifier."""
        self.classifier.fit(*learned, seed=seed, counts=counts)
        return self

    @torch.no_grad()
    def scale(self, features: torch.Tensor, area: torch.Tensor | None = None) -> Fused:
        """Put both maps on one scale by the features of good images it was not fitted on. area:
        which of their pixels count, bool [N,S,S]."""
        view = anomaly_maps.View(area)
        tops = torch.stack([
            torch.from_numpy(anomaly_maps.reduce(anomaly_maps.smooth(values.numpy(), view), "top1",
                                                 view))
            for values in self.classifier.both(features)]).float()
        self.centre, self.spread = tops.mean(dim=1), tops.std(dim=1).clamp_min(detectors.DIGIT)
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return sum((values - c) / s for values, c, s in zip(
            self.classifier.both(features), self.centre, self.spread, strict=True))


class FeatureDetector(OnBackbone):
    """A closed form, a memory, a classifier or their fusion on the backbone's features, as
    config.model says. Its one map is `distance`, [N,S/8,S/8]."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.head = self._new_head()

    def fit(self, images: torch.Tensor, validation: torch.Tensor | None = None, *,
            area: torch.Tensor | None = None, validation_area: torch.Tensor | None = None
            ) -> FeatureDetector:
        """As Detector.fit. `fused` needs at least two validation images, else InputError."""
        held = 0 if validation is None else len(validation)
        if self.config.model == "fused" and held < 2:
            raise InputError(
                "the fused detector puts its maps on one scale by held-out good images, and "
                f"{held} of {held + len(images)} are too few; give a larger held_out, such as 0.2")
        good, area = (_chosen(one, self._sample(len(images))) for one in (images, area))
        features = self.features(good)
        counts = self._counts(area)
        self.head = self._fit_head(features, self._synthetic(good, area), self._views(good, area),
                                   counts)
        if isinstance(self.head, Fused):
            held_out, its_area = (_chosen(one, self._sample(held))
                                  for one in (validation, validation_area))
            self.head.scale(self.features(held_out), its_area)
        self.history = getattr(self.head, "history", [])
        self.position_share = detectors.position_share(features, counts)
        return self

    @torch.no_grad()
    def anomaly_maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.head.eval()
        # In chunks, so that memory does not grow with the number of images.
        return {"distance": torch.cat([self.head(self.features(chunk))
                                       for chunk in images.split(backbone.CHUNK)])}

    def cross_fitted_maps(self, good: torch.Tensor, fitted_on: torch.Tensor, folds: typing.Sequence[
            Fold], area: torch.Tensor | None = None
            ) -> typing.Iterator[dict[str, torch.Tensor]] | None:
        """As Detector.cross_fitted_maps; None for more than MOST images.

        Synthetic anomalies that have anything of a held image are left out of that fold's training.
        The fused detector's two scales stay.
        """
        return None if len(good) > MOST else self._cross_fit(good, fitted_on, folds, area)

    @torch.no_grad()
    def _cross_fit(self, *given: typing.Any) -> typing.Iterator[dict[str, torch.Tensor]]:
        for head, features in self.refitted(*given):
            yield {"distance": head(features)}

    @torch.no_grad()
    def refitted(self, good: torch.Tensor, fitted_on: torch.Tensor, folds: typing.Sequence[Fold],
                 area: torch.Tensor | None = None
                 ) -> typing.Iterator[tuple[nn.Module, torch.Tensor]]:
        """For each fold a head fitted on the rest, and the features of the held images."""
        features, views = self.features(good), self._views(good, area)
        counts = self._counts(area)
        synthetic = self._synthetic(good[fitted_on], _chosen(area, fitted_on))
        for rest, held in folds:
            with torch.enable_grad():
                head = self._fit_head(
                    features[rest], synthetic and _of(
                        rest, *synthetic[:2], fitted_on[synthetic[2]]), views and _of(rest, *views),
                    _chosen(counts, rest))
            if isinstance(head, Fused):
                head.centre, head.spread = self.head.centre, self.head.spread
            yield head, features[held]

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [N,3,S,S] -> float32 [N,C,S/8,S/8]."""
        return backbone.grid(self.stages(images), self.config.layers)

    def _counts(self, area: torch.Tensor | None) -> Counts:
        """Which cells count: bool [N,S,S] -> [N,S/8,S/8]."""
        return None if area is None else anomaly_maps.counted(
            area, [side // backbone.STRIDES[1] for side in area.shape[-2:]])

    def _sample(self, n: int) -> torch.Tensor:
        """All indices of n images, or MOST of them, drawn by the seed."""
        if n <= MOST:
            return torch.arange(n)
        generator = torch.Generator().manual_seed(self.config.seed)
        return torch.randperm(n, generator=generator)[:MOST].sort().values

    def _synthetic(self, good: torch.Tensor,
                   area: torch.Tensor | None = None) -> Synthetic | None:
        """What the classifier is trained with: image i is made from good image i modulo N."""
        if self.config.model not in ("classifier", "fused"):
            return None
        seed = TRAINING_SEED + self.config.seed
        changed, masks, _ = anomalies.insert(good, SYNTHETIC, seed=seed, area=area,
                                             kinds=self.config.kinds.replace(" ", "").split(","))
        return (self.features(changed), masks,
                torch.from_numpy(anomalies.sources(SYNTHETIC, len(good), seed=seed)))

    def _views(self, good: torch.Tensor, area: torch.Tensor | None = None) -> Views | None:
        """Random cells of good images, each image in up to seven of the other positions that a
        mirror and quarter turns can bring it to."""
        if self.config.model not in ("memory", "classifier", "fused"):
            return None
        generator = torch.Generator().manual_seed(self.config.seed)
        drawn = torch.randperm(7 * len(good), generator=generator)[:VIEWS].sort().values
        cells, of = [], []
        for chunk in drawn.split(backbone.CHUNK):
            turned = torch.stack([_turned(good[one % len(good)], one // len(good) + 1)
                                  for one in chunk.tolist()])
            found = self.features(turned).flatten(2)
            for one, number in zip(found, chunk.tolist(), strict=True):
                image, position = number % len(good), number // len(good) + 1
                if area is not None:
                    seen = self._counts(_turned(area[image], position)[None])
                    one = one[:, seen.flatten()]
                count = min(one.shape[1], detectors.POOL // len(drawn))
                chosen = torch.randperm(one.shape[1], generator=generator)[:count]
                cells.append(one[:, chosen].T)
                of.append(torch.full((count, ), image))
        return torch.cat(cells), torch.cat(of)

    def _new_head(self) -> nn.Module:
        if self.config.model in CLOSED_FORM:
            return CLOSED_FORM[self.config.model]()
        width = backbone.width(self.config.layers)
        fused = self.config.model == "fused"
        return Fused(width) if fused else detectors.SyntheticAnomalyClassifier(width)

    def _fit_head(self, good: torch.Tensor, synthetic: Synthetic | None,
                  views: Views | None, counts: Counts) -> nn.Module:
        head, seed = self._new_head(), self.config.seed
        if views is None:
            return head.fit(good, seed, counts=counts)
        if synthetic is None:
            return head.fit(good, seed, views, counts=counts)
        return head.fit(good, *synthetic, views, seed=seed, counts=counts)


def _chosen(images: torch.Tensor | None, index: torch.Tensor | np.ndarray) -> torch.Tensor | None:
    return None if images is None else images[index]


def _turned(image: torch.Tensor, position: int) -> torch.Tensor:
    """[...,S,S] in one of the eight positions, 0 to 7, that mirrors and quarter turns lead to."""
    image = image.flip(-1) if position & 1 else image
    image = image.flip(-2) if position & 2 else image
    return image.mT if position & 4 else image


def _of(rest: np.ndarray, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What is made of the images `rest` alone. The last tensor, int64 [M] or [M,K], has the images
    that each entry is of, and then their places in `rest`."""
    *others, image = tensors
    places = torch.from_numpy(rest)
    kept = torch.isin(image, places).reshape(len(image), -1).all(dim=1)
    return *(one[kept] for one in others), torch.searchsorted(places, image[kept])
