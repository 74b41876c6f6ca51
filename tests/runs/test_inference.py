"""A finished run reopened from its folder, and new pictures through it: the run's own numbers again,
tables that survive a kill, and a folder that is watched."""
import contextlib
import csv
import json
import logging
import math
import shutil
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from adlib import cli
from adlib.config import Config, InputError, deprecated
from adlib.data import files
from adlib.data.part import open_part
from adlib.evaluation import calibration
from adlib.evaluation.conformal import Threshold
from adlib.runs import inference, run_folder
from adlib.runs.engines import local
from tests import tolerances
from tests.conftest import picture
from tests.handmade import SMALL, small_run, spine


@pytest.fixture(autouse=True)
def _few_synthetic_anomalies(monkeypatch):
    monkeypatch.setattr(calibration, "SYNTHETIC", 8)


@pytest.fixture
def run(course_root, tmp_path):
    return small_run(course_root, tmp_path / "reports", model="pca", name="pca", image_size=64)


def of(folder, split="test"):
    table = pd.read_csv(folder / "all_results.csv")
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
def test_a_reopened_run_gives_its_own_scores_again(course_root, tmp_path, changes):
    folder = small_run(course_root, tmp_path / "reports", **changes)
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


def test_the_data_may_have_moved(course_root, tmp_path):
    folder = small_run(course_root, tmp_path / "reports", model="mean_grey", name="mean_grey")
    course_root.rename(tmp_path / "moved")
    with pytest.raises(InputError):
        inference.reopen_with_data(folder)
    run, part = inference.reopen_with_data(folder, str(tmp_path / "moved"))
    assert run.scores(part.test).tolist() == of(folder)["chosen_score"].tolist()


@pytest.mark.parametrize(("spoil", "sentence"), [
    (lambda folder, root: shutil.rmtree(folder),
     r"seed-0 holds no finished run \(missing: never run\); run its configuration first"),
    (lambda folder, root: run_folder.fail(folder, "the sky fell"),
     r"no finished run \(failed: the sky fell\)"),
    (lambda folder, root: (folder / "metrics.json").unlink(),
     r"no finished run \(failed: cannot read .*metrics.json"),
    (lambda folder, root: (folder / "model.pt").unlink(), "cannot be reopened"),
    (lambda folder, root: (folder / "model.pt").write_bytes(b"nothing"),
     r"model.pt cannot be read .* again with --force"),
    (lambda folder, root: picture(root / "nut" / "test" / "001.png", 999),
     "the data of .*seed-0 have changed since it ran"),
    (lambda folder, root: (root / "nut" / "train" / "good" / "007.png").unlink(),
     "have changed since it ran; run its configuration again"),
], ids=["missing", "failed", "unfinished", "no state", "no state dict", "another test image",
        "a training image less"])
def test_what_cannot_be_reopened_is_one_sentence(course_root, tmp_path, spoil, sentence):
    folder = small_run(course_root, tmp_path / "reports", model="mean_grey", name="mean_grey")
    spoil(folder, course_root)
    with pytest.raises(InputError, match=sentence) as caught:
        inference.reopen_with_data(folder)
    assert "\n" not in str(caught.value)


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
def test_a_run_of_version_0_1_still_opens_and_says_so(course_root, tmp_path, changes, caplog):
    folder = small_run(course_root, tmp_path / "reports", **changes)
    part = inference.reopen_with_data(folder)[1]
    old = as_version_0_1(folder)
    assert bool(old) == (changes["model"] != "mean_grey")
    with caplog.at_level(logging.WARNING, logger="adlib"):
        run = inference.reopen(folder)
    assert ("made by adlib 0.1" in caplog.text) == bool(old)
    assert run.scores(part.test).tolist() == of(folder)["chosen_score"].tolist()


def test_other_weights_are_not_passed_off_as_those_of_a_run_of_version_0_1(course_root, tmp_path):
    """Its model.pt holds no backbone: the file it was read from has to be the same one."""
    folder = small_run(course_root, tmp_path / "reports", model="pca", name="pca", image_size=64,
                       weights=resnet18(tmp_path / "w.pth", 0))
    as_version_0_1(folder)
    inference.reopen(folder)
    resnet18(tmp_path / "w.pth", 1)
    with pytest.raises(InputError, match="made with other weights"):
        inference.reopen(folder)


@pytest.mark.parametrize("model", ["cae", "fused"])
def test_one_threshold_in_every_file(course_root, tmp_path, model):
    """metrics.json, predictions.json and the ONNX file of a run hold one and the same number, and
    call the same images anomalous that all_results.csv does."""
    ort = pytest.importorskip("onnxruntime", reason="needs the extra: pip install -e '.[onnx]'")
    pytest.importorskip("onnxscript", reason="needs the extra: pip install -e '.[onnx]'")
    folder = small_run(course_root, tmp_path / "reports", model=model, name=model, image_size=64)
    test, onnx = course_root / "nut" / "test", tmp_path / "out.onnx"
    assert cli.main(["predict", str(folder), str(test), "--out", str(tmp_path / "out")]) in (0, 1)
    assert cli.main(["export", str(folder), "--onnx", str(onnx)]) == 0
    measured, table = files.read_json(folder / "metrics.json"), of(folder)
    predictions = files.read_json(tmp_path / "out" / "predictions.json")
    metadata = ort.InferenceSession(onnx).get_modelmeta().custom_metadata_map
    threshold = Threshold(np.array(measured["calibration"]["scores"]), 0.3)
    assert predictions["threshold"] == threshold.value == json.loads(metadata["threshold"])
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


def rows(out):
    with (out / "predictions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_it_says_of_the_test_images_what_the_run_said(run, course_root, tmp_path, capsys):
    out, folder = tmp_path / "out", course_root / "nut" / "test"
    # there are anomalous ones
    assert cli.main(["predict", str(run), str(folder), "--out", str(out)]) == 1
    results = pd.read_csv(run / "all_results.csv")
    results = results[results["split"] == "test"].sort_values("path")
    found = rows(out)
    assert [row["path"] for row in found] == [str(course_root / key) for key in results["path"]]
    # One by one, and not in a batch: equal but for rounding.
    again, part = inference.reopen_with_data(run)
    tolerance, _ = tolerances.of_rounding(again, part.test.tensor)
    scores = np.array([float(row["score"]) for row in found])
    assert (np.abs(scores - results["chosen_score"].to_numpy()) <= tolerance).all()
    assert [float(row["p_value"]) for row in found] == results["chosen_p_value"].to_list()
    assert [row["verdict"] == "anomalous"
            for row in found] == (results["chosen_prediction"] == 1).to_list()
    said = capsys.readouterr().out
    assert said.count("anomalous  ") == sum(
        row["verdict"] == "anomalous" for row in found) and f"Tables and overlays: {out}" in said
    about = files.read_json(out / "predictions.json")
    assert [one["path"] for one in about["predictions"]] == [row["path"] for row in found]
    assert about["threshold"] == inference.reopen(run).threshold.value and about["calibration_images"] == 3
    for path in folder.glob("*.png"):
        with Image.open(out / "overlays" / f"{path.name}.jpg") as overlay:
            assert overlay.size == (inference.SIDE, inference.SIDE)


def test_no_data_of_the_run_are_needed(run, course_root, tmp_path):
    picture(tmp_path / "new" / "deep" / "one.png", 3)
    shutil.rmtree(course_root)
    assert cli.main(["predict",
                     str(run),
                     str(tmp_path / "new"), "--out",
                     str(tmp_path / "out")]) in (0, 1)
    assert (tmp_path / "out" / "overlays" / "deep" / "one.png.jpg").is_file()


def test_what_cannot_be_read_is_listed_and_does_not_stop_the_rest(run, course_root, tmp_path,
                                                                  capsys):
    folder = tmp_path / "new"
    good = sorted((course_root / "nut" / "train" / "good").glob("*.png"))[0]
    folder.mkdir()
    shutil.copy(good, folder / "b.png")
    (folder / "a.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not looked at")
    assert cli.main(["predict", str(run), str(folder), "--out", str(tmp_path / "out")]) == 3
    said = capsys.readouterr().out
    assert "unreadable" in said and f"1 cannot be read: {folder / 'a.png'}" in said
    bad, fine = rows(tmp_path / "out")
    assert bad["problem"] and not bad["score"] and fine["verdict"] == "good" and not fine["problem"]
    shutil.copy(good, folder / "a.png")
    # mended, and asked again
    assert cli.main(["predict", str(run), str(folder), "--out", str(tmp_path / "out")]) == 0
    assert sorted(row["path"] for row in rows(tmp_path / "out")) == [
        str(folder / "a.png"), str(folder / "b.png")
    ]


def test_every_file_that_looks_like_a_picture_has_a_row(run, course_root, tmp_path):
    good = sorted((course_root / "nut" / "train" / "good").glob("*.png"))[0]
    (tmp_path / "new" / "@eaDir").mkdir(parents=True)
    for name in ("b.png", "without_a_suffix", "@eaDir/a_nas_has_its_own.png"):
        shutil.copy(good, tmp_path / "new" / name)
    (tmp_path / "new" / "a.NEF").write_bytes(b"II*\0" + bytes(64))
    (tmp_path / "new" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    words = ["predict", str(run), str(tmp_path / "new"), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 3
    raw, one, other = rows(tmp_path / "out")
    assert raw["problem"].startswith(".NEF files are not read")
    assert one["score"] == other["score"] and other["path"].endswith("without_a_suffix")


def test_a_killed_call_goes_on_where_it_was(run, course_root, tmp_path, capsys):
    words = ["predict", str(run), str(course_root / "nut" / "test"), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 1
    whole = (tmp_path / "out" / "predictions.csv").read_text()
    # killed while it wrote its second row
    (tmp_path / "out" / "predictions.csv").write_text("\n".join(whole.splitlines()[:3])[:-6])
    capsys.readouterr()
    assert cli.main(words) == 1
    assert (tmp_path / "out" / "predictions.csv"
            ).read_text() == whole and capsys.readouterr().out.count(".png\n") == 5 - 1 + 1


def test_predictions_of_two_runs_are_never_mixed(run, course_root, tmp_path, capsys):
    words = [str(course_root / "nut" / "test"), "--out", str(tmp_path / "out")]
    assert cli.main(["predict", str(run), *words]) == 1
    other = small_run(course_root, tmp_path / "reports", model="mean_grey", name="mean_grey")
    assert cli.main(["predict", str(other), *words]) == 2
    assert "holds predictions of another run" in capsys.readouterr().err


def test_a_picture_of_a_very_long_name_has_an_overlay_of_a_short_one(run, tmp_path):
    path = tmp_path / "new" / ("x" * 251 + ".png")
    picture(path, 0)
    assert cli.main(["predict", str(run), str(path), "--out", str(tmp_path / "out")]) in (0, 1)
    assert [row["path"] for row in rows(tmp_path / "out")] == [str(path)]
    (overlay, ) = (tmp_path / "out" / "overlays").iterdir()
    assert len(overlay.name) == len("0123456789abcdef.jpg")


def test_pictures_of_one_name_in_two_folders_have_an_overlay_each_and_one_given_twice_has_one_row(
        run, tmp_path):
    for i, folder in enumerate(("a", "b")):
        picture(tmp_path / folder / "1.png", i)
    words = [str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "a" / "1.png")]
    assert cli.main(["predict", str(run), *words, "--out", str(tmp_path / "out")]) in (0, 1)
    assert len(rows(tmp_path / "out")) == 2
    assert {
        path.relative_to(tmp_path / "out" / "overlays").as_posix()
        for path in (tmp_path / "out" / "overlays").rglob("*.jpg")
    } == {"1.png.jpg", "2/1.png.jpg"}


def test_a_call_that_is_stopped_says_so_and_is_no_verdict(run, course_root, tmp_path, monkeypatch,
                                                          capsys):
    def stopped():
        stop = threading.Event()
        stop.set()
        return contextlib.nullcontext(stop)

    monkeypatch.setattr(local, "stop_signals", stopped)
    assert cli.main(
        ["predict",
         str(run),
         str(course_root / "nut" / "test"), "--out",
         str(tmp_path / "out")]) == 130
    assert len(rows(
        tmp_path / "out")) == 1 and "the same command goes on from here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["nowhere.png"], "there is no nowhere.png; give pictures, or folders of pictures"),
     (["empty"], "empty holds no picture"),
     (["empty", "--watch", "--out", "/proc/nothing"], "cannot write in /proc/nothing"),
     (["nowhere", "--watch"], "--watch looks at one folder")])
def test_what_was_given_wrongly_is_one_sentence(run, tmp_path, monkeypatch, capsys, words,
                                                sentence):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["predict", str(run), *words]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_a_watched_folder_is_followed_until_it_is_enough(run, course_root, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "POLL_S", 0.05)
    good, stop, found = sorted(
        (course_root / "nut" / "train" / "good").glob("*.png")), threading.Event(), []
    folder, detector, out = tmp_path / "camera", inference.reopen(run), tmp_path / "out"
    folder.mkdir()
    inference.begin(detector, out)

    def follow():
        found.extend(
            inference.predict(detector, inference.watched(folder, {str(folder / "old.png")}, stop), out,
                            ahead=0))

    thread = threading.Thread(target=follow)
    thread.start()
    shutil.copy(good[0], folder / "old.png")
    half = good[1].read_bytes()
    (folder / "new.png").write_bytes(half[:100])
    deadline = time.monotonic() + 30
    (folder / "new.png").write_bytes(half)
    while len(rows(out)) < 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    stop.set()
    thread.join(10)
    assert [(one.path, one.problem)
            for one in found] == [(str(folder / "new.png"), "")] and not thread.is_alive()


def test_weights_are_no_longer_asked_for_and_still_taken(run, course_root, tmp_path, capsys):
    deprecated.cache_clear()
    assert cli.main(["predict", str(run), str(course_root / "nut" / "test"), "--weights", "w.pth",
                     "--out", str(tmp_path / "out")]) == 1
    assert "deprecated: --weights here, since a run keeps its own" in capsys.readouterr().out
