"""A finished run's detector again, from its folder alone: what predicts, is explored, and is taken
to its limits."""
from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import nn

from adlib.config import PIXEL_MODELS, Config, InputError
from adlib.evaluation import calibration, conformal
from adlib.models import anomaly_maps, autoencoders, featurespace
from adlib.runs import run_folder


@dataclasses.dataclass(frozen=True)
class Detector:
    """A finished run's detector, with the score, the scales and the good images' scores it decided
    on without labels."""

    config: Config
    scorer: anomaly_maps.Scorer
    score: str
    scale: dict[str, tuple[float, float]]
    # float64 [n]: scores of good images that it was not fitted on; empty where none were held out
    calibration: np.ndarray
    low: float  # of its maps on good images: decide.Decided
    level: float
    network: nn.Module | None = None  # of an autoencoder's run: what reconstructs

    @property
    def threshold(self) -> float:
        """An image is called anomalous above it; inf where the calibration images cannot support
        the asked false-alarm rate."""
        return conformal.threshold(self.calibration, self.config.target_fpr)

    def scores(self, pictures: torch.Tensor) -> np.ndarray:
        """uint8 [N,3,S,S] -> float64 [N], higher = more anomalous."""
        return calibration.tables(self.scorer, pictures, self.scale)[self.score].to_numpy()

    def score_with_maps(self, pictures: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The scores, and the smoothed maps float32 [N,S,S] of them, in one go."""
        table, maps = calibration.score_with_maps(self.scorer, pictures, self.score, self.scale)
        return table[self.score].to_numpy(), maps


def detector(run: Path, weights: str = "") -> Detector:
    """The detector of a finished run; no image of it is needed. weights: where a ResNet18's are
    now; empty = where the run found them.

    Raises InputError for a run that has not finished, that an older version made, or that was made
    with other weights.
    """
    status = run_folder.status(run)
    if status.state != "finished":
        raise InputError(f"{run} holds no finished run ({status.state}: {status.reason}); run its "
                         f"configuration first")
    about, measured = run_folder.manifest(run), run_folder.metrics(run)
    config = run_folder.config_of(run)
    if "maps" not in measured:
        raise InputError(
            f"{run} was made by an older version of adlib; run its configuration again first")
    try:
        state = torch.load(run / "model.pt", weights_only=True, map_location="cpu")
        if config.model in PIXEL_MODELS:
            network, _ = autoencoders.build(dataclasses.replace(config, weights="none"))
            network.load_state_dict(state)
            scorer = anomaly_maps.autoencoder_scorer(network.eval(), config)
        else:
            network, scorer = None, featurespace.restore(
                _encoder(run, config, about["weights"], weights), state, config)
    except InputError:
        raise
    # a damaged file can raise anything: UnpicklingError, KeyError, RuntimeError, ...
    except Exception as error:
        why = f"{type(error).__name__}: {str(error)[:80]}".splitlines()[0]
        raise InputError(
            f"{run / 'model.pt'} cannot be read ({why}); run its configuration again with --force"
        ) from error
    maps = measured["maps"]
    return Detector(config, scorer, measured["chosen"]["score"],
                    {name: tuple(pair)
                     for name, pair in maps["scale"].items()},
                    np.array(measured["calibration"]["scores"],
                             float), maps["low"], maps["level"], network)


def _encoder(run: Path, config: Config, before: str, weights: str) -> nn.Module | None:
    encoder, now = featurespace.backbone(
        dataclasses.replace(config, weights=weights) if weights else config)
    if _hash(now) != _hash(before):
        raise InputError(
            f"{run} was made with other weights ({before}; now: {now}); give the same ones, or "
            f"run its configuration again")
    return encoder


def _hash(word: str) -> str:
    """What tells two weights apart: where a file lies does not."""
    return "RANDOM" if word.startswith("RANDOM") else word.partition("sha256:")[2] or word
