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
from adlib.report import comparison, few_pictures, questions, ranking, unlabelled
from adlib.report.display import charts, components, figures, matrix, tables
from adlib.report.display.render import render
from adlib.report.words import answers
from adlib.report.words.i18n import Text, join, named, t, with_texts
from adlib.runs import forecast, run_folder

SUMMARY = "summary.csv"
INLINE = 3  # categories of which the first page shows every pair; of more, their own pages do
LINES = 6  # configurations drawn in one figure: more lie on each other
SECTIONS = ("ranks", "kinds", "unlabelled", "scores", "target", "position", "ablation", "places",
            "limits", "how_many", "epochs")  # of docs/results.md, in their order
ON_PAGES = ("better", "roc", *SECTIONS)
DATA = (*(f"{name}.csv" for name in ON_PAGES), "choices.csv", "smallest.csv")  # of their figures
RUN_BY = {"scores": "quick", "target": "trained", "position": "detectors", "ablation": "ablation",
          "limits": "detectors", "how_many": "yours"}  # {section: the grid that asks its question}


@dataclasses.dataclass(frozen=True)
class Section:
    """What one question came to.

    said: in sentences. drawn: figures, for a page. tables: (table, caption), for a file.
    data: {file beside the page: the numbers of its figures}.
    """

    said: str
    drawn: list[Markup]
    tables: list[tuple[pd.DataFrame, Text]] = dataclasses.field(default_factory=list)
    data: dict[str, pd.DataFrame] = dataclasses.field(default_factory=dict)


class Study:
    """All runs below a reports folder, or those of some categories. Raises InputError where there
    is none."""

    def __init__(self, reports: str | Path = "", only: typing.Collection[str | None] = ()) -> None:
        self.reports = run_folder.reports_dir(str(reports))
        table = comparison.performance(self.reports)
        self.table = table[table["category"].isin(only or table["category"])]
        self.main = comparison.without_ablations(self.table)
        self.rows = comparison.rows(self.main, self.reports)
        self.categories = list(dict.fromkeys(self.rows["category"]))
        about = {first["category"]: run_folder.manifest(self.reports / first["folder"])
                 for _, first in self.table.iterrows()}
        self.images = [(count["train"], count["test"]) for each in about.values()
                       if (count := each.get("data", {}).get("counts"))]
        self.order = list(filter(comparison.is_in_use, ranking.order(self.rows)))

    @functools.cache  # noqa: B019  (a study lives as long as its process)
    def pairs(self, category: str) -> pd.DataFrame:
        return ranking.matrix(self.main, self.reports, category)

    def write(self) -> None:
        """all_runs.csv, a row a run; summary.csv and .json, a row a configuration and score; the
        numbers of every section, and no earlier study's of others."""
        data = {"all_runs.csv": self.table, SUMMARY: self.rows}
        for section in filter(None, (getattr(self, name)() for name in ON_PAGES)):
            data |= section.data
        for name, table in data.items():
            write_csv(table, self.reports / name)
        files.write_text(self.reports / "summary.json",
                         self.rows.to_json(orient="records", indent=1))
        for name in set(DATA) - set(data):
            (self.reports / name).unlink(missing_ok=True)

    # ---- what the first screen has

    def show_answer(self) -> None:
        """The answer of every category, with pictures; over several of them, who does best."""
        if over := answers.overall(self.rows):
            figures.say(over)
        figures.show(matrix.cards(self.rows, self.reports))

    def show_matrix(self) -> None:
        figures.show(self._matrix(self.rows, SUMMARY))

    def of_category(self, category: str) -> Markup:
        """What the runs of one category came to, for its page."""
        here = self.rows[self.rows["category"] == category]
        table = self._matrix(here, f"../../{SUMMARY}", category)
        pairs = [self._pairs(category, "../../")] if len(self.pairs(category)) else []
        return Markup("").join([matrix.cards(self.rows, self.reports, category), table, *pairs])

    def _matrix(self, rows: pd.DataFrame, data: str, category: str = "") -> Markup:
        """Nothing for a row alone without an AUROC, of which the card says it all."""
        if len(rows) == 1 and rows["auroc"].isna().all():
            return Markup("")
        return components.figure(matrix.matrix(self.rows, self.reports, category), "performance",
                                 join(matrix.notes(rows)), data)

    # ---- a section a question; None where the runs that are there do not ask it

    def show(self, name: str) -> None:
        """Display a section; on a page, nothing where its question was not asked."""
        section = getattr(self, name)()
        if section is None and figures.attended():
            figures.say(self._how_to_ask(name) if name in RUN_BY else t("study.not_asked"))
        for drawn in section.drawn if section else ():
            figures.show(drawn)
        if section and section.said:
            figures.say(section.said)

    def ranks(self) -> Section | None:
        """Over several categories: average ranks, and who is distinguishable."""
        wide = ranking.over_categories(self.rows)
        if len(wide) <= INLINE or wide.shape[1] < 3:
            return None
        average, tested = ranks.average_ranks(wide), ranks.pairs(wide)
        standing = ranking.standing(self.rows).rename_axis("configuration").reset_index()
        drawn = charts.critical_difference(average, ranks.cliques(average, tested))
        return Section(answers.ranks(wide, tested), [drawn], [(standing, t("caption.standing"))])

    def kinds(self) -> Section | None:
        """Which detector for which kind of workpiece, by what was measured on the good images."""
        properties = questions.kinds(self.rows, self.reports)
        if len(properties) < 2 or len(self.categories) <= INLINE:
            return None
        cells = questions.by_kind(self.rows, properties)
        table = with_texts(properties, kind_of=[
            named("kind_of", kind) for kind in properties["kind_of"]])
        heat = tables.heat(cells, t("caption.kinds"), "kinds", SUMMARY, low=cells["value"].min(),
                           high=1)
        return Section(answers.kinds(cells, properties), [
            heat, self._table(table, "properties", "kinds.csv")],
            [(table, t("caption.properties"))], {"kinds.csv": properties})

    def better(self) -> Section | None:
        """Who is better than whom, in every category or, of many, in how many of them."""
        by_category = {name: pairs for name in self.categories if len(pairs := self.pairs(name))}
        if not by_category:
            return None
        drawn = [tables.heat(questions.wins(by_category, self.order),
                             t("caption.wins", n=len(by_category)), "better", "better.csv", low=0,
                             high=len(by_category))
                 ] if len(by_category) > INLINE else list(map(self._pairs, by_category))
        return Section("", drawn, data={"better.csv": pd.concat([
            pairs.assign(category=name) for name, pairs in by_category.items()])})

    def roc(self) -> Section | None:
        """ROC curves of the score in use, and of the mean squared error."""
        results = self._results()
        drawn = charts.roc(results)
        tested = {key: table[table["split"] == "test"] for key, table in results.items()}
        return Section("", [drawn], data={"roc.csv": _long(tested)}) if drawn else None

    def scores(self) -> Section | None:
        """What the label-free choice among twelve scores is worth."""
        studied = questions.scores(self.table, self.reports)
        if studied.empty:
            return None
        choices, cells, caption = (questions.choices(studied), questions.all_scores(studied),
                                   t("caption.scores"))
        return Section(answers.scores(choices), [
            charts.scores(studied), self._table(choices, "choices", "choices.csv"),
            tables.heat(cells, caption, "all-scores", "scores.csv", low=0.4, high=1)], [
            (choices, t("caption.choices")), (questions.wide(cells, "score"), caption)],
            {"scores.csv": studied, "choices.csv": choices})

    def unlabelled(self) -> Section | None:
        """Which would one take without labels, and is that sure?"""
        choices = unlabelled.table(self.main, self.reports)
        if choices.empty:
            return None
        codes = choices.assign(unsure=choices["unsure"].map("; ".join))
        return dataclasses.replace(self._tabled(
            unlabelled.said(choices), unlabelled.shown(choices), "unlabelled"),
            data={"unlabelled.csv": codes})

    def target(self) -> Section | None:
        """Pixels or features?"""
        compared = questions.target(self.rows)
        pairs = {name: self.pairs(name) for name in set(compared["category"])}
        said = answers.target(compared, pairs)
        return self._tabled(said, compared, "target") if said else None

    def position(self) -> Section | None:
        """Does the position matter?"""
        places = questions.position(self.table, self.reports)
        return self._tabled(answers.position(places), places, "position") if len(places) else None

    def ablation(self) -> Section | None:
        """What does each component of the best detector bring?"""
        variants = questions.ablation(self.table, self.reports)
        return self._tabled(Text(""), variants, "ablation") if len(variants) else None

    def places(self) -> Section | None:
        """Where is it? Only where there are masks."""
        metrics = questions.localization(self.main, self.reports)
        if metrics.empty:
            return None
        best_first = metrics.sort_values("configuration", key=lambda names: names.map(
            self.order.index), kind="stable")
        heat = tables.heat(questions.places(best_first), t("caption.places"), "places",
                           "places.csv", low=0, high=1)
        return Section("", [heat], [(metrics, t("caption.localization"))], {"places.csv": metrics})

    def limits(self) -> Section | None:
        """How small, how faint, how noisy?"""
        runs = comparison.after_runs(self.reports, "limits", "robustness.csv")
        if not runs:
            return None
        table, sizes = questions.robustness_table(runs), questions.smallest(self.reports)
        caption = answers.robustness_caption()
        heat = tables.heat(questions.disturbed(table), caption, "disturbances", "limits.csv",
                           low=0.5, high=1)
        return Section(answers.robustness(runs), [
            charts.robustness(runs), heat, self._table(sizes, "smallest", "smallest.csv")], [
            (table, caption), (sizes, t("caption.smallest"))],
            {"limits.csv": _long(runs), "smallest.csv": sizes})

    def how_many(self) -> Section | None:
        """How many good pictures does it take?"""
        if not (runs := comparison.after_runs(self.reports, "how_many", "how_many.csv")):
            return None
        table = few_pictures.table(runs)
        return Section(few_pictures.of_parts(table), [
            charts.how_many(runs), self._table(table, "how_many", "how_many.csv")], [
            (table, t("caption.how_many"))], {"how_many.csv": _long(runs)})

    def epochs(self) -> Section | None:
        """Does training help?"""
        stopped = questions.epochs(self.table, self.reports)
        curves = self._results("epochs.csv")
        return Section("", [
            charts.epochs(curves), self._table(  # what the curves do not say
                stopped[[name for name in stopped if not name.startswith("epoch:")]], "confounders",
                "epochs.csv")], [
            (stopped, t("caption.epochs"))], {"epochs.csv": stopped}) if len(stopped) else None

    # ---- the end

    def show_more(self) -> None:
        """What else can be run, and how long it takes."""
        missing = [name for name in RUN_BY if getattr(self, name)() is None]
        if missing and self.rows["auroc"].notna().any():
            figures.show(render("listed.html.j2", said=t("study.more"),
                                items=list(map(self._how_to_ask, missing))))

    def markdown(self) -> str:
        """docs/results.md: the answer, every table, what is distinguishable, and how it was
        measured; in English."""
        sections = {name: section for name in SECTIONS
                    if (section := getattr(self, name)()) is not None}
        runs = [(first, run_folder.manifest(self.reports / first["folder"]), some)
                for _, some in comparison.finished(self.table) for first in [some.iloc[0]]]
        return render("results.md.j2", study=self, sections=sections, runs=runs, answers=answers,
                      tables=tables, label=comparison.label)

    def _how_to_ask(self, name: str) -> Text:
        grid = f"params/grids/{RUN_BY[name]}.yaml"
        takes = forecast.duration(forecast.of_grid(Path(grid), self.images))
        return t("study.how_to_ask", question=t(f"section.{name}"), grid=grid, takes=takes)

    def _table(self, found: pd.DataFrame, name: str, data: str) -> Markup:
        return tables.html(found, t(f"caption.{name}"), f"{name}-table", data)

    def _tabled(self, said: Text, found: pd.DataFrame, name: str) -> Section:
        file = f"{name}.csv"
        return Section(said, [self._table(found, name, file)], [(found, t(f"caption.{name}"))],
                       {file: found})

    def _pairs(self, category: str, up: str = "") -> Markup:
        number = self.categories.index(category)  # an id in ASCII, whatever its name
        return tables.heat(questions.both_ways(self.pairs(category), self.order),
                           t("caption.pairs", category=category), f"pairs-{number}",
                           f"{up}better.csv", low=-0.5, high=0.5)

    def _results(self, file: str = "all_results.csv") -> comparison.Results:
        """A file of the first run of the best configurations, LINES of them, the best first."""
        results = comparison.results_of(self.table, self.reports, self.order, file)
        names = list(dict.fromkeys(name for _, name in results))[:LINES]
        return {key: table for key, table in results.items() if key[1] in names}


def _long(results: comparison.Results) -> pd.DataFrame:
    """Some runs' files one below the other."""
    return pd.concat([table.assign(category=category, configuration=name)
                      for (category, name), table in results.items()])
