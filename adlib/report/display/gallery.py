"""Many images at once, on the report's pages and in JupyterLab alike: every test image of a run, a
few of them to begin with, and any two runs beside each other."""
from __future__ import annotations

import collections
import math
import typing
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from adlib.evaluation.conformal import Threshold
from adlib.report import comparison
from adlib.report.display.components import VERDICTS, figure, label_or_none, verdicts
from adlib.report.display.render import render
from adlib.report.words import sentences
from adlib.report.words.i18n import Text, html, t
from adlib.runs import run_folder
from adlib.runs.image_layers import Shot

ORDERS = (("down", t("view.highest_score_first")), ("up", t("view.lowest_score_first")),
          ("near", t("view.nearest_threshold_first")))
FOREIGN = "foreign", t("verdict.foreign"), True  # whatever the score says; class, words, it holds
VIEWS = (("input", "1", t("view.input")), ("reconstruction", "2", t("view.reconstruction")),
         ("map", "3", t("view.anomaly_map")), ("over", "4", t("view.over")))


def with_scores(table: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """A split's rows of Results.table, numbered from 0; score and p_value are those of the score in
    use."""
    table = table[table["split"] == split].reset_index(drop=True)
    return table.assign(score=table["chosen_score"], p_value=table["chosen_p_value"],
                        defect=table["defect"].fillna(""))


def test_images(folder: Path) -> tuple[pd.DataFrame, Threshold]:
    """The test images of a finished run, `with_scores`, and its threshold."""
    return with_scores(comparison.read_results(folder)), Threshold.recorded(
        comparison.read_metrics(folder), run_folder.manifest(folder)["params"]["target_fpr"])


def gallery(rows: pd.DataFrame, shots: typing.Sequence[Shot], threshold: Threshold, name: str,
            *, ids: bool = False) -> Markup:
    """Every one of some images under its map, the highest score first.

    Args:
        rows: `with_scores`, a row an image; a `verdict` of their own where these are no images of
            the study. shots: the same images.
        threshold, name: of the score in use.
        ids: on a page, each has a permalink.
    """
    order = np.argsort(-rows["score"].to_numpy(float), kind="stable")
    tiles = [tile(rows.iloc[i], shots[i], threshold) for i in order]
    held = collections.Counter(kind for tile in tiles for kind, _, holds in tile["verdicts"]
                               if holds)
    labels = set(map(label_or_none, rows["label"])) if held.keys() - {"foreign"} else set()
    shows = [("", t("view.all"), len(tiles)), *(
        (kind, words, held[kind]) for (label, _), (kind, words) in VERDICTS.items()
        if label in labels)]
    shows += [("foreign", FOREIGN[1], held["foreign"])] * ("foreign" in held)
    counted = collections.Counter(tile["defect"] for tile in tiles if tile["defect"])
    defects = [("", t("view.all"), len(tiles)), *(
        (defect, sentences.defect(defect), n) for defect, n in sorted(counted.items()))]
    views = [view for view in VIEWS
             if view[0] != "reconstruction" or any(shot.reconstruction for shot in shots)]
    return render("gallery.html.j2", name=name, tiles=tiles, shows=shows, defects=defects, ids=ids,
                  orders=ORDERS, views=views, truth=any(shot.ticks for shot in shots),
                  level=threshold.value if threshold.is_attainable else math.nan)


def counted(rows: pd.DataFrame, threshold: Threshold) -> Text:
    """How many images there are, and what became of them, as the gallery, the matrix and the title
    of a page count them."""
    held = collections.Counter(kind for row in rows.itertuples() for kind, _, holds in verdicts(
        row.score, label_or_none(row.label), threshold) if holds)
    counts = [t("list.n_of", n=held[kind], what=words) for kind, words in VERDICTS.values()
              if held[kind]]
    return sentences.all_images(len(rows), counts)


def select_informative(rows: pd.DataFrame, threshold: Threshold) -> dict[int, Text]:
    """{place in rows: why it is shown}, up to three: the highest score that is found, the lowest
    that is missed and the highest of a good image; without labels the highest and the lowest."""
    decided = threshold.is_attainable
    above = threshold.exceeded(rows["score"].to_numpy(float)) | (not decided)
    labels, scores = rows["label"].fillna(-1).to_numpy(int), rows["score"].to_numpy(float)
    high, low = (("view.highest_found", "view.lowest_found") if decided else
                 ("view.highest_anomalous", "view.lowest_anomalous"))
    picked: dict[int, Text] = {}
    for these, sign, why in (((labels == 1) & above, 1, high),
                             ((labels == 1) & ~above, -1, "view.lowest_missed"),
                             (labels == 0, 1, "view.highest_good"),
                             ((labels == 1) & above, -1, low),
                             (labels == -1, 1, "view.highest_score"),
                             (labels == -1, -1, "view.lowest_score")):
        places = [i for i in np.flatnonzero(these) if i not in picked]
        if places and len(picked) < 3:
            picked[max(places, key=lambda i: sign * scores[i])] = t(why)
    return picked


def examples(rows: pd.DataFrame, shots: typing.Sequence[Shot], threshold: Threshold,
             whys: typing.Sequence[str]) -> Markup:
    """A few images, large, and why each is shown (`select_informative`)."""
    tiles = [tile(rows.iloc[i], shots[i], threshold) | {"why": why} for i, why in enumerate(whys)]
    return render("examples.html.j2", tiles=tiles, truth=any(shot.ticks for shot in shots))


def tile(row: pd.Series, shot: Shot, threshold: Threshold) -> dict[str, typing.Any]:
    """What the templates show of an image, a row of `with_scores`, whose index is its number."""
    file, words = row["path"].rsplit("/", 1)[-1], sentences.defect(row["defect"])
    of_score = verdicts(row["score"], label_or_none(row["label"]), threshold)
    return {"file": file, "defect": row["defect"], "words": words, "score": row["score"],
            "p_value": row["p_value"], "shot": shot, "number": row.name,
            "alt": t("view.under_its_map", defect=words, file=file),
            "verdicts": [FOREIGN] if row.get("verdict") == "foreign" else of_score}


# ---- two runs


class Compared(typing.NamedTuple):
    """A run among others of its category."""

    name: str  # of the configuration, and its seed
    score: str  # code of the score in use
    rows: pd.DataFrame  # with_scores
    threshold: Threshold
    shots: typing.Mapping[str, Shot]  # by path


def compare(runs: typing.Sequence[Compared]) -> Markup:
    """Any two of some runs on the images that all of them saw, the ones that the first two rank
    most differently first; "" where fewer than two runs have pictures of the same images."""
    runs = [run for run in runs if run.shots]
    common = [path for path in (runs[0].rows["path"] if runs else ())
              if all(path in run.shots for run in runs)]
    if len(runs) < 2 or not common:
        return Markup("")
    told = [_of_run(run, run.rows.set_index("path").loc[common]) for run in runs]
    first, data = runs[0], runs[0].rows.set_index("path").loc[common]
    images = [{"name": f"{row.defect} {row.Index}".strip(), "input": first.shots[row.Index].input,
               "ticks": first.shots[row.Index].ticks, "kind": {1: "bad", 0: "good"}.get(
                   label_or_none(row.label), "none"),
               "ratio": f"{first.shots[row.Index].width}/{first.shots[row.Index].height}"}
              for row in data.itertuples()]
    words = {kind: html(text) for kind, text in VERDICTS.values()}
    shown = render("compare.html.j2", runs=told, images=images, verdicts=words,
                   truth=any(image["ticks"] for image in images))
    return figure(shown, "two-runs", t("compare.caption", n=len(images), runs=len(runs)),
                  "scores.csv")


def _of_run(run: Compared, rows: pd.DataFrame) -> dict[str, typing.Any]:
    """What the comparison needs of a run: scores as places in [0,1] by their ranks, so that any
    two runs share one scale, and the threshold among them."""
    scores, level = rows["score"].to_numpy(float), run.threshold.value
    places = (rows["score"].rank().to_numpy() - 0.5) / len(rows)
    return {"name": run.name, "html": html(run.name), "score": html(sentences.score(run.score)),
            "places": places.round(4).tolist(),
            "line": float((scores <= level).mean()) if run.threshold.is_attainable else None,
            "called": run.threshold.exceeded(scores).tolist(),
            "values": [f"{score:.4g}" for score in scores],
            "heat": [run.shots[path].heat for path in rows.index],
            "level": [run.shots[path].level for path in rows.index]}
