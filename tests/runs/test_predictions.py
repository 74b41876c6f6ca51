"""New pictures through a run: what is said of each."""
import contextlib
import dataclasses
import os
import re
import shutil
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adlib import cli, config
from adlib.config import deprecated
from adlib.data import files
from adlib.models.detector import Detector
from adlib.models.fast import device
from adlib.runs import inference, predictions
from adlib.runs import watch as watch_module
from adlib.runs.engines import local
from adlib.runs.prediction_record import Record, Source
from tests import tolerances
from tests.conftest import picture, read_csv
from tests.runs.test_prediction_record import rows

pytestmark = pytest.mark.usefixtures("small_detectors")


@pytest.fixture
def run(course_run):
    return course_run(model="pca", name="pca", image_size=64)


def test_it_says_of_the_test_images_what_the_run_said(run, course_root, tmp_path, capsys):
    out, folder = tmp_path / "out", course_root / "nut" / "test"
    # there are anomalous ones
    assert cli.main(["predict", str(run), str(folder), "--out", str(out)]) == 1
    results = read_csv(run / "all_results.csv")
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
            assert overlay.size == (predictions.SIDE, predictions.SIDE)


def test_without_overlays_everything_else_is_the_same(run, course_root, tmp_path, monkeypatch,
                                                      capsys):
    monkeypatch.setattr(predictions, "AHEAD", 5)
    with_them, without = tmp_path / "with", tmp_path / "without"
    for out, more in ((with_them, []), (without, ["--no-overlays"])):
        cli.main(["predict", str(run), str(course_root / "nut"), "--out", str(out), *more])
    assert f"Tables: {without}" in capsys.readouterr().out
    assert not (without / "overlays").exists() and all(row["overlay"] for row in rows(with_them))
    assert len(rows(without)) == len(rows(with_them)) > 2 * predictions.AHEAD
    assert [row | {"time": "", "overlay": ""} for row in rows(without)] == [
        row | {"time": "", "overlay": ""} for row in rows(with_them)]


def test_what_is_said_of_a_picture_depends_on_no_other(run, course_root, tmp_path):
    """Whole batches, and what is left for the last one; and nothing is kept of new pictures."""
    reopened = inference.reopen(run)
    nut = course_root / "nut"
    sources = predictions.sources([nut / "train", nut / "test"])[:11]
    assert len(sources) % predictions.AHEAD and len(sources) > predictions.AHEAD
    before = sorted(config.cache_dir().rglob("*.npy"))

    def said(name, given):
        with Record(reopened, tmp_path / name) as record:
            return {one.path: dataclasses.replace(one, time="") for one in predictions.predict(
                record, given, threading.Event(), overlaid=False)}

    together = said("together", sources)
    assert len({one.score for one in together.values()}) == len(sources)  # each its own
    for i in (0, 3, len(sources) - 1):
        source = Source(sources[i].path, sources[i].name)
        assert said(str(i), [source]) == {str(source.path): together[str(source.path)]}
    assert sorted(config.cache_dir().rglob("*.npy")) == before


@pytest.mark.parametrize("model", ["pca", "cae", "resnet18", "to_features"])
def test_two_threads_look_at_pictures_of_their_own_and_say_the_same(model, course_run, course_root,
                                                                    tmp_path, monkeypatch):
    """From a run just reopened: two threads that moved its network ended the process."""
    monkeypatch.setattr(predictions, "AHEAD", 2)
    run = course_run(model=model, name=model, image_size=64, epochs=1)
    sources = predictions.sources([course_root / "nut"])
    alone, seen, met = inference.Reopened.score_with_maps, [], threading.Barrier(2, timeout=60)

    def said(name):
        with Record(inference.reopen(run), tmp_path / name) as record:
            return [dataclasses.replace(one, time="") for one in predictions.predict(
                record, [Source(one.path, one.name) for one in sources], threading.Event(),
                ahead=2, overlaid=False)]

    def meeting(self, given):
        if len(seen) < 2:  # the first two: each while the other is at it
            seen.append(torch.get_num_threads())
            met.wait()
        return alone(self, given)

    one_thread = said("one")
    monkeypatch.setattr(inference.Reopened, "score_with_maps", meeting)
    with device.threads(2):
        two_threads = said("two")
        assert torch.get_num_threads() == 2
    assert seen == [1, 1]
    assert [one.path for one in two_threads] == [str(one.path) for one in sources]
    assert two_threads == one_thread


def test_a_detector_of_ones_own_is_asked_by_one_thread_at_a_time(run, course_root, tmp_path,
                                                                 monkeypatch):
    reopened, busy = inference.reopen(run), threading.Lock()
    monkeypatch.setattr(type(reopened.detector), "is_thread_safe", Detector.is_thread_safe)
    alone = inference.Reopened.score_with_maps

    def score(self, given):
        assert busy.acquire(blocking=False)
        time.sleep(0.05)  # for another to come
        busy.release()
        return alone(self, given)

    monkeypatch.setattr(inference.Reopened, "score_with_maps", score)
    with device.threads(2), Record(reopened, tmp_path / "out") as record:
        found = list(predictions.predict(record, predictions.sources([course_root / "nut"]),
                                         threading.Event(), ahead=2, overlaid=False))
    assert len(found) > 4 and all(one.verdict for one in found)


def test_pictures_of_one_name_have_overlays_of_their_own(run, tmp_path):
    for i in range(6):
        picture(tmp_path / str(i) / "one.png", i)
    with Record(inference.reopen(run), tmp_path / "out") as record:
        found = list(predictions.predict(
            record, [Source(tmp_path / str(i) / "one.png", "one.png") for i in range(6)],
            threading.Event()))
    assert len({one.overlay for one in found}) == 6
    assert all((tmp_path / "out" / one.overlay).is_file() for one in found)


@pytest.mark.parametrize("fit", ["squeeze", "pad"])
def test_an_overlay_has_the_shape_of_its_picture_as_it_is_shown(course_run, tmp_path, fit):
    run = course_run(model="pca", name=f"pca_{fit}", image_size=64, fit=fit)
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    Image.new("RGB", (60, 40), (90, 60, 30)).save(tmp_path / "手机 1.jpg", exif=turned)
    assert cli.main(["predict", str(run), str(tmp_path / "手机 1.jpg"), "--out",
                     str(tmp_path / "out")]) in (0, 1, 4)
    with Image.open(tmp_path / "out" / "overlays" / "手机 1.jpg.jpg") as overlay:
        assert overlay.size == (round(predictions.SIDE * 40 / 60), predictions.SIDE)


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
    assert [(row["path"], bool(row["problem"])) for row in rows(tmp_path / "out")] == [
        (str(folder / "a.png"), True), (str(folder / "b.png"), False),
        (str(folder / "a.png"), False)]
    assert capsys.readouterr().out.endswith(f"2 pictures: 0 anomalous, 0 foreign, 2 good. Tables and "
                                            f"overlays: {tmp_path / 'out'}.\n")


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "12:30.png", "con.png", "what?/1.png"])
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_an_overlay_has_a_name_that_any_system_takes(run, tmp_path, name):
    path = tmp_path / "new" / name
    picture(path, 0)
    words = [str(tmp_path / "new"), "--out", str(tmp_path / "out")]
    assert cli.main(["predict", str(run), *words]) in (0, 1)
    assert [row["path"] for row in rows(tmp_path / "out")] == [str(path)]
    (overlay, ) = (tmp_path / "out" / "overlays").rglob("*.jpg")
    first = overlay.relative_to(tmp_path / "out" / "overlays").parts[0]
    assert re.fullmatch(r"[0-9a-f]{16}(\.jpg)?", first)


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
    } == {Path(row["overlay"]).name for row in rows(tmp_path / "out")}


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
     (["nowhere", "--watch"], "--watch looks at one folder"),
     (["/dev/null"], "/dev/null is a pipe, a socket or a device"),
     (["pipe.png"], "pipe.png is a pipe, a socket or a device")])
def test_what_was_given_wrongly_is_one_sentence(run, tmp_path, monkeypatch, capsys, words,
                                                sentence):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.png")  # which nobody writes into, and nobody waits for
    monkeypatch.chdir(tmp_path)
    assert cli.main(["predict", str(run), *words]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


@pytest.mark.parametrize("watch", [[], ["--watch"]])
def test_what_is_named_like_a_picture_and_is_no_file_has_a_row_with_its_reason(
        run, course_root, tmp_path, monkeypatch, watch):
    folder = tmp_path / "folder"
    shutil.copytree(course_root / "nut" / "train" / "good", folder)
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe.CR2")
    os.mkfifo(folder / "pipe")
    server = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(folder)  # a socket's path is short
    server.bind("socket.jpg")
    os.symlink("/dev/zero", folder / "device.bmp")
    out, seen = tmp_path / "out", len(list(folder.glob("0*.png")))
    record = Record(inference.reopen(run), out)
    stop = threading.Event()
    coming = (predictions.sources([folder]) if not watch else
              watch_module.watched(folder, record, stop))
    with record:
        for number, _ in enumerate(predictions.predict(record, coming, stop), 1):
            if number == seen + 4:
                stop.set()
    server.close()
    said = {Path(row["path"]).name: row["problem"] for row in rows(out) if row["problem"]}
    assert said == dict.fromkeys(["pipe.png", "pipe.CR2", "socket.jpg", "device.bmp"],
                                 files.NO_FILE)
    assert len(rows(out)) == seen + 4


def test_weights_are_no_longer_asked_for_and_still_taken(run, course_root, tmp_path, capsys):
    deprecated.cache_clear()
    assert cli.main(["predict", str(run), str(course_root / "nut" / "test"), "--weights", "w.pth",
                     "--out", str(tmp_path / "out")]) == 1
    assert "deprecated: --weights here, since a run keeps its own" in capsys.readouterr().out


@pytest.mark.parametrize(("spoil", "problem"), [
    (lambda path: path.write_bytes(b""), "the file is empty"),
    (lambda path: path.write_bytes(b"text"), "no picture of a kind that is read"),
    (lambda path: path.write_bytes(path.read_bytes()[:300]), "runcated"),
    (Path.mkdir, "Is a directory")], ids=["empty", "text", "half", "folder"])
def test_why_a_picture_cannot_be_read(run, tmp_path, spoil, problem):
    path = tmp_path / "new" / "a.png"
    picture(path, 0)
    if spoil is Path.mkdir:
        path.unlink()
    spoil(path)
    with Record(inference.reopen(run), tmp_path / "out") as record:
        (one, ) = predictions.predict(record, [Source(path, "a.png")],
                                      threading.Event())
    assert problem in one.problem and "0x" not in one.problem and one.score is None
    assert predictions.exit_code(record) == 3


def test_a_score_that_is_no_number_is_no_verdict(run, tmp_path, monkeypatch, capsys):
    """`nan > threshold` is false, and would be "good" (open-edge-platform/anomalib, 549)."""
    picture(tmp_path / "a.png", 0)
    monkeypatch.setattr(inference.Reopened, "score_with_maps",
                        lambda self, given: (np.array([np.nan]), np.zeros((1, 64, 64), np.float32)))
    assert cli.main(["predict", str(run), str(tmp_path / "a.png"), "--out",
                     str(tmp_path / "out")]) == 3
    (row, ) = rows(tmp_path / "out")
    assert row["problem"] == "its score is nan" and row["verdict"] == row["score"] == ""


def test_another_false_positive_rate(run, course_root, tmp_path, capsys):
    """Three calibration images support a quarter."""
    words, out = ["predict", str(run), str(course_root / "nut" / "test")], tmp_path / "out"
    assert cli.main([*words, "--target-fpr", "0.25", "--out", str(out)]) == 1
    about, reopened = files.read_json(out / "predictions.json"), inference.reopen(run)
    assert about["target_fpr"] == 0.25 and about["threshold"] == max(
        reopened.threshold.calibration)
    assert cli.main([*words, "--target-fpr", "0.6", "--out", str(tmp_path / "more")]) == 1
    for folder, rate in ((out, 0.25), (tmp_path / "more", 0.6)):
        assert [row["verdict"] == "anomalous" for row in rows(folder)] == [
            float(row["p_value"]) <= rate for row in rows(folder)]
    capsys.readouterr()
    for rate, sentence in (
            ("0.01", "a false-positive rate of 0.01 takes 99 calibration images and this run has 3; "
                     "they support 0.25 at the least"),
            ("5", "a false-positive rate of 5 was asked for; give a share between 0 and 1"),
            ("nan", "give a share between 0 and 1"), ("0", "give a share between 0 and 1")):
        assert cli.main([*words, "--target-fpr", rate, "--out", str(tmp_path / "not")]) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1 and not (tmp_path / "not").exists()
    # Verdicts of two thresholds are never mixed.
    assert cli.main([*words, "--out", str(out)]) == 2
    assert "by another threshold" in capsys.readouterr().err


def test_without_calibration_images_no_rate_can_be_asked_for(course_run, tmp_path, capsys):
    folder = course_run(model="mean_grey", name="mean_grey", held_out=0.0)
    picture(tmp_path / "a.png", 0)
    words = ["predict", str(folder), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--target-fpr", "0.5"]) == 2
    assert "this run has 0; run its configuration with a held_out above 0" in (
        capsys.readouterr().err)
    assert cli.main(words) == 0 and "sort by score" in capsys.readouterr().out
