"""All runs side by side, read from their folders alone: the performance table, and what it says in
words."""
from __future__ import annotations

import math
import typing
from pathlib import Path

import pandas as pd

from adlib.config import InputError
from adlib.data import files
from adlib.report.data_sentences import data_source
from adlib.report.i18n import Text, t
from adlib.report.i18n import join as listed
from adlib.runs import run_folder

# The reference's four rows, in its order: what its README claims, and what the per-image scores
# that its author published give for the one configuration they were published for. Only for its own
# two categories, and only on its own images.
REFERENCE_ROWS = {
    "cae_mse": "CAE + MSE", "cae_ssim": "CAE + SSIM", "resnet_mse": "ResNet18 + MSE",
    "resnet_ssim": "ResNet18 + SSIM"
}
LABELS = REFERENCE_ROWS | {
    "to_pixels": t("comparison.frozen_resnet18_pixels"),
    "to_features": t("comparison.frozen_resnet18_features_cosine"),
    "to_features_squared": t("comparison.frozen_resnet18_features_squared"),
    "pca": t("comparison.pca_residual"), "gaussian": t("comparison.gaussian_per_position_padim"),
    "gaussian_anywhere": t("comparison.one_gaussian_all_positions"),
    "memory": t("comparison.memory_patches_patchcore"),
    "classifier": t("comparison.head_taught_synthetic_defects"),
    "fused": t("comparison.fused_memory_taught_head"),
    "mean_grey": t("comparison.mean_grey_no_model"), "contrast": t("comparison.contrast_no_model"),
    "laplacian_variance": t("comparison.laplacian_variance_no_model"),
    "compressed_size": t("comparison.compressed_size_no_model"),
    "fused_without_layer1": t("comparison.fused_without_layer1"),
    "fused_layer3": t("comparison.fused_layer3_alone"), "fused_128px": t("comparison.fused_px"),
    "fused_texture": t("comparison.fused_taught_cutpaste_perlin_only"),
    "fused_shape": t("comparison.fused_taught_scratch_structural_only"),
    "classifier_texture": t("comparison.taught_cutpaste_perlin_only"),
    "classifier_shape": t("comparison.taught_scratch_structural_only")
}
REFERENCE_CLAIMS = {
    ("hazelnut", "cae_mse"): (0.70, 0.80), ("zipper", "cae_mse"): (0.60, 0.70),
    ("hazelnut", "cae_ssim"): (0.75, 0.85), ("zipper", "cae_ssim"): (0.65, 0.75),
    ("hazelnut", "resnet_mse"): (0.80, 0.85), ("zipper", "resnet_mse"): (0.70, 0.80),
    ("hazelnut", "resnet_ssim"): (0.85, 0.90), ("zipper", "resnet_ssim"): (0.75, 0.85)
}
REFERENCE_PUBLISHED = {("hazelnut", "resnet_ssim"): 0.812, ("zipper", "resnet_ssim"): 0.717}
COLUMNS = ("category", "name", "label", "seed", "status", "reason", "auroc", "low", "high",
           "n_good", "n_anomalous", "bad_auroc", "bad_low", "bad_high", "n_bad", "claim_low",
           "claim_high", "verdict", "published", "epochs", "asked", "train_seconds", "device",
           "precision", "weights", "brightness", "size", "pose", "synthetic", "layout",
           "fingerprint", "git", "source", "folder")


def performance(reports: Path) -> pd.DataFrame:
    """One row a run, planned runs that are missing or failed included; sorted by category, then the
    order of LABELS.

    AUROCs are NaN where a run has none; `reason` then says why. Raises InputError when there is no
    run at all.
    """
    rows = {path: _row(path, reports) for path in run_folder.all_runs(reports)}
    for planned in _planned(reports):
        path = reports / planned["folder"]
        if path not in rows:
            rows[path] = _row(path, reports)
    if not rows:
        raise InputError(f"there is no run in {reports / 'runs'}; run a notebook, or `adlib run "
                         f"params/grids/quick.yaml`, first")
    order = {name: i for i, name in enumerate(LABELS)}
    found = sorted(
        rows.values(), key=lambda row:
        (row["category"], order.get(row["name"], 99), row["name"], row["seed"]))
    return pd.DataFrame(found, columns=list(COLUMNS))


def label(name: str) -> str:
    """A configuration's name for a person, in both languages; one that is not of this study keeps
    its own."""
    return LABELS.get(name, name)


ABLATIONS = ("fused_without_layer1", "fused_layer3", "fused_128px", "fused_texture", "fused_shape",
             "classifier_texture", "classifier_shape")
# in figures that would drown in more
SHOWN = (*REFERENCE_ROWS, "to_pixels", "to_features", "memory", "fused")


def without_ablations(table: pd.DataFrame) -> pd.DataFrame:
    """The runs without the best detector's variants, which have a table of their own and would only
    thin out the paired tests."""
    kept = table[~table["name"].isin(ABLATIONS)]
    return kept if len(kept) else table


def results_of(table: pd.DataFrame, reports: Path,
               name: str = "all_results.csv") -> dict[tuple[str, str], pd.DataFrame]:
    """{(category, label): a CSV of the run} of the first reference's finished runs, where they have
    that file.

    Of more than eight configurations those of SHOWN only: curves that lie on each other say
    nothing.
    """
    done = table[table["status"] == "finished"].drop_duplicates(["category", "name"])
    if done["name"].nunique() > len(SHOWN):
        done = done[done["name"].isin(SHOWN)]
    return {(row.category, row.label): pd.read_csv(reports / row.folder / name)
            for row in done.itertuples() if (reports / row.folder / name).is_file()}


def read_results(folder: Path) -> pd.DataFrame:
    """A finished run's all_results.csv. Raises InputError where it is missing or damaged."""
    try:
        return pd.read_csv(folder / "all_results.csv")
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {folder / 'all_results.csv'} ({error}); run its configuration again "
            f"with --force") from error


def provenance(table: pd.DataFrame) -> Text:
    """Where the numbers come from: data, device, weights; synthetic data and weights that were not
    the asked-for ones first."""
    done = table[table["status"] == "finished"]
    text: list[str] = []
    if (done["synthetic"] == True).any():  # noqa: E712  (a column of True, False and nothing)
        drawn = join(sorted(set(done.loc[done["synthetic"] == True, "category"])))  # noqa: E712
        text.append(t("comparison.synthetic_data_drawn_these_images", drawn=drawn))
    random = sorted({weights for weights in done["weights"] if weights.startswith("RANDOM")})
    if random:
        text.append(t("comparison.resnet18_rows_did_not_imagenet", weights=listed(random, "; ")))
    text += sorted(set(done["source"]))
    given = sorted(
        {weights
         for weights in done["weights"] if not weights.startswith(("RANDOM", "none ("))})
    if given:
        text.append(t("comparison.resnet18_weights_weights", weights=listed(given, "; ")))
    data = [
        t("comparison.category_fingerprints", category=category, fingerprints=join(
            sorted(set(rows["fingerprint"])))) for category, rows in done.groupby("category")
    ]
    return listed([
        *text,
        t("comparison.done_runs_runs_finished_devices", done=len(done), runs=len(table),
          devices=join(sorted(set(done["device"]))), data=listed(data, ", "))
    ])


def bars_sentence(rows: pd.DataFrame) -> Text:
    text = (t("comparison.auroc_every_row_interval_finite") if rows["claim_low"].notna().any() else
            t("comparison.auroc_every_row_interval_finite_2"))
    return listed([
        text, *(t(
            "comparison.category_values", category=category, values=listed([
                t("comparison.label_auroc_f", label=row.label, auroc=row.auroc)
                for row in part.itertuples() if row.auroc == row.auroc
            ], ", ")) for category, part in rows.groupby("category", sort=False))
    ])


def matrix_sentence(pairs: pd.DataFrame, category: str) -> Text:
    return t("comparison.category_apart_pairs_pairs_rows", category=category, apart=int(
        (pairs["p_holm"] < 0.05).sum()), pairs=len(pairs))


def roc_sentence(table: pd.DataFrame) -> Text:
    return t("comparison.roc_curves_all_configurations_nearer")


def distributions_sentence(results: dict[tuple[str, str], pd.DataFrame]) -> Text:
    """How many anomalous images hide among the good ones, per run."""
    parts = []
    for (category, label), table in results.items():
        test = table[table["split"] == "test"]
        good, bad = test.loc[test["label"] == 0, "score"], test.loc[test["label"] == 1, "score"]
        if len(good) and len(bad):
            parts.append(
                t("comparison.category_label_hidden_bad", category=category, label=label,
                  hidden=int((bad <= good.max()).sum()), bad=len(bad)))
    return t("comparison.anomalous_test_images_score_no", parts=listed(parts, ", ")
             or t("comparison.no_labels"))


def epochs_sentence(curves: dict[tuple[str, str], pd.DataFrame]) -> Text:
    parts = [
        t("comparison.category_label_first_f_epoch", category=category, label=label,
          first=known.iloc[0]["auroc"], begin=known.iloc[0]["epoch"], last=known.iloc[-1]["auroc"],
          end=known.iloc[-1]["epoch"]) for (category, label), table in curves.items()
        if len(known := table.dropna())
    ]
    return t("comparison.first_epoch_last_parts", parts=listed(parts, "; ")
             or t("comparison.no_labels"))


def _row(path: Path, reports: Path) -> dict[str, typing.Any]:
    category, name, seed = path.parts[-3], path.parts[-2], path.parts[-1].removeprefix("seed-")
    status = run_folder.status(path)
    manifest = run_folder.manifest(path)
    about = manifest.get("data") or {}
    row = {
        "category": category, "name": name, "label": label(name),
        "seed": int(seed) if seed.isdigit() else -1, "status": status.state,
        "reason": status.reason, "epochs": math.nan,
        "train_seconds": math.nan, "device": manifest.get("device", ""), "weights": manifest.get(
            "weights", ""), "git": manifest.get("git", ""), "precision": manifest.get(
                "precision", ""), "synthetic": about.get("synthetic"), "layout": about.get(
                    "layout", ""), "fingerprint": about.get("fingerprint", ""),
        "source": data_source(about.get("source", ""), Path(about.get("root", "")).name)
        if about else "", "folder": path.relative_to(reports).as_posix(), "verdict": ""
    }
    row["asked"] = _nan((manifest.get("params") or {}).get("target_fpr"))  # the false-alarm rate
    if about.get("layout") in ("course", "seed"):  # the claims are about the reference's own images
        row["claim_low"], row["claim_high"] = REFERENCE_CLAIMS.get((category, name),
                                                                   (math.nan, math.nan))
        row["published"] = REFERENCE_PUBLISHED.get((category, name), math.nan)
    if status.state == "finished":
        measured = files.read_json(path / "metrics.json")
        test, bad = measured["auroc"]["test"], measured["auroc"]["train_bad"]
        row |= {
            "auroc": _nan(test["value"]), "low": _nan(test["low"]), "high": _nan(
                test["high"]), "n_good": test["n_good"], "n_anomalous": test["n_anomalous"],
            "reason": test["why_absent"] or "", "bad_auroc": _nan(bad["value"]), "bad_low": _nan(
                bad["low"]), "bad_high": _nan(bad["high"]), "n_bad": bad["n_anomalous"],
            "epochs": measured["epochs"], "train_seconds": _nan(manifest.get("train_seconds")), **{
                name: _nan(value)
                for name, value in (measured.get("confounders") or {}).items()
            }
        }
        row["verdict"] = _verdict(row)
    return {column: row.get(column, math.nan) for column in COLUMNS}


def _planned(reports: Path) -> list[dict[str, typing.Any]]:
    if not (reports / "batch.json").exists():
        return []
    return [
        task for task in files.read_json(reports / "batch.json")
        if task.get("name") and task.get("folder", "").startswith("runs/")
    ]


def _verdict(row: dict[str, typing.Any]) -> str:
    low = row.get("claim_low", math.nan)
    if math.isnan(low) or math.isnan(
            row["auroc"]) or row["epochs"] < 100 or row["weights"].startswith("RANDOM"):
        return ""  # the claims are about full training, and about ImageNet weights
    value = round(row["auroc"], 2)  # the claims have two decimals
    return "missed" if value < low else "exceeded" if value > row["claim_high"] else "reached"


def interval(row: typing.Mapping[str, float], value: str, low: str, high: str) -> str:
    """'0.797 [0.66, 0.94]' from three columns of a row; empty where there is no value."""
    return "" if math.isnan(row[value]) else f"{row[value]:.3f} [{row[low]:.2f}, {row[high]:.2f}]"


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def join(words: typing.Iterable[str]) -> Text:
    """'a, b and c'."""
    words = list(words)
    return t("comparison.most_last", most=listed(words[:-1], ", "),
             last=words[-1]) if len(words) > 1 else listed(words)
