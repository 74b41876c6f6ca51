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
from adlib.report.comparison import label
from adlib.report.display import charts, components
from adlib.report.display.render import render
from adlib.report.pages import site
from adlib.report.words import use_sentences
from adlib.report.words.i18n import Text, join, named, t

LEAST, MOST = 6, 24  # pictures shown of a kind; the fewest of the highest scores
POINTS = 2000  # of a curve, at the most: of more, evenly taken ones
VERDICTS = ("good", "anomalous", "foreign", "")
COLUMNS = {"foreign": "use.foreign_column", "": "use.none_column", "unread": "use.unread_column"}


def build(folder: Path, language: str = "") -> Path:
    """index.html in a folder of predictions; its path.

    Raises:
        InputError: where the folder holds no predictions, or those of an older version.
    """
    about, path = folder / "predictions.json", folder / "predictions.csv"
    if not (about.is_file() and path.is_file()):
        raise InputError(f"{folder} holds no predictions; give the --out of an adlib predict")
    said, advice = files.read_json(about), "predict again into another --out"
    with files.saying(f"{path} cannot be read", advice):
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    if not {"verdict", "foreign_p_value", *MEASURED} <= set(rows):
        raise InputError(f"{path} is of an older version; {advice}")
    needed = {"category", "configuration", "threshold", "target_fpr", "calibration_images"}
    if not isinstance(said, dict) or needed - said.keys():
        raise InputError(f"{about} is damaged or of an older version; {advice}")
    with files.saying(f"{path} cannot be read", advice):
        for name in ("score", "p_value", *MEASURED):
            rows[name] = pd.to_numeric(rows[name])
    # as the terminal counts them: what could be read later is not unreadable
    rows = rows[(rows["problem"] == "") | ~rows.duplicated("path", keep="last")]
    scored = rows[rows["problem"] == ""].reset_index(drop=True)
    noted = folder / "conditions.json"
    conditions = files.read_json(noted) if noted.is_file() else {}
    sections = [("summary", t("use.summary"), [components.paragraph(_summary(rows, said)),
                                               components.paragraph(
                                                   _changed(conditions, [*scored["verdict"]]))]),
                ("days", t("use.days"), [_days(rows)])]
    foreign, others = (scored[is_foreign & (scored["overlay"] != "")] for is_foreign in (
        scored["verdict"] == "foreign", scored["verdict"] != "foreign"))
    high = others.sort_values("score", ascending=False, kind="stable").head(
        max(LEAST, int((others["verdict"] == "anomalous").sum())))
    sections += [(name, t(title), [_pictures(some.head(MOST), name, caption)])
                 for name, title, caption, some in (
                     ("most-anomalous", "use.most_anomalous", "use.most_anomalous_caption", high),
                     ("foreign", "use.foreign", "use.foreign_caption", foreign)) if len(some)]
    if len(scored):
        sections += [("scores", t("use.scores"), [_scores(scored, said["threshold"])]),
                     ("drift", t("use.drift"), [_drift(scored, conditions)])]
    return site.standalone_page(folder, t("use.title", category=said["category"],
                                         configuration=label(said["configuration"])), sections,
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
    told = join([told, t("use.threshold", value=said["threshold"], rate=(
        f"{100 * said['target_fpr']:.3g}%"), n=said["calibration_images"])])
    before = said.get("recalibrated")
    return join([told, t("use.recalibrated", n=said["calibration_images"], **before)]
                ) if before else told


def _changed(conditions: dict[str, typing.Any], verdicts: list[str]) -> Text:
    if not conditions:
        return t("use.not_compared")
    if not (change := conditions["change"]):
        return t("use.as_before", n=conditions["pictures"], evidence=conditions["evidence"],
                 needed=conditions["needed"])
    return use_sentences.changed(change, verdicts[change["since"] - 1:change["noticed"]])


def _days(rows: pd.DataFrame) -> Markup:
    """Verdicts by day (UTC), a row each."""
    kinds = rows["verdict"].where(rows["problem"] == "", "unread")
    table = pd.crosstab(rows["time"].str[:10], kinds)
    shown = [name for name in (*VERDICTS, "unread") if name in table]
    return render("table.html.j2", caption=t("use.days"), numeric=[False, *[True] * len(shown)],
                  titles=[t("use.day"), *(
                      t(COLUMNS[name]) if name in COLUMNS else named("verdict", name)
                      for name in shown)],
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


def _pictures(rows: pd.DataFrame, name: str, caption: str) -> Markup:
    """Overlays, each with its verdict, name, score and p-value, as a figure. caption: its key."""
    shown = render("use.html.j2", rows=[
        {"overlay": row.overlay, "name": use_sentences.picture(row.path),
         "time": use_sentences.minute(row.time),
         "verdict": named("verdict", row.verdict or "none"),
         "said": t("use.score" if row.p_value == row.p_value else "use.score_alone",
                   score=row.score, p_value=row.p_value)}
        for row in rows.itertuples()])
    return components.figure(shown, name, t(caption, n=len(rows)), "predictions.csv")
