"""The figures of one run or one category, the style of all of them, and the two functions that
display anything in a notebook: `show` and `say`.

Colour never carries a meaning alone: line style, hatching or words go with it.
"""
from __future__ import annotations

import dataclasses
import io
import typing
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.text import Text as DrawnText
from PIL import Image, PngImagePlugin

from adlib.config import attended
from adlib.data import files
from adlib.evaluation.auroc import roc_curve
from adlib.evaluation.results import arrays
from adlib.report import components, i18n, sentences
from adlib.report.i18n import Text, join, t
from adlib.runs.overlays import HEAT

if typing.TYPE_CHECKING:
    from adlib.data.part import ImageSet, Part
    from adlib.evaluation.calibration import Decision
    from adlib.evaluation.results import Results
    from adlib.models.detector import Detector

GOOD, ANOMALOUS, TRAIN = "#2f6690", "#c8553d", "#8d99ae"
COLOURS = 128  # of a figure that holds no photograph
SERIES = ("#2f6690", "#c8553d", "#588157", "#7b5ea7", "#b08900", "#3a3a3a")
DASHES = ("-", "--", "-.", ":")
GROUPS = {"train": ("train, good", TRAIN, "//"), "good": ("test, good", GOOD, ""),
          "anomalous": ("test, anomalous", ANOMALOUS, "xx")}
HAIRLINE = {"color": "#999999", "linewidth": 0.8, "linestyle": ":"}


def style() -> None:
    """Set the study's look for every figure that follows."""
    ink = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color",
                         "ytick.color"), "#262626")
    plt.rcParams.update(ink | {
        "figure.dpi": 110, "savefig.dpi": 110, "font.size": 10, "axes.titlesize": 11,
        "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
        "grid.color": "#e6e6e6", "grid.linewidth": 0.7, "legend.frameon": False,
        "figure.constrained_layout.use": True, "hatch.linewidth": 0.4})


# ---- display

def show(figure: plt.Figure | Markup | None, caption: str = "", path: Path | None = None) -> None:
    """Display a figure or a component.

    Args:
        figure: matplotlib's, or HTML of `components`, which in JupyterLab comes with its script;
            None or "" where there is nothing to show.
        caption: the figure's text for those who cannot see it, in the page as its alt attribute.
        path: where to save it as PNG, its text inside; None = nowhere.
    """
    from IPython.display import HTML, display

    if not figure:
        return
    if isinstance(figure, str):
        display(HTML(components.live(figure) if attended() else figure))
        return
    _as_written(figure)
    content = _png(figure, str(caption))
    plt.close(figure)
    if path is not None:
        with files.atomic_path(path) as temporary:
            temporary.write_bytes(content)
    words = {"alt": str(caption), "alt_zh": i18n.chinese(caption)}
    display({"image/png": content, "text/plain": str(caption)}, raw=True,
            metadata={"image/png": words})


def say(text: str) -> None:
    """Display a sentence as text of the page; file names and labels in it are shown as they are,
    never as markup; `commands` as code."""
    from IPython.display import display

    display({"text/html": components.paragraph(text), "text/plain": str(text)}, raw=True)


def _as_written(figure: plt.Figure) -> None:
    """The dollars in a name (of a category, a defect, a file) begin no formula. A logarithmic axis
    writes its own numbers as formulas."""
    scales = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)
              if axis.get_scale() == "log"]
    numbers = {label for axis in scales for label in axis.get_ticklabels(which="both")}
    for text in figure.findobj(DrawnText):
        text.set_parse_math(text in numbers)


def _png(figure: plt.Figure, alt: str) -> bytes:
    """The figure as PNG with its text inside. Lines and areas need no more than a palette, a third
    of the bytes; photographs do."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Description": alt, "Software": None})
    if any(np.ndim(image.get_array()) == 3 for axes in figure.axes for image in axes.images):
        return buffer.getvalue()
    text, smaller = PngImagePlugin.PngInfo(), io.BytesIO()
    text.add_itxt("Description", alt)
    with Image.open(buffer) as drawn:
        drawn.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(
            smaller, "png", optimize=True, pnginfo=text)
    return smaller.getvalue()


# ---- of a run

@dataclasses.dataclass(frozen=True)
class Captioned:
    """A figure of a run: what is drawn (None: nothing is), what it says, and its file's name."""

    plot: plt.Figure | None
    caption: Text
    file: str
    said: bool = True  # is the caption a sentence of the page, too?

    def show(self, folder: Path | None = None) -> None:
        """Display it, and save it in the run's folder."""
        show(self.plot, self.caption, folder and folder / self.file)
        if self.said:
            say(self.caption)


def loss_curve(history: list[dict]) -> Captioned:
    """Training and held-out loss over epochs (log scale); dotted where the reference's schedule
    halved the learning rate. history: Detector.history; without a row nothing was trained."""
    if not history:
        return Captioned(None, t("run.nothing_trained"), "loss_curve.png")
    table = pd.DataFrame(history)
    figure, axes = plt.subplots(figsize=(6.5, 3.4))
    axes.plot(table["epoch"], table["loss"], color=GOOD, label="training images")
    if table["held_out_loss"].notna().any():
        axes.plot(table["epoch"], table["held_out_loss"], color=ANOMALOUS, linestyle="--",
                  label="held-out good images")
    for epoch in table["epoch"][np.isclose(table["lr"] / table["lr"].shift(), 0.5)]:
        axes.axvline(epoch, **HAIRLINE)
    axes.set(xlabel="epoch", ylabel="loss", yscale="log", title="Training loss")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    return Captioned(figure, sentences.loss(history), "loss_curve.png")


def roc(results: Results) -> Captioned:
    """ROC curve of the reference score on the test split; why in words where it is undefined."""
    figure, axes = plt.subplots(figsize=(4.2, 4.2))
    dress_roc(axes)
    auroc = results.auroc["test"]
    if auroc["value"] is None:
        axes.text(0.5, 0.5, sentences.roc(auroc), ha="center", va="center", wrap=True)
    else:
        fpr, tpr, _ = roc_curve(*arrays(results.table, "test"))
        axes.plot(fpr, tpr, color=GOOD,
                  label=f"AUROC {auroc['value']:.3f} [{auroc['low']:.3f}, {auroc['high']:.3f}]")
        axes.legend(loc="lower right")
    axes.set_title("ROC curve, test split")
    return Captioned(figure, sentences.roc(auroc), "roc_curve.png", said=False)


def dress_roc(axes: plt.Axes) -> None:
    """The frame of a ROC curve: labels, limits, the diagonal of guessing."""
    axes.plot([0, 1], [0, 1], **HAIRLINE)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1.01),
             ylim=(-0.01, 1.01), aspect="equal")


def score_distribution(results: Results) -> Captioned:
    """Histograms of the reference score (draw_scores)."""
    figure, axes = plt.subplots(figsize=(6.5, 3.4))
    draw_scores(axes, results.table)
    return Captioned(figure, sentences.distribution(results.table), "score_distribution.png")


def draw_scores(axes: plt.Axes, table: pd.DataFrame, title: str = "Anomaly scores") -> None:
    """Scores of training, good and anomalous test images as densities over common bins. table:
    Results.table."""
    test = table[table["split"] == "test"]
    groups = {"train": table.loc[table["split"] == "train", "score"],
              "good": test.loc[test["label"] == 0, "score"],
              "anomalous": test.loc[test["label"] == 1, "score"]}
    bins = np.histogram_bin_edges(table["score"], bins=28)
    for key, scores in groups.items():
        name, color, hatch = GROUPS[key]
        if len(scores):
            axes.hist(scores, bins=bins, density=True, alpha=0.5, color=color, hatch=hatch,
                      edgecolor=color, label=f"{name} ({len(scores)})")
    if test["label"].isna().any():
        axes.hist(test["score"], bins=bins, density=True, histtype="step", color="black",
                  label=f"test, unlabelled ({len(test)})")
    axes.set(xlabel="score (higher = more anomalous)", ylabel="density", title=title)
    axes.legend(fontsize=8)


def score_study(results: Results) -> Captioned:
    """Every score's label-free AUROC (open) and its real one (filled), in the label-free order."""
    rows = results.score_study.iloc[::-1].reset_index(drop=True)
    figure, axes = plt.subplots(figsize=(6.8, 0.9 + 0.26 * len(rows)))
    axes.plot(rows["label_free"], rows.index, "o", markerfacecolor="none", color=TRAIN,
              label="synthetic anomalies, no labels used")
    for split, color, marker, name in (
            ("test", GOOD, "D", "test split"),
            ("train_bad", ANOMALOUS, "x", "test good against train/bad")):
        if rows[split].notna().any():
            axes.plot(rows[split], rows.index, marker, color=color, label=name)
    axes.axvline(0.5, **HAIRLINE)
    axes.set(yticks=rows.index, xlabel="AUROC", xlim=(min(0.3, axes.get_xlim()[0]), 1.02),
             title="Which score?")
    axes.set_yticklabels([row.score + (f"  ({row.role})" if row.role else "")
                          for row in rows.itertuples()], fontsize=8)
    axes.legend(fontsize=8, loc="lower left")
    return Captioned(figure, sentences.scores(results.score_study), "score_study.png")


def auroc_over_epochs(results: Results) -> Captioned:
    """AUROC on the test split at the epochs whose weights were kept (logarithmic epochs)."""
    table = results.epochs
    figure, axes = plt.subplots(figsize=(6.5, 3.0))
    axes.plot(table["epoch"], table["auroc"], color=GOOD, marker="o")
    axes.axhline(0.5, **HAIRLINE)
    axes.set(xscale="log", xlabel="epochs of training", ylabel="AUROC, test split", ylim=(0, 1.03),
             title="AUROC over epochs", xticks=table["epoch"], xticklabels=table["epoch"])
    axes.minorticks_off()
    return Captioned(figure, sentences.epochs(table), "auroc_over_epochs.png")


def visualization(detector: Detector, results: Results, part: Part,
                  each: int = 4) -> Captioned:
    """Input, reconstruction and |residual| of the test images of the lowest and the highest
    reference scores of each class.

    One colour scale: yellow is what one pixel in a thousand of good training images exceeds.
    """
    test = _test(results, "score", ascending=True)
    groups = [test[test["label"] == 0], test[test["label"] == 1], test[test["label"].isna()]]
    chosen = pd.concat([rows if len(rows) <= each else pd.concat(
        [rows.head(each // 2), rows.tail(each - each // 2)]) for rows in groups])
    *_, normal = _redrawn(detector, part.good.select(range(min(64, len(part.good)))))
    scale, images = float(np.quantile(normal, 0.999)), part.test.select(chosen.index)
    columns = dict(zip(("input", "reconstruction", "residual"), _redrawn(detector, images),
                       strict=True))
    titles = [f"{title}\n{score:.4f}" for title, score in zip(_titles(chosen), chosen["score"],
                                                              strict=True)]
    figure, axes = plt.subplots(3, len(chosen), figsize=(1.35 * len(chosen) + 0.9, 4.4),
                                squeeze=False)
    for row, (kind, pictures) in zip(axes, columns.items(), strict=True):
        residual = kind == "residual"
        for ax, picture in zip(row, pictures, strict=True):
            drawn = ax.imshow(picture, vmin=0, vmax=scale if residual else 1,
                              cmap=HEAT if residual else None)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            ax.spines[:].set_visible(False)
        row[0].set_ylabel("|residual|" if residual else kind)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=7.5, loc="center")
    figure.colorbar(drawn, ax=axes[2, :].tolist(), shrink=0.9, label="|residual|", extend="max")
    named = join((t("run.name_value_f", name=row.defect or t("view.unlabelled"), value=row.score)
                  for row in chosen.itertuples()), ", ")
    caption = t("run.input_reconstruction_residual_heat_map", n=len(chosen), found=named,
                scale=scale)
    return Captioned(figure, caption, "visualization_result.png", said=False)


def heat_maps(results: Results, decision: Decision, part: Part,
              file: str = "anomaly_maps.png", each: int = 5) -> Captioned:
    """Test images above their anomaly maps: anomalous ones of the highest and the lowest chosen
    score, and the highest others.

    One colour scale for all; dashed, the level that one in twenty held-out good images reaches
    anywhere; solid white, the true defect.
    """
    test = _test(results, "chosen_score", ascending=False)
    anomalous = (test["label"] == 1).fillna(False)  # unlabelled images are shown with the good ones
    bad, rest = test[anomalous], test[~anomalous]
    chosen = pd.concat([bad.head(each - each // 2), bad.iloc[each - each // 2:].tail(each // 2),
                        rest.head(3 if len(bad) else each)])
    images, maps = part.test.select(chosen.index), results.maps[chosen.index]
    truth, low, level = images.masks.numpy(), decision.low, decision.level
    figure, axes = plt.subplots(2, len(chosen), figsize=(1.5 * len(chosen) + 0.9, 3.6),
                                squeeze=False)
    for column, (title, picture) in enumerate(zip(
            _titles(chosen), images.tensor.permute(0, 2, 3, 1).numpy(), strict=True)):
        axes[0, column].imshow(picture)
        drawn = axes[1, column].imshow(maps[column], vmin=low,
                                       vmax=low + 2 * max(level - low, 1e-12), cmap=HEAT)
        axes[0, column].set_title(title, fontsize=7.5, loc="center")
        for ax in axes[:, column]:
            ax.axis("off")
            if (maps[column] > level).any():
                ax.contour(maps[column], [level], colors="#00d5ff", linewidths=1.0, linestyles="--")
            if truth[column].any():
                ax.contour(truth[column], [0.5], colors="white", linewidths=1.0)
    bar = figure.colorbar(drawn, ax=axes[1, :].tolist(), shrink=0.9, label="anomaly map",
                          extend="both")
    bar.ax.axhline(level, color="#00d5ff", linestyle="--")
    names = join((t("view.defect_file", defect=row.defect or t("view.unlabelled"),
                    file=Path(row.path).name) for row in chosen.itertuples()), ", ")
    caption = join([t("run.anomaly_maps_score_n_test", score=decision.score, n=len(chosen),
                      names=names), components.outlines(bool(truth.any()))])
    return Captioned(figure, caption, file, said=False)


def _test(results: Results, score: str, *, ascending: bool) -> pd.DataFrame:
    """The test rows in the order of a score, indexed by their place in part.test."""
    test = results.table[results.table["split"] == "test"].reset_index(drop=True)
    return test.sort_values(score, ascending=ascending)


def _titles(rows: pd.DataFrame) -> list[str]:
    return [f"{row.defect or 'unlabelled'}\n{Path(row.path).name}" for row in rows.itertuples()]


def _redrawn(detector: Detector, images: ImageSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input and reconstruction [N,S,S,3] in [0,1], and their mean absolute difference [N,S,S]."""
    x, y = images.tensor.float() / 255, detector.reconstruct(images.tensor)
    return (*(side.permute(0, 2, 3, 1).numpy() for side in (x, y)), (x - y).abs().mean(1).numpy())


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
