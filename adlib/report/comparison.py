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
from adlib.evaluation.auroc import LEVEL, auroc_interval, best_against_each
from adlib.evaluation.conformal import Threshold, rate_interval
from adlib.evaluation.results import arrays
from adlib.report.words.i18n import named, t
from adlib.runs import freshness, run_folder

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

ABLATIONS = ("fused_without_layer1", "fused_layer3", "fused_128px", "fused_texture", "fused_shape",
             "classifier_texture", "classifier_shape")
PEERS = tuple(f"anomalib_{name}" for name in ("patchcore", "padim", "dfm", "fre", "stfpm"))
CONFIGURATIONS = (*REFERENCE_ROWS, "to_pixels", "to_features", "to_features_squared", "pca",
                  "gaussian", "gaussian_anywhere", "memory", "classifier", "fused", *PEERS,
                  *STATISTICS, *ABLATIONS)  # in the order of every table
REFERENCE = "/reference"  # ends the code of an autoencoder's second row: by the reference's score

RUN_COLUMNS = ("category", "name", "seed", "status", "reason", "score", "auroc", "low", "high",
               "n_good", "n_anomalous", "bad_auroc", "bad_low", "bad_high", "n_bad", "epochs",
               "target_fpr", "train_seconds", "device", "precision", "weights", "brightness",
               "size", "pose", "synthetic", "layout", "data", "fingerprint", "git", "folder")
ROW_COLUMNS = ("category", "name", "configuration", "score", "seeds", "auroc", "spread", "low",
               "high", "n_good", "n_anomalous", "bad_auroc", "bad_spread", "bad_low", "bad_high",
               "n_bad", "label_free", "threshold", "calibrated_on", "half_found", "false_positives",
               "false_low", "false_high", "detections", "found_low", "found_high", "pixel_auroc",
               "pixel_ap", "au_pro_30", "au_pro_05", "with_best", "claim_low", "claim_high",
               "verdict", "published", "epochs", "train_seconds", "device", "weights", "random",
               "brightness", "size", "pose", "status", "reason", "folder")
Results = dict[tuple[str, str], pd.DataFrame]  # {(category, configuration): a file of a run}
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "au_pro_30", "au_pro_05")
CONFOUNDERS = ("brightness", "size", "pose")


def label(configuration: str) -> str:
    """What a configuration's code is called, in both languages; one that is not of this study keeps
    its own name."""
    name, reference, _ = configuration.partition(REFERENCE)
    own = named("label", name)
    return t("comparison.by_reference_score", label=own) if reference else own


def _why_absent(auroc: typing.Mapping[str, typing.Any]) -> str:
    """The code of why there is no AUROC; a run of before did not say which class is missing."""
    code = auroc["why_absent"] or ""
    return ("no_good" if auroc["n_anomalous"] else "no_anomalous") if code == "one_class" else code


# ---- what the folders hold, each file read once


def read_results(folder: Path) -> pd.DataFrame:
    """A finished run's all_results.csv. Raises InputError as `read_csv`."""
    table = read_csv(path := folder / "all_results.csv")
    if lost := {"path", "split", "label", "score"} - {*table}:
        raise InputError(f"{path} has no column {min(lost)!r}; run its configuration again with "
                         "--force")
    return table


def read_csv(path: Path) -> pd.DataFrame:
    """A table that a run, or what was found out after it, has left. Only what is empty is missing:
    a defect may be called NA. Raises InputError where it is missing or damaged."""
    with files.saying(f"cannot read {path}", "run its configuration again with --force"):
        return _read(path, path.stat().st_mtime_ns).copy()


def read_metrics(folder: Path) -> dict[str, typing.Any]:
    """A finished run's metrics.json, which is not to be changed."""
    path = folder / "metrics.json"
    return _read(path, path.stat().st_mtime_ns)


def finished(table: pd.DataFrame) -> typing.Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    """((category, configuration), its finished runs), in the order of the table."""
    return iter(table[table["status"] == "finished"].groupby(["category", "name"], sort=False))


def results_of(table: pd.DataFrame, reports: Path, names: typing.Iterable[str],
               file: str = "all_results.csv") -> Results:
    """{(category, configuration): a CSV of its first finished run} of some configurations, where
    that has the file."""
    done = table[table["status"] == "finished"].drop_duplicates(["category", "name"])
    return {(row.category, row.name): read_csv(reports / row.folder / file)
            for name in names for row in done[done["name"] == name].itertuples(index=False)
            if (reports / row.folder / file).is_file()}


def after_runs(reports: Path, kind: str, file: str) -> Results:
    """{(category, configuration): a CSV of what was found out after its run}, where that has a row.
    kind: of grid.AFTER_A_RUN."""
    tables = {folder.parts[-2:]: read_csv(folder / file)
              for folder in freshness.result_folders(reports, kind)
              if (folder / file).is_file() and not freshness.failure(folder / f"{kind}.json")}
    return {key: table for key, table in tables.items() if len(table)}


def is_synthetic(table: pd.DataFrame) -> bool:
    """Is any of some runs (`performance`) of images that a program drew?"""
    return bool((table["synthetic"] == True).any())  # noqa: E712  (True, False or nothing)


def of_mvtec(table: pd.DataFrame) -> set[str]:
    """The categories of some runs (`performance`) whose pictures are MVTec AD's: where the root
    says so, the layout is the reference's, or MVTec's with a name of its own. Their pages say under
    which licence; a user's own photographs need none."""
    from adlib.data import mvtec  # which loads what downloads

    return {row.category for row in table.itertuples()
            if "mvtec" in str(row.data).lower() or row.layout == "course"
            or row.layout == "mvtec" and row.category in mvtec.CATEGORIES}


# ---- a row a run


def performance(reports: Path) -> pd.DataFrame:
    """One row a run, planned runs that are missing or failed included: RUN_COLUMNS, sorted by
    category, then the order of CONFIGURATIONS.

    Figures are of the score in use. AUROCs are NaN where a run has none; `reason` then says why.
    Raises InputError when there is no run at all.
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
    """The runs without the variants of a detector that was run, too: they have a table of their own
    and would only thin out the paired tests."""
    whole = table["name"].str.partition("_")[0]  # fused_layer3 is a variant of fused
    return table[~(table["name"].isin(ABLATIONS) & whole.isin(table["name"]))]


def _planned(reports: Path) -> list[Path]:
    plan = files.read_json(reports / "batch.json") if (reports / "batch.json").exists() else []
    return [reports / task["folder"] for task in plan
            if task.get("name") and task.get("folder", "").startswith("runs/")]


def _run(folder: Path, reports: Path) -> dict[str, typing.Any]:
    category, name, seed = folder.parts[-3], folder.parts[-2], folder.name.removeprefix("seed-")
    status, manifest = run_folder.status(folder), run_folder.manifest(folder)
    data = manifest.get("data") or {}
    row = {"category": category, "name": name, "seed": int(seed) if seed.isdigit() else -1,
           "status": status.state, "reason": status.reason,
           "target_fpr": (manifest.get("params") or {}).get("target_fpr"),
           "data": Path(data.get("root", "")).name, "synthetic": data.get("synthetic"),
           "folder": folder.relative_to(reports).as_posix()}
    row |= {key: manifest.get(key, "") for key in ("device", "precision", "weights", "git")}
    row |= {key: data.get(key, "") for key in ("layout", "fingerprint")}
    if status.state == "finished":
        metrics = read_metrics(folder)
        test, bad = (metrics["chosen"]["auroc"][split] for split in ("test", "train_bad"))
        row |= {"score": metrics["chosen"]["score"], "auroc": test["value"], "low": test["low"],
                "high": test["high"], "n_good": test["n_good"],
                "n_anomalous": test["n_anomalous"], "reason": _why_absent(test),
                "bad_auroc": bad["value"], "bad_low": bad["low"], "bad_high": bad["high"],
                "n_bad": bad["n_anomalous"], "epochs": metrics["epochs"],
                "train_seconds": manifest.get("train_seconds"),
                **(metrics.get("confounders") or {})}
    return {column: math.nan if row.get(column) is None and column != "synthetic" else row[column]
            for column in RUN_COLUMNS}


# ---- a row a configuration and score


def rows(table: pd.DataFrame, reports: Path) -> pd.DataFrame:
    """One row a category, configuration and score: ROW_COLUMNS, ordered as `performance`.

    A row is about the score in use, the one that the threshold is of. An autoencoder that chose
    another than the reference's, the mean squared error, has a second row of that one, its code
    ending in REFERENCE. Rates are between 0 and 1. `random`: it was asked for ImageNet's weights
    and had random ones. `with_best`: the best of its category, or not distinguishable from it by
    the paired test against each, or above it; empty where it is not compared: `random`, or other
    test images. `threshold`, how many good images it rests on, and `half_found`, of how many
    of the file's pixels half of the synthetic anomalies are found there (inf: of none): of the
    first seed, whose folder is named.
    """
    made = []
    for _, runs in table.groupby(["category", "name"], sort=False):
        done = runs[runs["status"] == "finished"]
        if done.empty:
            first = runs.iloc[0]
            keys = ("category", "name", "status", "reason", "folder")
            made.append({key: first[key] for key in keys}
                        | {"configuration": first["name"], "seeds": 0, "random": False})
            continue
        metrics = [read_metrics(reports / folder) for folder in done["folder"]]
        results = [read_results(reports / folder) for folder in done["folder"]]
        made.append(_row(runs, done, metrics, results, "chosen_"))
        if _chose_another(metrics):
            made.append(_row(runs, done, metrics, results, ""))
    for category in dict.fromkeys(row["category"] for row in made):
        labels, scores = compared_scores(table, reports, category)
        compared = {row["configuration"]: row for row in made if row["category"] == category
                    and row["configuration"] in scores}
        if compared:
            best = max(filter(is_in_use, compared), key=lambda code: merit(compared[code]))
            p_values = best_against_each(best, labels, {code: scores[code] for code in compared})
            for code, row in compared.items():
                row["with_best"] = (row["auroc"] >= compared[best]["auroc"]
                                    or p_values[code] >= LEVEL)
    return pd.DataFrame(made).reindex(columns=list(ROW_COLUMNS))


def is_in_use(configuration: str) -> bool:
    """Is it a row of the score in use, which alone can be the best? The threshold is of that."""
    return not configuration.endswith(REFERENCE)


def merit(row: typing.Mapping[str, typing.Any]) -> tuple[float, float]:
    """What rows are ordered by: the AUROC as it is printed, then what the threshold makes of it."""
    gain = row.get("detections", math.nan) - row.get("false_positives", math.nan)
    return round(row["auroc"], 4), -1.0 if math.isnan(gain) else gain


def compared_scores(table: pd.DataFrame, reports: Path,
                    category: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels [N] of the test images, and {configuration code: scores [seeds,N]} of the rows that
    saw these very images, with the weights that they asked for."""
    here = table[(table["category"] == category) & (table["status"] == "finished")]
    usual = here["fingerprint"].mode()
    labels, scores, first = np.zeros(0, int), {}, None
    for name, runs in here.groupby("name", sort=False):
        if (runs["auroc"].isna().any() or (runs["fingerprint"] != usual.iloc[0]).any()
                or runs["weights"].str.startswith("random").any()):
            continue
        tables = [_labelled_test(reports / folder) for folder in runs["folder"]]
        first = tables[0] if first is None else first
        if any(not each[["path", "label"]].equals(first[["path", "label"]]) for each in tables):
            continue
        labels = first["label"].to_numpy(int)
        scores[name] = np.stack([each["chosen_score"] for each in tables])
        if _chose_another([read_metrics(reports / folder) for folder in runs["folder"]]):
            scores[name + REFERENCE] = np.stack([each["score"] for each in tables])
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
    """The finished seeds of a configuration. prefix: "chosen_" for the score in use, "" for the
    reference's."""
    first, failed = done.iloc[0], runs[runs["status"] != "finished"]
    of_score = [each["chosen"] if prefix else each for each in metrics]
    names = sorted({str(each.get("score", "")) for each in of_score})
    reasons = [first["reason"], *(f"seed {run.seed} {run.status}: {run.reason}"
                                  for run in failed.itertuples())]
    row = {key: first[key] for key in ("category", "name", "n_good", "n_anomalous", "n_bad",
                                       "device", "weights", "folder", "epochs")}
    row |= {"configuration": first["name"] + ("" if prefix else REFERENCE),
            "score": ", ".join(names), "seeds": len(done), "status": "finished",
            "reason": "; ".join(filter(None, reasons)),
            "random": bool(done["weights"].str.startswith("random").any()),
            "train_seconds": done["train_seconds"].mean()}
    for split, start in (("test", ""), ("train_bad", "bad_")):
        row |= _auroc(of_score, [arrays(each, split, f"{prefix}score")
                                 for each in results], split, start)
    label_free = [entry["all"] for each, part in zip(metrics, of_score, strict=True)
                  for entry in each.get("label_free", []) if entry["score"] == part.get("score")]
    row["label_free"] = float(np.mean(label_free)) if label_free else math.nan
    thresholds = [Threshold.recorded(each, first["target_fpr"]) for each in metrics]
    if all(threshold.is_attainable for threshold in thresholds):
        row |= _rate(of_score, "false_positives", "false") | _rate(of_score, "detections", "found")
        if prefix:
            row |= {"threshold": thresholds[0].value,
                    "calibrated_on": len(thresholds[0].calibration)}
            if half := metrics[0].get("half_found"):
                row["half_found"] = half["pixels"] or math.inf
    if prefix:  # the map that was measured is the chosen score's
        row |= _pixel_metrics(metrics, first["name"])
    if {each["score"] for each in metrics} == set(names):  # confounders are of the reference score
        row |= {name: done[name].mean() for name in CONFOUNDERS}
        row |= _claims(first, row)
    return row


def _claims(run: pd.Series, row: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """What the reference says of this row: its range, and what became of it (missed | reached |
    exceeded; "" where the claims, which are about full training, ImageNet weights and its own
    images, say nothing of the run); the AUROC of the scores that it published."""
    key = (run["category"], run["name"])
    if run["layout"] != "course" or key not in REFERENCE_CLAIMS:
        return {}
    low, high = REFERENCE_CLAIMS[key]
    claims = {"claim_low": low, "claim_high": high, "verdict": "",
              "published": REFERENCE_PUBLISHED.get(key, math.nan)}
    if "auroc" in row and run["epochs"] >= 100 and not row["random"]:
        value = round(row["auroc"], 2)  # the claims have two decimals
        claims["verdict"] = "missed" if value < low else "exceeded" if value > high else "reached"
    return claims


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


@functools.lru_cache(maxsize=2048)
def _read(path: Path, stamp: int) -> typing.Any:
    return pd.read_csv(path, keep_default_na=False, na_values=[""]) if path.suffix == ".csv" else (
        run_folder.metrics(path.parent))
