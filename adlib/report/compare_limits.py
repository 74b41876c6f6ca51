"""How small, how faint, how noisy: the limits of all configurations side by side, read from
reports/limits alone."""
from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from adlib.data import corruptions
from adlib.report import comparison, data_sentences
from adlib.report.i18n import Text, join, t
from adlib.runs import freshness

STRENGTH = 3  # of the disturbances in the table: clearly visible, and still a camera one would use


def robustness(reports: Path) -> dict[tuple[str, str], pd.DataFrame]:
    """{(category, label): limits.robustness} of every configuration that was taken to its limits.
    """
    tables = {tuple(folder.parts[-2:]): folder / "robustness.csv" for folder in _finished(reports)}
    found = {(category, comparison.label(name)): pd.read_csv(path)
             for (category, name), path in tables.items() if path.is_file()}
    return {key: one for key, one in found.items() if len(one)}


def robustness_table(tables: dict[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """AUROC as they are and at strength 3 of every disturbance; the last column is the false alarms
    there, at the fixed threshold."""
    found = []
    for (category, label), table in tables.items():
        at, clean = table[table["strength"] == STRENGTH], table.loc[table["strength"] == 0,
                                                                    "auroc"].iloc[0]
        found.append({"Category": category, "Configuration": label, "As they are": f"{clean:.3f}"}
                     | {row.disturbance: f"{row.auroc:.3f}"
                        for row in at.itertuples()}
                     | {
                         "False alarms, mean": "no threshold" if at["false_positives"].isna().any(
                         ) else f"{at['false_positives'].mean():.0%}"
                     })
    return pd.DataFrame(found)


def robustness_sentence(tables: dict[tuple[str, str], pd.DataFrame]) -> Text:
    if not tables:
        return t("limits.not_asked_here_no_configuration")
    found = []
    for (category, label), table in tables.items():
        at = table[table["strength"] == STRENGTH]
        worst, clean = at.loc[at["auroc"].idxmin()], table.loc[table["strength"] == 0,
                                                               "auroc"].iloc[0]
        found.append(
            t("limits.category_label_clean_f_disturbed", category=category, label=label,
              clean=clean, disturbed=worst["auroc"], what=data_sentences.corruption(
                  worst["disturbance"], STRENGTH)))
    return t("limits.auroc_they_under_worst_disturbance", strength=STRENGTH, found=join(
        found, ", "))


def smallest(reports: Path) -> pd.DataFrame:
    """Where each defect is found, of every configuration that was taken to its limits on drawn
    data."""
    found = []
    for folder in _finished(reports):
        path = folder / "smallest.csv"
        table = pd.read_csv(path) if path.is_file() else pd.DataFrame()
        found += [{
            "Category": folder.parts[-2], "Configuration": comparison.label(
                folder.name), "Defect": row.defect, "Found half the time at": _percent(
                    row.area50, row.smallest), "Found 95 % of the time at": _percent(
                        row.area95, row.smallest), "Largest drawn": _percent(row.largest, 0),
            "Share found at real size": f"{row.found_at_real_size:.0%}",
            "Contrast for 95 %": _contrast(row.contrast95, row.faintest)
        } for row in table.itertuples()]
    return pd.DataFrame(found)


def robustness_caption() -> Text:
    """What the columns of robustness_table are."""
    columns = [
        t("limits.name", name=name, what=data_sentences.corruption(name, STRENGTH))
        for name in corruptions.CORRUPTIONS
    ]
    return t("limits.auroc_under_disturbances_strength_strength", strength=STRENGTH, columns=join(
        columns, "; "))


def _finished(reports: Path) -> list[Path]:
    return [
        folder for folder in freshness.limits(reports)
        if not freshness.failure(folder / "limits.json")
    ]


def _percent(value: float, smallest: float) -> str:
    return _reached(value, smallest, f"{100 * value:.2g} %", f"{100 * smallest:.2g} %")


def _contrast(value: float, faintest: float) -> str:
    return _reached(value, faintest, f"{value:.2f}", f"{faintest:.2f}")


def _reached(value: float, least: float, words: str, least_words: str) -> str:
    return t("limits.not_reached") if math.isnan(value) else words if value > least else t(
        "limits.least_less", least=least_words)
