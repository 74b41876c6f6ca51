"""Run folders to rows: the mean over seeds, its spread, the interval of the finite test set, and
what is distinguishable.

Three different things, never mixed: another seed gives another network (spread); another test set
gives other images (interval, DeLong); and two configurations are compared on the same images
(paired DeLong, Holm-corrected). Tables hold codes and numbers; `tables` and `answers` say them.
"""
from __future__ import annotations

import functools
import math
import typing
from pathlib import Path

import numpy as np
import pandas as pd

from adlib.config import REFERENCE_SCORE, STATISTICS, InputError
from adlib.data import files
from adlib.evaluation.auroc import auroc_interval, bootstrap_interval, pairwise_tests
from adlib.evaluation.conformal import min_calibration_size, rate_interval
from adlib.evaluation.results import arrays
from adlib.report.i18n import named, t
from adlib.runs import run_folder

LEVEL = 0.05  # of a difference that counts
EDGE = 0.05  # an AUROC nearer to 0 or 1 is no check of an interval

# The reference's four configurations, in its order: what its README claims, and what the per-image
# scores that its author published give for the one configuration they were published for. Only for
# its own two categories, and only on its own images.
REFERENCE_ROWS = ("cae_mse", "cae_ssim", "resnet_mse", "resnet_ssim")
REFERENCE_CLAIMS = {
    ("hazelnut", "cae_mse"): (0.70, 0.80), ("zipper", "cae_mse"): (0.60, 0.70),
    ("hazelnut", "cae_ssim"): (0.75, 0.85), ("zipper", "cae_ssim"): (0.65, 0.75),
    ("hazelnut", "resnet_mse"): (0.80, 0.85), ("zipper", "resnet_mse"): (0.70, 0.80),
    ("hazelnut", "resnet_ssim"): (0.85, 0.90), ("zipper", "resnet_ssim"): (0.75, 0.85)}
REFERENCE_PUBLISHED = {("hazelnut", "resnet_ssim"): 0.812, ("zipper", "resnet_ssim"): 0.717}
REFERENCE_LAYOUTS = ("course", "seed")  # the second: as older runs name it

ABLATIONS = ("fused_without_layer1", "fused_layer3", "fused_128px", "fused_texture", "fused_shape",
             "classifier_texture", "classifier_shape")
PEERS = tuple(f"anomalib_{name}" for name in ("patchcore", "padim", "dfm", "stfpm"))
CONFIGURATIONS = (*REFERENCE_ROWS, "to_pixels", "to_features", "to_features_squared", "pca",
                  "gaussian", "gaussian_anywhere", "memory", "classifier", "fused", *PEERS,
                  *STATISTICS, *ABLATIONS)  # in the order of every table
SHOWN = (*REFERENCE_ROWS, "to_pixels", "to_features", "memory", "fused")  # where more would drown
CHOSEN = "/chosen"  # ends the code of an autoencoder's second row: the score it chose by itself

RUN_COLUMNS = ("category", "name", "seed", "status", "reason", "auroc", "low", "high", "n_good",
               "n_anomalous", "bad_auroc", "bad_low", "bad_high", "n_bad", "claim_low",
               "claim_high", "verdict", "published", "epochs", "target_fpr", "train_seconds",
               "device", "precision", "weights", "brightness", "size", "pose", "synthetic",
               "layout", "data", "fingerprint", "git", "folder")
ROW_COLUMNS = ("category", "name", "configuration", "score", "seeds", "auroc", "spread", "low",
               "high", "n_good", "n_anomalous", "bad_auroc", "bad_spread", "bad_low", "bad_high",
               "n_bad", "label_free", "false_positives", "false_low", "false_high", "detections",
               "found_low", "found_high", "pixel_auroc", "pixel_ap", "au_pro_30", "au_pro_05",
               "with_best", "claim_low", "claim_high", "verdict", "published", "epochs",
               "train_seconds", "device", "weights", "brightness", "size", "pose", "status",
               "reason", "folder")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "au_pro_30", "au_pro_05")
CONFOUNDERS = ("brightness", "size", "pose")


def label(configuration: str) -> str:
    """What a configuration's code is called, in both languages; one that is not of this study keeps
    its own name."""
    name, chosen, _ = configuration.partition(CHOSEN)
    return t("label.chosen_score", label=named("label", name)) if chosen else named("label", name)


# ---- what the folders hold, each file read once


def read_results(folder: Path) -> pd.DataFrame:
    """A finished run's all_results.csv. Raises InputError where it is missing or damaged."""
    path = folder / "all_results.csv"
    try:
        return _csv(path, path.stat().st_mtime_ns).copy()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} ({error}); run its configuration again with "
                         "--force") from error


def read_metrics(folder: Path) -> dict[str, typing.Any]:
    """A finished run's metrics.json, which is not to be changed."""
    path = folder / "metrics.json"
    return _metrics(path, path.stat().st_mtime_ns)


def finished(table: pd.DataFrame) -> typing.Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    """((category, configuration), its finished runs), in the order of the table."""
    return iter(table[table["status"] == "finished"].groupby(["category", "name"], sort=False))


def results_of(table: pd.DataFrame, reports: Path,
               file: str = "all_results.csv") -> dict[tuple[str, str], pd.DataFrame]:
    """{(category, configuration): a CSV of its first finished run}, where that has the file.

    Of more than eight configurations those of SHOWN only: curves that lie on each other say
    nothing.
    """
    done = table[table["status"] == "finished"].drop_duplicates(["category", "name"])
    if done["name"].nunique() > len(SHOWN):
        done = done[done["name"].isin(SHOWN)]
    return {(row.category, row.name): pd.read_csv(reports / row.folder / file)
            for row in done.itertuples(index=False) if (reports / row.folder / file).is_file()}


# ---- a row a run


def performance(reports: Path) -> pd.DataFrame:
    """One row a run, planned runs that are missing or failed included: RUN_COLUMNS, sorted by
    category, then the order of CONFIGURATIONS.

    AUROCs are NaN where a run has none; `reason` then says why. Raises InputError when there is no
    run at all.
    """
    folders = dict.fromkeys([*run_folder.all_runs(reports), *_planned(reports)])
    if not folders:
        raise InputError(f"there is no run in {reports / 'runs'}; run a notebook, or `adlib run "
                         "params/grids/quick.yaml`, first")
    order = {name: i for i, name in enumerate(CONFIGURATIONS)}
    rows = sorted((_run(folder, reports) for folder in folders), key=lambda row: (
        row["category"], order.get(row["name"], 99), row["name"], row["seed"]))
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS))


def without_ablations(table: pd.DataFrame) -> pd.DataFrame:
    """The runs without the best detector's variants, which have a table of their own and would only
    thin out the paired tests."""
    kept = table[~table["name"].isin(ABLATIONS)]
    return kept if len(kept) else table


def _planned(reports: Path) -> list[Path]:
    plan = files.read_json(reports / "batch.json") if (reports / "batch.json").exists() else []
    return [reports / task["folder"] for task in plan
            if task.get("name") and task.get("folder", "").startswith("runs/")]


def _run(folder: Path, reports: Path) -> dict[str, typing.Any]:
    category, name, seed = folder.parts[-3], folder.parts[-2], folder.name.removeprefix("seed-")
    status, manifest = run_folder.status(folder), run_folder.manifest(folder)
    data = manifest.get("data") or {}
    row = {"category": category, "name": name, "seed": int(seed) if seed.isdigit() else -1,
           "status": status.state, "reason": status.reason, "verdict": "",
           "target_fpr": _nan((manifest.get("params") or {}).get("target_fpr")),
           "data": Path(data.get("root", "")).name, "synthetic": data.get("synthetic"),
           "folder": folder.relative_to(reports).as_posix()}
    row |= {key: manifest.get(key, "") for key in ("device", "precision", "weights", "git")}
    row |= {key: data.get(key, "") for key in ("layout", "fingerprint")}
    if row["layout"] in REFERENCE_LAYOUTS:  # the claims are about the reference's own images
        row["claim_low"], row["claim_high"] = REFERENCE_CLAIMS.get(
            (category, name), (math.nan, math.nan))
        row["published"] = REFERENCE_PUBLISHED.get((category, name), math.nan)
    if status.state == "finished":
        metrics = read_metrics(folder)
        test, bad = metrics["auroc"]["test"], metrics["auroc"]["train_bad"]
        row |= {"auroc": test["value"], "low": test["low"], "high": test["high"],
                "n_good": test["n_good"], "n_anomalous": test["n_anomalous"],
                "reason": test["why_absent"] or "", "bad_auroc": bad["value"],
                "bad_low": bad["low"], "bad_high": bad["high"], "n_bad": bad["n_anomalous"],
                "epochs": metrics["epochs"], "train_seconds": manifest.get("train_seconds"),
                **(metrics.get("confounders") or {})}
        row["verdict"] = _verdict({key: _nan(value) for key, value in row.items()})
    return {column: _nan(row.get(column)) if column != "synthetic" else row[column]
            for column in RUN_COLUMNS}


def _verdict(row: dict[str, typing.Any]) -> str:
    """missed | reached | exceeded; "" where the claims, which are about full training and ImageNet
    weights, say nothing of the run."""
    low = row.get("claim_low", math.nan)
    if math.isnan(low) or math.isnan(
            row["auroc"]) or row["epochs"] < 100 or row["weights"].startswith("RANDOM"):
        return ""
    value = round(row["auroc"], 2)  # the claims have two decimals
    return "missed" if value < low else "exceeded" if value > row["claim_high"] else "reached"


# ---- a row a configuration and score


def rows(table: pd.DataFrame, reports: Path) -> pd.DataFrame:
    """One row a category, configuration and score: ROW_COLUMNS, ordered as `performance`.

    An autoencoder has two rows: its own score (the reference's) and, its code ending in CHOSEN, the
    one chosen without labels. Rates are between 0 and 1. `with_best`: the best of its category, or
    not distinguishable from it by the paired test.
    """
    made = []
    for _, runs in table.groupby(["category", "name"], sort=False):
        done = runs[runs["status"] == "finished"]
        if done.empty:
            first = runs.iloc[0]
            keys = ("category", "name", "status", "reason", "folder")
            made.append({key: first[key] for key in keys}
                        | {"configuration": first["name"], "seeds": 0})
            continue
        metrics = [read_metrics(reports / folder) for folder in done["folder"]]
        results = [read_results(reports / folder) for folder in done["folder"]]
        made.append(_row(runs, done, metrics, results, ""))
        if _chose_another(metrics):
            made.append(_row(runs, done, metrics, results, "chosen_"))
    for category in dict.fromkeys(row["category"] for row in made):
        labels, scores = _compared(table, reports, category)
        compared = [row for row in made
                    if row["category"] == category and row["configuration"] in scores]
        best = max(compared, key=lambda row: row["auroc"], default={}).get("configuration")
        pairs = _pairs(labels, scores)
        below = {pair.a if pair.b == best else pair.b for pair in pairs.itertuples()
                 if best in (pair.a, pair.b) and pair.p_holm < LEVEL}
        for row in compared:
            row["with_best"] = row["configuration"] not in below
    return pd.DataFrame(made).reindex(columns=list(ROW_COLUMNS))


def matrix(table: pd.DataFrame, reports: Path, category: str) -> pd.DataFrame:
    """Every pair of rows of a category on the same test images: a, b (configuration codes),
    difference (of the means over seeds), p, p_holm.

    Configurations with a seed that ran on other data than most, or that has no AUROC, are left out.
    """
    return _pairs(*_compared(table, reports, category))


def p_value(pairs: pd.DataFrame, a: str, b: str) -> float:
    """The p-value of two rows of `matrix`, not corrected, for a comparison that was planned; NaN
    where they were not compared."""
    return next((float(pair.p) for pair in pairs.itertuples() if {pair.a, pair.b} == {a, b}),
                math.nan)


def bootstrap_gaps(table: pd.DataFrame, reports: Path) -> np.ndarray:
    """[N,2]: how far the two ends of the bootstrap's interval are from DeLong's, for the first seed
    of every configuration whose AUROC is far enough from 0 and 1."""
    gaps = []
    for _, runs in finished(table):
        labels, scores = arrays(read_results(reports / runs.iloc[0]["folder"]), "test")
        if 0 < labels.sum() < len(labels) and EDGE < runs.iloc[0]["auroc"] < 1 - EDGE:
            gaps.append(np.abs(np.subtract(auroc_interval(labels, scores),
                                           bootstrap_interval(labels, scores))))
    return np.array(gaps).reshape(-1, 2)


def _pairs(labels: np.ndarray, scores: dict[str, np.ndarray]) -> pd.DataFrame:
    return pairwise_tests(labels, scores) if len(scores) > 1 else pd.DataFrame(
        columns=["a", "b", "difference", "p", "p_holm"])


def _compared(table: pd.DataFrame, reports: Path,
              category: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels [N] of the test images, and {configuration code: scores [seeds,N]} of the rows that
    saw these very images."""
    here = table[(table["category"] == category) & (table["status"] == "finished")]
    usual = here["fingerprint"].mode()
    labels, scores, first = np.zeros(0, int), {}, None
    for name, runs in here.groupby("name", sort=False):
        if runs["auroc"].isna().any() or (runs["fingerprint"] != usual.iloc[0]).any():
            continue
        tables = [_labelled_test(reports / folder) for folder in runs["folder"]]
        first = tables[0] if first is None else first
        if any(not each[["path", "label"]].equals(first[["path", "label"]]) for each in tables):
            continue
        labels = first["label"].to_numpy(int)
        scores[name] = np.stack([each["score"] for each in tables])
        if _chose_another([read_metrics(reports / folder) for folder in runs["folder"]]):
            scores[name + CHOSEN] = np.stack([each["chosen_score"] for each in tables])
    return labels, scores


def _labelled_test(folder: Path) -> pd.DataFrame:
    table = read_results(folder)
    test = table[(table["split"] == "test") & table["label"].notna()]
    return test.sort_values("path").reset_index(drop=True)


def _chose_another(metrics: list[dict[str, typing.Any]]) -> bool:
    """Whether an autoencoder's seeds chose, without labels, another score than the reference's:
    then it has a second row."""
    return any(each["score"] == REFERENCE_SCORE != each["chosen"]["score"] for each in metrics)


def _row(runs: pd.DataFrame, done: pd.DataFrame, metrics: list[dict], results: list[pd.DataFrame],
         prefix: str) -> dict[str, typing.Any]:
    """The finished seeds of a configuration. prefix: "chosen_" for the score chosen without
    labels."""
    first, failed = done.iloc[0], runs[runs["status"] != "finished"]
    of_score = [each["chosen"] if prefix else each for each in metrics]
    names = sorted({str(each.get("score", "")) for each in of_score})
    reasons = [first["reason"], *(f"seed {run.seed} {run.status}: {run.reason}"
                                  for run in failed.itertuples())]
    row = {key: first[key] for key in ("category", "name", "n_good", "n_anomalous", "n_bad",
                                       "device", "weights", "folder", "epochs")}
    row |= {"configuration": first["name"] + (CHOSEN if prefix else ""), "score": ", ".join(names),
            "seeds": len(done), "status": "finished", "reason": "; ".join(filter(None, reasons)),
            "train_seconds": done["train_seconds"].mean()}
    for split, start in (("test", ""), ("train_bad", "bad_")):
        row |= _auroc(of_score, [arrays(each, split, f"{prefix}score")
                                 for each in results], split, start)
    label_free = [entry["all"] for each, part in zip(metrics, of_score, strict=True)
                  for entry in each.get("label_free", []) if entry["score"] == part.get("score")]
    row["label_free"] = float(np.mean(label_free)) if label_free else math.nan
    if all(_supports(each, first["target_fpr"]) for each in metrics):
        row |= _rate(of_score, "false_positives", "false") | _rate(of_score, "detections", "found")
    if prefix or REFERENCE_SCORE not in names:  # the map that was measured is the chosen score's
        row |= _pixel_metrics(metrics, first["name"])
    if not prefix:  # neither the claims nor the confounders are about another score
        row |= {name: done[name].mean() for name in CONFOUNDERS}
        row |= {key: first[key] for key in ("claim_low", "claim_high", "published", "verdict")}
    return row


def _supports(metrics: dict[str, typing.Any], target_fpr: float) -> bool:
    return metrics["calibration"]["images"] >= min_calibration_size(target_fpr)


def _auroc(of_score: list[dict], by_seed: list[tuple[np.ndarray, np.ndarray]], split: str,
           start: str) -> dict[str, float]:
    """Mean and spread over the seeds, and the interval of all seeds together."""
    values = [each["auroc"][split]["value"] for each in of_score]
    if any(value is None for value in values):
        return {}
    labels, scores = by_seed[0]
    if all(np.array_equal(labels, others) for others, _ in by_seed):
        scores = np.stack([scores for _, scores in by_seed])
    low, high = auroc_interval(labels, scores)
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return {f"{start}auroc": float(np.mean(values)), f"{start}spread": spread,
            f"{start}low": low, f"{start}high": high}


def _rate(of_score: list[dict], key: str, start: str) -> dict[str, float]:
    """A rate on the test split at the label-free threshold: the seeds' mean, and its interval."""
    rates = [(each.get("operating") or {"test": {}})["test"].get(key) for each in of_score]
    if not all(rates) or not rates[0]["n"]:
        return {}
    mean, n = float(np.mean([rate["count"] for rate in rates])), rates[0]["n"]
    low, high = rate_interval(round(mean), n)
    return {key: mean / n, f"{start}_low": low, f"{start}_high": high}


def _pixel_metrics(metrics: list[dict], name: str) -> dict[str, float]:
    """Means over the seeds; of a statistic there are none, as it says nothing of a place."""
    measured = [each["localisation"] for each in metrics
                if "pixel_auroc" in (each.get("localisation") or {}) and name not in STATISTICS]
    return {key: float(np.mean([each[key] for each in measured]))
            for key in PIXEL_METRICS if measured}


@functools.lru_cache(maxsize=1024)
def _csv(path: Path, stamp: int) -> pd.DataFrame:
    return pd.read_csv(path)


@functools.lru_cache(maxsize=1024)
def _metrics(path: Path, stamp: int) -> dict[str, typing.Any]:
    return run_folder.metrics(path.parent)


def _nan(value: typing.Any) -> typing.Any:
    return math.nan if value is None else value
