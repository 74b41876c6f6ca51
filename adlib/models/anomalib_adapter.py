"""anomalib's models behind this study's protocol: `model: anomalib:Patchcore` in a configuration.

They are what anomalib makes of them, with its defaults, its own normalisation of the images and its
own smoothing of the maps, on the same images and the same ResNet18 weights as the study's
detectors: rows for the same table. Their fit is timed as theirs.

Fitting is anomalib's public LightningModule under Lightning's own Trainer, with the module's
`trainer_arguments`, over images in memory. `anomalib.engine.Engine` is that Trainer plus what a run
has here already (a folder of results, checkpoints, metrics that read labels), fed from a data set
on disk; calling the parts of each model by hand would copy a training loop for each of them.

Nothing is downloaded by anomalib: its backbones are built without weights and get the study's.
"""
from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import io
import logging
import time
import types
import typing
import warnings
from unittest import mock

import torch
from torch import nn

from adlib.config import Config, InputError, did_you_mean
from adlib.models import backbone, training

MAP = "distance"  # the one map they have, named as that of the study's feature detectors
TRAIN_BATCH, BATCH = 32, 8  # anomalib's own; images scored at once, as in models.backbone
# arguments of anomalib's constructors that are no options: they are given here
GIVEN = ("pre_trained", "pre_processor", "post_processor", "evaluator", "visualizer")

# name of the model -> where its frozen backbone is, within `module.model`
MODELS = {
    "Patchcore": "feature_extractor.feature_extractor",  # Roth et al., CVPR 2022
    "Padim": "feature_extractor.feature_extractor",  # Defard et al., ICPR 2020
    "Dfm": "feature_extractor.feature_extractor",  # Ahuja et al. 2019
    "Stfpm": "teacher_model.feature_extractor",  # Wang et al., BMVC 2021
    "Fastflow": "feature_extractor",  # Yu et al. 2021
    "ReverseDistillation": "encoder.feature_extractor",  # Deng and Li, CVPR 2022
    "Fre": "feature_extractor.feature_extractor",  # Ndiour et al., BMVC 2023
    "Supersimplenet": "feature_extractor.feature_extractor.feature_extractor",  # Rolih et al. 2024
}


def build(name: str, config: Config) -> AnomalibDetector:
    """The detector of `model: anomalib:NAME`, not yet fitted.

    Args:
        name: a key of MODELS, with or without the "anomalib:".
        config: of which image_size, weights, seed and device hold, and epochs for the models that
            train; batch size (32), optimiser and its rate are anomalib's. config.options go to
            anomalib's constructor, such as {"coreset_sampling_ratio": 0.01}.

    Raises:
        InputError: anomalib is not installed, the model or an option is unknown, or the weights
            cannot be had or do not fit.
    """
    name = name.removeprefix("anomalib:")
    if name not in MODELS:
        raise InputError(f"model anomalib:{name} is none of the models of anomalib that run here"
                         f"{did_you_mean(name, MODELS)} (here: {', '.join(MODELS)})")
    return AnomalibDetector(name, config)


class AnomalibDetector(nn.Module):
    """A model of anomalib's as a detector; its state dict is the whole of a fitted one.

    Stfpm, Fastflow, ReverseDistillation, Fre and Supersimplenet train for config.epochs, which
    anomalib's own configurations set to 100 and more.

    Attributes:
        history: where it trains, a row an epoch: epoch, lr, loss, held_out_loss (NaN: anomalib
            computes none), seconds.
        weights: where its backbone's weights came from, in a few words.
    """

    def __init__(self, name: str, config: Config) -> None:
        super().__init__()
        self.name, self.config = name, config
        self.history: list[dict[str, float]] = []
        self.anomalib, self.weights = _module(name, config)

    def fit(self, images: torch.Tensor,
            validation: torch.Tensor | None = None) -> AnomalibDetector:
        """Fit on good images, uint8 [N,3,S,S]. `validation` is not looked at: of it, anomalib's
        models would only make thresholds and metrics, and the study has its own."""
        pl = _imported("lightning.pytorch")
        batch = _imported("anomalib.data").ImageBatch
        self.anomalib, self.weights = _module(self.name, self.config)  # what was fitted is forgotten
        self.history = []
        arguments = {"max_epochs": self.config.epochs, **self.anomalib.trainer_arguments}
        trains = "max_epochs" not in self.anomalib.trainer_arguments
        loader = torch.utils.data.DataLoader(
            images, batch_size=TRAIN_BATCH, shuffle=True,
            collate_fn=lambda rows: batch(image=torch.stack(rows).float() / 255))
        arguments |= {"accelerator": training.pick_device(self.config.device).type, "devices": 1,
                      "callbacks": [_history(pl, self.history)] if trains else [],
                      **dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar",
                                       "enable_model_summary"), False)}
        with _quietly(), _seeded(self.config.seed):
            pl.Trainer(**arguments).fit(self.anomalib, loader)
        self.anomalib.trainer = None  # it holds the images
        return self.eval().requires_grad_(False)

    @torch.inference_mode()
    def anomaly_maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """uint8 [N,3,S,S] -> {"distance": float32 [N,S,S]}, smoothed as anomalib does it.

        anomalib's own image score is close to the maximum of a map; for Dfm and Fre, to its mean.
        """
        device = training.pick_device(self.config.device)
        self.anomalib.to(device).eval()
        maps = [self.anomalib(part.to(device).float() / 255).anomaly_map.flatten(0, -3).float().cpu()
                for part in images.split(BATCH)]
        return {MAP: torch.cat(maps) if maps else torch.zeros(0, *images.shape[-2:])}


def _module(name: str, config: Config) -> tuple[nn.Module, str]:
    """anomalib's LightningModule with the study's weights in its frozen backbone, and the word on
    where they came from."""
    timm, kind = _imported("timm"), getattr(_imported("anomalib.models"), name)
    known = inspect.signature(kind).parameters
    options = dict(getattr(config, "options", None) or {})
    for key in options:
        if key not in known or key in GIVEN:
            raise InputError(f"options of anomalib:{name}: unknown option {key!r}"
                             f"{did_you_mean(key, set(known) - set(GIVEN))}")
    size = config.image_size
    given = {key: False for key in GIVEN if key in known} | {
        "backbone": "resnet18", "pre_processor": kind.configure_pre_processor((size, size))}
    if name == "Fre":  # as wide as layer3 of such an image, pooled twofold
        given["input_dim"] = 256 * (size // 32)**2
    # Stfpm and Supersimplenet have no `pre_trained`: they would download.
    bare = mock.patch.object(timm, "create_model", _without_weights(timm.create_model))
    with _quietly(), _seeded(config.seed), bare:
        try:
            module = kind(**given | options)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"anomalib:{name} cannot be built with options {options} for images "
                             f"of {size} pixels: {error}") from error
    network, weights = backbone.backbone(config)
    _load(module.model.get_submodule(MODELS[name]), network.encoder.state_dict(), name, weights)
    return module.eval(), weights


def _load(frozen: nn.Module, state: dict[str, torch.Tensor], name: str, where: str) -> None:
    """Copy a torchvision ResNet18's stages into anomalib's backbone, whose layers have the same
    names; stages that it does not use are left out."""
    wanted = frozen.state_dict()
    unfit = sorted(key for key, tensor in wanted.items()
                   if key not in state or state[key].shape != tensor.shape)
    if unfit:
        raise InputError(
            f"weights ({where}) do not fit the backbone of anomalib:{name}: {len(unfit)} tensors "
            f"such as {unfit[0]} are missing or of another shape; they are a ResNet18's up to "
            "layer3, so leave out the options backbone and layers, or name some of layer1 to layer3")
    frozen.load_state_dict({key: state[key] for key in wanted})


def _without_weights(create_model: typing.Callable) -> typing.Callable:
    """timm's create_model, never downloading."""
    return lambda *args, **kwargs: create_model(*args, **kwargs | {"pretrained": False})


def _history(pl: types.ModuleType, rows: list[dict[str, float]]) -> object:
    """A Lightning callback that adds a row an epoch."""

    class History(pl.Callback):
        def on_train_epoch_start(self, trainer: object, module: object) -> None:
            self.started = time.perf_counter()

        def on_train_epoch_end(self, trainer: object, module: object) -> None:
            rows.append({
                "epoch": trainer.current_epoch + 1, "lr": trainer.optimizers[0].param_groups[0]["lr"],
                "loss": float(trainer.callback_metrics["train_loss"]),
                "held_out_loss": float("nan"), "seconds": time.perf_counter() - self.started})

    return History()


def _imported(module: str) -> types.ModuleType:
    """A module of the optional extra; InputError with the command where it is not installed."""
    try:
        with warnings.catch_warnings():  # deprecations within anomalib
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        raise InputError("anomalib's models need the optional extra [anomalib]; run pip install "
                         f"'.[anomalib]' in the project's folder ({error})") from None


@contextlib.contextmanager
def _seeded(seed: int) -> typing.Iterator[None]:
    """All three random generators that anomalib draws from; afterwards they are as before."""
    from lightning.pytorch.utilities.seed import isolate_rng

    with isolate_rng():
        _imported("lightning.pytorch").seed_everything(seed % 2**32, verbose=False)
        yield


@contextlib.contextmanager
def _quietly() -> typing.Iterator[None]:
    """Without Lightning's advertisements and anomalib's progress bars; errors are raised all the
    same."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "anomalib")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
