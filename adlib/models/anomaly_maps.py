"""Reconstructions, anomaly maps and image scores, and the label-free choice between them. Higher =
more anomalous.

A score is a map and a reduction, "ssim.max" say. Maps of the autoencoders: `squared` error; `ssim`,
1 - SSIM; `gradient`, 1 - gradient-magnitude similarity (Xue, Zhang, Mou and Bovik, IEEE TIP 2014);
`sum`, the three in deviations of held-out good images. Feature detectors have one map, `distance`.
Reductions: `mean`; `max` and `top1` (mean of the highest 1 %) of the map smoothed by a Gaussian of
1/64 of its side. No label of a test image is known here.
"""
from __future__ import annotations

import typing
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from torch import nn

from adlib.config import Config
from adlib.data import images
from adlib.evaluation import metrics
from adlib.models import ssim, training

REDUCTIONS = ("top1", "max", "mean")
GMS_C = 170 / 255**2  # Xue et al.'s constant, for images in [0,1]
# uint8 [N,3,S,S] -> {map: float32 [N,h,w]}, unsmoothed
Scorer = typing.Callable[[torch.Tensor], dict[str, np.ndarray]]


@torch.inference_mode()
def reconstructions(model: nn.Module, pictures: torch.Tensor,
                    config: Config) -> typing.Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (images, reconstructions) batch by batch: float32 [B,3,S,S] in [0,1], on the device;
    the model in eval mode.

    pictures: uint8 [N,3,S,S].
    """
    device = training.pick_device(config.device)
    model.to(device, memory_format=torch.channels_last).eval()
    for batch in pictures.split(training.AT_ONCE):
        x = images.to_float(batch.to(device)).contiguous(memory_format=torch.channels_last)
        with training.autocast(config, device):
            reconstruction = model(x)
        yield x, reconstruction.float()


def mse_scores(model: nn.Module, pictures: torch.Tensor, config: Config) -> np.ndarray:
    """The reference's score, the mean squared reconstruction error of each image: uint8 [N,3,S,S]
    -> float64 [N] in [0,1]."""
    parts = [((x - y)**2).mean(dim=(1, 2, 3)).cpu().double().numpy()
             for x, y in reconstructions(model, pictures, config)]
    return np.concatenate(parts) if parts else np.zeros(0)


def residual_maps(x: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
    """|x - reconstruction|, mean over the channels: two [N,3,H,W] in [0,1] -> [N,H,W] in [0,1]."""
    return (x - reconstruction).abs().mean(dim=1)


def examples(model: nn.Module, pictures: torch.Tensor, config: Config) -> dict[str, np.ndarray]:
    """What a figure of some images needs: `input` and `reconstruction` [N,S,S,3], `residual`
    [N,S,S]; float32 in [0,1]."""
    parts = [(x.cpu(), y.cpu()) for x, y in reconstructions(model, pictures, config)]
    x, y = (torch.cat(side) for side in zip(*parts, strict=True))
    channels_last = [t.permute(0, 2, 3, 1).numpy() for t in (x, y)]
    return {
        "input": channels_last[0], "reconstruction": channels_last[1], "residual": residual_maps(
            x, y).numpy()
    }


def scores_over_epochs(model: nn.Module, folder: Path, pictures: torch.Tensor,
                       config: Config) -> dict[int, np.ndarray]:
    """mse_scores of the same images at every epoch that `train.fit` kept weights of: {epoch:
    float64 [N]}.

    Done after training, so that no test image is read before evaluation. Leaves the model at its
    last epoch.
    """
    scores = {}
    for path in sorted((folder / "snapshots").glob("epoch-*.pt")):
        model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
        scores[int(path.stem.removeprefix("epoch-"))] = mse_scores(model, pictures, config)
    return scores


def pixel_maps(x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """squared [0,1], ssim [0,2] and gradient [0,1] maps of two float32 [N,3,H,W] in [0,1]: {name:
    [N,H,W]}; 0 = alike."""
    return {
        "squared": (x - y).square().mean(dim=1),
        "ssim": 1 - ssim.ssim_map(x, y, data_range=1.0).mean(dim=1),
        "gradient": 1 - gradient_similarity(x.mean(dim=1), y.mean(dim=1))
    }


def gradient_similarity(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Gradient-magnitude similarity (Xue et al. 2014, Prewitt, without their downsampling) of grey
    [N,H,W] in [0,1] -> (0,1]; 1 = alike."""
    kernel = torch.tensor([[1.0, 0, -1], [1, 0, -1], [1, 0, -1]], device=x.device) / 3
    weight = torch.stack([kernel, kernel.T])[:, None]
    squares = [
        nn.functional.conv2d(nn.functional.pad(z[:, None], (1, 1, 1, 1), mode="replicate"),
                             weight).square().sum(dim=1) for z in (x, y)
    ]
    return (2 * (squares[0] * squares[1]).sqrt() + GMS_C) / (squares[0] + squares[1] + GMS_C)


def autoencoder_scorer(model: nn.Module, config: Config) -> Scorer:
    """The pixel maps of an autoencoder as a Scorer."""
    def maps(pictures: torch.Tensor) -> dict[str, np.ndarray]:
        parts = [pixel_maps(x, y) for x, y in reconstructions(model, pictures, config)]
        return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}

    return maps


def smooth(maps: np.ndarray) -> np.ndarray:
    """Gaussian of 1/64 of the side, at least one cell: [N,h,w] -> [N,h,w]. Each map on its own."""
    return ndimage.gaussian_filter(maps, (0, *[max(1.0, maps.shape[-1] / 64)] * 2))


def reduce(maps: np.ndarray, how: str) -> np.ndarray:
    """[N,h,w] -> float64 [N]: the `mean`, the `max`, or `top1`, the mean of the highest 1 % (at
    least one cell)."""
    values = maps.reshape(len(maps), -1)
    if how == "top1":
        count = max(1, round(values.shape[1] / 100))
        values = np.partition(values, values.shape[1] - count, axis=1)[:, -count:]
    return (values.max(axis=1) if how == "max" else values.mean(axis=1, dtype=np.float64)).astype(
        np.float64)


def scale_of(maps: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Mean and deviation of each smoothed map over good images: what puts maps of different units
    on one scale."""
    smoothed = {name: smooth(values) for name, values in maps.items()}
    return {
        name: (float(values.mean(dtype=np.float64)), max(float(values.std(dtype=np.float64)),
                                                         1e-12))
        for name, values in smoothed.items()
    }


def all_maps(maps: dict[str, np.ndarray], scale: dict[str, tuple[float,
                                                                 float]]) -> dict[str, np.ndarray]:
    """The maps smoothed, and `sum` where there is more than one."""
    smoothed = {name: smooth(values) for name, values in maps.items()}
    if len(maps) > 1:
        smoothed["sum"] = sum(
            (values - scale[name][0]) / scale[name][1] for name, values in smoothed.items())
    return smoothed


def table(maps: dict[str, np.ndarray], scale: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """Every score of some images: a column "map.reduction", a row an image."""
    return reduced(maps, all_maps(maps, scale))


def reduced(maps: dict[str, np.ndarray], smoothed: dict[str, np.ndarray]) -> pd.DataFrame:
    """The same where the smoothed maps (all_maps) are at hand."""
    # The mean is that of the map as it is; smoothing changes it by rounding only.
    columns = {
        f"{name}.{how}": reduce(maps[name] if how == "mean" and name in maps else smoothed[name],
                                how)
        for name in smoothed
        for how in REDUCTIONS
    }
    return pd.DataFrame(columns)


def label_free(good: pd.DataFrame, anomalous: pd.DataFrame,
               kinds: typing.Sequence[str]) -> pd.DataFrame:
    """How well each score tells held-out good images from synthetic anomalies: a row a score,
    columns score, all and the kinds.

    good, anomalous: tables of the same columns. Each cell is an AUROC. `all` is the mean over the
    kinds, so that no kind counts for more than another. In the order of the columns; see `choose`.
    """
    kinds = np.asarray(kinds)
    rows = []
    for name in good.columns:
        row: dict[str, typing.Any] = {"score": name}
        for kind in dict.fromkeys(kinds):
            values = anomalous[name].to_numpy()[kinds == kind]
            row[kind] = metrics.auroc(np.r_[np.zeros(len(good), int),
                                            np.ones(len(values), int)], np.r_[good[name], values])
        row["all"] = float(np.mean([row[kind] for kind in dict.fromkeys(kinds)]))
        rows.append(row)
    return pd.DataFrame(rows)


def choose(ranking: pd.DataFrame, primary: str) -> str:
    """The score that label_free ranks first; `primary`, the configuration's own, where none is
    better than that."""
    values = ranking.set_index("score")["all"]
    return primary if values[primary] == values.max() else str(values.idxmax())
