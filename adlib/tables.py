"""The performance table as HTML, as text, and as the page of results in docs/. Rows are those of adlib.summary."""
from __future__ import annotations

import html
import math
from pathlib import Path

import pandas as pd

from adlib import compare, runs, summary

CAPTION = (
    "Image AUROC of every configuration: mean over seeds, ± the spread over seeds (standard deviation), and in brackets the 95 % "
    "interval of the finite test set (DeLong). 0.5 is guessing, 1 is perfect. A star marks the best of a category and all rows that "
    "cannot be told from it (paired DeLong test, Holm-corrected, 5 %).")
NOTES = (
    "*Label-free AUROC*: held-out good images against synthetic anomalies put into them, known before any label. *False alarms* and "
    "*detections*: on the test split, at the threshold set without labels (mean over seeds; Clopper-Pearson interval). *Seed claims*: the "
    "range in the seed's README, for its four configurations at full training. Pixel columns only where masks exist.")


def as_html(rows: pd.DataFrame) -> str:
    """The performance table as an HTML table that a screen reader can read; every run's name links to its page."""
    cells_of = _cells(rows)
    lines = [f'<table class="performance"><caption>{html.escape(CAPTION)}</caption><thead><tr>',
             *(f'<th scope="col">{name}</th>' for name in cells_of[0]), "</tr></thead><tbody>"]
    for cells, row in zip(cells_of, rows.itertuples(), strict=True):
        parts = []
        for name, text in cells.items():
            text = html.escape(text)
            if name == "Configuration":
                parts.append(f'<th scope="row"><a href="{html.escape(row.folder)}/index.html">{text}</a></th>')
            else:
                parts.append(f'<td{" class=figure" if text[:1].isdigit() else ""}>{text}</td>')
        lines.append(f'<tr class="{row.status}">' + "".join(parts) + "</tr>")
    return "\n".join([*lines, "</tbody></table>"])


def as_text(rows: pd.DataFrame) -> str:
    """The performance table for a terminal or a markdown file."""
    cells_of = _cells(rows)
    lines = ["| " + " | ".join(cells_of[0]) + " |", "|" + "---|" * len(cells_of[0])]
    return "\n".join(lines + ["| " + " | ".join(text.replace("|", "/") for text in cells.values()) + " |" for cells in cells_of])


def matrix_text(pairs: pd.DataFrame) -> str:
    """The pairs that the paired test tells apart, as a markdown list; the rest is counted."""
    apart = pairs[pairs["p_holm"] < summary.LEVEL]
    lines = [f"{len(apart)} of {len(pairs)} pairs are told apart at 5 % after Holm's correction."]
    for row in apart.itertuples():
        better, worse = (row.a, row.b) if row.difference > 0 else (row.b, row.a)
        lines.append(f"- {better} above {worse}: {abs(row.difference):.3f} (p = {row.p_holm:.1e} corrected)")
    return "\n".join(lines)


def markdown(table: pd.DataFrame, reports: Path) -> str:
    """docs/results.md: the table, the answer, what can be told apart, score study, epochs; all from the run folders."""
    rows = summary.rows(table, reports)
    done = table[table["status"] == "finished"]
    lines = ["# Measured results", "", f"Written by `adlib report --markdown FILE` from the run folders in `{reports.name}/`; not by hand.",
             "", compare.provenance(table), "", summary.answer(rows), "", "## Performance", "", CAPTION, "", as_text(rows), "", NOTES, "",
             "## What can be told apart", ""]
    for category in dict.fromkeys(done["category"]):
        lines += [f"### {category}", "", matrix_text(summary.matrix(table, reports, category)), ""]
    lines += ["## Which score? The label-free order against the real one", "",
              "Autoencoders, seed by seed: the configuration's own score, the one chosen without labels, the best in hindsight (AUROC on "
              "the test split), and the rank correlation between the label-free and the real order of the twelve scores.", "",
              "| category | configuration | seed | own | chosen | best in hindsight | rank correlation |", "|---|---|---|---|---|---|---|"]
    for run in done.itertuples():
        path = reports / run.folder / "score_study.csv"
        scores = pd.read_csv(path) if path.is_file() else pd.DataFrame()
        if len(scores) < 5 or scores["test"].isna().any():
            continue
        role = scores.set_index("score")["role"].fillna("")
        own, chosen = role[role.str.contains("its own")].index[0], role[role.str.contains("chosen")].index[0]
        value, best = scores.set_index("score")["test"], scores.loc[scores["test"].idxmax()]
        lines.append(f"| {run.category} | {run.label} | {run.seed} | {own} {value[own]:.3f} | {chosen} {value[chosen]:.3f} | "
                     f"{best['score']} {best['test']:.3f} | {scores['label_free'].corr(scores['test'], method='spearman'):+.2f} |")
    lines += ["", "## AUROC over epochs, and what the score follows", "",
              "Test-split AUROC of the configuration's own score had training stopped there, mean over seeds (a diagnosis: no epoch is "
              "chosen by it), and the rank correlation of the final score with the brightness of the image.", "",
              *_epochs(done, reports), "",
              "## How it was measured", ""]
    for (category, name), same in done.groupby(["category", "name"], sort=False):
        about = runs.manifest(reports / same.iloc[0]["folder"])
        revisions = ", ".join(sorted(set(same["git"])))
        lines.append(f"- {category} / {name}: seeds {', '.join(map(str, same['seed']))}; {same.iloc[0]['epochs']:.0f} epochs, "
                     f"{same.iloc[0]['precision']}, {about['params']['image_size']} px, {same.iloc[0]['device']} ({about['threads']} "
                     f"threads), torch {about['versions']['torch']}, git {revisions}")
    return "\n".join(lines) + "\n"


def _epochs(done: pd.DataFrame, reports: Path) -> list[str]:
    curves = {}
    for _, same in done.groupby(["category", "name"], sort=False):
        paths = [reports / folder / "epochs.csv" for folder in same["folder"]]
        if all(path.is_file() for path in paths):
            mean = pd.concat([pd.read_csv(path) for path in paths]).groupby("epoch")["auroc"].mean()
            curves[same.iloc[0]["category"], same.iloc[0]["label"]] = (mean, same["brightness_correlation"].mean())
    columns = sorted({int(epoch) for mean, _ in curves.values() for epoch in mean.index})
    lines = [f"| category | configuration | {' | '.join(f'epoch {epoch}' for epoch in columns)} | score vs brightness |",
             "|" + "---|" * (len(columns) + 3)]
    for (category, label), (mean, correlation) in curves.items():
        cells = [f"{mean[epoch]:.3f}" if epoch in mean.index else "" for epoch in columns]
        lines.append(f"| {category} | {label} | {' | '.join(cells)} | {correlation:+.2f} |")
    return lines if curves else ["No configuration kept its epochs."]


def _cells(rows: pd.DataFrame) -> list[dict[str, str]]:
    """Every row's cells as text, by column title. A column that is empty for all rows is left out."""
    cells_of = []
    for row in rows.itertuples():
        values = row._asdict()
        cells_of.append({
            "Category": row.category, "Configuration": row.label, "Score": row.score if isinstance(row.score, str) else "",
            "AUROC, test": _with_spread(values, "") + (" ★" if row.with_best is True else ""),
            "AUROC, test good against train/bad": _with_spread(values, "bad_"), "Label-free AUROC": _number(row.label_free, "{:.3f}"),
            "False alarms": _rate(values, "false_alarms", "false_low", "false_high"),
            "Detections": _rate(values, "detections", "found_low", "found_high"),
            "Pixel AUROC": _number(row.pixel_auroc, "{:.3f}"), "Pixel AP": _number(row.pixel_ap, "{:.3f}"),
            "AU-PRO .30": _number(row.au_pro_30, "{:.3f}"), "AU-PRO .05": _number(row.au_pro_05, "{:.3f}"),
            "Seed claims": "" if math.isnan(row.claim_low) else f"{row.claim_low:.2f}-{row.claim_high:.2f}",
            "Claim": row.verdict if isinstance(row.verdict, str) else "", "Seed's published scores": _number(row.published, "{:.3f}"),
            "Seeds": _number(row.seeds, "{:.0f}"), "Epochs": _number(row.epochs, "{:.0f}") if row.epochs != 0 else "",
            "Training": _seconds(row.train_seconds), "Device": row.device if isinstance(row.device, str) else "",
            "Weights": row.weights if isinstance(row.weights, str) else "",
            "Status": row.status + (f": {row.reason}" if isinstance(row.reason, str) and row.reason else "")})
    used = [name for name in cells_of[0] if any(cells[name] for cells in cells_of)]
    return [{name: cells[name] for name in used} for cells in cells_of]


def _with_spread(row: dict[str, float], prefix: str) -> str:
    """'0.797 ± 0.012 [0.66, 0.94]'; empty where there is no value."""
    value, spread = row[f"{prefix}auroc"], row[f"{prefix}spread"]
    if math.isnan(value):
        return ""
    text = f"{value:.3f}" + ("" if math.isnan(spread) else f" ± {spread:.3f}")
    return f"{text} [{row[f'{prefix}low']:.2f}, {row[f'{prefix}high']:.2f}]"


def _rate(row: dict[str, float], value: str, low: str, high: str) -> str:
    return "" if math.isnan(row[value]) else f"{row[value]:.0%} [{row[low]:.0%}, {row[high]:.0%}]"


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)


def _seconds(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min"
