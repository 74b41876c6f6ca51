"""What of every picture is looked at, drawn by hand in JupyterLab: corners clicked into a good
picture become a mask in the category's folder roi/ or ignore/."""
from __future__ import annotations

import re
from pathlib import Path

import ipywidgets as w
import numpy as np
from markupsafe import Markup
from PIL import Image, ImageDraw

from adlib.config import InputError
from adlib.data import files, frame, layout, masks
from adlib.data.frame import Frame
from adlib.data.images import Pictures
from adlib.data.part import Part
from adlib.report import explore
from adlib.report.display import components
from adlib.report.display.render import render
from adlib.report.words.i18n import t
from adlib.runs import overlays

SHOWN = 640  # pixels of a picture's longer side


def draw(part: Part) -> w.Widget:
    """A good picture, in which clicks set corners: two of a rectangle, more of a polygon."""
    place = w.Text(description="corner")  # the first text field: lab.js puts a click there
    place.layout.display = "none"
    corners = w.Text(description="corners", placeholder="0.1 0.1, 0.4 0.3")
    which = w.Dropdown(options=[(path.name, path) for path in part.category.train],
                       description="picture")
    kind = w.Dropdown(options=["roi", "ignore"], description="mask")
    name = w.Text("drawn", description="name")
    clear, keep, said = w.Button(description="clear"), w.Button(description="save"), w.HTML()

    def add(change: dict[str, str]) -> None:
        if change["new"]:
            corners.value = ", ".join(filter(None, [corners.value, change["new"]]))
            place.value = ""

    def save(_: w.Button) -> None:
        try:
            path = keep_mask(part, kind.value, name.value, corners.value, masks.shown_size(
                which.value))
        except InputError as error:
            said.value = components.paragraph(str(error))
            return
        corners.value = ""
        said.value = components.paragraph(t("lab.region_kept", file=part.category.key(path)))

    place.observe(add, "value")
    corners.observe(lambda _: said.set_trait("value", ""), "value")  # it was about others
    clear.on_click(lambda _: corners.set_trait("value", ""))
    keep.on_click(save)
    box = w.VBox([w.HBox([w.VBox([place, corners]), w.VBox([which, kind]),
                          w.VBox([name, w.HBox([clear, keep])])], layout={"flex_flow": "row wrap"}),
                  explore.following(lambda path, drawn: preview(part, path, drawn), which, corners),
                  said])
    box.add_class("adlib-place")
    return box


def preview(part: Part, path: Path, drawn: str) -> Markup:
    """A good picture as all masks on disk leave it, and the corners so far."""
    category = layout.open_category(part.category.root, part.category.name)
    looked_at = frame.looked_at(category.roi, category.ignore, masks.region)
    laid = Frame("pad", SHOWN, looked_at=looked_at)
    pixels = Pictures([path], laid, part.grey_range)[0]
    _, box = laid.place(*masks.shown_size(path))
    picture = Image.fromarray(pixels[(slice(3), *box.inside)].permute(1, 2, 0).numpy())
    pen, points = ImageDraw.Draw(picture), polygon(drawn, picture.size)
    for width, colour in ((5, "black"), (2, "white")):
        pen.line([*points, *points[:1]], fill=colour, width=width)
        for x, y in points:
            pen.ellipse((x - width, y - width, x + width, y + width), fill=colour)
    share = 1.0 if looked_at is None else float(looked_at.mean())
    return render("region.html.j2", picture=overlays.uri(np.asarray(picture)), size=picture.size,
                  name=path.name, caption=t("lab.region", share=share))


def keep_mask(part: Part, kind: str, name: str, drawn: str, size: frame.Size) -> Path:
    """Write roi/NAME.png or ignore/NAME.png, white inside the corners; returns its path.

    Raises:
        InputError: for a name that is none or that is taken, corners that enclose nothing, and a
            folder that cannot be written to.
    """
    path = part.category.root / part.category.name / kind / f"{name}.png"
    if not re.fullmatch(r"\w[\w-]*", name):
        raise InputError(f"name: {name!r} is no file's name; use letters, digits, _ and -")
    if path.exists():
        raise InputError(f"{part.category.key(path)} is there already; remove it, or give another "
                         "name: several masks add up")
    mask = Image.new("1", size[::-1])
    points = polygon(drawn, mask.size)
    x, y = np.array(points or [(0.0, 0.0)]).T
    if abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) < 2:  # twice the pixels inside
        raise InputError(f"corners: {drawn!r} enclose nothing; click two of a rectangle, or more")
    ImageDraw.Draw(mask).polygon(points, fill=1)
    with files.atomic_path(path) as temporary:
        mask.save(temporary, "PNG")
    return path


def polygon(drawn: str, size: tuple[int, int]) -> list[tuple[float, float]]:
    """The corners "x y, x y, ...", shares of the sides, in pixels of (width, height); of two the
    rectangle between them. Raises InputError for others than pairs of numbers from 0 to 1."""
    try:
        pairs = [tuple(float(share) for share in pair.split())
                 for pair in drawn.split(",") if pair.strip()]
        corners = [(x * size[0], y * size[1]) for x, y in pairs]
    except ValueError:
        pairs = [(-1.0, )]
    if any(not 0 <= share <= 1 for pair in pairs for share in pair):
        raise InputError(f"corners: {drawn!r} are not pairs of numbers from 0 to 1, such as "
                         "0.1 0.1, 0.4 0.3")
    if len(corners) == 2:
        (left, top), (right, bottom) = corners
        return [(left, top), (right, top), (right, bottom), (left, bottom)]
    return corners
