"""A run as ONNX: onnxruntime says what PyTorch says, from the picture to the verdict."""
import builtins
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from adlib import cli
from adlib.config import Config, InputError
from adlib.data import files, images
from adlib.evaluation import refusal
from adlib.evaluation.conformal import Threshold
from adlib.models import backbone, fused
from adlib.runs import inference, onnx_export
from tests import tolerances
from tests.conftest import picture as shot
from tests.handmade import small_run

ort = pytest.importorskip("onnxruntime", reason="needs the extra: pip install -e '.[onnx]'")
pytest.importorskip("onnxscript", reason="needs the extra: pip install -e '.[onnx]'")


pytestmark = pytest.mark.usefixtures("small_detectors", "exporter")


def kind(model, **changes):
    """Of runs that test_inference makes, too: there is one of each."""
    name = {"cae": "cae_mse", "resnet18": "resnet_mse"}.get(model, model)
    return {"model": model, "name": name, **changes}


PCA = kind("pca", image_size=64)
KINDS = [(kind("cae"), "sum.max"), (kind("cae"), "squared.mean"), (kind("resnet18"), "ssim.top1"),
         *((kind(model, image_size=64), "") for model in (
             "to_features", "to_pixels", "fused", "gaussian", "gaussian_anywhere", "pca"))]


def photograph(path, size, mode, seed):
    """A picture's file of some (height, width), and the same as a caller's array [1,C,H,W]."""
    rng, (height, width) = np.random.default_rng(seed), size
    coarse = rng.integers(40, 200, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    grainy = np.asarray(image) + rng.normal(0, 6, (height, width, 3))
    Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8)).convert(mode).save(path)
    pixels = np.asarray(Image.open(path))
    return pixels[None, None] if mode == "L" else pixels.transpose(2, 0, 1)[None]


@pytest.fixture(scope="module")
def kept():
    return {}


@pytest.fixture
def exported(kept, course_run):
    """A run, reopened, and its ONNX file, which the command has made for the first test that asks
    for it. score: instead of the chosen one."""
    def make(changes, score=""):
        key = json.dumps([changes, score])
        if key not in kept:
            folder = kept[key] = course_run(**changes)
            measured = files.read_json(folder / "metrics.json")
            if score:
                measured["chosen"]["score"] = score
            files.write_json(folder / "metrics.json", measured)
            assert cli.main(["export", str(folder), "--onnx", str(folder / "out.onnx")]) == 0
        return inference.reopen(kept[key]), kept[key] / "out.onnx"

    return make


@pytest.mark.parametrize(("changes", "score"), KINDS,
                         ids=[f"{changes['model']}-{score}" for changes, score in KINDS])
def test_scores_maps_and_verdicts_are_pytorchs(course_root, exported, tmp_path, changes, score):
    run, path = exported(changes, score)
    session = ort.InferenceSession(path)
    pictures = images.load(sorted((course_root / "nut" / "test").glob("*.png")),
                           run.config.image_size)
    allowed = zip(*tolerances.of_rounding(run, pictures), strict=True)
    for picture, (tolerance, of_maps) in zip(pictures, allowed, strict=True):
        scores, maps, anomalous = session.run(None, {"picture": picture[None].numpy()})[:3]
        expected, expected_maps = run.score_with_maps(picture[None])
        assert np.abs(scores - expected) <= tolerance
        assert (np.abs(maps - expected_maps) <= of_maps).all()
        if abs(expected[0] - run.threshold.value) > tolerance:
            assert anomalous[0] == run.threshold.exceeded(expected)[0]
    shots = [(photograph(shot := tmp_path / f"{mode}-{i}.png", size, mode, i), run.decode(shot).whole)
             for i, size in enumerate([(200, 333), (333, 200), (700, 90), (40, 50)])
             for mode in ("RGB", "L")]  # from the file on, whatever its size
    allowed, _ = tolerances.of_rounding(run, torch.stack([picture for _, picture in shots]))
    for (given, picture), tolerance in zip(shots, allowed, strict=True):
        scores = session.run(["score"], {"picture": given})[0]
        assert np.abs(scores - run.scores(picture[None])) <= tolerance, given.shape
    known = {key: json.loads(value)
             for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert (known["score"], known["threshold"], known["map_low"], known["map_level"]) == (
        run.decision.score, run.threshold.value, run.decision.low, run.decision.level)
    assert known["category"] == "nut" and known["data"]
    assert f"{run.config.image_size},{run.config.image_size}" in known["input"]
    assert known["least_target_fpr"] == 0.25  # of three calibration images


def test_real_photographs_score_the_same_to_a_thousandth(shared, tmp_path, monkeypatch):
    """The best detector, ImageNet's features, pictures of 512 pixels, cropped to other shapes."""
    monkeypatch.setattr(fused, "SYNTHETIC", 24)
    photographs = sorted((shared / "data" / "hazelnut_toy").rglob("*.jpg"))
    for i, path in enumerate(photographs[::5]):
        target = tmp_path / "data" / "nut" / ("test" if i % 2 else "train/good") / f"{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).crop((0, 0, 512 - 31 * (i % 3), 512 - 17 * (i % 4))).save(target)
    run = inference.reopen(small_run(
        tmp_path / "data", tmp_path / "reports",
        **kind("fused", image_size=128,
               weights=str(shared / "weights" / "resnet18-imagenet-to-layer3.pth"))))
    onnx_export.export(run, tmp_path / "out.onnx", {})
    session = ort.InferenceSession(tmp_path / "out.onnx")
    for path in (tmp_path / "data" / "nut" / "test").glob("*.png"):
        given = np.asarray(Image.open(path)).transpose(2, 0, 1)[None]
        (expected, ), (score, ) = (run.scores(run.decode(path).whole[None]),
                                   session.run(["score"], {"picture": given})[0])
        assert abs(score - expected) < 1e-3 and abs(score - expected) < 1e-3 * abs(expected)


def test_a_few_lines_are_all_that_a_caller_needs(exported, tmp_path, monkeypatch):
    """Those of docs/in_use.md, on a photograph that lies on its side."""
    run, path = exported(PCA)
    shutil.copy(path, tmp_path / "part.onnx")
    photograph(tmp_path / "part.jpg", (90, 140), "RGB", 0)
    with Image.open(tmp_path / "part.jpg") as image:
        turned = image.getexif()
        turned[0x0112] = 6
        image.save(tmp_path / "part.jpg", exif=turned)
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "in_use.md"
    (code, ) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    caller = {}
    exec(code.replace("0.01", "0.25"), caller)  # noqa: S102 - our own documentation
    picture = run.decode(tmp_path / "part.jpg").whole[None]
    assert abs(caller["score"] - run.scores(picture)) <= tolerances.of_rounding(run, picture)[0]
    assert caller["least"] == 0.25
    threshold = Threshold(run.threshold.calibration, 0.25)
    assert caller["anomalous"] == threshold.exceeded(run.scores(picture))


def test_another_false_positive_rate_is_an_input(course_root, exported):
    run, path = exported(*KINDS[0])
    session = ort.InferenceSession(path)
    pictures = images.load(sorted((course_root / "nut").rglob("*.png")), 32)
    scores = np.array([session.run(["score"], {"picture": one[None].numpy()})[0][0]
                       for one in pictures])
    for rate in (None, 0.25, 0.3, 0.5, 0.75, 0.99):
        given = {} if rate is None else {"target_fpr": np.array(rate)}
        called = [session.run(["anomalous"], {"picture": one[None].numpy()} | given)[0][0]
                  for one in pictures]
        assert called == list(run.threshold.at(rate or 0.3).exceeded(scores)), rate
    for rate in (0.2499, 0.01, 0.0, -0.1, 1.0, 1.3, np.inf, np.nan):
        with pytest.raises(Exception, match="target_fpr is out of range, 0.25 is the least"):
            session.run(None, {"picture": pictures[:1].numpy(), "target_fpr": np.array(rate)})


def test_a_run_that_could_not_reach_its_rate_reaches_another(course_root, exported):
    run, path = exported(kind("cae", target_fpr=0.05))
    session, shown = ort.InferenceSession(path), set()
    for path in sorted((course_root / "nut").rglob("*.png")):
        picture = {"picture": images.load([path], 32).numpy()}
        score, _, anomalous = session.run(None, picture)[:3]
        other = session.run(["anomalous"], picture | {"target_fpr": np.array(0.5)})[0]
        shown.add(bool(other[0]))
        assert not anomalous[0] and other[0] == run.at(0.5).threshold.exceeded(score)[0]
    assert shown == {True, False}


def test_bf16_is_rounded_where_pytorch_rounds_it():
    """Its sums are float32's in another order, so that a few values fall on the other side of a
    border, here and between two processors; without the rounding, half of them do."""
    network, _ = backbone.load_backbone(Config(model="pca", weights="none"))
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            expected = backbone.stages_of(network, x)[0].float()
        plain = backbone.stages_of(network, x)[0].bfloat16().float()
        detector = nn.Module()
        detector.backbone = network
        onnx_export._round_as_bf16(detector)
        rounded = backbone.stages_of(network, x)[0]
    assert (rounded == expected).float().mean() > 0.95 > 0.8 > (plain == expected).float().mean()


@pytest.mark.parametrize("model", ["to_pixels", "fused"])
def test_a_run_in_bf16_says_the_same_within_its_rounding(course_root, exported, model):
    run, path = exported(kind(model, image_size=64, precision="bf16"))
    session = ort.InferenceSession(path)
    pictures = images.load(sorted((course_root / "nut" / "test").glob("*.png")), 64)
    allowed, _ = tolerances.of_rounding(run, pictures, noise=tolerances.UNIT[torch.bfloat16])
    for picture, tolerance in zip(pictures, allowed, strict=True):
        expected = run.scores(picture[None])
        score = session.run(["score"], {"picture": picture[None].numpy()})[0]
        assert abs(score - expected) <= tolerance


@pytest.mark.parametrize("model", ["cae", "fused"])
def test_the_tolerance_would_notice(course_root, course_run, model):
    """Another picture's score is none of rounding's doing; nor is a map that is not smoothed."""
    run = inference.reopen(course_run(**kind(model, image_size=64)))
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
                                     **kind("pca", image_size=288)))
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
    assert json.loads(known["foreign_fpr"]) == refusal.FOREIGN_FPR


def test_a_run_without_a_threshold_calls_nothing_anomalous(exported):
    session = ort.InferenceSession(exported(kind("cae", held_out=0.0))[1])
    assert not session.run(["anomalous"], {"picture": np.zeros((1, 3, 32, 32), np.uint8)})[0].any()
    assert json.loads(session.get_modelmeta().custom_metadata_map["threshold"]) is None


def test_what_cannot_be_exported_is_one_sentence(course_run, tmp_path, monkeypatch):
    run = inference.reopen(course_run(model="mean_grey", name="mean_grey"))
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
