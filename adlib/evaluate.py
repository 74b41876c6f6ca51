"""Scores meet labels. The only room that reads a test label, and nothing that it finds goes back into a choice."""
from __future__ import annotations

import typing
from pathlib import Path

import numpy as np
import pandas as pd

from adlib import data, files, metrics

EVALUATION_SPLITS = ("test", "train_bad")  # train_bad: the seed layout's train/bad, never trained on, against test's good


def results(category: data.Category, scores: typing.Mapping[str, tuple[typing.Sequence[Path], np.ndarray]]) -> pd.DataFrame:
    """One row an image: path, split, label (0 good, 1 anomalous, empty = unknown), defect, score. For all_results.csv.

    scores: {split: (paths, scores [N])}, the splits being train, held_out, test and train_bad.
    Raises InputError for labels that are missing or cannot be understood (data.read_labels).
    """
    labels = data.read_labels(category)
    rows = []
    for split, (paths, values) in scores.items():
        for path, value in zip(paths, values, strict=True):
            key = category.key(path)
            label = data.Label(False, "good") if split in ("train", "held_out") else labels.get(key)
            rows.append({"path": key, "split": split, "label": None if label is None else int(label.anomalous),
                         "defect": "" if label is None else label.defect, "score": float(value)})
    table = pd.DataFrame(rows, columns=["path", "split", "label", "defect", "score"])
    return table.astype({"label": "Int64"})


def arrays(table: pd.DataFrame, split: str) -> tuple[np.ndarray, np.ndarray]:
    """labels [N] of 0/1 and scores [N] of an evaluation split; for train_bad the good images are the test set's."""
    wanted = table["split"] == split
    if split == "train_bad":
        wanted |= (table["split"] == "test") & (table["label"] == 0)
    chosen = table[wanted & table["label"].notna()]
    return chosen["label"].to_numpy(dtype=int), chosen["score"].to_numpy(dtype=float)


def auroc(table: pd.DataFrame) -> dict[str, dict[str, typing.Any]]:
    """{split: {value, low, high, n_good, n_anomalous, why_absent}} for both evaluation splits.

    low and high bound the AUROC's 95 % interval for the finite test set (DeLong). Where a split has one class only, or
    no labels, value, low and high are None and why_absent says so.
    """
    found = {}
    for split in EVALUATION_SPLITS:
        labels, scores = arrays(table, split)
        entry = {"n_good": int((labels == 0).sum()), "n_anomalous": int((labels == 1).sum()), "value": None, "low": None,
                 "high": None, "why_absent": None}
        try:
            entry["value"] = metrics.auroc(labels, scores)
            entry["low"], entry["high"] = metrics.delong_interval(labels, scores)
        except metrics.OneClassError as error:
            entry["why_absent"] = str(error) if len(labels) else "this split has no labelled images"
        found[split] = entry
    return found


def auroc_over_epochs(table: pd.DataFrame, by_epoch: typing.Mapping[int, np.ndarray]) -> pd.DataFrame:
    """AUROC on the test split had training stopped there: rows of epoch, auroc (empty where it is undefined).

    by_epoch: {epoch: scores [N] of the test images, in the order of `table`}. A diagnosis, never a choice.
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


def brightness_correlation(table: pd.DataFrame, brightness: np.ndarray) -> float:
    """Spearman rank correlation in [-1,1] of the test scores with the images' mean grey value ([N], any unit).

    Far from 0, the score follows the exposure at least as much as the defect. NaN where either does not vary.
    """
    scores = table.loc[table["split"] == "test", "score"].reset_index(drop=True)
    return float(scores.corr(pd.Series(np.asarray(brightness, dtype=float)), method="spearman"))


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table beside its place and rename it. Scores keep all their digits: equal runs give equal bytes."""
    with files.atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)
