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
from adlib.runs import inference, onnx_export
from tests import tolerances
from tests.conftest import picture as shot
from tests.handmade import small_run

ort = pytest.importorskip("onnxruntime", reason="needs the extra: pip install -e '.[onnx]'")
pytest.importorskip("onnxscript", reason="needs the extra: pip install -e '.[onnx]'")


@pytest.fixture(autouse=True)
def _few_synthetic_anomalies(monkeypatch):
    monkeypatch.setattr(calibration, "SYNTHETIC", 8)


def kind(model, **changes):
    return {"model": model, "name": model, "precision": "float32", **changes}


KINDS = [(kind("cae"), "sum.max"), (kind("cae"), "squared.mean"), (kind("resnet18"), "ssim.top1"),
         *((kind(model, image_size=64), "")
           for model in ("to_features", "fused", "gaussian", "pca"))]


@pytest.mark.parametrize(("changes", "score"), KINDS,
                         ids=[f"{changes['model']}-{score}" for changes, score in KINDS])
def test_scores_maps_and_verdicts_are_pytorchs(course_root, tmp_path, changes, score):
    folder = small_run(course_root, tmp_path / "reports", **changes)
    if score:  # whichever was chosen
        measured = files.read_json(folder / "metrics.json")
        files.write_json(folder / "metrics.json",
                         measured | {"chosen": measured["chosen"] | {"score": score}})
    assert cli.main(["export", str(folder), "--onnx", str(tmp_path / "out.onnx")]) == 0
    run, session = inference.reopen(folder), ort.InferenceSession(tmp_path / "out.onnx")
    pictures = images.load(sorted((course_root / "nut" / "test").glob("*.png")),
                           run.config.image_size)
    for picture in pictures:
        scores, maps, anomalous = session.run(None, {"picture": picture[None].numpy()})[:3]
        expected, expected_maps = run.score_with_maps(picture[None])
        tolerance, of_maps = tolerances.of_rounding(run, picture[None])
        assert np.abs(scores - expected) <= tolerance
        assert (np.abs(maps - expected_maps) <= of_maps).all()
        if abs(expected[0] - run.threshold.value) > tolerance:
            assert anomalous[0] == run.threshold.exceeded(expected)[0]
    known = {key: json.loads(value)
             for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert (known["score"], known["threshold"], known["map_low"], known["map_level"]) == (
        run.decision.score, run.threshold.value, run.decision.low, run.decision.level)
    assert known["category"] == "nut" and known["data"]
    assert f"{run.config.image_size},{run.config.image_size}" in known["input"]


@pytest.mark.parametrize("model", ["cae", "fused"])
def test_the_tolerance_would_notice(course_root, tmp_path, model):
    """Another picture's score is none of rounding's doing; nor is a map that is not smoothed."""
    run = inference.reopen(small_run(course_root, tmp_path / "reports",
                                     **kind(model, image_size=64)))
    paths = sorted((course_root / "nut" / "test").glob("*.png"))
    one, other = images.load(paths, 64)[[0, 2]].split(1)  # two good ones
    (scores, maps), (others, _) = run.score_with_maps(one), run.score_with_maps(other)
    tolerance, of_maps = tolerances.of_rounding(run, one)
    assert tolerance < 0.02 * np.abs(scores) and np.abs(scores - others) > 2 * tolerance
    # Taking it leaves no trace.
    assert run.score_with_maps(one)[0] == scores and of_maps.max() < 0.1 * np.ptp(maps)


def test_foreign_pictures_are_pytorchs(course_root, tmp_path):
    for i in range(8, 24):
        shot(course_root / "nut" / "train" / "good" / f"{i:03d}.png", 1000 + i)
    run = inference.reopen(small_run(course_root, tmp_path / "reports",
                                     **kind("fused", image_size=288)))
    onnx_export.export(run, tmp_path / "out.onnx", {})
    session = ort.InferenceSession(tmp_path / "out.onnx")
    good = images.load(sorted((course_root / "nut" / "test").glob("*.png")), 288)
    noise = np.random.default_rng(0).integers(0, 2, (1, 288, 288), np.uint8).repeat(3, 0) * 255
    seen = set()
    for picture in (*good[::2], torch.zeros_like(good[0]), torch.from_numpy(noise)):
        foreign, p_value, absent = session.run(["foreign", "foreign_p_value", "absent"],
                                               {"picture": picture[None].numpy()})
        (expected, ), (why, ) = run.foreign(picture[None])
        assert p_value[0] == pytest.approx(expected, rel=0.01, abs=1e-9)
        assert (foreign[0], absent[0]) == (why != "", why == "absent")
        seen.add(why)
    assert seen == {"", "absent", "unlike"}
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["foreign_fpr"]) == calibration.FOREIGN_FPR


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
