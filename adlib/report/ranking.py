"""What the rows of a comparison come to: each category's answer, which rows are distinguishable,
and how they stand over all categories."""
from __future__ import annotations

import dataclasses
import math
import typing
from pathlib import Path

import pandas as pd

from adlib.evaluation import ranks
from adlib.evaluation.auroc import pairwise_tests
from adlib.report.comparison import REFERENCE, compared_scores, is_in_use, merit


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """What the rows of a category come to; whoever names a best row asks for this.

    best: the row of a score in use of the highest AUROC, of those that are equal in print the one
        whose threshold finds more; None where no row is compared. tied: the codes that are equal in
        print, `best`'s first. level: of others that the paired test cannot distinguish from it.
        below: how many it can. random, apart: codes that are not compared, for their random weights
        and for having seen other test images. unjudged: of finished rows without an AUROC the one
        of the best label-free figure, where no row has one.
    """

    category: str
    best: dict[str, typing.Any] | None
    tied: list[str]
    level: list[str]
    below: int
    random: list[str]
    apart: list[str]
    unjudged: dict[str, typing.Any] | None


def answer(rows: pd.DataFrame, category: str) -> Answer:
    """The answer of a category, from all `rows`."""
    here = rows[(rows["category"] == category) & rows["auroc"].notna()]
    by_code = here.set_index("configuration", drop=False).to_dict("index")
    is_random = {code for code, row in by_code.items() if row["random"] is True}
    compared = [code for code, row in by_code.items()
                if row["with_best"] in (True, False) and code not in is_random]
    in_use = sorted(filter(is_in_use, compared), key=lambda code: merit(by_code[code]),
                    reverse=True)
    best = by_code[in_use[0]] if in_use else None
    tied = [code for code in in_use if merit(by_code[code])[0] == merit(best)[0]]
    others = sorted(set(compared) - set(tied), key=lambda code: merit(by_code[code]), reverse=True)
    level = [code for code in others if by_code[code]["with_best"]]
    done = [] if by_code else rows[
        (rows["category"] == category) & (rows["status"] == "finished")].sort_values(
        ["random", "label_free"], ascending=[True, False], kind="stable").to_dict("records")
    return Answer(category, best, tied, level, len(others) - len(level),
                  [code for code in by_code if code in is_random],
                  [code for code in by_code if code not in {*compared, *is_random}],
                  done[0] if done else None)


def over_categories(rows: pd.DataFrame) -> pd.DataFrame:
    """The AUROC of every configuration that is compared on all categories, by its score in use: a
    row a category, a column a configuration. Averages over a gap would mean nothing."""
    compared = rows[rows["with_best"].notna() & (rows["configuration"] == rows["name"])]
    wide = compared.pivot_table(index="category", columns="name", values="auroc", sort=False)
    return wide.dropna(axis="columns")


def standing(rows: pd.DataFrame) -> pd.DataFrame:
    """mean (AUROC) and rank (average) over the categories, the best mean first; index: the
    configurations of `over_categories`; empty for a single category."""
    wide = over_categories(rows)
    means = pd.DataFrame({"mean": wide.mean(), "rank": ranks.average_ranks(wide)})
    return means.sort_values("mean", ascending=False, kind="stable") if len(wide) > 1 else means[:0]


def order(rows: pd.DataFrame) -> list[str]:
    """The codes of `rows` as they are shown: the best mean first, random weights and what has no
    figure last; the reference's score follows the configuration that it belongs to."""
    main = rows[rows["configuration"] == rows["name"]].groupby("name", sort=False)
    means = pd.DataFrame({"auroc": main["auroc"].mean(),
                          "random": main["random"].max().astype(bool)})
    ordered = means.sort_values(["random", "auroc"], ascending=[True, False], kind="stable").index
    there = set(rows["configuration"])
    return [code for name in ordered for code in (name, name + REFERENCE) if code in there]


def matrix(table: pd.DataFrame, reports: Path, category: str) -> pd.DataFrame:
    """Every pair of rows of a category on the same test images: a, b (configuration codes),
    difference (of the means over seeds), p, p_holm.

    Configurations with a seed that ran on other data than most, or that has no AUROC, are left out.
    """
    labels, scores = compared_scores(table, reports, category)
    return pairwise_tests(labels, scores) if len(scores) > 1 else pd.DataFrame(
        columns=["a", "b", "difference", "p", "p_holm"])


def p_value(pairs: pd.DataFrame, a: str, b: str) -> float:
    """The p-value of two rows of `matrix`, not corrected, for a comparison that was planned; NaN
    where they were not compared."""
    return next((float(pair.p) for pair in pairs.itertuples() if {pair.a, pair.b} == {a, b}),
                math.nan)
