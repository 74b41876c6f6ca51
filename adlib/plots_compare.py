"""The figures that set configurations side by side."""
from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from adlib import evaluate, metrics, plots


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
                            color=plots.SERIES[x % len(plots.SERIES)], zorder=3)
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
        plots.dress_roc(ax)
        curves = [(name, table) for (where, name), table in tables.items() if where == category]
        for i, (name, table) in enumerate(curves):
            labels, scores = evaluate.arrays(table, "test")
            if 0 < labels.sum() < len(labels):
                fpr, tpr, _ = metrics.roc_curve(labels, scores)
                ax.plot(fpr, tpr, plots.DASHES[i % 4], color=plots.SERIES[i % len(plots.SERIES)], label=name)
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
                plots.score_distribution(tables[category, name], f"{category}, {name}", axes[row, column])
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
            ax.plot(table["epoch"], table["auroc"], plots.DASHES[i % 4], marker="o", markersize=3,
                    color=plots.SERIES[i % len(plots.SERIES)], label=name)
        ax.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":")
        ax.set(xscale="log", title=category, xlabel="epochs of training", ylim=(0, 1.03))
        ax.legend(fontsize=8, loc="lower right")
    axes[0, 0].set_ylabel("AUROC, test split")
    return figure


def _nothing() -> plt.Figure:
    figure, axes = plt.subplots(figsize=(6, 1))
    axes.axis("off")
    axes.text(0.5, 0.5, "no run has finished", ha="center", va="center")
    return figure
