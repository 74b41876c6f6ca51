"""The first page's two views of all rows: a card a category with its answer, and the matrix of
configurations by categories. For a page and JupyterLab by templates, for a terminal as a table."""
from __future__ import annotations

import math
import os
import shlex
import typing
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from markupsafe import Markup

from adlib.report import comparison, ranking
from adlib.report.comparison import label
from adlib.report.display import figures, gallery, tables
from adlib.report.display.render import render
from adlib.report.words import answers
from adlib.report.words.i18n import Text, join, t
from adlib.runs import forecast, image_layers

MORE = {"localisation": ("au_pro_30", "au_pro_05", "pixel_auroc", "pixel_ap"),
        "other": ("label_free", "bad_auroc"), "cost": ("train_seconds", "epochs", "device"),
        "claims": ("claim_low", "verdict", "published"),
        "provenance": ("score", "seeds", "weights")}  # behind a switch: {group: columns}
WIDE = 3  # categories whose cells stand in one line; of more they are stacked
Row = dict[str, typing.Any]


def base(reports: Path) -> str:
    """What leads from where links are followed to the reports: nothing on a page, which lies there;
    in JupyterLab the way from its notebook."""
    return f"{Path(os.path.relpath(reports)).as_posix()}/" if figures.attended() else ""


def cards(rows: pd.DataFrame, reports: Path, only: str = "") -> Markup:
    """A card a category: its best row, what that finds at its threshold, pictures of it. only: of
    this category, for a page of its own."""
    shown = []
    for category in [only] if only else dict.fromkeys(rows["category"]):
        of_category = ranking.answer(rows, category)
        row = of_category.best or of_category.unjudged
        card = {"category": category, "said": answers.short(of_category), "row": row,
                "data": "" if only else _data_page(reports, category)}
        if row:
            folder, page = row["folder"], reports / "eda" / category if only else reports
            card |= {"names": label(row["configuration"]), "images": _informative(
                reports / folder, page), "gains": answers.without_auroc(row), "level": t(
                "answer.try_by", run=shlex.quote(forecast.near(reports / folder))),
                "href": f"{_up(only)}{base(reports)}{quote(folder)}/index.html"}
        if of_category.best:
            card |= {"names": answers.labels(of_category.tied[:2]),
                     "gains": answers.gains(of_category),
                     "level": answers.equivalents(of_category, 2)}
        shown.append(card)
    return render("cards.html.j2", cards=shown, decimal=tables.decimal, interval=tables.interval)


def matrix(rows: pd.DataFrame, reports: Path, only: str = "") -> Markup:
    """Configurations by categories: AUROC with its interval and star, what the threshold finds and
    falsely calls; more behind a switch; where there are several categories, mean and average rank.
    only: the column of this category alone, for a page of its own."""
    over = ranking.standing(rows)[:0 if only else None]
    here = rows[rows["category"] == only] if only else rows
    categories = list(dict.fromkeys(here["category"]))
    low = min(0.5, math.floor(10 * here["low"].min()) / 10) if here["low"].notna().any() else 0.0
    more, constant = _more(here)
    groups: dict[str, list[Row]] = {}
    for code in ranking.order(here):
        mine = here[here["configuration"] == code].set_index("category").to_dict("index")
        for row in mine.values():
            row |= {"href": f"{_up(only)}{base(reports)}{quote(row['folder'])}/index.html",
                    "why": answers.status(row), "cell": answers.cell(row),
                    "rates": answers.operating(row),
                    "more": [(group, tables.text(name, row) if row["seeds"] else "")
                             for group, names in more.items() for name in names]}
        parent = code.partition(comparison.REFERENCE)[0]
        groups.setdefault(parent, []).append({
            "label": label(code) if code == parent else t("score.reference"),
            "child": code != parent, "cells": list(map(mine.get, categories)),
            "random": any(row["random"] is True for row in mine.values()),
            "over": over.loc[code].to_dict() if code in over.index else None})
    return render(
        "matrix.html.j2", groups=list(groups.values()), several=len(over) > 0, low=low,
        heads=[(name, "" if only else _data_page(reports, name)) for name in categories],
        wide=len(categories) <= WIDE, decimal=tables.decimal,
        said=tables.auroc, rated=here["detections"].notna().any(),
        constant=join((t("list.name", name=title, value=text) for title, text in constant), ", "),
        judged=here["auroc"].notna().any(), no_rates=t("answer.no_rates"),
        more={group: list(map(tables.title, more[group])) for group in more})


def closing(rows: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(configuration, category, two lines: AUROC with its interval; rates and seconds of fitting)
    of every cell, for the terminal's table."""
    cells = []
    by_cell = {(row["configuration"], row["category"]): row for row in rows.to_dict("records")}
    for code in ranking.order(rows):
        name, parent = label(code), code.removesuffix(comparison.REFERENCE)
        if any(row["random"] is True for (one, _), row in by_cell.items() if one == code):
            name = t("matrix.random_row", label=name)
        for category in dict.fromkeys(rows["category"]):
            row = by_cell.get((code, category))
            if row is None:
                said = t("matrix.same") if parent != code and (parent, category) in by_cell else (
                    t("matrix.not_run"))
            elif row["auroc"] == row["auroc"]:
                star = " ★" if row["with_best"] is True else ""
                rates = " @ ".join(answers.operating(row)), tables.text("train_seconds", row)
                said = (f"{tables.decimal(row['auroc'])} "
                        f"{tables.interval(row['low'], row['high'])}{star}\n"
                        f"{', '.join(filter(None, rates))}")
            else:
                said = answers.cell(row)
            cells.append((name, category, said))
    return cells


def notes(rows: pd.DataFrame) -> list[Text]:
    """How to read the matrix."""
    used = {"random": (rows["random"] == True).any(),  # noqa: E712  (True, False or nothing)
            "reference": rows["configuration"].str.endswith(comparison.REFERENCE).any()}
    judged = rows["auroc"].notna().any()
    return [t("matrix.read" if judged else "matrix.read_known"),
            *(t(f"matrix.{note}") for note in used if used[note])]


def _informative(folder: Path, page: Path) -> list[Row]:
    """Three images of a run, as its own page begins with; [] where it has kept no pictures."""
    rows, threshold = gallery.test_images(folder)
    places = gallery.select_informative(rows, threshold)
    shots = image_layers.read(folder, None if figures.attended() else page,
                              rows.loc[list(places), "path"])
    return [gallery.tile(rows.iloc[i], shots[key], threshold) for i in places
            if (key := rows.loc[i, "path"]) in shots]


def _more(rows: pd.DataFrame) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """{group: its columns that say something}, and (title, text) of those that say the same of all
    rows."""
    columns, constant = {}, []
    done = rows[rows["seeds"] > 0].to_dict("records")
    for group, name in ((group, name) for group, names in MORE.items() for name in names):
        texts = {tables.text(name, row) for row in done}
        if len(texts) > 1:
            columns.setdefault(group, []).append(name)
        elif any(texts) and len(done) > 1 and group in ("cost", "provenance"):
            constant.append((tables.title(name), texts.pop()))
    return columns, constant


def _data_page(reports: Path, category: str) -> str:
    there = (reports / "eda" / category / "notebook.ipynb").is_file()
    return f"{base(reports)}eda/{quote(category)}/index.html" if there else ""


def _up(only: str) -> str:
    return "../../" * bool(only)
