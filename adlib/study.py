"""The words and the glue of the run notebooks: what they say about their own numbers, and the steps between two rooms.

Every sentence is made from the numbers it is given; none is written in advance.
"""
from __future__ import annotations

import dataclasses
import time
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from adlib import conformal, data, decide, evaluate, files, images, plots, score, train
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


def feature_facts(config: Config, weights: str) -> None:
    """A run in feature space in one line."""
    about = machine(config)
    say(f"Configuration {config.name}, seed {config.seed}: detector {config.model} on {about['device']} ({about['threads']} threads), "
        f"{about['precision']}, {config.image_size} px, "
        + ("no network at all." if config.model in STATISTICS else
           f"stages {config.layers} of the frozen ResNet18. Encoder weights: {weights}."))


def decisions(scored: decide.Scored, config: Config) -> str:
    """What was decided without a test label, in words."""
    text = ""
    if "all" in scored.ranking:
        best = scored.ranking.set_index("score").loc[scored.chosen]
        kinds = ", ".join(f"{kind} {best[kind]:.3f}" for kind in scored.ranking.columns if kind not in ("score", "all"))
        text = (f"Of {len(scored.ranking)} scores, {scored.chosen} is chosen: it tells held-out good images from synthetic anomalies "
                f"with an AUROC of {best['all']:.3f} ({kinds}). ")
    if not conformal.supports(scored.calibration, config.false_alarms):
        return text + conformal.sentence(scored.calibration, config.false_alarms)
    return text + (f"The threshold rests on {scored.calibration} good images ({scored.how}): a part is called anomalous where fewer than "
                   f"{config.false_alarms:.0%} of good ones would score as high.")


def score_sentence(scores: pd.DataFrame) -> str:
    """How well the label-free order of the scores foretells the real one."""
    named = ", ".join(f"{row.score} {row.test:.3f}" for row in scores.itertuples() if row.role)
    text = f"{len(scores)} scores; on the test split {named}."
    if len(scores) < 3 or scores["label_free"].isna().any() or scores["test"].isna().any():
        return text
    agreement, best = scores["label_free"].corr(scores["test"], method="spearman"), scores.loc[scores["test"].idxmax()]
    return text + (f" The label-free order and the real one have a rank correlation of {agreement:+.2f}; with the labels one would have "
                   f"taken {best['score']} ({best['test']:.3f}).")


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
    plots.show(plots.loss_curve(history), loss_sentence(history), folder / "loss_curve.png")
    say(loss_sentence(history))


def operating_sentence(operating: dict[str, dict[str, typing.Any]], prefix: str = "With the label-free threshold") -> str:
    """False alarms and detections on the test split, with what the best threshold in hindsight would have given."""
    entry = operating["test"]
    if entry["false_alarms"] is None:
        return f"{prefix}: no predictions, because no good image was held out."
    false, found = entry["false_alarms"], entry["detections"]
    parts = [f"{which['count']} of {which['n']} {name} ({which['rate']:.0%}, 95 % interval {which['low']:.0%} to {which['high']:.0%})"
             for which, name in ((false, "good test images are called anomalous"), (found, "anomalous ones are found")) if which["n"]]
    text = f"{prefix}, " + " and ".join(parts) + "."
    oracle = entry["oracle_f1"]
    return text + ("" if oracle is None else f" An oracle that knows the test labels and takes the threshold of the best F1 would have "
                   f"{oracle['false_alarms']:.0%} false alarms and {oracle['detections']:.0%} detections.")


def localisation_sentence(found: dict[str, typing.Any] | None) -> str:
    if found is None:
        return "There are no masks of the defects, so where they are cannot be judged."
    if "why_absent" in found:
        return f"Localisation cannot be judged: {found['why_absent']}."
    text = (f"Over all pixels of {found['images']} test images: AUROC {found['pixel_auroc']:.3f}, average "
            f"precision {found['pixel_ap']:.3f}, "
            f"AU-PRO {found['au_pro_30']:.3f} up to 30 % false positives and {found['au_pro_05']:.3f} up to 5 %.")
    if found["without_mask"]:
        text += f" {found['without_mask']} anomalous images have no mask and are left out."
    return text


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
    """Figure and text: anomalous images of the highest and lowest chosen score and the highest good ones, with the map's contour.

    One colour scale for all; the contour is the level that one in twenty held-out good images reaches anywhere.
    """
    test = results[results["split"] == "test"].sort_values("chosen_score", ascending=False)
    bad, good = test[test["label"] == 1], test[test["label"] != 1]
    chosen = pd.concat([bad.head(each - each // 2), bad.iloc[each - each // 2:].tail(each // 2), good.head(3)])
    paths = [category.root / path for path in chosen["path"]]
    pictures = images.load(paths, config.image_size)
    maps = decide.maps(scorer, pictures, scored.chosen, scored.scale)
    normal = decide.maps(scorer, images.load(decide.split_of(category, config)["held_out"] or list(category.train[:40]),
                                             config.image_size), scored.chosen, scored.scale)
    level = float(np.quantile(normal.max(axis=(1, 2)), 0.95))
    truth = images.load_masks([data.mask_path(category, path) if category.layout == "mvtec" else None for path in paths], config.image_size)
    titles = [f"{row.defect or 'unlabelled'}\n{Path(row.path).name}" for row in chosen.itertuples()]
    figure = plots.heat_maps(pictures.permute(0, 2, 3, 1).numpy(), maps, truth.numpy(), titles, low=float(np.median(normal)), level=level)
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


def epochs_sentence(epochs: pd.DataFrame) -> str:
    known = epochs.dropna()
    if known.empty:
        return "There are no labels of both classes, so no AUROC over epochs."
    first, last, top = known.iloc[0], known.iloc[-1], known.loc[known["auroc"].idxmax()]
    return (f"AUROC is {first['auroc']:.3f} after epoch {first['epoch']:.0f} and {last['auroc']:.3f} after epoch {last['epoch']:.0f}; "
            f"the highest of the epochs looked at is {top['auroc']:.3f}, after epoch {top['epoch']:.0f}.")


def follows_sentence(follows: dict[str, float | None]) -> str:
    """What the score follows where there is no defect (evaluate.follows)."""
    words = [f"{name} {'none' if value is None else f'{value:+.2f}'}" for name, value in follows.items()]
    return f"Rank correlation of the score with the looks of the good test images: {', '.join(words)}. Near 0 is as it should be."


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
