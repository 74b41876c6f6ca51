"""Training: the loss, the loop, its schedule, its history, and a checkpoint that a killed run goes
on from."""
from __future__ import annotations

import csv
import math
import os
import time
import typing
from pathlib import Path

import torch
from torch import nn

from adlib.config import Config, InputError, log
from adlib.data import files, images
from adlib.models import ssim
from adlib.models.fast import optimizers

# a kill costs at most this much work; where it falls does not change the numbers
CHECKPOINT_EVERY_S = 20.0
# Adam's second beta for one_cycle: a run of some hundred steps is over before 0.999 has seen
# anything
SHORT_MEMORY = 0.95
# images, where nothing is learned: the small batches of training take half as much time again an
# image
AT_ONCE = 32
# kept for the AUROC over epochs, next to the last epoch
SNAPSHOT_EPOCHS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


def pick_device(name: str) -> torch.device:
    """`auto`: CUDA if there is one, then Apple's MPS, then the CPU. InputError if a device asked
    for is not there."""
    found = {
        "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True
    }
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if found[device])
    if not found[name]:
        raise InputError(
            f"device is {name!r}, but torch {torch.__version__} sees none here; use device: auto "
            f"or cpu")
    return torch.device(name)


def split(n: int, held_out: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of n good training images -> (to train on, held out), both int64 and sorted; decided
    by `seed` alone.

    A positive share holds out at least one image and leaves at least two to train on (batch norm
    needs two). Raises InputError when n is too small for that.
    """
    count = max(1, round(n * held_out)) if held_out > 0 else 0
    if n - count < 2:
        raise InputError(
            f"{n} good training images with held_out {held_out} leave {n - count} to train on; "
            "give more images or a smaller held_out")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[count:].sort().values, order[:count].sort().values


def loss_terms(x: torch.Tensor, reconstruction: torch.Tensor,
               ssim_weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(1-a)*MSE + a*(1-SSIM) and its MSE part: scalars, float32, of two [N,3,H,W] tensors in [0,1];
    a = `ssim_weight`."""
    mse = nn.functional.mse_loss(reconstruction.float(), x)
    if ssim_weight == 0:
        return mse, mse
    dissimilarity = 1 - ssim.ssim_index(x, reconstruction.float(), data_range=1.0).mean()
    return (1 - ssim_weight) * mse + ssim_weight * dissimilarity, mse


def fit(model: nn.Module, pictures: torch.Tensor, config: Config, *, folder: Path, identity: str,
        progress: typing.Callable[[dict], None] = lambda state: None) -> list[dict]:
    """Train `model` in place and return its history, one row an epoch.

    Adam or Muon; schedule one_cycle: up to config.lr and down to nothing, batch by batch (Smith and
    Topin 2017); reference: the reference's, ReduceLROnPlateau (factor 0.5, patience 10) on the loss
    of the held-out normals, or on the training loss where none are held out. The last epoch is the
    result: nothing is chosen by looking at a test image.

    pictures: uint8 [N,3,S,S], good images only. folder: gets checkpoint.pt (removed by
    runs.finish), snapshots/ (weights at some epochs) and history.csv. identity: what the numbers
    depend on; a checkpoint of another identity is not used. Raises InputError on a loss that is not
    finite, naming the epoch and the likely cause.
    """
    device = pick_device(config.device)
    model.to(device, memory_format=torch.channels_last)
    train_index, held_index = split(len(pictures), config.held_out, config.seed)
    pictures = pictures.to(device)  # decoded images stay on the device: the loop copies nothing
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = _optimiser(parameters, config, device)
    scheduler = _schedule(optimiser, config,
                          steps=config.epochs * len(_batches(train_index, config.batch_size)))
    history = _resume(folder / "checkpoint.pt", identity, model, optimiser, scheduler)
    if history:
        log.info("going on after epoch %d, from %s", len(history), folder / "checkpoint.pt")
    last_save = time.monotonic()
    for epoch in range(len(history) + 1, config.epochs + 1):
        started = time.perf_counter()
        row = {
            "epoch": epoch, "lr": optimiser.param_groups[0]["lr"], **_one_epoch(
                model, optimiser, scheduler, pictures, train_index, config, epoch)
        }
        row["held_out_loss"] = held_out_loss(model, pictures, held_index, config)
        if config.schedule == "reference":
            scheduler.step(
                row["loss"] if math.isnan(row["held_out_loss"]) else row["held_out_loss"])
        row["seconds"] = time.perf_counter() - started
        history.append(row)
        left = (config.epochs - epoch) * sum(r["seconds"] for r in history) / len(history)
        progress(
            {"epoch": epoch, "epochs": config.epochs, "loss": row["loss"], "seconds_left": left})
        log.info(f"epoch {epoch:4d}/{config.epochs}  loss {row['loss']:.5f}  held out "
                 f"{row['held_out_loss']:.5f}  lr {row['lr']:.1e}  {left:5.0f} s left")
        if epoch in SNAPSHOT_EPOCHS or epoch == config.epochs:
            _save(folder / "snapshots" / f"epoch-{epoch:05d}.pt", model.state_dict())
        if time.monotonic() - last_save > CHECKPOINT_EVERY_S and epoch < config.epochs:
            _save(
                folder / "checkpoint.pt", {
                    "identity": identity, "history": history, "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(), "scheduler": scheduler.state_dict()
                })
            last_save = time.monotonic()
    write_history(folder / "history.csv", history)
    return history


@torch.inference_mode()
def held_out_loss(model: nn.Module, pictures: torch.Tensor, index: torch.Tensor,
                  config: Config) -> float:
    """The mean loss over some of the pictures (uint8 [N,3,S,S]), the model in eval mode; NaN where
    `index` is empty."""
    if len(index) == 0:
        return float("nan")
    model.eval()
    total = 0.0
    for batch in index.split(AT_ONCE):
        x = images.to_float(pictures[batch.to(
            pictures.device)]).contiguous(memory_format=torch.channels_last)
        with autocast(config, pictures.device):
            reconstruction = model(x)
        total += len(batch) * loss_terms(x, reconstruction, config.ssim_weight)[0].item()
    return total / len(index)


def one_cycle(parameters: typing.Iterable[nn.Parameter], loss_of: typing.Callable[[torch.Tensor],
                                                                                  torch.Tensor],
              count: int, *, epochs: int, batch_size: int, peak: float, seed: int) -> list[dict]:
    """Train a small network whose inputs are computed already; returns the history, one row (epoch,
    lr, loss) an epoch.

    loss_of: the mean loss (scalar) of the samples of an int64 index. AdamW under OneCycleLR with
    its highest rate at `peak`. Raises InputError on a loss that is not finite.
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
            raise InputError(
                f"the loss became {total} in epoch {epoch}; the learning rate {peak} is probably "
                f"too high")
        history.append({
            "epoch": epoch, "lr": lr, "loss": total, "held_out_loss": float("nan"),
            "seconds": time.perf_counter() - started
        })
    return history


def write_history(path: Path, history: list[dict]) -> None:
    with files.atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)


def precision(config: Config, device: torch.device) -> str:
    """What the networks compute in, float32 or bf16. `auto` takes bf16 only where it is native:
    emulated, it is ten times slower."""
    if config.precision != "auto":
        return config.precision
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else (
        device.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    return "bf16" if native else "float32"


def autocast(config: Config, device: torch.device) -> torch.autocast:
    """bf16 where `precision` says so. The loss casts back: SSIM in bf16 is off by a tenth."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision(config,
                                                                               device) == "bf16")


def _optimiser(parameters: list[nn.Parameter], config: Config,
               device: torch.device) -> torch.optim.Optimizer:
    betas = (0.9, 0.999) if config.schedule == "reference" else (0.9, SHORT_MEMORY)
    if config.optimizer == "muon":
        return optimizers.Muon(
            parameters, config.lr, betas,
            torch.bfloat16 if precision(config, device) == "bf16" else torch.float32)
    return optimizers.Adam(parameters, config.lr, betas)


def _schedule(optimiser: torch.optim.Optimizer, config: Config,
              steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    if config.schedule == "reference":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=10)
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=config.lr, total_steps=steps)


def _one_epoch(model: nn.Module, optimiser: torch.optim.Optimizer,
               scheduler: torch.optim.lr_scheduler.LRScheduler, pictures: torch.Tensor,
               index: torch.Tensor, config: Config, epoch: int) -> dict[str, float]:
    model.train()
    # The order depends on the seed and the epoch alone, so a resumed run sees the same batches as
    # an unbroken one.
    order = index[torch.randperm(
        len(index), generator=torch.Generator().manual_seed(config.seed * 1_000_003 + epoch))]
    total = torch.zeros(2, device=pictures.device)
    for batch in _batches(order, config.batch_size):
        x = images.to_float(pictures[batch.to(
            pictures.device)]).contiguous(memory_format=torch.channels_last)
        with autocast(config, pictures.device):
            reconstruction = model(x)
        loss, mse = loss_terms(x, reconstruction, config.ssim_weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if config.schedule == "one_cycle":
            scheduler.step()
        total += len(batch) * torch.stack([loss.detach(), mse.detach()])
    loss, mse = (total / len(order)).tolist()
    if not math.isfinite(loss):
        raise InputError(
            f"the loss became {loss} in epoch {epoch}; the learning rate {config.lr} is probably "
            f"too high "
            "(or, with precision bf16, try float32)")
    return {"loss": loss, "mse": mse}


def _batches(order: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Split into batches; a last batch of one joins its neighbour, since batch norm cannot train on
    a single image."""
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _save(path: Path, state: dict) -> None:
    with files.atomic_path(path) as temporary:
        torch.save(state, temporary)


def _resume(path: Path, identity: str, model: nn.Module, optimiser: torch.optim.Optimizer,
            scheduler: torch.optim.lr_scheduler.LRScheduler) -> list[dict]:
    if not path.exists():
        return []
    state = torch.load(path, weights_only=True, map_location="cpu")
    if state["identity"] != identity:
        os.remove(path)  # the parameters, the data or the code changed since
        return []
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    scheduler.load_state_dict(state["scheduler"])
    return state["history"]
