"""Reconstructions, residual maps and image scores. No label is known here. Higher score = more anomalous."""
from __future__ import annotations

import typing
from pathlib import Path

import numpy as np
import torch
from torch import nn

from adlib import images, train
from adlib.config import Config


@torch.inference_mode()
def reconstructions(model: nn.Module, pictures: torch.Tensor, config: Config) -> typing.Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (images, reconstructions) batch by batch: float32 [B,3,S,S] in [0,1], on the device; the model in eval mode.

    pictures: uint8 [N,3,S,S].
    """
    device = train.pick_device(config.device)
    model.to(device, memory_format=torch.channels_last).eval()
    for batch in pictures.split(config.batch_size):
        x = images.to_float(batch.to(device)).contiguous(memory_format=torch.channels_last)
        with train.autocast(config, device):
            reconstruction = model(x)
        yield x, reconstruction.float()


def mse_scores(model: nn.Module, pictures: torch.Tensor, config: Config) -> np.ndarray:
    """The seed's score, the mean squared reconstruction error of each image: uint8 [N,3,S,S] -> float64 [N] in [0,1]."""
    parts = [((x - y) ** 2).mean(dim=(1, 2, 3)).double().cpu().numpy() for x, y in reconstructions(model, pictures, config)]
    return np.concatenate(parts) if parts else np.zeros(0)


def residual_maps(x: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
    """|x - reconstruction|, mean over the channels: two [N,3,H,W] in [0,1] -> [N,H,W] in [0,1]."""
    return (x - reconstruction).abs().mean(dim=1)


def examples(model: nn.Module, pictures: torch.Tensor, config: Config) -> dict[str, np.ndarray]:
    """What a figure of some images needs: `input` and `reconstruction` [N,S,S,3], `residual` [N,S,S]; float32 in [0,1]."""
    parts = [(x.cpu(), y.cpu()) for x, y in reconstructions(model, pictures, config)]
    x, y = (torch.cat(side) for side in zip(*parts, strict=True))
    channels_last = [t.permute(0, 2, 3, 1).numpy() for t in (x, y)]
    return {"input": channels_last[0], "reconstruction": channels_last[1], "residual": residual_maps(x, y).numpy()}


def scores_over_epochs(model: nn.Module, folder: Path, pictures: torch.Tensor, config: Config) -> dict[int, np.ndarray]:
    """mse_scores of the same images at every epoch that `train.fit` kept weights of: {epoch: float64 [N]}.

    Done after training, so that no test image is read before evaluation. Leaves the model at its last epoch.
    """
    scores = {}
    for path in sorted((folder / "snapshots").glob("epoch-*.pt")):
        model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
        scores[int(path.stem.removeprefix("epoch-"))] = mse_scores(model, pictures, config)
    return scores
