"""Tables of codes and numbers, shown: as HTML by one template, as markdown, and docs/results.md.

A column is called by its code: "auroc" has the title of the message "column.auroc", "epoch:10" that
of "column.epoch", and (category, configuration) is titled by both names.
"""
from __future__ import annotations

import math
import typing
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from adlib.report import answers, comparison, questions, sentences
from adlib.report.comparison import label
from adlib.report.i18n import Text, named, t
from adlib.report.render import render
from adlib.runs import run_folder

PERFORMANCE = ("category", "configuration", "score", "auroc", "bad_auroc", "label_free",
               "false_positives", "detections", *comparison.PIXEL_METRICS, "claim_low", "verdict",
               "published", "seeds", "epochs", "train_seconds", "device", "weights", "status")
INSIDE = {f"{start}{end}" for start in ("", "bad_", "false_", "found_", "claim_")
          for end in ("spread", "low", "high")} - {"claim_low"}  # said in another column's cell
FORMS = {"seeds": "{:.0f}", "images": "{:.0f}", "epochs": "{:.0f}", "position_share": "{:.2f}",
         "rank_correlation": "{:+.2f}", "confounder": "{:+.2f}", "found_at_real_size": "{:.0%}",
         "contrast95": "{:.2f}", "faintest": "{:.2f}"}  # others have three decimals
VERDICTS = ("missed", "reached", "exceeded")
STRIPS = {"auroc": "", "bad_auroc": "bad_"}  # columns with a strip: prefix of their interval
AXIS = 0.3  # AUROC at the left end of a strip
Row = dict[typing.Any, typing.Any]


def performance_html(rows: pd.DataFrame) -> str:
    """The performance table (comparison.rows); every cell of a run links to its page."""
    return html(_performance(rows), t("caption.performance"), list(rows["folder"]))


def html(table: pd.DataFrame, caption: str, folders: typing.Sequence[str] = ()) -> str:
    """Any table of codes and numbers as HTML; "" where it has no row.

    folders: of the runs whose pages the rows link to.
    """
    if table.empty:
        return ""
    columns, shown = _shown(table)
    rows = []
    for i, (row, texts) in enumerate(zip(table.to_dict("records"), shown, strict=True)):
        cells = [{"text": text, "heading": column == "configuration" and bool(folders),
                  "strip": _strip(row, STRIPS[column]) if column in STRIPS else None}
                 for column, text in zip(columns, texts, strict=True)]
        rows.append({"cells": cells, "status": row.get("status", ""),
                     "href": f"{quote(folders[i])}/index.html" if folders else ""})
    return render("table.html.j2", caption=caption, titles=map(title, columns), rows=rows)


def show(table: pd.DataFrame, caption: str) -> None:
    """Display a table in a notebook; nothing where it has no row. caption: a text, or the name of a
    message, such as "choices" for "caption.choices"."""
    from IPython.display import HTML, display

    if len(table):
        display(HTML(html(table, named("caption", caption))))


def markdown(table: pd.DataFrame) -> str:
    """Any table of codes and numbers as markdown, in English."""
    columns, shown = _shown(table)
    lines = [map(title, columns), ["---"] * len(columns), *shown]
    return "\n".join(f"| {' | '.join(text.replace('|', '/') for text in line)} |" for line in lines)


def performance_markdown(rows: pd.DataFrame) -> str:
    """The performance table for a terminal or a markdown file."""
    return markdown(_performance(rows))


def title(column: typing.Any) -> str:
    """What a column is called."""
    if isinstance(column, tuple):
        return t("page.category_configuration", category=column[0], configuration=label(column[1]))
    family, _, code = column.partition(":")
    return t(f"column.{family}", name=named(family, code)) if code else named("column", column)


def _performance(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns in their order. A device or weights that are the same for all rows are said once,
    under the table."""
    words = [sentences.weights(word, short=True) if isinstance(word, str) else ""
             for word in rows["weights"]]
    table = rows.assign(weights=words)
    random = rows["weights"].astype(str).str.startswith("RANDOM").any()
    same = {"device": rows["device"].dropna().nunique() < 2,
            "weights": len(set(words) - {""}) < 2 and not random}
    order = [column for column in PERFORMANCE if not same.get(column)]
    return table[[*order, *(name for name in table if name not in PERFORMANCE)]]


def _shown(table: pd.DataFrame) -> tuple[list[typing.Any], list[list[str]]]:
    """The columns that are shown, and every row's cells as text. One that is empty for all rows is
    left out, and so are those of a performance table that are no part of PERFORMANCE."""
    known = set(PERFORMANCE) if "with_best" in table else set(table.columns)
    columns = [name for name in table.columns if name in known and name not in INSIDE]
    cells = [[_text(name, row) for name in columns] for row in table.to_dict("records")]
    used = [i for i in range(len(columns)) if any(row[i] for row in cells)]
    return [columns[i] for i in used], [[row[i] for i in used] for row in cells]


def _text(column: typing.Any, row: Row) -> str:
    """A cell in words. Names and ready texts stay as they are; NaN is empty."""
    if column in WRITERS:
        return WRITERS[column](row)
    value = row[column]
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value):
        return ""
    return FORMS.get(str(column).partition(":")[0], "{:.3f}").format(value)


def _auroc(row: Row, start: str = "") -> str:
    """'0.797 ± 0.012 [0.66, 0.94]'; a star where it is the best, or not distinguishable from it."""
    value, spread = row[f"{start}auroc"], row.get(f"{start}spread", math.nan)
    if math.isnan(value):
        return ""
    text = f"{value:.3f}" + ("" if math.isnan(spread) else f" ± {spread:.3f}")
    star = " ★" if row.get("with_best") is True and not start else ""
    return f"{text} [{row[f'{start}low']:.2f}, {row[f'{start}high']:.2f}]{star}"


def _rate(row: Row, value: str, start: str) -> str:
    return "" if math.isnan(row[value]) else (
        f"{row[value]:.0%} [{row[f'{start}_low']:.0%}, {row[f'{start}_high']:.0%}]")


def _seconds(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min"


def _status(row: Row) -> str:
    text = answers.status(pd.Series(row))
    return "" if text == named("status", "finished") else text


def _reached(value: float, least: float, form: typing.Callable[[float], str]) -> str:
    """A value read off a curve: beyond the least that was drawn lies only the curve's guess."""
    if math.isnan(value):
        return t("limits.not_reached")
    return form(value) if value > least else t("limits.or_less", least=form(least))


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %"


WRITERS: dict[typing.Any, typing.Callable[[Row], str]] = {
    "configuration": lambda row: label(row["configuration"]),
    "auroc": _auroc,
    "bad_auroc": lambda row: _auroc(row, "bad_"),
    "false_positives": lambda row: _rate(row, "false_positives", "false"),
    "detections": lambda row: _rate(row, "detections", "found"),
    "claim_low": lambda row: "" if math.isnan(
        row["claim_low"]) else f"{row['claim_low']:.2f}-{row['claim_high']:.2f}",
    "verdict": lambda row: named("claim", row["verdict"]) if row["verdict"] in VERDICTS else "",
    "group": lambda row: sentences.group(row["group"]),
    "train_seconds": lambda row: _seconds(row["train_seconds"]),
    "status": _status,
    "label_free_choice": lambda row: named("position", row["label_free_choice"]),
    "better": lambda row: named("position", row["better"]),
    "mean_false_positives": lambda row: t("limits.none") if math.isnan(
        row["mean_false_positives"]) else f"{row['mean_false_positives']:.0%}",
    "area50": lambda row: _reached(row["area50"], row["smallest"], _percent),
    "area95": lambda row: _reached(row["area95"], row["smallest"], _percent),
    "smallest": lambda row: _percent(row["smallest"]),
    "largest": lambda row: _percent(row["largest"]),
    "contrast95": lambda row: _reached(row["contrast95"], row["faintest"], "{:.2f}".format)}


def _strip(row: Row, start: str) -> dict[str, str] | None:
    """Where an AUROC, its interval and chance are on a strip of 100 pixels."""
    values = {key: row.get(f"{start}{end}", math.nan) for key, end in (
        ("value", "auroc"), ("low", "low"), ("high", "high"))}
    if any(math.isnan(value) for value in values.values()):
        return None
    return {key: f"{4 + 92 * (min(max(value, AXIS), 1) - AXIS) / (1 - AXIS):.1f}"
            for key, value in (values | {"chance": 0.5}).items()}


# ---- docs/results.md


def results(table: pd.DataFrame, reports: Path) -> str:
    """The page of measured results, in markdown: the answer, every table, what is distinguishable,
    and how it was measured; all from the run folders (table: comparison.performance)."""
    main = comparison.without_ablations(table)
    rows = comparison.rows(main, reports)
    categories = dict.fromkeys(table.loc[table["status"] == "finished", "category"])
    pairs = {category: comparison.matrix(main, reports, category) for category in categories}
    scores, limits = questions.scores(table, reports), questions.robustness(reports)
    choices, target = questions.choices(scores), questions.target(rows)
    position, ablation = questions.position(table, reports), questions.ablation(table, reports)
    lines = [
        "# Measured results", f"Written by `adlib report --markdown FILE` from the run folders in "
        f"`{reports.name}/`; not by hand.", answers.provenance(table), answers.full(rows),
        "## Performance", t("caption.performance"), performance_markdown(rows),
        t("caption.performance_notes"), answers.bootstrap(comparison.bootstrap_gaps(main, reports)),
        "## What is distinguishable",
        *(f"### {category}\n\n{_matrix(pairs[category])}" for category in categories)]
    for heading, said, found in (
            ("Which score? The label-free order against the real one", answers.scores(choices),
             choices),
            ("All scores of the autoencoders", t("caption.scores"), questions.all_scores(scores)),
            ("Pixels or features?", answers.target(target, pairs), target),
            ("Does the position matter?", answers.position(position), position),
            ("What does each component bring?",
             f"{answers.ablation(ablation)} {t('caption.ablation')}", ablation),
            ("Where is it?", t("caption.localization"), questions.localization(main, reports)),
            ("How noisy may it get?",
             f"{answers.robustness(limits)} {answers.robustness_caption()}",
             questions.robustness_table(limits)),
            ("How small a defect?", t("caption.smallest"), questions.smallest(reports)),
            ("AUROC over epochs, and confounders", t("caption.epochs"),
             questions.epochs(table, reports))):
        lines += [f"## {heading}", said, markdown(found)] if len(found) else []
    measured = [_measured(runs, run_folder.manifest(reports / runs.iloc[0]["folder"]))
                for _, runs in comparison.finished(table)]
    return "\n\n".join([*lines, "## How it was measured", "\n".join(measured)]) + "\n"


def _matrix(pairs: pd.DataFrame) -> str:
    """The pairs that the paired test distinguishes, as a list: each row, and the rows that are
    significantly below it."""
    apart = pairs[pairs["p_holm"] < comparison.LEVEL]
    below: dict[str, list[str]] = {}
    for pair in apart.itertuples():
        better, worse = (pair.a, pair.b) if pair.difference > 0 else (pair.b, pair.a)
        below.setdefault(label(better), []).append(label(worse))
    return "\n".join([
        f"{len(apart)} of {len(pairs)} pairs are distinguishable at 5 % after Holm's correction."
        + " Significantly below each row:" * bool(below) + "\n" * bool(below),
        *(f"- {better}: {answers.enumerated(names)}" for better, names in below.items())])


def _measured(runs: pd.DataFrame, about: dict[str, typing.Any]) -> str:
    first = runs.iloc[0]
    return (f"- {first['category']} / {first['name']}: seeds {', '.join(map(str, runs['seed']))}; "
            f"{first['epochs']:.0f} epochs, {first['precision']}, "
            f"{about['params']['image_size']} px, {first['device']} ({about['threads']} threads), "
            f"torch {about['versions']['torch']}, git {', '.join(sorted(set(runs['git'])))}")


def notes() -> Text:
    """The notes on the performance table for a page, without markdown's stars."""
    text = t("caption.performance_notes")
    return Text(text.replace("*", ""), text.zh.replace("*", ""))
