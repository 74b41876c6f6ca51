"""The study as a whole, read from its run folders once: the answer, the matrix, and a section a
question. The comparison notebook shows them, docs/results.md writes them, and what was not asked is
in neither."""
from __future__ import annotations

import dataclasses
import functools
import typing
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from adlib.data import files
from adlib.evaluation import ranks
from adlib.evaluation.results import write_csv
from adlib.report import (
    answers,
    charts,
    comparison,
    figures,
    matrix,
    questions,
    ranking,
    tables,
)
from adlib.report.i18n import Text, join, t
from adlib.runs import run_folder

SUMMARY = "summary.csv"
INLINE = 3  # categories of which the first page shows every pair; of more, their own pages do
LINES = 6  # configurations drawn in one figure: more lie on each other
RUN_BY = {"scores": "quick", "target": "trained", "position": "detectors", "ablation": "ablation",
          "limits": "detectors"}  # {section: the grid that asks its question}


@dataclasses.dataclass(frozen=True)
class Section:
    """What one question came to.

    said: in sentences. tables: (table, caption), for a file. drawn: figures, for a page.
    """

    said: str
    drawn: list[Markup]
    tables: list[tuple[pd.DataFrame, Text]] = dataclasses.field(default_factory=list)


def _tabled(said: Text, found: pd.DataFrame, name: str) -> Section | None:
    """A section of one table, captioned by the message of a name; None where it has no row."""
    caption = t(f"caption.{name}")
    drawn = [tables.html(found, caption, name, SUMMARY)]
    return Section(said, drawn, [(found, caption)]) if len(found) else None


class Study:
    """All runs below a reports folder. Raises InputError where there is none."""

    def __init__(self, reports: str | Path = "") -> None:
        self.reports = run_folder.reports_dir(str(reports))
        self.table = comparison.performance(self.reports)
        self.main = comparison.without_ablations(self.table)
        self.rows = comparison.rows(self.main, self.reports)
        self.categories = list(dict.fromkeys(self.rows["category"]))
        self.order = [code for code in ranking.order(self.rows)
                      if not code.endswith(comparison.REFERENCE)]

    @functools.cache  # noqa: B019  (a study lives as long as its process)
    def pairs(self, category: str) -> pd.DataFrame:
        return ranking.matrix(self.main, self.reports, category)

    def write(self) -> None:
        """all_runs.csv, a row a run; summary.csv and .json, a row a configuration and score."""
        write_csv(self.table, self.reports / "all_runs.csv")
        write_csv(self.rows, self.reports / "summary.csv")
        files.write_text(self.reports / "summary.json",
                         self.rows.to_json(orient="records", indent=1))

    # ---- what the first screen has

    def show_answer(self) -> None:
        """The answer of every category, with pictures; over several of them, who does best."""
        if over := answers.overall(self.rows):
            figures.say(over)
        figures.show(matrix.cards(self.rows, self.reports))

    def show_matrix(self) -> None:
        figures.show(matrix.matrix(self.rows, self.reports))

    # ---- a section a question; None where the runs that are there do not ask it

    def show(self, name: str) -> None:
        """Display a section; on a page, nothing where its question was not asked."""
        section = getattr(self, name)()
        if section is None:
            if figures.attended():
                figures.say(self._how_to_ask(name))
            return
        for drawn in section.drawn:
            figures.show(drawn)
        if section.said:
            figures.say(section.said)

    def ranks(self) -> Section | None:
        """Over several categories: average ranks, and who is distinguishable."""
        wide = ranking.over_categories(self.rows)
        if len(wide) <= INLINE or wide.shape[1] < 3:
            return None
        average, tested = ranks.average_ranks(wide), ranks.pairs(wide)
        drawn = charts.critical_difference(average, ranks.cliques(average, tested))
        return Section(answers.ranks(wide, tested), [drawn])

    def kinds(self) -> Section | None:
        """Which detector for which kind of workpiece, by what was measured on the good images."""
        found = questions.kinds(self.rows, self.reports)
        if len(found) < 2 or len(self.categories) <= INLINE:
            return None
        by_kind, table = questions.by_kind(self.rows, found), questions.kind_table(found)
        captions = t("caption.kinds"), t("caption.properties")
        heat = tables.heat(by_kind, captions[0], "kinds", SUMMARY,
                           low=float(by_kind.min().min()), high=1.0)
        wide = by_kind.rename_axis("configuration").reset_index()
        return Section(answers.kinds(by_kind, found), [heat, tables.html(
            table, captions[1], "properties")], [(table, captions[1]), (wide, captions[0])])

    def better(self) -> Section | None:
        """Who is better than whom, in every category or, of many, in how many of them."""
        by_category = {name: pairs for name in self.categories if len(pairs := self.pairs(name))}
        if not by_category:
            return None
        if len(by_category) > INLINE:
            wins, texts = questions.wins(by_category, self.order)
            return Section("", [tables.heat(wins, t("caption.wins"), "better", SUMMARY, low=0,
                                            high=len(by_category), texts=texts)])
        said = join(answers.matrix(pairs, name) for name, pairs in by_category.items())
        return Section(said, list(map(self._pair_heat, by_category)))

    def roc(self) -> Section | None:
        """ROC curves of the score in use, and of the mean squared error."""
        drawn = charts.roc(self._results())
        return Section("", [drawn]) if drawn else None

    def scores(self) -> Section | None:
        """What the label-free choice among twelve scores is worth."""
        found = questions.scores(self.table, self.reports)
        if found.empty:
            return None
        choices, (values, texts, marks) = questions.choices(found), questions.all_scores(found)
        captions = t("caption.choices"), t("caption.scores")
        heat = tables.heat(values, captions[1], "all-scores", low=0.4, high=1, texts=texts,
                           marks=marks)
        wide = (texts + marks.map(lambda mark: f" {mark}".rstrip())).reset_index()
        return Section(answers.scores(choices), [
            charts.scores(found), tables.html(choices, captions[0], "choices"), heat], [
            (choices, captions[0]), (wide, captions[1])])

    def target(self) -> Section | None:
        """Pixels or features?"""
        found = questions.target(self.rows)
        said = answers.target(found, {name: self.pairs(name) for name in set(found["category"])})
        return _tabled(said, found, "target") if said else None

    def position(self) -> Section | None:
        """Does the position matter?"""
        found = questions.position(self.table, self.reports)
        return _tabled(answers.position(found), found, "position") if len(found) else None

    def ablation(self) -> Section | None:
        """What does each component of the best detector bring?"""
        found = questions.ablation(self.table, self.reports)
        return _tabled(answers.ablation(found), found, "ablation") if len(found) else None

    def places(self) -> Section | None:
        """Where is it? Only where there are masks."""
        found = questions.localization(self.main, self.reports)
        if found.empty:
            return None
        values, texts = questions.localization_heat(found)
        heat = tables.heat(values, t("caption.places"), "places", SUMMARY, low=0.0, high=1.0,
                           texts=texts)
        return Section("", [heat], [(found, t("caption.localization"))])

    def limits(self) -> Section | None:
        """How small, how faint, how noisy?"""
        found = questions.robustness(self.reports)
        if not found:
            return None
        table, sizes = questions.robustness_table(found), questions.smallest(self.reports)
        captions = answers.robustness_caption(), t("caption.smallest")
        heat = tables.heat(questions.robustness_heat(table), captions[0], "disturbances", low=0.5,
                           high=1.0)
        return Section(answers.robustness(found), [charts.robustness(found), heat, tables.html(
            sizes, captions[1], "smallest")], [(table, captions[0]), (sizes, captions[1])])

    def epochs(self) -> Section | None:
        """Does training help?"""
        found, caption = questions.epochs(self.table, self.reports), t("caption.epochs")
        if found.empty:
            return None
        curves = self._results("epochs.csv")
        return Section(answers.epochs(curves), [
            charts.epochs(curves), tables.html(found, caption, "confounders")], [(found, caption)])

    # ---- the end

    def show_more(self) -> None:
        """What else can be run, in a line."""
        missing = [name for name in RUN_BY if getattr(self, name)() is None]
        if missing:
            figures.say(t("study.more", questions=join(map(self._how_to_ask, missing), "; ")))

    def _how_to_ask(self, name: str) -> Text:
        grid = RUN_BY.get(name)
        return t(f"section.{name}") + (f" `adlib run params/grids/{grid}.yaml`" if grid else "")

    def _results(self, file: str = "all_results.csv") -> comparison.Results:
        """A file of the first run of the best configurations, LINES of them, the best first."""
        there = [name for name in self.order if any(
            (self.reports / folder / file).is_file()
            for folder in self.table.loc[self.table["name"] == name, "folder"])]
        return comparison.results_of(self.table, self.reports, there[:LINES], file)

    def _pair_heat(self, category: str) -> Markup:
        values, texts, marks = questions.pair_heat(self.pairs(category), self.order)
        number = self.categories.index(category)  # an id in ASCII, whatever its name
        return tables.heat(values, t("caption.pairs", category=category), f"pairs-{number}",
                           low=-0.5, high=0.5, texts=texts, marks=marks)

    def of_category(self, category: str) -> Markup:
        """What the runs of one category came to, for its page."""
        pairs = self.pairs(category)
        return Markup("").join([
            matrix.cards(self.rows, self.reports, category),
            matrix.matrix(self.rows, self.reports, category),
            self._pair_heat(category) if len(pairs) else ""])

    def markdown(self) -> str:
        """docs/results.md: the answer, every table, what is distinguishable, and how it was
        measured; in English."""
        lines = ["# Measured results", "Written by `adlib report --markdown FILE` from the run "
                 f"folders in `{self.reports.name}/`; not by hand.",
                 answers.provenance(self.table), answers.full(self.rows), "## Performance",
                 t("caption.performance"), tables.markdown(tables.performance(self.rows)),
                 *matrix.notes(self.rows), t("caption.performance_notes"),
                 answers.bootstrap(ranking.bootstrap_gaps(self.main, self.reports))]
        over = ranking.standing(self.rows)
        if len(over):
            lines += ["## Over all categories",
                      tables.markdown(over.rename_axis("configuration").reset_index())]
        lines.append("## What is distinguishable")
        for category in self.categories:
            if len(pairs := self.pairs(category)):
                lines.append(f"### {category}\n\n{_distinguishable(pairs)}")
        for name in SECTIONS:
            if (section := getattr(self, name)()) is not None:
                found = (part for table, caption in section.tables for part in (
                    caption, tables.markdown(table)) if len(table))
                lines += [f"## {t(f'section.{name}')}", section.said, *found]
        measured = [_measured(runs, run_folder.manifest(self.reports / runs.iloc[0]["folder"]))
                    for _, runs in comparison.finished(self.table)]
        return "\n\n".join(filter(None, [*lines, "## How it was measured",
                                          "\n".join(measured)])) + "\n"


SECTIONS = ("ranks", "kinds", "scores", "target", "position", "ablation", "places", "limits",
            "epochs")  # of docs/results.md, in their order


def _distinguishable(pairs: pd.DataFrame) -> str:
    """The pairs that the paired test distinguishes, as a list: each row, and the rows that are
    significantly below it."""
    apart = pairs[pairs["p_holm"] < comparison.LEVEL]
    below: dict[str, list[str]] = {}
    for pair in apart.itertuples():
        better, worse = (pair.a, pair.b) if pair.difference > 0 else (pair.b, pair.a)
        below.setdefault(comparison.label(better), []).append(worse)
    return "\n".join([
        f"{len(apart)} of {len(pairs)} pairs are distinguishable at 5 % after Holm's correction."
        + " Significantly below each row:" * bool(below) + "\n" * bool(below),
        *(f"- {better}: {answers.labels(names)}" for better, names in below.items())])


def _measured(runs: pd.DataFrame, about: dict[str, typing.Any]) -> str:
    first = runs.iloc[0]
    return (f"- {first['category']} / {first['name']}: seeds {', '.join(map(str, runs['seed']))}; "
            f"{first['epochs']:.0f} epochs, {first['precision']}, "
            f"{about['params']['image_size']} px, {first['device']} ({about['threads']} threads), "
            f"torch {about['versions']['torch']}, git {', '.join(sorted(set(runs['git'])))}")
