"""Features of a frozen, ImageNet-pretrained ResNet18: what every feature-space detector of the
study looks at.

The encoder is that of `models.ResNetAE`, in eval mode and without gradient; its layer4 is not used.
At an input of S pixels the stages give layer1 [N,64,S/4,S/4], layer2 [N,128,S/8,S/8] and layer3
[N,256,S/16,S/16].

Features are kept on disk, so that the detectors, seeds and ablations of one category share them.
"""
from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import typing
from pathlib import Path

import numpy as np
import torch
from torch import nn

from adlib.config import Config, cache_dir
from adlib.data import files, images
from adlib.models import autoencoders, training

BATCH = 8  # what a 2-core machine's caches like best; it changes no number but for rounding
# images that are kept together: who scores in batches of as many finds what was fitted on
CHUNK = 64
CHANNELS, STRIDES = (64, 128, 256), (4, 8, 16)
# part of every cache key: raise it when _compute gives other features for the same pictures
EXTRACTOR = "2"
KEPT_BYTES = 4e9  # of features on disk; the oldest go first. A 256 px image takes 0.9 MB
Stages = typing.Sequence[torch.Tensor]  # [layer1, layer2, layer3], float16, on the CPU


def backbone(config: Config) -> tuple[nn.Module, str]:
    """The frozen encoder with ImageNet's normalisation inside, and where its weights came from
    (models.build's word)."""
    model, weights = autoencoders.build(dataclasses.replace(config, model="resnet18"))
    del model.encoder.layer4, model.decoder
    return model.requires_grad_(False).eval(), weights


def extract(model: nn.Module, pictures: torch.Tensor, config: Config) -> list[torch.Tensor]:
    """uint8 [N,3,S,S] -> [layer1, layer2, layer3], each float16 [N,C,s,s] on the CPU, channels last
    in memory.

    Nothing here learns, so the same pictures through the same weights are computed once and then
    read from the cache; the key also names what decides the rounding (precision, device, threads,
    torch), so that a run's numbers do not depend on it. A picture on its own is computed each time:
    looking it up would take as long, and what is drawn into one is not seen again.
    """
    parts = [(_kept_or_computed if len(part) > 1 else _compute)(model, part, config)
             for part in pictures.split(CHUNK)]
    flat, size = torch.from_numpy(parts[0] if len(parts) ==
                                  1 else np.concatenate(parts)), pictures.shape[-1]
    found, start = [], 0
    for channels, stride in zip(CHANNELS, STRIDES, strict=True):
        side = size // stride
        stage = flat[:, start:start + channels * side**2].view(len(pictures), side, side, channels)
        found.append(stage.permute(0, 3, 1, 2))
        start += channels * side**2
    return found


def _kept_or_computed(model: nn.Module, pictures: torch.Tensor, config: Config) -> np.ndarray:
    """_compute's answer, from the cache if it is there."""
    device = training.pick_device(config.device)
    digest = hashlib.sha256(
        repr((EXTRACTOR, tuple(pictures.shape), training.precision(
            config, device), device.type, torch.get_num_threads(), torch.__version__,
              torch.backends.cpu.get_cpu_capability())).encode())
    for tensor in (pictures, *model.state_dict().values()):
        digest.update(tensor.contiguous().cpu().numpy())
    path = cache_dir() / "features" / f"{digest.hexdigest()[:32]}.npy"
    flat = _kept(path, (len(pictures), _width(pictures.shape[-1])))
    if flat is None:
        flat = _compute(model, pictures, config)
        with files.atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, flat)
        _forget(path)
    return flat


@torch.inference_mode()
def _compute(model: nn.Module, pictures: torch.Tensor, config: Config) -> np.ndarray:
    """The three stages of each image behind each other, the channels of a cell side by side:
    float16 [N,D].

    What follows looks at cells, and pools them over neighbours: with channels last that is four
    times as fast.
    """
    device = training.pick_device(config.device)
    model.to(device, memory_format=torch.channels_last).eval()
    flat = np.empty((len(pictures), _width(pictures.shape[-1])), np.float16)
    for start, batch in zip(range(0, len(pictures), BATCH), pictures.split(BATCH), strict=False):
        with training.autocast(config, device):
            found = stages(
                model,
                images.to_float(batch.to(device)).contiguous(memory_format=torch.channels_last))
        cells = [x.permute(0, 2, 3, 1).to("cpu", torch.float16).flatten(1) for x in found]
        flat[start:start + len(batch)] = torch.cat(cells, dim=1).numpy()
    return flat


def stages(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The same of float32 images [N,3,S,S] in [0,1], as they come: [layer1, layer2, layer3]."""
    encoder = model.encoder
    x = encoder.maxpool(encoder.relu(encoder.bn1(encoder.conv1((x - model.mean) / model.std))))
    found = []
    for stage in (encoder.layer1, encoder.layer2, encoder.layer3):
        x = stage(x)
        found.append(x)
    return found


def _width(size: int) -> int:
    """Features of an image of `size` pixels, the three stages together."""
    return sum(c * (size // s)**2 for c, s in zip(CHANNELS, STRIDES, strict=True))


def _kept(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """What the cache holds; None where it holds nothing, or something damaged. Copy-on-write:
    nobody can change the file."""
    try:
        flat = np.load(path, mmap_mode="c", allow_pickle=False)
        path.touch()  # used now: the last to be forgotten
    except (OSError, ValueError, EOFError):
        return None
    return flat if flat.shape == shape and flat.dtype == np.float16 else None


def _forget(newest: Path) -> None:
    """Delete the features that were not used for longest until the rest fits; those just written
    stay."""
    found = []
    for path in newest.parent.glob("[!.]*.npy"):
        with contextlib.suppress(OSError):  # another process was quicker
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= KEPT_BYTES:
            return
        if path != newest:
            path.unlink(missing_ok=True)
            total -= size


def take(stages: Stages, index: torch.Tensor | slice) -> list[torch.Tensor]:
    """The same images of every stage."""
    return [stage[index] for stage in stages]


def grid(stages: Stages, layers: str) -> torch.Tensor:
    """The chosen stages side by side on layer2's grid: float32 [N,C,S/8,S/8]; each stage averaged
    over 3x3 neighbours first.

    layers: "1,2,3" or a part of it. The neighbourhood average is PatchCore's (Roth et al., CVPR
    2022).
    """
    side = stages[1].shape[-1]
    parts = []
    for layer in sorted(int(word) for word in layers.split(",")):
        stage = nn.functional.avg_pool2d(stages[layer - 1].float(), 3, stride=1, padding=1)
        if stage.shape[-1] > side:
            stage = nn.functional.adaptive_avg_pool2d(stage, side)
        elif stage.shape[-1] < side:
            stage = nn.functional.interpolate(stage, size=side, mode="bilinear")
        parts.append(stage)
    return torch.cat(parts, dim=1)
