"""What is left of the glue of the run notebooks."""
from __future__ import annotations

import time
import typing
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from adlib.config import Config
from adlib.data import files
from adlib.evaluation import calibration, evaluate
from adlib.models import training


def machine(config: Config) -> dict[str, typing.Any]:
    """The device, the number of threads and the precision, as the manifest wants them."""
    device = training.pick_device(config.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": name, "threads": torch.get_num_threads(), "precision": training.precision(
            config, device)
    }


def timed(function: typing.Callable, *values: typing.Any) -> tuple[typing.Any, float]:
    """What a function returns, and the seconds it took."""
    started = time.perf_counter()
    return function(*values), time.perf_counter() - started


def metrics(history: list[dict], scored: calibration.Scored, results: pd.DataFrame,
            follows: dict[str, float | None],
            localisation: dict[str, typing.Any] | None) -> dict[str, typing.Any]:
    """What metrics.json holds: numbers that equal inputs make equal, so no times."""
    last = history[-1] if history else {"loss": None, "held_out_loss": None}
    ranking = scored.ranking.to_dict("records") if "all" in scored.ranking else []
    return {
        "auroc": evaluate.auroc(results), "score": scored.primary,
        "operating": evaluate.operating(results), "chosen": {
            "score": scored.chosen, "auroc": evaluate.auroc(results, "chosen_score"),
            "operating": evaluate.operating(results, "chosen_")
        }, "label_free": ranking, "calibration": {
            "images": scored.calibration, "how": scored.how, "scores": scored.known.tolist()
        }, "maps": {"scale": scored.scale, "low": scored.low, "level": scored.level},
        "localisation": localisation, "epochs": len(history), "final_loss": last["loss"],
        "final_held_out_loss": last["held_out_loss"], "confounders": follows
    }


def save_model(model: nn.Module, path: Path) -> None:
    """Save the state dict, loadable with torch.load(path, weights_only=True)."""
    with files.atomic_path(path) as temporary:
        torch.save({name: tensor.detach().cpu()
                    for name, tensor in model.state_dict().items()}, temporary)
