"""The two autoencoders of the reference document: convolutional, and on a pretrained ResNet18.

Both map images [N,3,S,S] in [0,1] to reconstructions of the same shape and range, for any S
divisible by 32. The reference gives the architecture in words; the constants it leaves open are its
code's.
"""
from __future__ import annotations

import typing
from pathlib import Path

import torch
from torch import nn

from adlib.config import Config, InputError
from adlib.data import images as pictures
from adlib.models import anomaly_maps, training, weights
from adlib.models.detector import Detector
from adlib.models.fast.convolution import Conv2d, ConvTranspose2d
from adlib.models.fast.device import AT_ONCE, autocast, pick_device, placed
from adlib.models.resnet18 import ResNet18


class CAE(nn.Module):
    """Convolutional autoencoder: five strided blocks to [N,512,S/32,S/32], five transposed ones
    up."""

    def __init__(self) -> None:
        super().__init__()
        down, up = (3, 64, 128, 256, 512, 512), (512, 512, 256, 128, 64, 3)
        self.encoder = nn.Sequential(*[
            nn.Sequential(Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b),
                          nn.ReLU(inplace=True)) for a, b in zip(down, down[1:], strict=False)])
        self.decoder = _decoder(up, kernel=3, output_padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N,3,S,S] -> [N,3,S,S]
        return self.decoder(self.encoder(x))


class ResNetAE(ResNet18):
    """Autoencoder on ResNet18 to layer4, [N,512,S/32,S/32]; conv1, bn1 and layer1 are frozen.

    Frozen includes the running statistics of batch norm: those stages stay in eval mode whatever
    `train()` is told. ImageNet's mean and deviation are applied inside, so callers only see [0,1].
    """

    def __init__(self) -> None:
        super().__init__()
        self.decoder = _decoder((512, 256, 128, 64, 32, 3), kernel=4)
        self.frozen = (self.encoder.conv1, self.encoder.bn1, self.encoder.layer1)
        for stage in self.frozen:
            stage.requires_grad_(False)
        self.train()  # a fresh module is in train mode: the frozen stages go to eval mode at once

    def train(self, mode: bool = True) -> ResNetAE:
        super().train(mode)
        for stage in self.frozen:
            stage.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N,3,S,S] -> [N,3,S,S]
        return self.decoder(self.encoder((x - self.mean) / self.std))


def build_network(config: Config) -> tuple[nn.Module, str]:
    """The network of a configuration, its random parts drawn by config.seed, and where its weights
    came from (weights.load_pretrained, whose InputError it may raise)."""
    torch.manual_seed(config.seed)
    if config.model == "cae":
        return CAE(), weights.NONE
    network = ResNetAE()
    return network, weights.load_pretrained(network.encoder, config)


class Autoencoder(Detector):
    """An autoencoder as a detector: its maps are how its reconstructions differ from the images."""

    is_thread_safe = True

    def __init__(self, config: Config) -> None:
        """Raises InputError where pretrained weights cannot be had."""
        super().__init__()
        self.config = config
        self.network, self.weights = build_network(config)
        self.own_loss: training.Loss | None = None  # the user's (config.loss)
        self.snapshots: dict[int, Path] = {}  # {epoch: state dict of the network}
        self._begun = False  # a fit, which may have been interrupted

    def fit(self, images: torch.Tensor, validation: torch.Tensor | None = None, *,
            run: typing.Any = None, area: training.Area = None,
            validation_area: training.Area = None) -> Autoencoder:
        if self._begun:  # a cell run again trains no longer than its epochs say
            fresh, self.weights = build_network(self.config)
            self.network.load_state_dict(fresh.state_dict())
        self._begun = True
        self.history = training.train(self.network, images, validation, self.config, run=run,
                                      loss=self.own_loss, area=area,
                                      validation_area=validation_area)
        if run is not None:
            self.snapshots = training.snapshots(run.folder)
        return self

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [N,3,S,S] -> float32 [N,3,S,S] in [0,1], on the CPU."""
        return torch.cat([y.cpu() for _, y in self.pairs(images)])

    def anomaly_maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """`squared`, `ssim` and `gradient` (anomaly_maps.pixel_maps), float32 [N,S,S] each."""
        batches = [anomaly_maps.pixel_maps(x, y) for x, y in self.pairs(images)]
        return {name: torch.cat([part[name] for part in batches]).cpu() for name in batches[0]}

    @torch.inference_mode()
    def pairs(self, images: torch.Tensor) -> typing.Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Images and reconstructions batch by batch: float32 [B,3,S,S] in [0,1], on the device."""
        device = pick_device(self.config.device)
        with torch.inference_mode(False):  # moved weights can be trained all the same
            placed(self.network, device).eval()
        for batch in images.split(AT_ONCE):
            x = pictures.to_float(batch.to(device)).contiguous(memory_format=torch.channels_last)
            with autocast(self.config, device):
                y = self.network(x)
            yield x, y.float()

    def scores_over_epochs(self, images: torch.Tensor, area: training.Area = None
                           ) -> dict[int, torch.Tensor]:
        """The mean squared error of the images, of those pixels that count, at every epoch whose
        weights were kept: {epoch: float64 [N]}. Done after training, so that no test image is read
        before evaluation. Raises InputError where a file of these weights is gone."""
        if gone := [path for path in self.snapshots.values() if not path.exists()]:
            raise InputError(f"{gone[0]} is gone, as it is once a run is saved, and what training "
                             "did to the scores cannot be seen without; run the cell with `fit` "
                             "first, then those below it")
        last, scores = {k: v.clone() for k, v in self.network.state_dict().items()}, {}
        for epoch, path in sorted(self.snapshots.items()):
            self.network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
            scores[epoch] = torch.cat([
                ((x - y)**2).mean(dim=(1, 2, 3) if area is None else 1).cpu().double()
                for x, y in self.pairs(images)])
            if area is not None:
                scores[epoch] = (scores[epoch] * area).sum(dim=(1, 2)) / area.sum(dim=(1, 2))
        self.network.load_state_dict(last)
        return scores


def _decoder(channels: tuple[int, ...], kernel: int, output_padding: int = 0) -> nn.Sequential:
    """Transposed convolutions that double the side; batch norm and ReLU between, a sigmoid last."""
    layers: list[nn.Module] = []
    for a, b in zip(channels, channels[1:], strict=False):
        layers.append(ConvTranspose2d(a, b, kernel, stride=2, padding=1,
                                      output_padding=output_padding))
        last = b == channels[-1]
        layers += [nn.Sigmoid()] if last else [nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
