"""The performance table as HTML, as text, and as the page of results in docs/."""
from __future__ import annotations

import html
import math
from pathlib import Path

import pandas as pd

from adlib import compare, runs


def as_html(table: pd.DataFrame) -> str:
    """The performance table as an HTML table that a screen reader can read; every run's name links to its page."""
    rows = _cells(table)
    lines = ['<table class="performance"><caption>Image AUROC of every run; 0.5 is guessing, 1 is perfect. The interval is for the '
             'finite test set (DeLong).</caption><thead><tr>', *(f'<th scope="col">{name}</th>' for name in rows[0]),
             "</tr></thead><tbody>"]
    for cells, run in zip(rows, table.itertuples(), strict=True):
        parts = []
        for name, text in cells.items():
            text = html.escape(text)
            if name == "Configuration":
                parts.append(f'<th scope="row"><a href="{html.escape(run.folder)}/index.html">{text}</a></th>')
            else:
                parts.append(f'<td{" class=figure" if text[:1].isdigit() else ""}>{text}</td>')
        lines.append(f'<tr class="{run.status}">' + "".join(parts) + "</tr>")
    return "\n".join([*lines, "</tbody></table>"])


def as_text(table: pd.DataFrame) -> str:
    """The performance table for a terminal or a markdown file."""
    rows = _cells(table)
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(text.replace("|", "/") for text in cells.values()) + " |" for cells in rows])


def _cells(table: pd.DataFrame) -> list[dict[str, str]]:
    """Every run's cells as text, by column title. A column that is empty for all runs is left out."""
    several, rows = table["seed"].nunique() > 1, []
    for run in table.itertuples():
        values = run._asdict()
        rows.append({
            "Category": run.category, "Configuration": run.label + (f", seed {run.seed}" if several else ""),
            "AUROC, test [95 % interval]": compare.interval(values, "auroc", "low", "high"),
            "Seed claims": "" if math.isnan(run.claim_low) else f"{run.claim_low:.2f}-{run.claim_high:.2f}", "Claim": run.verdict,
            "Seed's published scores": _number(run.published, "{:.3f}"),
            "AUROC, test good against train/bad": compare.interval(values, "bad_auroc", "bad_low", "bad_high"),
            "Epochs": _number(run.epochs, "{:.0f}"), "Training": _seconds(run.train_seconds), "Device": run.device, "Weights": run.weights,
            "Status": run.status + (f": {run.reason}" if run.reason else "")})
    used = [name for name in rows[0] if any(row[name] for row in rows)]
    return [{name: row[name] for name in used} for row in rows]


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


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)


def _seconds(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min"
