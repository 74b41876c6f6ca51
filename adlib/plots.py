"""Every figure of the study, in one style. Colour never carries a meaning alone: line style, hatching or words go with it."""
from __future__ import annotations

import io
import typing
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from adlib import evaluate, files, metrics

GOOD, ANOMALOUS, TRAIN = "#2f6690", "#c8553d", "#8d99ae"
SERIES = ("#2f6690", "#c8553d", "#588157", "#7b5ea7", "#b08900", "#3a3a3a")
DASHES = ("-", "--", "-.", ":")
HEAT = "plasma"  # deep blue = as expected, through red to yellow = not; even steps in lightness, unlike jet
GROUPS = {"train": ("train, good", TRAIN, "//"), "good": ("test, good", GOOD, ""), "anomalous": ("test, anomalous", ANOMALOUS, "xx")}


def style() -> None:
    """Set the study's look for every figure that follows."""
    sns.set_theme(style="ticks", rc={
        "figure.dpi": 110, "savefig.dpi": 110, "font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold",
        "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
        "grid.color": "#e6e6e6", "grid.linewidth": 0.7, "legend.frameon": False, "figure.constrained_layout.use": True,
        "hatch.linewidth": 0.4})


def show(figure: plt.Figure, alt: str, path: Path | None = None) -> None:
    """Save a figure as PNG under `path` (if given) and display it in the notebook with `alt` as its text for those who
    cannot see it. The report prints that text as the picture's alt attribute."""
    from IPython.display import display

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Description": alt, "Software": None})
    plt.close(figure)
    if path is not None:
        with files.atomic_path(path) as temporary:
            temporary.write_bytes(buffer.getvalue())
    display({"image/png": buffer.getvalue(), "text/plain": alt}, raw=True, metadata={"image/png": {"alt": alt}})


def loss_curve(history: list[dict]) -> plt.Figure:
    """Training and held-out loss over epochs (log scale), the learning rate's steps marked below."""
    table = pd.DataFrame(history)
    figure, axes = plt.subplots(figsize=(6.5, 3.4))
    axes.plot(table["epoch"], table["loss"], color=GOOD, label="training images")
    if table["held_out_loss"].notna().any():
        axes.plot(table["epoch"], table["held_out_loss"], color=ANOMALOUS, linestyle="--", label="held-out good images")
    for epoch in table["epoch"][table["lr"].diff() < 0]:
        axes.axvline(epoch, color="#999999", linewidth=0.8, linestyle=":")
    axes.set(xlabel="epoch", ylabel="loss", yscale="log", title="Training loss")
    axes.legend()
    return figure


def roc(table: pd.DataFrame, auroc: dict[str, typing.Any]) -> plt.Figure:
    """ROC curve of one run on the test split; says why in words where it is undefined."""
    figure, axes = plt.subplots(figsize=(4.2, 4.2))
    _dress_roc(axes)
    if auroc["value"] is None:
        axes.text(0.5, 0.5, f"no ROC curve:\n{auroc['why_absent']}", ha="center", va="center", wrap=True)
    else:
        fpr, tpr, _ = metrics.roc_curve(*evaluate.arrays(table, "test"))
        axes.plot(fpr, tpr, color=GOOD, label=f"AUROC {auroc['value']:.3f} [{auroc['low']:.3f}, {auroc['high']:.3f}]")
        axes.legend(loc="lower right")
    axes.set_title("ROC curve, test split")
    return figure


def score_distribution(table: pd.DataFrame, title: str = "Anomaly scores", axes: plt.Axes | None = None) -> plt.Figure:
    """Histograms of the scores of training, good and anomalous test images, as densities over common bins."""
    if axes is None:
        _, axes = plt.subplots(figsize=(6.5, 3.4))
    test = table[table["split"] == "test"]
    groups = {"train": table.loc[table["split"] == "train", "score"], "good": test.loc[test["label"] == 0, "score"],
              "anomalous": test.loc[test["label"] == 1, "score"]}
    bins = np.histogram_bin_edges(table["score"], bins=28)
    for key, scores in groups.items():
        name, color, hatch = GROUPS[key]
        if len(scores):
            axes.hist(scores, bins=bins, density=True, alpha=0.5, color=color, hatch=hatch, edgecolor=color,
                      label=f"{name} ({len(scores)})")
    if test["label"].isna().any():
        axes.hist(test["score"], bins=bins, density=True, histtype="step", color="black", label=f"test, unlabelled ({len(test)})")
    axes.set(xlabel="score (higher = more anomalous)", ylabel="density", title=title)
    axes.legend(fontsize=8)
    return axes.figure


def visualization(pictures: dict[str, np.ndarray], titles: list[str], scale: float) -> plt.Figure:
    """Input, reconstruction and residual heat map of some images, one column each.

    pictures: score.examples. scale: the residual at the warm end, the same for every image, taken from training normals.
    """
    count = len(titles)
    figure, axes = plt.subplots(3, count, figsize=(1.35 * count + 0.9, 4.4), squeeze=False)
    for row, kind in enumerate(("input", "reconstruction", "residual")):
        for column in range(count):
            ax, picture = axes[row, column], pictures[kind][column]
            drawn = ax.imshow(picture, vmin=0, vmax=scale if kind == "residual" else 1, cmap=HEAT if kind == "residual" else None)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            sns.despine(ax=ax, left=True, bottom=True)
            if column == 0:
                ax.set_ylabel("|residual|" if kind == "residual" else kind)
            if row == 0:
                ax.set_title(titles[column], fontsize=7.5, loc="center")
    figure.colorbar(drawn, ax=axes[2, :].tolist(), shrink=0.9, label="|residual|", extend="max")
    return figure


def auroc_over_epochs(table: pd.DataFrame) -> plt.Figure:
    """AUROC on the test split at the epochs whose weights were kept (logarithmic epochs)."""
    figure, axes = plt.subplots(figsize=(6.5, 3.0))
    axes.plot(table["epoch"], table["auroc"], color=GOOD, marker="o")
    axes.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlabel="epochs of training", ylabel="AUROC, test split", ylim=(0, 1.03), title="AUROC over epochs",
             xticks=table["epoch"], xticklabels=table["epoch"])
    axes.minorticks_off()
    return figure


def auroc_bars(rows: pd.DataFrame) -> plt.Figure:
    """Measured AUROC with its 95 % interval per category and configuration, over the range the seed claims (grey).

    rows: columns category, name, auroc, low, high, claim_low, claim_high (compare.performance), one row a bar.
    """
    categories = list(dict.fromkeys(rows["category"]))
    figure, axes = plt.subplots(1, len(categories), figsize=(3.6 * len(categories) + 1, 3.6), sharey=True, squeeze=False)
    for ax, category in zip(axes[0], categories, strict=True):
        part = rows[rows["category"] == category].reset_index(drop=True)
        for x, row in part.iterrows():
            if not np.isnan(row["claim_low"]):
                ax.fill_between([x - 0.45, x + 0.45], row["claim_low"], row["claim_high"], color="#cccccc", zorder=1, linewidth=0)
            if np.isnan(row["auroc"]):
                ax.text(x, 0.05, row["status"], rotation=90, ha="center", va="bottom", fontsize=8)
            else:
                ax.errorbar(x, row["auroc"], [[row["auroc"] - row["low"]], [row["high"] - row["auroc"]]], fmt="o", capsize=4,
                            color=SERIES[x % len(SERIES)], zorder=3)
                ax.annotate(f"{row['auroc']:.2f}", (x, row["auroc"]), (7, 0), textcoords="offset points", va="center", fontsize=8)
        ax.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":")
        ax.set(title=category, xticks=range(len(part)), ylim=(0, 1.03), xlim=(-0.6, len(part) - 0.3))
        ax.set_xticklabels(part["label"], rotation=30, ha="right", fontsize=8)
    axes[0, 0].set_ylabel("AUROC, 95 % interval")
    return figure


def roc_together(tables: dict[tuple[str, str], pd.DataFrame]) -> plt.Figure:
    """ROC curves of all configurations, one panel a category. tables: {(category, configuration): all_results}."""
    if not tables:
        return _nothing()
    categories = list(dict.fromkeys(category for category, _ in tables))
    figure, axes = plt.subplots(1, len(categories), figsize=(4.2 * len(categories), 4.2), squeeze=False)
    for ax, category in zip(axes[0], categories, strict=True):
        _dress_roc(ax)
        curves = [(name, table) for (where, name), table in tables.items() if where == category]
        for i, (name, table) in enumerate(curves):
            labels, scores = evaluate.arrays(table, "test")
            if 0 < labels.sum() < len(labels):
                fpr, tpr, _ = metrics.roc_curve(labels, scores)
                ax.plot(fpr, tpr, DASHES[i % 4], color=SERIES[i % len(SERIES)], label=name)
        ax.set_title(category)
        ax.legend(loc="lower right", fontsize=8)
    return figure


def distributions_together(tables: dict[tuple[str, str], pd.DataFrame]) -> plt.Figure:
    """The score distribution of every run, side by side: a row a configuration, a column a category."""
    if not tables:
        return _nothing()
    categories, names = (list(dict.fromkeys(key[i] for key in tables)) for i in (0, 1))
    figure, axes = plt.subplots(len(names), len(categories), figsize=(4.4 * len(categories), 2.3 * len(names)), squeeze=False)
    for row, name in enumerate(names):
        for column, category in enumerate(categories):
            if (category, name) in tables:
                score_distribution(tables[category, name], f"{category}, {name}", axes[row, column])
            else:
                axes[row, column].axis("off")
    return figure


def epochs_together(curves: dict[tuple[str, str], pd.DataFrame]) -> plt.Figure:
    """AUROC over epochs of every configuration, one panel a category. curves: {(category, configuration): epochs.csv}."""
    if not curves:
        return _nothing()
    categories = list(dict.fromkeys(category for category, _ in curves))
    figure, axes = plt.subplots(1, len(categories), figsize=(4.2 * len(categories), 3.4), sharey=True, squeeze=False)
    for ax, category in zip(axes[0], categories, strict=True):
        for i, (name, table) in enumerate((n, t) for (c, n), t in curves.items() if c == category):
            ax.plot(table["epoch"], table["auroc"], DASHES[i % 4], marker="o", markersize=3, color=SERIES[i % len(SERIES)], label=name)
        ax.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":")
        ax.set(xscale="log", title=category, xlabel="epochs of training", ylim=(0, 1.03))
        ax.legend(fontsize=8, loc="lower right")
    axes[0, 0].set_ylabel("AUROC, test split")
    return figure


def montage(rows: dict[str, np.ndarray]) -> plt.Figure:
    """Some pictures of each kind, a row a kind. rows: {title: [N,S,S,3] in [0,1]}."""
    width = max(len(pictures) for pictures in rows.values())
    figure, axes = plt.subplots(len(rows), width, figsize=(1.25 * width, 1.45 * len(rows)), squeeze=False)
    for row, (title, pictures) in zip(axes, rows.items(), strict=True):
        for ax in row:
            ax.axis("off")
        for ax, picture in zip(row, pictures, strict=False):
            ax.imshow(picture, vmin=0, vmax=1)
        row[0].set_title(title, fontsize=9, loc="left")
    return figure


def mean_and_deviation(pictures: np.ndarray) -> plt.Figure:
    """Mean image, and each pixel's deviation over the images: where good parts differ among themselves. [N,S,S,3] in [0,1]."""
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
    """Mean grey value of the images of each group: what a detector could read off the exposure alone. {title: [N] in [0,1]}."""
    figure, axes = plt.subplots(figsize=(6.4, 0.6 + 0.6 * len(groups)))
    axes.boxplot(list(groups.values()), orientation="horizontal", tick_labels=[f"{k} ({len(v)})" for k, v in groups.items()],
                 medianprops={"color": ANOMALOUS})
    axes.set(xlabel="mean grey value, 0 to 1", title="Brightness")
    axes.invert_yaxis()
    return figure


def _nothing() -> plt.Figure:
    figure, axes = plt.subplots(figsize=(6, 1))
    axes.axis("off")
    axes.text(0.5, 0.5, "no run has finished", ha="center", va="center")
    return figure


def _dress_roc(axes: plt.Axes) -> None:
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
