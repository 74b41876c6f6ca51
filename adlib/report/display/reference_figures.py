"""The four pictures that the reference document asks of a run, as PNG files of its folder, in
English. The run's page shows more of each, in its own colours."""
from __future__ import annotations

import contextlib
import functools
import typing
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import font_manager

from adlib.config import log
from adlib.data import files
from adlib.evaluation.auroc import roc_curve
from adlib.evaluation.results import arrays
from adlib.report.display import gallery
from adlib.report.words import sentences
from adlib.runs.overlays import HEAT

if typing.TYPE_CHECKING:
    from adlib.data.part import ImageSet, Part
    from adlib.evaluation.calibration import Decision
    from adlib.evaluation.results import Results
    from adlib.models.detector import Detector

GOOD, ANOMALOUS, GREY = "#2f6690", "#c8553d", "#8d99ae"
# in matplotlib's own font, and what that lacks in the first of these that is installed
CJK = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "PingFang SC",
       "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei",
       "WenQuanYi Zen Hei", "Droid Sans Fallback", "Arial Unicode MS")
STYLE = {"font.size": 10, "axes.titlesize": 11, "axes.titlelocation": "left", "axes.grid": True,
         "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
         "grid.color": "#e6e6e6", "legend.frameon": False, "hatch.linewidth": 0.4,
         "figure.constrained_layout.use": True, "text.parse_math": False}


@contextlib.contextmanager
def _figure(path: Path, *grid: int, **how: typing.Any) -> typing.Iterator[tuple]:
    """A figure and its axes to draw into, made as by plt.subplots, and saved at the end."""
    with plt.rc_context(STYLE | {"font.family": _fonts()}), files.atomic_path(path) as temporary:
        figure, axes = plt.subplots(*grid, **how)
        yield figure, axes
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
        plt.close(figure)


@functools.cache
def _fonts() -> list[str]:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *[name for name in CJK if name in installed][:1]]


def _drawable(text: str) -> str:
    """The text, with the code in the place of each character that no font here has."""
    fonts = [font_manager.get_font(font_manager.findfont(name)) for name in _fonts()]
    drawable = {mark for mark in text if any(font.get_char_index(ord(mark)) for font in fonts)}
    if set(text) - drawable:
        log.warning("no font here has the characters of %s: visualization_result.png has their "
                    "codes; install one of %s, or another", text, ", ".join(CJK[:2]))
    return "".join(mark if mark in drawable else ascii(mark)[1:-1] for mark in text)


def loss_curve(history: list[dict], folder: Path) -> None:
    """loss_curve.png: training and held-out loss over epochs, logarithmic where both are above 0.
    history: Detector.history, not empty."""
    table = pd.DataFrame(history)
    with _figure(folder / "loss_curve.png", figsize=(6.5, 3.4)) as (_, axes):
        axes.plot(table["epoch"], table["loss"], color=GOOD, label="training images")
        axes.plot(table["epoch"], table["held_out_loss"], "--", color=ANOMALOUS,
                  label="held-out good images")
        axes.set(xlabel="epoch", ylabel="loss", title="Training loss")
        if not (table[["loss", "held_out_loss"]] <= 0).any(axis=None):
            axes.semilogy()
            axes.yaxis.set_minor_formatter("{x:.2g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.legend()


def roc(results: Results, name: str, folder: Path) -> None:
    """roc_curve.png: of the score in use, `name`, on the test split; grey, of the reference
    score."""
    with _figure(folder / "roc_curve.png", figsize=(4.6, 4.6)) as (_, axes):
        axes.plot([0, 1], [0, 1], ":", color="#999999", linewidth=0.8)
        for code, column, entry, look in (
                (results.metrics["score"], "score", results.auroc, {"color": GREY, "linewidth": 1}),
                (name, "chosen_score", results.chosen["auroc"], {"color": GOOD})):
            value = entry["test"]["value"]
            if value is not None and (code != name or column == "chosen_score"):
                axes.plot(*roc_curve(*arrays(results.table, "test", column))[:2], **look,
                          label=f"{sentences.score(code)}: AUROC {value:.3f}")
                axes.legend(loc="lower right", fontsize=8)
        axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal",
                 title="ROC curve, test split")


def score_distribution(results: Results, name: str, folder: Path) -> None:
    """score_distribution.png: the score in use, `name`, of training, good and anomalous test
    images, as densities over common bins."""
    table = results.table
    test = table[table["split"] == "test"]
    bins = np.histogram_bin_edges(table["chosen_score"], bins=28)
    with _figure(folder / "score_distribution.png", figsize=(6.5, 3.4)) as (_, axes):
        for label, rows, colour, hatch in (
                ("train, good", table[table["split"] == "train"], GREY, "//"),
                ("test, good", test[test["label"] == 0], GOOD, ""),
                ("test, anomalous", test[test["label"] == 1], ANOMALOUS, "xx"),
                ("test, unlabelled", test[test["label"].isna()], "#444444", "..")):
            if len(rows):
                axes.hist(rows["chosen_score"], bins=bins, density=True, alpha=0.5, color=colour,
                          hatch=hatch, edgecolor=colour, label=f"{label} ({len(rows)})")
        axes.set(xlabel=f"{sentences.score(name)} (higher = more anomalous)", ylabel="density",
                 title="Anomaly scores")
        axes.legend(fontsize=8)


def visualization(detector: Detector, results: Results, decision: Decision, part: Part,
                  folder: Path) -> None:
    """visualization_result.png: test images in columns, the lowest and the highest scores in use of
    each class; the input, the reconstruction and |residual| where the detector redraws, the map.

    One colour scale a row: of |residual|, yellow is what one pixel in a thousand of good training
    images exceeds; of the map, twice what one in twenty held-out good images reaches anywhere.
    """
    test = gallery.with_scores(results.table).sort_values("score", kind="stable")
    chosen = pd.concat([rows if len(rows) <= 4 else pd.concat(
        [rows.head(2), rows.tail(2)]) for rows in (
            test[test["label"] == 0], test[test["label"] == 1], test[test["label"].isna()])])
    images, low = part.test.select(chosen.index), decision.low
    rows = {"input": (images.tensor.permute(0, 2, 3, 1).numpy(), 0.0, 255.0)}
    if hasattr(detector, "reconstruct"):
        _, normal = _redrawn(detector, part.good.select(range(min(64, len(part.good)))))
        redrawn, residual = _redrawn(detector, images)
        rows["reconstruction"] = (redrawn, 0.0, 1.0)
        rows["|residual|"] = (residual, 0.0, float(np.quantile(normal, 0.999)))
    rows["anomaly map"] = (results.maps[chosen.index], low,
                           low + 2 * max(decision.level - low, 1e-12))

    # places in inches: to look for them (constrained layout) takes longer than all the rest
    columns, left, right, top = len(chosen), 0.3, 0.5, 0.55
    wide, high = 1.35 * columns + left + right + 0.2, 1.35 * len(rows) + top
    places = {"left": left / wide, "right": 1 - right / wide, "top": 1 - top / high,
              "bottom": 0.05 / high, "wspace": 0.06, "hspace": 0.06,
              "width_ratios": [1.0] * columns + [0.1]}
    with _figure(folder / "visualization_result.png", len(rows), columns + 1, squeeze=False,
                 figsize=(wide, high), layout="none", gridspec_kw=places) as (figure, axes):
        for line, (kind, (pictures, start, stop)) in zip(axes, rows.items(), strict=True):
            for ax, picture in zip(line[:-1], pictures, strict=True):
                drawn = ax.imshow(picture, vmin=start, vmax=stop, cmap=HEAT)
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
            line[0].set_ylabel(kind)
            line[-1].set_axis_off()
            if pictures.ndim == 3:
                figure.colorbar(drawn, ax=line[-1], fraction=1, aspect=12, extend="max")
        for ax, row in zip(axes[0, :-1], chosen.itertuples(), strict=True):
            names = map(_drawable, (row.defect or "unlabelled", Path(row.path).name))
            ax.set_title("\n".join([*names, f"{row.score:.4g}"]), fontsize=7.5, loc="center")


def _redrawn(detector: Detector, images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Reconstruction [N,S,S,3] in [0,1], and its mean absolute difference [N,S,S] from the
    input."""
    y = detector.reconstruct(images.tensor)
    return y.permute(0, 2, 3, 1).numpy(), (images.tensor.float() / 255 - y).abs().mean(1).numpy()
