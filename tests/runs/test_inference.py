"""New pictures through a finished run: the run's own numbers again, tables that survive a kill, and
a folder that is watched."""
import contextlib
import csv
import shutil
import threading
import time

import pandas as pd
import pytest
from PIL import Image

from adlib import cli
from adlib.config import InputError, deprecated
from adlib.data import files
from adlib.evaluation import calibration
from adlib.runs import inference
from adlib.runs.engines import local
from tests.conftest import picture
from tests.handmade import small_run


@pytest.fixture
def run(course_root, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "SYNTHETIC", 8)
    return small_run(course_root, tmp_path / "reports", model="pca", name="pca", image_size=64)


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
    # one by one
    assert [float(row["score"]) for row in found] == pytest.approx(
        results["chosen_score"].to_list(), rel=1e-3)
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


def test_a_run_that_an_older_version_made_is_named(run):
    measured = files.read_json(run / "metrics.json")
    files.write_json(run / "metrics.json",
                     {key: value
                      for key, value in measured.items() if key != "maps"})
    with pytest.raises(InputError, match="older version of adlib; run its configuration again"):
        inference.reopen(run)
    files.write_json(run / "metrics.json", measured)
    (run / "model.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"model.pt cannot be read .* again with --force"):
        inference.reopen(run)
