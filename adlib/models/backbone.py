"""The frozen, ImageNet-pretrained ResNet18 that every feature detector of the study looks through.

It goes to layer3, in eval mode and without gradient. Of S pixels its stages give layer1
[N,64,S/4,S/4], layer2 [N,128,S/8,S/8] and layer3 [N,256,S/16,S/16]. Features are kept on disk: the
detectors, seeds and ablations of a category share them.
"""
from __future__ import annotations

import copy
import functools
import hashlib
import typing
import weakref

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from adlib.config import Config, cache_dir
from adlib.data import files
from adlib.data import images as pictures
from adlib.models import weights
from adlib.models.by_place import with_origins
from adlib.models.detector import Detector
from adlib.models.fast.device import autocast, pick_device, placed, precision, spread, threads
from adlib.models.resnet18 import BasicBlock, ResNet18

BATCH = 8  # what a 2-core machine's caches like best; it changes no number but for rounding
CHANNELS, STRIDES = (64, 128, 256), (4, 8, 16)
EXTRACTOR = "3"  # part of every cache key: raise it when _compute gives other features
KEPT_BYTES = 4e9  # of features on disk; the oldest go first. A 256 px image takes 0.9 MB
# of each network, the type and version that was folded last, and the copy
_FOLDED: weakref.WeakKeyDictionary[nn.Module, tuple[typing.Any, nn.Module]] = (
    weakref.WeakKeyDictionary())
_DIGESTS: weakref.WeakKeyDictionary[nn.Module, tuple[int, str]] = weakref.WeakKeyDictionary()
Stages = typing.Sequence[torch.Tensor]  # [layer1, layer2, layer3], float16, on the CPU


class OnBackbone(Detector):
    """A detector that looks through the backbone, which is part of its state."""

    is_thread_safe = True
    keeps_features = True  # on disk

    def __init__(self, config: Config) -> None:
        """Raises InputError where pretrained weights cannot be had."""
        super().__init__()
        self.config = config
        self.backbone, self.weights = load_backbone(config)

    def stages(self, images: torch.Tensor) -> list[torch.Tensor]:
        return extract(self.backbone, images, self.config, self.keeps_features)


def load_backbone(config: Config) -> tuple[nn.Module, str]:
    """The frozen encoder, ImageNet's normalisation inside, and where its weights came from."""
    drawn, after = _drawn(config.seed)
    network = copy.deepcopy(drawn)
    torch.manual_seed(config.seed)  # of every device
    torch.set_rng_state(after)
    return network.requires_grad_(False).eval(), weights.load_pretrained(network.encoder, config)


@functools.lru_cache(maxsize=1)
def _drawn(seed: int) -> tuple[ResNet18, torch.Tensor]:
    """The random encoder of a seed, and the generator's state after it. A run asks twice, for its
    detector and for what tells foreign pictures, and to draw it takes a tenth of a second."""
    torch.manual_seed(seed)
    network, after = ResNet18(), torch.get_rng_state()
    del network.encoder.layer4
    return network, after


def extract(network: nn.Module, images: torch.Tensor, config: Config,
            keep: bool = True) -> list[torch.Tensor]:
    """uint8 [N,3,S,S] -> [layer1, layer2, layer3], float16 [N,C,s,s] on the CPU, channels last.

    Nothing here learns, so an image through the same weights is computed once and then read from
    the cache; its key also names what decides the rounding (precision, device, torch), so that a
    run's numbers do not depend on it. An image on its own is computed each time: what is
    drawn into one is not seen again.
    """
    sides = [images.shape[-1] // stride for stride in STRIDES]
    widths = [channels * side**2 for channels, side in zip(CHANNELS, sides, strict=True)]
    flat = remembered(lambda some: _compute(network, some, config), EXTRACTOR, network, images,
                      config, (sum(widths), np.float16), keep)
    return [stage.view(len(images), side, side, channels).permute(0, 3, 1, 2)
            for stage, side, channels in zip(flat.split(widths, dim=1), sides, CHANNELS,
                                             strict=True)]


def remembered(compute: typing.Callable[[torch.Tensor], np.ndarray], what: str, network: nn.Module,
               images: torch.Tensor, config: Config, row: tuple[int, type], keep: bool = True
               ) -> torch.Tensor:
    """A row for each image, by a frozen network: computed, or from the cache if it is there.

    Args:
        compute: uint8 [n,3,S,S] -> [n,D]; n is at most BATCH. Threads may call it.
        what: names what is computed, and is another when that changes.
        row: D and the rows' type.
        keep: in the cache, an image a file; else they are computed.
    """
    device = pick_device(config.device)
    if not keep or len(images) < 2:
        parts = spread(compute, images.split(BATCH), device)
        return torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts))
    digest = hashlib.sha256(repr((
        what, tuple(images.shape[1:]), precision(config, device), device.type,
        torch.__version__, torch.backends.cpu.get_cpu_capability(), _digest(network))).encode())
    rows, missing = np.empty((len(images), row[0]), row[1]), {}
    for i, image in enumerate(images.contiguous().cpu().numpy()):
        key = digest.copy()
        key.update(image)
        path = cache_dir() / "features" / f"{key.hexdigest()[:32]}.npy"
        known = files.open_mapped(path, (row[0], ), row[1])
        if known is None:
            missing[i] = path
        else:
            rows[i] = known

    def look(some: list[int]) -> None:
        # By how many threads, and with how many others, changes an image's numbers by rounding.
        with threads(1):
            rows[some] = compute(images[some + some[-1:] * (BATCH - len(some))])[:len(some)]
        for i in some:
            files.write_array(missing[i], rows[i])

    if missing:
        order = list(missing)
        spread(look, [order[i:i + BATCH] for i in range(0, len(order), BATCH)], device)
        files.forget(missing[max(missing)], KEPT_BYTES, len(order) * rows[0].nbytes)
    return torch.from_numpy(rows)


def stages_of(network: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The stages of float32 images [N,3,S,S] in [0,1], as they come."""
    encoder, stages = network.encoder, []
    normalised = (x - network.mean) / network.std
    x = encoder.relu(encoder.maxpool(encoder.bn1(encoder.conv1(normalised))))  # the order is free
    for stage in (encoder.layer1, encoder.layer2, encoder.layer3):
        x = stage(x)
        stages.append(x)
    return stages


def folded(network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy whose convolutions do the work of the batch norms behind them: the same function, but
    for rounding, in two thirds of the time. Made once of a network as it is."""
    key, made = (dtype, _version(network)), _FOLDED.get(network)
    if made is None or made[0] != key:
        copied = copy.deepcopy(network).eval()
        _fold(copied.encoder, "conv1", "bn1")
        for block in copied.modules():
            if isinstance(block, BasicBlock):
                _fold(block, "conv1", "bn1")
                _fold(block, "conv2", "bn2")
                if block.downsample is not None:
                    _fold(block.downsample, "0", "1")
        copied.encoder.to(dtype)
        made = _FOLDED[network] = key, copied
    return made[1]


def _version(network: nn.Module) -> int:
    """Another whenever a weight was changed in place, replaced or moved."""
    return hash(tuple((values.data_ptr(), values._version)
                      for values in network.state_dict(keep_vars=True).values()))


def _digest(network: nn.Module) -> str:
    """Of all its weights, which takes longer than to compute a batch of small images: made once of
    a network as it is."""
    version, made = _version(network), _DIGESTS.get(network)
    if made is None or made[0] != version:
        digest = hashlib.sha256()
        for tensor in network.state_dict().values():
            digest.update(tensor.contiguous().cpu().numpy())
        made = _DIGESTS[network] = version, digest.hexdigest()
    return made[1]


def grid(stages: Stages, layers: str) -> torch.Tensor:
    """The chosen stages side by side on layer2's grid: float32 [N,C,S/8,S/8].

    Each stage is first averaged over 3x3 neighbours (PatchCore; Roth et al., CVPR 2022).

    Args:
        layers: "1,2,3" or a part of it.
    """
    return torch.cat([
        on_grid(nn.functional.avg_pool2d(stages[layer - 1].float(), 3, stride=1, padding=1),
                stages[1].shape[-1]) for layer in sorted(layer_numbers(layers))], dim=1)


def on_grid(x: torch.Tensor, side: int) -> torch.Tensor:
    """[N,C,h,w] -> [N,C,side,side]: the mean of finer cells, and between coarser ones bilinear."""
    if x.shape[-2:] == (side, side):
        return x
    if min(x.shape[-2:]) > side:
        return nn.functional.adaptive_avg_pool2d(x, side)
    return nn.functional.interpolate(x, size=side, mode="bilinear")


def grids(stages: Stages, layers: str) -> torch.Tensor:
    """`grid` of many images, some at a time, which fit the processor's cache: in half the time."""
    n, _, side, _ = stages[1].shape
    if n <= BATCH:
        return grid(stages, layers)
    found = torch.empty((n, side, side, width(layers))).permute(0, 3, 1, 2)

    def look(i: int) -> None:
        found[i:i + BATCH] = grid([stage[i:i + BATCH] for stage in stages], layers)

    spread(look, range(0, n, BATCH))
    return found


class Grids:
    """`grids` of those images that are asked for, by an index as a tensor's: of all there are, they
    would fill memory."""

    def __init__(self, stages_of: typing.Callable[[typing.Any], Stages],
                 shape: typing.Sequence[int], layers: str,
                 origins: torch.Tensor | None = None) -> None:
        """stages_of: index -> stages. shape: of the images, [N,3,S,S]. origins: where tiles begin,
        for two channels more (by_place.with_origins)."""
        self.stages_of, self.layers, self.origins = stages_of, layers, origins
        channels = width(layers) + (0 if origins is None else origins.shape[1])
        self.shape = torch.Size((shape[0], channels, *(side // STRIDES[1] for side in shape[2:])))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: typing.Any) -> torch.Tensor:
        if isinstance(index, int):
            return self[index:index + 1][0]
        found = grids(self.stages_of(index), self.layers)
        return found if self.origins is None else with_origins(found, self.origins[index])


def layer_numbers(layers: str) -> list[int]:
    return [int(word) for word in layers.split(",")]


def width(layers: str) -> int:
    """How many channels `grid` has."""
    return sum(CHANNELS[layer - 1] for layer in layer_numbers(layers))


def picked(features: torch.Tensor | Grids, index: torch.Tensor) -> torch.Tensor:
    """Some cells of many images, by their numbers among all, int64 [P]: [P,C]."""
    each = features.shape[2:].numel()
    found, image = torch.empty(len(index), features.shape[1]), index // each

    def pick(i: int) -> None:
        some = (image == i).nonzero()[:, 0]
        found[some] = features[i].flatten(1).T[index[some] - i * each]

    spread(pick, image.unique().tolist())
    return found


def position_share(features: torch.Tensor | Grids,
                   counts: torch.Tensor | None = None) -> float | None:
    """The share of the features' variance over good images, float32 [N,C,g,g], that their position
    explains, in [0,1]; where all of them count (bool [N,g,g]), None where they nowhere do.

    1: every image is alike at a place, so that a detector may expect something of each place; 1/N:
    position says nothing.
    """
    cells = (torch.ones(features.shape[2:], dtype=torch.bool) if counts is None
             else counts.all(dim=0))
    if not cells.any():
        return None
    origin = features[:1].mean(dim=(0, 2, 3))[:, None]  # about which less is lost by rounding
    sums, squares = torch.zeros(features.shape[1], int(cells.sum()), dtype=torch.float64), 0.0
    for start in range(0, len(features), BATCH):
        values = features[start:start + BATCH][..., cells] - origin
        sums += values.sum(dim=0)
        squares += float(values.square().sum())
    places = sums / len(features)
    means = places.mean(dim=1, keepdim=True)
    # the mean over the channels of the variance of all values, and of that of the places' means
    variance = squares / len(features) / places.numel() - float(means.square().mean())
    return float((places - means).square().mean()) / max(variance, 1e-12)


def _fold(module: nn.Module, convolution: str, norm: str) -> None:
    fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
    setattr(module, convolution, fused)
    setattr(module, norm, nn.Identity())


@torch.inference_mode()
def _compute(network: nn.Module, images: torch.Tensor, config: Config) -> np.ndarray:
    """The stages of each image behind each other, a cell's channels side by side: float16 [N,D].

    What follows looks at cells, and pools them over neighbours: channels last is four times as
    fast.
    """
    device = pick_device(config.device)
    dtype = torch.bfloat16 if precision(config, device) == "bf16" else torch.float32
    network = placed(folded(network, dtype), device)
    x = pictures.to_float(images.to(device))
    with autocast(config, device):
        stages = stages_of(network, x)
    cells = [x.permute(0, 2, 3, 1).to("cpu", torch.float16).flatten(1) for x in stages]
    return torch.cat(cells, dim=1).numpy()
