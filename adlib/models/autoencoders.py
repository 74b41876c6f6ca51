"""The networks, and nothing about training: a convolutional autoencoder, and one on a pretrained
ResNet18 encoder.

Both map images [N,3,S,S] in [0,1] to reconstructions of the same shape and range, for any S
divisible by 32. The reference gives the architecture in words; the constants it leaves open are
those of its code.
"""
from __future__ import annotations

import contextlib
import hashlib
import http.client
import pickle
import socket
import sys
import typing
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from adlib.config import PIXEL_MODELS, Config, InputError
from adlib.models.fast.convolution import Conv2d, ConvTranspose2d

PATIENCE = 30.0  # seconds that a download may stand still; torch alone would wait for ever
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class CAE(nn.Module):
    """Convolutional autoencoder: five strided blocks down to [N,512,S/32,S/32], five transposed
    ones back up."""
    def __init__(self) -> None:
        super().__init__()
        down, up = (3, 64, 128, 256, 512, 512), (512, 512, 256, 128, 64, 3)
        self.encoder = nn.Sequential(*[
            nn.Sequential(Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b),
                          nn.ReLU(inplace=True)) for a, b in zip(down, down[1:], strict=False)
        ])
        self.decoder = _decoder(up, kernel=3, output_padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N,3,S,S] -> [N,3,S,S]
        return self.decoder(self.encoder(x))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He, Zhang, Ren and Sun, CVPR 2016)."""
    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = Conv2d(a, b, 3, stride, padding=1, bias=False), nn.BatchNorm2d(b)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = Conv2d(b, b, 3, padding=1, bias=False), nn.BatchNorm2d(b)
        self.downsample = None if a == b else nn.Sequential(Conv2d(a, b, 1, stride, bias=False),
                                                            nn.BatchNorm2d(b))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + shortcut)


def resnet18_encoder() -> nn.Sequential:
    """torchvision's ResNet18 without its head, by the same names, randomly initialised as there;
    its import takes a second."""
    widths = (64, 64, 128, 256, 512)
    stages = [(f"layer{i}", nn.Sequential(BasicBlock(a, b, 1 if i == 1 else 2), BasicBlock(
        b, b, 1))) for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False), 1)]
    encoder = nn.Sequential(
        OrderedDict([("conv1", Conv2d(3, 64, 7, stride=2, padding=3, bias=False)),
                     ("bn1", nn.BatchNorm2d(64)), ("relu", nn.ReLU(inplace=True)),
                     ("maxpool", nn.MaxPool2d(3, stride=2, padding=1)), *stages]))
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return encoder


class ResNetAE(nn.Module):
    """Autoencoder on torchvision's ResNet18 to layer4, [N,512,S/32,S/32]; conv1, bn1 and layer1 are
    frozen.

    Frozen includes the running statistics of batch norm: those stages stay in eval mode whatever
    `train()` is told. ImageNet's mean and deviation are applied inside, so that callers only ever
    see [0,1].
    """
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.encoder = resnet18_encoder()
        self.decoder = _decoder((512, 256, 128, 64, 32, 3), kernel=4)
        self.frozen = (self.encoder.conv1, self.encoder.bn1, self.encoder.layer1)
        for stage in self.frozen:
            stage.requires_grad_(False)
        # a fresh module is in train mode: put the frozen stages into eval mode from the start
        self.train()

    def train(self, mode: bool = True) -> ResNetAE:
        super().train(mode)
        for stage in self.frozen:
            stage.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N,3,S,S] -> [N,3,S,S]
        return self.decoder(self.encoder((x - self.mean) / self.std))


def build(config: Config) -> tuple[nn.Module, str]:
    """The network that `config` asks for, its random parts seeded by config.seed, and where its
    weights came from.

    Raises InputError for a model that is none of these networks, and when weights were asked for
    and cannot be had, unless config.weights_fallback allows random ones.
    """
    if config.model not in PIXEL_MODELS:
        raise InputError(
            f"model {config.model!r} is fitted by notebook 04_feature_space; here models are "
            f"{', '.join(PIXEL_MODELS)}")
    torch.manual_seed(config.seed)
    if config.model == "cae":
        return CAE(), "none (trained from scratch)"
    model = ResNetAE()
    if config.weights == "none":
        return model, "none (trained from scratch)"
    if config.weights != "imagenet":
        path = Path(config.weights)
        load_encoder(model, read_state(path), str(path))
        return model, f"file {path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    try:
        state = _imagenet_state()
    except InputError as error:
        if not config.weights_fallback:
            raise
        return model, f"RANDOM, not ImageNet's ({_first_line(error.__cause__)})"
    load_encoder(model, state, "torchvision IMAGENET1K_V1")
    return model, "torchvision IMAGENET1K_V1"


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from a file, as float32; never runs code from it (`weights_only`). InputError if
    that fails."""
    if not path.is_file():
        raise InputError(
            f"weights file {path} is {'a folder' if path.is_dir() else 'missing'}; give the path "
            f"of a "
            "ResNet18 state dict, or weights: imagenet or none")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # a damaged pickle can raise anything: IndexError, struct.error, AssertionError, ...
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and "unsupported global" in str(error).lower():
            raise InputError(
                f"weights file {path} is not a plain state dict: it holds Python objects, which "
                f"could run code "
                "when loaded, so it was refused; save model.state_dict() and give that") from None
        # torch's own words mislead here
        why = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise InputError(
            f"weights file {path} cannot be read as a torch state dict{why}; it may be truncated "
            f"or of another "
            "kind") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state or not all(
            isinstance(v, torch.Tensor) for v in state.values()):
        raise InputError(f"weights file {path} holds no state dict (names and tensors); save "
                         f"model.state_dict() and give that")
    return {
        str(name).removeprefix("module."): v.float() if v.is_floating_point() else v
        for name, v in state.items()
    }


def load_encoder(model: ResNetAE, state: dict[str, torch.Tensor], where: str) -> None:
    """Load a torchvision ResNet18 state dict into the encoder; its classifier (fc) is not needed
    and left out.

    Raises InputError that lists what is missing, what is too many and what has another shape.
    """
    state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    wanted = dict(model.encoder.state_dict())
    needed = {name for name in wanted if not name.endswith("num_batches_tracked")}
    differences = {
        "missing": sorted(needed - set(state)), "unexpected": sorted(set(state) - set(wanted)),
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in sorted(set(state) & set(wanted)) if state[name].shape != wanted[name].shape
        ]
    }
    words = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in differences.items() if names
    ]
    if words:
        raise InputError(
            f"weights {where} do not fit ResNet18: {'; '.join(words)}; give a torchvision "
            f"ResNet18 state dict")
    bad = [name for name in sorted(needed) if not torch.isfinite(state[name]).all()]
    if bad:
        raise InputError(
            f"weights {where} hold NaN or infinity in {len(bad)} tensors ({', '.join(bad[:3])}); "
            f"give a sound file")
    model.encoder.load_state_dict(state, strict=False)


def _imagenet_state() -> dict[str, torch.Tensor]:
    """ImageNet's weights through torchvision's cache; InputError, with the cause attached, where
    they cannot be had."""
    from torchvision.models import ResNet18_Weights

    weights = ResNet18_Weights.IMAGENET1K_V1
    cached = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    try:
        if not cached.is_file():
            with _bounded_wait():
                weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True,
                                       weights_only=True)
        # Torch neither hashes a file that is already in its cache nor reads it as mere weights:
        # read_state does the latter.
        return read_state(cached)
    except InputError as error:
        raise InputError(
            f"{error}; delete it from torch's cache, so that it is fetched again, or give "
            "weights: PATH or weights: none") from error
    # RuntimeError: the download's hash is wrong
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        raise InputError(
            f"ImageNet weights are out of reach ({_first_line(error)}); three ways out: give a "
            f"state dict with "
            f"weights: PATH, put torchvision's file at {cached} (connecting once does it), or "
            f"start from random weights "
            "with weights: none") from error


@contextlib.contextmanager
def _bounded_wait() -> typing.Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _decoder(channels: tuple[int, ...], kernel: int, output_padding: int = 0) -> nn.Sequential:
    """Transposed convolutions that double the side each time; batch norm and ReLU between, a
    sigmoid at the end."""
    layers: list[nn.Module] = []
    for a, b in zip(channels, channels[1:], strict=False):
        layers.append(
            ConvTranspose2d(a, b, kernel, stride=2, padding=1, output_padding=output_padding))
        layers += [nn.BatchNorm2d(b), nn.ReLU(
            inplace=True)] if b != channels[-1] else [nn.Sigmoid()]
    return nn.Sequential(*layers)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
