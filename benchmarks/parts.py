"""How good is `fused` on every part, beside its own halves and pca? One JSON file a cell, kept, so
it can go on later.

    # minutes a cell: measure what is missing
    python -m benchmarks.parts --data ROOT/CATEGORY... --weights FILE [--seeds 0 1 2]
    # the table of what is measured
    python -m benchmarks.parts

The halves of one fit are the detectors `memory` and `classifier`: these are fitted alike.
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
from adlib.evaluation import localization
from adlib.evaluation.auroc import auroc
from adlib.models import anomaly_maps, backbone, registry
from adlib.models.detector import fit

MEASURED = Path(__file__).parent / "measured" / "parts"
DETECTORS = ("fused", "memory", "classifier", "pca")


def measure(config: Config) -> dict[str, typing.Any]:
    """Fit, map the test images, and score them: {detector: {auroc, pixel_ap, au_pro_30}}, and the
    processor's seconds for fitting `fused`, its features included where none are kept."""
    part = open_part(config)
    started = time.process_time()
    fused = fit(registry.build(config), part.train, part.held_out)
    seconds = time.process_time() - started
    pca = fit(registry.build(Config(**config.as_dict() | {"model": "pca"})), part.train)
    found: dict[str, list[np.ndarray]] = {name: [] for name in DETECTORS}
    with torch.no_grad():
        for chunk in part.test.tensor.split(backbone.CHUNK):
            features = fused.features(chunk)
            halves = fused.head.classifier.both(features)
            for name, values in zip(DETECTORS, (fused.head(features), *halves, pca.head(features)),
                                    strict=True):
                found[name].append(anomaly_maps.smooth(values.numpy()))
    measured = {name: figures(part, np.concatenate(values)) for name, values in found.items()}
    return {"category": config.category, "seed": config.seed, "good": len(part.good),
            "fit_seconds": seconds, "detectors": measured}


def figures(part: Part, smoothed: np.ndarray) -> dict[str, float]:
    """Image AUROC of the mean of the top 1 %; pixel AP and AU-PRO where there are masks."""
    known = layout.read_labels(part.category)
    labels = np.array([int(known[key].anomalous) for key in part.test.keys])
    found = {"auroc": auroc(labels, anomaly_maps.reduce(smoothed, "top1"))}
    masks = part.test.masks.numpy()
    used = np.array([path is not None for path in part.test.mask_paths]) | (labels == 0)
    if masks.any():
        maps = anomaly_maps.display_map({"distance": smoothed[used]}, "distance.top1",
                                        part.config.image_size)
        located, _ = localization.measure(maps, masks[used])
        found |= {name: located[name] for name in ("pixel_ap", "au_pro_30")}
    return found


def table(folder: Path) -> pd.DataFrame:
    """A row a part: means over the seeds. short: by how much `fused` is below the best of its
    halves and pca (0 where it is not)."""
    cells = [files.read_json(path) for path in sorted(folder.glob("*.json"))]
    rows = pd.DataFrame([{
        "part": cell["category"], "seeds": cell["seed"], "good": cell["good"],
        **{name: values["auroc"] for name, values in cell["detectors"].items()},
        **{key: cell["detectors"]["fused"].get(key) for key in ("pixel_ap", "au_pro_30")},
        "fit_seconds": cell["fit_seconds"]}
        for cell in cells])
    means = rows.groupby("part").agg({"seeds": "count"} | dict.fromkeys(
        rows.columns.drop(["part", "seeds"]), "mean"))
    best = means[list(DETECTORS[1:])].max(axis=1)
    means.insert(6, "short", (best - means["fused"]).clip(lower=0))
    return pd.concat([means, means.mean().to_frame("mean").T])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="folders of categories")
    parser.add_argument("--weights")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=MEASURED)
    given = parser.parse_args()
    for seed in given.seeds if given.data else []:
        for folder in given.data:
            target = given.folder / f"{folder.name}-{seed}.json"
            if not target.exists():
                files.write_json(target, measure(Config(
                    name="fused", model="fused", image_size=256, category=folder.name, seed=seed,
                    data_root=str(folder.parent), weights=given.weights)))
            print(target.name, files.read_json(target), flush=True)
    print(table(given.folder).round(3).to_string())


if __name__ == "__main__":
    main()
