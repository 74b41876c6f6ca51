"""All runs side by side, read from their folders alone: the performance table, and what it says in words."""
from __future__ import annotations

import math
import typing
from pathlib import Path

import pandas as pd

from adlib import files, runs
from adlib.config import InputError

# The seed's four rows, in its order: what its README claims, and what the per-image scores that its author published
# give for the one configuration they were published for. Only for its own two categories, and only on its own images.
SEED_ROWS = {"cae_mse": "CAE + MSE", "cae_ssim": "CAE + SSIM", "resnet_mse": "ResNet18 + MSE", "resnet_ssim": "ResNet18 + SSIM"}
LABELS = SEED_ROWS | {
    "to_pixels": "Frozen ResNet18 to pixels", "to_features": "Frozen ResNet18 to features (cosine)",
    "to_features_squared": "Frozen ResNet18 to features (squared)", "pca": "PCA residual", "gaussian": "Gaussian per position (PaDiM)",
    "gaussian_anywhere": "One Gaussian for all positions",
    "memory": "Memory of patches (PatchCore)", "taught": "Head taught by synthetic defects", "fused": "Fused: memory + taught head",
    "mean_grey": "Mean grey (no model)", "contrast": "Contrast (no model)", "laplacian_variance": "Laplacian variance (no model)",
    "compressed_size": "Compressed size (no model)", "fused_without_layer1": "Fused, without layer1", "fused_layer3": "Fused, layer3 alone",
    "fused_128px": "Fused, 128 px", "fused_texture": "Fused, taught cutpaste and perlin only",
    "fused_shape": "Fused, taught scratch and structural only", "taught_texture": "Taught, cutpaste and perlin only",
    "taught_shape": "Taught, scratch and structural only"}
SEED_CLAIMS = {
    ("hazelnut", "cae_mse"): (0.70, 0.80), ("zipper", "cae_mse"): (0.60, 0.70),
    ("hazelnut", "cae_ssim"): (0.75, 0.85), ("zipper", "cae_ssim"): (0.65, 0.75),
    ("hazelnut", "resnet_mse"): (0.80, 0.85), ("zipper", "resnet_mse"): (0.70, 0.80),
    ("hazelnut", "resnet_ssim"): (0.85, 0.90), ("zipper", "resnet_ssim"): (0.75, 0.85)}
SEED_PUBLISHED = {("hazelnut", "resnet_ssim"): 0.812, ("zipper", "resnet_ssim"): 0.717}
COLUMNS = ("category", "name", "label", "seed", "status", "reason", "auroc", "low", "high", "n_good", "n_anomalous",
           "bad_auroc", "bad_low", "bad_high", "n_bad", "claim_low", "claim_high", "verdict", "published", "epochs",
           "asked", "train_seconds", "device", "precision", "weights", "brightness", "size", "pose", "synthetic", "layout", "fingerprint",
           "git", "source", "folder")


def performance(reports: Path) -> pd.DataFrame:
    """One row a run, planned runs that are missing or failed included; sorted by category, then the order of LABELS.

    AUROCs are NaN where a run has none; `reason` then says why. Raises InputError when there is no run at all.
    """
    rows = {path: _row(path, reports) for path in runs.all_runs(reports)}
    for planned in _planned(reports):
        path = reports / planned["folder"]
        if path not in rows:
            rows[path] = _row(path, reports)
    if not rows:
        raise InputError(f"there is no run in {reports / 'runs'}; run a notebook, or `adlib run params/quick.yaml`, first")
    order = {name: i for i, name in enumerate(LABELS)}
    found = sorted(rows.values(), key=lambda row: (row["category"], order.get(row["name"], 99), row["name"], row["seed"]))
    return pd.DataFrame(found, columns=list(COLUMNS))


ABLATIONS = ("fused_without_layer1", "fused_layer3", "fused_128px", "fused_texture", "fused_shape", "taught_texture", "taught_shape")
SHOWN = (*SEED_ROWS, "to_pixels", "to_features", "memory", "fused")  # in figures that would drown in more


def without_ablations(table: pd.DataFrame) -> pd.DataFrame:
    """The runs without the best detector's variants, which have a table of their own and would only thin out the paired tests."""
    kept = table[~table["name"].isin(ABLATIONS)]
    return kept if len(kept) else table


def results_of(table: pd.DataFrame, reports: Path, name: str = "all_results.csv") -> dict[tuple[str, str], pd.DataFrame]:
    """{(category, label): a CSV of the run} of the first seed's finished runs, where they have that file.

    Of more than eight configurations those of SHOWN only: curves that lie on each other say nothing.
    """
    done = table[table["status"] == "finished"].drop_duplicates(["category", "name"])
    if done["name"].nunique() > len(SHOWN):
        done = done[done["name"].isin(SHOWN)]
    return {(row.category, row.label): pd.read_csv(reports / row.folder / name) for row in done.itertuples()
            if (reports / row.folder / name).is_file()}


def read_results(folder: Path) -> pd.DataFrame:
    """A finished run's all_results.csv. Raises InputError where it is missing or damaged."""
    try:
        return pd.read_csv(folder / "all_results.csv")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {folder / 'all_results.csv'} ({error}); run its configuration again with --force") from error


def provenance(table: pd.DataFrame) -> str:
    """Where the numbers come from: data, device, weights; synthetic data and weights that were not the asked-for ones first."""
    done = table[table["status"] == "finished"]
    text = []
    if (done["synthetic"] == True).any():  # noqa: E712  (a column of True, False and nothing)
        drawn = join(sorted(set(done.loc[done["synthetic"] == True, "category"])))  # noqa: E712
        text.append(f"SYNTHETIC DATA ({drawn}): these images were drawn by a program; nothing here is a result on real parts.")
    random = sorted({weights for weights in done["weights"] if weights.startswith("RANDOM")})
    if random:
        text.append(f"The ResNet18 rows did not have ImageNet weights: {'; '.join(random)}.")
    text += sorted(set(done["source"]))
    given = sorted({weights for weights in done["weights"] if not weights.startswith(("RANDOM", "none ("))})
    if given:
        text.append(f"ResNet18 weights: {'; '.join(given)}.")
    text.append(f"{len(done)} of {len(table)} runs finished, on {join(sorted(set(done['device'])))}. Data fingerprints: "
                + ", ".join(f"{category} {join(sorted(set(rows['fingerprint'])))}" for category, rows in done.groupby("category")) + ".")
    return " ".join(text)


def bars_sentence(rows: pd.DataFrame) -> str:
    text = "AUROC of every row with the 95 % interval of the finite test set; filled: not told from the best of its category"
    if rows["claim_low"].notna().any():
        text += "; the grey bands are the ranges that the seed claims"
    return text + ". " + " ".join(
        f"{category}: " + ", ".join(f"{row.label} {row.auroc:.2f}" for row in part.itertuples() if row.auroc == row.auroc) + "."
        for category, part in rows.groupby("category", sort=False))


def matrix_sentence(pairs: pd.DataFrame, category: str) -> str:
    apart = int((pairs["p_holm"] < 0.05).sum())
    return (f"{category}: {apart} of {len(pairs)} pairs of rows are told apart by the paired DeLong test on the same images at 5 %, "
            "corrected for the number of pairs (stars).")


def roc_sentence(table: pd.DataFrame) -> str:
    return "ROC curves of all configurations: the nearer to the upper left corner, the more defects are found at few false alarms."


def distributions_sentence(results: dict[tuple[str, str], pd.DataFrame]) -> str:
    """How many anomalous images hide among the good ones, per run."""
    parts = []
    for (category, label), table in results.items():
        test = table[table["split"] == "test"]
        good, bad = test.loc[test["label"] == 0, "score"], test.loc[test["label"] == 1, "score"]
        if len(good) and len(bad):
            parts.append(f"{category} {label} {int((bad <= good.max()).sum())}/{len(bad)}")
    return "Anomalous test images that score no higher than the highest good one: " + (", ".join(parts) or "no labels") + "."


def epochs_sentence(curves: dict[tuple[str, str], pd.DataFrame]) -> str:
    parts = [f"{category} {label} {known.iloc[0]['auroc']:.2f} (epoch {known.iloc[0]['epoch']:.0f}) to {known.iloc[-1]['auroc']:.2f} "
             f"(epoch {known.iloc[-1]['epoch']:.0f})" for (category, label), table in curves.items() if len(known := table.dropna())]
    return "From the first epoch to the last: " + ("; ".join(parts) or "no labels") + "."


def _row(path: Path, reports: Path) -> dict[str, typing.Any]:
    category, name, seed = path.parts[-3], path.parts[-2], path.parts[-1].removeprefix("seed-")
    status = runs.status(path)
    manifest = runs.manifest(path)
    about = manifest.get("data") or {}
    row = {"category": category, "name": name, "label": LABELS.get(name, name), "seed": int(seed) if seed.isdigit() else -1,
           "status": status.state, "reason": status.reason, "epochs": math.nan, "train_seconds": math.nan,
           "device": manifest.get("device", ""), "weights": manifest.get("weights", ""), "git": manifest.get("git", ""),
           "precision": manifest.get("precision", ""), "synthetic": about.get("synthetic"), "layout": about.get("layout", ""),
           "fingerprint": about.get("fingerprint", ""), "source": about.get("source", ""),
           "folder": path.relative_to(reports).as_posix(), "verdict": ""}
    row["asked"] = _nan((manifest.get("params") or {}).get("false_alarms"))  # the false-alarm rate
    if about.get("layout") == "seed":  # the claims are about the seed's own images
        row["claim_low"], row["claim_high"] = SEED_CLAIMS.get((category, name), (math.nan, math.nan))
        row["published"] = SEED_PUBLISHED.get((category, name), math.nan)
    if status.state == "finished":
        measured = files.read_json(path / "metrics.json")
        test, bad = measured["auroc"]["test"], measured["auroc"]["train_bad"]
        row |= {"auroc": _nan(test["value"]), "low": _nan(test["low"]), "high": _nan(test["high"]), "n_good": test["n_good"],
                "n_anomalous": test["n_anomalous"], "reason": test["why_absent"] or "", "bad_auroc": _nan(bad["value"]),
                "bad_low": _nan(bad["low"]), "bad_high": _nan(bad["high"]), "n_bad": bad["n_anomalous"],
                "epochs": measured["epochs"], "train_seconds": _nan(manifest.get("train_seconds")),
                **{name: _nan(value) for name, value in (measured.get("follows") or {}).items()}}
        row["verdict"] = _verdict(row)
    return {column: row.get(column, math.nan) for column in COLUMNS}


def _planned(reports: Path) -> list[dict[str, typing.Any]]:
    if not (reports / "batch.json").exists():
        return []
    return [task for task in files.read_json(reports / "batch.json") if task.get("name") and task.get("folder", "").startswith("runs/")]


def _verdict(row: dict[str, typing.Any]) -> str:
    low = row.get("claim_low", math.nan)
    if math.isnan(low) or math.isnan(row["auroc"]) or row["epochs"] < 100 or row["weights"].startswith("RANDOM"):
        return ""  # the claims are about full training, and about ImageNet weights
    value = round(row["auroc"], 2)  # the claims have two decimals
    return "missed" if value < low else "exceeded" if value > row["claim_high"] else "reached"


def interval(row: typing.Mapping[str, float], value: str, low: str, high: str) -> str:
    """'0.797 [0.66, 0.94]' from three columns of a row; empty where there is no value."""
    return "" if math.isnan(row[value]) else f"{row[value]:.3f} [{row[low]:.2f}, {row[high]:.2f}]"


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def join(words: typing.Iterable[str]) -> str:
    """'a, b and c'."""
    words = list(words)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
