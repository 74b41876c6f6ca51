"""The glue of the run notebooks: the steps between two rooms, and the figures and tables that need
several of them."""
from __future__ import annotations

import dataclasses
import time
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from adlib.config import STATISTICS, Config
from adlib.data import files, images, layout
from adlib.evaluation import calibration, evaluate, verdicts
from adlib.models import anomaly_maps, featurespace, training
from adlib.report import figures, overlays, panels, words
from adlib.report.data_sentences import data_source
from adlib.report.figures import say
from adlib.report.i18n import Text, html, join, t

TILES = 96  # images that a run's page shows: with three pictures each they stay below 2 MB


def banner(category: layout.Category, rule: str) -> None:
    """What data this page is about; where it is synthetic, in a box that nobody can miss. rule: what
    found the data (layout.find_root), "" to leave it out."""
    from IPython.display import HTML, display

    if category.synthetic:
        drawn = t("run.these_pictures_were_drawn_program")
        display(
            HTML(f'<p class="synthetic"><strong>{html(t("run.synthetic_data"))}</strong> '
                 f'{html(drawn)}</p>'))
    counts = {"layout": category.layout, "train": len(category.train), "test": len(category.test)}
    counted = (t("run.layout_layout_train_good_training", bad=len(category.train_bad), **counts)
               if category.train_bad else t("run.layout_layout_train_good_training_2", **counts))
    source = data_source(rule, category.root.resolve().name) if rule else ""
    say(join(filter(None, (t("run.category_category", category=category.name), source, counted))))


def placed(config: Config, category: layout.Category) -> Config:
    """The config with its category filled in: empty means the first one found."""
    return dataclasses.replace(config, category=category.name)


def show(fragment: str) -> None:
    """Display HTML of `panels` in the notebook; nothing where it is empty."""
    from IPython.display import HTML, display

    if fragment:
        display(HTML(fragment))


def machine(config: Config) -> dict[str, typing.Any]:
    """The device, the number of threads and the precision, as the manifest wants them."""
    device = training.pick_device(config.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": name, "threads": torch.get_num_threads(), "precision": training.precision(
            config, device)
    }


def facts(config: Config, category: layout.Category, model: nn.Module, weights: str) -> None:
    """The run in one line: device, precision, size of the network, where its weights came from."""
    total, trained = (sum(p.numel() for p in model.parameters() if p.requires_grad or every)
                      for every in (True, False))
    about = machine(config)
    say(
        t("run.configuration_name_seed_seed_epochs", name=config.name, seed=config.seed,
          epochs=config.epochs, optimizer=config.optimizer.capitalize(), size=config.image_size,
          mse=1 - config.ssim_weight, ssim=config.ssim_weight, total=total / 1e6,
          trained=trained / 1e6, weights=weights, **about))


def feature_facts(config: Config, weights: str, kept: torch.Tensor) -> None:
    """A run in feature space in one line. kept: the indices of the images it may be fitted on."""
    fitted_on = len(featurespace.sample(kept, config))
    network = t("run.no_network_all") if config.model in STATISTICS else t(
        "run.stages_layers_frozen_resnet18_encoder", layers=config.layers, weights=weights)
    said = t("run.configuration_name_seed_seed_detector", name=config.name, seed=config.seed,
             model=config.model, size=config.image_size, network=network, **machine(config))
    sampled = t("run.fitted_sample_n_good_images", n=fitted_on,
                of=len(kept)) if fitted_on < len(kept) else ""
    say(join(filter(None, (said, sampled))))


def timed(function: typing.Callable, *values: typing.Any) -> tuple[typing.Any, float]:
    """What a function returns, and the seconds it took."""
    started = time.perf_counter()
    return function(*values), time.perf_counter() - started


def show_history(history: list[dict], folder: Path) -> None:
    """The loss curve of a detector that was trained; a sentence for one in closed form."""
    if not history:
        say(t("run.nothing_trained_detector_computed_good"))
        return
    training.write_history(folder / "history.csv", history)
    figures.show(figures.loss_curve(history), words.loss(history), folder / "loss_curve.png")
    say(words.loss(history))


def localisation_table(found: dict[str, typing.Any] | None) -> None:
    """The same by defect type and by size, as a table; nothing where there is nothing to part."""
    groups = (found or {}).get("groups", [])
    if groups:
        names = {
            "pixel_auroc": t("run.pixel_auroc"), "pixel_ap": t("run.pixel_ap"),
            "au_pro_30": "AU-PRO .30", "au_pro_05": "AU-PRO .05"
        }
        head = "".join(
            f'<th scope="col">{html(name)}</th>'
            for name in (t("run.good_images"), t("run.defective_images"), *names.values()))
        rows = "".join(f"<tr><td>{html(row['group'])}</td><td>{row['images']}</td>" +
                       "".join(f"<td>{row[name]:.3f}</td>" for name in names) + "</tr>"
                       for row in groups)
        show(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")


def heat_maps(category: layout.Category, results: pd.DataFrame, scored: calibration.Scored,
              config: Config, each: int = 5) -> tuple[typing.Any, Text]:
    """Figure and text: anomalous images of the highest and lowest chosen score and the highest
    other ones, with the map's contour.

    One colour scale for all; the contour is the level that one in twenty held-out good images
    reaches anywhere.
    """
    test = results[results["split"] == "test"].sort_values("chosen_score", ascending=False)
    anomalous = (test["label"] == 1).fillna(False)  # unlabelled images are shown with the good ones
    bad, rest = test[anomalous], test[~anomalous]
    chosen = pd.concat([
        bad.head(each - each // 2), bad.iloc[each - each // 2:].tail(each // 2),
        rest.head(3 if len(bad) else each)
    ])
    paths = [category.root / path for path in chosen["path"]]
    pictures = images.load(paths, config.image_size)
    maps = scored.maps[_places(category, paths)]
    truth = images.load_masks([
        layout.mask_path(category, path) if category.layout == "mvtec" else None for path in paths
    ], config.image_size)
    titles = [f"{row.defect or 'unlabelled'}\n{Path(row.path).name}" for row in chosen.itertuples()]
    figure = figures.heat_maps(
        pictures.permute(0, 2, 3, 1).numpy(), maps, truth.numpy(), titles, low=scored.low,
        level=scored.level)
    names = join(
        (t("view.defect_file", defect=row.defect or t("view.unlabelled"), file=Path(row.path).name)
         for row in chosen.itertuples()), ", ")
    return figure, join([
        t("run.anomaly_maps_score_n_test", score=scored.chosen, n=len(chosen), names=names),
        t("view.dashed_map_exceeds_one_twenty_2")
        if truth.any() else t("view.dashed_map_exceeds_one_twenty")
    ])


def gallery(category: layout.Category, results: pd.DataFrame, scored: calibration.Scored,
            config: Config, model: nn.Module | None = None) -> str:
    """The test images with their maps as HTML (panels.gallery), all of them or the most telling
    ones; with its reconstructions if `model` is an autoencoder. One colour scale for all; outlines
    as in heat_maps."""
    test = results[results["split"] == "test"]
    level = verdicts.asked(results, config.target_fpr, "chosen_")
    rows = verdicts.select_informative(
        test.assign(score=test["chosen_score"], p_value=test["chosen_p_value"]), level, TILES)
    paths = [category.root / path for path in rows["path"]]
    loaded = images.load(paths, config.image_size)
    masks = images.load_masks([
        layout.mask_path(category, path) if category.layout == "mvtec" else None for path in paths
    ], config.image_size)
    redrawn = None if model is None else anomaly_maps.examples(model, loaded,
                                                               config)["reconstruction"]
    tiles = []
    for i, (picture, map_) in enumerate(
            zip(
                loaded.permute(0, 2, 3, 1).numpy(), scored.maps[_places(category, paths)],
                strict=True)):
        shown = {t("view.input"): picture
                 } | ({} if redrawn is None else
                      {t("view.reconstruction"): (redrawn[i] * 255 + 0.5).astype(np.uint8)})
        shown[t("view.anomaly_map_over_input")] = overlays.overlay(
            picture, map_, low=scored.low, level=scored.level, truth=masks[i].numpy())
        tiles.append({what: overlays.uri(image, panels.TILE) for what, image in shown.items()})
    return panels.gallery(rows, tiles, level, scored.chosen, len(test))


def _places(category: layout.Category, paths: list[Path]) -> list[int]:
    """Where test images stand in category.test, and so among the maps of a run."""
    where = {path: i for i, path in enumerate(category.test)}
    return [where[path] for path in paths]


def visualization(model: nn.Module, category: layout.Category, results: pd.DataFrame,
                  config: Config, each: int = 4) -> tuple[typing.Any, Text]:
    """The figure of input, reconstruction and residual, and its text: the lowest and highest scores
    of each class."""
    test = results[results["split"] == "test"].sort_values("score")
    groups = {
        "good": test[test["label"] == 0], "anomalous": test[test["label"] == 1],
        "unlabelled": test[test["label"].isna()]
    }
    chosen = pd.concat([
        rows if len(rows) <= each else pd.concat(
            [rows.head(each // 2), rows.tail(each - each // 2)]) for rows in groups.values()
    ])
    # The warm end: what one pixel in a thousand of the good training images exceeds, the same for
    # every picture.
    normal = anomaly_maps.examples(model, images.load(category.train[:64], config.image_size),
                                   config)["residual"]
    scale = float(np.quantile(normal, 0.999))
    pictures = anomaly_maps.examples(
        model, images.load([category.root / path for path in chosen["path"]], config.image_size),
        config)
    titles = [
        f"{row.defect or 'unlabelled'}\n{Path(row.path).name}\n{row.score:.4f}"
        for row in chosen.itertuples()
    ]
    found = join((t("run.name_value_f", name=row.defect or t("view.unlabelled"), value=row.score)
                  for row in chosen.itertuples()), ", ")
    return figures.visualization(pictures, titles, scale), t(
        "run.input_reconstruction_residual_heat_map", n=len(chosen), found=found, scale=scale)


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
