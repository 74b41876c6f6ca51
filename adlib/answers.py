"""What the study says, in words: made from the rows of adlib.summary and from nothing else."""
from __future__ import annotations

import pandas as pd

from adlib import compare
from adlib.config import STATISTICS
from adlib.lang import Text, t
from adlib.lang import join as listed

NAMED = 6  # rows that a sentence names


def headline(rows: pd.DataFrame) -> Text:
    """The answer in two sentences: the row with the best mean AUROC over the categories, and how much of the rest it stands out from."""
    known = rows[rows["with_best"].notna() & rows["auroc"].notna()]
    if known.empty:
        return t("No run has an AUROC yet.")
    everywhere = known.groupby("label")["category"].nunique() == known["category"].nunique()
    best = known[known["label"].isin(everywhere[everywhere].index)].groupby("label", sort=False)["auroc"].mean()
    if best.empty:
        return full(rows)
    label = best.idxmax()
    mine = known[known["label"] == label]
    numbers = compare.join(t("{auroc} on {category}", category=row["category"], auroc=compare.interval(row, "auroc", "low", "high"))
                           for _, row in mine.iterrows())
    first = t("{label} does best: an image AUROC of {numbers}, the brackets being what so small a test set leaves open.", label=label,
              numbers=numbers)
    if len(best) == 1:
        return first
    parts = [t("{n} of {others} on {category}", category=category, others=len(part) - 1,
               n=int((part["with_best"] == True).sum()) - int((part.loc[part["label"] == label, "with_best"] == True).any()))  # noqa: E712
             for category, part in known.groupby("category", sort=False)]
    return listed([first, t("Of the other rows, the paired test cannot tell {parts} from the best.", parts=compare.join(parts))])


def full(rows: pd.DataFrame) -> Text:
    """Which row is best in each category, what cannot be told from it, and which rows beat no baseline. From the numbers."""
    sentences = []
    for category, known in rows[rows["auroc"].notna()].groupby("category", sort=False):
        here, apart = known[known["with_best"].notna()], known[known["with_best"].isna()]
        if len(apart):
            sentences.append(t("Not compared on {category}, having seen other test images: {rows}.", category=category,
                               rows=compare.join(apart["label"])))
        if here.empty:
            continue
        best = here.loc[here["auroc"].idxmax()]
        tied = list(here.loc[here["auroc"].round(4) == round(best["auroc"], 4), "label"])
        level = [row.label for row in here.itertuples() if row.with_best is True and row.label not in tied]
        others = len(here) - len(tied)
        words = {"category": category, "rows": compare.join(tied), "auroc": compare.interval(best, "auroc", "low", "high")}
        sentences.append((t("On {category}, {rows} ranks best with an AUROC of {auroc}", **words) if len(tied) == 1 else
                          t("On {category}, {rows} rank best with an AUROC of {auroc}", **words))
                         + _beside_the_best(level, others, best["n_anomalous"]))
        baselines = here[here["name"].isin(STATISTICS)]
        if len(baselines):
            top = baselines.loc[baselines["auroc"].idxmax()]
            below = here[~here["name"].isin(STATISTICS) & (here["auroc"] <= top["auroc"])]
            if len(below):
                words = {"rows": compare.join(below["label"]), "top": top["label"], "auroc": top["auroc"]}
                sentences.append(t("{rows} does not beat {top} ({auroc:.3f}), which is no model at all.", **words) if len(below) == 1 else
                                 t("{rows} do not beat {top} ({auroc:.3f}), which is no model at all.", **words))
    judged = rows[rows["verdict"].fillna("") != ""]
    if len(judged):
        counts = judged["verdict"].value_counts()
        words = {"reached": t("{n} reached", n=counts.get("reached")), "exceeded": t("{n} exceeded", n=counts.get("exceeded")),
                 "missed": t("{n} missed", n=counts.get("missed"))}
        sentences.append(t("Of the {n} AUROC ranges that the seed claims for these cells, {verdicts}.", n=len(judged),
                           verdicts=compare.join(text for verdict, text in words.items() if verdict in counts)))
    absent = rows[rows["auroc"].isna()]
    if len(absent):
        names = [t("{category} / {label} ({status}: {reason})", category=row.category, label=row.label, status=row.status,
                   reason=row.reason) for row in absent.itertuples()]
        sentences.append(t("Without a result: {rows}.", rows=listed(names, "; ")))
    return listed(sentences)


def _beside_the_best(level: list[str], others: int, anomalous: float) -> Text:
    """The end of a sentence: what cannot be told from the best row, `level` of the `others` that are not as good in print."""
    if not others:
        return t(".")
    if not level:
        return (t(", and all {others} other rows are significantly below it (paired DeLong test, corrected for all pairs).", others=others)
                if others > 1 else
                t(", and the other row is significantly below it (paired DeLong test, corrected for all pairs)."))
    names = compare.join(level if len(level) <= NAMED else [*level[:NAMED], t("{n} more", n=len(level) - NAMED)])
    if others > 1:
        return t("; with {bad:.0f} anomalous test images the paired DeLong test, corrected for all pairs, cannot tell {n} of {others} "
                 "other rows from it: {rows}.", bad=anomalous, n=len(level), others=others, rows=names)
    return t("; with {bad:.0f} anomalous test images the paired DeLong test cannot tell {rows} from it.", bad=anomalous, rows=names)
