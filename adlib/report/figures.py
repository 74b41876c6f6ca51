"""The figures of one run or one category, the style of all of them, and the two functions that
display anything in a notebook: `show` and `say`.

A figure is drawn once, small enough for a phone: as a PNG file for the run's folder, and as SVG in
the colours and the language of the page. Colour never carries a meaning alone: line style, place or
words go with it.
"""
from __future__ import annotations

import dataclasses
import hashlib
import html
import io
import re
import typing
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.text import Text as DrawnText

from adlib.data import files
from adlib.evaluation.auroc import roc_curve
from adlib.evaluation.results import arrays
from adlib.report import components, gallery, i18n, sentences
from adlib.report.i18n import Text, join, t
from adlib.report.render import render
from adlib.runs import overlays
from adlib.runs.overlays import HEAT

if typing.TYPE_CHECKING:
    from adlib.data.part import ImageSet, Part
    from adlib.evaluation.calibration import Decision
    from adlib.evaluation.results import Results
    from adlib.models.detector import Detector

GOOD, ANOMALOUS, GREY = "#2f6690", "#c8553d", "#8d99ae"
INK, RULE = "#262626", "#e6e6e6"
VARIABLES = {GOOD: "--good", ANOMALOUS: "--bad", INK: "--ink", RULE: "--line", "#ffffff": "--paper"}
SERIES = ("#2f6690", "#c8553d", "#588157", "#7b5ea7", "#b08900", "#3a3a3a")
DASHES = ("-", "--", "-.", ":")
HAIRLINE = {"color": "#999999", "linewidth": 0.8, "linestyle": ":"}
REFERENCE = {"color": GREY, "linewidth": 1}  # the mean squared error, where it is not in use
SIZE = (5.0, 3.3)  # inches: 360 units of SVG, about the width of a phone


def style() -> None:
    """Set the study's look for every figure that follows."""
    ink = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color",
                         "ytick.color"), INK)
    plt.rcParams.update(ink | {
        "figure.dpi": 110, "savefig.dpi": 110, "font.size": 10, "axes.titlesize": 11,
        "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
        "grid.color": RULE, "grid.linewidth": 0.7, "legend.frameon": False,
        "figure.constrained_layout.use": True, "svg.fonttype": "none", "svg.hashsalt": "adlib"})


# ---- display

def show(figure: plt.Figure | Markup | None, caption: str = "", path: Path | None = None,
         data: str = "") -> None:
    """Display a figure or a component.

    Args:
        figure: matplotlib's, or HTML of a component, which in JupyterLab comes with its script;
            None or "" where there is nothing to show.
        caption: of a figure: what it shows, also for those who cannot see it.
        path: where to save it as PNG; None = nowhere. Its name is the figure's permalink.
        data: the file of its numbers.
    """
    from IPython.display import display

    if not figure:
        return
    if not isinstance(figure, str):
        drawn = _drawn(figure, caption, path)
        plt.close(figure)
        name = path.stem.replace("_", "-") if path else hashlib.sha256(
            str(caption).encode()).hexdigest()[:8]
        figure = components.figure(drawn, name, caption, data)
    display({"text/html": components.live(figure) if attended() else figure,
             "text/plain": str(caption) or "HTML"}, raw=True)


def say(text: str) -> None:
    """Display a sentence as text of the page; file names and labels in it are shown as they are,
    never as markup; `commands` as code."""
    from IPython.display import display

    display({"text/html": components.paragraph(text), "text/plain": str(text)}, raw=True)


def attended() -> bool:
    """Can the running cell ask somebody a question? JupyterLab's can, papermill's and nbconvert's
    cannot."""
    from IPython import get_ipython

    header = getattr(get_ipython(), "parent_header", None) or {}
    return bool(header.get("content", {}).get("allow_stdin", False))


class Word(Text):
    """A Text that matplotlib keeps as it is, which asks str() for one."""

    def __str__(self) -> Word:
        return self


def word(key: str, **values: typing.Any) -> Word:
    """The message of a key, for labels in a figure: both languages go into its SVG."""
    return Word(t(key, **values), t(key, **values).zh)


def _drawn(figure: plt.Figure, caption: str, path: Path | None) -> Markup:
    """Save a figure as PNG where a path is given; its picture for a page: SVG, or a JPEG where it
    holds photographs."""
    _as_written(figure)
    if path is not None:
        with files.atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", metadata={
                "Description": str(caption), "Software": None})
    if any(axes.images for axes in figure.axes):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="jpeg", pil_kwargs={"quality": 85})
        return render("photographs.html.j2", uri=overlays.data_uri(buffer.getvalue()),
                      caption=caption)
    return svg(figure, caption)


def svg(figure: plt.Figure, caption: str) -> Markup:
    """A figure as SVG whose colours are the page's variables, its text in both languages."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True,
                   metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>|<title>.*?</title>|<style.*?</style>", "",
                   drawn[drawn.index("<svg"):], flags=re.DOTALL)
    # of the ids, clip paths and markers need theirs, each figure its own
    own = hashlib.sha256(drawn.encode()).hexdigest()[:6]
    used = set(re.findall(r'(?:url\(|href=")#([\w.-]+)', drawn))
    drawn = re.sub(r' id="([\w.-]+)"', lambda found: f' id="{found[1]}-{own}"'
                   if found[1] in used else "", drawn)
    drawn = re.sub(r'((?:url\(|href=")#[\w.-]+)', rf"\1-{own}", drawn)
    for colour, variable in VARIABLES.items():
        drawn = drawn.replace(colour, f"var({variable}, {colour})")
    drawn = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans, sans-serif)", drawn)
    words = {str.__str__(one): one.zh for one in (text.get_text() for text in figure.findobj(
        DrawnText)) if isinstance(one, Text) and one.zh != one}

    def spoken(found: re.Match[str]) -> str:
        other = words.get(html.unescape(found[2]))
        return found[0] if other is None else (
            f'<text lang="en"{found[1]}>{found[2]}</text><text lang="zh-CN" visibility="hidden"'
            f'{found[1]}>{html.escape(other)}</text>')

    drawn = re.sub(r"<text([^>]*)>([^<]*)</text>", spoken, drawn)
    box = re.search(r'viewBox="[^"]*"', drawn)[0]
    return render("svg.html.j2", box=box, caption=caption, drawn=drawn[drawn.index(">") + 1:])


def _as_written(figure: plt.Figure) -> None:
    """The dollars in a name (of a category, a defect, a file) begin no formula. A logarithmic axis
    writes its own numbers as formulas."""
    scales = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)
              if axis.get_scale() == "log"]
    numbers = {label for axis in scales for label in axis.get_ticklabels(which="both")}
    for text in figure.findobj(DrawnText):
        text.set_parse_math(text in numbers)


# ---- of a run

@dataclasses.dataclass(frozen=True)
class Captioned:
    """A figure of a run: what is drawn (None: nothing is), what it says, its file's name, and the
    file of its numbers."""

    plot: plt.Figure | None
    caption: Text
    file: str
    data: str = ""

    def show(self, folder: Path | None = None) -> None:
        """Display it, and save it in the run's folder; without a figure, say why."""
        show(self.plot, self.caption, folder and folder / self.file, self.data)
        if self.plot is None:
            say(self.caption)

    def save(self, folder: Path) -> None:
        """Save it in the run's folder, and display nothing: a component shows more of it."""
        _drawn(self.plot, self.caption, folder / self.file)
        plt.close(self.plot)


def loss_curve(history: list[dict]) -> Captioned:
    """Training and held-out loss over epochs (log scale); dotted where the reference's schedule
    halved the learning rate. history: Detector.history; without a row nothing was trained."""
    if not history:
        return Captioned(None, t("run.nothing_trained"), "loss_curve.png")
    table = pd.DataFrame(history)
    figure, axes = plt.subplots(figsize=SIZE)
    lines = [("loss", GOOD, "-", word("figure.training"))]
    if table["held_out_loss"].notna().any():
        lines.append(("held_out_loss", ANOMALOUS, "--", word("figure.held_out")))
    for column, colour, dashes, label in lines:
        axes.plot(table["epoch"], table[column], color=colour, linestyle=dashes, label=label)
    for epoch in table["epoch"][np.isclose(table["lr"] / table["lr"].shift(), 0.5)]:
        axes.axvline(epoch, **HAIRLINE)
    axes.set(xlabel=word("figure.epoch"), yscale="log", title=word("figure.loss"))
    axes.xaxis.get_major_locator().set_params(integer=True)
    _key(figure)
    return Captioned(figure, sentences.loss(history), "loss_curve.png", "history.csv")


def roc(results: Results, name: str) -> Captioned:
    """ROC curve of the score in use on the test split, its threshold marked; thin and grey, that of
    the reference score. name: code of the score. Why in words where it is undefined."""
    figure, axes = plt.subplots(figsize=(4.4, 4.8))
    axes.plot([0, 1], [0, 1], **HAIRLINE)
    axes.set(xlabel=word("figure.fpr"), xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal",
             title=word("figure.tpr"))
    entry, point = results.chosen["auroc"]["test"], results.chosen["operating"]["test"]
    if entry["value"] is not None:
        if results.metrics["score"] != name:
            axes.plot(*_curve(results.table, "score"), **REFERENCE, label=word(
                "figure.auroc_of", name=sentences.score(results.metrics["score"]),
                value=results.auroc["test"]["value"]))
        axes.plot(*_curve(results.table, "chosen_score"), color=GOOD, label=word(
            "figure.auroc_of", name=sentences.score(name), value=entry["value"]))
        if point["detections"] and point["false_positives"]:
            axes.plot(point["false_positives"]["rate"], point["detections"]["rate"], "o",
                      color=ANOMALOUS, clip_on=False, label=word("figure.threshold"))
    _key(figure, 1)
    return Captioned(figure, sentences.roc(results.chosen["auroc"], name), "roc_curve.png",
                     "all_results.csv")


def _curve(table: pd.DataFrame, score: str) -> tuple[np.ndarray, np.ndarray]:
    return roc_curve(*arrays(table, "test", score))[:2]


def score_distribution(results: Results, name: str) -> Captioned:
    """Histograms of the score in use: training, good and anomalous test images, as densities over
    common bins. The page has the threshold in its place, which can be moved."""
    figure, axes = plt.subplots(figsize=SIZE)
    table = results.table
    test = table[table["split"] == "test"]
    groups = {"figure.training": (table[table["split"] == "train"], GREY, "//"),
              "figure.test_good": (test[test["label"] == 0], GOOD, ""),
              "figure.test_anomalous": (test[test["label"] == 1], ANOMALOUS, "xx"),
              "figure.test_unlabelled": (test[test["label"].isna()], INK, "..")}
    bins = np.histogram_bin_edges(table["chosen_score"], bins=28)
    for key, (rows, colour, hatch) in groups.items():
        if len(rows):
            axes.hist(rows["chosen_score"], bins=bins, density=True, alpha=0.5, color=colour,
                      hatch=hatch, edgecolor=colour, label=word(key, n=len(rows)))
    axes.set(xlabel=word("figure.score", name=sentences.score(name)), yticks=[])
    _key(figure)
    return Captioned(figure, sentences.distribution(table), "score_distribution.png")


def score_study(results: Results) -> Captioned:
    """Every score's label-free AUROC (open) and its real one (filled), in the label-free order."""
    rows = results.score_study.iloc[::-1].reset_index(drop=True)
    figure, axes = plt.subplots(figsize=(5.0, 1.3 + 0.26 * len(rows)))
    axes.plot(rows["label_free"], rows.index, "o", markerfacecolor="none", color=INK,
              label=word("figure.label_free"))
    for split, key, colour, marker in (("test", "figure.on_test", GOOD, "D"),
                                       ("train_bad", "figure.on_train_bad", ANOMALOUS, "x")):
        if rows[split].notna().any():
            axes.plot(rows[split], rows.index, marker, color=colour, label=word(key))
    axes.axvline(0.5, **HAIRLINE)
    axes.set(yticks=rows.index, xlabel="AUROC", xlim=(min(0.3, axes.get_xlim()[0]), 1.02))
    names = [sentences.score(code) for code in rows["score"]]
    axes.set_yticklabels([Word(name, i18n.chinese(name)) for name in names], fontsize=8)
    for label, role in zip(axes.get_yticklabels(), rows["role"], strict=True):
        label.set_fontweight("bold" if role and role != "its own" else "normal")
    _key(figure)
    return Captioned(figure, sentences.scores(results.score_study), "score_study.png",
                     "score_study.csv")


def auroc_over_epochs(results: Results) -> Captioned:
    """AUROC of the reference score on the test split at the epochs whose weights were kept
    (logarithmic epochs)."""
    table = results.epochs
    figure, axes = plt.subplots(figsize=SIZE)
    axes.plot(table["epoch"], table["auroc"], marker="o", **REFERENCE | {"color": INK})
    axes.axhline(0.5, **HAIRLINE)
    axes.set(xscale="log", xlabel=word("figure.epochs_of_training"), ylim=(0, 1.03),
             title=word("figure.auroc_reference"), xticks=table["epoch"],
             xticklabels=table["epoch"])
    axes.minorticks_off()
    return Captioned(figure, sentences.epochs(table), "auroc_over_epochs.png", "epochs.csv")


def visualization(detector: Detector, results: Results, decision: Decision, part: Part,
                  each: int = 4) -> Captioned:
    """Test images in columns, the lowest and the highest scores in use of each class: the input,
    the reconstruction and |residual| where the detector redraws, and the anomaly map.

    One colour scale a row: of |residual|, yellow is what one pixel in a thousand of good training
    images exceeds; of the map, twice what one in twenty held-out good images reaches anywhere.
    """
    test = gallery.with_scores(results.table[results.table["split"] == "test"])
    test = test.sort_values("score", kind="stable")
    groups = [test[test["label"] == 0], test[test["label"] == 1], test[test["label"].isna()]]
    chosen = pd.concat([rows if len(rows) <= each else pd.concat(
        [rows.head(each // 2), rows.tail(each - each // 2)]) for rows in groups])
    images, rows, low = part.test.select(chosen.index), {}, decision.low
    rows["input"] = (images.tensor.permute(0, 2, 3, 1).numpy(), 0, 255)
    if hasattr(detector, "reconstruct"):
        *_, normal = _redrawn(detector, part.good.select(range(min(64, len(part.good)))))
        _, redrawn, residual = _redrawn(detector, images)
        rows["reconstruction"] = (redrawn, 0, 1)
        rows["|residual|"] = (residual, 0, float(np.quantile(normal, 0.999)))
    rows["anomaly map"] = (results.maps[chosen.index], low,
                           low + 2 * max(decision.level - low, 1e-12))
    figure, axes = plt.subplots(len(rows), len(chosen), squeeze=False, figsize=(
        1.35 * len(chosen) + 0.9, 1.35 * len(rows) + 0.5))
    for line, (kind, (pictures, start, stop)) in zip(axes, rows.items(), strict=True):
        for ax, picture in zip(line, pictures, strict=True):
            drawn = ax.imshow(picture, vmin=start, vmax=stop, cmap=HEAT)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            ax.spines[:].set_visible(False)
        line[0].set_ylabel(kind)
        if pictures.ndim == 3:
            figure.colorbar(drawn, ax=line.tolist(), shrink=0.9, extend="max")
    for ax, row in zip(axes[0], chosen.itertuples(), strict=True):
        ax.set_title(f"{row.defect or 'unlabelled'}\n{Path(row.path).name}\n{row.score:.4g}",
                     fontsize=7.5, loc="center")
    named = join((t("list.value_4", name=sentences.defect(row.defect), value=row.score)
                  for row in chosen.itertuples()), ", ")
    caption = t("run.pictures_of_images", n=len(chosen), found=named)
    return Captioned(figure, caption, "visualization_result.png")


def _redrawn(detector: Detector, images: ImageSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input and reconstruction [N,S,S,3] in [0,1], and their mean absolute difference [N,S,S]."""
    x, y = images.tensor.float() / 255, detector.reconstruct(images.tensor)
    return (*(side.permute(0, 2, 3, 1).numpy() for side in (x, y)), (x - y).abs().mean(1).numpy())


def _key(figure: plt.Figure, columns: int = 2) -> None:
    """What the lines and marks are, above them and never over them."""
    if figure.axes[0].get_legend_handles_labels()[1]:
        figure.legend(loc="outside upper left", ncols=columns, fontsize=9, handlelength=1.4,
                      columnspacing=1.2)


# ---- of a category

def montage(rows: dict[str, np.ndarray]) -> plt.Figure:
    """Some pictures of each kind, a row a kind. rows: {title: [N,S,S,3] in [0,1]}."""
    width = max(len(pictures) for pictures in rows.values())
    figure, axes = plt.subplots(len(rows), width, figsize=(1.25 * width, 1.45 * len(rows)),
                                squeeze=False)
    for row, (title, pictures) in zip(axes, rows.items(), strict=True):
        for ax in row:
            ax.axis("off")
        for ax, picture in zip(row, pictures, strict=False):
            ax.imshow(picture, vmin=0, vmax=1)
        row[0].set_title(title, fontsize=9, loc="left")
    return figure


def mean_and_deviation(pictures: np.ndarray) -> plt.Figure:
    """Mean image, and each pixel's deviation over the images: where good parts differ among
    themselves. [N,S,S,3] in [0,1]."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3))
    left.imshow(pictures.mean(axis=0))
    left.set_title("mean image")
    drawn = right.imshow(pictures.std(axis=0).mean(axis=-1), cmap=HEAT, vmin=0)
    right.set_title("standard deviation")
    figure.colorbar(drawn, ax=right, label="grey levels, 0 to 1")
    for ax in (left, right):
        ax.axis("off")
    return figure


def brightness(groups: dict[str, np.ndarray]) -> plt.Figure:
    """Mean grey value of the images of each group: what a detector could read off the exposure
    alone. {title: [N] in [0,1]}."""
    import seaborn as sns  # here, because a run's notebook should not pay for this import

    figure, axes = plt.subplots(figsize=(6.4, 0.6 + 0.6 * len(groups)))
    values = {f"{name} ({len(greys)})": greys for name, greys in groups.items()}
    sns.boxplot(values, orient="h", ax=axes, color="white", showfliers=False, linecolor="#262626",
                linewidth=1, width=0.6)
    sns.stripplot(values, orient="h", ax=axes, color=ANOMALOUS, size=2.5, alpha=0.6, jitter=0.2)
    axes.set(xlabel="mean grey value, 0 to 1", title="Brightness")
    return figure
