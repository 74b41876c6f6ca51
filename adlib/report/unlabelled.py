"""Which configuration would one take who has no labels, is that choice sure, and what did it cost?

Known without labels is how well each tells held-out good images from the synthetic anomalies put
into them. That is a small exam: a choice is sure where DeLong's paired test tells the first from
every other. It says nothing of whether real defects are like synthetic ones; docs/results_parts.md
has how often a sure choice is right.
"""
from __future__ import annotations

import collections
import math
from pathlib import Path

import numpy as np
import pandas as pd

from adlib.evaluation import calibration
from adlib.evaluation.auroc import auroc
from adlib.report.comparison import finished, label, read_metrics, read_results
from adlib.report.i18n import Text, enumerated, join, t


def table(runs: pd.DataFrame, reports: Path) -> pd.DataFrame:
    """A row a category of which two or more configurations took the same exam.

    category; configuration, the first of the exam; label_free, its AUROC there (the mean over the
    seeds); unsure, the others that cannot be told apart from it, and others, how many there are;
    of a category with labels also chosen_auroc, best (configuration), best_auroc and kendall, the
    correlation of both orders. runs: comparison.performance.
    """
    exams: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    real: dict[str, dict[str, float]] = {}
    for (category, name), some in finished(runs[~runs["weights"].str.startswith("RANDOM")]):
        taken = [_exam(reports / folder) for folder in some["folder"]]
        if all(len(labels) == len(taken[0][0]) > 0 for labels, _ in taken):
            exams.setdefault(category, {})[name] = taken[0][0], np.stack([one for _, one in taken])
            real.setdefault(category, {})[name] = some["auroc"].mean()
    rows = [_row(category, taken, real[category]) for category, taken in exams.items()]
    return pd.DataFrame([row for row in rows if row], columns=[
        "category", "configuration", "label_free", "unsure", "others", "chosen_auroc", "best",
        "best_auroc", "kendall"])


def _exam(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """0 for held-out good images, 1 for synthetic anomalies, and their scores; empty where a run of
    an earlier version kept none."""
    results, synthetic = read_results(folder), read_metrics(folder).get("synthetic") or []
    good = results.loc[results["split"] == "held_out", "chosen_score"].to_numpy(float)
    kept = min(len(good), len(synthetic)) > 0
    return (np.repeat([0, 1], [len(good), len(synthetic)] if kept else [0, 0]),
            np.r_[good, synthetic] if kept else np.zeros(0))


def _row(category: str, taken: dict[str, tuple[np.ndarray, np.ndarray]],
         real: dict[str, float]) -> dict[str, object] | None:
    usual, _ = collections.Counter(tuple(one) for one, _ in taken.values()).most_common(1)[0]
    labels = np.array(usual)
    scores = {name: each for name, (one, each) in taken.items() if np.array_equal(one, labels)}
    if len(scores) < 2:
        return None
    free = {name: float(np.mean([auroc(labels, one) for one in each]))
            for name, each in scores.items()}
    first = max(free, key=free.__getitem__)
    row = {"category": category, "configuration": first, "label_free": free[first],
           "unsure": calibration.undecided(first, labels, scores), "others": len(scores) - 1}
    judged = pd.Series(real)[list(scores)]
    if judged.isna().any():
        return row | {"chosen_auroc": math.nan, "best": "", "best_auroc": math.nan,
                      "kendall": math.nan}
    return row | {"chosen_auroc": judged[first], "best": judged.idxmax(),
                  "best_auroc": judged.max(),
                  "kendall": pd.Series(free).corr(judged, method="kendall")}


def said(found: pd.DataFrame) -> Text:
    """The choice of every category in words, and what all choices cost."""
    texts = [t("question.unlabelled_unsure" if row.unsure else "question.unlabelled_sure",
               category=row.category, label=label(row.configuration), auroc=row.label_free,
               n=len(row.unsure), of=row.others) for row in found.itertuples()]
    judged = found.dropna(subset="best_auroc")
    if len(judged):
        lost, sure = judged["best_auroc"] - judged["chosen_auroc"], ~judged["unsure"].astype(bool)
        texts.append(t("question.unlabelled_cost", n=len(judged), lost=lost.mean(), most=lost.max(),
                       sure=int(sure.sum()), right=int((sure & (lost <= 0)).sum())))
    return join(texts)


def shown(found: pd.DataFrame) -> pd.DataFrame:
    """`table` with the configurations that cannot be told apart in words."""
    return found.assign(unsure=[enumerated(map(label, names)) for names in found["unsure"]],
                        best=found["best"].map(label))
