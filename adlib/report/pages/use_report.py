"""The report of use: a page from a folder of predictions, without the run."""
from __future__ import annotations

import math
import typing
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from adlib.config import InputError
from adlib.data import files
from adlib.evaluation.conditions import MEASURED
from adlib.report.display import charts, components
from adlib.report.display.render import render
from adlib.report.pages import site
from adlib.report.words import use_sentences
from adlib.report.words.i18n import Text, join, named, t

MOST = 24  # pictures shown of a kind
POINTS = 2000  # of a curve, at the most: of more, evenly taken ones
VERDICTS = ("good", "anomalous", "foreign", "")


def build(folder: Path, language: str = "") -> Path:
    """index.html in a folder of predictions; its path.

    Raises:
        InputError: where the folder holds no predictions, or those of an older version.
    """
    about, path = folder / "predictions.json", folder / "predictions.csv"
    if not (about.is_file() and path.is_file()):
        raise InputError(f"{folder} holds no predictions; give the --out of an adlib predict")
    said, rows = files.read_json(about), pd.read_csv(path, dtype=str, keep_default_na=False)
    if not {"verdict", "foreign_p_value", *MEASURED} <= set(rows):
        raise InputError(f"{path} is of an older version; predict again into another --out")
    for name in ("score", "p_value", *MEASURED):
        rows[name] = pd.to_numeric(rows[name])
    # as the terminal counts them: what could be read later is not unreadable
    rows = rows[(rows["problem"] == "") | ~rows.duplicated("path", keep="last")]
    scored = rows[rows["problem"] == ""].reset_index(drop=True)
    noted = folder / "conditions.json"
    conditions = files.read_json(noted) if noted.is_file() else {}
    sections = [("summary", t("use.summary"), [components.paragraph(_summary(rows, said)),
                                               components.paragraph(
                                                   _changed(conditions, scored["verdict"]))]),
                ("days", t("use.days"), [_days(rows)])]
    if len(scored):
        sections += [("scores", t("use.scores"), [_scores(scored, said["threshold"])]),
                     ("drift", t("use.drift"), [_drift(scored, conditions)]),
                     ("most-anomalous", t("use.most_anomalous"), [_pictures(
                         scored.sort_values("score", ascending=False, kind="stable"))])]
    foreign = scored[scored["verdict"] == "foreign"]
    if len(foreign):
        sections.append(("foreign", t("use.foreign"), [_pictures(foreign)]))
    return site.alone(folder, t("use.title", category=said["category"],
                                configuration=said["configuration"]), sections,
                      synthetic=False, language=language,
                      command=["adlib", "report", "--use", str(folder)])


def _summary(rows: pd.DataFrame, said: dict[str, typing.Any]) -> Text:
    unread = int((rows["problem"] != "").sum())
    counts = rows.loc[rows["problem"] == "", "verdict"].value_counts()
    kinds = join((t("list.n_of", n=int(counts[name]), what=named("verdict", name or "none"))
                  for name in VERDICTS if name in counts), ", ")
    told = t("use.counts", n=len(rows), kinds=kinds or t("data.none"), unread=unread)
    if said["threshold"] is None:
        return join([told, t("use.no_threshold")])
    return join([told, t("use.threshold", value=said["threshold"], rate=(
        f"{100 * said['target_fpr']:.3g} %"), n=said["calibration_images"])])


def _changed(conditions: dict[str, typing.Any], verdicts: pd.Series) -> Text:
    if not conditions:
        return t("use.not_compared")
    if not (change := conditions["change"]):
        return t("use.as_before", n=conditions["pictures"], evidence=conditions["evidence"],
                 needed=conditions["needed"])
    return use_sentences.changed(change, int(verdicts.isin(use_sentences.REFUSED).sum()),
                                 len(verdicts))


def _days(rows: pd.DataFrame) -> Markup:
    """Verdicts by day (UTC), a row each."""
    kinds = rows["verdict"].where(rows["problem"] == "", "unread")
    table = pd.crosstab(rows["time"].str[:10], kinds)
    shown = [name for name in (*VERDICTS, "unread") if name in table]
    return render("table.html.j2", caption=t("use.days"), numeric=[False, *[True] * len(shown)],
                  titles=[t("use.day"), *(
                      t("use.foreign_column") if name == "foreign" else
                      named("verdict", name or "none") for name in shown)],
                  rows=[[day, *(str(table.loc[day, name]) for name in shown)]
                        for day in table.index])


def _scores(rows: pd.DataFrame, threshold: float | None) -> Markup:
    """Scores in the order in which pictures came, and the threshold."""
    values = rows["score"].to_numpy()
    levels = [*values, *([] if threshold is None else [threshold])]
    return _panel({t("use.scores"): values}, min(levels), max(levels),
                  t("use.scores_caption"), "scores", threshold)


def _drift(rows: pd.DataFrame, conditions: dict[str, typing.Any]) -> Markup:
    """What is measured of the pictures, in deviations of the good training pictures where these are
    known, else of their own."""
    usual, panels = conditions.get("usual", {}), {}
    for name in MEASURED:
        values = rows[name].to_numpy()
        if np.isfinite(values).all():
            middle, spread = usual.get(name) or (np.median(values), np.std(values))
            panels[named("measured", name)] = ((values - middle) / max(spread, 1e-9)).clip(-10, 10)
    evidence = conditions.get("course") or []
    drawn = _panel(panels, -10, 10, t("use.drift_caption" if usual else "use.drift_own_caption"),
                   "drift", 0) if panels else Markup("")
    if not evidence:
        return drawn
    level = math.log10(conditions["needed"])
    top = max(level, *evidence, 1.0)
    return drawn + _panel({t("use.evidence"): np.array(evidence)}, min(0.0, *evidence), top,
                          t("use.evidence_caption", needed=conditions["needed"], level=level),
                          "evidence", level)


def _panel(curves: dict[Text, np.ndarray], low: float, high: float, caption: Text, name: str,
           level: float | None) -> Markup:
    n = max(2, *map(len, curves.values()))
    high = high if high > low else low + 1
    places = np.unique(np.linspace(0, n - 1, min(n, POINTS)).astype(int))
    lines = {title: [("c0", "line", [(int(i) + 1, float(values[i])) for i in places
                                     if i < len(values)])] for title, values in curves.items()}
    return charts.panels(lines, [], (t("use.picture"), 1, n, (1, n)),
                         (Text(""), low, high, (float(f"{low:.3g}"), float(f"{high:.3g}"))),
                         caption, name, data="predictions.csv", level=level)


def _pictures(rows: pd.DataFrame) -> Markup:
    """Overlays, each with its name, its score and its p-value."""
    shown = rows[rows["overlay"] != ""].head(MOST)
    return render("use.html.j2", rows=[
        {"overlay": row.overlay, "name": Path(row.path).name, "time": row.time[:16],
         "said": t("use.score", score=row.score, p_value=row.p_value)}
        for row in shown.itertuples()])
