"""Features of a frozen, ImageNet-pretrained ResNet18: what every feature-space detector of the study looks at.

The encoder is that of `models.ResNetAE`, in eval mode and without gradient; its layer4 is not used. At an input of S
pixels the stages give layer1 [N,64,S/4,S/4], layer2 [N,128,S/8,S/8] and layer3 [N,256,S/16,S/16].
"""
from __future__ import annotations

import dataclasses
import typing

import torch
from torch import nn

from adlib import images, models, train
from adlib.config import Config

BATCH = 16  # what a 2-core machine's caches like best; it changes no number but for rounding
Stages = typing.Sequence[torch.Tensor]  # [layer1, layer2, layer3], float16, on the CPU


def backbone(config: Config) -> tuple[nn.Module, str]:
    """The frozen encoder with ImageNet's normalisation inside, and where its weights came from (models.build's word)."""
    model, weights = models.build(dataclasses.replace(config, model="resnet18"))
    del model.encoder.layer4, model.decoder
    return model.requires_grad_(False).eval(), weights


@torch.inference_mode()
def extract(model: nn.Module, pictures: torch.Tensor, config: Config) -> list[torch.Tensor]:
    """uint8 [N,3,S,S] -> [layer1, layer2, layer3], each float16 [N,C,s,s] on the CPU. Computed once per image: nothing here learns."""
    device = train.pick_device(config.device)
    model.to(device, memory_format=torch.channels_last).eval()
    encoder, found = model.encoder, ([], [], [])
    for batch in pictures.split(BATCH):
        x = ((images.to_float(batch.to(device)) - model.mean) / model.std).contiguous(memory_format=torch.channels_last)
        with train.autocast(config, device):
            x = encoder.maxpool(encoder.relu(encoder.bn1(encoder.conv1(x))))
            for kept, stage in zip(found, (encoder.layer1, encoder.layer2, encoder.layer3), strict=True):
                x = stage(x)
                kept.append(x.to("cpu", torch.float16))
    size = pictures.shape[-1]
    return [torch.cat(kept) if kept else torch.zeros(0, c, size // s, size // s, dtype=torch.float16)
            for kept, c, s in zip(found, (64, 128, 256), (4, 8, 16), strict=True)]


def take(stages: Stages, index: torch.Tensor | slice) -> list[torch.Tensor]:
    """The same images of every stage."""
    return [stage[index] for stage in stages]


def grid(stages: Stages, layers: str) -> torch.Tensor:
    """The chosen stages side by side on layer2's grid: float32 [N,C,S/8,S/8]; each stage averaged over 3x3 neighbours first.

    layers: "1,2,3" or a part of it. The neighbourhood average is PatchCore's (Roth et al., CVPR 2022).
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
