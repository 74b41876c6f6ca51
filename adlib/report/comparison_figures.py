"""The figures that set configurations side by side, and those of a run's limits; None where there
is nothing to draw. They are in English; the text beside each is in both languages."""
from __future__ import annotations

import textwrap
import typing

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import NullFormatter

from adlib.data import corruptions
from adlib.evaluation import auroc, psychometric
from adlib.evaluation.results import arrays
from adlib.report import answers, comparison, figures
from adlib.report.comparison import label
from adlib.report.data_sentences import corruption

if typing.TYPE_CHECKING:
    from pathlib import Path

Tables = dict[tuple[str, str], pd.DataFrame]  # {(category, configuration): a table of its run}


def panels(categories: typing.Iterable[str], width: float = 4.2, height: float = 3.4,
           **options: typing.Any) -> tuple[plt.Figure, typing.Iterator[tuple[str, plt.Axes]]]:
    """A panel a category, side by side and titled: the figure, and (category, axes) in their order,
    each once."""
    names = list(dict.fromkeys(categories))
    figure, axes = plt.subplots(1, len(names), figsize=(width * len(names), height), squeeze=False,
                                **options)
    for name, ax in zip(names, axes[0], strict=True):
        ax.set_title(name)
    return figure, zip(names, axes[0], strict=True)


def curves(tables: Tables, draw: typing.Callable[[pd.DataFrame], tuple | None], marker: str = "",
           height: float = 3.4, **options: typing.Any) -> tuple[plt.Figure, list[plt.Axes]]:
    """A panel a category with a line a configuration: draw(table) gives x and y, or None."""
    figure, by_category = panels((category for category, _ in tables), height=height, **options)
    axes = []
    for category, ax in by_category:
        here = [(name, table) for (where, name), table in tables.items() if where == category]
        for i, (name, table) in enumerate(here):
            if (line := draw(table)) is not None:
                ax.plot(*line, figures.DASHES[i % 4], marker=marker, markersize=3,
                        label=label(name), color=figures.SERIES[i % len(figures.SERIES)])
        axes.append(ax)
    return figure, axes


def auroc_bars(rows: pd.DataFrame) -> plt.Figure:
    """AUROC of every row with its 95 % interval, over the range the reference claims (grey).

    rows: comparison.rows. Filled: the best of the category, or not distinguishable from it; open:
    significantly below it.
    """
    count, most = rows["category"].nunique(), rows["category"].value_counts().max()
    figure, by_category = panels(rows["category"], 4.2 + 2.4 / count, 0.9 + 0.27 * most)
    for category, ax in by_category:
        part = rows[rows["category"] == category].reset_index(drop=True)
        for y, row in part.iterrows():
            if not np.isnan(row["claim_low"]):
                ax.fill_betweenx([y - 0.42, y + 0.42], row["claim_low"], row["claim_high"],
                                 color="#cccccc", zorder=1, linewidth=0)
            if np.isnan(row["auroc"]):
                ax.text(0.02, y, row["status"], va="center", fontsize=8)
                continue
            ends = [[row["auroc"] - row["low"]], [row["high"] - row["auroc"]]]
            ax.errorbar(row["auroc"], y, xerr=ends, fmt="o", capsize=3, zorder=3, markersize=5,
                        markerfacecolor=figures.GOOD if row["with_best"] is True else "white",
                        color=figures.GOOD)
            ax.text(1.04, y, f"{row['auroc']:.3f}", va="center", fontsize=8)
        ax.axvline(0.5, color="#999999", linewidth=0.8, linestyle=":")
        ax.set(yticks=range(len(part)), xlim=(0, 1.16), ylim=(len(part) - 0.4, -0.6),
               xlabel="AUROC, 95 % interval", xticks=[0, 0.25, 0.5, 0.75, 1])
        ax.set_yticklabels(list(map(label, part["configuration"])), fontsize=8)
    return figure


def show_matrices(table: pd.DataFrame, reports: Path) -> None:
    """The matrix of every category as a figure, and what it says."""
    for category in dict.fromkeys(table["category"]):
        pairs = comparison.matrix(table, reports, category)
        said = answers.matrix(pairs, category)
        figures.show(matrix(pairs, category), said)
        figures.say(said)


def matrix(pairs: pd.DataFrame, category: str) -> plt.Figure | None:
    """Differences of AUROC, row minus column, for every pair of comparison.matrix; a star where the
    paired test distinguishes the two."""
    names = list(dict.fromkeys([*pairs["a"], *pairs["b"]]))
    if not names:
        return None
    values, stars = np.zeros((len(names), len(names))), []
    for pair in pairs.itertuples():
        i, j = names.index(pair.a), names.index(pair.b)
        values[i, j], values[j, i] = pair.difference, -pair.difference
        if pair.p_holm < comparison.LEVEL:
            stars += [(i, j), (j, i)]
    figure, axes = plt.subplots(figsize=(4.6 + 0.26 * len(names), 3.2 + 0.26 * len(names)))
    drawn = axes.imshow(values, cmap="PuOr", vmin=-0.6, vmax=0.6)
    for i, j in stars:
        axes.text(j, i, "*", ha="center", va="center", fontsize=9)
    axes.set(xticks=range(len(names)), yticks=range(len(names)), title=category)
    axes.set_xticklabels(list(map(label, names)), rotation=90, fontsize=7)
    axes.set_yticklabels(list(map(label, names)), fontsize=7)
    axes.grid(False)
    figure.colorbar(drawn, ax=axes, shrink=0.7).set_label("AUROC, row minus column", fontsize=8)
    return figure


def roc_together(tables: Tables) -> plt.Figure | None:
    """ROC curves of all configurations (all_results)."""
    def roc(table: pd.DataFrame) -> tuple | None:
        labels, scores = arrays(table, "test")
        return auroc.roc_curve(labels, scores)[:2] if 0 < labels.sum() < len(labels) else None

    if not tables:
        return None
    figure, axes = curves(tables, roc, height=4.2)
    for ax in axes:
        figures.dress_roc(ax)
        ax.legend(loc="lower right", fontsize=8)
    return figure


def distributions_together(tables: Tables) -> plt.Figure | None:
    """The score distribution of every run (all_results): a row a configuration, a column a
    category."""
    if not tables:
        return None
    categories, names = (list(dict.fromkeys(key[i] for key in tables)) for i in (0, 1))
    figure, axes = plt.subplots(len(names), len(categories), squeeze=False,
                                figsize=(4.4 * len(categories), 2.3 * len(names)))
    for row, name in enumerate(names):
        for column, category in enumerate(categories):
            if (category, name) in tables:
                figures.draw_scores(axes[row, column], tables[category, name],
                                    f"{category}, {label(name)}")
            else:
                axes[row, column].axis("off")
    return figure


def epochs_together(tables: Tables) -> plt.Figure | None:
    """AUROC over epochs of every configuration (epochs.csv)."""
    if not tables:
        return None
    figure, axes = curves(tables, lambda table: (table["epoch"], table["auroc"]), "o", sharey=True)
    for ax in axes:
        _auroc_axis(ax, xscale="log", xlabel="epochs of training")
        ax.legend(fontsize=8, loc="lower right")
    axes[0].set_ylabel("AUROC, test split")
    return figure


def robustness_together(tables: Tables) -> plt.Figure | None:
    """Mean AUROC over the disturbances against their strength (limits.robustness)."""
    def mean(table: pd.DataFrame) -> tuple:
        values = table.groupby("strength")["auroc"].mean()
        return values.index, values

    if not tables:
        return None
    figure, axes = curves(tables, mean, "o", sharey=True)
    for ax in axes:
        _auroc_axis(ax, xlabel="strength of the disturbance")
        ax.legend(fontsize=7, loc="lower left")
    axes[0].set_ylabel(f"AUROC, mean over {len(corruptions.CORRUPTIONS)} disturbances")
    return figure


def scores(table: pd.DataFrame) -> plt.Figure | None:
    """Label-free against real AUROC of every score (questions.scores), a colour a configuration;
    crossed: chosen without labels."""
    if table.empty:
        return None
    figure, by_category = panels(table["category"], height=4, sharey=True)
    left, low = min(0.4, table["label_free"].min() - 0.02), min(0.2, table["test"].min() - 0.02)
    for category, ax in by_category:
        here = table[table["category"] == category].groupby("configuration", sort=False)
        for i, (name, part) in enumerate(here):
            color, chosen = figures.SERIES[i % len(figures.SERIES)], part[part["chosen"] > 0]
            ax.plot(part["label_free"], part["test"], "osD^v"[i % 5], color=color, markersize=5,
                    label=label(name))
            ax.plot(chosen["label_free"], chosen["test"], "x", color=color, markersize=11)
        ax.plot([0, 1], [0, 1], ":", color="#999999", linewidth=0.8)
        ax.set(xlabel="AUROC known without labels", xlim=(left, 1.01), ylim=(low, 1.02))
        ax.legend(fontsize=7, loc="lower right")
    figure.axes[0].set_ylabel("AUROC, test split")
    return figure


# ---- the limits of one run


def robustness(table: pd.DataFrame) -> plt.Figure | None:
    """AUROC and false positives against the strength of each disturbance (limits.robustness), a
    panel each."""
    names = [name for name in dict.fromkeys(table["disturbance"]) if name != "none"]
    if not names:
        return None
    clean = table[table["strength"] == 0]
    figure, axes = _small_panels(names, sharex=True)
    for name, ax in axes:
        part = pd.concat([clean, table[table["disturbance"] == name]])
        for column, color, dash, words in (
                ("auroc", figures.GOOD, "o-", "AUROC"),
                ("false_positives", figures.ANOMALOUS, "x--",
                 "false positives at the fixed threshold")):
            ax.plot(part["strength"], part[column], dash, color=color, markersize=4, label=words)
        ax.set(ylim=(-0.03, 1.05), xticks=range(6))
        strongest = corruptions.STRENGTHS[-1]
        ax.set_xlabel(textwrap.fill(f"{strongest}: {corruption(name, strongest)}", 34), fontsize=7)
    figure.supxlabel("strength (0 = as they are)", fontsize=9)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize=8,
                  loc="outside upper center", ncols=2)
    return figure


def detectability(drawn: pd.DataFrame, target_fpr: float) -> plt.Figure | None:
    """Share found against the area of the defect (limits.detectability), a panel a defect type,
    with the fitted curve, which begins at the share found by chance: target_fpr."""
    names = list(dict.fromkeys(drawn["defect"]))
    if not names:
        return None
    figure, axes = _small_panels(names)
    for name, ax in axes:
        part = drawn[(drawn["defect"] == name) & (drawn["contrast"] == 1) & (drawn["area"] > 0)]
        means = part.groupby("size")[["area", "found"]].mean()
        curve = psychometric.fit(part["area"].to_numpy(), part["found"].to_numpy(), fpr=target_fpr)
        x = np.geomspace(part["area"].min(), part["area"].max(), 100)
        ax.plot(100 * x, curve(x), color=figures.GOOD)
        ax.plot(100 * means["area"], means["found"], "o", color=figures.GOOD, markersize=4)
        at = curve.at(0.95)
        if at <= part["area"].max():
            ax.axvline(100 * at, color=figures.ANOMALOUS, linestyle="--", linewidth=1)
            ax.text(100 * at, 0.1, f" 95 %: {100 * at:.2g} %", fontsize=7, color=figures.ANOMALOUS)
        ax.axhline(target_fpr, color="#999999", linewidth=0.8, linestyle=":")
        ax.set(xscale="log", ylim=(-0.03, 1.05))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.xaxis.set_major_formatter("{x:g}")
    figure.supxlabel("defect's share of the image, %", fontsize=9)
    figure.supylabel("share found", fontsize=9)
    return figure


def _small_panels(names: list[str], **options: typing.Any) -> tuple[
        plt.Figure, typing.Iterator[tuple[str, plt.Axes]]]:
    """Small titled panels, four in a row."""
    lines = -(-len(names) // 4)
    figure, axes = plt.subplots(lines, 4, figsize=(9.6, 2.3 * lines), sharey=True, squeeze=False,
                                **options)
    for i, ax in enumerate(axes.flat):
        if i < len(names):
            ax.set_title(names[i])
        else:
            ax.axis("off")
    return figure, zip(names, axes.flat, strict=False)


def _auroc_axis(ax: plt.Axes, **options: typing.Any) -> None:
    ax.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":")
    ax.set(ylim=(0, 1.03), **options)
