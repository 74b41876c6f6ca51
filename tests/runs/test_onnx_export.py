"""A run as ONNX: onnxruntime says what PyTorch says, from the picture to the verdict."""
import builtins
import json

import numpy as np
import pytest
import torch

from adlib import cli
from adlib.config import InputError
from adlib.data import files, images
from adlib.evaluation import calibration
from adlib.models.autoencoders import Autoencoder
from adlib.runs import inference, onnx_export
from tests.handmade import small_run

ort = pytest.importorskip("onnxruntime", reason="needs the extra: pip install -e '.[onnx]'")
pytest.importorskip("onnxscript", reason="needs the extra: pip install -e '.[onnx]'")


@pytest.fixture(autouse=True)
def _few_synthetic_anomalies(monkeypatch):
    monkeypatch.setattr(calibration, "SYNTHETIC", 8)


def last_digit(run, picture, draws=6):
    """How far a score and its map move where every feature moves by its last digit.

    Features are kept as float16. Two float32 encoders that differ in a last digit of their own give
    some features that are apart by one of float16's, 2**-10 of the value, up or down: less than
    where all of them are. Zero for what keeps no features.
    """
    if isinstance(run.detector, Autoencoder):
        return 0.0, 0.0
    stages, generator = run.detector.stages, torch.Generator().manual_seed(0)

    def moved(images):
        signs = (torch.randint(0, 2, stage.shape, generator=generator) * 2 - 1
                 for stage in kept)
        return [(stage.float() * (1 + sign * 2**-10)).half()
                for stage, sign in zip(kept, signs, strict=True)]

    kept, (score, map_) = stages(picture[None]), run.score_with_maps(picture[None])
    run.detector.stages = moved
    others = [run.score_with_maps(picture[None]) for _ in range(draws)]
    run.detector.stages = stages
    return (max(float(abs(other - score)[0]) for other, _ in others),
            max(float(np.abs(other - map_).max()) for _, other in others))


@pytest.mark.parametrize(
    ("changes", "score"),
    [({"model": "cae", "name": "cae_mse"}, "sum.max"),
     ({"model": "cae", "name": "cae_mse"}, "squared.mean"),
     ({"model": "fused", "name": "fused", "image_size": 64}, ""),
     ({"model": "gaussian", "name": "gaussian", "image_size": 64}, ""),
     ({"model": "to_features", "name": "to_features", "image_size": 64, "epochs": 1}, "")],
    ids=lambda value: str(value)[:22])
def test_scores_maps_and_verdicts_are_pytorchs(course_root, tmp_path, changes, score):
    folder = small_run(course_root, tmp_path / "reports", precision="float32", **changes)
    if score:  # whichever was chosen
        measured = files.read_json(folder / "metrics.json")
        files.write_json(folder / "metrics.json",
                         measured | {"chosen": measured["chosen"] | {"score": score}})
    assert cli.main(["export", str(folder), "--onnx", str(tmp_path / "out.onnx")]) == 0
    run, session = inference.reopen(folder), ort.InferenceSession(tmp_path / "out.onnx")
    pictures = images.load(sorted((course_root / "nut" / "test").glob("*.png")),
                           run.config.image_size)
    for picture in pictures:
        score, map_, anomalous = session.run(None, {"picture": picture[None].numpy()})
        expected, maps = run.score_with_maps(picture[None])
        by_digit, map_by_digit = last_digit(run, picture)
        assert score == pytest.approx(expected, abs=1e-4 + by_digit, rel=1e-4)
        assert np.abs(map_ - maps).max() <= 1e-4 * max(1, np.abs(maps).max()) + map_by_digit
        if abs(expected[0] - run.threshold.value) > 1e-3 + by_digit:
            assert anomalous[0] == (expected[0] > run.threshold.value)
    known = {
        key: json.loads(value)
        for key, value in session.get_modelmeta().custom_metadata_map.items()
    }
    assert (known["score"], known["threshold"], known["map_low"],
            known["map_level"]) == (run.decision.score, run.threshold.value, run.decision.low, run.decision.level)
    assert known["category"] == "nut" and known[
        "data"] and f"{run.config.image_size},{run.config.image_size}" in known["input"]


def test_a_run_without_a_threshold_calls_nothing_anomalous(course_root, tmp_path):
    run = inference.reopen(
        small_run(course_root, tmp_path / "reports", precision="float32", held_out=0.0))
    onnx_export.export(run, tmp_path / "out.onnx", {})
    session = ort.InferenceSession(tmp_path / "out.onnx")
    assert not session.run(["anomalous"], {"picture": np.zeros((1, 3, 32, 32), np.uint8)})[0].any()
    assert json.loads(session.get_modelmeta().custom_metadata_map["threshold"]) is None


def test_what_cannot_be_exported_is_one_sentence(course_root, tmp_path, monkeypatch):
    run = inference.reopen(
        small_run(course_root, tmp_path / "reports", model="mean_grey", name="mean_grey"))
    with pytest.raises(InputError, match="mean_grey is a statistic of the picture and no network"):
        onnx_export.export(run, tmp_path / "out.onnx", {})
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("onnx"):
            raise ModuleNotFoundError(name, name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
            InputError,
            match=r"needs the package onnx; install the extra: pip install -e '.\[onnx\]'"):
        onnx_export.export(run, tmp_path / "out.onnx", {})
    assert not (tmp_path / "out.onnx").exists()
