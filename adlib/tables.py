"""The performance table as HTML, as text, and as the page of results in docs/."""
from __future__ import annotations

import html
import math
import typing
from pathlib import Path

import pandas as pd

from adlib import compare, runs


def as_html(table: pd.DataFrame) -> str:
    """The performance table as an HTML table that a screen reader can read; every run's name links to its page."""
    head = ("Category", "Configuration", "AUROC, test [95 % interval]", "Seed claims", "Claim", "AUROC, test good against train/bad",
            "Epochs", "Training", "Device", "Weights", "Status")
    show_seed = table["seed"].nunique() > 1
    lines = ['<table class="performance"><caption>Image AUROC of every run; 0.5 is guessing, 1 is perfect. The interval is for the '
             'finite test set (DeLong).</caption><thead><tr>', *(f'<th scope="col">{name}</th>' for name in head), "</tr></thead><tbody>"]
    for row in table.itertuples():
        name = html.escape(row.label + (f", seed {row.seed}" if show_seed else ""))
        cells = [html.escape(row.category), f'<a href="{html.escape(row.folder)}/index.html">{name}</a>',
                 compare.interval(row._asdict(), "auroc", "low", "high"),
                 _claim(row) + ("" if math.isnan(row.published) else f" (its published scores: {row.published:.3f})"), row.verdict,
                 compare.interval(row._asdict(), "bad_auroc", "bad_low", "bad_high"), _number(row.epochs, "{:.0f}"),
                 _seconds(row.train_seconds), html.escape(row.device), html.escape(row.weights),
                 html.escape(row.status + (f": {row.reason}" if row.reason and row.status != "finished" else ""))]
        kinds = ["td", "th", *["td"] * 9]
        lines.append(f'<tr class="{row.status}">' + "".join(
            f'<{kind}{" scope=row" if kind == "th" else ""}>{cell}</{kind}>' for kind, cell in zip(kinds, cells, strict=True)) + "</tr>")
    return "\n".join([*lines, "</tbody></table>"])


def as_text(table: pd.DataFrame) -> str:
    """The performance table for a terminal or a markdown file."""
    lines = ["| category | configuration | AUROC, test [95 % interval] | seed claims | claim | seed's published scores | "
             "AUROC, good against train/bad | epochs | training | device | weights | status |", "|" + "---|" * 12]
    show_seed = table["seed"].nunique() > 1
    for row in table.itertuples():
        name = row.label + (f", seed {row.seed}" if show_seed else "")
        lines.append("| " + " | ".join([
            row.category, name, compare.interval(row._asdict(), "auroc", "low", "high"), _claim(row), row.verdict,
            _number(row.published, "{:.3f}"), compare.interval(row._asdict(), "bad_auroc", "bad_low", "bad_high"),
            _number(row.epochs, "{:.0f}"), _seconds(row.train_seconds), row.device, row.weights,
            row.status + (f": {row.reason}" if row.status != "finished" else "")]) + " |")
    return "\n".join(lines)


def markdown(table: pd.DataFrame, reports: Path) -> str:
    """docs/results.md: the table, the answer, AUROC over epochs and what the score follows, all from the run folders."""
    done = table[table["status"] == "finished"]
    lines = ["# Measured results", "", f"Written by `adlib report --markdown FILE` from the run folders in `{reports.name}/`; not by hand.",
             "", compare.provenance(table), "", compare.answer(table), "", "## Performance", "", as_text(table), "",
             "AUROC with the 95 % interval for the finite test set (DeLong). *Seed claims*: the range in the seed's README; "
             "*seed's published scores*: the AUROC of the per-image scores its author published for that configuration, on these "
             "test images.",
             "", "## AUROC over epochs, and what the score follows", "",
             "Test-split AUROC had training stopped there (a diagnosis: no epoch is chosen by it), and the rank correlation of the final "
             "score with the brightness of the image.", ""]
    epochs = compare.results_of(table, reports, "epochs.csv")
    columns = sorted({int(epoch) for curve in epochs.values() for epoch in curve["epoch"]})
    lines += [f"| category | configuration | {' | '.join(f'epoch {epoch}' for epoch in columns)} | score vs brightness |",
              "|" + "---|" * (len(columns) + 3)]
    correlations = dict(zip(epochs, done["brightness_correlation"], strict=True))
    for (category, label), curve in epochs.items():
        at = dict(zip(curve["epoch"].astype(int), curve["auroc"], strict=True))
        cells = [f"{at[epoch]:.3f}" if epoch in at else "" for epoch in columns]
        lines.append(f"| {category} | {label} | {' | '.join(cells)} | {correlations[category, label]:+.2f} |")
    lines += ["", "## How it was measured", ""]
    for row in done.itertuples():
        about = runs.manifest(reports / row.folder)
        lines.append(f"- {row.category} / {row.label}: {row.epochs:.0f} epochs, {row.precision}, {row.device} "
                     f"({about['threads']} threads), torch {about['versions']['torch']}, git {row.git}, data fingerprint {row.fingerprint}")
    return "\n".join(lines) + "\n"


def _claim(row: typing.Any) -> str:
    return "" if math.isnan(row.claim_low) else f"{row.claim_low:.2f}-{row.claim_high:.2f}"


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)


def _seconds(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min"
