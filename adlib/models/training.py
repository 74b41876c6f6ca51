"""Training: the loss, the loop, its schedule, its history, and the checkpoint of a killed run."""
from __future__ import annotations

import math
import time
import typing
from pathlib import Path

import torch
from torch import nn

from adlib.config import Config, InputError, log
from adlib.data import files
from adlib.data.images import to_float
from adlib.models import ssim
from adlib.models.fast import optimizers
from adlib.models.fast.device import AT_ONCE, autocast, pick_device, placed, precision

CHECKPOINT_EVERY_S = 20.0  # a kill costs at most this much work, and changes no number
SHORT_MEMORY = 0.95  # Adam's second beta for one_cycle: a run of some hundred steps is short
SNAPSHOT_EPOCHS = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # kept for the AUROC over epochs
Area = torch.Tensor | None  # bool [N,S,S], which pixels of some images count; None = all
Loss = typing.Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (images, reconstructions)


def loss_terms(x: torch.Tensor, reconstruction: torch.Tensor,
               ssim_weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(1 - a) MSE + a (1 - SSIM), and its MSE: float32 scalars of two [N,3,H,W] in [0,1]."""
    mse = nn.functional.mse_loss(reconstruction.float(), x)
    if ssim_weight == 0:
        return mse, mse
    dissimilarity = 1 - ssim.ssim_index(x, reconstruction.float(), data_range=1.0).mean()
    return (1 - ssim_weight) * mse + ssim_weight * dissimilarity, mse


def train(network: nn.Module, images: torch.Tensor, validation: torch.Tensor | None,
          config: Config, *, run: typing.Any = None, loss: Loss | None = None,
          area: Area = None, validation_area: Area = None) -> list[dict[str, float]]:
    """Train a network in place to redraw good images; the last epoch is the result.

    Adam or Muon. Schedule `one_cycle`: up to config.lr and down to nothing, batch by batch (Smith
    and Topin 2017); `reference`: the reference's ReduceLROnPlateau (factor 0.5, patience 10) on the
    validation loss, or on the training loss where there is none.

    Args:
        images: uint8 [N,3,S,S], good ones; validation: others, or None.
        run: an `adlib.runs.Run`, whose folder gets checkpoint.pt and snapshots/. A killed one goes
            on from its checkpoint; None keeps nothing on disk.
        loss: another than `loss_terms`: (images, reconstructions) -> scalar.
        area, validation_area: bool [N,S,S], which pixels count; the others are as if redrawn
            without an error.

    Returns:
        The history, a row an epoch: epoch, lr, loss, mse, held_out_loss, seconds.

    Raises:
        InputError: for a loss that is not finite, naming the epoch and the likely cause.
    """
    device = pick_device(config.device)
    placed(network, device)
    images = images.to(device)  # decoded images stay on the device: the loop copies nothing
    held = images[:0] if validation is None else validation.to(device)
    area, held_area = (None if one is None else one.to(device) for one in (area, validation_area))
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimiser = _optimiser(parameters, config, device)
    steps = config.epochs * len(_batches(torch.arange(len(images)), config.batch_size))
    scheduler = _schedule(optimiser, config, steps)
    history = _resume(run, network, optimiser, scheduler)
    if history:
        log.info("going on after epoch %d, from its checkpoint", len(history))
    saved = time.monotonic()
    for epoch in range(len(history) + 1, config.epochs + 1):
        started = time.perf_counter()
        row = {"epoch": epoch, "lr": optimiser.param_groups[0]["lr"],
               **_one_epoch(network, optimiser, scheduler, images, config, epoch, loss, area)}
        row["held_out_loss"] = mean_loss(network, held, config, loss, held_area)
        if config.schedule == "reference":
            scheduler.step(
                row["loss"] if math.isnan(row["held_out_loss"]) else row["held_out_loss"])
        row["seconds"] = time.perf_counter() - started
        history.append(row)
        left = (config.epochs - epoch) * sum(r["seconds"] for r in history) / len(history)
        log.info("epoch %4d/%d  loss %.5f  held out %.5f  lr %.1e  %5.0f s left", epoch,
                 config.epochs, row["loss"], row["held_out_loss"], row["lr"], left)
        if run is None:
            continue
        run.progress({"epoch": epoch, "epochs": config.epochs, "loss": row["loss"],
                      "seconds_left": left})
        if epoch in SNAPSHOT_EPOCHS or epoch == config.epochs:
            _save(run.folder / "snapshots" / f"epoch-{epoch:05d}.pt", network.state_dict())
        if time.monotonic() - saved > CHECKPOINT_EVERY_S and epoch < config.epochs:
            _save(run.folder / "checkpoint.pt", {
                "identity": run.identity, "history": history, "model": network.state_dict(),
                "optimiser": optimiser.state_dict(), "scheduler": scheduler.state_dict()})
            saved = time.monotonic()
    return history


@torch.inference_mode()
def mean_loss(network: nn.Module, images: torch.Tensor, config: Config,
              loss: Loss | None = None, area: Area = None) -> float:
    """The mean loss over uint8 [N,3,S,S], the network in eval mode; NaN where there is no image."""
    if not len(images):
        return float("nan")
    network.eval()
    total = 0.0
    for index in torch.arange(len(images)).split(AT_ONCE):
        batch = images[index]
        x = to_float(batch).contiguous(memory_format=torch.channels_last)
        with autocast(config, images.device, learning=True):
            reconstruction = counting(network(x), x, area, index)
        total += len(batch) * _loss(x, reconstruction, config, loss)[0].item()
    return total / len(images)


def one_cycle(parameters: typing.Iterable[nn.Parameter],
              loss_of: typing.Callable[[torch.Tensor], torch.Tensor], count: int, *, epochs: int,
              batch_size: int, peak: float, seed: int) -> list[dict[str, float]]:
    """Train a small network whose inputs are computed already, with AdamW under OneCycleLR.

    Args:
        loss_of: int64 indices of samples -> their mean loss, a scalar. count: of samples.
        peak: the highest learning rate.

    Returns:
        The history, a row an epoch.

    Raises:
        InputError: for a loss that is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(parameters, lr=peak, weight_decay=1e-2)
    size = min(batch_size, count)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=peak,
                                                    total_steps=epochs * (count // size))
    history = []
    for epoch in range(1, epochs + 1):
        started, total, lr = time.perf_counter(), 0.0, scheduler.get_last_lr()[0]
        for index in torch.randperm(count, generator=generator)[:count // size * size].split(size):
            loss = loss_of(index)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            scheduler.step()
            total += loss.item() * size / (count // size * size)
        if not math.isfinite(total):
            raise InputError(f"the loss became {total} in epoch {epoch}; the learning rate {peak} "
                             "is probably too high")
        history.append({"epoch": epoch, "lr": lr, "loss": total, "held_out_loss": float("nan"),
                        "seconds": time.perf_counter() - started})
    return history


def counting(reconstruction: torch.Tensor, x: torch.Tensor, area: Area,
             index: torch.Tensor) -> torch.Tensor:
    """The reconstruction [B,3,S,S] where the area of images `index` counts, the image elsewhere."""
    if area is None:
        return reconstruction
    return torch.where(area[index][:, None], reconstruction, x.to(reconstruction.dtype))


def snapshots(folder: Path) -> dict[int, Path]:
    """{epoch: state dict of the network} of the epochs that a run kept."""
    return {int(path.stem.removeprefix("epoch-")): path
            for path in (folder / "snapshots").glob("epoch-*.pt")}


def _loss(x: torch.Tensor, reconstruction: torch.Tensor, config: Config,
          own: Loss | None) -> tuple[torch.Tensor, torch.Tensor]:
    if own is None:
        return loss_terms(x, reconstruction, config.ssim_weight)
    return own(x, reconstruction.float()), nn.functional.mse_loss(reconstruction.float(), x)


def _optimiser(parameters: list[nn.Parameter], config: Config,
               device: torch.device) -> torch.optim.Optimizer:
    betas = (0.9, 0.999) if config.schedule == "reference" else (0.9, SHORT_MEMORY)
    if config.optimizer == "adam":
        return optimizers.Adam(parameters, config.lr, betas)
    dtype = torch.bfloat16 if precision(config, device, learning=True) == "bf16" else torch.float32
    return optimizers.Muon(parameters, config.lr, betas, dtype)


def _schedule(optimiser: torch.optim.Optimizer, config: Config,
              steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    if config.schedule == "reference":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=10)
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=config.lr, total_steps=steps)


def _one_epoch(network: nn.Module, optimiser: torch.optim.Optimizer,
               scheduler: torch.optim.lr_scheduler.LRScheduler, images: torch.Tensor,
               config: Config, epoch: int, own: Loss | None, area: Area) -> dict[str, float]:
    network.train()
    # The order depends on the seed and the epoch alone: a resumed run sees the same batches.
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    order = torch.randperm(len(images), generator=generator)
    total = torch.zeros(2, device=images.device)
    for batch in _batches(order, config.batch_size):
        x = to_float(images[batch.to(images.device)]).contiguous(memory_format=torch.channels_last)
        with autocast(config, images.device, learning=True):
            reconstruction = counting(network(x), x, area, batch.to(images.device))
        loss, mse = _loss(x, reconstruction, config, own)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if config.schedule == "one_cycle":
            scheduler.step()
        total += len(batch) * torch.stack([loss.detach(), mse.detach()])
    loss, mse = (total / len(order)).tolist()
    if not math.isfinite(loss):
        raise InputError(f"the loss became {loss} in epoch {epoch}; the learning rate {config.lr} "
                         "is probably too high (or, with precision bf16, try float32)")
    return {"loss": loss, "mse": mse}


def _batches(order: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Split into batches; a last batch of one joins its neighbour, for batch norm needs two."""
    if len(order) < 2:
        raise InputError(f"{len(order)} good training images are too few to train a network with; "
                         "give at least 2, or take a configuration such as memory")
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _save(path: Path, state: dict) -> None:
    with files.atomic_path(path) as temporary:
        torch.save(state, temporary)


def _resume(run: typing.Any, network: nn.Module, optimiser: torch.optim.Optimizer,
            scheduler: torch.optim.lr_scheduler.LRScheduler) -> list[dict[str, float]]:
    path = run and run.folder / "checkpoint.pt"
    if path is None or not path.exists():
        return []
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, MemoryError):  # a disk that is away, say: the checkpoint may be sound
        raise
    except Exception as error:  # a damaged pickle can raise anything
        log.warning("%s is damaged (%s): training begins anew", path, type(error).__name__)
        state = {"identity": None}
    if state["identity"] != run.identity:  # or parameters, data or code have changed since
        path.unlink()
        return []
    network.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    scheduler.load_state_dict(state["scheduler"])
    return state["history"]
