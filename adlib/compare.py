"""All runs side by side, read from their folders alone: the performance table, and what it says in words."""
from __future__ import annotations

import math
import typing
from pathlib import Path

import pandas as pd

from adlib import files, runs
from adlib.config import InputError
from adlib.lang import Text, t
from adlib.lang import join as listed

# The seed's four rows, in its order: what its README claims, and what the per-image scores that its author published
# give for the one configuration they were published for. Only for its own two categories, and only on its own images.
SEED_ROWS = {"cae_mse": "CAE + MSE", "cae_ssim": "CAE + SSIM", "resnet_mse": "ResNet18 + MSE", "resnet_ssim": "ResNet18 + SSIM"}
LABELS = SEED_ROWS | {
    "to_pixels": t("Frozen ResNet18 to pixels"), "to_features": t("Frozen ResNet18 to features (cosine)"),
    "to_features_squared": t("Frozen ResNet18 to features (squared)"), "pca": t("PCA residual"),
    "gaussian": t("Gaussian per position (PaDiM)"), "gaussian_anywhere": t("One Gaussian for all positions"),
    "memory": t("Memory of patches (PatchCore)"), "taught": t("Head taught by synthetic defects"),
    "fused": t("Fused: memory + taught head"), "mean_grey": t("Mean grey (no model)"), "contrast": t("Contrast (no model)"),
    "laplacian_variance": t("Laplacian variance (no model)"), "compressed_size": t("Compressed size (no model)"),
    "fused_without_layer1": t("Fused, without layer1"), "fused_layer3": t("Fused, layer3 alone"), "fused_128px": t("Fused, 128 px"),
    "fused_texture": t("Fused, taught cutpaste and perlin only"), "fused_shape": t("Fused, taught scratch and structural only"),
    "taught_texture": t("Taught, cutpaste and perlin only"), "taught_shape": t("Taught, scratch and structural only")}
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


def label(name: str) -> str:
    """A configuration's name for a person, in both languages; one that is not of this study keeps its own."""
    return LABELS.get(name, name)


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


def provenance(table: pd.DataFrame) -> Text:
    """Where the numbers come from: data, device, weights; synthetic data and weights that were not the asked-for ones first."""
    done = table[table["status"] == "finished"]
    text: list[str] = []
    if (done["synthetic"] == True).any():  # noqa: E712  (a column of True, False and nothing)
        drawn = join(sorted(set(done.loc[done["synthetic"] == True, "category"])))  # noqa: E712
        text.append(t("SYNTHETIC DATA ({drawn}): these images were drawn by a program; nothing here is a result on real parts.",
                      drawn=drawn))
    random = sorted({weights for weights in done["weights"] if weights.startswith("RANDOM")})
    if random:
        text.append(t("The ResNet18 rows did not have ImageNet weights: {weights}.", weights=listed(random, "; ")))
    text += sorted(set(done["source"]))
    given = sorted({weights for weights in done["weights"] if not weights.startswith(("RANDOM", "none ("))})
    if given:
        text.append(t("ResNet18 weights: {weights}.", weights=listed(given, "; ")))
    data = [t("{category} {fingerprints}", category=category, fingerprints=join(sorted(set(rows["fingerprint"]))))
            for category, rows in done.groupby("category")]
    return listed([*text, t("{done} of {runs} runs finished, on {devices}. Data fingerprints: {data}.", done=len(done), runs=len(table),
                            devices=join(sorted(set(done["device"]))), data=listed(data, ", "))])


def bars_sentence(rows: pd.DataFrame) -> Text:
    text = (t("AUROC of every row with the 95 % interval of the finite test set; filled: not told from the best of its category; "
              "the grey bands are the ranges that the seed claims.") if rows["claim_low"].notna().any() else
            t("AUROC of every row with the 95 % interval of the finite test set; filled: not told from the best of its category."))
    return listed([text, *(
        t("{category}: {values}.", category=category, values=listed(
            [t("{label} {auroc:.2f}", label=row.label, auroc=row.auroc) for row in part.itertuples() if row.auroc == row.auroc], ", "))
        for category, part in rows.groupby("category", sort=False))])


def matrix_sentence(pairs: pd.DataFrame, category: str) -> Text:
    return t("{category}: {apart} of {pairs} pairs of rows are told apart by the paired DeLong test on the same images at 5 %, corrected "
             "for the number of pairs (stars).", category=category, apart=int((pairs["p_holm"] < 0.05).sum()), pairs=len(pairs))


def roc_sentence(table: pd.DataFrame) -> Text:
    return t("ROC curves of all configurations: the nearer to the upper left corner, the more defects are found at few false alarms.")


def distributions_sentence(results: dict[tuple[str, str], pd.DataFrame]) -> Text:
    """How many anomalous images hide among the good ones, per run."""
    parts = []
    for (category, label), table in results.items():
        test = table[table["split"] == "test"]
        good, bad = test.loc[test["label"] == 0, "score"], test.loc[test["label"] == 1, "score"]
        if len(good) and len(bad):
            parts.append(t("{category} {label} {hidden}/{bad}", category=category, label=label, hidden=int((bad <= good.max()).sum()),
                           bad=len(bad)))
    return t("Anomalous test images that score no higher than the highest good one: {parts}.", parts=listed(parts, ", ") or t("no labels"))


def epochs_sentence(curves: dict[tuple[str, str], pd.DataFrame]) -> Text:
    parts = [t("{category} {label} {first:.2f} (epoch {begin:.0f}) to {last:.2f} (epoch {end:.0f})", category=category, label=label,
               first=known.iloc[0]["auroc"], begin=known.iloc[0]["epoch"], last=known.iloc[-1]["auroc"], end=known.iloc[-1]["epoch"])
             for (category, label), table in curves.items() if len(known := table.dropna())]
    return t("From the first epoch to the last: {parts}.", parts=listed(parts, "; ") or t("no labels"))


def _row(path: Path, reports: Path) -> dict[str, typing.Any]:
    category, name, seed = path.parts[-3], path.parts[-2], path.parts[-1].removeprefix("seed-")
    status = runs.status(path)
    manifest = runs.manifest(path)
    about = manifest.get("data") or {}
    row = {"category": category, "name": name, "label": label(name), "seed": int(seed) if seed.isdigit() else -1,
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


def join(words: typing.Iterable[str]) -> Text:
    """'a, b and c'."""
    words = list(words)
    return t("{most} and {last}", most=listed(words[:-1], ", "), last=words[-1]) if len(words) > 1 else listed(words)
