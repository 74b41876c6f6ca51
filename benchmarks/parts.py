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
import time
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adlib.config import Config
from adlib.data import files, layout
from adlib.data.part import Part, open_part
from adlib.data.synthetic import anomalies
from adlib.evaluation import calibration, localization, ranks
from adlib.evaluation.auroc import auroc, auroc_interval, best_against_each
from adlib.evaluation.conformal import Threshold, folds, rate_interval
from adlib.models import anomaly_maps, backbone, fused, registry
from adlib.models.detector import Detector, fit

MEASURED = Path(__file__).parent / "measured" / "parts"
HALVES = ("fused", "memory", "classifier")  # the maps of one `fused`
DETECTORS = (*HALVES, "pca", "gaussian", "gaussian_anywhere")


class Three(fused.Fused):
    """The fused map and those of its halves: [3,N,h,w]."""

    def forward(self, features: torch.Tensor, own: torch.Tensor | None = None) -> torch.Tensor:
        halves = torch.stack(self.classifier.both(features, own))
        scaled = (halves - self.centre[:, None, None, None]) / self.spread[:, None, None, None]
        return torch.cat([scaled.sum(dim=0)[None], halves])


class WithHalves(fused.FeatureDetector):
    def _new_head(self) -> Three:
        return Three(backbone.width(self.config.layers))

    @torch.no_grad()
    def anomaly_maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"distance": torch.cat([self.head(self.features(chunk))
                                       for chunk in images.split(backbone.CHUNK)], dim=1)}


def measure(config: Config) -> dict[str, typing.Any]:
    """Fit every detector and score the test images: {category, seed, good,
    fit_seconds, position_share, labels, detectors: {name: scored}}. fit_seconds: the processor's,
    for `fused`, features included where none are kept."""
    part = open_part(config)
    started = time.process_time()
    best = fit(WithHalves(config), part.train, part.held_out)
    seconds = time.process_time() - started
    found = dict(zip(HALVES, scored(best, part), strict=True))
    for model in DETECTORS[3:]:
        other = registry.build(Config(**config.as_dict() | {"model": model}))
        found[model], = scored(fit(other, part.train), part)
    return {"category": config.category, "seed": config.seed, "good": len(part.good),
            "fit_seconds": seconds, "position_share": best.position_share,
            "labels": labels_of(part).tolist(), "detectors": found}


def scored(detector: Detector, part: Part) -> list[dict[str, typing.Any]]:
    """For each map of a detector: the scores of the test images, {label_free, how, threshold} as
    `calibrate` decides them, and where there are masks {pixel_ap, au_pro_30}."""
    config = part.config
    changed, _, kinds = anomalies.insert(part.held_out.tensor, calibration.SYNTHETIC,
                                         seed=config.seed)
    test, held, synthetic = (smoothed(detector.anomaly_maps(images)) for images in (
        part.test.tensor, part.held_out.tensor, changed))
    calibrating, how = held, "split"
    if not Threshold(np.zeros(held.shape[1]), config.target_fpr).is_attainable:
        fitted = detector.cross_fitted_maps(part.good.tensor, part.train_index, folds(
            len(part.good), calibration.FOLDS, config.seed))
        if fitted is not None:
            calibrating, how = np.concatenate(list(map(smoothed, fitted)), 1), "cross-conformal"
    rows = []
    for one in range(len(test)):
        tables = [pd.DataFrame({"top1": top(maps[one])}) for maps in (held, synthetic)]
        threshold = Threshold(top(calibrating[one]), config.target_fpr, how)
        rows.append({
            "scores": top(test[one]).tolist(), "how": how, "threshold": threshold.value,
            "label_free": float(calibration.label_free(*tables, kinds)["all"].iloc[0]),
            **located(part, test[one])})
    return rows


def smoothed(maps: dict[str, torch.Tensor]) -> np.ndarray:
    """A detector's only map, or several of them one above another: [K,N,h,w]."""
    values, = maps.values()
    values = values.numpy()
    return np.stack(list(map(anomaly_maps.smooth, values.reshape(-1, *values.shape[-3:]))))


def top(maps: np.ndarray) -> np.ndarray:
    return anomaly_maps.reduce(maps, "top1")


def labels_of(part: Part) -> np.ndarray:
    known = layout.read_labels(part.category)
    return np.array([int(known[key].anomalous) for key in part.test.keys])


def located(part: Part, maps: np.ndarray) -> dict[str, float]:
    """Pixel AP and AU-PRO of smoothed maps [N,h,w], where there are masks."""
    masks = part.test.masks.numpy()
    if not masks.any():
        return {}
    used = np.array([path is not None for path in part.test.mask_paths]) | (labels_of(part) == 0)
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
    lines = ["# All detectors on all parts", "",
             "Written by `python -m benchmarks.parts --markdown FILE`; not by hand. 256 px, the "
             "mean of the top 1 %; bf16, one thread. Means over the random seeds that were "
             "measured.", "", "## Image AUROC", "",
             "In brackets the 95 % interval of the finite test set (DeLong). A star: not "
             "distinguishable from `fused` (paired DeLong test, Holm over the other detectors).",
             "", *markdown(_aurocs(found, measured)), "",
             "## Ranks", "", *_ranks(found), "",
             "## At the threshold set without labels", "",
             "Asked: 5 % false alarms. Calibrated on the held-out images alone where these are "
             "enough for that; a run takes all good ones. Good test images called anomalous / bad "
             "ones found, means "
             "over the seeds; the intervals are Clopper-Pearson's.", "",
             *markdown(_rates(measured)), "",
             "## Known without labels", "",
             "AUROC of held-out good images against synthetic anomalies.", "",
             *markdown(_means(measured, "label_free")), ""]
    for key, title in (("pixel_ap", "Pixel average precision"), ("au_pro_30", "AU-PRO .30")):
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
                files.write_json(target, measure(Config(
                    name="fused", model="fused", image_size=256, category=folder.name, seed=seed,
                    data_root=str(folder.parent), weights=given.weights)))
            print(target, flush=True)
    if given.markdown:
        files.write_text(given.markdown, page(given.folder))
    print(table(given.folder).round(3).to_string())


if __name__ == "__main__":
    main()
