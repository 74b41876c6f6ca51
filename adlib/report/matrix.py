"""The first page's two views of all rows: a card a category with its answer, and the matrix of
configurations by categories. For a page and JupyterLab by templates, for a terminal as a table."""
from __future__ import annotations

import math
import os
import typing
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
from markupsafe import Markup

from adlib.evaluation.conformal import Threshold
from adlib.report import album, answers, comparison, figures, gallery, ranking, tables
from adlib.report.comparison import label
from adlib.report.i18n import Text, named, t
from adlib.report.render import render
from adlib.runs import run_folder

MORE = {"localisation": ("au_pro_30", "au_pro_05", "pixel_auroc", "pixel_ap"),
        "other": ("label_free", "bad_auroc"), "cost": ("train_seconds", "epochs", "device"),
        "claims": ("claim_low", "verdict", "published"),
        "provenance": ("score", "seeds", "weights")}  # behind a switch: {group: columns}
WIDE = 3  # categories whose cells stand in one line; of more they are stacked
Cell = dict[str, typing.Any]


def base(reports: Path) -> str:
    """What leads from where links are followed to the reports: nothing on a page, which lies there;
    in JupyterLab the way from its notebook."""
    return f"{Path(os.path.relpath(reports)).as_posix()}/" if figures.attended() else ""


def cards(rows: pd.DataFrame, reports: Path, only: str = "") -> Markup:
    """A card a category: its best row, what that finds at its threshold, pictures of it. only: of
    this category."""
    shown = []
    for category in [only] if only else dict.fromkeys(rows["category"]):
        found = ranking.answer(rows, category)
        best = found.best or {}
        folder = best.get("folder", "")
        shown.append({
            "category": category, "said": answers.short(found), "level": answers.level(found),
            "names": answers.labels(found.tied[:2]), "gains": best and answers.rates(best),
            "auroc": best and tables.decimal(best["auroc"]),
            "interval": best and tables.interval(best["low"], best["high"]),
            "href": f"{base(reports)}{quote(folder)}/index.html",
            "data": _data_page(reports, category),
            "images": _telling(reports / folder, reports) if best else []})
    return render("cards.html.j2", cards=shown)


def _telling(folder: Path, reports: Path) -> list[dict[str, typing.Any]]:
    """Three images of a run, as its own page begins with; [] where it has kept no pictures."""
    metrics, results = comparison.read_metrics(folder), comparison.read_results(folder)
    rows = gallery.with_scores(results[results["split"] == "test"])
    threshold = Threshold(np.array(metrics["calibration"]["scores"], float),
                          run_folder.manifest(folder)["params"]["target_fpr"])
    places = gallery.telling(rows, threshold)
    shots = album.read(folder, None if figures.attended() else reports,
                       rows.loc[list(places), "path"])
    return [gallery.tile(rows.iloc[i], shots[key], threshold) for i in places
            if (key := rows.loc[i, "path"]) in shots]


def matrix(rows: pd.DataFrame, reports: Path, only: str = "") -> Markup:
    """Configurations by categories: AUROC with its interval and star, what the threshold finds and
    falsely calls; more behind a switch; where there are several categories, mean and average rank.
    only: the row of this category alone."""
    over = ranking.standing(rows)
    here = rows[rows["category"] == only] if only else rows
    categories = list(dict.fromkeys(here["category"]))
    low = here["low"].min()
    low = 0.0 if math.isnan(low) else min(0.5, math.floor(10 * low) / 10)
    columns, constant = _more(here)
    lines: dict[str, list[Cell]] = {}
    for code in ranking.order(here):
        parent, _, _ = code.partition(comparison.REFERENCE)
        mine = here[here["configuration"] == code].set_index("category").to_dict("index")
        cells = [_cell(mine.get(category), low, columns, base(reports)) for category in categories]
        standing = over.loc[code] if code in over.index and not only else {}
        lines.setdefault(parent, []).append({
            "label": t("label.mean_squared_error") if code != parent else label(code),
            "child": code != parent, "cells": cells,
            "random": any(row["random"] is True for row in mine.values()),
            "mean": tables.decimal(standing.get("mean", math.nan)),
            "rank": tables.form(standing.get("rank", math.nan), "{:.1f}")})
    heads = [{"name": name, "href": _data_page(reports, name)} for name in categories]
    groups = [(group, named("more", group), [tables.title(column) for column in names])
              for group, names in columns.items()]
    return render("matrix.html.j2", groups=list(lines.values()), heads=heads, more=groups,
                  low=low, chance=100 * (0.5 - low) / (1 - low), wide=len(categories) <= WIDE,
                  several=len(over) > 0 and not only, constant=constant, notes=notes(here))


def closing(rows: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(configuration, category, AUROC and rates) of every cell, for the terminal's table."""
    said = []
    for code in ranking.order(rows):
        for row in rows[rows["configuration"] == code].to_dict("records"):
            star = " ★" if row["with_best"] is True else "  "
            rates = " ".join(filter(None, answers.operating(row)))
            cell = (f"{tables.decimal(row['auroc'])}{star} {rates}".rstrip()
                    if not math.isnan(row["auroc"]) else str(answers.status(pd.Series(row))))
            said.append((label(code), row["category"], cell))
    return said


def _cell(row: dict[str, typing.Any] | None, low: float, columns: dict[str, list[str]],
          prefix: str) -> Cell | None:
    if row is None:
        return None
    href = f"{prefix}{quote(row['folder'])}/index.html"
    if math.isnan(row["auroc"]):
        return {"href": href, "status": named("status", row["status"]),
                "why": answers.status(pd.Series(row))}
    at = {key: f"{100 * (min(max(row[key], low), 1) - low) / (1 - low):.0f}"
          for key in ("low", "auroc", "high")}
    return {"href": href, "value": f"{row['auroc']:.5f}", "text": tables.decimal(row["auroc"]),
            "said": tables.auroc(row), "at": at, "star": row["with_best"] is True,
            "compared": row["with_best"] in (True, False), "rates": answers.operating(row),
            "more": {group: [tables.text(name, row) for name in names]
                     for group, names in columns.items()}}


def _more(rows: pd.DataFrame) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """{group: its columns that say something}, and (title, text) of those that say the same of all
    rows."""
    columns, constant = {}, []
    done = rows[rows["seeds"] > 0].to_dict("records")
    for group, names in MORE.items():
        for name in names:
            texts = {tables.text(name, row) for row in done} - {""}
            if len(texts) > 1:
                columns.setdefault(group, []).append(name)
            elif texts and len(done) > 1 and group in ("cost", "provenance"):
                constant.append((tables.title(name), texts.pop()))
    return columns, constant


def _data_page(reports: Path, category: str) -> str:
    there = (reports / "eda" / category / "notebook.ipynb").is_file()
    return f"{base(reports)}eda/{quote(category)}/index.html" if there else ""


def notes(rows: pd.DataFrame) -> list[Text]:
    """How to read the matrix."""
    said = [t("matrix.read")]
    if (rows["random"] == True).any():  # noqa: E712  (a column of True, False and nothing)
        said.append(t("matrix.random"))
    if rows["configuration"].str.endswith(comparison.REFERENCE).any():
        said.append(t("matrix.reference"))
    return said
