"""What the study says, in words: made from the rows of adlib.summary and from nothing else."""
from __future__ import annotations

import pandas as pd

from adlib.config import STATISTICS
from adlib.report import comparison
from adlib.report.i18n import Text, t
from adlib.report.i18n import join as listed

NAMED = 6  # rows that a sentence names


def headline(rows: pd.DataFrame) -> Text:
    """The answer in two sentences: the row with the best mean AUROC over the categories, and how
    much of the rest it stands out from."""
    known = rows[rows["with_best"].notna() & rows["auroc"].notna()]
    if known.empty:
        return t("answer.no_run_auroc_yet")
    everywhere = known.groupby("label")["category"].nunique() == known["category"].nunique()
    best = known[known["label"].isin(everywhere[everywhere].index)].groupby(
        "label", sort=False)["auroc"].mean()
    if best.empty:
        return full(rows)
    label = best.idxmax()
    mine = known[known["label"] == label]
    numbers = comparison.join(
        t("answer.auroc_category", category=row["category"], auroc=comparison.interval(
            row, "auroc", "low", "high")) for _, row in mine.iterrows())
    first = t("answer.label_does_best_image_auroc", label=label, numbers=numbers)
    if len(best) == 1:
        return first
    parts = [
        t("answer.n_others_category", category=category, others=len(part) - 1, n=int(
            (part["with_best"] == True).sum()) - int(
                (part.loc[part["label"] == label, "with_best"] == True).any()))  # noqa: E712
        for category, part in known.groupby("category", sort=False)
    ]
    return listed([first, t("answer.other_rows_paired_test_cannot", parts=comparison.join(parts))])


def full(rows: pd.DataFrame) -> Text:
    """Which row is best in each category, what cannot be told from it, and which rows beat no
    baseline. From the numbers."""
    sentences = []
    for category, known in rows[rows["auroc"].notna()].groupby("category", sort=False):
        here, apart = known[known["with_best"].notna()], known[known["with_best"].isna()]
        if len(apart):
            sentences.append(
                t("answer.not_compared_category_having_seen", category=category,
                  rows=comparison.join(apart["label"])))
        if here.empty:
            continue
        best = here.loc[here["auroc"].idxmax()]
        tied = list(here.loc[here["auroc"].round(4) == round(best["auroc"], 4), "label"])
        level = [
            row.label for row in here.itertuples()
            if row.with_best is True and row.label not in tied
        ]
        others = len(here) - len(tied)
        words = {
            "category": category, "rows": comparison.join(tied), "auroc": comparison.interval(
                best, "auroc", "low", "high")
        }
        sentences.append((t("answer.category_rows_ranks_best_auroc", **words) if len(tied) ==
                          1 else t("answer.category_rows_rank_best_auroc", **words)) +
                         _beside_the_best(level, others, best["n_anomalous"]))
        baselines = here[here["name"].isin(STATISTICS)]
        if len(baselines):
            top = baselines.loc[baselines["auroc"].idxmax()]
            below = here[~here["name"].isin(STATISTICS) & (here["auroc"] <= top["auroc"])]
            if len(below):
                words = {
                    "rows": comparison.join(below["label"]), "top": top["label"],
                    "auroc": top["auroc"]
                }
                sentences.append(
                    t("answer.rows_does_not_beat_top", **words) if len(below) ==
                    1 else t("answer.rows_do_not_beat_top", **words))
    judged = rows[rows["verdict"].fillna("") != ""]
    if len(judged):
        counts = judged["verdict"].value_counts()
        words = {
            "reached": t("answer.n_reached", n=counts.get("reached")), "exceeded": t(
                "answer.n_exceeded", n=counts.get("exceeded")), "missed": t(
                    "answer.n_missed", n=counts.get("missed"))
        }
        sentences.append(
            t(
                "answer.n_auroc_ranges_seed_claims", n=len(judged), verdicts=comparison.join(
                    text for verdict, text in words.items() if verdict in counts)))
    absent = rows[rows["auroc"].isna()]
    if len(absent):
        names = [
            t("answer.category_label_status_reason", category=row.category, label=row.label,
              status=row.status, reason=row.reason) for row in absent.itertuples()
        ]
        sentences.append(t("answer.without_result_rows", rows=listed(names, "; ")))
    return listed(sentences)


def _beside_the_best(level: list[str], others: int, anomalous: float) -> Text:
    """The end of a sentence: what cannot be told from the best row, `level` of the `others` that
    are not as good in print."""
    if not others:
        return t("answer.stop")
    if not level:
        return (t("answer.all_others_other_rows_significantly", others=others)
                if others > 1 else t("answer.other_row_significantly_below_paired"))
    names = comparison.join(
        level if len(level) <=
        NAMED else [*level[:NAMED], t("answer.n_more", n=len(level) - NAMED)])
    if others > 1:
        return t("answer.bad_f_anomalous_test_images_2", bad=anomalous, n=len(level), others=others,
                 rows=names)
    return t("answer.bad_f_anomalous_test_images", bad=anomalous, rows=names)
