"""The ResNet18 that pretrained weights are loaded into: the autoencoder's, and the one that every
feature detector looks through."""
from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from adlib.models.fast.convolution import Conv2d

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He, Zhang, Ren and Sun, CVPR 2016)."""

    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(a, b, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(b)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = Conv2d(b, b, 3, padding=1, bias=False), nn.BatchNorm2d(b)
        self.downsample = None if a == b else nn.Sequential(
            Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + shortcut)


def resnet18_encoder() -> nn.Sequential:
    """torchvision's ResNet18 without its head, by the same names, initialised as there. (Importing
    torchvision takes a second.)"""
    widths = (64, 64, 128, 256, 512)
    stages = [(f"layer{i}", nn.Sequential(BasicBlock(a, b, 1 if i == 1 else 2), BasicBlock(
        b, b, 1))) for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False), 1)]
    encoder = nn.Sequential(OrderedDict([
        ("conv1", Conv2d(3, 64, 7, stride=2, padding=3, bias=False)), ("bn1", nn.BatchNorm2d(64)),
        ("relu", nn.ReLU(inplace=True)), ("maxpool", nn.MaxPool2d(3, stride=2, padding=1)),
        *stages]))
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return encoder


class ResNet18(nn.Module):
    """The encoder, to layer4, and ImageNet's mean and deviation, by which its input is normalised.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.encoder = resnet18_encoder()
