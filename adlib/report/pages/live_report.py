"""The report while its study runs: a page of each run as it finishes, and until the comparison is
there a first page that lists the steps and loads itself again."""
from __future__ import annotations

import typing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from adlib.config import log
from adlib.data import files
from adlib.runs import forecast, freshness
from adlib.runs.batch import Outcomes
from adlib.runs.grid import Task

if typing.TYPE_CHECKING:
    from adlib.report.pages import site
    from adlib.report.words.i18n import Text

RELOAD_S = 5
Steps = list[tuple[Task, str]]


class LiveReport:
    """Draws beside the batch, in a thread of its own, which also imports what draws: five seconds
    in which the first run starts. Called with the outcomes whenever one of them is another. An
    earlier study's first page stays until the new one is whole."""

    def __init__(self, reports: Path, language: str) -> None:
        self.reports = reports.absolute()  # as a task's output is
        self.index, self.note = self.reports / "index.html", self.reports / "report.json"
        self.own = not self.index.is_file() or "growing" in freshness.read(self.note)
        self.language = language or freshness.read(self.note).get("language", "en")
        self.pages: dict[Task, site.Page] = {}
        self.pool = ThreadPoolExecutor(1)
        self.said = False

    def __call__(self, outcomes: Outcomes) -> None:
        if not self.said:
            log.info("report, which grows as runs finish: %s", forecast.near(self.index))
            self.said = True
        self.pool.submit(self._draw, [(task, one.status) for task, one in outcomes.items()])

    def close(self) -> None:
        """Wait for the page at work, and draw no other."""
        self.pool.shutdown(cancel_futures=True)

    def _draw(self, steps: Steps) -> None:
        try:
            import pandas as pd

            from adlib.report import comparison
            from adlib.report.pages import machine_paths, site

            new = [task for task, status in steps
                   if task.kind == "run" and status == "finished" and task not in self.pages]
            table = (comparison.performance(self.reports) if new or self.pages
                     else pd.DataFrame({"folder": []}))
            commands = site.commands_of(self.reports).values()
            common = site.shared(self.language) | {
                "hidden": machine_paths.hidden(self.reports, table, commands),
                "mvtec": comparison.of_mvtec(table)}
            for row in table.itertuples():
                for task in new:
                    if self.reports / row.folder == task.output.parent:
                        self.pages[task] = site.run_page(
                            self.reports, row, {row.folder: task.retry})
            groups = site.groups(list(self.pages.values()), self.reports)
            for task in new:
                site.write(common | self.pages[task], groups, self.reports)
            if self.own:
                files.write_json(self.note, {"growing": len(self.pages),
                                             "language": self.language})
                drawn = "synthetic" in table and comparison.is_synthetic(table)
                site.write(common | self._first(steps) | {"synthetic": drawn}, groups, self.reports)
        except Exception as error:  # the whole report, drawn at the end, says what is wrong
            log.warning("no page while the study runs: %s", error)

    def _first(self, steps: Steps) -> site.Page:
        from adlib.report.display.render import render
        from adlib.report.pages import notebook_page
        from adlib.report.words.i18n import named, t

        done = sum(status in ("finished", "failed") for _, status in steps)
        said = t("growing.done", done=str(done), all=str(len(steps)))
        folders = [task.output.parent.relative_to(self.reports) for task, _ in steps]
        shown = render("growing.html.j2", said=said, steps=[
            (_title(folder.parts), f"{folder.as_posix()}/index.html" if task in self.pages else "",
             named("status", status))
            for folder, (task, status) in zip(folders, steps, strict=True)])
        return {"notebook": self.reports / "comparison.ipynb", "stem": "", "up": "",
                "cells": [notebook_page.shown("steps", shown)],
                "heading": t("growing.title"), "title": t("page.study"), "reload": RELOAD_S}


def _title(parts: tuple[str, ...]) -> Text:
    """What a step is called, by its folder's way from the reports."""
    from adlib.report.comparison import label
    from adlib.report.words.i18n import t

    if not parts:
        return t("growing.comparison")
    kind, category, *rest = parts
    if kind == "eda":
        return t("page.data_of", category=category)
    name = label(rest[0])
    if kind != "runs":
        return t(f"page.{kind}_of", category=category, configuration=name)
    name = t("page.seed", configuration=name, seed=rest[1].removeprefix("seed-"))
    return t("page.category_configuration", category=category, configuration=name)
