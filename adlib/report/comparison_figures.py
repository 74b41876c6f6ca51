"""The figures of a run's limits; None where there is nothing to draw."""
from __future__ import annotations

import textwrap
import typing

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import NullFormatter

from adlib.data import corruptions
from adlib.evaluation import psychometric
from adlib.report import figures
from adlib.report.data_sentences import corruption


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
