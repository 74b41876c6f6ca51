"""Points as HTML: a score among others, two configurations' scores, images by likeness."""
from __future__ import annotations

import math
import typing

import numpy as np
from markupsafe import Markup

from adlib.report.i18n import Text, join, t
from adlib.report.render import render
from adlib.runs import overlays

GOOD, BAD = "var(--good, #2f6690)", "var(--bad, #c8553d)"
WIDTH, HEIGHT = 560, 84  # pixels of the gauge
SIDE = 340  # of the scatter plot
WIDE, HIGH = 780, 520  # of the feature map
# pixels a side of its thumbnails: the largest that together stay below so many bytes
THUMBS, MOST_BYTES = (96, 80, 64, 56, 48, 40, 32, 24), 460_000
ROOM, LARGE = 44, 160  # pixels a side of a picture that is always shown, and of one under the mouse
COLOURS = ("#7d8797", "#2f6690", "#c8553d", "#588157", "#7b5ea7", "#b08900", "#0e8a8a", "#b5479b",
           "#7a5230")
# within a radius of 6 round the origin; one fewer than colours, so that the pairs repeat late
SHAPES = {"diamond": "M0-5.5 4.4 0 0 5.5-4.4 0z",
          "circle": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
          "triangle": "M0-5.8 5.5 4.6-5.5 4.6z", "square": "M-4.4-4.4h8.8v8.8h-8.8z",
          "cross": "M-5.5-3-3-5.5 0-2.5 3-5.5 5.5-3 2.5 0 5.5 3 3 5.5 0 2.5-3 5.5-5.5 3-2.5 0z",
          "wedge": "M0 5.8-5.5-4.6 5.5-4.6z", "bar": "M-6-2.2h12v4.4h-12z",
          "plus": "M-1.8-5.8h3.6v4h4v3.6h-4v4h-3.6v-4h-4v-3.6h4z"}
KINDS = {0: (COLOURS[1], "circle", t("view.good")),
         1: (COLOURS[2], "triangle", t("view.anomalous")),
         None: (COLOURS[0], "square", t("view.unlabelled"))}


def gauge(score: float, good: np.ndarray, anomalous: np.ndarray, threshold: float,
          name: str) -> Markup:
    """An SVG: where a score lies among those of good test images (ticks below the axis) and of
    anomalous ones (above), and the threshold, unless that is infinite."""
    lines = [threshold] if math.isfinite(threshold) else []
    place = _scale(np.r_[good, anomalous, score, lines], 16, WIDTH - 32)
    ticks = [("".join(f"M{place(value):.1f} {start}v16" for value in values), colour)
             for values, start, colour in ((good, HEIGHT / 2 + 3, GOOD),
                                           (anomalous, HEIGHT / 2 - 19, BAD))]
    said = join([t("view.name_score_g_ticks_above", name=name, score=score),
                 *(t("view.dashed_threshold_line_g", line=line) for line in lines)])
    return render("gauge.html.j2", width=WIDTH, height=HEIGHT, ticks=ticks, said=said,
                  score=f"{place(score):.1f}", line=f"{place(threshold):.1f}" if lines else None)


def scatter(x: np.ndarray, y: np.ndarray, labels: typing.Sequence[int | None],
            names: tuple[str, str], thresholds: tuple[float, float], marked: int) -> Markup:
    """An SVG of two scores [N] of the same images, their thresholds (unless infinite) and a ring
    round one image.

    labels: 0 good, 1 anomalous, None unknown, each with a colour and a shape. names: of the axes.
    """
    left, top, side = 48, 8, SIDE - 62
    across, upwards = (_scale(np.r_[values, [line] if math.isfinite(line) else []], 9, side - 18)
                       for values, line in zip((x, y), thresholds, strict=True))
    kinds = {label: _kind(*KINDS[label]) for label in KINDS if label in labels}
    places = [f"translate({left + across(a):.1f} {top + side - upwards(b):.1f})"
              for a, b in zip(x, y, strict=True)]
    lines = [path for line, path in (
        (thresholds[0], f"M{left + across(thresholds[0]):.1f} {top}v{side}"),
        (thresholds[1], f"M{left} {top + side - upwards(thresholds[1]):.1f}h{side}"))
        if math.isfinite(line)]
    return render(
        "scatter.html.j2", size=SIDE, left=left, top=top, side=side, names=names, lines=lines,
        marks=[(kinds[label], place) for label, place in zip(labels, places, strict=True)],
        ring=places[marked], kinds=list(kinds.values()),
        across=[(f"{left + across(v):.0f}", v) for v in sorted({x.min(), x.max()})],
        upwards=[(f"{top + side - upwards(v) + 4:.0f}", v) for v in sorted({y.min(), y.max()})],
        said=t("view.scores_n_test_images_one", n=len(x), one=names[0], other=names[1]))


def feature_map(points: np.ndarray, kinds: typing.Sequence[str], names: typing.Sequence[str],
                thumbs: typing.Sequence[np.ndarray], title: Text) -> Markup:
    """Images as points: a colour and a shape a kind, pictures where there is room, and any picture
    large under the mouse.

    points: [N,2]. kinds, names: of each image; kinds may be Texts. thumbs: uint8 [s,s,3] each.
    """
    box = np.array([WIDE, HIGH])
    spread = np.maximum(np.ptp(points, axis=0), 1e-12)
    place = (points - points.min(axis=0)) / spread * (box - 24) + 12
    # where a picture lies from its point: never over the map's edge
    towards = np.where(place > box - LARGE - 20, -1, 1)
    marks = {kind: _kind(COLOURS[i % len(COLOURS)], list(SHAPES)[i % len(SHAPES)],
                         t("view.kind_n", kind=kind, n=list(kinds).count(kind)))
             for i, kind in enumerate(dict.fromkeys(kinds))}
    shown, items = _with_room(place + towards * ROOM / 2), []
    for i, (kind, name, uri) in enumerate(zip(kinds, names, _uris(thumbs), strict=True)):
        sides = zip(("left", "up", "shown"), (*(towards[i] < 0), i in shown), strict=True)
        items.append({"kind": marks[kind], "uri": uri, "side": " ".join(s for s, on in sides if on),
                      "left": f"{100 * place[i, 0] / WIDE:.2f}",
                      "top": f"{100 * place[i, 1] / HIGH:.2f}",
                      "text": t("view.kind_name", kind=kind, name=name)})
    return render("feature_map.html.j2", points=items, kinds=list(marks.values()), title=title,
                  wide=WIDE, high=HIGH, room=ROOM, large=LARGE)


def _scale(values: np.ndarray, start: float, length: float) -> typing.Callable[[float], float]:
    low, span = float(values.min()), max(float(np.ptp(values)), 1e-12)
    return lambda value: start + length * (float(value) - low) / span


def _kind(colour: str, shape: str, text: Text) -> dict[str, str]:
    return {"colour": colour, "shape": SHAPES[shape], "text": text}


def _with_room(centres: np.ndarray) -> set[int]:
    """The images whose pictures can be shown without covering each other, taken in turn. centres:
    [N,2] of the pictures."""
    kept: list[int] = []
    for i, centre in enumerate(centres):
        if all(np.abs(centre - centres[j]).max() > ROOM for j in kept):
            kept.append(i)
    return set(kept)


def _uris(thumbs: typing.Sequence[np.ndarray]) -> list[str]:
    """Thumbnails as data URIs, of the largest size that keeps them below MOST_BYTES together."""
    for size in THUMBS:
        uris = [overlays.uri(thumb, size) for thumb in thumbs]
        if sum(map(len, uris)) <= MOST_BYTES:
            break
    return uris
