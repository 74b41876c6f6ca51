"""One run in feature space: fit the detector that a config names on good images, and map pictures with it."""
from __future__ import annotations

import dataclasses
import typing

import numpy as np
import torch
from torch import nn

from adlib import anomalies, baselines, detectors, features, frozen_ae, score
from adlib.config import STATISTICS, Config, InputError

TAUGHT_ON = 480  # synthetic anomalies that the taught head is shown
FOLDS = 5  # of the cross-conformal p-values
TEACH_SEED = 1_000_000  # added to the seed: the anomalies it learns from are not those that choices are made with


class Fused(nn.Module):
    """The sum of the memory's and the taught head's map, each in robust deviations of held-out good images' scores."""

    def __init__(self, memory: nn.Module, taught: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList([memory, taught])
        self.history = taught.history

    def calibrate(self, features_of_good: torch.Tensor) -> Fused:
        tops = [score.reduce(score.smooth(part(features_of_good).numpy()), "top1") for part in self.parts]
        centre = [float(np.median(top)) for top in tops]
        self.register_buffer("centre", torch.tensor(centre))
        self.register_buffer("spread", torch.tensor([max(1.4826 * float(np.median(np.abs(top - c))), 1e-6)
                                                     for top, c in zip(tops, centre, strict=True)]))
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum((part(x) - c) / s for part, c, s in zip(self.parts, self.centre, self.spread, strict=True))


class Statistic(nn.Module):
    """A model-free baseline: how unusual one number of the image is. Keeps the good images' numbers; needs no features."""

    def __init__(self, name: str, good: torch.Tensor) -> None:
        super().__init__()
        self.name = name
        self.register_buffer("good", torch.from_numpy(baselines.statistic(good, name)))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(baselines.distance(baselines.statistic(pictures, self.name), self.good.numpy()))[:, None, None]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A fitted detector with the frozen encoder it looks through. Calling it maps uint8 [N,3,S,S] to {"distance": [N,g,g]}."""

    encoder: nn.Module | None
    detector: nn.Module
    config: Config
    history: list[dict]

    @torch.no_grad()
    def __call__(self, pictures: torch.Tensor) -> dict[str, np.ndarray]:
        parts = []
        if isinstance(self.detector, Statistic):
            return {"distance": self.detector(pictures).numpy()}
        for batch in pictures.split(64):  # so that memory does not grow with the number of images
            stages = features.extract(self.encoder, batch, self.config)
            if isinstance(self.detector, frozen_ae.FrozenAE):
                parts.append(frozen_ae.maps(self.detector, stages, batch, self.config))
            else:
                parts.append(self.detector(features.grid(stages, self.config.layers)))
        return {"distance": torch.cat(parts).numpy()}


def backbone(config: Config) -> tuple[nn.Module | None, str]:
    """The frozen encoder and the word on its weights; a statistic has none."""
    return (None, "none (no network)") if config.model in STATISTICS else features.backbone(config)


def fit(encoder: nn.Module | None, pictures: torch.Tensor, kept: torch.Tensor, held: torch.Tensor, config: Config) -> Fitted:
    """Fit config.model on pictures[kept] (uint8, good only); pictures[held] calibrate the fused detector and nothing else.

    Raises InputError where the fused detector is asked for and nothing is held out.
    """
    good = pictures[kept]
    if config.model in STATISTICS:
        return Fitted(None, Statistic(config.model, good), config, [])
    stages = features.extract(encoder, good, config)
    if config.model in ("to_pixels", "to_features"):
        model, history = frozen_ae.fit(stages, good, config)
        return Fitted(encoder, model, config, history)
    grid = features.grid(stages, config.layers)
    if config.model in detectors.CLOSED_FORM:
        return Fitted(encoder, detectors.CLOSED_FORM[config.model]().fit(grid), config, [])
    changed, masks, _ = anomalies.insert(good, TAUGHT_ON, seed=TEACH_SEED + config.seed, kinds=config.kinds.replace(" ", "").split(","))
    shown = features.grid(features.extract(encoder, changed, config), config.layers)
    taught = detectors.Taught().fit(grid, shown, masks, seed=config.seed)
    if config.model == "taught":
        return Fitted(encoder, taught, config, taught.history)
    if not len(held):
        raise InputError("the fused detector puts its two maps on one scale by held-out good images; give held_out above 0, such as 0.1")
    fused = Fused(detectors.Memory().fit(grid, config.seed), taught)
    with torch.no_grad():
        fused.calibrate(features.grid(features.extract(encoder, pictures[held], config), config.layers))
    return Fitted(encoder, fused, config, taught.history)


def cross_maps(encoder: nn.Module, pictures: torch.Tensor, others: typing.Sequence[torch.Tensor],
               folds: typing.Sequence[tuple[np.ndarray, np.ndarray]], config: Config) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """For every fold (fit indices, held indices) of the good `pictures`: maps of the held ones, and of each set of `others`,
    by a detector that was fitted on the rest. For the closed-form detectors, which take seconds to fit."""
    known = features.grid(features.extract(encoder, pictures, config), config.layers)
    grids = [features.grid(features.extract(encoder, other, config), config.layers) for other in others]
    found = []
    with torch.no_grad():
        for rest, held in folds:
            detector = detectors.CLOSED_FORM[config.model]().fit(known[rest])
            found.append((detector(known[held]).numpy(), [detector(other).numpy() for other in grids]))
    return found
