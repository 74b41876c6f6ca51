"""The reference's way, done plainly and fairly: the yardstick that `make bench` measures the study
against.

What its README says, and where it is silent the constants of its code: images decoded and resized
by a DataLoader in every epoch, float32, Adam, ReduceLROnPlateau (factor 0.5, patience 10) on the
training loss, the last epoch as the result; no ImageNet normalisation, batch norm of the frozen
layers left in train mode, SSIM with a zero-padded 11 x 11 window. Fair: the loader has two workers
that live as long as the training, as anybody's would who cared; no debug output; the same networks.
"""
from __future__ import annotations

import argparse
import dataclasses
import json
import time
import typing
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from adlib.config import Config
from adlib.data.part import Part, open_part
from adlib.evaluation.results import truth_of
from adlib.models import autoencoders, weights
from adlib.models.fast.device import pick_device
from adlib.runs import grid
from benchmarks import common

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
            return functional.to_tensor(image.convert("RGB").resize((self.size, self.size),
                                                                    Image.Resampling.BILINEAR))


class ReferenceResNetAE(autoencoders.ResNetAE):
    """The reference's own: no ImageNet normalisation, and the frozen layers' batch norm follows the
    training images."""

    def train(self, mode: bool = True) -> ReferenceResNetAE:
        return nn.Module.train(self, mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))


class PlainSSIM(nn.Module):
    """Mean SSIM of two [N,3,S,S] in [0,1]: five depthwise convolutions with an 11 x 11 window,
    zero-padded."""

    def __init__(self) -> None:
        super().__init__()
        taps = torch.exp(-((torch.arange(11.0) - 5)**2) / (2 * 1.5**2))
        window = (taps[:, None] * taps / taps.sum()**2).expand(3, 1, 11, 11).contiguous()
        self.register_buffer("window", window)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        def blur(image: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv2d(image, self.window, padding=5, groups=3)

        mean_x, mean_y = blur(x), blur(y)
        var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
        covariance = blur(x * y) - mean_x * mean_y
        return ((2 * mean_x * mean_y + 1e-4) * (2 * covariance + 9e-4) /
                ((mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4))).mean()


def build(config: Config) -> nn.Module:
    """The reference's network on the CPU, with the weights that `config` gives by path, or random
    ones for `none`."""
    torch.manual_seed(config.seed)
    if config.model == "cae":
        return autoencoders.CAE()
    network = ReferenceResNetAE()
    if config.weights != "none":
        state = weights.read_state(Path(config.weights))
        weights.load_encoder(network.encoder, state, config.weights)
    return network


def fit(pictures: typing.Sequence[torch.Tensor], config: Config, device: torch.device,
        after: typing.Callable[[int, nn.Module], None] = lambda epoch, network: None,
        memory_format: torch.memory_format = torch.contiguous_format
        ) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train on `Pictures` for config.epochs: the network, and {seconds, loss} of each epoch.
    after(epoch, network): called untimed."""
    network = build(config).to(device, memory_format=memory_format)
    similarity = PlainSSIM().to(device)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=config.lr)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=10)
    loader = DataLoader(pictures, config.batch_size, shuffle=True, num_workers=WORKERS,
                        persistent_workers=True,
                        generator=torch.Generator().manual_seed(config.seed))
    history = []
    for epoch in range(1, config.epochs + 1):
        started, total = time.perf_counter(), 0.0
        network.train()
        for x in loader:
            x = x.to(device, memory_format=memory_format)
            y = network(x)
            loss = nn.functional.mse_loss(y, x)
            if config.ssim_weight:
                loss = (1 - config.ssim_weight) * loss + config.ssim_weight * (1 - similarity(x, y))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(x)
        scheduler.step(total)
        history.append({"seconds": time.perf_counter() - started, "loss": total / len(pictures)})
        after(epoch, network)
    return network, history


def scores(network: nn.Module, paths: typing.Sequence[Path], config: Config,
           device: torch.device) -> np.ndarray:
    """Its score, the mean squared error of each image."""
    loader = DataLoader(Pictures(paths, config.image_size), config.batch_size, num_workers=WORKERS)
    network.eval()
    with torch.no_grad():
        parts = [(network(x) - x).square().mean(dim=(1, 2, 3)).cpu().numpy()
                 for x in (batch.to(device) for batch in loader)]
    return np.concatenate(parts)


def finish(network: nn.Module, part: Part, device: torch.device, losses: list[float],
           folder: Path) -> float:
    """Its artefacts: the AUROC, all_results.csv and the four figures. Returns the images it scored
    a second."""
    import matplotlib
    import pandas as pd
    from sklearn import metrics

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    started = time.perf_counter()
    table = pd.DataFrame({"path": part.test.paths,
                          "score": scores(network, part.test.paths, part.config, device)})
    seconds = time.perf_counter() - started
    table["label"] = truth_of(part)
    table.to_csv(folder / "all_results.csv", index=False)

    figure, axes = plt.subplots()
    axes.plot(losses)
    figure.savefig(folder / "loss_curve.png")
    figure, axes = plt.subplots()
    fpr, tpr, _ = metrics.roc_curve(table["label"], table["score"])
    axes.plot(fpr, tpr, label=f"AUROC {metrics.auc(fpr, tpr):.3f}")
    axes.legend()
    figure.savefig(folder / "roc_curve.png")
    figure, axes = plt.subplots()
    for label in (0, 1):
        axes.hist(table.loc[table["label"] == label, "score"], alpha=0.5, bins=30)
    figure.savefig(folder / "score_distribution.png")
    ordered = Pictures(list(table.sort_values("score")["path"]), part.config.image_size)
    shown = torch.stack([ordered[i * (len(ordered) - 1) // 5] for i in range(6)])
    with torch.no_grad():
        made = network(shown.to(device)).cpu()
    figure, axes = plt.subplots(3, 6)
    difference = (shown - made).abs().mean(dim=1, keepdim=True)
    for row, pictures in zip(axes, (shown, made, difference), strict=True):
        for ax, picture in zip(row, pictures, strict=True):
            ax.imshow(picture.permute(1, 2, 0).numpy())
    figure.savefig(folder / "visualization_result.png")
    return len(table) / seconds


def main() -> None:
    """One run in a process of its own; what it measured goes to FOLDER/reference.json."""
    parser = argparse.ArgumentParser()
    for name in ("data", "weights", "category", "config", "folder"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--epochs", type=int, default=0, help="fewer: to measure an epoch")
    given = parser.parse_args()
    planned = grid.plan("params/grids/reference.yaml", data_root=given.data, weights=given.weights)
    full = next(task.config for task in planned if task.kind == "run" and
                (task.config.category, task.config.name) == (given.category, given.config))
    config = dataclasses.replace(full, epochs=given.epochs or full.epochs)
    part, device, folder = open_part(config), pick_device("auto"), Path(given.folder)
    common.labelled(part.category)
    started = time.perf_counter()  # it trains on as many images as ours
    network, history = fit(Pictures(part.train.paths, config.image_size), config, device)
    trained = time.perf_counter()
    rate = finish(network, part, device, [row["loss"] for row in history], folder)
    (folder / "reference.json").write_text(json.dumps({
        "epoch_seconds": [row["seconds"] for row in history], "epochs": full.epochs,
        "images": len(part.train), "train_seconds": trained - started,
        "finish_seconds": time.perf_counter() - trained, "scored_per_second": rate}),
        encoding="utf-8")


if __name__ == "__main__":
    main()
