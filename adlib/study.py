"""The words and the glue of the run notebooks: what they say about their own numbers, and the steps between two rooms.

Every sentence is made from the numbers it is given; none is written in advance.
"""
from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from adlib import data, files, images, plots, score, train
from adlib.config import Config


def say(text: str) -> None:
    """Show a sentence as text of the page; file names and labels in it are shown as they are, never as markup."""
    from html import escape

    from IPython.display import display

    display({"text/html": f"<p>{escape(text, quote=False)}</p>", "text/plain": text}, raw=True)


def banner(category: data.Category, source: str) -> None:
    """What data this page is about; where it is synthetic, in a box that nobody can miss."""
    from IPython.display import HTML, display

    if category.synthetic:
        display(HTML('<p class="synthetic"><strong>SYNTHETIC DATA.</strong> These pictures were drawn by a program. Nothing on '
                     'this page is a result on real parts.</p>'))
    say(f"Category: {category.name}. {source} Layout: {category.layout}. {len(category.train)} good training images, "
        f"{len(category.test)} test images" + (f", {len(category.train_bad)} known bad images that are never trained on."
                                               if category.train_bad else "."))


def placed(config: Config, category: data.Category) -> Config:
    """The config with its category filled in: empty means the first one found."""
    return dataclasses.replace(config, category=category.name)


def machine(config: Config) -> dict[str, typing.Any]:
    """The device and the number of threads, as the manifest wants them."""
    device = train.pick_device(config.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "threads": torch.get_num_threads()}


def facts(config: Config, category: data.Category, model: nn.Module, weights: str) -> None:
    """The run in one line: device, precision, size of the network, where its weights came from."""
    total, trained = (sum(p.numel() for p in model.parameters() if p.requires_grad or every) for every in (True, False))
    about = machine(config)
    say(f"Configuration {config.name}, seed {config.seed}: {config.epochs} epochs on {about['device']} ({about['threads']} threads), "
        f"{config.precision}, {config.image_size} px, loss {1 - config.ssim_weight:g} x MSE + {config.ssim_weight:g} x (1 - SSIM). "
        f"{total / 1e6:.1f} million parameters, {trained / 1e6:.1f} million of them trained. Encoder weights: {weights}.")


def score_splits(model: nn.Module, category: data.Category, config: Config) -> dict[str, tuple[list[Path], np.ndarray]]:
    """{split: (paths, scores [N])} for train, held_out, test and train_bad; no label is read."""
    kept, held = train.split(len(category.train), config.held_out, config.seed)
    splits = {"train": [category.train[i] for i in kept], "held_out": [category.train[i] for i in held],
              "test": list(category.test), "train_bad": list(category.train_bad)}
    return {name: (paths, score.mse_scores(model, images.load(paths, config.image_size), config))
            for name, paths in splits.items() if paths}


def visualization(model: nn.Module, category: data.Category, results: pd.DataFrame, config: Config,
                  each: int = 4) -> tuple[typing.Any, str]:
    """The figure of input, reconstruction and residual, and its text: the lowest and highest scores of each class."""
    test = results[results["split"] == "test"].sort_values("score")
    groups = {"good": test[test["label"] == 0], "anomalous": test[test["label"] == 1], "unlabelled": test[test["label"].isna()]}
    chosen = pd.concat([rows if len(rows) <= each else pd.concat([rows.head(each // 2), rows.tail(each - each // 2)])
                        for rows in groups.values()])
    # The warm end: what one pixel in a thousand of the good training images exceeds, the same for every picture.
    normal = score.examples(model, images.load(category.train[:64], config.image_size), config)["residual"]
    scale = float(np.quantile(normal, 0.999))
    pictures = score.examples(model, images.load([category.root / path for path in chosen["path"]], config.image_size), config)
    titles = [f"{row.defect or 'unlabelled'}\n{Path(row.path).name}\n{row.score:.4f}" for row in chosen.itertuples()]
    words = ", ".join(f"{row.defect or 'unlabelled'} {row.score:.4f}" for row in chosen.itertuples())
    return plots.visualization(pictures, titles, scale), (
        f"Input, reconstruction and residual heat map of {len(chosen)} test images (score under each name: {words}); "
        f"one colour scale from 0 to {scale:.3f}.")


def loss_sentence(history: list[dict]) -> str:
    first, last = history[0], history[-1]
    text = f"Over {len(history)} epochs the training loss went from {first['loss']:.4f} to {last['loss']:.4f}"
    if last["held_out_loss"] == last["held_out_loss"]:
        text += f", that of the held-out good images from {first['held_out_loss']:.4f} to {last['held_out_loss']:.4f}"
    return text + f"; the learning rate ended at {last['lr']:.1e}."


def auroc_sentence(auroc: dict[str, dict[str, typing.Any]]) -> str:
    """AUROC of both evaluation splits with interval and counts, or why there is none."""
    names = {"test": "AUROC on the test split", "train_bad": "AUROC of the test split's good images against train/bad"}
    return " ".join(f"{names[split]}: {_auroc_words(entry)}." for split, entry in auroc.items()
                    if split == "test" or entry["n_anomalous"])


def roc_sentence(entry: dict[str, typing.Any]) -> str:
    return f"ROC curve on the test split; AUROC {_auroc_words(entry)}."


def distribution_sentence(results: pd.DataFrame) -> str:
    """Medians of the three groups, and how many anomalous images score below the highest good one."""
    test = results[results["split"] == "test"]
    groups = {"training images": results.loc[results["split"] == "train", "score"],
              "good test images": test.loc[test["label"] == 0, "score"], "anomalous test images": test.loc[test["label"] == 1, "score"]}
    text = "Median score: " + ", ".join(f"{name} {scores.median():.4f}" for name, scores in groups.items() if len(scores)) + "."
    good, bad = groups["good test images"], groups["anomalous test images"]
    if len(good) and len(bad):
        text += f" {int((bad <= good.max()).sum())} of {len(bad)} anomalous images score no higher than the highest good one."
    return text


def epochs_sentence(epochs: pd.DataFrame, correlation: float) -> str:
    known = epochs.dropna()
    if known.empty:
        return "There are no labels of both classes, so no AUROC over epochs."
    first, last, top = known.iloc[0], known.iloc[-1], known.loc[known["auroc"].idxmax()]
    return (f"AUROC is {first['auroc']:.3f} after epoch {first['epoch']:.0f} and {last['auroc']:.3f} after epoch {last['epoch']:.0f}; "
            f"the highest of the epochs looked at is {top['auroc']:.3f}, after epoch {top['epoch']:.0f}. The score's rank correlation "
            f"with the image's brightness is {correlation:+.2f}.")


def metrics(history: list[dict], auroc: dict[str, typing.Any], correlation: float) -> dict[str, typing.Any]:
    """What metrics.json holds: numbers that equal inputs make equal, so no times."""
    last = history[-1]
    return {"auroc": auroc, "epochs": len(history), "final_loss": last["loss"], "final_held_out_loss": last["held_out_loss"],
            "brightness_correlation": correlation}


def answer(config: Config, category: data.Category, auroc: dict[str, dict[str, typing.Any]], weights: str) -> str:
    """The closing sentence of a run: its AUROC, what that means, and how sure one can be."""
    entry = auroc["test"]
    if entry["value"] is None:
        return f"{category.name}: scored, without an AUROC: {entry['why_absent']}."
    verdict = ("cannot be told from guessing" if entry["low"] <= 0.5 <= entry["high"] else
               "ranks good parts above bad ones" if entry["high"] < 0.5 else "is better than guessing")
    text = f"{category.name} AUROC: {entry['value']:.4f}. With this test set {config.name} {verdict} ({_auroc_words(entry)})."
    return text + (f" Its encoder weights were {weights}." if weights.startswith("RANDOM") else "")


def save_model(model: nn.Module, path: Path) -> None:
    """Save the state dict, loadable with torch.load(path, weights_only=True)."""
    with files.atomic_path(path) as temporary:
        torch.save({name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}, temporary)


def _auroc_words(entry: dict[str, typing.Any]) -> str:
    if entry["value"] is None:
        return f"none, because {entry['why_absent']}"
    return (f"{entry['value']:.3f} (95 % interval {entry['low']:.3f} to {entry['high']:.3f}; {entry['n_good']} good, "
            f"{entry['n_anomalous']} anomalous)")
