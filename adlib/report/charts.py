"""The comparison's figures as SVG in a page's own colours: small multiples with shared axes, a
panel a category, by one template."""
from __future__ import annotations

import dataclasses
import math
import typing

import numpy as np
import pandas as pd
from markupsafe import Markup

from adlib.data import corruptions
from adlib.evaluation.auroc import roc_curve
from adlib.evaluation.results import arrays
from adlib.report import components
from adlib.report.comparison import LEVEL, Results, label
from adlib.report.i18n import Text, t
from adlib.report.render import render

WIDTH, HEIGHT = 240, 180  # of a panel's inside, in its own units
Points = typing.Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Line:
    """points: (x, y). colour: a number, the same for a configuration in every panel; None: the thin
    grey of a reference. marks: "line", "dots" (alone) or "crosses" (alone)."""

    points: Points
    colour: int | None
    marks: str = "line"


@dataclasses.dataclass(frozen=True)
class Axis:
    title: Text
    low: float
    high: float
    ticks: typing.Sequence[float]
    log: bool = False

    def at(self, value: float, length: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = (math.log(x) for x in (value, low, high))
        return length * (min(max(value, low), high) - low) / (high - low)


SHARE = (0, 0.25, 0.5, 0.75, 1)


def panels(lines: typing.Mapping[str, typing.Sequence[Line]], names: typing.Sequence[str], x: Axis,
           y: Axis, caption: Text, name: str, *, diagonal: bool = False, level: float | None = None,
           more: typing.Sequence[tuple[str, Text]] = ()) -> Markup:
    """{title: lines} as panels. names: of the colours 0, 1, ... diagonal, level: hairlines. more:
    further marks of the legend."""
    drawn = [{"title": title, "lines": [{
        "colour": line.colour, "marks": line.marks, "at": [
            (round(x.at(a, WIDTH), 1), round(HEIGHT - y.at(b, HEIGHT), 1)) for a, b in line.points]}
        for line in some]} for title, some in lines.items()]
    ticks = {"x": [(round(x.at(v, WIDTH), 1), f"{v:g}") for v in x.ticks],
             "y": [(round(HEIGHT - y.at(v, HEIGHT), 1), f"{v:g}") for v in y.ticks]}
    shown = render("panels.html.j2", panels=drawn, names=names, x=x, y=y, ticks=ticks,
                   width=WIDTH, height=HEIGHT, diagonal=diagonal, more=more,
                   level=None if level is None else round(HEIGHT - y.at(level, HEIGHT), 1))
    return components.figure(shown, name, caption)


def by_category(tables: Results, draw: typing.Callable[[pd.DataFrame], Points | None], x: Axis,
                y: Axis, caption: Text, name: str, **options: typing.Any) -> Markup:
    """A panel a category, a line a configuration; "" where nothing can be drawn."""
    names = list(dict.fromkeys(name for _, name in tables))
    lines: dict[str, list[Line]] = {}
    for (category, name), table in tables.items():
        if (points := draw(table)) is not None:
            lines.setdefault(category, []).append(Line(points, names.index(name)))
    for category, extra in options.pop("extra", {}).items():
        lines.setdefault(category, []).extend(extra)
    if not lines:
        return Markup("")
    return panels(lines, list(map(label, names)), x, y, caption, name, **options)


def roc(tables: Results) -> Markup:
    """ROC curves of the score in use; thin and grey, those of the reference's score where it is
    another."""
    def points(table: pd.DataFrame, score: str) -> Points | None:
        labels, scores = arrays(table, "test", score)
        if not 0 < labels.sum() < len(labels):
            return None
        return list(zip(*roc_curve(labels, scores)[:2], strict=True))

    grey: dict[str, list[Line]] = {}
    for (category, _), table in tables.items():
        if not np.array_equal(table["score"], table["chosen_score"]) and (
                line := points(table, "score")) is not None:
            grey.setdefault(category, []).append(Line(line, None))
    more = [("grey", t("label.mean_squared_error"))] if grey else []
    return by_category(
        tables, lambda table: points(table, "chosen_score"),
        Axis(t("axis.false_positives"), 0, 1, SHARE), Axis(t("axis.found"), 0, 1, SHARE),
        t("comparison.roc"), "roc", diagonal=True, extra=grey, more=more)


def epochs(tables: Results) -> Markup:
    """AUROC had training stopped there (epochs.csv)."""
    last = max((table["epoch"].max() for table in tables.values() if len(table)), default=1)
    ticks = [tick for tick in (1, 3, 10, 30, 100, 300) if tick <= last]
    return by_category(
        tables, lambda table: list(table.dropna()[["epoch", "auroc"]].itertuples(index=False))
        or None, Axis(t("axis.epochs"), 1, max(2, last), ticks, log=True),
        Axis(t("axis.auroc"), 0, 1, SHARE), t("caption.epochs_curve"), "epochs", level=0.5)


def robustness(tables: Results) -> Markup:
    """Mean AUROC over the disturbances against their strength (limits.robustness)."""
    return by_category(
        tables, lambda table: list(table.groupby("strength")["auroc"].mean().items()),
        Axis(t("axis.strength"), 0, 5, range(6)), Axis(t("axis.auroc"), 0, 1, SHARE),
        t("caption.robustness_curve", n=len(corruptions.CORRUPTIONS)), "robustness", level=0.5)


def scores(found: pd.DataFrame) -> Markup:
    """Label-free against real AUROC of every score (questions.scores), a colour a configuration;
    crossed: chosen without labels."""
    names, lines = list(dict.fromkeys(found["configuration"])), {}
    for (category, name), part in found.groupby(["category", "configuration"], sort=False):
        for marks, rows in (("dots", part), ("crosses", part[part["chosen"] > 0])):
            points = list(rows[["label_free", "test"]].itertuples(index=False))
            lines.setdefault(category, []).append(Line(points, names.index(name), marks))
    low = min(0.5, math.floor(10 * min(found["label_free"].min(), found["test"].min())) / 10)
    ticks = [tick for tick in SHARE if tick >= low]
    return panels(lines, list(map(label, names)), Axis(t("axis.label_free"), low, 1, ticks),
                  Axis(t("axis.auroc"), low, 1, ticks), t("caption.scores_scatter"), "scores",
                  diagonal=True, more=[("cross", t("axis.chosen"))])


def critical_difference(average: pd.Series, cliques: list[list[str]]) -> Markup:
    """Average ranks on an axis, the best at the left, labels in two columns; a bar joins what is
    not distinguishable (Demsar 2006)."""
    order = average.sort_values(kind="stable")
    half, left, right, step = -(-len(order) // 2), 250, 590, 18
    first = 34 + 9 * len(cliques)

    def x(rank: float) -> float:
        return round(left + (right - left) * (rank - 1) / max(len(order) - 1, 1), 1)

    entries = [{"label": label(code), "rank": f"{rank:.2f}", "x": x(rank), "left": i < half,
                "y": first + step * (i if i < half else len(order) - 1 - i)}
               for i, (code, rank) in enumerate(order.items())]
    bars = [{"x1": x(order[bar[0]]) - 4, "x2": x(order[bar[-1]]) + 4, "y": 30 + 9 * i}
            for i, bar in enumerate(cliques)]
    ticks = [(x(rank), rank) for rank in range(1, len(order) + 1)]
    caption = t("caption.critical_difference", level=LEVEL)
    shown = render("critical_difference.html.j2", entries=entries, bars=bars, ticks=ticks,
                   height=first + step * half, left=left, right=right, caption=caption)
    return components.figure(shown, "average-ranks", caption, "summary.csv")
