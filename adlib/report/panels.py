"""The threshold and the gallery of a run as HTML: static in a notebook, and what
templates/study/page.js brings to life in the report.

Pure: tables and pictures in, HTML out, in both languages, with no style that a notebook would not
have.
"""
from __future__ import annotations

import math
import typing
from html import escape

import numpy as np
import pandas as pd

from adlib.evaluation import evaluate, verdicts
from adlib.report.i18n import Text, t
from adlib.report.i18n import html as both

WIDTH, HEIGHT, BINS = 720, 190, 72
TILE = 108  # pixels a side of a picture in the gallery
RATES = (0.01, 0.02, 0.05, 0.1, 0.2)  # false-alarm rates that one may ask for
VERDICTS = {  # (label, called anomalous): class, words
    (1, True): ("found", t("view.found")),
    (1, False): ("missed", t("view.missed")), (0, True): ("false-alarm", t("view.false_alarm")),
    (0, False): ("passed", t("view.passed")), (None, True): ("called", t("view.called_anomalous")),
    (None, False): ("let-pass", t("view.called_good"))
}


def threshold(results: pd.DataFrame, rate: float, name: str) -> str:
    """Both distributions of the chosen score on the test split, the label-free threshold, and its
    confusion matrix.

    results: evaluate.results. rate: the asked false-alarm rate. name: of the score. "" where the
    test split has no labels of both classes.
    """
    labels, scores = evaluate.arrays(results, "test", "chosen_score")
    if not 0 < labels.sum() < len(labels):
        return ""
    now, best = verdicts.asked(results, rate, "chosen_"), verdicts.oracle(results, "chosen_")
    asked = {share: verdicts.asked(results, share, "chosen_") for share in sorted({*RATES, rate})}
    start = best if math.isnan(now) else now
    values = {
        "good": _numbers(scores[labels == 0]), "anomalous": _numbers(scores[labels == 1]),
        "label-free": _number(now), "oracle": _number(best)
    }
    data = "".join(f' data-{key}="{value}"' for key, value in values.items())
    options = "".join(
        f'<option value="{_number(value)}"{" selected" if share == rate else ""}>{100 * share:.3g}%</option>'
        for share, value in asked.items() if math.isfinite(value))
    choice = f'<label>{both(t("view.asked_false_alarm_rate"))} <select><option value="">–</option>{options}</select></label>' if options else ""
    jump = "" if math.isnan(
        now
    ) else f'<button type="button" data-to="label-free">{both(t("view.label_free_threshold"))}</button>'
    return (f'<div class="threshold"{data}>{distributions(labels, scores, start, name)}'
            f'<div class="controls" hidden><label class="slide">{both(t("view.threshold"))} <input '
            f'type="range" min="0" step="1"></label>'
            f'<output></output>{jump}{choice}<button type="button" '
            f'data-to="oracle">{both(t("view.best_f1_uses_labels"))}</button></div>'
            f'{confusion(verdicts.counts(labels, scores, start))}</div>')


def distributions(labels: np.ndarray, scores: np.ndarray, level: float, name: str) -> str:
    """An SVG of two histograms on one axis, anomalous images above it and good ones below, and a
    line at the threshold `level`.

    labels [N] of 0 and 1, scores [N]. An infinite level lies at the right edge.
    """
    low, high = float(scores.min()), float(scores.max())
    span, middle, left, right = max(high - low, 1e-12), HEIGHT / 2 - 8, 12, WIDTH - 12

    def x(score: float) -> float:
        return left + (right - left) * (min(max(score, low), high) - low) / span

    counted = [
        np.histogram(scores[labels == label], bins=BINS, range=(low, low + span))[0]
        for label in (1, 0)
    ]
    unit = (middle - 22) / max(1, *(int(part.max()) for part in counted))
    bars = []
    for part, sign, colour in zip(counted, (-1, 1), ("var(--bad, #c8553d)", "var(--good, #2f6690)"),
                                  strict=True):
        for place in np.flatnonzero(part):
            tall, width = part[place] * unit, (right - left) / BINS
            bars.append(f'<rect x="{left + place * width:.1f}" '
                        f'y="{middle - tall if sign < 0 else middle:.1f}" width="{width - 1:.1f}" '
                        f'height="{tall:.1f}" fill="{colour}"/>')
    marks = [
        f'<text x="{x(value):.1f}" y="{HEIGHT - 4}" text-anchor="{anchor}">{value:.4g}</text>'
        for value, anchor in ((low, "start"), (low + span / 2, "middle"), (high, "end"))
    ]
    said = t("view.histograms_name_over_test_images", name=name, bad=int(labels.sum()), good=int(
        (labels == 0).sum()))
    words = _svg_text(t("view.anomalous"), left, 14, "var(--bad, #c8553d)") + _svg_text(
        t("view.good"), left, HEIGHT - 22, "var(--good, #2f6690)")
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" '
        f'aria-label="{escape(said)}" '
        f'data-aria-zh="{escape(said.zh)}" data-low="{low:.9g}" data-high="{high:.9g}" '
        f'data-left="{left}" data-right="{right}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="currentColor" '
        f'style="max-width:100%;height:auto">{"".join(bars)}'
        f'<line x1="{left}" x2="{right}" y1="{middle}" y2="{middle}" '
        f'stroke="currentColor"/>{"".join(marks)}{words}'
        f'<g class="line" transform="translate({x(level):.1f} 0)"><line y1="4" y2="{HEIGHT - 18}" '
        f'stroke="currentColor" '
        'stroke-width="2" stroke-dasharray="5 3"/></g></svg>')


def confusion(counts: verdicts.Counts) -> str:
    """The confusion matrix as a table, precision, recall and false-alarm rate below it."""
    head = "<td></td>" + "".join(f'<th scope="col">{both(text)}</th>'
                                 for text in (t("view.called_anomalous"), t("view.called_good")))
    rows = "".join(f'<tr><th scope="row">{both(text)}</th>' +
                   "".join(f'<td data-count="{key}">{getattr(counts, key)}</td>'
                           for key in keys) + "</tr>"
                   for text, keys in ((t("view.anomalous"), ("found", "missed")),
                                      (t("view.good"), ("false_positives", "passed"))))
    rates = "".join(
        f'<div><dt>{both(text)}</dt><dd '
        f'data-rate="{key}">{percent(getattr(counts, key))}</dd></div>'
        for text, key in ((t("view.precision"), "precision"), (t("view.recall_detections"),
                                                               "recall"), (t("view.fpr"), "fpr")))
    return (
        f'<table class="confusion"><caption>{both(t("view.test_images_threshold"))}</caption><thead><tr>{head}</tr></thead>'
        f'<tbody>{rows}</tbody></table><dl class="rates">{rates}</dl>')


def gallery(rows: pd.DataFrame, tiles: typing.Sequence[dict[Text, str]], level: float, name: str,
            total: int) -> str:
    """Images of a run with their maps, the highest score first. A row an image: path, label (empty:
    unknown), defect, score, p_value.

    tiles: for each row {what it is: data URI}. level: the threshold that verdicts are given at; NaN
    gives none. total: how many test images there are, of which these are shown.
    """
    order = np.argsort(-rows["score"].to_numpy(float), kind="stable")
    items = "".join(_tile(rows.iloc[i], tiles[i], level) for i in order)
    shown = t("view.all_n_test_images_highest", n=total, name=name) if len(rows) == total else t(
        "view.shown_n_test_images_highest", shown=len(rows), n=total, name=name)
    show = _select(t("view.show"), "show",
                   [("", t("view.all")), *dict(VERDICTS[key]
                                               for key in VERDICTS if key[0] is not None).items()])
    sort = _select(t("view.order"), "order", [("down", t("view.highest_score_first")),
                                              ("up", t("view.lowest_score_first")),
                                              ("near", t("view.nearest_threshold_first"))])
    return (
        f'<div class="gallery"><p>{both(shown)}</p><div class="controls" '
        f'hidden>{show}{sort}<output></output></div>'
        f'<ul class="tiles" '
        f'style="display:flex;flex-wrap:wrap;gap:12px;list-style:none;padding:0">{items}</ul></div>'
    )


def percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.0%}"


def _tile(row: pd.Series, pictures: dict[Text, str], level: float) -> str:
    label = None if pd.isna(row["label"]) else int(row["label"])
    kind, verdict = ("", Text("")) if math.isnan(level) else VERDICTS[label,
                                                                      bool(row["score"] >= level)]
    what, file = escape(row["defect"] or "?"), escape(row["path"].rsplit("/", 1)[-1])
    images = "".join(f'<img src="{uri}" alt="{escape(f"{row.path}: {said}")}" '
                     f'data-alt-zh="{escape(row.path + "：" + said.zh)}" '
                     f'width="{TILE}" height="{TILE}" loading="lazy">'
                     for said, uri in pictures.items())
    p_value = "" if math.isnan(row["p_value"]) else f' · p {row["p_value"]:.2g}'
    return (f'<li data-score="{row["score"]:.9g}" '
            f'data-label="{"" if label is None else label}"><figure style="margin:0">{images}'
            f'<figcaption><strong>{what}</strong> {file}<br>{row["score"]:.4g}{p_value} <span '
            f'class="verdict {kind}">{both(verdict)}</span>'
            "</figcaption></figure></li>")


def _select(text: Text, key: str, options: typing.Iterable[tuple[str, Text]]) -> str:
    # An option holds no markup: page.js swaps its text.
    inner = "".join(f'<option value="{value}" data-zh="{escape(words.zh)}">{escape(words)}</option>'
                    for value, words in options)
    return f'<label>{both(text)} <select data-key="{key}">{inner}</select></label>'


def _svg_text(text: Text, x: float, y: float, colour: str) -> str:
    return (
        f'<text x="{x}" y="{y}" fill="{colour}" font-weight="600" lang="en">{escape(text)}</text>'
        f'<text x="{x}" y="{y}" fill="{colour}" font-weight="600" lang="zh-CN" '
        f'visibility="hidden">{escape(text.zh)}</text>')


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.9g}" for value in np.sort(values))


def _number(value: float) -> str:
    return "" if math.isnan(value) else "Infinity" if math.isinf(value) else f"{value:.9g}"
