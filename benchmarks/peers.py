"""How good are anomalib's detectors beside `fused`, on the same test images with the same weights?

    # in an environment with the extra [anomalib]; one JSON file each, kept, so it can go on later
    python -m benchmarks.peers --data ROOT/CATEGORY... --weights FILE [--seeds 0] [--models NAME...]
    # the page of what is measured, `fused` as `benchmarks.parts` measured it
    python -m benchmarks.peers --markdown docs/results_peers.md

Configurations are those of params/grids/peers.yaml. Each detector is scored twice: as the study
scores every map, and by the maximum of its map, about what anomalib reports. `--features-once`
keeps the features that Fre computes anew each epoch: the same scores in a tenth of the time, and no
time to compare with.
"""
from __future__ import annotations

import argparse
import contextlib
import hashlib
import time
import typing
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch

from adlib.config import Config
from adlib.data import files
from adlib.data.part import open_part
from adlib.evaluation import ranks
from adlib.evaluation.auroc import auroc, auroc_interval, holm, paired_test
from adlib.models.detector import fit
from adlib.runs import grid
from benchmarks import parts

MEASURED = Path(__file__).parent / "measured" / "peers"
GRID = Path(__file__).parents[1] / "params" / "grids" / "peers.yaml"


def configurations() -> dict[str, dict[str, typing.Any]]:
    """{name: settings} of anomalib's detectors in the grid."""
    return {name: settings for name, settings in grid.read(GRID).configs.items()
            if settings["model"].startswith("anomalib:")}


@contextlib.contextmanager
def features_once(kind: type) -> typing.Iterator[None]:
    """While it lasts, what a frozen network of this class (`forward(batch) -> {layer: [N,...]}`)
    makes of a picture is computed once and kept."""
    compute, kept = kind.forward, {}

    def forward(network: torch.nn.Module, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        keys = [hashlib.sha256(picture.cpu().numpy().tobytes()).digest() for picture in batch]
        if new := [i for i, key in enumerate(keys) if key not in kept]:
            layers = compute(network, batch[new])
            kept.update((keys[i], {layer: values[row].clone() for layer, values in layers.items()})
                        for row, i in enumerate(new))
        return {layer: torch.stack([kept[key][layer] for key in keys]) for layer in kept[keys[0]]}

    with mock.patch.object(kind, "forward", forward):
        yield


def measure(config: Config, once: bool = False) -> dict[str, typing.Any]:
    """{category, name, seed, fit_seconds (the processor's; none where Fre's features were kept),
    seconds_an_image, scores, own}."""
    part = open_part(config)
    images = part.test.tensor
    started = time.process_time()
    once = once and config.model == "anomalib:Fre"
    if once:
        from anomalib.models.components import TimmFeatureExtractor
    with features_once(TimmFeatureExtractor) if once else contextlib.nullcontext():
        detector = fit(config, part.train)
    fitted = time.process_time()
    maps = detector.anomaly_maps(images)
    scored = time.process_time()
    own = next(iter(maps.values())).flatten(1).amax(dim=1)
    return {"category": config.category, "name": config.name, "seed": config.seed,
            "fit_seconds": None if once else fitted - started,
            "seconds_an_image": (scored - fitted) / len(images),
            "scores": parts.top(parts.smoothed(maps)[0]).tolist(), "own": own.tolist()}


def table(folder: Path, beside: Path) -> pd.DataFrame:
    """A row a part and peer: the AUROC of its maps and of its own score, their intervals, that of
    `fused` with the same seeds, the difference fused - peer with its p-value (paired DeLong test;
    p_holm over all rows), and the seconds of fitting of both."""
    rows, measured = [], parts.cells(beside)
    groups: dict[tuple[str, str], list[dict[str, typing.Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        cell = files.read_json(path)
        groups.setdefault((cell["category"], cell["name"]), []).append(cell)
    for (part, name), seeds in groups.items():
        ours = {cell["seed"]: cell for cell in measured.get(part, [])}
        if not (seeds := [cell for cell in seeds if cell["seed"] in ours]):
            continue
        ours = [ours[cell["seed"]] for cell in seeds]
        labels, best = np.array(ours[0]["labels"]), parts.scores_of(ours, "fused")
        scores = np.array([cell["scores"] for cell in seeds])
        low, high = auroc_interval(labels, scores)
        difference, p = paired_test(labels, best, scores)
        rows.append({
            "part": part, "peer": name, "seeds": len(seeds),
            "auroc": np.mean([auroc(labels, one) for one in scores]), "low": low, "high": high,
            "own": np.mean([auroc(labels, np.array(cell["own"])) for cell in seeds]),
            "fused": np.mean([auroc(labels, one) for one in best]), "difference": difference,
            "p": p, "fit_seconds": np.mean([cell["fit_seconds"] or np.nan for cell in seeds]),
            "fused_seconds": np.mean([cell["fit_seconds"] for cell in ours])})
    found = pd.DataFrame(rows)
    return found.assign(p_holm=holm(found["p"])) if len(found) else found


def page(found: pd.DataFrame) -> str:
    """docs/results_peers.md."""
    shown = pd.DataFrame({
        "part": found["part"], "peer": found["peer"], "seeds": found["seeds"].astype(str),
        "AUROC": [f"{row.auroc:.3f} [{row.low:.2f}, {row.high:.2f}]" for row in found.itertuples()],
        "by its maximum": found["own"].map("{:.3f}".format),
        "fused": found["fused"].map("{:.3f}".format),
        "fused - peer": found["difference"].map("{:+.3f}".format),
        "p (Holm)": found["p_holm"].map("{:.3f}".format),
        "fit, s": found["fit_seconds"].map("{:.0f}".format, na_action="ignore").fillna("-"),
        "fused fit, s": found["fused_seconds"].map("{:.0f}".format)})
    better = found[(found["difference"] < 0)]
    wins = ", ".join(f"{row.peer} on {row.part} (by {-row.difference:.3f}, p = {row.p_holm:.3f})"
                     for row in better.itertuples()) or "none"
    lines = ["# anomalib's detectors beside ours", "",
             "Written by `python -m benchmarks.peers --markdown FILE`; not by hand. 256 px, the "
             "study's ResNet18 weights, anomalib's own defaults but for what their files in "
             "params/configurations say. AUROC of the mean of the top 1% of the map, as for every "
             "detector of the study, and of the map's maximum, about what anomalib reports. p: "
             "paired DeLong test, Holm over all rows. Seconds are the processor's, of one thread; "
             "peers and `fused` were timed on different days, on machines that differ by up to two "
             "times; - where a peer's features were kept (`--features-once`). Those of `fused` are "
             "of before a quarter of its synthetic anomalies lay in noisy copies: .5 s more.",
             "", f"Where a peer is ahead of `fused`: {wins}.", "", *parts.markdown(shown), "",
             "## Over the parts", ""]
    for name, rows in found.groupby("peer", sort=False):
        lines.append(f"- {name}: mean AUROC {rows['auroc'].mean():.3f} (by its maximum "
                     f"{rows['own'].mean():.3f}), `fused` {rows['fused'].mean():.3f} on the same "
                     f"{len(rows)} parts; Wilcoxon's signed-rank test over these p = "
                     f"{ranks.wilcoxon(rows['difference'].to_numpy()):.3f}; fit time "
                     f"{(rows['fit_seconds'] / rows['fused_seconds']).median():.1f} x that of "
                     "`fused` (median where timed).")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="folders of categories")
    parser.add_argument("--weights")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", nargs="+", help="configurations; else all of peers.yaml")
    parser.add_argument("--features-once", action="store_true")
    parser.add_argument("--folder", type=Path, default=MEASURED)
    parser.add_argument("--parts", type=Path, default=parts.MEASURED)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    known = configurations()
    for folder in given.data:
        for seed in given.seeds:
            for name in given.models or known:
                target = given.folder / f"{folder.name}-{name}-{seed}.json"
                if not target.exists():
                    files.write_json(target, measure(Config(**known[name] | {
                        "name": name, "category": folder.name, "seed": seed,
                        "data_root": str(folder.parent), "weights": given.weights}),
                        given.features_once))
                print(target, flush=True)
    if given.markdown:
        files.write_text(given.markdown, page(table(given.folder, given.parts)))


if __name__ == "__main__":
    main()
