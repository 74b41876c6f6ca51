"""Widgets for JupyterLab, each a thin face over pure functions (panels, looking, scenes), and its
static twin.

A widget is a box of controls and of HTML; the HTML it starts with is its twin: what an executed
notebook shows where nobody can move it.
"""
from __future__ import annotations

import contextlib
import functools
import math
import typing
from pathlib import Path

import ipywidgets as w
import numpy as np

from adlib.config import KINDS, InputError
from adlib.data import images
from adlib.data.layout import Category
from adlib.evaluation import evaluate, verdicts
from adlib.report import eda, looking, panels, scenes
from adlib.report.i18n import t

EACH, MANY = 6, 24  # images on a page of a gallery of maps, and of plain pictures
ANY = ("any", "*")  # None would show as an empty choice
FIT, LONG = {"description_width": "initial"}, {"width": "560px"}
STYLE = """<style>
.adlib { line-height: 1.45 }
.adlib .confusion th, .adlib .confusion td { padding: 2px 8px; text-align: right }
.adlib .rates dt, .adlib .rates dd { display: inline; float: none; width: auto; margin: 0 6px 0 0 }
</style>"""


def show(make: typing.Callable[..., w.Box], *values: typing.Any, twin: str | None = None) -> None:
    """Display the widget that `make` makes of the values; its twin where a notebook is executed
    with nobody there to move it (papermill).

    twin: another HTML to show there than the widget's own; then no widget is made.
    """
    from IPython.display import HTML, display

    if attended():
        box = make(*values)
        display(box._repr_mimebundle_() | {"text/html": still(box)}, raw=True)
    elif html := still(make(*values)) if twin is None else twin:
        display(HTML(html))


def attended() -> bool:
    """Can the running cell ask somebody a question? JupyterLab's can, papermill's and nbconvert's
    cannot."""
    from IPython import get_ipython

    header = getattr(get_ipython(), "parent_header", None) or {}
    return bool(header.get("content", {}).get("allow_stdin", False))


def still(widget: w.Widget) -> str:
    """The HTML of a widget as it stands, without its controls."""
    return widget.value if isinstance(widget, w.HTML) else "".join(
        still(child) for child in getattr(widget, "children", ()))


def threshold(look: looking.Look) -> w.Box:
    """A slider over every threshold that parts the test images in a way of its own; distributions,
    confusion matrix and rates follow."""
    labels, scores = evaluate.arrays(look.results, "test", "chosen_score")
    if not 0 < labels.sum() < len(labels):
        return w.VBox([w.HTML(scenes.paragraph(t("view.test_split_no_labels_both")))])
    cuts, best = verdicts.cuts(scores), verdicts.oracle(look.results, "chosen_")
    asked = {
        rate: verdicts.asked(look.results, rate, "chosen_")
        for rate in sorted({*panels.RATES, look.run.config.target_fpr})
    }

    def place(level: float) -> int:  # of the cut that says the same of every image
        return int(np.searchsorted(np.unique(scores), level))

    slider = w.SelectionSlider(options=[(f"{cut:.4g}", i) for i, cut in enumerate(cuts)],
                               description="threshold", layout=LONG, style=FIT,
                               value=place(best if math.isnan(look.line) else look.line))
    free, oracle = (w.Button(description=text, layout=w.Layout(width="auto"))
                    for text in ("label-free threshold", "oracle (uses labels)"))
    free.disabled = math.isnan(look.line)
    rate = w.Dropdown(
        options=[("…", 0.0), *((f"{share:.0%}", share)
                               for share, level in asked.items() if math.isfinite(level))],
        description="asked false-alarm rate", style=FIT, layout=w.Layout(width="230px"))
    picture = w.HTML()
    _follow(
        picture, lambda i: scenes.flow([
            panels.distributions(labels, scores, cuts[i], look.run.score),
            f"<div>{panels.confusion(verdicts.counts(labels, scores, cuts[i]))}</div>"
        ], 28), slider)
    rate.observe(lambda change: change["new"] and _set(slider, place(asked[change["new"]])),
                 "value")
    free.on_click(lambda _: _set(slider, place(look.line)))
    oracle.on_click(lambda _: _set(slider, place(best)))
    return w.VBox([slider, _row(free, rate, oracle), picture])


def gallery(look: looking.Look) -> w.Box:
    """Images in one of the orders of verdicts.PICKS, filtered by split, defect and what they are
    called, with their maps."""
    rows = look.rows
    choices = {
        "split": dict.fromkeys(rows["split"]), "defect": sorted(set(rows["defect"])),
        "called": ("anomalous", "good")
    }
    split, defect, called = (w.Dropdown(
        options=[ANY, *((name or "unlabelled", name)
                        for name in names)], description=key, style=FIT)
                             for key, names in choices.items())
    split.value, what = "test", w.Dropdown(options=verdicts.PICKS, description="show", style=FIT)
    number, picture = w.BoundedIntText(1, min=1, max=9999, description="page", style=FIT), w.HTML()

    def drawn(what: str, split: str, defect: str, called: str, number: int) -> str:
        fits = np.ones(len(rows), bool)
        verdict = np.where(rows["score"] >= look.line, "anomalous", "good")
        for values, wanted in ((rows["split"], split), (rows["defect"], defect), (verdict, called)):
            fits &= np.asarray(values == wanted) | (wanted == ANY[1])
        return looking.page(look, verdicts.pick(rows[fits], what, look.line), number, EACH)

    for control in (what, split, defect, called):
        control.layout.width = "210px"
        control.observe(lambda _: _set(number, 1), "value")
    number.layout.width = "100px"
    _follow(picture, drawn, what, split, defect, called, number)
    return w.VBox([_row(what, split, defect, called, number), picture])


def compare(look: looking.Look, others: dict[str, Path], data_root: str = "") -> w.Box:
    """Two configurations on the same image, and where it lies among their scores. others:
    looking.others."""
    if not others:
        return w.VBox([
            w.HTML(
                scenes.paragraph(
                    t("view.only_name_finished_run_category", name=look.name,
                      category=look.run.category.name)))
        ])

    @functools.cache
    def opened(name: str) -> tuple[looking.Look, typing.Any]:
        other = looking.look(others[name], data_root)
        return other, looking.together(look, other)

    second = w.Dropdown(options=list(others), description=f"{look.name} beside", style=FIT)
    image = w.IntSlider(0, 0,
                        len(look.rows[look.rows["split"] == "test"]) - 1, readout=False,
                        layout={"width": "420px"})
    picture = w.HTML()

    def begin(_: typing.Any = None) -> None:
        picture.value = scenes.paragraph(t("view.opening_name", name=second.value))
        with contextlib.suppress(InputError):  # told where the picture is drawn
            image.value = looking.farthest(opened(second.value)[1])

    second.observe(begin, "value")
    begin()
    _follow(picture, lambda name, i: looking.compared(look, *opened(name), i), second, image)
    return w.VBox([
        second,
        _row(w.Label(f"images that {look.name} ranks higher"), image,
             w.Label("that the other does")), picture
    ])


def what_if(look: looking.Look) -> w.Box:
    """An anomaly of any kind, place, size and contrast in a good picture: map, score and verdict
    follow."""
    good = look.rows[look.rows["split"].isin(["held_out", "test"])
                     & (look.rows["label"] == 0).fillna(False)]
    good = good if len(good) > 1 else look.rows[look.rows["split"] == "train"]
    keys = list(good["path"])
    loaded = images.load([look.run.category.root / key for key in keys], look.run.config.image_size)
    part = w.Dropdown(
        options=[(f"{row.split} {Path(row.path).name}", i)
                 for i, row in enumerate(good.itertuples())], description="picture")
    kind = w.Dropdown(options=KINDS, description="anomaly")
    x, y = (w.FloatSlider(0.5, min=0, max=1, step=0.01, description=name)
            for name in ("across", "down"))
    size = w.FloatSlider(1.0, min=0.25, max=2, step=0.05, description="size")
    contrast = w.FloatSlider(1.0, min=0, max=1, step=0.05, description="contrast")
    another, seed, picture = w.Button(description="another one"), w.IntText(0), w.HTML()
    another.on_click(lambda _: _set(seed, seed.value + 1))
    _follow(
        picture,
        lambda i, kind, x, y, size, contrast, seed: looking.dropped(look, loaded[i], loaded[
            (i + 1) % len(loaded)], kind, centre=(
                y, x), size=size, contrast=contrast, seed=seed, before=good["score"].iloc[i]), part,
        kind, x, y, size, contrast, seed)
    return w.VBox(
        [_row(w.VBox([part, kind, another]), w.VBox([x, y]), w.VBox([size, contrast])), picture])


def browse(category: Category, size: int) -> w.Box:
    """Any images of a category, a kind at a time."""
    groups = eda.groups(category)
    kind = w.Dropdown(options=[(f"{name} ({len(paths)})", name) for name, paths in groups.items()],
                      description="kind")
    number, picture = w.BoundedIntText(1, min=1, max=9999, description="page",
                                       layout=w.Layout(width="160px")), w.HTML()
    kind.observe(lambda _: _set(number, 1), "value")
    _follow(picture, lambda name, number: eda.page(category, groups[name], size, number, MANY),
            kind, number)
    return w.VBox([_row(kind, number), picture])


def _follow(picture: w.HTML, drawn: typing.Callable[..., str], *controls: w.Widget) -> None:
    """Keep the picture at what `drawn` makes of the controls' values, now and whenever one is
    moved; an InputError is shown as it is."""
    def redraw(_: typing.Any = None) -> None:
        try:
            picture.value = f'<div class="adlib">{STYLE}{drawn(*(control.value for control in controls))}</div>'
        except InputError as error:
            picture.value = scenes.paragraph(str(error))

    for control in controls:
        control.observe(redraw, "value")
    redraw()


def _row(*controls: w.Widget) -> w.Box:
    return w.HBox(list(controls), layout=w.Layout(flex_flow="row wrap", grid_gap="0 10px"))


def _set(control: w.Widget, value: typing.Any) -> None:
    control.value = value
