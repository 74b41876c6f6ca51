"""Runs to rows: the mean over seeds, its spread over seeds, the interval of the finite test set,
and what can be told apart.

Three different things, never mixed: another seed gives another network (spread); another test set
gives other images (interval, DeLong); and two configurations are compared on the same images
(paired DeLong, Holm-corrected).
"""
from __future__ import annotations

import math
import typing
from pathlib import Path

import numpy as np
import pandas as pd

from adlib.config import REFERENCE_SCORE, STATISTICS
from adlib.data import files
from adlib.evaluation import conformal, evaluate, paired
from adlib.report import comparison, comparison_figures, figures
from adlib.report.i18n import Text, t
from adlib.report.i18n import join as listed

LEVEL = 0.05  # of a difference that counts
EDGE = 0.05  # an AUROC nearer to 0 or 1 is no check of an interval
COLUMNS = ("category", "name", "label", "score", "seeds", "auroc", "spread", "low", "high",
           "n_good", "n_anomalous", "bad_auroc", "bad_spread", "bad_low", "bad_high", "n_bad",
           "label_free", "false_positives", "false_low", "false_high", "detections", "found_low",
           "found_high", "pixel_auroc", "pixel_ap", "au_pro_30", "au_pro_05", "with_best",
           "claim_low", "claim_high", "verdict", "published", "epochs", "train_seconds", "device",
           "weights", "brightness", "size", "pose", "status", "reason", "folder")


def rows(table: pd.DataFrame, reports: Path) -> pd.DataFrame:
    """One row a category, configuration and score, ordered as `compare.performance`.

    An autoencoder has two rows: its own score (the reference's) and the one chosen without labels.
    Rates are between 0 and 1. `with_best`: the best of its category, or not told from it by the
    paired test.
    """
    found = []
    for _, runs in table.groupby(["category", "name"], sort=False):
        done = runs[runs["status"] == "finished"]
        if done.empty:
            first = runs.iloc[0]
            found.append({"seeds": 0} | {
                key: first[key]
                for key in ("category", "name", "label", "status", "reason", "folder")
            })
            continue
        measured = [files.read_json(reports / folder / "metrics.json") for folder in done["folder"]]
        results = [comparison.read_results(reports / folder) for folder in done["folder"]]
        found.append(_row(done, measured, results, "", runs))
        if _chose_another(measured):
            found.append(_row(done, measured, results, "chosen_", runs))
    for category in dict.fromkeys(row["category"] for row in found):
        labels, scores = _compared(table, reports, category)
        here = [row for row in found if row["category"] == category and row["label"] in scores]
        best = max(here, key=lambda row: row["auroc"], default={})
        beaten = {
            pair.a if pair.b == best["label"] else pair.b
            for pair in _pairs(labels, scores).itertuples()
            if best["label"] in (pair.a, pair.b) and pair.p_holm < LEVEL
        }
        for row in here:
            row["with_best"] = row["label"] not in beaten
    return pd.DataFrame(found).reindex(columns=list(COLUMNS))


def matrix(table: pd.DataFrame, reports: Path, category: str) -> pd.DataFrame:
    """Every pair of rows of a category on the same test images: a, b, difference (of the means over
    seeds), p, p_holm.

    Configurations with a seed that ran on other data than most, or that has no AUROC, are left out.
    """
    return _pairs(*_compared(table, reports, category))


def _pairs(labels: np.ndarray, scores: dict[str, np.ndarray]) -> pd.DataFrame:
    return paired.matrix(labels, scores) if len(scores) > 1 else pd.DataFrame(
        columns=["a", "b", "difference", "p", "p_holm"])


def _compared(table: pd.DataFrame, reports: Path,
              category: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels [N] of the test images, and {label of the row: scores [seeds,N]} of the rows that saw
    these very images."""
    here = table[(table["category"] == category) & (table["status"] == "finished")]
    usual = here["fingerprint"].mode()
    labels, scores, first = np.zeros(0, int), {}, None
    for label, runs in here.groupby("label", sort=False):
        if runs["auroc"].isna().any() or (runs["fingerprint"] != usual.iloc[0]).any():
            continue
        tables = [_test(reports / folder) for folder in runs["folder"]]
        first = tables[0] if first is None else first
        if any(not one[["path", "label"]].equals(first[["path", "label"]]) for one in tables):
            continue
        labels = first["label"].to_numpy(int)
        scores[label] = np.stack([one["score"] for one in tables])
        if _chose_another(
            [files.read_json(reports / folder / "metrics.json") for folder in runs["folder"]]):
            scores[_second(label)] = np.stack([one["chosen_score"] for one in tables])
    return labels, scores


def _second(label: str) -> Text:
    """The label of an autoencoder's second row, that of the score it chose without labels."""
    return t("comparison.label_chosen_score", label=label)


def _chose_another(measured: list[dict[str, typing.Any]]) -> bool:
    """Whether an autoencoder's seeds chose, without labels, another score than the reference's:
    then it has a second row."""
    return any(one["score"] == REFERENCE_SCORE != one["chosen"]["score"] for one in measured)


def p_value(pairs: pd.DataFrame, a: str, b: str) -> float:
    """The p-value of two rows of `matrix`, not corrected, for a comparison that was planned; NaN
    where they were not compared."""
    for pair in pairs.itertuples():
        if {pair.a, pair.b} == {a, b}:
            return float(pair.p)
    return math.nan


def show_matrices(table: pd.DataFrame, reports: Path) -> None:
    """The matrix of every category as a figure, and what it says."""
    for category in dict.fromkeys(table["category"]):
        pairs = matrix(table, reports, category)
        if pairs.empty:
            figures.say(t("comparison.category_no_two_rows_compare", category=category))
            continue
        figures.show(comparison_figures.matrix(pairs, category),
                     comparison.matrix_sentence(pairs, category))
        figures.say(comparison.matrix_sentence(pairs, category))


def bootstrap_sentence(table: pd.DataFrame, reports: Path) -> Text:
    """The cross-check of the intervals: DeLong's and the stratified bootstrap's, of the first seed
    of every configuration."""
    apart = []
    for _, runs in table[table["status"] == "finished"].groupby(["category", "name"], sort=False):
        results = comparison.read_results(reports / runs.iloc[0]["folder"])
        labels, values = evaluate.arrays(results, "test")
        if 0 < labels.sum() < len(labels) and EDGE < runs.iloc[0]["auroc"] < 1 - EDGE:
            apart.append(
                np.abs(
                    np.subtract(paired.interval(labels, values),
                                paired.bootstrap_interval(labels, values))))
    if not apart:
        return t("comparison.no_auroc_far_enough_bootstrap")
    return t("comparison.cross_check_intervals_over_n_configurations", n=len(apart), low=EDGE,
             high=1 - EDGE, mean=np.mean(apart), most=np.max(apart))


def _test(folder: Path) -> pd.DataFrame:
    table = comparison.read_results(folder)
    return table[(table["split"] == "test")
                 & table["label"].notna()].sort_values("path").reset_index(drop=True)


def _row(done: pd.DataFrame, measured: list[dict], results: list[pd.DataFrame], prefix: str,
         runs: pd.DataFrame) -> dict[str, typing.Any]:
    first = done.iloc[0]
    parts = [one if not prefix else one["chosen"] for one in measured]
    names = sorted({str(part.get("score", "")) for part in parts})
    failed = runs[runs["status"] != "finished"]
    row = {
        key: first[key]
        for key in ("category", "name", "n_good", "n_anomalous", "n_bad", "device", "weights",
                    "folder")
    }
    row |= {
        "label": _second(first["label"]) if prefix else first["label"], "score": ", ".join(names),
        "seeds": len(done), "status": "finished", "epochs": first["epochs"],
        "train_seconds": done["train_seconds"].mean(), **{
            name: done[name].mean() if not prefix else math.nan
            for name in ("brightness", "size", "pose")
        }, "reason": listed([
            *filter(None, [first["reason"]]),
            *(t("comparison.seed_seed_status_reason", seed=one.seed, status=one.status,
                reason=one.reason) for one in failed.itertuples())
        ], "; ")
    }
    for split, start in (("test", ""), ("train_bad", "bad_")):
        arrays = [evaluate.arrays(one, split, f"{prefix}score") for one in results]
        values = [part["auroc"][split]["value"] for part in parts]
        if all(value is not None for value in values):
            same = all(
                len(labels) == len(arrays[0][0]) and (labels == arrays[0][0]).all()
                for labels, _ in arrays)
            low, high = paired.interval(
                arrays[0][0],
                np.stack([scores for _, scores in arrays]) if same else arrays[0][1])
            row |= {
                f"{start}auroc": float(np.mean(values)), f"{start}low": low, f"{start}high": high,
                ("bad_spread" if start else "spread"): float(np.std(values, ddof=1))
                if len(values) > 1 else math.nan
            }
    label_free = [
        entry["all"] for one, part in zip(measured, parts, strict=True)
        for entry in one.get("label_free", []) if entry["score"] == part.get("score")
    ]
    row["label_free"] = float(np.mean(label_free)) if label_free else math.nan
    supported = all(
        conformal.is_attainable(one["calibration"]["images"], first["asked"]) for one in measured)
    for key, columns in (("false_positives", ("false_positives", "false_low", "false_high")),
                         ("detections", ("detections", "found_low", "found_high"))):
        rates = [
            part["operating"]["test"][key] for part in parts
            if part.get("operating") and part["operating"]["test"][key]
        ]
        if len(rates) == len(parts) and rates[0]["n"] and supported:
            mean, n = float(np.mean([rate["count"] for rate in rates])), rates[0]["n"]
            row |= dict(
                zip(columns, (mean / n, *conformal.rate_interval(round(mean), n)), strict=True))
    found = [
        one["localisation"] for one in measured if one.get("localisation")
        and "pixel_auroc" in one["localisation"] and first["name"] not in STATISTICS
    ]  # which say nothing of a place
    for key in ("pixel_auroc", "pixel_ap", "au_pro_30", "au_pro_05"):
        row[key] = float(np.mean(
            [one[key]
             for one in found])) if found and (prefix or names == ["distance.top1"]) else math.nan
    if not prefix:  # the claims are about the reference's score
        row |= {key: first[key] for key in ("claim_low", "claim_high", "published", "verdict")}
    return row
