"""Points in a plane as HTML: two configurations' scores of the same images, and images by how alike
they are. Pure, and without script."""
from __future__ import annotations

import math
import typing
from html import escape

import numpy as np

from adlib.report import overlays
from adlib.report.i18n import Text, t
from adlib.report.i18n import html as both

SIDE = 340  # pixels of the scatter plot
WIDE, HIGH = 780, 520  # of the feature map
# pixels a side of its pictures: the largest that stay below so many bytes
THUMBS, MOST_BYTES = (96, 80, 64, 56, 48, 40, 32, 24), 460_000
# pixels a side of a picture that is shown all the time, and of the one under the mouse
ROOM, LARGE = 44, 160
COLOURS = ("#7d8797", "#2f6690", "#c8553d", "#588157", "#7b5ea7", "#b08900", "#0e8a8a", "#b5479b",
           "#7a5230")
# within a circle of radius 6 round the origin; one fewer than colours, so that the pairs repeat
# late
SHAPES = {
    "diamond": "M0-5.5 4.4 0 0 5.5-4.4 0z",
    "circle": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z", "triangle": "M0-5.8 5.5 4.6-5.5 4.6z",
    "square": "M-4.4-4.4h8.8v8.8h-8.8z",
    "cross": "M-5.5-3-3-5.5 0-2.5 3-5.5 5.5-3 2.5 0 5.5 3 3 5.5 0 2.5-3 5.5-5.5 3-2.5 0z",
    "wedge": "M0 5.8-5.5-4.6 5.5-4.6z", "plus": "M-1.8-5.8h3.6v4h4v3.6h-4v4h-3.6v-4h-4v-3.6h4z",
    "bar": "M-6-2.2h12v4.4h-12z"
}
KINDS = {
    0: (COLOURS[1], "circle", t("view.good")), 1: (COLOURS[2], "triangle", t("view.anomalous")),
    None: (COLOURS[0], "square", t("view.unlabelled"))
}
STYLE = f"""
.feature-map {{ position: relative; width: 100%; max-width: {WIDE}px; aspect-ratio: {WIDE}/{HIGH}; margin: 4px 0 8px; font-size: 12px;
  border: 1px solid rgb(128 128 128/.35) }}
.feature-map label {{ position: absolute; width: 0; height: 0; margin: 0 }}
.feature-map label:hover, .feature-map label:focus-within {{ z-index: 9 }}
.feature-map label input {{ position: absolute; opacity: 0; margin: 0; width: 1px; height: 1px }}
.feature-map label svg {{ position: absolute; left: -8px; top: -8px; width: 16px; max-width: none; cursor: pointer }}
.feature-map label img, .feature-map label > span {{ position: absolute; display: none; left: 0; top: 0; max-width: none }}
.feature-map label.shown img {{ display: block; width: {ROOM}px; height: {ROOM}px }}
.feature-map label.left img, .feature-map label.left > span {{ left: auto; right: 0 }}
.feature-map label.up img, .feature-map label.up > span {{ top: auto; bottom: 0 }}
.feature-map label:hover img, .feature-map label:focus-within img {{ display: block; width: {LARGE}px; height: {LARGE}px }}
.feature-map label:hover > span, .feature-map label:focus-within > span {{ display: block; margin: {LARGE}px 0; padding: 1px 4px;
  white-space: nowrap; background: #222; color: #fff }}
"""


def scatter(x: np.ndarray, y: np.ndarray, labels: typing.Sequence[int | None],
            names: tuple[str, str], lines: tuple[float, float], marked: int) -> str:
    """An SVG of two scores [N] of the same images, their thresholds (not drawn where they are not
    finite) and a ring round one of them.

    labels: 0 good, 1 anomalous, None unknown; each has its colour and its shape. names: of the
    axes.
    """
    left, top, side = 48, 8, SIDE - 62

    def scaled(values: np.ndarray, line: float) -> typing.Callable[[float], float]:
        known = np.r_[values, [line] if math.isfinite(line) else []]
        low, span = float(known.min()), max(float(np.ptp(known)), 1e-12)
        return lambda value: 9 + (side - 18) * (float(value) - low) / span

    right, up = (scaled(values, line) for values, line in zip((x, y), lines, strict=True))
    places = [
        f"translate({left + right(a):.1f} {top + side - up(b):.1f})"
        for a, b in zip(x, y, strict=True)
    ]
    drawn = [
        f'<rect x="{left}" y="{top}" width="{side}" height="{side}" fill="none" '
        f'stroke="currentColor" opacity=".35"/>'
    ]
    if math.isfinite(lines[0]):
        drawn.append(_dashes(f"M{left + right(lines[0]):.1f} {top}v{side}"))
    if math.isfinite(lines[1]):
        drawn.append(_dashes(f"M{left} {top + side - up(lines[1]):.1f}h{side}"))
    for label, place in zip(labels, places, strict=True):
        colour, shape, _ = KINDS[label]
        drawn.append(f'<path d="{SHAPES[shape]}" fill="{colour}" fill-opacity=".75" stroke="#fff" '
                     f'stroke-width=".7" transform="{place}"/>')
    drawn.append(f'<circle r="9" fill="none" stroke="currentColor" stroke-width="2" '
                 f'transform="{places[marked]}"/>')
    drawn += [
        f'<text x="{left + right(value):.0f}" y="{top + side + 16}" '
        f'text-anchor="middle">{value:.3g}</text>' for value in sorted({x.min(), x.max()})
    ]
    drawn += [
        f'<text x="{left - 5}" y="{top + side - up(value) + 4:.0f}" '
        f'text-anchor="end">{value:.3g}</text>' for value in sorted({y.min(), y.max()})
    ]
    drawn += [
        f'<text x="{left + side / 2}" y="{SIDE - 14}" '
        f'text-anchor="middle">{escape(names[0])}</text>',
        f'<text transform="translate(12 {top + side / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(names[1])}</text>'
    ]
    said = t("view.scores_n_test_images_one", n=len(x), one=names[0], other=names[1])
    legend = "".join(_key(*KINDS[label]) for label in KINDS if label in labels)
    return (f'<div><svg viewBox="0 0 {SIDE} {SIDE}" width="{SIDE}" role="img" '
            f'aria-label="{escape(said)}" data-aria-zh="{escape(said.zh)}" '
            f'style="max-width:100%;height:auto;display:block;font:12px system-ui,sans-serif" '
            f'fill="currentColor">{"".join(drawn)}</svg>'
            f'{legend}</div>')


def _dashes(path: str) -> str:
    return f'<path d="{path}" stroke="currentColor" stroke-dasharray="5 3" opacity=".7"/>'


def feature_map(points: np.ndarray, kinds: typing.Sequence[str], names: typing.Sequence[str],
                thumbs: typing.Sequence[np.ndarray], title: Text) -> str:
    """Images as points: a colour and a shape a kind, pictures where there is room, and any picture
    large under the mouse.

    points: [N,2]. kinds, names: of each image; kinds may be Texts. thumbs: uint8 [s,s,3] each. By
    keyboard, Tab leads to the map and the arrow keys from image to image: they are radio buttons
    that are not seen.
    """
    place = (points - points.min(axis=0)) / np.maximum(np.ptp(points, axis=0),
                                                       1e-12) * (WIDE - 24, HIGH - 24) + 12
    # where a picture lies from its point: never over the map's edge
    towards = np.where(place > np.array([WIDE, HIGH]) - LARGE - 20, -1, 1)
    marks = {
        kind: (COLOURS[i % len(COLOURS)], list(SHAPES)[i % len(SHAPES)])
        for i, kind in enumerate(dict.fromkeys(kinds))
    }
    shown, items = _with_room(place + towards * ROOM / 2), []
    for i, (kind, name, uri) in enumerate(zip(kinds, names, _uris(thumbs), strict=True)):
        words = t("view.kind_name", kind=kind, name=name)
        side = " ".join(word for word, on in zip(("left", "up", "shown"), (*(towards[i] < 0),
                                                                           i in shown), strict=True)
                        if on)
        items.append(
            f'<label class="{side}" '
            f'style="left:{100 * place[i, 0] / WIDE:.2f}%;top:{100 * place[i, 1] / HIGH:.2f}%">'
            f'<input type="radio" name="image" aria-label="{escape(words)}" '
            f'data-aria-zh="{escape(words.zh)}">'
            f'<img src="{uri}" alt="{escape(words)}" data-alt-zh="{escape(words.zh)}">'
            f"{_mark(*marks[kind])}<span>{both(words)}</span></label>")
    legend = "".join(
        _key(*marks[kind], t("view.kind_n", kind=kind, n=list(kinds).count(kind)))
        for kind in marks)
    return (f'<style>{STYLE}</style><p><strong>{both(title)}</strong></p><div class="feature-map" '
            f'role="radiogroup" '
            f'aria-label="{escape(title)}" '
            f'data-aria-zh="{escape(title.zh)}">{"".join(items)}</div><div>{legend}</div>')


def _with_room(centres: np.ndarray) -> set[int]:
    """The images whose pictures can be shown without covering each other, taken in turn. centres:
    [N,2] of the pictures."""
    kept: list[int] = []
    for i, centre in enumerate(centres):
        if all(np.abs(centre - centres[j]).max() > ROOM for j in kept):
            kept.append(i)
    return set(kept)


def _uris(thumbs: typing.Sequence[np.ndarray]) -> list[str]:
    """The thumbnails as data URIs, of the largest size that keeps them below MOST_BYTES together.
    """
    for size in THUMBS:
        uris = [overlays.uri(thumb, size) for thumb in thumbs]
        if sum(map(len, uris)) <= MOST_BYTES:
            break
    return uris


def _mark(colour: str, shape: str, style: str = "") -> str:
    path = f'<path d="{SHAPES[shape]}" fill="{colour}" stroke="#fff"/>'
    return f'<svg width="16" height="16" viewBox="-8 -8 16 16" aria-hidden="true"{style}>{path}</svg>'


def _key(colour: str, shape: str, words: Text) -> str:
    mark = _mark(colour, shape, ' style="vertical-align:-3px"')
    return f'<span style="font-size:12px;margin-right:12px;white-space:nowrap">{mark} {both(words)}</span>'
