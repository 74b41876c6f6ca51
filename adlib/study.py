"""The glue of the run notebooks: the steps between two rooms, and the figures and tables that need several of them."""
from __future__ import annotations

import dataclasses
import time
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from adlib import data, decide, evaluate, featurespace, files, images, plots, score, train, words
from adlib.config import STATISTICS, Config
from adlib.plots import say


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
    """The device, the number of threads and the precision, as the manifest wants them."""
    device = train.pick_device(config.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "threads": torch.get_num_threads(), "precision": train.precision(config, device)}


def facts(config: Config, category: data.Category, model: nn.Module, weights: str) -> None:
    """The run in one line: device, precision, size of the network, where its weights came from."""
    total, trained = (sum(p.numel() for p in model.parameters() if p.requires_grad or every) for every in (True, False))
    about = machine(config)
    say(f"Configuration {config.name}, seed {config.seed}: {config.epochs} epochs on {about['device']} ({about['threads']} threads), "
        f"{about['precision']}, {config.image_size} px, loss {1 - config.ssim_weight:g} x MSE + {config.ssim_weight:g} x (1 - SSIM). "
        f"{total / 1e6:.1f} million parameters, {trained / 1e6:.1f} million of them trained. Encoder weights: {weights}.")


def feature_facts(config: Config, weights: str, kept: torch.Tensor) -> None:
    """A run in feature space in one line. kept: the indices of the images it may be fitted on."""
    fitted_on = len(featurespace.sample(kept, config))
    about = machine(config)
    say(f"Configuration {config.name}, seed {config.seed}: detector {config.model} on {about['device']} ({about['threads']} threads), "
        f"{about['precision']}, {config.image_size} px, "
        + ("no network at all." if config.model in STATISTICS else
           f"stages {config.layers} of the frozen ResNet18. Encoder weights: {weights}.")
        + (f" Fitted on a sample of {fitted_on} of {len(kept)} good images." if fitted_on < len(kept) else ""))


def timed(function: typing.Callable, *values: typing.Any) -> tuple[typing.Any, float]:
    """What a function returns, and the seconds it took."""
    started = time.perf_counter()
    return function(*values), time.perf_counter() - started


def show_history(history: list[dict], folder: Path) -> None:
    """The loss curve of a detector that was trained; a sentence for one in closed form."""
    if not history:
        say("Nothing was trained: this detector is computed from the good images in closed form.")
        return
    train.write_history(folder / "history.csv", history)
    plots.show(plots.loss_curve(history), words.loss(history), folder / "loss_curve.png")
    say(words.loss(history))


def localisation_table(found: dict[str, typing.Any] | None) -> None:
    """The same by defect type and by size, as a table; nothing where there is nothing to part."""
    from IPython.display import HTML, display

    rows = pd.DataFrame((found or {}).get("groups", []))
    if not rows.empty:
        names = {"group": "Good images with", "images": "Defective images", "pixel_auroc": "Pixel AUROC", "pixel_ap": "Pixel AP",
                 "au_pro_30": "AU-PRO .30", "au_pro_05": "AU-PRO .05"}
        display(HTML(rows.rename(columns=names).to_html(index=False, border=0, escape=True, float_format="{:.3f}".format)))


def heat_maps(scorer: score.Scorer, category: data.Category, results: pd.DataFrame, scored: decide.Scored, config: Config,
              each: int = 5) -> tuple[typing.Any, str]:
    """Figure and text: anomalous images of the highest and lowest chosen score and the highest other ones, with the map's contour.

    One colour scale for all; the contour is the level that one in twenty held-out good images reaches anywhere.
    """
    test = results[results["split"] == "test"].sort_values("chosen_score", ascending=False)
    anomalous = (test["label"] == 1).fillna(False)  # unlabelled images are shown with the good ones
    bad, rest = test[anomalous], test[~anomalous]
    chosen = pd.concat([bad.head(each - each // 2), bad.iloc[each - each // 2:].tail(each // 2), rest.head(3 if len(bad) else each)])
    paths = [category.root / path for path in chosen["path"]]
    pictures = images.load(paths, config.image_size)
    maps = decide.maps(scorer, pictures, scored.chosen, scored.scale)
    low, level = decide.map_range(scorer, category, config, scored.chosen, scored.scale)
    truth = images.load_masks([data.mask_path(category, path) if category.layout == "mvtec" else None for path in paths], config.image_size)
    titles = [f"{row.defect or 'unlabelled'}\n{Path(row.path).name}" for row in chosen.itertuples()]
    figure = plots.heat_maps(pictures.permute(0, 2, 3, 1).numpy(), maps, truth.numpy(), titles, low=low, level=level)
    names = ", ".join(title.replace("\n", " ") for title in titles)
    return figure, (f"Anomaly maps ({scored.chosen}) of {len(chosen)} test images: {names}. Dashed: where the map exceeds what one in "
                    "twenty held-out good images reaches anywhere" + ("; solid: the true defect." if truth.any() else "."))


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


def metrics(history: list[dict], scored: decide.Scored, results: pd.DataFrame, follows: dict[str, float | None],
            localisation: dict[str, typing.Any] | None) -> dict[str, typing.Any]:
    """What metrics.json holds: numbers that equal inputs make equal, so no times."""
    last = history[-1] if history else {"loss": None, "held_out_loss": None}
    ranking = scored.ranking.to_dict("records") if "all" in scored.ranking else []
    return {"auroc": evaluate.auroc(results), "score": scored.primary, "operating": evaluate.operating(results),
            "chosen": {"score": scored.chosen, "auroc": evaluate.auroc(results, "chosen_score"),
                       "operating": evaluate.operating(results, "chosen_")},
            "label_free": ranking, "calibration": {"images": scored.calibration, "how": scored.how}, "localisation": localisation,
            "epochs": len(history), "final_loss": last["loss"], "final_held_out_loss": last["held_out_loss"],
            "follows": follows}


def save_model(model: nn.Module, path: Path) -> None:
    """Save the state dict, loadable with torch.load(path, weights_only=True)."""
    with files.atomic_path(path) as temporary:
        torch.save({name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}, temporary)
