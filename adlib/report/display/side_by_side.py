"""Any two runs beside each other, on the same images, read from their folders alone."""
from __future__ import annotations

import shlex
import typing
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from adlib.evaluation.results import write_csv
from adlib.report import comparison
from adlib.report.display import components, gallery
from adlib.report.pages import notebook_page
from adlib.report.words.i18n import t
from adlib.runs import image_layers, run_folder

FOLDER = "compare"  # below the reports: a page a category
SOURCE = """from pathlib import Path

from adlib.report.display import figures, side_by_side

figures.show(side_by_side.of_category(Path("reports"), {!r}))"""  # the same in a notebook


def compared(folder: Path, page: Path | None = None) -> gallery.Compared:
    """A finished run among others. page: the folder of the page that shows it; None = JupyterLab,
    which gets the pictures inside the notebook."""
    params = run_folder.manifest(folder)["params"]
    name = t("page.seed", configuration=comparison.label(params["name"]), seed=params["seed"])
    return gallery.Compared(name, comparison.read_metrics(folder)["chosen"]["score"],
                            *gallery.test_images(folder), image_layers.read(folder, page))


def of_category(reports: Path, category: str, first: str = "") -> Markup:
    """Any two of a category's finished runs, for JupyterLab; to begin with, one of the
    configuration `first`."""
    runs = [folder for folder in run_folder.all_runs(reports)
            if folder.parts[-3] == category and run_folder.status(folder).state == "finished"]
    runs.sort(key=lambda folder: folder.parts[-2] != first)
    return gallery.compare([compared(folder) for folder in runs]) or components.paragraph(
        t("compare.too_few", category=category))


def pages(reports: Path, table: pd.DataFrame) -> typing.Iterator[dict[str, typing.Any]]:
    """A page for each category with two runs that have kept pictures (site.build). table:
    comparison.performance."""
    for category, runs in table[table["status"] == "finished"].groupby("category", sort=False):
        here = reports / FOLDER / str(category)
        best_first = runs.sort_values("auroc", ascending=False, kind="stable")["folder"]
        sides = [compared(reports / folder, here) for folder in best_first]
        if shown := gallery.compare(sides):
            write_csv(pd.concat([side.rows.set_index("path")["score"].rename(str(side.name))
                                 for side in sides], axis=1).reset_index(), here / "scores.csv")
            yield {"notebook": here / "notebook.ipynb", "stem": "", "category": category,
                   "cells": [notebook_page.shown("compare", shown,
                                               source=SOURCE.format(str(category)))],
                   "heading": t("compare.title"), "title": t("compare.of", category=category),
                   "link": (t("compare.pages"), category, ""),
                   "synthetic": comparison.is_synthetic(runs),
                   "command": shlex.join(["adlib", "report", "--reports", str(reports)])}
