"""The figures that set configurations side by side, and those of one run: small multiples with
shared axes, as SVG in the page's own colours, by one template."""
from __future__ import annotations

import math
import typing

import numpy as np
import pandas as pd
from markupsafe import Markup

from adlib.data import corruptions
from adlib.evaluation import learning_curve as curves
from adlib.evaluation import psychometric
from adlib.evaluation.auroc import LEVEL, roc_curve
from adlib.evaluation.results import arrays
from adlib.report.comparison import Results, label
from adlib.report.display import components
from adlib.report.display.render import render
from adlib.report.words import sentences
from adlib.report.words.data_sentences import corruption
from adlib.report.words.i18n import Text, join, t

if typing.TYPE_CHECKING:
    from adlib.evaluation.calibration import Decision
    from adlib.evaluation.results import Results as EvaluationResults

Points = typing.Iterable[tuple[float, float]]
Line = tuple[str, str, Points]  # `colour` of a name, or grey; line | dots | crosses; (x, y)
Axis = tuple[Text, float, float, typing.Sequence[float]]  # title, low, high, ticks
SHARE = (0, 0.25, 0.5, 0.75, 1)


def colour(i: int) -> str:
    """The class of name i's lines: seven that can be told apart (matrix.css), then again."""
    return f"c{i % 7}"


def panels(lines: typing.Mapping[str, list[Line]], names: typing.Sequence[str], x: Axis, y: Axis,
           caption: str, name: str, *, data: str = "", log: bool = False, diagonal: bool = False,
           level: float | None = None, more: typing.Sequence[tuple[str, Text]] = ()) -> Markup:
    """{title: lines} as panels of the same axes, a figure.

    Args:
        names: what `colour` 0, 1, ... are. more: (class, name) of further marks in the legend.
        data: the file of its numbers.
        log: of x. diagonal, level: hairlines.
    """
    coloured = [(colour(i), text) for i, text in enumerate(names)]
    shown = render("panels.html.j2", panels=lines, names=coloured, x=x, y=y, log=log,
                   diagonal=diagonal, level=level, more=more)
    return components.figure(shown, name, caption, data)


def by_category(tables: Results, draw: typing.Callable[[pd.DataFrame], Points | None], x: Axis,
                y: Axis, caption: str, name: str, *, grey: dict[str, list[Line]] | None = None,
                **options: typing.Any) -> Markup:
    """A panel a category, a line a configuration, and behind them some grey ones."""
    names = list(dict.fromkeys(name for _, name in tables))
    lines: dict[str, list[Line]] = {category: [*some] for category, some in (grey or {}).items()}
    for (category, code), table in tables.items():
        if (points := draw(table)) is not None:
            lines.setdefault(category, []).append((colour(names.index(code)), "line", points))
    lines = {category: some for category, some in lines.items() if some}
    if not lines:
        return Markup("")
    return panels(lines, list(map(label, names)), x, y, caption, name, **options)


def roc(tables: Results) -> Markup:
    """ROC curves of the score in use; thin and grey, those of the reference's score where it is
    another."""
    grey: dict[str, list[Line]] = {}
    for (category, _), table in tables.items():
        grey.setdefault(category, [])  # the order of the panels
        if not np.array_equal(table["score"], table["chosen_score"]) and (
                line := _roc(table, "score")):
            grey[category].append(("grey", "line", line))
    return by_category(
        tables, lambda table: _roc(table, "chosen_score"),
        (t("axis.false_positives"), 0, 1, SHARE), (t("axis.found"), 0, 1, SHARE),
        t("comparison.roc"), "roc", data="roc.csv", diagonal=True, grey=grey,
        more=[("grey", t("score.reference"))] * any(grey.values()))


def epochs(tables: Results) -> Markup:
    """AUROC had training stopped there (epochs.csv)."""
    last = max((table["epoch"].max() for table in tables.values() if len(table)), default=1)
    ticks = [tick for tick in (1, 3, 10, 30, 100, 300) if tick <= last]
    return by_category(
        tables, lambda table: list(table.dropna()[["epoch", "auroc"]].itertuples(index=False))
        or None, (t("axis.epochs"), 1, max(2, last), ticks), (t("axis.auroc"), 0, 1, SHARE),
        t("caption.epochs_curve"), "epochs", data="epochs.csv", level=0.5, log=True)


def robustness(tables: Results) -> Markup:
    """Mean AUROC over the disturbances against their strength (limits.robustness)."""
    return by_category(
        tables, lambda table: table.groupby("strength")["auroc"].mean().items(),
        (t("axis.strength"), 0, 5, range(6)), (t("axis.auroc"), 0, 1, SHARE),
        t("caption.robustness_curve", n=len(corruptions.CORRUPTIONS)), "robustness",
        data="limits.csv", level=0.5)


def scores(found: pd.DataFrame) -> Markup:
    """Label-free against real AUROC of every score (questions.scores), a colour a configuration;
    crossed: chosen without labels."""
    names, lines = list(dict.fromkeys(found["configuration"])), {}
    for (category, name), part in found.groupby(["category", "configuration"], sort=False):
        lines.setdefault(category, []).extend(
            (colour(names.index(name)), marks, rows[["label_free", "test"]].itertuples(index=False))
            for marks, rows in (("dots", part), ("crosses", part[part["chosen"] > 0])))
    low = min(0.5, math.floor(10 * min(found["label_free"].min(), found["test"].min())) / 10)
    ticks = [tick for tick in SHARE if tick >= low]
    return panels(lines, list(map(label, names)), (t("axis.label_free"), low, 1, ticks),
                  (t("axis.auroc"), low, 1, ticks), t("caption.scores_scatter"), "scores",
                  data="scores.csv", diagonal=True, more=[("cross", t("axis.chosen"))])


def critical_difference(average: pd.Series, cliques: list[list[str]]) -> Markup:
    """Average ranks on an axis, the best at the left; a bar joins what is not distinguishable
    (Demsar 2006)."""
    order = average.sort_values(kind="stable")
    caption = t("caption.critical_difference", level=LEVEL)
    shown = render("critical_difference.html.j2", caption=caption, ranks=[
        (label(code), rank) for code, rank in order.items()],
        bars=[(order[bar[0]], order[bar[-1]]) for bar in cliques])
    return components.figure(shown, "average-ranks", caption, "summary.csv")


def how_many(tables: Results) -> Markup:
    """Mean AUROC over the draws against the number of good pictures (how_many.measure)."""
    most = max(table["n"].max() for table in tables.values())
    return by_category(
        tables, lambda table: table.groupby("n")[curves.judged_by(table)].mean().items(),
        _pictures(most), (t("axis.auroc"), 0, 1, SHARE), t("caption.how_many_curve"),
        "how-many", data="how_many.csv", level=0.5, log=True)


# ---- one run


def loss(history: list[dict[str, float]], caption: str) -> Markup:
    """Training and held-out loss over epochs. history: Detector.history; "" where it is empty. A
    user's own loss may be below 0 (a log-likelihood), or 0."""
    table = pd.DataFrame(history, columns=["epoch", "loss", "held_out_loss"]).replace(
        [math.inf, -math.inf], math.nan)
    lines = [(f"c{i}", "line", part.itertuples(index=False)) for i, part in enumerate(
        table[["epoch", column]].dropna() for column in ("loss", "held_out_loss")) if len(part)]
    if not lines:
        return Markup("")
    epochs, losses = table["epoch"].max(), table[["loss", "held_out_loss"]]
    low, most = min(0.0, losses.min().min()), losses.max().max()
    top = float(f"{1.05 * most:.1g}") if most > 0 else 0.0 if low < 0 else 1.0
    top = top if top >= most else top + 10 ** math.floor(math.log10(most))
    return panels({t("figure.loss"): lines}, [t("figure.training"), t("figure.held_out")][
        :len(lines)], (t("figure.epoch"), 1, max(2, epochs), sorted({1, epochs // 2 or 1, epochs})),
        (Text(""), low, top, (low, (low + top) / 2, top)), caption, "loss-curve",
        data="history.csv")


def roc_of(results: EvaluationResults, decision: Decision, caption: str) -> Markup:
    """ROC curve of the score in use on the test split, a cross at the threshold if there is one;
    thin and grey, that of the reference score. "" where it is undefined."""
    entry, point = results.chosen["auroc"]["test"], results.chosen["operating"]["test"]
    name = decision.score
    if entry["value"] is None:
        return Markup("")
    lines, more = [], []
    if results.metrics["score"] != name:
        lines.append(("grey", "line", _roc(results.table, "score")))
        more.append(("grey", sentences.score(results.metrics["score"])))
    lines.append(("c0", "line", _roc(results.table, "chosen_score")))
    if decision.threshold.is_attainable and point["detections"] and point["false_positives"]:
        lines.append(("c1", "crosses", [(point["false_positives"]["rate"],
                                         point["detections"]["rate"])]))
        more.append(("cross", t("figure.threshold")))
    return panels({t("figure.roc"): lines}, [sentences.score(name)],
                  (t("axis.false_positives"), 0, 1, SHARE), (t("axis.found"), 0, 1, SHARE),
                  caption, "roc-curve", diagonal=True, more=more, data="all_results.csv")


def _roc(table: pd.DataFrame, score: str) -> Points | None:
    """(false positives, found) by a score on the test split; None where that lacks a class."""
    labels, scores = arrays(table, "test", score)
    return list(zip(*roc_curve(labels, scores)[:2], strict=True)) if (
        0 < labels.sum() < len(labels)) else None


def epochs_of(table: pd.DataFrame, caption: str) -> Markup:
    """AUROC of the reference score had training stopped there. table: Results.epochs."""
    last = max(2, table["epoch"].max())
    return panels({t("axis.auroc"): [("grey", "line", table.dropna().itertuples(index=False))]}, [],
                  (t("axis.epochs"), 1, last, sorted(set(table["epoch"]))), (Text(""), 0, 1, SHARE),
                  caption, "auroc-over-epochs", data="epochs.csv", log=True, level=0.5,
                  more=[("grey", t("score.reference"))])


def score_study(study: pd.DataFrame, caption: str) -> Markup:
    """Every score's label-free AUROC (open) and its real one (filled), in the label-free order, the
    one in use in bold. study: Results.score_study; "" where it has neither."""
    if study[["label_free", "test"]].isna().all(axis=None):
        return Markup("")
    low = min(0.5, math.floor(10 * study[["label_free", "test"]].min().min()) / 10)
    rows = [(sentences.score(row.score), "chosen" in row.role or "fixed" in row.role,
             [(kind, 100 * (value - low) / (1 - low), f"{value:.3f}") for kind, value in (
                 ("open", row.label_free), ("test", row.test), ("bad", row.train_bad))
              if value == value]) for row in study.itertuples()]
    shown = render("score_study.html.j2", rows=rows, low=low, bad=study["train_bad"].notna().any())
    return components.figure(shown, "score-study", caption, "score_study.csv")


# ---- how many pictures one run takes, and its limits


def learning_curve(curve: pd.DataFrame) -> Markup:
    """AUROCs and rates against the number of good pictures (how_many.curve): means, and, thin, the
    lowest and highest draw; of rates the interval of the finite test set. Too few pictures for a
    threshold have no rates, and neither has the figure then."""
    def lines(*names: str) -> list[Line]:
        return [(mark, "line", part.itertuples(index=False))
                for i, name in enumerate(names) for mark, column in (
                    ("grey", f"{name}_low"), ("grey", f"{name}_high"), (f"c{i}", name))
                if len(part := curve[["n", column]].dropna()) > 1]

    drawn, names = {Text("AUROC"): lines("auroc", "label_free")}, [
        t("figure.on_test"), t("figure.label_free")]
    said = [t("caption.learning_curve")]
    if rates := lines("found", "false_positives"):
        drawn[t("figure.threshold")] = rates
        names = [t("figure.on_test_or_found"), t("figure.label_free_or_false")]
        said.append(t("caption.learning_curve_rates"))
    return panels(drawn, names, _pictures(curve["n"].max()), (Text(""), 0, 1, SHARE), join(said),
                  "how-many", log=True, data="how_many.csv")


def _pictures(most: int) -> Axis:
    return (t("axis.good_pictures"), 1, max(2, most),
            [n for n in curves.COUNTS if n <= max(2, most)])


def disturbed(table: pd.DataFrame, caption: str) -> Markup:
    """AUROC and false positives against the strength of each disturbance (limits.robustness)."""
    clean, lines = table[table["strength"] == 0], {}
    for name in dict.fromkeys(table.loc[table["strength"] > 0, "disturbance"]):
        part = pd.concat([clean, table[table["disturbance"] == name]])
        lines[corruption(name, corruptions.STRENGTHS[-1])] = [
            (f"c{i}", "line", part[["strength", column]].dropna().itertuples(index=False))
            for i, column in enumerate(("auroc", "false_positives"))]
    return panels(lines, [Text("AUROC"), t("axis.false_positives")],
                  (t("axis.strength"), 0, 5, range(6)), (Text(""), 0, 1, SHARE), caption,
                  "robustness", data="robustness.csv") if lines else Markup("")


def detectability(drawn: pd.DataFrame, target_fpr: float, caption: str) -> Markup:
    """Share found against the area of the defect (limits.detectability), with the fitted curve,
    which begins at the share found by chance: target_fpr."""
    real, lines = drawn[(drawn["contrast"] == 1) & (drawn["area"] > 0)], {}
    for name, part in real.groupby("defect", sort=False):
        curve = psychometric.fit(part["area"].to_numpy(), part["found"].to_numpy(), fpr=target_fpr)
        areas = np.geomspace(part["area"].min(), part["area"].max(), 60)
        means = part.groupby("size")[["area", "found"]].mean()
        lines[str(name)] = [
            ("c0", "line", zip(100 * areas, curve(areas), strict=True)),
            ("c1", "dots", zip(100 * means["area"], means["found"], strict=True))]
    if not lines:
        return Markup("")
    low, high = 100 * real["area"].min(), 100 * real["area"].max()
    ticks = [tick for tick in (0.001, 0.01, 0.1, 1, 10) if low <= tick <= high]
    return panels(lines, [], (t("axis.area"), low, high, ticks), (t("axis.found"), 0, 1, SHARE),
                  caption, "detectability", data="detectability.csv", log=True, level=target_fpr)
