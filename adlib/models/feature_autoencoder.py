"""Reconstruct pixels, or features? One frozen encoder, one decoder family, one schedule; only the
target differs.

The encoder (features.backbone) is computed once per image. layer3 goes through a bottleneck of S/32
and is decoded by transposed convolutions; `to_features` reads layer3, layer2 and layer1 out of the
decoder's stages by 1x1 convolutions, as reverse distillation does (Deng and Li, CVPR 2022),
`to_pixels` goes on with two more stages to the image.
"""
from __future__ import annotations

import torch
from torch import nn

from adlib.config import Config
from adlib.data import images
from adlib.models import backbone as features
from adlib.models import training
from adlib.models.fast.convolution import Conv2d, ConvTranspose2d


class FrozenAE(nn.Module):
    """layer3 [N,256,S/16,S/16] -> the image [N,3,S,S] in [0,1], or estimates of [layer1, layer2,
    layer3]."""
    def __init__(self, target: str) -> None:
        super().__init__()
        self.bottleneck = _block(Conv2d(256, 256, 3, stride=2, padding=1))
        widths = ((256, 256), (256, 128), (128, 64))
        self.stages = nn.ModuleList(
            _block(ConvTranspose2d(a, b, 4, stride=2, padding=1)) for a, b in widths)
        if target == "to_pixels":
            self.out = nn.Sequential(_block(ConvTranspose2d(64, 32, 4, stride=2, padding=1)),
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


def fit(stages: features.Stages, pictures: torch.Tensor,
        config: Config) -> tuple[FrozenAE, list[dict]]:
    """Train on good images (their features, and uint8 [N,3,S,S]); returns the network in eval mode
    and the history."""
    torch.manual_seed(config.seed)
    device = training.pick_device(config.device)
    model = FrozenAE(config.model).to(device, memory_format=torch.channels_last).train()

    def loss_of(index: torch.Tensor) -> torch.Tensor:
        return errors(model, features.take(stages, index), pictures[index], config).mean()

    history = training.one_cycle(model.parameters(), loss_of, len(pictures), epochs=config.epochs,
                                 batch_size=config.batch_size, peak=config.lr, seed=config.seed)
    return model.eval(), history


@torch.inference_mode()
def maps(model: FrozenAE, stages: features.Stages, pictures: torch.Tensor,
         config: Config) -> torch.Tensor:
    """Reconstruction error: float32 [N,S,S] for pixels, [N,S/8,S/8] for features; higher = more
    anomalous."""
    parts = [
        errors(model, features.take(stages, index), pictures[index], config).float().cpu()
        for index in torch.arange(len(pictures)).split(config.batch_size)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, 1, 1)


def errors(model: FrozenAE, stages: list[torch.Tensor], pictures: torch.Tensor,
           config: Config) -> torch.Tensor:
    """The error map of a batch, whose mean is the loss: squared error of the pixels, or the mean
    over the chosen stages."""
    device = next(model.parameters()).device
    with training.autocast(config, device):
        output = model(stages[2].to(device).float())
    if config.model == "to_pixels":
        return (images.to_float(pictures.to(device)) - output.float()).square().mean(dim=1)
    errors, side = [], stages[1].shape[-1]
    for layer in (int(word) for word in config.layers.split(",")):
        truth, estimate = stages[layer - 1].to(device).float(), output[layer - 1].float()
        error = ((truth - estimate).square().mean(dim=1) if config.distance == "squared" else 1 -
                 nn.functional.cosine_similarity(truth, estimate, dim=1))
        errors.append(
            nn.functional.interpolate(error[:, None], size=side, mode="bilinear")[:, 0] if error.
            shape[-1] < side else nn.functional.adaptive_avg_pool2d(error[:, None], side)[:, 0])
    return torch.stack(errors).mean(dim=0)


def _block(convolution: nn.Module) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels),
                         nn.ReLU(inplace=True))
