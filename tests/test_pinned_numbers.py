"""One small run of every kind, against the numbers that it gave when they were last recorded.

    python -m tests.test_pinned_numbers --write [NAME...]   # records anew: say why in the commit

Nothing of the tolerances is guessed. Machines differ by rounding, and training, a coreset and a
small deviation to divide by amplify it, each in its own way: so every configuration is recorded
several times, its initial weights moved by some last digits of float32, which is more than another
order of the sums does. `spread` is how far its numbers moved, and four times that is allowed. An
AUROC moves by whole pairs of images: it may differ by those whose scores lie within that distance.
"""
from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import re
import tempfile
import typing
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded

import numpy as np
import pytest
import torch

from adlib.config import Config
from adlib.data.part import open_part
from adlib.data.synthetic import drawing
from adlib.evaluation.calibration import calibrate
from adlib.evaluation.results import Results, evaluate
from adlib.models import registry
from adlib.models.detector import fit

RECORDED = Path(__file__).with_name("pinned_numbers.json")
ROOT = Path(__file__).resolve().parents[1]
DIGITS = 4 * 2.0**-24  # by which each weight is moved: more than a network's sums round by
MOVED = 4  # recordings with moved weights
MOST = 0.1  # of AUROC that pairs may change: moved weights, which move far more, change 0.02
ALLOWED = 4  # spreads of so few recordings
FLOOR = 1e-6  # relative: numbers that no weight decides are sums in float64 of some float32

# Four small steps: at the study's own rate, forty amplify a last digit to the size of a score.
SMALL = {"image_size": 64, "epochs": 2, "batch_size": 9, "lr": 3e-4, "weights": "none", "held_out": 0.25,
         "target_fpr": 0.2, "precision": "float32", "device": "cpu", "category": "hazelnut"}
KINDS = {"cae": {}, "cae_ssim": {"model": "cae", "ssim_weight": 0.5}, "resnet18": {},
         "to_pixels": {"lr": 1e-4}, "to_features": {"lr": 1e-4}, "pca": {}, "gaussian": {},
         "gaussian_anywhere": {}, "memory": {}, "classifier": {}, "fused": {},
         "fused_cross": {"model": "fused", "target_fpr": 0.05}, "laplacian_variance": {}}
REAL = {"real_cae_mse": {"model": "cae", "weights": "none", "target_fpr": 0.05, "held_out": 0.1,
                         "batch_size": 90},
        "real_fused": {"model": "fused", "target_fpr": 0.05, "held_out": 0.1}}


OF_CHOSEN = ("chosen_scores", "chosen_auroc", "calibration", "pixels")


def configured(name: str, root: Path, shared: Path | None = None) -> Config:
    values = SMALL | {"model": name, "name": name} | (KINDS | REAL)[name]
    if shared is not None:
        weights = str(shared / "weights" / "resnet18-imagenet-to-layer3.pth")
        values = {"weights": weights} | {k: v for k, v in values.items() if k != "weights"} | (
            {"weights": "none"} if values["model"] == "cae" else {})
    return Config(**values, data_root=str(root))


def drawn(place: Path) -> Path:
    return drawing.write_dataset(place / "drawn", train=24, good=6, anomalous=8, pixels=64, seed=3,
                                 categories=["hazelnut"])


def run(config: Config, moved: int = 0) -> Results:
    """A run by the spine; moved > 0: with initial weights that differ by some last digits."""
    part, detector = open_part(config), registry.build(config)
    generator = torch.Generator().manual_seed(moved)
    with torch.no_grad():
        for parameter in detector.parameters() if moved else []:
            parameter.mul_(1 + DIGITS * torch.randn(parameter.shape, generator=generator))
    detector = fit(detector, part.train, part.held_out)
    return evaluate(detector, calibrate(detector, part), part)


def numbers_of(results: Results) -> dict[str, typing.Any]:
    """{name: a list of numbers that rounding moves}, and under `words` what it does not."""
    metrics, test = results.metrics, results.table[results.table["split"] == "test"]
    located = results.localization or {}
    good = results.table[results.table["split"] == "held_out"]
    return {"words": {"score": metrics["score"], "chosen": metrics["chosen"]["score"],
                      "how": metrics["calibration"]["how"],
                      "labels": [int(label) for label in test["label"]]},
            "scores": test["score"].tolist(), "chosen_scores": test["chosen_score"].tolist(),
            "held_out": good["score"].tolist(), "calibration": metrics["calibration"]["scores"],
            "auroc": [metrics["auroc"]["test"]["value"]],
            "chosen_auroc": [metrics["chosen"]["auroc"]["test"]["value"]],
            "label_free": [row["all"] for row in metrics["label_free"]],
            "loss": [metrics["final_loss"]] if metrics["final_loss"] is not None else [],
            "pixels": [located[key] for key in ("pixel_auroc", "pixel_ap", "au_pro_30",
                                                "au_pro_05") if key in located]}


def record(config: Config) -> dict[str, typing.Any]:
    """The numbers of a configuration, and the spread of each list over MOVED other recordings."""
    numbers = numbers_of(run(config))
    others = [numbers_of(run(config, moved)) for moved in range(1, MOVED + 1)]
    alike = [other for other in others if other["words"] == numbers["words"]]
    spread = {}
    for name in numbers.keys() - {"words"}:
        # Another score chosen has other numbers.
        known = alike if name in OF_CHOSEN else others
        moves = [float(np.abs(np.subtract(other[name], numbers[name])).max())
                 for other in known if numbers[name]]
        spread[name] = max(moves) if moves else None  # None: not compared
    return {"numbers": numbers, "spread": spread}


def allowed(kept: dict[str, typing.Any], name: str) -> float:
    """What rounding may move a list by: infinite where no other recording chose the same score."""
    if kept["spread"][name] is None:
        return math.inf
    return ALLOWED * kept["spread"][name] + FLOOR * float(np.abs(kept["numbers"][name]).max())


def pairs_within(kept: dict[str, typing.Any], name: str) -> float:
    """By how much an AUROC may differ: half of two for each pair of images that may change places."""
    scores, labels = np.array(kept["numbers"][name]), np.array(kept["numbers"]["words"]["labels"])
    near = np.abs(scores[labels == 1][:, None] - scores[labels == 0]) <= 2 * allowed(kept, name)
    return float(near.mean())


def differences(kept: dict[str, typing.Any], now: dict[str, typing.Any]) -> list[str]:
    """What is not as it was recorded, a line each."""
    before, lines = kept["numbers"], []
    words, same = before["words"], before["words"] == now["words"]
    if not same:
        # Another score may be chosen where it was as good, by what may differ in the ranking.
        best = sorted(before["label_free"])[-1]
        near = [value for value in before["label_free"]
                if value >= best - 2 * max(allowed(kept, "label_free"), 0.01)]
        if words | {"chosen": ""} != now["words"] | {"chosen": ""} or len(near) < 2:
            lines.append(f"{words} is now {now['words']}")
    for name in before.keys() - {"words"}:
        if not same and name in OF_CHOSEN:
            continue
        bound = allowed(kept, name)
        if name.endswith("auroc"):
            bound += min(MOST, pairs_within(kept, "scores" if name == "auroc" else "chosen_scores"))
        elif name == "label_free":
            bound += 0.01  # four images of eighty in each kind may change places
        if len(now[name]) != len(before[name]):
            lines.append(f"{name}: {len(before[name])} numbers, now {len(now[name])}")
        elif len(now[name]) and (off := np.abs(np.subtract(now[name], before[name]))).max() > bound:
            i = int(off.argmax())
            lines.append(f"{name}[{i}] was {before[name][i]:.9g}, is {now[name][i]:.9g}; "
                         f"rounding may move it by {bound:.2g}")
    return lines


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return drawn(tmp_path_factory.mktemp("pinned"))


@pytest.mark.parametrize("name", KINDS)
def test_numbers_are_as_they_were_recorded(name, root):
    kept = json.loads(RECORDED.read_text())[name]
    now = numbers_of(run(configured(name, root)))
    assert not differences(kept, now), "\n".join(differences(kept, now))


@pytest.fixture(scope="module")
def decoded(tmp_path_factory) -> Path:
    """The cache of all runs of the real images, which are decoded once."""
    return tmp_path_factory.mktemp("decoded")


@pytest.mark.parametrize("name", REAL)
def test_numbers_of_real_images_are_as_they_were_recorded(name, shared, decoded, monkeypatch):
    monkeypatch.setenv("ADLIB_CACHE", str(decoded))
    kept = json.loads(RECORDED.read_text())[name]
    now = numbers_of(run(configured(name, shared / "data" / "Image_Anomaly_Detection", shared)))
    assert not differences(kept, now), "\n".join(differences(kept, now))


@pytest.mark.parametrize("name", [*KINDS, *REAL])
def test_no_tolerance_forgives_everything(name):
    """Scores a tenth higher (twice as high, of a trained classifier), an AUROC .2 lower (.3) and
    another kind of threshold are differences."""
    kept = json.loads(RECORDED.read_text())[name]
    numbers = kept["numbers"]
    assert not differences(kept, numbers)
    # A classifier that is trained on differences to the nearest good cell amplifies rounding.
    factor, less = (2.0, 0.3) if re.search("classifier|fused", name) else (1.1, 0.2)
    assert differences(kept, numbers | {"scores": [factor * value for value in numbers["scores"]]})
    assert differences(kept, numbers | {"words": numbers["words"] | {"how": "none"}})
    assert differences(kept, numbers | {"auroc": [numbers["auroc"][0] - less]})


@pytest.mark.parametrize(("name", "changes"), [
    ("pca", {"layers": "1,2"}), ("gaussian", {"seed": 1}), ("cae", {"ssim_weight": 0.02}),
    ("cae", {"seed": 1}), ("laplacian_variance", {"held_out": 0.3})])
def test_another_run_would_be_noticed(name, changes, root):
    kept = json.loads(RECORDED.read_text())[name]
    assert differences(kept, numbers_of(run(dataclasses.replace(configured(name, root), **changes))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", nargs="*", choices=[*KINDS, *REAL], metavar="NAME",
                        required=True, help="record these anew; none: all")
    chosen = parser.parse_args().write or [*KINDS, *REAL]
    torch.set_num_threads(1)
    shared = Path(os.environ.get("ADLIB_SHARED", ROOT.parent / "shared"))
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    with tempfile.TemporaryDirectory() as place:
        os.environ["ADLIB_CACHE"] = f"{place}/cache"
        root = drawn(Path(place))
        configs = {name: configured(name, root) for name in KINDS}
        if shared.is_dir():
            images = shared / "data" / "Image_Anomaly_Detection"
            configs |= {name: configured(name, images, shared) for name in REAL}
        for name in [name for name in configs if name in chosen]:
            recorded[name] = record(configs[name])
            print(name, recorded[name]["spread"], flush=True)
    lines = [f"{json.dumps(name)}: {json.dumps(recorded[name], sort_keys=True)}"
             for name in sorted(recorded)]
    RECORDED.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
