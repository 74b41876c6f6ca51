"""The study's questions that no single run answers: each a table and a sentence, from the run
folders alone.

Tables hold text that is ready to be read (tables.html_of, tables.text_of), in English, and
lang.chinese knows its words again; means are over the seeds of a configuration.
"""
from __future__ import annotations

import math
import typing
from pathlib import Path

import numpy as np
import pandas as pd

from adlib.config import STATISTICS
from adlib.data import files
from adlib.report import comparison, summary
from adlib.report.i18n import Text, t
from adlib.report.i18n import join as listed

TARGETS = ("to_pixels", "to_features", "to_features_squared")
PLACES = ("gaussian", "gaussian_anywhere")
PIXEL = {
    "pixel_auroc": "Pixel AUROC", "pixel_ap": "Pixel AP", "au_pro_30": "AU-PRO .30",
    "au_pro_05": "AU-PRO .05"
}
FOLLOWS = ("brightness", "size", "pose")


def scores(table: pd.DataFrame, reports: Path) -> pd.DataFrame:
    """Which score? A row a category, configuration and score of the autoencoders: label_free, test
    (AUROCs, means over the seeds), own (the configuration's own score), chosen (share of the seeds
    that chose it), picked (mean test AUROC of what each seed chose)."""
    found = []
    for (category, label), runs in _finished(table):
        studies = [
            pd.read_csv(path) for folder in runs["folder"]
            if (path := reports / folder / "score_study.csv").is_file()
        ]
        if len(studies) < len(runs) or any(
                len(one) < 5 or one["test"].isna().any() or one["label_free"].isna().any()
                for one in studies):
            continue
        together = pd.concat(studies)
        role = together["role"].fillna("")
        together = together.assign(own=role.str.contains("its own"),
                                   chosen=role.str.contains("chosen"))
        means = together.groupby("score", sort=False).agg(
            {"label_free": "mean", "test": "mean", "own": "max", "chosen": "mean"})
        found.append(means.reset_index().assign(
            category=category, label=label, picked=together.loc[together["chosen"], "test"].mean()))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(
        columns=["score", "label_free", "test", "own", "chosen", "category", "label", "picked"])


def scores_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Every score of every autoencoder: the real AUROC, in brackets the label-free one, a dot where
    a seed chose it."""
    cell = [
        f"{row.test:.3f} ({row.label_free:.3f})" + (" •" if row.chosen else "")
        for row in scores.itertuples()
    ]
    column = scores["category"] + ": " + scores["label"]
    wide = scores.assign(cell=cell, column=column).pivot_table(
        index="score", columns="column", values="cell", aggfunc="first", sort=False)
    return wide.fillna("").rename_axis("Score").rename_axis(None, axis=1).reset_index()


def choices(scores: pd.DataFrame) -> pd.DataFrame:
    """What the label-free choice is worth: the own score, the chosen one, the best in hindsight,
    and the rank correlation of all."""
    found = []
    for (category, label), part in scores.groupby(["category", "label"], sort=False):
        own, best = part[part["own"]].iloc[0], part.loc[part["test"].idxmax()]
        picked = t("question.scores_auroc_f", scores=comparison.join(
            part.loc[part["chosen"] > 0, "score"]), auroc=part["picked"].iloc[0])
        found.append({
            "Category": category, "Configuration": label,
            "Own score": f"{own['score']} {own['test']:.3f}", "Chosen without labels": picked,
            "Best in hindsight": f"{best['score']} {best['test']:.3f}",
            "Rank correlation, label-free and real": f"{_agreement(part):+.2f}"
        })
    return pd.DataFrame(found, dtype=object)  # which keeps a text's Chinese


def scores_sentence(scores: pd.DataFrame) -> Text:
    if scores.empty:
        return t("question.not_asked_here_needs_autoencoder")
    groups = [part for _, part in scores.groupby(["category", "label"], sort=False)]
    gains = [part["picked"].iloc[0] - part.loc[part["own"], "test"].iloc[0] for part in groups]
    lost = [part["test"].max() - part["picked"].iloc[0] for part in groups]
    ranks = [_agreement(part) for part in groups]
    return t("question.over_n_autoencoders_choosing_score", n=len(groups), gain=np.mean(gains),
             least=min(gains), most=max(gains), lost=np.mean(lost), rank=np.mean(ranks),
             lowest=min(ranks), highest=max(ranks))


def target(rows: pd.DataFrame) -> pd.DataFrame:
    """Pixels or features? The controlled experiment's rows (rows: summary.rows)."""
    return _columns(rows[rows["name"].isin(TARGETS)])


def target_sentence(table: pd.DataFrame, rows: pd.DataFrame, reports: Path) -> Text:
    """Whether features beat pixels, all with the same reduction of their map, by the paired test.
    """
    found = []
    for category, here in rows[rows["name"].isin(TARGETS) & rows["auroc"].notna()].groupby(
            "category", sort=False):
        chosen = here.set_index("name")
        if not {"to_pixels", "to_features"} <= set(chosen.index):
            continue
        pairs, pixels = summary.matrix(table, reports, category), chosen.loc["to_pixels"]
        parts = [
            t("question.label_auroc_f_p_p", label=row.label, auroc=row.auroc, p=summary.p_value(
                pairs, row.label, pixels["label"]))
            for row in chosen.drop(index="to_pixels").itertuples()
        ]
        found.append(
            t("question.category_against_pixels_auroc_f", category=category, pixels=pixels["label"],
              auroc=pixels["auroc"], others=comparison.join(parts)))
    if not found:
        return t("question.not_asked_here_adlib_run")
    return listed([t("question.same_encoder_decoder_family_schedule"), *found])


def place(table: pd.DataFrame, reports: Path) -> pd.DataFrame:
    """Does the place matter? What is known without labels, beside what turned out: a row a category
    where both can be known."""
    found = []
    for category in dict.fromkeys(table["category"]):
        runs = {name: _measured(table, reports, category, name) for name in PLACES}
        if not all(runs.values()):
            continue
        known = {name: np.mean([_label_free(one) for one in ones]) for name, ones in runs.items()}
        real = {name: np.mean([_real(one, "test") for one in ones]) for name, ones in runs.items()}
        if not np.isfinite([*known.values(), *real.values()]).all():
            continue
        share = np.mean([one["position_share"] for one in runs["gaussian"]])
        found.append({
            "Category": category,
            "Share of the features' variance that the place explains": f"{share:.2f}",
            "Label-free AUROC, per position": f"{known['gaussian']:.3f}",
            "Label-free AUROC, any position": f"{known['gaussian_anywhere']:.3f}",
            "Label-free choice": "per position" if known["gaussian"] > known["gaussian_anywhere"]
            else "any position", "AUROC, per position": f"{real['gaussian']:.3f}",
            "AUROC, any position": f"{real['gaussian_anywhere']:.3f}",
            "Better in truth": "per position"
            if real["gaussian"] > real["gaussian_anywhere"] else "any position"
        })
    return pd.DataFrame(found)


def place_sentence(place: pd.DataFrame) -> Text:
    if place.empty:
        return t("question.not_asked_here_adlib_run_2")
    right = place.loc[place["Label-free choice"] == place["Better in truth"], "Category"]
    words = {"n": len(right), "of": len(place), "right": comparison.join(right)}
    return (t("question.label_free_choice_between_gaussian_per", **words) if len(right) else t(
        "question.label_free_choice_between_gaussian_per_2", **words))


def parts(table: pd.DataFrame, reports: Path) -> pd.DataFrame:
    """What does each part bring? The ablation of the best detector: label-free AUROC by kind of
    synthetic anomaly, and the real ones.

    Kinds that the head was taught with are marked by an asterisk: there the label-free figure is no
    proof. Empty where no variant was run.
    """
    found = []
    if not table["name"].isin(comparison.ABLATIONS).any():
        return pd.DataFrame(columns=["Category", "Configuration", "AUROC, test"])
    for (category, label), runs in _finished(table[table["name"].str.startswith(
        ("fused", "classifier")) | table["name"].eq("memory")]):
        ones = [files.read_json(reports / folder / "metrics.json") for folder in runs["folder"]]
        taught = [] if runs.iloc[0]["name"] == "memory" else _config(
            reports, runs)["kinds"].replace(" ", "").split(",")
        kinds = [name for name in _entry(ones[0]) if name not in ("score", "all")]
        known = {
            f"Label-free, {kind}": f"{np.mean([_entry(one)[kind] for one in ones]):.3f}" +
            ("*" if kind in taught else "")
            for kind in kinds
        }
        real = {
            title: np.mean([_real(one, split) for one in ones])
            for title, split in (("AUROC, test", "test"), ("AUROC, train/bad", "train_bad"))
        }
        found.append(
            {"Category": category, "Configuration": label, "Seeds": str(len(runs))} | known
            | {title: "" if math.isnan(value) else f"{value:.3f}"
               for title, value in real.items()})
    return pd.DataFrame(found).fillna("")


def parts_sentence(parts: pd.DataFrame) -> Text:
    """How far from each other the variants are on the real images."""
    if parts.empty:
        return t("question.not_asked_here_adlib_run_3")
    found = []
    for category, part in parts.groupby("Category", sort=False):
        values = pd.to_numeric(part["AUROC, test"]).dropna()
        if values.empty:
            continue
        found.append(
            t("question.category_low_f_worst_high", category=category, low=values.min(),
              worst=part.loc[values.idxmin(), "Configuration"], high=values.max(),
              best=part.loc[values.idxmax(), "Configuration"]))
    return (t("question.auroc_over_variants_ranges", ranges=listed(found, "; "))
            if found else t("question.no_labels_both_classes_judge"))


def localisation(table: pd.DataFrame, reports: Path) -> pd.DataFrame:
    """Where is it? The pixel metrics by defect type and by size, wherever masks exist
    (evaluate.localisation's groups)."""
    found = []
    for (category, label), runs in _finished(table[~table["name"].isin(STATISTICS)]):
        ones = [
            files.read_json(reports / folder / "metrics.json")["localisation"]
            for folder in runs["folder"]
        ]
        groups = [pd.DataFrame(one["groups"]) for one in ones if one and one.get("groups")]
        for group, part in pd.concat(groups).groupby("group", sort=False) if groups else []:
            found.append({
                "Category": category, "Configuration": label, "Good images with": group,
                "Images": f"{part['images'].mean():.0f}"
            }
                         | {title: f"{part[key].mean():.3f}"
                            for key, title in PIXEL.items()})
    return pd.DataFrame(found)


def epochs(table: pd.DataFrame, reports: Path) -> pd.DataFrame:
    """Does training help, and what does the score follow? AUROC had training stopped there, and
    rank correlations (evaluate.confounders)."""
    found = []
    for (category, label), runs in _finished(table):
        paths = [reports / folder / "epochs.csv" for folder in runs["folder"]]
        if all(path.is_file() for path in paths):
            mean = pd.concat(
                [pd.read_csv(path) for path in paths]).groupby("epoch")["auroc"].mean().dropna()
            found.append({"Category": category, "Configuration": label}
                         | {f"Epoch {epoch}": f"{value:.3f}"
                            for epoch, value in mean.items()}
                         | {
                             f"Score and {name}": "" if math.isnan(runs[name].mean(
                             )) else f"{runs[name].mean():+.2f}"
                             for name in FOLLOWS
                         })
    wanted = sorted({name
                     for row in found
                     for name in row if name.startswith("Epoch")}, key=lambda name: int(name[6:]))
    columns = ["Category", "Configuration", *wanted, *(f"Score and {name}" for name in FOLLOWS)]
    return pd.DataFrame(found, columns=columns).fillna("")


def _finished(table: pd.DataFrame) -> typing.Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    return iter(table[table["status"] == "finished"].groupby(["category", "label"], sort=False))


def _measured(table: pd.DataFrame, reports: Path, category: str,
              name: str) -> list[dict[str, typing.Any]]:
    here = table[(table["status"] == "finished") & (table["category"] == category) &
                 (table["name"] == name)]
    return [files.read_json(reports / folder / "metrics.json") for folder in here["folder"]]


def _config(reports: Path, runs: pd.DataFrame) -> dict[str, typing.Any]:
    return files.read_json(reports / runs.iloc[0]["folder"] / "run.json")["params"]


def _entry(measured: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """The label-free line of the configuration's own score; empty where nothing was held out."""
    return next((entry for entry in measured["label_free"] if entry["score"] == measured["score"]),
                {})


def _real(measured: dict[str, typing.Any], split: str) -> float:
    value = measured["auroc"][split]["value"]
    return math.nan if value is None else value


def _label_free(measured: dict[str, typing.Any]) -> float:
    return _entry(measured).get("all", math.nan)


def _agreement(part: pd.DataFrame) -> float:
    return float(part["label_free"].corr(part["test"], method="spearman"))


def _columns(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame([{
        "Category": row.category,
        "Configuration": row.label, "Score": row.score, "AUROC, test": comparison.interval(
            row._asdict(), "auroc", "low",
            "high"), "Spread over seeds": "" if math.isnan(row.spread) else f"{row.spread:.3f}",
        "Label-free AUROC": "" if math.isnan(row.label_free) else f"{row.label_free:.3f}",
        "Training": "" if math.isnan(row.train_seconds) else f"{row.train_seconds:.0f} s"
    } for row in rows[rows["auroc"].notna()].itertuples()])
