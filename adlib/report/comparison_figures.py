"""The figures that set configurations side by side, and those of a run's limits. None where there
is nothing to draw."""
from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import NullFormatter

from adlib.evaluation import evaluate, metrics, psychometric
from adlib.report import figures


def auroc_bars(rows: pd.DataFrame) -> plt.Figure:
    """AUROC of every row with its 95 % interval, one panel a category, over the range the reference
    claims (grey).

    rows: summary.rows. Filled: the best of the category, or not told from it; open: significantly
    below it.
    """
    categories = list(dict.fromkeys(rows["category"]))
    most = max(len(rows[rows["category"] == category]) for category in categories)
    figure, axes = plt.subplots(
        1, len(categories), figsize=(4.2 * len(categories) + 2.4, 0.9 + 0.27 * most), squeeze=False)
    for ax, category in zip(axes[0], categories, strict=True):
        part = rows[rows["category"] == category].reset_index(drop=True)
        for y, row in part.iterrows():
            if not np.isnan(row["claim_low"]):
                ax.fill_betweenx([y - 0.42, y + 0.42], row["claim_low"], row["claim_high"],
                                 color="#cccccc", zorder=1, linewidth=0)
            if np.isnan(row["auroc"]):
                ax.text(0.02, y, row["status"], va="center", fontsize=8)
            else:
                level = row["with_best"] is True
                ax.errorbar(row["auroc"], y, xerr=[[row["auroc"] - row["low"]],
                                                   [row["high"] - row["auroc"]]], fmt="o",
                            capsize=3, color=figures.GOOD,
                            markerfacecolor=figures.GOOD if level else "white", zorder=3,
                            markersize=5)
                ax.text(1.04, y, f"{row['auroc']:.3f}", va="center", fontsize=8)
        ax.axvline(0.5, color="#999999", linewidth=0.8, linestyle=":")
        ax.set(title=category, yticks=range(
            len(part)), xlim=(0, 1.16), ylim=(len(part) - 0.4, -0.6), xlabel="AUROC, 95 % interval",
               xticks=[0, 0.25, 0.5, 0.75, 1])
        ax.set_yticklabels(part["label"], fontsize=8)
    return figure


def matrix(pairs: pd.DataFrame, category: str) -> plt.Figure | None:
    """Differences of AUROC, row minus column, for every pair; a star where the paired test tells
    the two apart. pairs: summary.matrix."""
    labels = list(dict.fromkeys([*pairs["a"], *pairs["b"]]))
    if not labels:
        return None
    values, stars = np.zeros((len(labels), len(labels))), []
    for row in pairs.itertuples():
        i, j = labels.index(row.a), labels.index(row.b)
        values[i, j], values[j, i] = row.difference, -row.difference
        if row.p_holm < 0.05:
            stars += [(i, j), (j, i)]
    figure, axes = plt.subplots(figsize=(4.6 + 0.26 * len(labels), 3.2 + 0.26 * len(labels)))
    drawn = axes.imshow(values, cmap="PuOr", vmin=-0.6, vmax=0.6)
    for i, j in stars:
        axes.text(j, i, "*", ha="center", va="center", fontsize=9)
    axes.set(xticks=range(len(labels)), yticks=range(len(labels)), title=category)
    axes.set_xticklabels(labels, rotation=90, fontsize=7)
    axes.set_yticklabels(labels, fontsize=7)
    axes.grid(False)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.7)
    bar.set_label("AUROC, row minus column", fontsize=8)
    return figure


def roc_together(tables: dict[tuple[str, str], pd.DataFrame]) -> plt.Figure | None:
    """ROC curves of all configurations, one panel a category. tables: {(category, configuration):
    all_results}."""
    if not tables:
        return None
    categories = list(dict.fromkeys(category for category, _ in tables))
    figure, axes = plt.subplots(1, len(categories), figsize=(4.2 * len(categories), 4.2),
                                squeeze=False)
    for ax, category in zip(axes[0], categories, strict=True):
        figures.dress_roc(ax)
        curves = [(name, table) for (where, name), table in tables.items() if where == category]
        for i, (name, table) in enumerate(curves):
            labels, scores = evaluate.arrays(table, "test")
            if 0 < labels.sum() < len(labels):
                fpr, tpr, _ = metrics.roc_curve(labels, scores)
                ax.plot(fpr, tpr, figures.DASHES[i % 4],
                        color=figures.SERIES[i % len(figures.SERIES)], label=name)
        ax.set_title(category)
        ax.legend(loc="lower right", fontsize=8)
    return figure


def distributions_together(tables: dict[tuple[str, str], pd.DataFrame]) -> plt.Figure | None:
    """The score distribution of every run, side by side: a row a configuration, a column a
    category."""
    if not tables:
        return None
    categories, names = (list(dict.fromkeys(key[i] for key in tables)) for i in (0, 1))
    figure, axes = plt.subplots(len(names), len(categories),
                                figsize=(4.4 * len(categories), 2.3 * len(names)), squeeze=False)
    for row, name in enumerate(names):
        for column, category in enumerate(categories):
            if (category, name) in tables:
                figures.score_distribution(tables[category, name], f"{category}, {name}",
                                           axes[row, column])
            else:
                axes[row, column].axis("off")
    return figure


def epochs_together(curves: dict[tuple[str, str], pd.DataFrame]) -> plt.Figure | None:
    """AUROC over epochs of every configuration, one panel a category. curves: {(category,
    configuration): epochs.csv}."""
    if not curves:
        return None
    categories = list(dict.fromkeys(category for category, _ in curves))
    figure, axes = plt.subplots(1, len(categories), figsize=(4.2 * len(categories), 3.4),
                                sharey=True, squeeze=False)
    for ax, category in zip(axes[0], categories, strict=True):
        for i, (name, table) in enumerate((n, t) for (c, n), t in curves.items() if c == category):
            ax.plot(table["epoch"], table["auroc"], figures.DASHES[i % 4], marker="o", markersize=3,
                    color=figures.SERIES[i % len(figures.SERIES)], label=name)
        ax.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":")
        ax.set(xscale="log", title=category, xlabel="epochs of training", ylim=(0, 1.03))
        ax.legend(fontsize=8, loc="lower right")
    axes[0, 0].set_ylabel("AUROC, test split")
    return figure


def scores(table: pd.DataFrame) -> plt.Figure | None:
    """Label-free against real AUROC of every score, one panel a category, a colour a configuration;
    crossed: chosen without labels.

    table: questions.scores.
    """
    if table.empty:
        return None
    categories = list(dict.fromkeys(table["category"]))
    figure, axes = plt.subplots(1, len(categories), figsize=(4.2 * len(categories), 4), sharey=True,
                                squeeze=False)
    for ax, category in zip(axes[0], categories, strict=True):
        for i, (label, part) in enumerate(table[table["category"] == category].groupby(
                "label", sort=False)):
            color = figures.SERIES[i % len(figures.SERIES)]
            ax.plot(part["label_free"], part["test"], "osD^v"[i % 5], color=color, markersize=5,
                    label=label)
            picked = part[part["chosen"] > 0]
            ax.plot(picked["label_free"], picked["test"], "x", color=color, markersize=11)
        ax.plot([0, 1], [0, 1], ":", color="#999999", linewidth=0.8)
        ax.set(title=category, xlabel="AUROC known without labels", xlim=(min(
            0.4, table["label_free"].min() - 0.02), 1.01), ylim=(min(
                0.2, table["test"].min() - 0.02), 1.02))
        ax.legend(fontsize=7, loc="lower right")
    axes[0, 0].set_ylabel("AUROC, test split")
    return figure


def _panels(count: int, sharex: bool = False) -> tuple[plt.Figure, np.ndarray]:
    """Small panels, four in a row."""
    rows = -(-count // 4)
    return plt.subplots(rows, 4, figsize=(9.6, 2.3 * rows), sharex=sharex, sharey=True,
                        squeeze=False)


def robustness(table: pd.DataFrame) -> plt.Figure | None:
    """AUROC against the strength of each disturbance, a panel each. table: limits.robustness of one
    run."""
    names = [name for name in dict.fromkeys(table["disturbance"]) if name != "none"]
    if not names:
        return None
    clean = table[table["strength"] == 0]
    figure, axes = _panels(len(names), sharex=True)
    for ax, name in zip(axes.flat, names, strict=False):
        part = pd.concat([clean, table[table["disturbance"] == name]])
        for column, color, dash, marker, words in (("auroc", figures.GOOD, "-", "o", "AUROC"),
                                                   ("false_positives", figures.ANOMALOUS, "--", "x",
                                                    "false alarms at the fixed threshold")):
            ax.plot(part["strength"], part[column], dash, color=color, marker=marker, markersize=4,
                    label=words)
        ax.set(title=name, ylim=(-0.03, 1.05), xticks=range(6))
        ax.set_xlabel(textwrap.fill(f"5: {part['what'].iloc[-1]}", 34), fontsize=7)
    for ax in axes.flat[len(names):]:
        ax.axis("off")
    figure.supxlabel("strength (0 = as they are)", fontsize=9)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), fontsize=8, loc="outside upper center",
                  ncols=2)
    return figure


def detectability(found: pd.DataFrame, guess: float) -> plt.Figure | None:
    """Share found against the area of the defect, a panel a defect type, with the fitted curve.
    found: limits.detectability."""
    names = list(dict.fromkeys(found["defect"]))
    if not names:
        return None
    figure, axes = _panels(len(names))
    for ax, name in zip(axes.flat, names, strict=False):
        part = found[(found["defect"] == name) & (found["contrast"] == 1) & (found["area"] > 0)]
        means = part.groupby("size")[["area", "found"]].mean()
        curve = psychometric.fit(part["area"].to_numpy(), part["found"].to_numpy(), fpr=guess)
        x = np.geomspace(part["area"].min(), part["area"].max(), 100)
        ax.plot(100 * x, curve(x), color=figures.GOOD)
        ax.plot(100 * means["area"], means["found"], "o", color=figures.GOOD, markersize=4)
        at = curve.at(0.95)
        if at <= part["area"].max():
            ax.axvline(100 * at, color=figures.ANOMALOUS, linestyle="--", linewidth=1)
            ax.text(100 * at, 0.1, f" 95 %: {100 * at:.2g} %", fontsize=7, color=figures.ANOMALOUS)
        ax.axhline(guess, color="#999999", linewidth=0.8, linestyle=":")
        ax.set(title=name, xscale="log", ylim=(-0.03, 1.05))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.xaxis.set_major_formatter("{x:g}")
    for ax in axes.flat[len(names):]:
        ax.axis("off")
    figure.supxlabel("defect's share of the image, %", fontsize=9)
    figure.supylabel("share found", fontsize=9)
    return figure


def robustness_together(tables: dict[tuple[str, str], pd.DataFrame]) -> plt.Figure | None:
    """Mean AUROC over the disturbances against their strength, a line a configuration. tables:
    {(category, label): limits.robustness}."""
    if not tables:
        return None
    categories = list(dict.fromkeys(category for category, _ in tables))
    figure, axes = plt.subplots(1, len(categories), figsize=(4.2 * len(categories), 3.4),
                                sharey=True, squeeze=False)
    for ax, category in zip(axes[0], categories, strict=True):
        for i, (label, table) in enumerate((n, t) for (c, n), t in tables.items() if c == category):
            mean = table.groupby("strength")["auroc"].mean()
            ax.plot(mean.index, mean, figures.DASHES[i % 4], marker="o", markersize=3,
                    color=figures.SERIES[i % len(figures.SERIES)], label=label)
        ax.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":")
        ax.set(title=category, xlabel="strength of the disturbance", ylim=(0, 1.03))
        ax.legend(fontsize=7, loc="lower left")
    axes[0, 0].set_ylabel("AUROC, mean over eight disturbances")
    return figure
