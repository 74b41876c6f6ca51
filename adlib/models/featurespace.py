"""One run in feature space: fit the detector that a config names on good images, and map pictures
with it."""
from __future__ import annotations

import dataclasses
import typing

import numpy as np
import torch
from torch import nn

from adlib.config import (
    FEATURE_MODELS,
    FITTED_IN_SECONDS,
    PIXEL_MODELS,
    STATISTICS,
    Config,
    InputError,
)
from adlib.data.synthetic import anomalies
from adlib.models import anomaly_maps, detectors, feature_autoencoder, statistics
from adlib.models import backbone as features

TAUGHT_ON = 240  # synthetic anomalies that the taught head is shown
# good images that are looked at for fitting in seconds; a sample of more would say the same, and
# must fit into memory
MOST = 500
FEW = 10  # held-out images below which the fused detector's scales are standard deviations
FOLDS = 5  # of the cross-conformal p-values
# added to the seed: the anomalies it learns from are not those that choices are made with
TEACH_SEED = 1_000_000


class Fused(nn.Module):
    """The sum of the memory's and the taught head's map, each in robust deviations of held-out good
    images' scores (in standard deviations where they are few)."""
    def __init__(self, memory: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList([memory, classifier])
        self.history = classifier.history

    def calibrate(self, features_of_good: torch.Tensor) -> Fused:
        tops = [
            anomaly_maps.reduce(anomaly_maps.smooth(part(features_of_good).numpy()), "top1")
            for part in self.parts
        ]
        centre = [float(np.median(top)) for top in tops]
        self.register_buffer("centre", torch.tensor(centre))
        # Of a few values the median deviation is often next to nothing, and one map would silence
        # the other.
        spread = [
            1.4826 *
            float(np.median(np.abs(top - c))) if len(top) >= FEW else float(top.std(ddof=1))
            for top, c in zip(tops, centre, strict=True)
        ]
        self.register_buffer("spread", torch.tensor(spread).clamp_min(1e-6))
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum((part(x) - c) / s
                   for part, c, s in zip(self.parts, self.centre, self.spread, strict=True))


class Statistic(nn.Module):
    """A model-free baseline: how unusual one number of the image is. Keeps the good images'
    numbers; needs no features."""
    def __init__(self, name: str, good: torch.Tensor) -> None:
        """good: float64 [N], baselines.statistic of the good images."""
        super().__init__()
        self.name = name
        self.register_buffer("good", good)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(
            statistics.distance(statistics.statistic(pictures, self.name),
                                self.good.numpy()))[:, None, None]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A fitted detector with the frozen encoder it looks through. Calling it maps uint8 [N,3,S,S]
    to {"distance": [N,g,g]}."""

    encoder: nn.Module | None
    detector: nn.Module
    config: Config
    history: list[dict]
    # detectors.position_share of the good images it was fitted on
    position_share: float | None = None

    @torch.no_grad()
    def __call__(self, pictures: torch.Tensor) -> dict[str, np.ndarray]:
        parts = []
        if isinstance(self.detector, Statistic):
            return {"distance": self.detector(pictures).numpy()}
        # so that memory does not grow with the number of images
        for batch in pictures.split(features.CHUNK):
            stages = features.extract(self.encoder, batch, self.config)
            if isinstance(self.detector, feature_autoencoder.FrozenAE):
                parts.append(feature_autoencoder.maps(self.detector, stages, batch, self.config))
            else:
                parts.append(self.detector(features.grid(stages, self.config.layers)))
        return {"distance": torch.cat(parts).numpy()}


def backbone(config: Config) -> tuple[nn.Module | None, str]:
    """The frozen encoder and the word on its weights; a statistic has none."""
    return (None, "none (no network)") if config.model in STATISTICS else features.backbone(config)


def fit(encoder: nn.Module | None, pictures: torch.Tensor, kept: torch.Tensor, held: torch.Tensor,
        config: Config) -> Fitted:
    """Fit config.model on pictures[kept] (uint8, good only; a `sample` of many); pictures[held]
    calibrate the fused detector and nothing else.

    Raises InputError for a model that is not one of feature space, and for the fused detector with
    fewer than two images held out.
    """
    if config.model in PIXEL_MODELS:
        raise InputError(
            f"model {config.model!r} reconstructs pixels: use notebooks 02 or 03; here models are "
            f"{', '.join(FEATURE_MODELS + STATISTICS)}")
    good = pictures[sample(kept, config)]
    if config.model in STATISTICS:
        return Fitted(
            None, Statistic(config.model, torch.from_numpy(statistics.statistic(
                good, config.model))), config, [])
    if config.model not in FITTED_IN_SECONDS:
        model, history = feature_autoencoder.fit(features.extract(encoder, good, config), good,
                                                 config)
        return Fitted(encoder, model, config, history)
    seen = _grid(encoder, good, config)
    detector = _detector(seen, _lesson(encoder, good, config), config)
    if isinstance(detector, Fused):
        if len(held) < 2:
            raise InputError(
                f"the fused detector puts its maps on one scale by held-out good images, and "
                f"{len(held)} of {len(pictures)} "
                "are too few; give a larger held_out, such as 0.2")
        with torch.no_grad():
            detector.calibrate(_grid(encoder, pictures[sample(held, config)], config))
    return Fitted(encoder, detector, config, getattr(detector, "history", []),
                  detectors.position_share(seen))


def restore(encoder: nn.Module | None, state: dict[str, torch.Tensor], config: Config) -> Fitted:
    """A fitted detector again from its state_dict (Fitted.detector's), looking through the same
    encoder: the same maps, bit for bit.

    Raises KeyError or RuntimeError for a state of another model.
    """
    if config.model in STATISTICS:
        detector: nn.Module = Statistic(config.model, state["good"])
    elif config.model not in FITTED_IN_SECONDS:
        detector = feature_autoencoder.FrozenAE(config.model).to(memory_format=torch.channels_last)
        detector.load_state_dict(state)
    elif config.model == "fused":
        detector = Fused(*(detectors.restore(
            name, {
                key.removeprefix(f"parts.{i}."): tensor
                for key, tensor in state.items() if key.startswith(f"parts.{i}.")
            }) for i, name in enumerate(("memory", "classifier"))))
        for name in ("centre", "spread"):
            detector.register_buffer(name, state[name])
    else:
        detector = detectors.restore(config.model, state)
    return Fitted(encoder, detector.eval(), config, [])


def sample(kept: torch.Tensor, config: Config) -> torch.Tensor:
    """The indices that a detector is fitted (or put on a scale) on: all of `kept`, or MOST of them,
    drawn by the seed, for those that are fitted in seconds."""
    if config.model not in FITTED_IN_SECONDS or len(kept) <= MOST:
        return kept
    return kept[torch.randperm(len(kept), generator=torch.Generator().manual_seed(
        config.seed))[:MOST].sort().values]


def cross_maps(
    fitted: Fitted, pictures: torch.Tensor, kept: torch.Tensor,
    others: typing.Sequence[torch.Tensor],
    folds: typing.Sequence[tuple[np.ndarray,
                                 np.ndarray]]) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """For every fold (fit indices, held indices) of the good `pictures`: maps of the held ones, and
    of each set of `others`, by a detector of the same kind that was fitted on the rest.

    Synthetic anomalies that have anything of a held image are left out of its lesson. The fused
    detector's two scales are those of `fitted`.
    """
    config, encoder = fitted.config, fitted.encoder
    known, grids = _grid(encoder, pictures,
                         config), [_grid(encoder, other, config) for other in others]
    lesson, found = _lesson(encoder, pictures[kept], config), []
    for rest, held in folds:
        part = lesson
        if lesson is not None:
            made_of = kept.numpy()[anomalies.sources(TAUGHT_ON, len(kept),
                                                     seed=TEACH_SEED + config.seed)]
            unseen = torch.from_numpy(~np.isin(made_of, held).any(axis=1))
            part = tuple(tensor[unseen] for tensor in lesson)
        detector = _detector(known[rest], part, config)
        if isinstance(detector, Fused):
            detector.centre, detector.spread = fitted.detector.centre, fitted.detector.spread
        with torch.no_grad():
            found.append((detector(
                known[held]).numpy(), [detector(other).numpy() for other in grids]))
    return found


def _grid(encoder: nn.Module, pictures: torch.Tensor, config: Config) -> torch.Tensor:
    return features.grid(features.extract(encoder, pictures, config), config.layers)


def _lesson(encoder: nn.Module, good: torch.Tensor,
            config: Config) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What the taught head is shown: features and masks of synthetic anomalies, image i made from
    good image i modulo N."""
    if config.model not in ("classifier", "fused"):
        return None
    changed, masks, _ = anomalies.insert(good, TAUGHT_ON, seed=TEACH_SEED + config.seed,
                                         kinds=config.kinds.replace(" ", "").split(","))
    return _grid(encoder, changed, config), masks


def _detector(good: torch.Tensor, lesson: tuple[torch.Tensor, torch.Tensor] | None,
              config: Config) -> nn.Module:
    """A detector that takes seconds to fit, fitted on the features of good images (and, where it is
    classifier, on its lesson)."""
    if lesson is None:
        detector = detectors.CLOSED_FORM[config.model]()
        return detector.fit(good,
                            config.seed) if config.model in detectors.RANDOM else detector.fit(good)
    taught = detectors.Taught().fit(good, *lesson, seed=config.seed)
    return taught if config.model == "classifier" else Fused(
        detectors.Memory().fit(good, config.seed), taught)
