"""Which configuration would one take who has no labels, is that choice sure, and what did it cost?

Known without labels is how well each tells held-out good images from the synthetic anomalies put
into them. That is a small exam: a choice is sure where DeLong's paired test tells the first from
every other. It says nothing of whether real defects are like synthetic ones; docs/results_parts.md
has how often a sure choice is right.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from adlib.evaluation.auroc import auroc, undecided
from adlib.report.comparison import finished, label, read_metrics, read_results
from adlib.report.words.i18n import Text, enumerated, join, t, with_texts

Exam = tuple[str, int, int]  # the data's fingerprint; held-out images, and synthetic anomalies


def table(runs: pd.DataFrame, reports: Path) -> pd.DataFrame:
    """A row a category of which two or more configurations took the same exam.

    category; configuration, the first of the exam; label_free, its AUROC there (the mean over the
    seeds); unsure, the others not distinguishable from it, and others, how many there are;
    of a category with labels also chosen_auroc, best (configuration), best_auroc and kendall, the
    correlation of both orders. runs: comparison.performance.
    """
    rows = []
    for category, here in runs[~runs["weights"].str.startswith("random")].groupby(
            "category", sort=False):
        exams: dict[Exam, dict[str, np.ndarray]] = {}
        for (_, name), some in finished(here):
            if (found := _taken(some, reports)) is not None:
                exams.setdefault(found[0], {})[name] = found[1]
        usual = max(exams, key=lambda exam: len(exams[exam]), default=None)
        if usual is not None and len(exams[usual]) > 1:
            real = here.groupby("name")["auroc"].mean()[list(exams[usual])]
            rows.append({"category": category, **_choice(usual, exams[usual], real)})
    return pd.DataFrame(rows, columns=["category", "configuration", "label_free", "unsure",
                                       "others", "chosen_auroc", "best", "best_auroc", "kendall"])


def _taken(seeds: pd.DataFrame, reports: Path) -> tuple[Exam, np.ndarray] | None:
    """The exam that a configuration's runs took, and their scores, [seeds,N]; None where they took
    different ones, or none: nothing was held out, or an earlier version kept no score."""
    exams, scores = set(), []
    for run in seeds.itertuples():
        results = read_results(reports / run.folder)
        good = results.loc[results["split"] == "held_out", "chosen_score"].to_numpy(float)
        synthetic = read_metrics(reports / run.folder).get("synthetic") or []
        exams.add((run.fingerprint, len(good), len(synthetic)))
        scores.append(np.r_[good, synthetic])
    (exam, *others) = exams
    return (exam, np.stack(scores)) if not others and min(exam[1:]) else None


def _choice(exam: Exam, scores: dict[str, np.ndarray], real: pd.Series) -> dict[str, object]:
    labels = np.repeat([0, 1], exam[1:])
    free = pd.Series({name: np.mean([auroc(labels, one) for one in each])
                      for name, each in scores.items()})
    first = str(free.idxmax())
    row = {"configuration": first, "label_free": free[first], "others": len(scores) - 1,
           "unsure": undecided(first, labels, scores)}
    if real.isna().any():
        return row | {"best": ""}
    return row | {"chosen_auroc": real[first], "best": real.idxmax(), "best_auroc": real.max(),
                  # of two it would be -1 or 1, and say nothing
                  "kendall": free.corr(real, method="kendall") if free[2:].size else np.nan}


def said(found: pd.DataFrame) -> Text:
    """What the choices cost, where there are labels to judge them by."""
    judged = found.dropna(subset="best_auroc")
    if judged.empty:
        return Text("")
    lost, sure = judged["best_auroc"] - judged["chosen_auroc"], ~judged["unsure"].astype(bool)
    said = t("question.unlabelled_cost", n=len(judged), lost=lost.mean(), most=lost.max())
    return join([said, t("question.unlabelled_right", sure=int(sure.sum()),
                         right=int((sure & (lost <= 0)).sum()))]) if sure.any() else said


def shown(found: pd.DataFrame) -> pd.DataFrame:
    """`table` with the configurations not distinguishable in words; where there is none, it
    does not say of how many others."""
    if not found["unsure"].map(len).any():
        found = found.drop(columns="others")
    return with_texts(found, best=map(label, found["best"]),
                      unsure=(enumerated(map(label, names)) for names in found["unsure"]))
