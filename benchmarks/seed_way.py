"""The seed's way, done plainly and fairly: the yardstick that `make bench` measures the study against.

What its README says, and where it is silent the constants of its code: images decoded and resized by a DataLoader in every
epoch, float32, Adam, ReduceLROnPlateau (factor 0.5, patience 10) on the training loss, the last epoch as the result; no
ImageNet normalisation, batch norm of the frozen layers left in train mode, SSIM with a zero-padded 11 x 11 window. Fair: the
loader has two workers that live as long as the training, as anybody's would who cared; no debug output; the same networks.
"""
from __future__ import annotations

import time
import typing
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from adlib import models
from adlib.config import Config

WORKERS = 2


class Pictures(Dataset):
    """Decodes and resizes an image whenever it is asked for: float32 [3,S,S] in [0,1]."""

    def __init__(self, paths: typing.Sequence[Path], size: int) -> None:
        self.paths, self.size = list(paths), size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        from torchvision.transforms import functional

        with Image.open(self.paths[i]) as image:
            return functional.to_tensor(image.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR))


class SeedResNetAE(models.ResNetAE):
    """The seed's own: no ImageNet normalisation, and the frozen layers' batch norm follows the training images."""

    def train(self, mode: bool = True) -> SeedResNetAE:
        return nn.Module.train(self, mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))


class PlainSSIM(nn.Module):
    """Mean SSIM of two [N,3,S,S] in [0,1]: five depthwise convolutions with an 11 x 11 window, zero-padded."""

    def __init__(self) -> None:
        super().__init__()
        taps = torch.exp(-((torch.arange(11.0) - 5) ** 2) / (2 * 1.5**2))
        self.register_buffer("window", (taps[:, None] * taps / taps.sum() ** 2).expand(3, 1, 11, 11).contiguous())

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        def blur(image: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv2d(image, self.window, padding=5, groups=3)
        mean_x, mean_y = blur(x), blur(y)
        var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
        covariance = blur(x * y) - mean_x * mean_y
        return ((2 * mean_x * mean_y + 1e-4) * (2 * covariance + 9e-4)
                / ((mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4))).mean()


def build(config: Config) -> nn.Module:
    """The seed's network with the weights that `config` gives by path, on the CPU or whatever config.device says."""
    torch.manual_seed(config.seed)
    if config.model == "cae":
        return models.CAE()
    model = SeedResNetAE()
    models.load_encoder(model, models.read_state(Path(config.weights)), config.weights)
    return model


def train(pictures: typing.Sequence[torch.Tensor], config: Config, device: torch.device,
          after: typing.Callable[[int, nn.Module], None] = lambda epoch, model: None) -> tuple[nn.Module, list[float]]:
    """Train on `Pictures` for config.epochs: the network, and the seconds of each epoch. after(epoch, model): called untimed."""
    model = build(config).to(device)
    similarity = PlainSSIM().to(device)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=config.lr)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=10)
    loader = DataLoader(pictures, config.batch_size, shuffle=True, num_workers=WORKERS,
                        persistent_workers=True, generator=torch.Generator().manual_seed(config.seed))
    seconds = []
    for epoch in range(1, config.epochs + 1):
        started, total = time.perf_counter(), 0.0
        model.train()
        for x in loader:
            x = x.to(device)
            y = model(x)
            loss = nn.functional.mse_loss(y, x)
            if config.ssim_weight:
                loss = (1 - config.ssim_weight) * loss + config.ssim_weight * (1 - similarity(x, y))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(x)
        scheduler.step(total)
        seconds.append(time.perf_counter() - started)
        after(epoch, model)
    return model, seconds
