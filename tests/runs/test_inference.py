"""A finished run reopened from its folder: the run's own numbers again."""
import dataclasses
import json
import logging
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from adlib import cli
from adlib.config import Config, InputError
from adlib.data import files
from adlib.data.part import open_part
from adlib.evaluation import calibration
from adlib.evaluation.conformal import Threshold
from adlib.report.display import components, gallery
from adlib.runs import inference, run_folder, terminal
from adlib.runs.prediction_record import Prediction
from tests import tolerances
from tests.conftest import picture, read_csv
from tests.handmade import SMALL, of_earlier_version, small_run, spine

pytestmark = pytest.mark.usefixtures("small_detectors", "exporter")


@pytest.fixture
def run(course_run):
    return course_run(model="pca", name="pca", image_size=64)


def of(folder, split="test"):
    table = read_csv(folder / "all_results.csv")
    return table[table["split"] == split]


KINDS = [{"model": "cae", "name": "cae_mse"}, {"model": "resnet18", "name": "resnet_mse"},
         {"model": "cae", "name": "cae_mse", "held_out": 0.0, "seed": 1},
         {"model": "mean_grey", "name": "mean_grey"},
         *({"model": model, "name": model, "image_size": 64}
           for model in ("pca", "gaussian", "gaussian_anywhere", "memory", "classifier", "fused",
                         "to_features", "to_pixels"))]


def named(changes):
    return f"{changes['model']}-{changes.get('held_out', 'held')}"


@pytest.mark.parametrize("changes", KINDS, ids=named)
def test_a_reopened_run_gives_its_own_scores_again(course_run, changes):
    folder = course_run(**changes)
    run, part = inference.reopen_with_data(folder)
    assert (run.config.name, part.category.name) == (changes["name"], "nut")
    assert run.decision.score == files.read_json(folder / "metrics.json")["chosen"]["score"]
    for split in ("test", "train_bad"):
        images, rows = getattr(part, split), of(folder, split)
        assert images.keys == list(rows["path"])
        assert run.scores(images).tolist() == rows["chosen_score"].tolist()
        assert run.score_with_maps(images)[0].tolist() == rows["chosen_score"].tolist()
        # The same threshold, or false positives on disturbed images would be another detector's.
        if run.config.held_out:
            called = run.threshold.exceeded(rows["chosen_score"])
            assert called.tolist() == (rows["chosen_prediction"] == 1).tolist()
    assert math.isinf(run.threshold.value) == (run.config.held_out == 0)


def test_it_is_the_chosen_score_whichever_it_is(course_root, tmp_path):
    config = Config(**SMALL, data_root=str(course_root), reports=str(tmp_path / "reports"))
    folder, detector, decision, _ = spine(config)
    part, measured = open_part(config), files.read_json(folder / "metrics.json")
    test = calibration.score_table(detector, decision.scale, part.test)
    for name in ("squared.mean", "sum.max", "gradient.top1"):
        held = decision.good_scores["held_out"][name]
        files.write_json(folder / "metrics.json", measured | {
            "chosen": measured["chosen"] | {"score": name},
            "calibration": measured["calibration"] | {"scores": held.tolist()}})
        run = inference.reopen(folder)
        assert run.scores(part.test).tolist() == test[name].tolist()
        assert run.threshold.value == Threshold(held.to_numpy(), 0.3).value
        assert run.decision.low == decision.low < decision.level == run.decision.level


def test_the_data_may_have_moved(course_root, course_run, tmp_path):
    folder = course_run(model="mean_grey", name="mean_grey")
    course_root.rename(tmp_path / "moved")
    with pytest.raises(InputError):
        inference.reopen_with_data(folder)
    run, part = inference.reopen_with_data(folder, str(tmp_path / "moved"))
    assert run.scores(part.test).tolist() == of(folder)["chosen_score"].tolist()


def test_a_run_that_is_at_work_is_to_be_waited_for(tmp_path, monkeypatch):
    for name in ("status", "numbers"):
        monkeypatch.setattr(run_folder, name, lambda _: run_folder.Status("running"))
    with pytest.raises(InputError, match=r"no finished run \(running\); wait until it has ended"):
        inference.reopen(tmp_path)


@pytest.mark.parametrize(("spoil", "sentence"), [
    (lambda folder, root: shutil.rmtree(folder),
     "seed-0 is no folder of a run; give one such as reports/runs"),
    (lambda folder, root: run_folder.fail(folder, "the sky fell", "no run of before"),
     r"no finished run \(failed: the sky fell\)"),
    (lambda folder, root: (folder / "metrics.json").unlink(),
     r"no finished run \(failed: cannot read .*metrics.json"),
    *((lambda folder, root, name=name: (folder / name).unlink(), f"{name} is missing; put it there")
      for name in ("model.pt", "foreign.pt", "conditions.json", "looked_at.png")),
    (lambda folder, root: (folder / "model.pt").write_bytes(b"nothing"),
     r"model.pt cannot be read .* again with --force"),
    (lambda folder, root: picture(root / "nut" / "test" / "001.png", 999),
     "the data of .*seed-0 have changed since it ran"),
    (lambda folder, root: (root / "nut" / "train" / "good" / "007.png").unlink(),
     "have changed since it ran; run its configuration again"),
    *((lambda folder, root, name=name, change=change: spoilt(folder / name, change),
       rf"seed-0/{name} cannot be read \({why}.*\); run its configuration again with --force")
      for name, change, why in (
          ("run.json", lambda said: said.pop("data"), "KeyError: 'data'"),
          ("run.json", lambda said: said.pop("weights"), "KeyError: 'weights'"),
          ("metrics.json", lambda said: said["chosen"].pop("score"), "KeyError: 'score'"),
          ("metrics.json", lambda said: said.pop("label_free"), "KeyError: 'label_free'"),
          ("metrics.json", lambda said: said["calibration"].update(scores="abc"), "ValueError"),
          ("conditions.json", lambda said: said.clear(), "KeyError"))),
], ids=["missing", "failed", "unfinished", "no state", "no foreign",
        "no conditions", "no region", "no state dict", "another test image",
        "a training image less", "no data", "no weights", "no score", "no ranking", "no numbers",
        "no values"])
def test_what_cannot_be_reopened_is_one_sentence(course_root, tmp_path, spoil, sentence):
    Image.new("L", (32, 32), 255).save(course_root / "nut" / "all.png")
    folder = small_run(course_root, tmp_path / "reports", model="mean_grey", name="mean_grey",
                       roi="all.png")
    spoil(folder, course_root)
    with pytest.raises(InputError, match=sentence) as caught:
        inference.reopen_with_data(folder)
    assert "\n" not in str(caught.value)


def spoilt(path, change):
    said = files.read_json(path)
    change(said)
    files.write_json(path, said)


def resnet18(path, seed):
    from torchvision.models import resnet18

    torch.manual_seed(seed)
    torch.save(resnet18(weights=None).state_dict(), path)
    return str(path)


def test_a_run_carries_its_pretrained_weights(course_root, tmp_path):
    """Whatever became of the file that they were read from."""
    folder = small_run(course_root, tmp_path / "reports", model="pca", name="pca", image_size=64,
                       weights=resnet18(tmp_path / "w.pth", 0))
    resnet18(tmp_path / "w.pth", 1)
    run, part = inference.reopen_with_data(folder)
    assert run.scores(part.test).tolist() == of(folder)["chosen_score"].tolist()
    assert run.detector.weights == run_folder.manifest(folder)["weights"]
    (tmp_path / "w.pth").unlink()
    assert inference.reopen(folder).scores(part.test).tolist() == run.scores(part.test).tolist()


def as_version_0_1(folder):
    """Its model.pt as adlib 0.1 wrote it: the network, the head or the decoder alone."""
    state, old = torch.load(folder / "model.pt", weights_only=True), {}
    for key, tensor in state.items():
        prefix, _, rest = key.partition(".")
        if prefix in ("network", "head", "decoder"):
            old[rest] = tensor
    torch.save(old or state, folder / "model.pt")  # a statistic's has kept its name
    return old


@pytest.mark.parametrize("changes", KINDS, ids=named)
def test_a_run_of_version_0_1_still_opens_and_says_so(course_run, changes, caplog):
    folder = course_run(**changes)
    part = inference.reopen_with_data(folder)[1]
    old = as_version_0_1(folder)
    assert bool(old) == (changes["model"] != "mean_grey")
    with caplog.at_level(logging.WARNING, logger="adlib"):
        run = inference.reopen(folder)
    assert ("made by adlib 0.1" in caplog.text) == bool(old)
    assert run.scores(part.test).tolist() == of(folder)["chosen_score"].tolist()


def test_a_run_from_before_whole_pictures_were_compared_still_opens(course_run):
    folder = course_run(model="fused", name="fused", image_size=64)
    state = torch.load(folder / "model.pt", weights_only=True)
    old = {key: values for key, values in state.items()
           if ".whole." not in key and not key.endswith(".local_scale")}
    torch.save(old, folder / "model.pt")
    head = inference.reopen(folder).detector.head
    assert len(old) < len(state) and not head.whole(torch.rand(2, len(head.whole.mean), 4, 4)).any()
    kept = head.state_dict()
    assert all(torch.equal(kept[key.removeprefix("head.")], values)
               for key, values in old.items() if key.startswith("head."))


def test_other_weights_are_not_passed_off_as_those_of_a_run_of_version_0_1(course_root, tmp_path):
    """Its model.pt holds no backbone: the file it was read from has to be the same one."""
    folder = small_run(course_root, tmp_path / "reports", model="pca", name="pca", image_size=64,
                       weights=resnet18(tmp_path / "w.pth", 0))
    as_version_0_1(folder)
    inference.reopen(folder)
    resnet18(tmp_path / "w.pth", 1)
    with pytest.raises(InputError, match="made with other weights"):
        inference.reopen(folder)


@pytest.mark.parametrize("asked, made", [
    ({}, "float32"), ({"precision": "bf16"}, "bf16"), ({"fit": "tile", "tile_size": 64,
                                                        "overlap": 16}, "bf16")])
def test_a_run_is_reopened_in_its_own_precision(course_root, tmp_path, monkeypatch, caplog, asked,
                                                made):
    """Scores of another rounding are not those that its threshold is of: two hundredths apart."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    folder = small_run(course_root, tmp_path / "reports", **{
        "precision": "auto", "model": "memory", "name": "memory", "image_size": 64} | asked)
    about = run_folder.manifest(folder)
    assert (about["precision"], about["learned_in"]) == (made, "bf16")
    run, part = inference.reopen_with_data(folder)
    assert run.scores(part.test).tolist() == of(folder)["chosen_score"].tolist()
    for there, warned in ((True, False), (False, made == "bf16")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported",
                            lambda there=there: there)
        with caplog.at_level(logging.WARNING, logger="adlib"):
            run = inference.reopen(folder)
        assert run.detector.of_squares.config.precision == made
        assert ("which this processor imitates" in caplog.text) == warned


@pytest.mark.parametrize("changes", [KINDS[0], KINDS[9]], ids=named)
def test_one_threshold_in_every_file(course_root, course_run, tmp_path, changes):
    """metrics.json, predictions.json, the ONNX file and the page of a run hold one and the same
    number, and call the same images anomalous that all_results.csv does."""
    ort = pytest.importorskip("onnxruntime", reason="needs the extra: pip install -e '.[onnx]'")
    pytest.importorskip("onnxscript", reason="needs the extra: pip install -e '.[onnx]'")
    folder = course_run(**changes)
    test, onnx = course_root / "nut" / "test", tmp_path / "out.onnx"
    assert cli.main(["predict", str(folder), str(test), "--out", str(tmp_path / "out")]) in (0, 1)
    assert cli.main(["export", str(folder), "--onnx", str(onnx)]) == 0
    measured, table = files.read_json(folder / "metrics.json"), of(folder)
    predictions = files.read_json(tmp_path / "out" / "predictions.json")
    metadata = ort.InferenceSession(onnx).get_modelmeta().custom_metadata_map
    threshold = Threshold(np.array(measured["calibration"]["scores"]), 0.3)
    assert predictions["threshold"] == threshold.value == json.loads(metadata["threshold"])
    page = components.threshold(table, gallery.test_images(folder)[1], predictions["score"])
    assert f'data-threshold="{threshold.value!r}"' in page
    assert predictions["target_fpr"] == json.loads(metadata["target_fpr"]) == 0.3
    assert json.loads(metadata["calibration_images"]) == predictions["calibration_images"] == 3
    assert measured["chosen"]["score"] == predictions["score"] == json.loads(metadata["score"])
    called = (table["chosen_score"] > threshold.value).tolist()
    assert called == (table["chosen_prediction"] == 1).tolist() and True in called
    # What predict says is of pictures one by one: rounding may decide at the threshold itself.
    run, part = inference.reopen_with_data(folder)
    sure = np.abs(table["chosen_score"] - threshold.value) > tolerances.of_rounding(
        run, part.test.tensor)[0]
    verdicts = np.array([one["verdict"] == "anomalous" for one in predictions["predictions"]])
    assert sure.any() and (verdicts == np.array(called))[sure].all()


def test_a_dead_camera_is_refused_whatever_its_score(course_root, tmp_path, capsys, caplog):
    """With its own p-value, its reason in words, and an exit code of its own."""
    for i in range(8, 24):
        picture(course_root / "nut" / "train" / "good" / f"{i:03d}.png", 1000 + i)
    folder = small_run(course_root, tmp_path / "reports", model="mean_grey", name="mean_grey",
                       held_out=0.85)
    shown = tmp_path / "shown"
    picture(shown / "good.png", 77)
    Image.new("RGB", (32, 32), (90, 90, 90)).save(shown / "grey.png")
    out = tmp_path / "out"
    assert cli.main(["predict", str(folder), str(shown), "--out", str(out)]) == 4
    assert "the part is absent or covered" in capsys.readouterr().out
    rows = pd.read_csv(out / "predictions.csv", keep_default_na=False).set_index("path")
    good, dead = (rows.loc[str(shown / name)] for name in ("good.png", "grey.png"))
    assert (good["verdict"], good["reason"]) == ("good", "")
    assert (dead["verdict"], dead["reason"]) == ("foreign", "absent")
    assert float(dead["foreign_p_value"]) <= 0.001 < float(good["foreign_p_value"])
    # The same again goes on; a run of an earlier version says nothing of it, and says that.
    assert cli.main(["predict", str(folder), str(shown), "--out", str(out)]) == 4
    (folder / "foreign.pt").unlink()
    of_earlier_version(folder)
    assert cli.main(["predict", str(folder), str(shown), "--out", str(tmp_path / "old")]) != 4
    assert "could be told" in caplog.text


def test_a_try_that_failed_leaves_the_detector_from_before(run, caplog):
    """With weights that are not there, say: what was fitted still looks at pictures."""
    scores = inference.reopen(run).threshold.calibration
    run_folder.fail(run, "no such weights", run_folder.manifest(run)["started"])
    assert run_folder.status(run).state == "failed"
    assert inference.reopen(run).threshold.calibration.tolist() == scores.tolist()
    assert "the last try at this run failed (no such weights)" in caplog.text


def test_a_reason_is_said_of_what_is_called_foreign_alone():
    row = Prediction("a.png", score=1.0, verdict="foreign", reason="unlike")
    assert terminal.prediction_line(row).endswith("a.png (it does not look like the part)")
    defect = dataclasses.replace(row, verdict="anomalous")
    assert terminal.prediction_line(defect).endswith("a.png")


def test_a_damaged_foreign_file_is_one_sentence(run):
    (run / "foreign.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"foreign.pt cannot be read .*--force"):
        inference.reopen(run)
