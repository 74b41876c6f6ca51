"""What the report's pages and JupyterLab show alike, one implementation each: the threshold, what
is missed, single images (gallery.py has more of those).

Data in, HTML out: the markup is in templates/components, the movement in its scripts.
"""
from __future__ import annotations

import math
import re
import typing
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from adlib.data.layout import some
from adlib.evaluation import operating_point
from adlib.evaluation.conformal import rate_interval
from adlib.report.display.render import render, script, style
from adlib.report.words import sentences
from adlib.report.words.data_sentences import data_source
from adlib.report.words.i18n import Text, join, t
from adlib.runs import overlays

if typing.TYPE_CHECKING:  # a page need not wait for torch
    from adlib.data.part import Part
    from adlib.evaluation.conformal import Threshold
    from adlib.evaluation.results import Results

RATES = (0.01, 0.02, 0.05, 0.1, 0.2)  # false-positive rates that one may ask for
BINS, HEIGHT = 72, 100  # of the histograms, each half of them; their width is 1000
HEAVY = 8  # tails: the middle half of the scores lies on less than one part in so many of the axis
VERDICTS = {  # (label, called anomalous): class, words
    (1, True): ("found", t("view.found")), (1, False): ("missed", t("view.missed")),
    (0, True): ("false-alarm", t("view.false_alarm")), (0, False): ("passed", t("view.passed")),
    (None, True): ("called", t("view.called_anomalous")),
    (None, False): ("let-pass", t("view.called_good"))}
PIXEL_METRICS = {"pixel_auroc": t("column.pixel_auroc"), "au_pro_30": Text("AU-PRO 0.30"),
                 "au_pro_05": Text("AU-PRO 0.05")}
Axis = typing.Callable[[np.ndarray], np.ndarray]  # scores -> places in [0,1]


def live(fragment: str) -> Markup:
    """A component with its style and its script, for JupyterLab, as often as one likes. The
    report's pages bring both themselves."""
    return styled(fragment) + render("script.html.j2", script=script())


def styled(fragment: str) -> Markup:
    """A component with its style, for what else renders an executed notebook than the report's
    pages, which leave it out (`unstyled`)."""
    return render("style.html.j2", style=style()) + fragment


def unstyled(html: str) -> str:
    return re.sub(r'<style class="adlib-style">.*?</style>', "", html, flags=re.DOTALL)


def figure(content: str, name: str, caption: str, data: str = "") -> Markup:
    """Anything with a number, a permalink and a caption.

    name: its id, in ASCII. data: the file of its numbers, beside the page.
    """
    return render("figure.html.j2", content=content, name=name, caption=caption, data=data)


# ---- a run's scores and its threshold

def threshold(table: pd.DataFrame, threshold: Threshold, name: str) -> Markup:
    """Both distributions of the score in use on the test split, the threshold decided without
    labels, to be dragged, and its confusion matrix; grey, the distributions of the reference score.
    Where the test split lacks labels of both classes, its images beside those that the threshold
    rests on.

    Args:
        table: Results.table.
        threshold: of the score in use; infinity where too few good images support one.
        name: code of the score.

    Returns:
        "" where there is neither such a test split nor a threshold.
    """
    test = table[table["split"] == "test"]
    test = test[test["label"].notna()] if test["label"].notna().any() else test
    labels, scores = test["label"].fillna(2).to_numpy(int), test["chosen_score"].to_numpy(float)
    sides = t("view.anomalous"), t("view.good")
    if not (judged := 0 < (labels == 1).sum() < len(labels)):
        if not threshold.is_attainable:
            return Markup("")
        words = "view.good_test", "view.anomalous", "view.unlabelled"
        sides = t(words[labels[0] if len(labels) else 0]), t("view.rests_on")
        scores = np.r_[scores, threshold.calibration]
        labels = np.repeat([1, 0], [len(test), len(threshold.calibration)])
    calibrated, best = threshold.is_attainable, operating_point.oracle(labels, scores)
    level = threshold.value
    rates = {rate: threshold.at(rate).value for rate in sorted({*RATES, threshold.target_fpr})}
    levels = np.unique([*operating_point.cuts(scores), level, *rates.values()])
    axes = [{"name": kind, "places": axis(np.clip(levels, scores.min(), scores.max())),
             "ticks": [undone(at) for at in (0, 0.25, 0.5, 0.75, 1)],
             "paths": _histograms(axis(scores), labels)}
            for kind, (axis, undone) in _axes(scores).items()]
    heavy = bool(np.ptp(scores) > HEAVY * np.ptp(np.quantile(scores, [0.25, 0.75])))
    reference = test["score"].to_numpy(float)
    grey = [] if not judged or np.array_equal(reference, scores) else _histograms(
        _axes(reference)["linear"][0](reference), labels)
    said = t("view.histograms_above_below", name=sentences.score(name), above=sides[0],
             n_above=int(labels.sum()), below=sides[1], n_below=int((labels == 0).sum()))
    return render(
        "threshold.html.j2", name=name, sides=sides, judged=judged, levels=levels, level=level,
        good=np.sort(scores[labels == 0]), anomalous=np.sort(scores[labels == 1]), axes=axes,
        grey=grey, said=said, label_free=threshold.value if calibrated else math.nan, oracle=best,
        calibrated=calibrated, target_fpr=threshold.target_fpr, score=sentences.score(name),
        height=2 * HEIGHT, start=int(np.searchsorted(levels, level)), heavy=heavy,
        rates=[(rate, value) for rate, value in rates.items() if math.isfinite(value)],
        counts=operating_point.counts(labels, scores, level))


def _axes(scores: np.ndarray) -> dict[str, tuple[Axis, typing.Callable[[float], float]]]:
    """{linear, squeezed: (scores -> places in [0,1], and back)}. The second lets far scores come
    near, by the inverse hyperbolic sine of the distance from the median in middle spreads."""
    low, high, middle = scores.min(), scores.max(), np.median(scores)
    spread = max(float(np.subtract(*np.quantile(scores, [0.75, 0.25]))), 1e-12)

    def scale(forth: Axis, back: Axis) -> tuple[Axis, typing.Callable[[float], float]]:
        start, span = forth(low), max(forth(high) - forth(low), 1e-12)
        return (lambda x: (forth(x) - start) / span), (lambda at: float(back(start + at * span)))

    return {"linear": scale(lambda x: x, lambda x: x),
            "squeezed": scale(lambda x: np.arcsinh((x - middle) / spread),
                              lambda y: middle + spread * np.sinh(y))}


def _histograms(places: np.ndarray, labels: np.ndarray) -> list[str]:
    """Histograms of places in [0,1] as SVG paths: anomalous images above the axis, good ones
    below."""
    counted = [np.histogram(places[labels == label], bins=BINS, range=(0, 1))[0]
               for label in (1, 0)]
    unit, step = HEIGHT / max(1, *(int(counts.max()) for counts in counted)), 1000 / BINS
    return ["".join(f"M{i * step:.1f} {HEIGHT}h{step - 2:.1f}v{sign * counts[i] * unit:.1f}"
                    f"h{2 - step:.1f}z" for i in np.flatnonzero(counts))
            for counts, sign in zip(counted, (-1, 1), strict=True)]


def verdicts(score: float, label: int | None, threshold: Threshold) -> list[tuple[str, Text, bool]]:
    """(class, words, does it hold) for a score above the threshold and one that is not; none holds
    where there is no threshold."""
    above = bool(threshold.exceeded(score))
    return [(*VERDICTS[label, called], threshold.is_attainable and called == above)
            for called in (True, False)]


def misses(results: Results) -> Markup:
    """By kind of defect and by size: how many are found at the threshold, by the reference score
    at its own too, and how well they are localized; "" without anomalous ones."""
    test = results.table[(results.table["split"] == "test") & (results.table["label"] == 1)]
    if test.empty:
        return Markup("")
    located = results.localization or {}
    measured = {row["group"]: row for row in located.get("groups", [])}
    if test["defect"].nunique() == 1 and "pixel_auroc" in located:  # of one kind: all of it
        measured[test["defect"].iloc[0]] = located
    other = not test["score"].equals(test["chosen_score"])
    rows = []
    for group, images in _groups(test, results.regions):
        n, found = len(images), int(images["chosen_prediction"].sum())
        low, high = rate_interval(found, n)
        rows.append({"group": sentences.group(group), "n": n, "found": found, "share": found / n,
                     "low": low, "high": high, "pixels": measured.get(group, {}),
                     "reference": images["prediction"].mean() if other else None})
    return render("misses.html.j2", rows=rows, metrics=PIXEL_METRICS if measured else {},
                  other=other)


def _groups(test: pd.DataFrame, regions: pd.DataFrame) -> typing.Iterator[tuple[str, pd.DataFrame]]:
    """The anomalous test images by defect, the most missed first, and by the size of their defect,
    named as results.locate names them."""
    by_defect = [(str(name), images) for name, images in test.groupby("defect", sort=True)]
    by_defect.sort(key=lambda pair: pair[1]["chosen_prediction"].mean())
    yield from by_defect
    if not regions.empty:
        areas = test["path"].map(regions.groupby("path")["share"].sum()).dropna()
        middle = areas.median()
        if (areas > middle).any():
            yield f"<={middle:.2%}", test.loc[areas.index[areas <= middle]]
            yield f">{middle:.2%}", test.loc[areas.index[areas > middle]]


# ---- single images and text

def strip(pictures: typing.Mapping[Text, np.ndarray], name: str, caption: str, *,
          boxes: typing.Mapping[str, tuple[float, ...]] | None = None,
          titled: bool = False) -> Markup:
    """Pictures of one image side by side.

    Args:
        pictures: {what it is: uint8 [h,w,3]}. name: of the image.
        boxes: {what: (left, top, width, height)} in percent: a box to draw into it.
        titled: say above each what it is.
    """
    shown = [(what, overlays.uri(picture), picture.shape[1], picture.shape[0],
              (boxes or {}).get(what)) for what, picture in pictures.items()]
    return render("strip.html.j2", pictures=shown, name=name, caption=caption, titled=titled)


def montage(rows: typing.Mapping[str, typing.Sequence[np.ndarray]]) -> Markup:
    """Some pictures of each kind, a row a kind. rows: {kind: [h,w,3] each, uint8 or in [0,1]}."""
    return flow(strip({f"{i + 1}": picture if picture.dtype == np.uint8
                       else (255 * picture).astype(np.uint8)
                       for i, picture in enumerate(pictures)}, kind, kind)
                for kind, pictures in rows.items())


def with_verdict(text: Text, score: float, label: int | None, threshold: Threshold) -> Markup:
    """A sentence with the verdict behind it."""
    return render("said.html.j2", text=text, verdicts=verdicts(score, label, threshold))


def label_or_none(label: typing.Any) -> int | None:
    """A label of a table: 0, 1, or None where it is empty."""
    return None if pd.isna(label) else int(label)


def flow(fragments: typing.Iterable[str]) -> Markup:
    """Fragments in rows, as many in each as there is room for."""
    return render("flow.html.j2", fragments=list(fragments))


def paragraph(text: str) -> Markup:
    return render("paragraph.html.j2", text=text)


def banner(part: Part) -> Markup:
    """What data a page is about; where it is synthetic, in a box that nobody can miss."""
    category = part.category
    counts = t("run.image_counts_with_train_bad" if category.train_bad else "run.image_counts",
               layout=category.layout, train=len(category.train), test=len(category.test),
               bad=len(category.train_bad))
    source = data_source(part.source, Path(category.root).resolve().name)
    left_out = [path.name for path in category.excluded]
    said = [t("run.category_category", category=category.name), source, counts]
    said += [t("run.excluded", n=len(left_out), names=some(left_out))] * bool(left_out)
    return render("banner.html.j2", synthetic=category.synthetic, text=join(said))
