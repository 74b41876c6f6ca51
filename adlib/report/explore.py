"""Finished runs to look through in JupyterLab: a selector that opens one of them, and tools that
follow it.

A tool is HTML, the same component as on the report's pages, or a widget: controls beside HTML.
Where nobody is there to move it (papermill), the HTML that it starts with is shown.
"""
from __future__ import annotations

import base64
import dataclasses
import functools
import io
import json
import typing
from pathlib import Path

import ipywidgets as w
import numpy as np
import pandas as pd
import torch
from markupsafe import Markup

from adlib.config import KINDS, Config, InputError
from adlib.data import files, untrusted
from adlib.data.part import ImageSet, Part
from adlib.data.synthetic import anomalies
from adlib.evaluation.results import write_csv
from adlib.models.detector import Images, as_tensor
from adlib.report import comparison, eda
from adlib.report.display import components, figures, gallery, side_by_side
from adlib.report.display.render import render
from adlib.report.words import sentences
from adlib.report.words.i18n import join, t
from adlib.runs import image_layers, inference, predictions, run_folder
from adlib.runs.inference import Reopened

PAGE = 24  # pictures of a page
SPLITS = ("test", "held_out", "train", "train_bad")
NOTES = ["path", "tags", "note"]  # columns of reports/notes/<category>.csv
Tool = typing.Callable[["OpenedRun"], "Markup | w.Widget"]


@dataclasses.dataclass(frozen=True, eq=False)
class OpenedRun:
    """A finished run, its data, and its Results.table."""

    run: Reopened
    part: Part
    table: pd.DataFrame
    reports: Path

    @functools.cached_property
    def test(self) -> pd.DataFrame:
        """A row a test image: path, label, defect, score, p_value."""
        return self.rows("test")

    def rows(self, split: str) -> pd.DataFrame:
        return gallery.with_scores(self.table, split)

    def images(self, keys: typing.Sequence[str]) -> ImageSet:
        """Images of the category by their keys (the column `path`)."""
        root = self.part.category.root
        return dataclasses.replace(self.part.good, paths=tuple(root / key for key in keys))

    def scored(self, images: Images, masks: torch.Tensor | None = None,
               whole: torch.Tensor | None = None, sizes: typing.Sequence[tuple[int, int]] = (),
               ) -> tuple[np.ndarray, list[image_layers.Shot]]:
        """The scores [N] of what the detector is given, and the pictures of each. whole: uint8
        [N,3,S,S] to be shown, where these are others. sizes: (height, width) of their files."""
        scores, maps = self.run.score_with_maps(images)
        shown = as_tensor(images) if whole is None else whole
        return scores, image_layers.shots(shown, maps, self.run.decision, self.run.detector, masks,
                                          frame=self.run.frames[0] if sizes else None, sizes=sizes)

    def shots(self, some: ImageSet) -> list[image_layers.Shot]:
        """The pictures of images of the category, in the shape of their files."""
        return self.scored(some, some.masks, sizes=some.shown_sizes)[1]


def open_run(folder: Path, data_root: str = "") -> OpenedRun:
    """Open a finished run. Raises InputError as inference.reopen_with_data."""
    table = comparison.read_results(folder).astype({"label": "Int64"})
    return OpenedRun(*inference.reopen_with_data(folder, data_root), table, folder.parents[3])


class RunSelector:
    """Any finished run of a reports folder, chosen by two menus, and the tools that look at it."""

    def __init__(self, config: Config) -> None:
        """config: the run to begin with, its category, name and seed; without a category, of the
        first that has one. Raises InputError where there is none, or why it cannot be opened."""
        config = inference.existing(config)
        self._data_root, self._tools = config.data_root, []
        self.opened = open_run(run_folder.folder(config), self._data_root)
        self._runs = {"/".join(folder.parts[-3:]): folder  # whose numbers stand, as in `reopen`
                      for folder in run_folder.all_runs(run_folder.reports_dir(config.reports))
                      if run_folder.numbers(folder).state == "finished"}
        category, run = config.category, f"{config.name}/seed-{config.seed}"
        self.category = w.Dropdown(options=sorted({key.split("/")[0] for key in self._runs}),
                                   value=category, description="category")
        self.run = w.Dropdown(options=self._of(category), value=run, description="run")
        self._said = w.HTML()
        self.category.observe(self._other_category, "value")
        self.run.observe(self._open, "value")
        self._say()

    def show(self, tool: Tool | None = None) -> None:
        """Display the menus, or a tool, which follows them."""
        if tool is None:
            _display(w.VBox([_row(self.category, self.run), self._said]))
            return
        box = w.VBox()
        self._tools.append((tool, box))
        self._fill(tool, box)
        _display(box)

    def _of(self, category: str) -> list[str]:
        return [key.partition("/")[2] for key in self._runs if key.startswith(f"{category}/")]

    def _other_category(self, _: typing.Any) -> None:
        self.run.options = self._of(self.category.value)
        self._open()

    def _open(self, _: typing.Any = None) -> None:
        key, config = f"{self.category.value}/{self.run.value}", self.opened.run.config
        if key not in self._runs or key == f"{config.category}/{config.name}/seed-{config.seed}":
            return
        try:
            self.opened = open_run(self._runs[key], self._data_root)
        except InputError as error:
            self._said.value = components.paragraph(str(error))
            return
        self._say()
        for tool, box in self._tools:
            self._fill(tool, box)

    def _say(self) -> None:
        run = self.opened.run
        self._said.value = components.banner(self.opened.part) + components.paragraph(
            sentences.reopened(run.config, run.decision.score, run.threshold.value))

    def _fill(self, tool: Tool, box: w.VBox) -> None:
        try:
            made = tool(self.opened)
        except InputError as error:
            made = components.paragraph(str(error))
        box.children = [made if isinstance(made, w.Widget) else w.HTML(made)]


# ---- tools

def threshold(opened: OpenedRun) -> Markup:
    """The threshold of the run over its test images, to be moved; a sentence where they have no
    labels of both classes, and one on why there is no threshold."""
    held = opened.run.threshold
    panel = components.threshold(opened.table, held, opened.run.decision.score) or (
        components.paragraph(t("view.test_split_no_labels_both")))
    return panel if held.is_attainable else panel + components.paragraph(
        sentences.threshold_rests_on(held, len(opened.part.good)))


def every_image(opened: OpenedRun) -> w.Widget:
    """The images of any split under their maps."""
    held = [split for split in SPLITS if len(opened.rows(split))]
    split = w.Dropdown(options=held, description="images")

    def shown(split: str) -> Markup:
        rows = opened.rows(split)
        some = opened.images(list(rows["path"]))
        return components.paragraph(gallery.counted(rows, opened.run.threshold)) + gallery.gallery(
            rows, opened.shots(some), opened.run.threshold, opened.run.decision.score)

    return w.VBox([split, following(shown, split)])


def another(opened: OpenedRun) -> Markup:
    """This run beside any other of the category."""
    config = opened.run.config
    return side_by_side.of_category(opened.reports, config.category, config.name)


def what_if(opened: OpenedRun) -> w.Widget:
    """An anomaly of any kind, size and contrast in a good image, where one clicks: its map, score
    and verdict follow."""
    good = opened.table[opened.table["split"].isin(["held_out", "test"])
                      & (opened.table["label"] == 0).fillna(False)]
    good = good if len(good) > 1 else opened.table[opened.table["split"] == "train"]
    some, before = opened.images(list(good["path"])), good["chosen_score"].to_numpy(float)
    pictures, shapes = some.given, some.shown_sizes
    which = w.Dropdown(options=[(f"{row.split} {Path(row.path).name}", i)
                                for i, row in enumerate(good.itertuples())], description="picture")
    kind = w.Dropdown(options=KINDS, description="anomaly")
    size = w.FloatSlider(1.0, min=0.25, max=2, step=0.05, description="size")
    contrast = w.FloatSlider(1.0, min=0, max=1, step=0.05, description="contrast")
    shape = w.BoundedIntText(0, min=0, max=9999, description="shape")
    place = w.Text("0.5 0.5", description="place")

    def drawn(i: int, kind: str, size: float, contrast: float, shape: int, place: str) -> Markup:
        return with_anomaly(opened, pictures[i], pictures[(i + 1) % len(pictures)], kind, size=size,
                            contrast=contrast, seed=shape, place=place, before=before[i],
                            file=shapes[i])

    return w.VBox([
        _row(w.VBox([which, kind]), w.VBox([size, contrast]), w.VBox([shape, place])),
        following(drawn, which, kind, size, contrast, shape, place)]).add_class("adlib-place")


def with_anomaly(opened: OpenedRun, image: torch.Tensor, other: torch.Tensor, kind: str, *,
                 place: str, size: float, contrast: float, seed: int, before: float,
                 file: tuple[int, int]) -> Markup:
    """A good image with an anomaly dropped into it (anomalies.drop_into), and what the run makes of
    that. image, other: as the detector is given them. place: "x y", shares of the sides of what is
    shown. before: the score without it. file: the height and width of the image's file."""
    try:
        x, y = (min(max(float(share), 0.0), 1.0) for share in place.split())
    except ValueError:
        raise InputError(
            f"place: {place!r} is not two numbers from 0 to 1, such as 0.5 0.5") from None
    side, shown = opened.run.detector.tile or image.shape[-1], opened.run.config.image_size
    (high, wide), box = opened.run.frames[-1].place(*file)  # a frame's rim is not shown
    x, y = (box.left + x * box.width) / wide, (box.top + y * box.height) / high
    changed, mask = anomalies.drop_into(image, other, kind, side=side, place=(y, x), size=size,
                                        contrast=contrast, seed=seed)
    whole, where = changed[None, :3], mask[None]
    if opened.run.detector.tile:
        whole = torch.nn.functional.interpolate(whole.float(), (shown, shown), mode="bilinear",
                                                antialias=True).round().byte()
        where = torch.nn.functional.adaptive_max_pool2d(where.float(), shown) > 0
    (score, ), (shot, ) = opened.scored(changed[None], where, whole, [file])
    said = t("view.share_image_changed_name_before", share=float(mask.float().mean()),
             name=sentences.score(opened.run.decision.score), before=before, after=score)
    return render("placed.html.j2", shot=shot, caption=components.with_verdict(
        said, score, int(mask.any()), opened.run.threshold), alt=t("lab.anomaly", kind=kind))


def my_photo(opened: OpenedRun) -> w.Widget:
    """Any pictures through the run's detector: chosen, or dropped onto the tool."""
    button = w.FileUpload(accept="image/*", multiple=True, description="choose pictures",
                          layout={"width": "auto"})
    dropped = w.Text()  # what lab.js was given: [[name, base64], ...]
    dropped.layout.display = "none"

    def shown(chosen: typing.Any, given: str) -> Markup:
        photos = [(one["name"], bytes(one["content"])) for one in chosen]
        if given:
            try:
                photos = [(str(name), base64.b64decode(content))
                         for name, content in json.loads(given)]
            except (ValueError, TypeError):
                raise InputError("what was dropped is no picture; drop picture files") from None
        return photo_verdicts(opened, photos) if photos else components.paragraph(t("lab.drop"))

    for one, other, nothing in ((button, dropped, ""), (dropped, button, ())):  # the last counts
        one.observe(lambda change, other=other, nothing=nothing: change["new"]
                    and other.set_trait("value", nothing), "value")
    return w.VBox([button, dropped, following(shown, button, dropped)]).add_class("adlib-drop")


def photo_verdicts(opened: OpenedRun, photos: typing.Sequence[tuple[str, bytes]]) -> Markup:
    """Pictures as (name, content of the file) under their maps, with their verdicts; a sentence for
    each that cannot be read."""
    names, decoded, said = [], [], []
    for name, content in photos:
        name = untrusted.sanitized(Path(name).name)
        try:
            held = io.BytesIO(content)
            held.name = name
            decoded.append(opened.run.decode(held))
            names.append(name)
        except Exception:  # whatever a decoder trips over, the picture is named
            said.append(t("lab.unreadable", name=name))
    why = components.paragraph(join(said)) if said else Markup("")
    if not names:
        return why
    whole = torch.stack([one.whole[:3] for one in decoded])
    given = [one.given for one in decoded]
    given = given if opened.run.detector.tile else torch.stack(given)
    scores, shots = opened.scored(given, whole=whole, sizes=[one.size for one in decoded])
    verdicts = [predictions.verdict(opened.run, scores[i:i + 1], reason)
                for i, reason in enumerate(opened.run.foreign(whole)[1])]
    if foreign := [name for name, verdict in zip(names, verdicts, strict=True)
                   if verdict == "foreign"]:
        why += components.paragraph(t("lab.foreign", names=join(foreign, ", ")))
    rows = pd.DataFrame({"path": names, "label": pd.array([None] * len(names), "Int64"),
                         "defect": "", "score": scores, "verdict": verdicts,
                         "p_value": opened.run.threshold.p_values(scores)})
    # under a name of its own: the threshold that is moved above moves none of these verdicts
    return why + gallery.gallery(rows, shots, opened.run.threshold, "photographs")


def notes(opened: OpenedRun) -> Markup | w.Widget:
    """Tags and a note on any test image, kept in reports/notes/<category>.csv."""
    path = opened.reports / "notes" / f"{opened.part.category.name}.csv"
    rows = opened.test.sort_values("score", ascending=False)
    if rows.empty:
        return components.paragraph(t("lab.no_test"))
    image = w.Dropdown(options=[(f"{row.defect} {Path(row.path).name}", row.path)
                                for row in rows.itertuples()], description="image")
    tags = w.Text(description="tags", placeholder="blurred, label doubtful")
    note = w.Textarea(description="note")
    save, said = w.Button(description="keep"), w.HTML()

    def filled(key: str) -> Markup:
        kept = read_notes(path)
        shown = kept[kept.index == key][["tags", "note"]]
        tags.value, note.value = shown.iloc[-1] if len(shown) else ("", "")
        some = opened.images([key])
        return gallery.examples(opened.test[opened.test["path"] == key],
                                opened.shots(some), opened.run.threshold, [""])

    def keep(_: w.Button) -> None:
        try:
            kept = read_notes(path)
            if tags.value.strip() or note.value.strip():
                kept.loc[image.value, ["tags", "note"]] = [
                    untrusted.no_formula(typed.value) for typed in (tags, note)]
            else:
                kept = kept.drop(image.value, errors="ignore")
            write_csv(kept.sort_index().reset_index(), path)
        except InputError as error:  # what a button raises nobody sees
            said.value = components.paragraph(str(error))
            return
        said.value = components.paragraph(t("lab.kept", n=len(kept), file=f"notes/{path.name}"))

    save.on_click(keep)
    return w.VBox([image, following(filled, image), tags, note, _row(save, said)])


def read_notes(path: Path) -> pd.DataFrame:
    """The tags and the note of each image, by its path, and what columns somebody added; empty
    where none was kept. Raises InputError for a file that cannot be read."""
    with files.saying(f"{path} cannot be read as CSV in UTF-8"):
        kept = pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else (
            pd.DataFrame(columns=NOTES, dtype=str))
        return kept.set_index("path")[[*NOTES[1:], *kept.columns.difference(NOTES, sort=False)]]


def browse(part: Part) -> w.Widget:
    """Any images of a category, a kind at a time."""
    groups = eda.groups(part.category)
    kind = w.Dropdown(options=[(f"{name} ({len(paths)})", name) for name, paths in groups.items()],
                      description="kind")
    number = w.BoundedIntText(1, min=1, max=9999, description="page", layout={"width": "160px"})
    kind.observe(lambda _: number.set_trait("value", 1), "value")
    return w.VBox([_row(kind, number), following(lambda name, number: eda.page(
        part.category, groups[name], number, PAGE), kind, number)])


# ---- widgets

def show(make: typing.Callable[..., w.Widget], *values: typing.Any, fallback: bool = True) -> None:
    """Display the widget that `make` makes of the values.

    fallback: where nobody is there, show its HTML; False = nothing there, and no widget is made.
    """
    if fallback or figures.attended():
        _display(make(*values))


def static_html(widget: w.Widget) -> str:
    """The HTML of a widget as it stands, without its controls."""
    return widget.value if isinstance(widget, w.HTML) else "".join(
        static_html(child) for child in getattr(widget, "children", ()))


def _display(widget: w.Widget) -> None:
    from IPython.display import display

    if figures.attended():
        figures.show(Markup("<!-- the components' style and script -->"))
        display(widget._repr_mimebundle_() | {"text/html": static_html(widget)}, raw=True)
    else:
        figures.show(static_html(widget))


def following(drawn: typing.Callable[..., str], *controls: w.Widget) -> w.HTML:
    """HTML that stays what `drawn` makes of the controls' values; an InputError is shown as it
    is."""
    picture = w.HTML()

    def redraw(_: typing.Any = None) -> None:
        try:
            picture.value = drawn(*(control.value for control in controls))
        except InputError as error:
            picture.value = components.paragraph(str(error))

    for control in controls:
        control.observe(redraw, "value")
    redraw()
    return picture


def _row(*controls: w.Widget) -> w.Box:
    return w.HBox(list(controls), layout=w.Layout(flex_flow="row wrap", grid_gap="0 10px"))
