"""How small, how faint, how noisy: the limits of all configurations side by side, read from reports/limits alone."""
from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from adlib import compare, corrupt, notes
from adlib.lang import Text, join, t

STRENGTH = 3  # of the disturbances in the table: clearly visible, and still a camera one would use


def robustness(reports: Path) -> dict[tuple[str, str], pd.DataFrame]:
    """{(category, label): limits.robustness} of every configuration that was taken to its limits."""
    tables = {tuple(folder.parts[-2:]): folder / "robustness.csv" for folder in _finished(reports)}
    found = {(category, compare.label(name)): pd.read_csv(path) for (category, name), path in tables.items() if path.is_file()}
    return {key: one for key, one in found.items() if len(one)}


def robustness_table(tables: dict[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """AUROC as they are and at strength 3 of every disturbance; the last column is the false alarms there, at the fixed threshold."""
    found = []
    for (category, label), table in tables.items():
        at, clean = table[table["strength"] == STRENGTH], table.loc[table["strength"] == 0, "auroc"].iloc[0]
        found.append({"Category": category, "Configuration": label, "As they are": f"{clean:.3f}"}
                     | {row.disturbance: f"{row.auroc:.3f}" for row in at.itertuples()}
                     | {"False alarms, mean": "no threshold" if at["false_alarms"].isna().any() else f"{at['false_alarms'].mean():.0%}"})
    return pd.DataFrame(found)


def robustness_sentence(tables: dict[tuple[str, str], pd.DataFrame]) -> Text:
    if not tables:
        return t("Not asked here: no configuration of the grid is in its `limits:`.")
    found = []
    for (category, label), table in tables.items():
        at = table[table["strength"] == STRENGTH]
        worst, clean = at.loc[at["auroc"].idxmin()], table.loc[table["strength"] == 0, "auroc"].iloc[0]
        found.append(t("{category} {label} {clean:.3f} to {disturbed:.3f} ({what})", category=category, label=label, clean=clean,
                       disturbed=worst["auroc"], what=corrupt.describe(worst["disturbance"], STRENGTH)))
    return t("AUROC as they are, and under the worst disturbance of strength {strength}: {found}.", strength=STRENGTH,
             found=join(found, ", "))


def smallest(reports: Path) -> pd.DataFrame:
    """Where each defect is found, of every configuration that was taken to its limits on drawn data."""
    found = []
    for folder in _finished(reports):
        path = folder / "smallest.csv"
        table = pd.read_csv(path) if path.is_file() else pd.DataFrame()
        found += [{"Category": folder.parts[-2], "Configuration": compare.label(folder.name), "Defect": row.defect,
                   "Found half the time at": _percent(row.area50, row.smallest),
                   "Found 95 % of the time at": _percent(row.area95, row.smallest),
                   "Largest drawn": _percent(row.largest, 0), "Share found at real size": f"{row.found_at_real_size:.0%}",
                   "Contrast for 95 %": _contrast(row.contrast95, row.faintest)}
                  for row in table.itertuples()]
    return pd.DataFrame(found)


def robustness_caption() -> Text:
    """What the columns of robustness_table are."""
    columns = [t("{name}: {what}", name=name, what=corrupt.describe(name, STRENGTH)) for name in corrupt.CORRUPTIONS]
    return t("AUROC under disturbances of strength {strength} of 5, and the false alarms at the fixed threshold. {columns}.",
             strength=STRENGTH, columns=join(columns, "; "))


def _finished(reports: Path) -> list[Path]:
    return [folder for folder in notes.limits(reports) if not notes.failure(folder / "limits.json")]


def _percent(value: float, smallest: float) -> str:
    return _reached(value, smallest, f"{100 * value:.2g} %", f"{100 * smallest:.2g} %")


def _contrast(value: float, faintest: float) -> str:
    return _reached(value, faintest, f"{value:.2f}", f"{faintest:.2f}")


def _reached(value: float, least: float, words: str, least_words: str) -> str:
    return t("not reached") if math.isnan(value) else words if value > least else t("{least} or less", least=least_words)
