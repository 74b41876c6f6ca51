"""Images as points by likeness, as HTML."""
from __future__ import annotations

import typing

import numpy as np
from markupsafe import Markup

from adlib.report.display import components
from adlib.report.display.render import render
from adlib.report.words.i18n import Text, t
from adlib.runs import overlays

WIDE, HIGH = 780, 520  # pixels of the map
# pixels a side of its thumbnails: the largest that together stay below so many bytes
THUMBS, MOST_BYTES = (96, 80, 64, 56, 48, 40, 32, 24), 460_000
ROOM, LARGE = 44, 160  # pixels a side of a picture that is always shown, and of one under the mouse
COLOURS = ("#7d8797", "#2f6690", "#c8553d", "#588157", "#7b5ea7", "#b08900", "#0e8a8a", "#b5479b",
           "#7a5230")
# within a radius of 6 round the origin; one fewer than colours, so that the pairs repeat late
SHAPES = ("M0-5.5 4.4 0 0 5.5-4.4 0z", "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
          "M0-5.8 5.5 4.6-5.5 4.6z", "M-4.4-4.4h8.8v8.8h-8.8z",
          "M-5.5-3-3-5.5 0-2.5 3-5.5 5.5-3 2.5 0 5.5 3 3 5.5 0 2.5-3 5.5-5.5 3-2.5 0z",
          "M0 5.8-5.5-4.6 5.5-4.6z", "M-6-2.2h12v4.4h-12z",
          "M-1.8-5.8h3.6v4h4v3.6h-4v4h-3.6v-4h-4v-3.6h4z")


def feature_map(points: np.ndarray, kinds: typing.Sequence[str], names: typing.Sequence[str],
                thumbs: typing.Sequence[np.ndarray], title: Text, data: str = "",
                sizes: typing.Sequence[tuple[int, int]] = ()) -> Markup:
    """Images as points: a colour and a shape a kind, pictures where there is room, and any picture
    large under the mouse.

    points: [N,2]. kinds, names: of each image; kinds may be Texts. thumbs: uint8 [s,s,3] each.
    data: the file that lists them, beside the page. sizes: height and width of each file, whose
        shape its thumb is shown in; squares where none are given.
    """
    box = np.array([WIDE, HIGH])
    spread = np.maximum(np.ptp(points, axis=0), 1e-12)
    place = (points - points.min(axis=0)) / spread * (box - 24) + 12
    # where a picture lies from its point: never over the map's edge
    towards = np.where(place > box - LARGE - 20, -1, 1)
    marks = {kind: {"colour": COLOURS[i % len(COLOURS)], "shape": SHAPES[i % len(SHAPES)],
                    "text": t("view.kind_n", kind=kind, n=list(kinds).count(kind))}
             for i, kind in enumerate(dict.fromkeys(kinds))}
    shown, items = _with_room(place + towards * ROOM / 2), []
    for i, (kind, name, uri) in enumerate(zip(kinds, names, _uris(thumbs), strict=True)):
        sides = zip(("left", "up", "shown"), (*(towards[i] < 0), i in shown), strict=True)
        height, width = sizes[i] if sizes else (1, 1)
        items.append({"kind": marks[kind], "uri": uri, "side": " ".join(s for s, on in sides if on),
                      "wide": f"{width / max(height, width):.3f}",
                      "high": f"{height / max(height, width):.3f}",
                      "left": f"{100 * place[i, 0] / WIDE:.2f}",
                      "top": f"{100 * place[i, 1] / HIGH:.2f}",
                      "text": t("view.kind_name", kind=kind, name=name)})
    drawn = render("feature_map.html.j2", points=items, kinds=list(marks.values()), title=title,
                   wide=WIDE, high=HIGH, room=ROOM, large=LARGE)
    return components.figure(drawn, "feature-map", title, data)


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
