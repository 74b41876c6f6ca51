"""Reconstruct pixels, or features? One frozen encoder, one decoder family, one schedule; only the
target differs.

layer3 goes through a bottleneck of S/32 and is decoded by transposed convolutions. `to_features`
reads layer3, layer2 and layer1 out of the decoder's stages by 1x1 convolutions, as reverse
distillation does (Deng and Li, CVPR 2022); `to_pixels` goes on with two more stages to the image.
"""
from __future__ import annotations

import torch
from torch import nn

from adlib.config import Config, InputError
from adlib.data import images as pictures
from adlib.models import anomaly_maps, training
from adlib.models.backbone import OnBackbone, Stages, layer_numbers, on_grid
from adlib.models.fast.convolution import Conv2d, ConvTranspose2d
from adlib.models.fast.device import CHUNK, autocast, pick_device, placed


class Decoder(nn.Module):
    """layer3 [N,256,S/16,S/16] -> the image [N,3,S,S] in [0,1], or estimates of the stages."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.bottleneck = _block(Conv2d(256, 256, 3, stride=2, padding=1))
        widths = ((256, 256), (256, 128), (128, 64))
        self.stages = nn.ModuleList(
            _block(ConvTranspose2d(a, b, 4, stride=2, padding=1)) for a, b in widths)
        if target == "to_pixels":
            self.out = nn.Sequential(
                _block(ConvTranspose2d(64, 32, 4, stride=2, padding=1)),
                ConvTranspose2d(32, 3, 4, stride=2, padding=1), nn.Sigmoid())
        else:
            self.out = nn.ModuleList(Conv2d(c, c, 1) for c in (64, 128, 256))

    def forward(self, layer3: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        x, decoded = self.bottleneck(layer3), []
        for stage in self.stages:
            x = stage(x)
            decoded.insert(0, x)  # [layer1's, layer2's, layer3's size]
        if isinstance(self.out, nn.Sequential):
            return self.out(x)
        return [read(part) for read, part in zip(self.out, decoded, strict=True)]


class FeatureAutoencoder(OnBackbone):
    """The decoder on the frozen backbone as a detector; its map is the reconstruction error."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.decoder = Decoder(config.model)

    def fit(self, images: torch.Tensor, validation: torch.Tensor | None = None, *,
            area: training.Area = None) -> FeatureAutoencoder:
        if len(images) * (images.shape[-1] // 32)**2 < 2:  # batch norm needs two values a channel
            raise InputError("1 good training image of 32 pixels is too little to train a network "
                             "with; give at least 2, or a larger image_size")
        stages, config = self.stages(images), self.config
        torch.manual_seed(config.seed)
        self.decoder = placed(Decoder(config.model), pick_device(config.device)).train()

        def loss_of(index: torch.Tensor) -> torch.Tensor:
            errors = self.errors([stage[index] for stage in stages], images[index])
            if area is None:
                return errors.mean()
            counts = anomaly_maps.counted(area[index], errors.shape[-2:]).to(errors.device)
            return errors[counts].mean()

        self.history = training.one_cycle(
            self.decoder.parameters(), loss_of, len(images), epochs=config.epochs,
            batch_size=config.batch_size, peak=config.lr, seed=config.seed)
        self.decoder.eval()
        return self

    @torch.inference_mode()
    def anomaly_maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """{"distance": float32 [N,S,S] for pixels, [N,S/8,S/8] for features}."""
        maps = []
        placed(self.decoder, pick_device(self.config.device)).eval()
        for chunk in images.split(CHUNK):  # so that memory does not grow with the number of images
            stages = self.stages(chunk)
            maps += [self.errors([stage[index] for stage in stages], chunk[index]).float().cpu()
                     for index in torch.arange(len(chunk)).split(self.config.batch_size)]
        return {"distance": torch.cat(maps)}

    def errors(self, stages: Stages, images: torch.Tensor) -> torch.Tensor:
        """The error maps of a batch, whose mean is the loss: the squared error of the pixels, or
        the mean distance over the chosen stages."""
        device, config = next(self.decoder.parameters()).device, self.config
        with autocast(config, device, learning=self.decoder.training):
            output = self.decoder(stages[2].to(device).float())
        if config.model == "to_pixels":
            x = pictures.to_float(images.to(device))
            return (x - output.float()).square().mean(dim=1)
        errors, side = [], stages[1].shape[-1]
        for layer in layer_numbers(config.layers):
            truth, estimate = stages[layer - 1].to(device).float(), output[layer - 1].float()
            if config.distance == "squared":
                error = (truth - estimate).square().mean(dim=1)[:, None]
            else:
                error = (1 - nn.functional.cosine_similarity(truth, estimate, dim=1))[:, None]
            errors.append(on_grid(error, side)[:, 0])
        return torch.stack(errors).mean(dim=0)


def _block(convolution: nn.Module) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels),
                         nn.ReLU(inplace=True))
