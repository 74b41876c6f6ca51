"""How good is every detector on frozen features on every part? One JSON file a part and seed, kept,
so it can go on later.

    # minutes each: measure what is missing, one seed of all parts before the next
    python -m benchmarks.parts --data ROOT/CATEGORY... --weights FILE [--seeds 0 1 2]
    # the page of what is measured
    python -m benchmarks.parts --markdown docs/results_parts.md

`memory` and `classifier` are the halves of the one `fused` that is fitted; these detectors are
fitted alike. Labels join where the figures are computed, from the scores that the files keep.
"""
from __future__ import annotations

import argparse
import dataclasses
import time
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adlib.config import Config
from adlib.data import files
from adlib.data.part import Part, open_part
from adlib.data.synthetic import anomalies
from adlib.evaluation import calibration, localization, ranks
from adlib.evaluation.auroc import (
    LEVEL,
    auroc,
    auroc_interval,
    best_against_each,
    pairwise_tests,
    undecided,
)
from adlib.evaluation.conformal import Threshold, rate_interval
from adlib.evaluation.results import truth_of
from adlib.models import anomaly_maps, fused
from adlib.models.detector import Detector, fit
from adlib.models.detectors import Neighbours
from adlib.models.fast.device import CHUNK, pick_device, precision
from benchmarks import common

MEASURED = Path(__file__).parent / "measured" / "parts"
HALVES = ("fused", "memory", "classifier")  # the maps of one `fused`
DETECTORS = (*HALVES, "pca", "gaussian", "gaussian_anywhere")


class Three(fused.Fused):
    """The fused map and those of its halves: [3,N,h,w]."""

    def forward(self, features: torch.Tensor, nearest: Neighbours | None = None) -> torch.Tensor:
        nearest = self.neighbours(features, nearest)
        halves = self.classifier.both(features, nearest)
        return torch.stack([self.combined(features, nearest, *halves), *halves])


class WithHalves(fused.FeatureDetector):
    def _new_head(self) -> Three:
        head = super()._new_head()
        head.__class__ = Three  # otherwise as a run makes it
        return head

    @torch.no_grad()
    def anomaly_maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"distance": torch.cat([self.head(self.features(chunk))
                                       for chunk in images.split(CHUNK)], dim=1)}


def measure(config: Config) -> dict[str, typing.Any]:
    """Fit every detector and score the test images: {category, seed, good,
    fit_seconds, position_share, labels, detectors: {name: scored}}. fit_seconds: the processor's,
    for `fused`, features included where none are kept."""
    part = open_part(config)
    common.labelled(part.category)
    started = time.process_time()
    best = fit(WithHalves(config), part.train, part.held_out)
    seconds = time.process_time() - started
    found = dict(zip(HALVES, scored(best, part), strict=True))
    for model in DETECTORS[3:]:
        other = fit(dataclasses.replace(config, model=model), part.train)
        found[model], = scored(other, part)
    return {"category": config.category, "seed": config.seed, "good": len(part.good),
            "precision": precision(config, pick_device(config.device)),
            "fit_seconds": seconds, "position_share": best.position_share,
            "labels": truth_of(part).tolist(), "detectors": found}


def scored(detector: Detector, part: Part) -> list[dict[str, typing.Any]]:
    """For each map of a detector: the scores of the test images, {label_free, how, threshold} as
    `calibrate` decides them, the scores that label_free is of (`exam`), and where there are masks
    {pixel_ap, au_pro_30}."""
    config = part.config
    changed, _, kinds = anomalies.insert(part.held_out.tensor, calibration.SYNTHETIC,
                                         seed=config.seed)
    test, held, synthetic = (smoothed(detector.anomaly_maps(images)) for images in (
        part.test.tensor, part.held_out.tensor, changed))
    calibrating, how = held, "split"
    if (found := calibration.cross_fitted(detector, part)) is not None:
        calibrating, how = np.concatenate(list(map(smoothed, found[1])), 1), "cross-conformal"
    rows = []
    for one in range(len(test)):
        tables = [pd.DataFrame({"top1": top(maps[one])}) for maps in (held, synthetic)]
        threshold = Threshold(top(calibrating[one]), config.target_fpr, how)
        rows.append({
            "scores": top(test[one]).tolist(), "how": how, "threshold": threshold.value,
            "label_free": float(calibration.label_free(*tables, kinds)["all"].iloc[0]),
            "exam": {name: top(maps[one]).tolist() for name, maps in (
                ("good", held), ("synthetic", synthetic))},
            **located(part, test[one])})
    return rows


def smoothed(maps: dict[str, torch.Tensor]) -> np.ndarray:
    """A detector's own map, or several of them one above another: [K,N,h,w]."""
    values = next(iter(maps.values())).numpy()
    return np.stack(list(map(anomaly_maps.smooth, values.reshape(-1, *values.shape[-3:]))))


def top(maps: np.ndarray) -> np.ndarray:
    return anomaly_maps.reduce(maps, "top1")


def located(part: Part, maps: np.ndarray) -> dict[str, float]:
    """Pixel AP and AU-PRO of smoothed maps [N,h,w], where there are masks; of the images that
    results.locate takes."""
    masks = part.test.masks.numpy()
    if not masks.any():
        return {}
    used = (truth_of(part) == 1) == masks.any(axis=(1, 2))
    shown = anomaly_maps.display_map({"distance": maps[used]}, "distance.top1",
                                     part.config.image_size)
    measured, _ = localization.measure(shown, masks[used])
    return {name: measured[name] for name in ("pixel_ap", "au_pro_30")}


def cells(folder: Path) -> dict[str, list[dict[str, typing.Any]]]:
    """{part: what was measured of it, a seed each}."""
    found: dict[str, list[dict[str, typing.Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        cell = files.read_json(path)
        found.setdefault(cell["category"], []).append(cell)
    return found


def scores_of(seeds: list[dict[str, typing.Any]], name: str) -> np.ndarray:
    """[seeds, N]."""
    return np.array([cell["detectors"][name]["scores"] for cell in seeds])


def table(folder: Path) -> pd.DataFrame:
    """A row a part: how many seeds and good pictures, the AUROC of every detector, the mean over
    the seeds; short: by how much `fused` is below the best of its halves and pca, 0 where it is
    not. The last row has the means over the parts."""
    rows = {part: {"seeds": len(seeds), "good": seeds[0]["good"], **{
        name: float(np.mean([auroc(np.array(seeds[0]["labels"]), one)
                             for one in scores_of(seeds, name)])) for name in DETECTORS}}
            for part, seeds in cells(folder).items()}
    found = pd.DataFrame.from_dict(rows, orient="index")
    best = found[["memory", "classifier", "pca"]].max(axis=1)
    found["short"] = (best - found["fused"]).clip(lower=0)
    return pd.concat([found, found.mean().to_frame("mean").T])


def page(folder: Path) -> str:
    """docs/results_parts.md."""
    found, measured = table(folder), cells(folder)
    # the first of them did not say it, and were in bf16
    precisions = sorted({seed.get("precision", "bf16") for seeds in measured.values()
                         for seed in seeds})
    lines = ["# All detectors on all parts", "",
             "Written by `python -m benchmarks.parts --markdown FILE`; not by hand. 256 px, the "
             f"mean of the top 1%; {' or '.join(precisions)}, one thread. Means over the random "
             "seeds that were measured.", "", "## Image AUROC", "",
             "In brackets the 95% interval of the finite test set (DeLong). A star: not "
             "distinguishable from `fused` (paired DeLong test, Holm over the other detectors).",
             "", *markdown(_aurocs(found, measured)), "",
             "## Ranks", "", *_ranks(found), "",
             "## At the threshold set without labels", "",
             "Asked: 5% false alarms, from all good pictures as a run does it, but by the score "
             "alone: a run shares the rate with the verdict foreign, and where a good picture is "
             "foreign to the others its threshold is higher (`python -m benchmarks.rates`). Good "
             "test images called anomalous / bad ones found, means over the seeds; the intervals "
             "are Clopper-Pearson's.", "",
             *markdown(_rates(measured)), "",
             "## Known without labels", "",
             "AUROC of held-out good images against synthetic anomalies.", "",
             *markdown(_means(measured, "label_free")), "", *_choices(measured), ""]
    for key, title in (("pixel_ap", "Pixel average precision"), ("au_pro_30", "AU-PRO 0.30")):
        if len(values := _means(measured, key)):
            lines += [f"## {title}", "", *markdown(values), ""]
    return "\n".join(lines)


def _aurocs(found: pd.DataFrame, measured: dict[str, list[dict[str, typing.Any]]]) -> pd.DataFrame:
    rows = []
    for part, seeds in measured.items():
        labels = np.array(seeds[0]["labels"])
        scores = {name: scores_of(seeds, name) for name in DETECTORS}
        apart = best_against_each("fused", labels, scores)
        row = {"part": part, "good": str(seeds[0]["good"]), "seeds": str(len(seeds))}
        for name in DETECTORS:
            low, high = auroc_interval(labels, scores[name])
            star = " *" if apart.get(name, 0) >= 0.05 else ""
            row[name] = f"{found.loc[part, name]:.3f} [{low:.2f}, {high:.2f}]{star}"
        rows.append(row | {"short": f"{found.loc[part, 'short']:.3f}"})
    last = {"part": "mean", **{name: f"{found.loc['mean', name]:.3f}"
                               for name in (*DETECTORS, "short")}}
    return pd.DataFrame([*rows, last])


def _ranks(found: pd.DataFrame) -> list[str]:
    by_part = found.drop(index="mean")[list(DETECTORS)]
    average, tested = ranks.average_ranks(by_part), ranks.pairs(by_part)
    apart = [f"{row.a} and {row.b} (p = {row.p_holm:.3f})"
             for row in tested.itertuples() if row.p_holm < 0.05]
    order = ", ".join(f"{name} {rank:.1f}" for name, rank in average.sort_values().items())
    return [f"Average rank over {len(by_part)} parts: {order}. Friedman: p = "
            f"{ranks.friedman(by_part):.3g}. Distinguishable by Wilcoxon's test with Holm: "
            f"{'; '.join(apart) or 'none'}."]


def choices(measured: dict[str, list[dict[str, typing.Any]]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the synthetic anomalies say of the detectors, and what is true, a seed of a part each.

    Returns:
        A row a part and seed: part, seed, kendall (of the label-free and the real order; NaN where
        one of them is no order), lost (AUROC of the best minus that of the label-free first), sure
        (is the first distinguishable from all?); and a row a pair of detectors with different
        AUROCs: part, seed, sure (does the exam distinguish them?), right (is its order the real
        one?).
    """
    firsts, pairs = [], []
    for part, seeds in measured.items():
        for cell in (cell for cell in seeds if "exam" in cell["detectors"]["fused"]):
            of = {"part": part, "seed": cell["seed"]}
            labels, found = np.array(cell["labels"]), cell["detectors"]
            exams = {name: np.r_[found[name]["exam"]["good"], found[name]["exam"]["synthetic"]]
                     for name in DETECTORS}
            taken = np.repeat([0, 1], list(map(len, found["fused"]["exam"].values())))
            free = pd.Series({name: auroc(taken, exams[name]) for name in DETECTORS})
            real = pd.Series({name: auroc(labels, np.array(found[name]["scores"]))
                              for name in DETECTORS})
            first = str(free.idxmax())
            firsts.append(of | {"kendall": free.corr(real, method="kendall"),
                                "lost": real.max() - real[first],
                                "sure": not undecided(first, taken, exams)})
            for row in pairwise_tests(taken, exams).itertuples():
                if real[row.a] != real[row.b] and row.difference:
                    pairs.append(of | {"sure": row.p < LEVEL, "right": (
                        row.difference > 0) == (real[row.a] > real[row.b])})
    return (pd.DataFrame(firsts, columns=["part", "seed", "kendall", "lost", "sure"]),
            pd.DataFrame(pairs, columns=["part", "seed", "sure", "right"]))


def _choices(measured: dict[str, list[dict[str, typing.Any]]]) -> list[str]:
    firsts, pairs = choices(measured)
    if firsts.empty:
        return []
    by_part = firsts.groupby("part")[["kendall", "lost"]].mean()
    said = [f"Over {len(by_part)} parts the label-free order of the detectors and the real one "
            f"have a Kendall's tau of {_resampled(by_part['kendall'].dropna())}, and taking the "
            f"label-free first costs {_resampled(by_part['lost'])} of AUROC (in brackets the 95% "
            "interval of parts drawn again)."]
    for sure, words in ((True, "apart"), (False, "not apart")):
        some = pairs[pairs["sure"] == sure]
        if len(some):
            right = some.groupby("part")["right"].mean()
            said.append(f"Where DeLong's paired test tells two detectors {words} by the exam, its "
                        f"order was the real one in {some['right'].mean():.0%} of {len(some)} "
                        f"pairs (mean of {len(right)} parts {_resampled(right)}).")
    for sure, rows in firsts.groupby("sure", sort=False):
        said.append(f"The first was {'sure' if sure else 'unsure'} in {len(rows)} of {len(firsts)} "
                    f"cases, and lost {rows['lost'].mean():.3f} on average, "
                    f"{rows['lost'].max():.3f} at most.")
    table = by_part.assign(sure=firsts.groupby("part")["sure"].mean()).map("{:.3f}".format)
    return [*said, "", *markdown(table.replace("nan", "").reset_index())]


def _resampled(values: pd.Series) -> str:
    drawn = np.random.default_rng(0).choice(values.to_numpy(), (10_000, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def _rates(measured: dict[str, list[dict[str, typing.Any]]]) -> pd.DataFrame:
    rows = []
    for part, seeds in measured.items():
        labels, row = np.array(seeds[0]["labels"]), {"part": part}
        for name in DETECTORS:
            called = scores_of(seeds, name) > np.array(
                [[cell["detectors"][name]["threshold"]] for cell in seeds])
            false, hits = (called[:, labels == of].sum(axis=1).mean() for of in (0, 1))
            row[name] = f"{_rate(false, (labels == 0).sum())} / {_rate(hits, labels.sum())}"
        rows.append(row)
    return pd.DataFrame(rows)


def _rate(hits: float, n: int) -> str:
    low, high = rate_interval(round(hits), int(n))
    return f"{hits / n:.0%} [{low:.0%}, {high:.0%}]"


def _means(measured: dict[str, list[dict[str, typing.Any]]], key: str) -> pd.DataFrame:
    rows = [{"part": part, **{name: np.mean([cell["detectors"][name][key] for cell in seeds])
                              for name in DETECTORS}}
            for part, seeds in measured.items() if key in seeds[0]["detectors"]["fused"]]
    if not rows:
        return pd.DataFrame()
    values = pd.DataFrame(rows).set_index("part")
    values.loc["mean"] = values.mean()
    return values.map("{:.3f}".format).reset_index()


def markdown(rows: pd.DataFrame) -> list[str]:
    texts = rows.astype(object).fillna("").astype(str).to_numpy()
    lines = [rows.columns, ["---"] * len(rows.columns), *texts]
    return [f"| {' | '.join(line)} |" for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="folders of categories")
    parser.add_argument("--weights")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=MEASURED)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    for seed in given.seeds if given.data else []:
        for folder in given.data:
            target = given.folder / f"{folder.name}-{seed}.json"
            if not target.exists():
                files.write_json(target, measure(common.config(folder, given.weights, seed=seed)))
            print(target, flush=True)
    if given.markdown:
        files.write_text(given.markdown, page(given.folder))
    print(table(given.folder).round(3).to_string())


if __name__ == "__main__":
    main()
