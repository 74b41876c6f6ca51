"""A finished run opened to look through: what it makes of an image, beside another run, with a
defect put in; and the widgets of JupyterLab for what has to be computed on the way.

What needs no Python, the threshold and the gallery, is the component of the report's pages. A
widget is a box of controls and of HTML; the HTML it starts with is what an executed notebook shows.
"""
from __future__ import annotations

import contextlib
import dataclasses
import functools
import typing
from pathlib import Path

import ipywidgets as w
import numpy as np
import pandas as pd
import torch
from markupsafe import Markup

from adlib.config import KINDS, Config, InputError, did_you_mean
from adlib.data.part import ImageSet, Part
from adlib.data.synthetic import anomalies
from adlib.evaluation import operating_point
from adlib.report import clouds, comparison, components, eda, figures
from adlib.report.i18n import t
from adlib.runs import inference, run_folder
from adlib.runs.inference import Reopened

MIDDLE, LARGE, PAGE = 128, 200, 24  # pixels of a picture beside another run's, and alone; of a page
FIT = {"description_width": "initial"}


@dataclasses.dataclass(frozen=True, eq=False)
class Look:
    """A finished run, its data, and its Results.table."""

    run: Reopened
    part: Part
    table: pd.DataFrame

    @property
    def name(self) -> str:
        return self.run.config.name

    @functools.cached_property
    def test(self) -> pd.DataFrame:
        """A row a test image: path, label, defect, score, p_value."""
        return self.rows("test")

    def rows(self, split: str) -> pd.DataFrame:
        return components.with_scores(self.table[self.table["split"] == split])

    def images(self, keys: typing.Sequence[str]) -> ImageSet:
        """Images of the category by their keys (the column `path`)."""
        root = self.part.category.root
        return ImageSet(self.part.category, tuple(root / key for key in keys),
                        self.run.config.image_size)

    def seen(self, images: torch.Tensor, size: int, masks: torch.Tensor | None = None) -> tuple[
            np.ndarray, list[dict]]:
        """The scores [N] of uint8 [N,3,S,S], and the pictures of each (components.views)."""
        scores, maps = self.run.score_with_maps(images)
        return scores, components.seen(images, maps, self.run.decision, self.run.detector, size,
                                       masks)


def open_run(folder: Path, data_root: str = "") -> Look:
    """Open a finished run.

    Raises:
        InputError: as inference.reopen_with_data.
    """
    table = comparison.read_results(folder).astype({"label": "Int64"})
    return Look(*inference.reopen_with_data(folder, data_root), table)


def find(config: Config) -> Path:
    """The folder of the finished run that a configuration's name and seed mean; without a category,
    of the first that has one.

    Raises:
        InputError: where there is none.
    """
    reports = run_folder.reports_dir(config.reports)
    finished = [path for path in run_folder.all_runs(reports) if _finished(path)]
    for path in finished:
        category, name, seed = path.parts[-3:]
        if ((name, seed) == (config.name, f"seed-{config.seed}")
                and config.category in ("", category)):
            return path
    if not finished:
        raise InputError(f"there is no finished run in {reports}; run `adlib run "
                         "params/grids/quick.yaml` first")
    wanted = f"{config.category}/{config.name}/seed-{config.seed}".removeprefix("/")
    raise InputError(
        f"{reports} has no finished run {wanted!r} (run its configuration first, or set category, "
        f"name and seed){did_you_mean(wanted, ['/'.join(path.parts[-3:]) for path in finished])}")


def others(folder: Path) -> dict[str, Path]:
    """{configuration: folder} of the finished runs of the same category and reports, other
    configurations, the first seed of each."""
    found: dict[str, Path] = {}
    for path in run_folder.all_runs(folder.parents[3]):
        if path.parts[-3] == folder.parts[-3] and path.parent != folder.parent and _finished(path):
            found.setdefault(path.parent.name, path)
    return found


def _finished(folder: Path) -> bool:
    return run_folder.status(folder).state == "finished"


# ---- what the report's pages show, too

def threshold(look: Look) -> Markup:
    """The threshold of the run over its test images, to be moved; a sentence where they have no
    labels of both classes."""
    return (components.threshold(look.table, look.run.threshold, look.run.decision.score)
            or components.paragraph(t("view.test_split_no_labels_both")))


def gallery(look: Look, split: str = "test", what: str = "",
            most: int = components.TILES) -> Markup:
    """Images of a split with their maps.

    Args:
        split: train | held_out | test | train_bad.
        what: one of operating_point.PICKS: the first `most` in that order; empty: the most
            informative ones.
    """
    rows, level = look.rows(split), look.run.threshold.value
    chosen = (operating_point.pick(rows, what, level)[:most] if what else
              operating_point.select_informative(rows, level, most))
    if chosen.empty:
        return components.paragraph(t("view.no_image_like"))
    images = look.images(list(chosen["path"]))
    return components.tiles(chosen, images, look.run.score_with_maps(images.tensor)[1],
                            look.run.decision, look.run.detector, len(rows))


# ---- two runs

def together(one: Look, other: Look) -> pd.DataFrame:
    """The test images of two runs, by how differently they rank them.

    Returns:
        path, label, defect, score, score_other; apart in [-1,1], how much higher `other` ranks it.
    """
    both = one.test.merge(other.test[["path", "score"]], on="path", suffixes=("", "_other"))
    apart = both["score_other"].rank(pct=True) - both["score"].rank(pct=True)
    return both.assign(apart=apart).sort_values("apart", kind="stable", ignore_index=True)


def farthest(pairs: pd.DataFrame) -> int:
    """The row of the anomalous image that two runs rank most differently; of any image where none
    is known to be anomalous."""
    apart, anomalous = pairs["apart"].abs(), (pairs["label"] == 1).fillna(False)
    return int((apart.where(anomalous) if anomalous.any() else apart).argmax())


def compared(one: Look, other: Look, pairs: pd.DataFrame, i: int) -> Markup:
    """Row i of `together`: what either run sees in it, and where it lies among their scores."""
    row, strips = pairs.iloc[i], []
    for look, score in ((one, row["score"]), (other, row["score_other"])):
        images = look.images([row["path"]])
        _, (pictures, ) = look.seen(images.tensor, MIDDLE, images.masks)
        said = components.judged(f"{look.run.decision.score} {score:.4g}", score,
                                 components.known(row["label"]), look.run.threshold, look.name)
        strips.append(components.strip(pictures, f"{look.name}, {row['path']}", said, titled=True))
    plot = clouds.scatter(
        pairs["score"].to_numpy(float), pairs["score_other"].to_numpy(float),
        [components.known(label) for label in pairs["label"]],
        tuple(f"{look.name}: {look.run.decision.score}" for look in (one, other)),
        (one.run.threshold.value, other.run.threshold.value), i)
    said = t("view.defect_file", defect=row["defect"] or t("view.unlabelled"), file=row["path"])
    return components.paragraph(said) + components.flow([plot, components.flow(strips)])


def compare(look: Look, others: dict[str, Path], data_root: str = "") -> w.Box:
    """Two configurations on the same image, and where it lies among their scores."""
    if not others:
        return w.VBox([w.HTML(components.paragraph(t(
            "view.only_name_finished_run_category", name=look.name,
            category=look.part.category.name)))])

    @functools.cache
    def opened(name: str) -> tuple[Look, pd.DataFrame]:
        other = open_run(others[name], data_root)
        return other, together(look, other)

    second = w.Dropdown(options=list(others), description=f"{look.name} beside", style=FIT)
    image = w.IntSlider(0, 0, len(look.test) - 1, readout=False, layout={"width": "420px"})
    picture = w.HTML()

    def begin(_: typing.Any = None) -> None:
        picture.value = components.paragraph(t("view.opening_name", name=second.value))
        with contextlib.suppress(InputError):  # told where the picture is drawn
            image.value = farthest(opened(second.value)[1])

    second.observe(begin, "value")
    begin()
    _follow(picture, lambda name, i: compared(look, *opened(name), i), second, image)
    return w.VBox([second, _row(w.Label(f"images that {look.name} ranks higher"), image,
                                w.Label("that the other does")), picture])


# ---- a defect that was not there

def dropped(look: Look, image: torch.Tensor, other: torch.Tensor, kind: str, *,
            centre: tuple[float, float], size: float, contrast: float, seed: int,
            before: float) -> Markup:
    """A good image with an anomaly dropped into it (anomalies.drop), and what the run makes of
    that. before: the score without it."""
    changed, mask = anomalies.drop(image, other, kind, centre=centre, size=size, contrast=contrast,
                                   seed=seed)
    (score, ), (pictures, ) = look.seen(changed[None], LARGE, mask[None])
    good, bad = (look.test.loc[(look.test["label"] == label).fillna(False), "score"].to_numpy(float)
                 for label in (0, 1))
    run, name = look.run, look.run.decision.score
    said = t("view.share_image_changed_name_before", share=float(mask.float().mean()), name=name,
             before=before, after=score)
    return components.strip(pictures, kind, components.judged(
        said, score, int(mask.any()), run.threshold), titled=True) + clouds.gauge(
            score, good, bad, run.threshold.value, name)


def what_if(look: Look) -> w.Box:
    """An anomaly of any kind, place, size and contrast in a good image: map, score and verdict
    follow."""
    good = look.table[look.table["split"].isin(["held_out", "test"])
                      & (look.table["label"] == 0).fillna(False)]
    good = good if len(good) > 1 else look.table[look.table["split"] == "train"]
    images, before = look.images(list(good["path"])).tensor, good["chosen_score"].to_numpy(float)
    which = w.Dropdown(options=[(f"{row.split} {Path(row.path).name}", i)
                                for i, row in enumerate(good.itertuples())], description="picture")
    kind = w.Dropdown(options=KINDS, description="anomaly")
    x, y = (w.FloatSlider(0.5, min=0, max=1, step=0.01, description=name)
            for name in ("across", "down"))
    size = w.FloatSlider(1.0, min=0.25, max=2, step=0.05, description="size")
    contrast = w.FloatSlider(1.0, min=0, max=1, step=0.05, description="contrast")
    another, seed, picture = w.Button(description="another one"), w.IntText(0), w.HTML()
    another.on_click(lambda _: _set(seed, seed.value + 1))

    def drawn(i: int, kind: str, x: float, y: float, size: float, contrast: float,
              seed: int) -> Markup:
        return dropped(look, images[i], images[(i + 1) % len(images)], kind, centre=(y, x),
                       size=size, contrast=contrast, seed=seed, before=before[i])

    _follow(picture, drawn, which, kind, x, y, size, contrast, seed)
    return w.VBox([_row(w.VBox([which, kind, another]), w.VBox([x, y]), w.VBox([size, contrast])),
                   picture])


def browse(part: Part) -> w.Box:
    """Any images of a category, a kind at a time."""
    groups = eda.groups(part.category)
    kind = w.Dropdown(options=[(f"{name} ({len(paths)})", name) for name, paths in groups.items()],
                      description="kind")
    number, picture = w.BoundedIntText(1, min=1, max=9999, description="page",
                                       layout={"width": "160px"}), w.HTML()
    kind.observe(lambda _: _set(number, 1), "value")
    _follow(picture, lambda name, number: eda.page(part.category, groups[name],
                                                   part.config.image_size, number, PAGE),
            kind, number)
    return w.VBox([_row(kind, number), picture])


# ---- widgets

def show(make: typing.Callable[..., w.Box], *values: typing.Any, fallback: bool = True) -> None:
    """Display the widget that `make` makes of the values; where a notebook is executed with nobody
    there to move it (papermill), the HTML that it starts with.

    fallback: False = nothing there, and no widget is made.
    """
    from IPython.display import display

    if figures.attended():
        box = make(*values)
        display(box._repr_mimebundle_() | {"text/html": still(box)}, raw=True)
    elif fallback:
        figures.show(Markup(still(make(*values))))  # noqa: S704


def still(widget: w.Widget) -> str:
    """The HTML of a widget as it stands, without its controls and its style."""
    if isinstance(widget, w.HTML):
        return getattr(widget, "still", widget.value)
    return "".join(still(child) for child in getattr(widget, "children", ()))


def _follow(picture: w.HTML, drawn: typing.Callable[..., str], *controls: w.Widget) -> None:
    """Keep the picture at what `drawn` makes of the controls' values, now and whenever one is
    moved; an InputError is shown as it is."""
    def redraw(_: typing.Any = None) -> None:
        try:
            picture.still = drawn(*(control.value for control in controls))
        except InputError as error:
            picture.still = components.paragraph(str(error))
        picture.value = components.live(picture.still, moving=False)

    for control in controls:
        control.observe(redraw, "value")
    redraw()


def _row(*controls: w.Widget) -> w.Box:
    return w.HBox(list(controls), layout=w.Layout(flex_flow="row wrap", grid_gap="0 10px"))


def _set(control: w.Widget, value: typing.Any) -> None:
    control.value = value
