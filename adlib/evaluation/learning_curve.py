"""What was measured with few good pictures and with more (how_many.measure), as a curve, and what
more of them would bring."""
from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from scipy import optimize

from adlib.evaluation.conformal import rate_interval

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)  # of good pictures
MORE, WORTH = 50, 0.005  # so many more should bring as much AUROC, or are not worth taking
POWERS = np.linspace(0.1, 2, 39)  # that the error may fall with


@dataclasses.dataclass(frozen=True)
class Gain:
    """What MORE pictures would bring: the AUROC's gain by the learning curve fitted to the mean of
    the draws, and the least and most of those fitted to each draw."""

    pictures: int  # that there are
    gain: float
    low: float
    high: float
    enough: int  # from so many pictures on even the most is below WORTH

    @property
    def stop(self) -> bool:
        """Would even the most be below WORTH?"""
        return self.high < WORTH


def curve(table: pd.DataFrame) -> pd.DataFrame:
    """A row a number of pictures: n, and for auroc and label_free the mean over the draws, the
    lowest and the highest (`auroc_low`, `auroc_high`); the rates false_positives and found, the
    mean over the draws with its interval for the finite test set (Clopper-Pearson); smallest, the
    median.
    """
    points = table.groupby("n").agg(**{
        f"{name}{suffix}": (name, how) for name in ("auroc", "label_free")
        for suffix, how in (("", "mean"), ("_low", "min"), ("_high", "max"))})
    counts = table.groupby("n")[["false_positives", "good", "found", "anomalous"]].mean()
    for name, of in (("false_positives", "good"), ("found", "anomalous")):
        points[name] = counts[name] / counts[of]
        ends = [rate_interval(round(hits), int(n)) if hits == hits else (np.nan, np.nan)
                for hits, n in zip(counts[name], counts[of], strict=True)]
        points[[f"{name}_low", f"{name}_high"]] = ends
    if "smallest" in table:  # older files have none
        points["smallest"] = table.groupby("n")["smallest"].median()
    return points.reset_index()


def judged_by(table: pd.DataFrame) -> str:
    """The column of the AUROC: of the test images, or, without labels, of synthetic anomalies."""
    return "auroc" if table["auroc"].notna().any() else "label_free"


def gain(table: pd.DataFrame, column: str) -> Gain | None:
    """What MORE pictures would bring to a column of `measure`; None for fewer than four numbers of
    pictures, which fix no curve.

    The curve is 1 - AUROC = a + b / n^c with a, b >= 0 and c in POWERS, by least squares (inverse
    power law; Cortes et al., NIPS 1993).
    """
    values = table.pivot(index="n", columns="draw", values=column).dropna()
    if len(values) < 4:
        return None
    fits = [_fit(values.index.to_numpy(float), 1 - one)
            for one in (values.mean(axis=1).to_numpy(), *values.to_numpy().T)]
    pictures = int(table["pictures"].iloc[0])
    first, *others = [_drop(fit, pictures) for fit in fits]
    needed = np.unique(np.r_[1, np.geomspace(1, 10_000, 400).round()]).astype(int)
    enough = next(int(n) for n in needed if max(_drop(fit, n) for fit in fits[1:]) < WORTH)
    return Gain(pictures, first, min(others), max(others), enough)


def _fit(n: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """(b, c) of the curve."""
    fits = [(*optimize.nnls(np.stack([np.ones(len(n)), n**-c], axis=1), error), c) for c in POWERS]
    (_, b), _, c = min(fits, key=lambda one: one[1])
    return float(b), float(c)


def _drop(fit: tuple[float, float], n: int) -> float:
    b, c = fit
    return b * (n**-c - (n + MORE)**-c)
