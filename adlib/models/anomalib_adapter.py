"""anomalib's models behind this study's protocol: `model: anomalib:Patchcore` in a configuration.

They are what anomalib makes of them, with its defaults, its normalisation of the images and its
smoothing of the maps, on the study's images and ResNet18 weights; nothing is downloaded. Fitting is
anomalib's LightningModule under Lightning's Trainer, over images in memory: its own Engine adds
what a run has here already, and metrics that read labels.
"""
from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import logging
import time
import types
import typing
import warnings
from unittest import mock

import torch
from torch import nn

from adlib.config import Config, InputError, check_known, did_you_mean
from adlib.models.backbone import BATCH, load_backbone
from adlib.models.detector import Detector
from adlib.models.fast.device import pick_device

# Arguments of anomalib's constructors that are given here and are no options.
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
}


def build(name: str, config: Config) -> AnomalibDetector:
    """The detector of `model: anomalib:NAME`, not fitted yet.

    Args:
        name: a key of MODELS, with or without the "anomalib:".
        config: image_size, weights, seed and device hold, and epochs for the models that train;
            batch size (32), optimizer and learning rate are anomalib's. `options` go to anomalib's
            constructor: {"coreset_sampling_ratio": 0.01} makes Patchcore ten times as fast.

    Raises:
        InputError: anomalib is not installed, the model or an option is unknown, or the weights
            cannot be had or do not fit.
    """
    name = name.removeprefix("anomalib:")
    if name not in MODELS:
        raise InputError(f"model anomalib:{name} is none of anomalib's models that run here"
                         f"{did_you_mean(name, MODELS)} (here: {', '.join(MODELS)})")
    return AnomalibDetector(name, config)


class AnomalibDetector(Detector):
    """A model of anomalib's as a detector.

    Stfpm, Fastflow, ReverseDistillation and Fre train for config.epochs, which anomalib's examples
    set to 100 and more; the held_out_loss in their `history` is NaN: anomalib computes none.
    """

    def __init__(self, name: str, config: Config) -> None:
        super().__init__()
        self.name, self.config = name, config
        self.model, self.weights = _module(name, config)

    def fit(self, images: torch.Tensor, validation: torch.Tensor | None = None) -> AnomalibDetector:
        """Fit on good images, uint8 [N,3,S,S]. `validation` is not used: anomalib would make a
        threshold and metrics of it, and the study has its own."""
        lightning, batch = _imported("lightning.pytorch"), _imported("anomalib.data").ImageBatch
        self.history, (self.model, self.weights) = [], _module(self.name, self.config)
        arguments = {"max_epochs": self.config.epochs, **self.model.trainer_arguments}
        trains = "max_epochs" not in self.model.trainer_arguments
        rows = lightning.callbacks.LambdaCallback(on_train_epoch_end=_add_rows(self.history))
        loader = torch.utils.data.DataLoader(
            images, batch_size=32, shuffle=True,
            collate_fn=lambda rows: batch(image=torch.stack(rows).float() / 255,
                                          gt_label=torch.zeros(len(rows), dtype=torch.bool)))
        silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        arguments |= dict.fromkeys(silent, False) | {
            "accelerator": pick_device(self.config.device).type, "devices": 1,
            "callbacks": [rows] if trains else []}
        what = f"anomalib:{self.name} cannot be fitted on images {list(images.shape)}"
        with _running(what, self.config.seed):
            lightning.Trainer(**arguments).fit(self.model, loader)
        self.model.trainer = None  # which holds the images
        for owner in self.model.modules():  # as load_state_dict lays them out: the same rounding
            for key, buffer in owner.named_buffers(recurse=False):
                setattr(owner, key, buffer.contiguous())
        return self.eval().requires_grad_(False)

    @torch.inference_mode()
    def anomaly_maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """uint8 [N,3,S,S] -> {"distance": float32 [N,S,S]}, smoothed as anomalib does it.

        anomalib's own image score is about the maximum of a map; for Dfm and Fre, its mean.
        """
        device = pick_device(self.config.device)
        self.model.to(device).eval()
        with _told(f"anomalib:{self.name} gives no maps of images {list(images.shape)}"):
            maps = [self.model(batch.to(device).float() / 255).anomaly_map.cpu()
                    for batch in images.split(BATCH)]
        return {"distance": torch.cat(maps).float().flatten(0, -3)}


def _module(name: str, config: Config) -> tuple[nn.Module, str]:
    """anomalib's LightningModule with the study's weights in its frozen backbone, and where they
    came from. Not in eval mode: Lightning trains a module in the mode it finds."""
    kind, timm = getattr(_imported("anomalib.models"), name), _imported("timm")
    accepted = inspect.signature(kind).parameters
    options = json.loads(config.options) if config.options else {}
    check_known(options, set(accepted) - set(GIVEN),
                f"options of model anomalib:{name}: unknown option")
    arguments = {key: False for key in GIVEN if key in accepted} | {
        "backbone": "resnet18", "pre_processor": kind.configure_pre_processor(
            (config.image_size, config.image_size))}
    if name == "Fre":  # as wide as layer3 of such an image, pooled twofold
        arguments["input_dim"] = 256 * (config.image_size // 32)**2
    create = timm.create_model  # Stfpm has no `pre_trained`, and would download
    never_download = mock.patch.object(timm, "create_model", lambda *args, **given: create(
        *args, **given | {"pretrained": False}))
    what = f"anomalib:{name} cannot be built with options {options}"
    with never_download, _running(what, config.seed):
        module = kind(**arguments | options)
        network, weights = load_backbone(config)
    _load(module.model.get_submodule(MODELS[name]), network.encoder.state_dict(), name, weights)
    return module, weights


def _load(frozen: nn.Module, state: dict[str, torch.Tensor], name: str, where: str) -> None:
    """Copy a torchvision ResNet18 into anomalib's backbone, whose layers have the same names and
    which may end earlier."""
    wanted = frozen.state_dict()
    unfit = sorted(key for key, tensor in wanted.items()
                   if key not in state or state[key].shape != tensor.shape)
    if unfit:
        raise InputError(f"weights {where} do not fit the backbone of anomalib:{name}: {unfit[0]} "
                         f"and {len(unfit) - 1} more are missing or of another shape; they are a "
                         "ResNet18's to layer3, so choose no other backbone or layer in options")
    frozen.load_state_dict({key: state[key] for key in wanted})


def _add_rows(rows: list[dict[str, float]]) -> typing.Callable:
    """What Lightning calls at the end of an epoch: adds its row."""
    times = [time.perf_counter()]

    def add(trainer: typing.Any, module: nn.Module) -> None:
        times.append(time.perf_counter())
        rows.append({"epoch": len(times) - 1, "lr": trainer.optimizers[0].param_groups[0]["lr"],
                     "loss": float(trainer.callback_metrics["train_loss"]),
                     "held_out_loss": float("nan"), "seconds": times[-1] - times[-2]})

    return add


def _imported(module: str) -> types.ModuleType:
    """A module of the optional extra; InputError with the command where it is not installed."""
    try:
        with warnings.catch_warnings():  # deprecations within anomalib
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"anomalib's models need the package {error.name or module}; install the "
                         "extra: pip install -e '.[anomalib]' in the project's folder") from None


@contextlib.contextmanager
def _running(what: str, seed: int) -> typing.Iterator[None]:
    """anomalib at work: random generators seeded, and afterwards as before; no hints and progress
    bars; what goes wrong is an InputError that begins with `what`."""
    lightning, before = _imported("lightning.pytorch"), logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (_told(what), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()),
              lightning.utilities.seed.isolate_rng()):
            warnings.simplefilter("ignore")
            lightning.seed_everything(seed, verbose=False)
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _told(what: str) -> typing.Iterator[None]:
    """Whatever an option that anomalib does not check leads to (KeyError, IndexError, ...), as an
    InputError that begins with `what`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise InputError(f"{what}: {words}") from error
