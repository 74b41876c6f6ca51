"""The performance table as HTML, as text, and as the page of results in docs/. Rows are those of
adlib.summary."""
from __future__ import annotations

import math
import typing
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from adlib.report import answers, compare_limits, comparison, i18n, questions, summary
from adlib.report.i18n import Text, t
from adlib.runs import run_folder

CAPTION = t("comparison.image_auroc_every_configuration_mean")
NOTES = t("comparison.label_free_auroc_held_out_good_images")

SCORES = t("comparison.auroc_test_split_brackets_label_free")
PARTS = t("comparison.label_free_auroc_kind_synthetic_anomaly")
PLACES = t("comparison.pixel_metrics_anomaly_maps_defect")
SMALLEST = t("comparison.share_image_defect_must_cover")
EPOCHS = t("comparison.test_split_auroc_configuration_s_own")

# columns with a strip: {title: prefix in the rows}
AUROCS = {"AUROC, test": "", "AUROC, test good against train/bad": "bad_"}
AXIS = 0.3  # AUROC at the left end of a strip


def notes() -> Text:
    """NOTES for a page, without markdown's stars."""
    return Text(NOTES.replace("*", ""), NOTES.zh.replace("*", ""))


def as_html(rows: pd.DataFrame) -> str:
    """The performance table as an HTML table that a screen reader can read; every cell of a run
    links to its page."""
    cells_of = _cells(rows)
    lines = [_head(CAPTION, cells_of[0])]
    for cells, row in zip(cells_of, rows.to_dict("records"), strict=True):
        to = f'<a href="{quote(row["folder"])}/index.html">'
        strips = {
            title: _strip(*(row[f"{prefix}{key}"] for key in ("auroc", "low", "high")))
            for title, prefix in AUROCS.items()
        }
        parts = [
            f'<th scope="row">{to}{i18n.html(text)}</a></th>' if name == "Configuration" else _cell(
                text, to, strips.get(name, "")) for name, text in cells.items()
        ]
        lines.append(f'<tr class="{row["status"]}">' + "".join(parts) + "</tr>")
    return "\n".join([*lines, "</tbody></table>"])


def html_of(table: pd.DataFrame, caption: str) -> str:
    """Any table of text as HTML; "" where it has no row."""
    if table.empty:
        return ""
    lines = [
        "<tr>" + "".join(map(_cell, cells)) + "</tr>"
        for cells in table.itertuples(index=False, name=None)
    ]
    return "\n".join([_head(caption, table.columns), *lines, "</tbody></table>"])


def as_text(rows: pd.DataFrame) -> str:
    """The performance table for a terminal or a markdown file."""
    return text_of(pd.DataFrame(_cells(rows)))


def text_of(table: pd.DataFrame) -> str:
    """Any table of text as markdown."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    return "\n".join(lines + [
        "| " + " | ".join(text.replace("|", "/") for text in cells) + " |"
        for cells in table.itertuples(index=False, name=None)
    ])


def _head(caption: str, names: typing.Iterable[str]) -> str:
    columns = "".join(f'<th scope="col">{i18n.html(name)}</th>' for name in names)
    return f'<table class="performance"><caption>{i18n.html(caption)}</caption><thead><tr>{columns}</tr></thead><tbody>'


def _cell(text: str, to: str = "", strip: str = "") -> str:
    inside = f"{to}{i18n.html(text)}</a>" if to and text else i18n.html(text)
    return f'<td{" class=figure" if text[:1].isdigit() else ""}>{inside}{strip}</td>'


def _strip(value: float, low: float, high: float) -> str:
    """An AUROC and its interval as a dot on a line, the dotted line being chance; drawn beside its
    number, so a screen reader skips it."""
    if math.isnan(value):
        return ""
    at, left, right, chance = (4 + 92 * (min(max(part, AXIS), 1) - AXIS) / (1 - AXIS)
                               for part in (value, low, high, 0.5))
    return (
        f'<svg class="strip" width="100" height="9" aria-hidden="true"><line x1="{chance:.0f}" '
        f'x2="{chance:.0f}" y1="0" y2="9" '
        f'stroke="#999" stroke-dasharray="1 2"/><line x1="{left:.1f}" x2="{right:.1f}" y1="4.5" '
        f'y2="4.5" stroke="currentColor" '
        f'stroke-width="1.5"/><circle cx="{at:.1f}" cy="4.5" r="3" fill="currentColor"/></svg>')


def matrix_text(pairs: pd.DataFrame) -> str:
    """The pairs that the paired test tells apart, as a markdown list: each row, and the rows that
    are significantly below it."""
    apart = pairs[pairs["p_holm"] < summary.LEVEL]
    lines = [
        f"{len(apart)} of {len(pairs)} pairs are told apart at 5 % after Holm's correction." +
        (" Significantly below each row:" if len(apart) else ""), ""
    ]
    below: dict[str, list[str]] = {}
    for row in apart.itertuples():
        better, worse = (row.a, row.b) if row.difference > 0 else (row.b, row.a)
        below.setdefault(better, []).append(worse)
    return "\n".join(lines +
                     [f"- {better}: {comparison.join(rows)}" for better, rows in below.items()])


def markdown(table: pd.DataFrame, reports: Path) -> str:
    """docs/results.md: the table, the answer, what can be told apart, score study, epochs; all from
    the run folders."""
    main = comparison.without_ablations(table)
    rows = summary.rows(main, reports)
    done = table[table["status"] == "finished"]
    lines = [
        "# Measured results", "",
        f"Written by `adlib report --markdown FILE` from the run folders in `{reports.name}/`; "
        f"not by hand.", "",
        comparison.provenance(table), "",
        answers.full(rows), "", "## Performance", "", CAPTION, "",
        as_text(rows), "", NOTES, "",
        summary.bootstrap_sentence(main, reports), "", "## What can be told apart", ""
    ]
    for category in dict.fromkeys(done["category"]):
        lines += [f"### {category}", "", matrix_text(summary.matrix(main, reports, category)), ""]
    scores, limits, place = questions.scores(
        table, reports), compare_limits.robustness(reports), questions.place(table, reports)
    parts = questions.parts(table, reports)
    sections = [
        ("Which score? The label-free order against the real one",
         questions.scores_sentence(scores), questions.choices(scores)),
        ("All scores of the autoencoders", SCORES, questions.scores_table(scores)),
        ("Pixels or features?", questions.target_sentence(main, rows,
                                                          reports), questions.target(rows)),
        ("Does the place matter?", questions.place_sentence(place), place),
        ("What does each part bring?", f"{questions.parts_sentence(parts)} {PARTS}", parts),
        ("Where is it?", PLACES, questions.localisation(main, reports)),
        ("How noisy may it get?",
         f"{compare_limits.robustness_sentence(limits)} {compare_limits.robustness_caption()}",
         compare_limits.robustness_table(limits)),
        ("How small a defect?", SMALLEST, compare_limits.smallest(reports)),
        ("AUROC over epochs, and what the score follows", EPOCHS, questions.epochs(table, reports))
    ]
    for title, sentence, found in sections:
        lines += [f"## {title}", "", sentence, "", text_of(found), ""] if len(found) else []
    lines += ["## How it was measured", ""]
    for (category, name), same in done.groupby(["category", "name"], sort=False):
        about = run_folder.manifest(reports / same.iloc[0]["folder"])
        revisions = ", ".join(sorted(set(same["git"])))
        lines.append(f"- {category} / {name}: seeds {', '.join(map(str, same['seed']))}; "
                     f"{same.iloc[0]['epochs']:.0f} epochs, "
                     f"{same.iloc[0]['precision']}, {about['params']['image_size']} px, "
                     f"{same.iloc[0]['device']} ({about['threads']} "
                     f"threads), torch {about['versions']['torch']}, git {revisions}")
    return "\n".join(lines) + "\n"


def _cells(rows: pd.DataFrame) -> list[dict[str, str]]:
    """Every row's cells as text, by column title. A column that is empty for all rows is left out.
    """
    cells_of, weights = [], {_weights(word) for word in rows["weights"]} - {""}
    # what is the same for all rows is said once, under the table
    several = rows["device"].dropna().nunique() > 1
    mixed = len(weights) > 1 or any(word.startswith("RANDOM") for word in weights)
    for row in rows.itertuples():
        values = row._asdict()
        cells_of.append({
            "Category": row.category, "Configuration": row.label,
            "Score": row.score if isinstance(row.score, str) else "",
            "AUROC, test": _with_spread(values, "") + (" ★" if row.with_best is True else ""),
            "AUROC, test good against train/bad": _with_spread(
                values, "bad_"), "Label-free AUROC": _number(
                    row.label_free, "{:.3f}"), "False alarms": _rate(
                        values, "false_positives", "false_low", "false_high"), "Detections": _rate(
                            values, "detections",
                            "found_low", "found_high"), "Pixel AUROC": _number(
                                row.pixel_auroc, "{:.3f}"), "Pixel AP": _number(
                                    row.pixel_ap, "{:.3f}"), "AU-PRO .30": _number(
                                        row.au_pro_30, "{:.3f}"), "AU-PRO .05": _number(
                                            row.au_pro_05, "{:.3f}"), "Reference's claims": ""
            if math.isnan(row.claim_low) else f"{row.claim_low:.2f}-{row.claim_high:.2f}",
            "Claim": _claim(row.verdict), "Reference's published scores": _number(
                row.published, "{:.3f}"), "Seeds": _number(
                    row.seeds,
                    "{:.0f}"), "Epochs": _number(row.epochs, "{:.0f}") if row.epochs != 0 else "",
            "Training": _seconds(row.train_seconds),
            "Device": row.device if several and isinstance(row.device, str) else "",
            "Weights": _weights(row.weights) if mixed else "",
            "Status": "" if row.status == "finished" and not row.reason else
            t("comparison.status_reason", status=row.status, reason=row.reason)
            if isinstance(row.reason, str) and row.reason else row.status
        })
    used = [name for name in cells_of[0] if any(cells[name] for cells in cells_of)]
    return [{name: cells[name] for name in used} for cells in cells_of]


def _with_spread(row: dict[str, float], prefix: str) -> str:
    """'0.797 ± 0.012 [0.66, 0.94]'; empty where there is no value."""
    value, spread = row[f"{prefix}auroc"], row[f"{prefix}spread"]
    if math.isnan(value):
        return ""
    text = f"{value:.3f}" + ("" if math.isnan(spread) else f" ± {spread:.3f}")
    return f"{text} [{row[f'{prefix}low']:.2f}, {row[f'{prefix}high']:.2f}]"


def _claim(verdict: object) -> str:
    """A missed claim is another thing than a missed defect (panels), and Chinese has another word
    for it."""
    return Text("missed",
                t("limits.not_reached").zh) if verdict == "missed" else verdict if isinstance(
                    verdict, str) else ""


def _rate(row: dict[str, float], value: str, low: str, high: str) -> str:
    return "" if math.isnan(row[value]) else f"{row[value]:.0%} [{row[low]:.0%}, {row[high]:.0%}]"


def _weights(word: object) -> str:
    """Where a network has none of its own to tell, nothing; a file's hash, or why there were none,
    is on the run's page."""
    if not isinstance(word, str) or word.startswith("none ("):
        return ""
    return word.split(" (")[0] if word.startswith("RANDOM") else word.split(" sha256:")[0]


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)


def _seconds(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min"
