"""Tables of codes and numbers, shown: as HTML by one template, as a heat map, as markdown.

A column is called by its code: "auroc" has the title of the message "column.auroc", "epoch:10" that
of "column.epoch", and (category, configuration) is titled by both names.
"""
from __future__ import annotations

import math
import re
import typing

import pandas as pd
from markupsafe import Markup

from adlib.report import comparison
from adlib.report.comparison import label
from adlib.report.display import components, figures
from adlib.report.display.render import render
from adlib.report.words import answers, sentences
from adlib.report.words.i18n import Text, join, messages, named, t

PERFORMANCE = ("category", "configuration", "score", "auroc", "bad_auroc", "label_free",
               "false_positives", "detections", *comparison.PIXEL_METRICS, "claim_low", "verdict",
               "published", "seeds", "epochs", "train_seconds", "device", "weights", "status")
INSIDE = {f"{start}{end}" for start in ("", "bad_", "false_", "found_", "claim_", "gain_")
          for end in ("spread", "low", "high")} - {"claim_low"}  # said in another column's cell
FORMS = {"seed": "{:.0f}", "seeds": "{:.0f}", "images": "{:.0f}", "epochs": "{:.0f}",
         "position_share": "{:.2f}", "good": "{:.0f}", "rank_correlation": "{:+.2f}",
         "confounder": "{:+.2f}", "found_at_real_size": "{:.0%}", "contrast95": "{:.2f}",
         "faintest": "{:.2f}", "pictures": "{:.0f}", "others": "{:.0f}", "most": "{:.0f}",
         "enough": "{:.0f}"}  # what is not named has three decimals
FEW, BRIEF = 6, 4  # a heat map shows its numbers at once: of so few columns, or characters
NUMBER = re.compile(r"[<-]?[+.]?[\d.]+(?![\w.])")  # how a cell begins that is set to the right
VERDICTS = ("missed", "reached", "exceeded")
Row = dict[typing.Any, typing.Any]


def html(table: pd.DataFrame, caption: str, name: str = "table", data: str = "") -> Markup:
    """Any table of codes and numbers as a figure (components.figure); "" where it has no row."""
    if table.empty:
        return Markup("")
    columns, shown = _shown(table)
    instead = "", t("limits.not_reached")  # of a number
    numeric = [all(line[i] in instead or NUMBER.match(line[i]) for line in shown)
               for i in range(len(columns))]
    shown = render("table.html.j2", caption=caption, numeric=numeric,
                   titles=list(map(title, columns)), rows=shown)
    return components.figure(shown, name, caption, data)


def heat(cells: pd.DataFrame, caption: str, name: str, data: str = "", *, low: float,
         high: float) -> Markup:
    """Numbers as colours, to be read on demand, as a figure; "" where there is none.

    Args:
        cells: row, column (codes), value; where they are not the values alone, also text, what is
            read on demand, and mark, what is always seen. Rows and columns in their first order,
            columns that are rows, too, in that of the rows.
        low, high: pale and full colour. A scale from -x to x has two colours and is pale at 0.
    """
    cells = cells[cells["value"].notna()]
    rows, columns = (list(dict.fromkeys(cells[key])) for key in ("row", "column"))
    columns.sort(key=lambda code: rows.index(code) if code in rows else -1)
    shown: dict[typing.Any, dict[typing.Any, Row]] = {row: {} for row in rows}
    for cell in cells.to_dict("records"):
        value = cell["value"]
        share = value / high if low == -high else (value - low) / ((high - low) or 1)
        shown[cell["row"]][cell["column"]] = {
            "share": round(100 * min(abs(max(share, -1)), 1)), "negative": share < 0,
            "text": cell.get("text") or decimal(value), "mark": cell.get("mark", "")}
    texts = [cell["text"] for cells in shown.values() for cell in cells.values()]
    numbers = len(columns) <= FEW or max(map(len, texts), default=0) <= BRIEF
    content = render(
        "heat.html.j2", caption=caption, low=low, high=high, few=len(columns) <= FEW,
        numbers=numbers, titles=[(_row_title if code in rows else title)(code) for code in columns],
        rows=[(_row_title(row), list(map(shown[row].get, columns))) for row in rows])
    return components.figure(content, name, caption, data) if rows else Markup("")


def show(table: pd.DataFrame, caption: str, data: str = "") -> None:
    """Display a table in a notebook; nothing where it has no row. caption: the name of a message,
    such as "runs" for "caption.runs". data: as `html`."""
    figures.show(html(table, t(f"caption.{caption}"), caption, data))


def markdown(table: pd.DataFrame) -> str:
    """Any table of codes and numbers as markdown, in English."""
    columns, shown = _shown(table)
    lines = [map(title, columns), ["---"] * len(columns), *shown]
    return "\n".join(f"| {' | '.join(text.replace('|', '/') for text in line)} |" for line in lines)


def performance(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns of comparison.rows for a file, in their order. What is the same for all rows is
    said once, elsewhere."""
    same = {name for name in ("device", "weights") if len({
        text(name, row) for row in rows.to_dict("records")} - {""}) < 2}
    order = [name for name in PERFORMANCE if name not in same]
    return rows[[*order, *(name for name in rows if name not in PERFORMANCE)]]


def title(code: typing.Any) -> str:
    """What a column is called."""
    if isinstance(code, tuple):
        last = code[1] if isinstance(code[1], Text) else label(code[1])
        return t("page.category_configuration", category=code[0], configuration=last)
    family, _, rest = code.partition(":")
    if family == "kind_of":
        return named(*code.split(":")) if rest else t("column.kind_of")
    known = rest and f"column.{family}" in messages()
    return t(f"column.{family}", name=named(family, rest)) if known else named("column", code)


def _row_title(code: typing.Any) -> str:
    """What a row of a heat map is called: a configuration or a score, a user's own among them, even
    if a column has that name; or both names of a tuple."""
    if isinstance(code, tuple):
        return title(code)
    return label(code) if label(code) != code else sentences.score(code)


def _shown(table: pd.DataFrame) -> tuple[list[typing.Any], list[list[str]]]:
    """The columns that are shown, and every row's cells as text. One that is empty for all rows is
    left out, and so are those of a performance table that are no part of PERFORMANCE."""
    shown = set(PERFORMANCE) if "with_best" in table else set(table.columns)
    columns = [name for name in table.columns if name in shown and name not in INSIDE]
    cells = [[text(name, row) for name in columns] for row in table.to_dict("records")]
    used = [i for i in range(len(columns)) if any(row[i] for row in cells)]
    return [columns[i] for i in used], [[row[i] for i in used] for row in cells]


def text(column: typing.Any, row: Row) -> str:
    """A cell in words. Names and ready texts stay as they are; NaN is empty."""
    if column in WRITERS:
        return WRITERS[column](row)
    value = row[column]
    if isinstance(value, str):
        return value
    form = FORMS.get(str(column).partition(":")[0], "{:.3f}")
    return "" if value is None else formatted(value, form)


def formatted(value: float, template: str) -> str:
    """A number in a format; "" for NaN."""
    return "" if math.isnan(value) else template.format(value)


def decimal(value: float) -> str:
    """0.870, 1.000: three decimals; 1.000 is exactly that."""
    return formatted(math.floor(1000 * value) / 1000 if 0.9995 <= value < 1 else value, "{:.3f}")


def interval(low: float, high: float) -> str:
    """[0.80, 0.92]."""
    return f"[{low:.2f}, {high:.2f}]"


def auroc(row: Row, start: str = "") -> str:
    """'0.797 ± 0.012 [0.66, 0.94]'; a star where it is the best, or not distinguishable from it."""
    value, spread = row[f"{start}auroc"], row.get(f"{start}spread", math.nan)
    if math.isnan(value):
        return ""
    text = f"{value:.3f}" + ("" if math.isnan(spread) else f" ± {spread:.3f}")
    star = " ★" if row.get("with_best") is True and not start else ""
    if f"{start}low" not in row:  # of a run alone
        return text
    return f"{text} [{row[f'{start}low']:.2f}, {row[f'{start}high']:.2f}]{star}"


def _rate(row: Row, value: str, start: str) -> str:
    return "" if math.isnan(row[value]) else (
        f"{row[value]:.0%} [{row[f'{start}_low']:.0%}, {row[f'{start}_high']:.0%}]")


def _seconds(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min"


def _status(row: Row) -> str:
    text = answers.status(row)
    return "" if text == named("status", "finished") else text


def _scores(codes: typing.Any) -> str:
    return join(map(sentences.score, codes.split(", ")), ", ") if isinstance(codes, str) else ""


def _reached(value: float, least: float, form: typing.Callable[[float], str]) -> str:
    """A value read off a curve: beyond the least that was drawn lies only the curve's guess."""
    if math.isnan(value):
        return t("limits.not_reached")
    return form(value) if value > least else t("limits.or_less", least=form(least))


def _percent(value: float) -> str:
    return f"{100 * value:.2g}%"


WRITERS: dict[typing.Any, typing.Callable[[Row], str]] = {
    "configuration": lambda row: label(row["configuration"]),
    **{name: lambda row, name=name: _scores(row[name])
       for name in ("score", "own_score", "chosen_score", "best_score")},
    "auroc": auroc,
    "bad_auroc": lambda row: auroc(row, "bad_"),
    "false_positives": lambda row: _rate(row, "false_positives", "false"),
    "detections": lambda row: _rate(row, "detections", "found"),
    "claim_low": lambda row: "" if math.isnan(
        row["claim_low"]) else f"{row['claim_low']:.2f}-{row['claim_high']:.2f}",
    "verdict": lambda row: named("claim", row["verdict"]) if row["verdict"] in VERDICTS else "",
    "group": lambda row: sentences.group(row["group"]),
    "train_seconds": lambda row: _seconds(row["train_seconds"]),
    "status": _status,
    "weights": lambda row: sentences.weights(row["weights"], short=True) if isinstance(
        row["weights"], str) else "",
    "label_free_choice": lambda row: named("position", row["label_free_choice"]),
    "better": lambda row: named("position", row["better"]),
    "gain": lambda row: "" if math.isnan(row["gain"]) else (
        f"{row['gain']:.3f} [{row['gain_low']:.3f}, {row['gain_high']:.3f}]"),
    "mean_false_positives": lambda row: t("matrix.no_threshold") if math.isnan(
        row["mean_false_positives"]) else f"{row['mean_false_positives']:.0%}",
    "area50": lambda row: _reached(row["area50"], row["smallest"], _percent),
    "area95": lambda row: _reached(row["area95"], row["smallest"], _percent),
    "smallest": lambda row: _percent(row["smallest"]),
    "largest": lambda row: _percent(row["largest"]),
    "contrast95": lambda row: _reached(row["contrast95"], row["faintest"], "{:.2f}".format)}
