"""Scores meet labels. The only room that reads a test label, and nothing that it finds goes back
into a choice."""
from __future__ import annotations

import typing
from pathlib import Path

import numpy as np
import pandas as pd

from adlib.config import REFERENCE_SCORE
from adlib.data import files, layout
from adlib.evaluation import conformal, localization, metrics, paired

if typing.TYPE_CHECKING:  # a comparison need not wait for torch
    from adlib.evaluation import calibration

# train_bad: the course layout's train/bad, never trained on, against test's good
EVALUATION_SPLITS = ("test", "train_bad")


def results(category: layout.Category, scored: calibration.Scored, rate: float) -> pd.DataFrame:
    """One row an image, for all_results.csv.

    Columns: path, split, label (0 good, 1 anomalous, empty = unknown), defect; score, p_value and
    prediction (1 = called anomalous, p_value <= rate) of the configuration's own score;
    chosen_score, chosen_p_value and chosen_prediction of the score chosen without labels.
    Predictions are empty where nothing was held out, and for the images a detector was made with.
    Raises InputError for labels that are missing or cannot be understood (data.read_labels).
    """
    labels = layout.read_labels(category)
    parts = []
    for split, (paths, values) in scored.splits.items():
        keys = [category.key(path) for path in paths]
        known = [
            layout.Label(False, "good") if split in ("train", "held_out") else labels.get(key)
            for key in keys
        ]
        part = pd.DataFrame({
            "path": keys, "split": split, "label": [
                None if one is None else int(one.anomalous) for one in known
            ], "defect": ["" if one is None else one.defect for one in known]
        })
        for prefix, name in (("", scored.primary), ("chosen_", scored.chosen)):
            p_values = pd.Series(scored.p_values[name].get(split, np.full(len(paths), np.nan)))
            part[f"{prefix}score"] = values[name].to_numpy()
            part[f"{prefix}p_value"] = p_values
            part[f"{prefix}prediction"] = (p_values <= rate).astype("Int64").where(p_values.notna())
        parts.append(part)
    return pd.concat(parts, ignore_index=True).astype(
        {"label": "Int64", "prediction": "Int64", "chosen_prediction": "Int64"})


def score_study(results_table: pd.DataFrame, scored: calibration.Scored) -> pd.DataFrame:
    """Every map and reduction: its label-free AUROC (score.label_free) beside the AUROC on test and
    on train_bad.

    Rows in the label-free order, columns score, label_free, test, train_bad, role (its own, chosen
    without labels; or fixed in advance, see decide.decide).
    """
    how = "chosen without labels" if scored.primary == REFERENCE_SCORE else "fixed in advance"
    label_free = dict(
        zip(scored.ranking["score"], scored.ranking.get("all", [np.nan] * len(scored.ranking)),
            strict=True))
    rows = []
    for name, value in label_free.items():
        table = results_table.assign(
            score=pd.concat([scored.splits[split][1][name]
                             for split in scored.splits], ignore_index=True))
        row = {"score": name, "label_free": value}
        for split in EVALUATION_SPLITS:
            try:
                row[split] = metrics.auroc(*arrays(table, split))
            except metrics.OneClassError:
                row[split] = float("nan")
        roles = [
            word for word, which in (("its own", scored.primary), (how, scored.chosen))
            if which == name
        ]
        rows.append(row | {"role": " and ".join(roles)})
    return pd.DataFrame(rows).sort_values("label_free", ascending=False, kind="stable",
                                          ignore_index=True)


def operating(table: pd.DataFrame, prefix: str = "") -> dict[str, dict[str, typing.Any]]:
    """False alarms and detections of the label-free threshold, per evaluation split, and the
    best-F1 threshold as an oracle.

    {split: {false_positives, detections: {count, n, rate, low, high} (Clopper-Pearson, 95 %),
    oracle_f1: {threshold, f1, false_positives, detections} (uses test labels)}}. None where there
    are no predictions or no labels of both classes.
    """
    found: dict[str, dict[str, typing.Any]] = {}
    for split in EVALUATION_SPLITS:
        chosen = _rows(table, split)
        truth, called = chosen["label"].to_numpy(dtype=int), chosen[f"{prefix}prediction"]
        entry: dict[str,
                    typing.Any] = {"false_positives": None, "detections": None, "oracle_f1": None}
        if len(chosen) and called.notna().all():
            for name, of in (("false_positives", 0), ("detections", 1)):
                hits, n = int(called[truth == of].sum()), int((truth == of).sum())
                low, high = conformal.rate_interval(hits, n)
                entry[name] = {
                    "count": hits, "n": n, "rate": hits / n if n else None, "low": low, "high": high
                }
        if 0 < truth.sum() < len(truth):
            entry["oracle_f1"] = _best_f1(truth, chosen[f"{prefix}score"].to_numpy())
        found[split] = entry
    return found


def localisation(category: layout.Category,
                 maps: np.ndarray) -> tuple[dict[str, typing.Any] | None, pd.DataFrame]:
    """Pixel metrics of the test images' maps (float [N,S,S], in the order of category.test), and a
    row a defect region.

    All test images count, good ones as all good; an anomalous image without a mask is left out and
    counted. Masks: any value above 0, resized by nearest neighbour. ({pixel_auroc, pixel_ap,
    au_pro_30, au_pro_05, images, without_mask, groups}, regions with path and defect); (None,
    empty) where no image has a mask. `groups`: the same four metrics for the good images with each
    defect type, and with the half of the defective images whose defects are smaller, and larger.
    Definitions: adlib.localise.
    """
    from adlib.data import images

    labels = layout.read_labels(category)
    masks = [layout.mask_path(category, path) for path in category.test
             ] if category.layout == "mvtec" else [None] * len(category.test)
    defects = [
        labels[category.key(path)].defect if category.key(path) in labels else ""
        for path in category.test
    ]
    anomalous = [
        category.key(path) in labels and labels[category.key(path)].anomalous
        for path in category.test
    ]
    used = [
        i for i, mask in enumerate(masks)
        if mask is not None or (category.key(category.test[i]) in labels and not anomalous[i])
    ]
    if not any(masks[i] is not None for i in used):
        return None, pd.DataFrame()
    truth = images.load_masks([masks[i] for i in used], maps.shape[-1]).numpy()
    maps, kinds, areas = maps[used], np.array([defects[i] for i in used]), truth.mean(axis=(1, 2))
    try:
        found, regions = localization.measure(maps, truth)
    except ValueError as error:  # masks that are all empty, say
        return {"why_absent": str(error)}, pd.DataFrame()
    middle = np.median(areas[areas > 0])
    groups = {kind: kinds == kind
              for kind in dict.fromkeys(kinds[areas > 0])} if len(set(
                  kinds[areas > 0])) > 1 else {}
    if (areas > middle).any():
        groups |= {
            f"defects up to {middle:.2%} of the image": (areas > 0) & (areas <= middle),
            f"defects above {middle:.2%} of the image": areas > middle
        }
    rows = []
    for name, chosen in groups.items():
        chosen = (chosen & (areas > 0)) | (areas == 0)
        rows.append({
            "group": name, "images": int((chosen & (areas > 0)).sum()), **localization.measure(
                maps[chosen], truth[chosen])[0]
        })
    regions = regions.assign(defect=kinds[regions["image"]],
                             path=[category.key(category.test[used[i]]) for i in regions["image"]])
    return found | {
        "images": len(used), "without_mask": sum(anomalous) - sum(mask is not None
                                                                  for mask in masks), "groups": rows
    }, regions.drop(columns="image")


def arrays(table: pd.DataFrame, split: str, score: str = "score") -> tuple[np.ndarray, np.ndarray]:
    """labels [N] of 0/1 and scores [N] of an evaluation split; for train_bad the good images are
    the test set's."""
    chosen = _rows(table, split)
    return chosen["label"].to_numpy(dtype=int), chosen[score].to_numpy(dtype=float)


def auroc(table: pd.DataFrame, score: str = "score") -> dict[str, dict[str, typing.Any]]:
    """{split: {value, low, high, n_good, n_anomalous, why_absent}} for both evaluation splits.

    low and high bound the AUROC's 95 % interval for the finite test set (DeLong, on the logit
    scale). Where a split has one class only, or no labels, value, low and high are None and
    why_absent says so.
    """
    found = {}
    for split in EVALUATION_SPLITS:
        labels, scores = arrays(table, split, score)
        entry = {
            "n_good": int((labels == 0).sum()), "n_anomalous": int((labels == 1).sum()),
            "value": None, "low": None, "high": None, "why_absent": None
        }
        try:
            entry["value"] = metrics.auroc(labels, scores)
            entry["low"], entry["high"] = paired.interval(labels, scores)
        except metrics.OneClassError as error:
            entry["why_absent"] = str(error) if len(labels) else "this split has no labelled images"
        found[split] = entry
    return found


def auroc_over_epochs(table: pd.DataFrame, by_epoch: typing.Mapping[int,
                                                                    np.ndarray]) -> pd.DataFrame:
    """AUROC on the test split had training stopped there: rows of epoch, auroc (empty where it is
    undefined).

    by_epoch: {epoch: scores [N] of the test images, in the order of `table`}. A diagnosis, never a
    choice.
    """
    test = table[table["split"] == "test"]
    rows = []
    for epoch, scores in sorted(by_epoch.items()):
        known = test.assign(score=scores)
        try:
            rows.append({"epoch": epoch, "auroc": metrics.auroc(*arrays(known, "test"))})
        except metrics.OneClassError:
            rows.append({"epoch": epoch, "auroc": float("nan")})
    return pd.DataFrame(rows, columns=["epoch", "auroc"])


def confounders(table: pd.DataFrame,
                appearance: typing.Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """What the score follows where there is no defect: its Spearman rank correlation in [-1,1],
    over the good test images, with each of {name: [N], one value a test image} (images.appearance).
    None where either does not vary, and for fewer than 5 images."""
    test = table[table["split"] == "test"].reset_index(drop=True)
    good = (test["label"] == 0).to_numpy(dtype=bool, na_value=False)
    scores, found = test.loc[good, "score"], {}
    for name, values in appearance.items():
        looks = pd.Series(np.asarray(values, float))[good]
        known = good.sum() >= 5 and scores.nunique() > 1 and looks.nunique() > 1
        found[name] = float(scores.corr(looks, method="spearman")) if known else None
    return found


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table beside its place and rename it. Scores keep all their digits: equal runs give
    equal bytes."""
    with files.atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)


def _rows(table: pd.DataFrame, split: str) -> pd.DataFrame:
    wanted = table["split"] == split
    if split == "train_bad":
        wanted |= (table["split"] == "test") & (table["label"] == 0)
    return table[wanted & table["label"].notna()]


def _best_f1(truth: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    best = {"f1": -1.0}
    for threshold in np.unique(scores):
        called = scores >= threshold
        hits = int((called & (truth == 1)).sum())
        f1 = 2 * hits / (called.sum() + truth.sum())
        if f1 > best["f1"]:
            best = {
                "threshold": float(threshold), "f1": float(f1), "false_positives": float(
                    called[truth == 0].mean()), "detections": float(hits / truth.sum())
            }
    return best
