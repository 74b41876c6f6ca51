"""What a detector sees in single images, as HTML: pictures side by side, a verdict, a score among
others. Pure: arrays in, HTML out.

What an animated page would do by script is left to whoever calls these again: they take
milliseconds.
"""
from __future__ import annotations

import math
import typing
from html import escape

import numpy as np
from PIL import Image

from adlib.report import overlays, panels
from adlib.report.i18n import Text, join, t
from adlib.report.i18n import html as both

WIDTH, HEIGHT = 560, 84  # of a gauge
GOOD, BAD = "var(--good, #2f6690)", "var(--bad, #c8553d)"


def views(picture: np.ndarray, map_: np.ndarray, *, low: float, level: float, size: int,
          redrawn: np.ndarray | None = None,
          truth: np.ndarray | None = None) -> dict[Text, np.ndarray]:
    """The pictures that are shown of an image, uint8 [size,size,3] each: it, its reconstruction if
    there is one, its map, the map over it.

    picture, redrawn: uint8 [S,S,3]. map_: [S,S]. truth: bool [S,S], the true defect. low, level:
    decide.Decided. Everything is brought to `size` first, so that outlines are as thick as they are
    meant to be.
    """
    def resized(image: Image.Image,
                how: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
        return np.asarray(image if image.size == (size, size) else image.resize((size, size), how))

    shown = {t("view.input"): resized(Image.fromarray(picture))}
    if redrawn is not None:
        shown[t("view.reconstruction")] = resized(Image.fromarray(redrawn))
    map_ = resized(Image.fromarray(map_.astype(np.float32)))
    mask = None if truth is None else resized(Image.fromarray(truth), Image.Resampling.NEAREST)
    shown[t("view.anomaly_map")] = overlays.heat(map_, low, low + 2 * (level - low))
    shown[t("view.anomaly_map_over_input")] = overlays.overlay(shown[t("view.input")], map_,
                                                               low=low, level=level, truth=mask)
    return shown


def strip(shown: typing.Mapping[Text, np.ndarray], name: str, caption: str, *,
          titled: bool = False) -> str:
    """Pictures of one image side by side. name: of the image. caption: HTML. titled: whether each
    picture's name stands above it."""
    def one(what: Text, picture: np.ndarray) -> str:
        alt, other = f"{name}: {what}", f"{name}：{what.zh}"
        image = (f'<img src="{overlays.uri(picture)}" alt="{escape(alt)}" '
                 f'data-alt-zh="{escape(other)}" width="{picture.shape[1]}" '
                 f'height="{picture.shape[0]}" style="display:block">')
        title = f'<span style="font-size:12px;opacity:.75">{both(what)}</span>' if titled else ""
        return f'<span style="display:inline-block;vertical-align:top;margin-right:2px">{title}{image}</span>'

    return (
        f'<figure style="margin:0">{"".join(one(what, picture) for what, picture in shown.items())}'
        f'<figcaption style="font-size:12px;line-height:1.4">{caption}</figcaption></figure>')


def flow(parts: typing.Iterable[str], gap: int = 14) -> str:
    """HTML fragments in rows, as many in each as there is room for."""
    return f'<div style="display:flex;flex-wrap:wrap;gap:{gap}px;align-items:flex-start">{"".join(parts)}</div>'


def caption(defect: str, name: str, score: float, p_value: float, label: int | None,
            line: float) -> str:
    """What is said below an image. defect: "" where there is no label. line: the threshold, NaN
    where there is none."""
    p = "" if math.isnan(p_value) else f" · p {p_value:.2g}"
    return f"<strong>{escape(defect or '?')}</strong> {escape(name)}<br>{score:.4g}{p} {verdict(score, label, line)}"


def verdict(score: float, label: int | None, line: float) -> str:
    """Found, missed, false alarm, passed; only what it is called where the label is unknown. ""
    without a threshold."""
    if math.isnan(line):
        return ""
    kind, words = panels.VERDICTS[label, score >= line]
    colour = f"color:{BAD};" if kind in ("missed", "false-alarm") else ""
    return f'<strong class="verdict {kind}" style="{colour}">{both(words)}</strong>'


def gauge(score: float, good: np.ndarray, anomalous: np.ndarray, line: float, name: str) -> str:
    """An SVG: where a score lies among those of good test images (ticks below the axis) and
    anomalous ones (above), and the threshold."""
    known = np.r_[good, anomalous, score, [line] if math.isfinite(line) else []]
    low, span, middle = known.min(), max(float(np.ptp(known)), 1e-12), HEIGHT / 2

    def x(value: float) -> str:
        return f"{16 + (WIDTH - 32) * (value - low) / span:.1f}"

    parts = [f'<path d="M8 {middle}h{WIDTH - 16}" stroke="currentColor"/>']
    for values, start, colour in ((good, middle + 3, GOOD), (anomalous, middle - 19, BAD)):
        ticks = "".join(f"M{x(value)} {start}v16" for value in values)
        parts.append(f'<path d="{ticks}" style="stroke:{colour}" stroke-width="1.5" opacity=".6"/>')
    if math.isfinite(line):
        parts.append(
            f'<path d="M{x(line)} 6V{HEIGHT - 6}" stroke="currentColor" stroke-width="1.5" '
            f'stroke-dasharray="5 3"/>')
    parts.append(f'<path d="M{x(score)} {middle}l-8-14h16z" fill="currentColor"/>')
    said = t("view.name_score_g_ticks_above", name=name, score=score)
    if math.isfinite(line):
        said = join([said, t("view.dashed_threshold_line_g", line=line)])
    return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" '
            f'aria-label="{escape(said)}" data-aria-zh="{escape(said.zh)}" '
            f'style="max-width:100%;height:auto;display:block">{"".join(parts)}</svg>')


def paragraph(text: Text) -> str:
    return f"<p>{both(text)}</p>"
