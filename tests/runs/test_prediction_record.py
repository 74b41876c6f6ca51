"""The record of predictions: it survives a kill, knows its pictures, and belongs to one call."""
import csv
import errno
import os
import re
import shutil
import threading
from pathlib import Path

import pytest

from adlib import cli
from adlib.config import InputError
from adlib.data import files
from adlib.runs import inference, predictions
from adlib.runs.prediction_record import COLUMNS, Record, Source
from tests.conftest import picture

pytestmark = pytest.mark.usefixtures("small_detectors")


@pytest.fixture
def run(course_run):
    return course_run(model="pca", name="pca", image_size=64)


def rows(out):
    with (out / "predictions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_killed_call_goes_on_where_it_was(run, course_root, tmp_path, capsys):
    words = ["predict", str(run), str(course_root / "nut" / "test"), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 1
    table = tmp_path / "out" / "predictions.csv"
    whole, before = table.read_bytes(), rows(tmp_path / "out")
    table.write_bytes(b"\n".join(whole.split(b"\n")[:3])[:-6])  # while it wrote its second row
    capsys.readouterr()
    assert cli.main(words) == 1
    assert capsys.readouterr().out.count(".png\n") == 6 - 1
    assert [row | {"time": ""} for row in rows(tmp_path / "out")] == [
        row | {"time": ""} for row in before]
    listed = files.read_json(tmp_path / "out" / "predictions.json")["predictions"]
    assert [one["path"] for one in listed] == [row["path"] for row in before]
    table.write_bytes(whole[:20])  # in its heading
    assert cli.main(words) == 1 and len(rows(tmp_path / "out")) == 6


def test_predictions_of_two_runs_are_never_mixed(run, course_run, course_root, tmp_path, capsys):
    words = [str(course_root / "nut" / "test"), "--out", str(tmp_path / "out")]
    assert cli.main(["predict", str(run), *words]) == 1
    other = course_run(model="mean_grey", name="mean_grey")
    assert cli.main(["predict", str(other), *words]) == 2
    assert "holds predictions of another run" in capsys.readouterr().err


def one_more(run, out, *words):
    """The rows that a call adds."""
    before = len(rows(out)) if (out / "predictions.csv").exists() else 0
    cli.main(["predict", str(run), *map(str, words), "--out", str(out)])
    return rows(out)[before:]


def test_a_picture_is_known_by_its_path_and_its_content(run, tmp_path):
    folder, out = tmp_path / "new", tmp_path / "out"
    picture(folder / "1.png", 1)
    assert len(one_more(run, out, folder)) == 1
    os.utime(folder / "1.png")
    assert one_more(run, out, folder) == []
    picture(folder / "1.png", 2)
    shutil.copy2(folder / "1.png", folder / "2.png")  # whoever gives it asks for its row
    assert [row["path"] for row in one_more(run, out, folder)] == [
        str(folder / "1.png"), str(folder / "2.png")]
    # Of another call, of another folder: no overlay is lost.
    picture(tmp_path / "other" / "1.png", 3)
    one_more(run, out, tmp_path / "other")
    drawn = [row["overlay"] for row in rows(out)]
    assert len(set(drawn)) == 4 and all((out / name).is_file() for name in drawn)


def test_a_name_that_means_another_file_elsewhere_is_another_picture(run, tmp_path, monkeypatch):
    for i, folder in enumerate(("a", "b")):
        picture(tmp_path / folder / "1.png", i)
        monkeypatch.chdir(tmp_path / folder)
        assert len(one_more(run, tmp_path / "out", "1.png")) == 1


def test_one_call_at_a_time_writes_into_a_folder(run, tmp_path):
    reopened, out = inference.reopen(run), tmp_path / "out"
    with Record(reopened, out), pytest.raises(
            InputError, match="another adlib predict writes in .*out; end it, or give another"):
        Record(reopened, out)
    with Record(reopened, out):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is full")
def test_a_full_disk_is_one_sentence(run, tmp_path):
    picture(tmp_path / "a.png", 0)
    with pytest.raises(InputError, match=r"cannot write in .*out \(No space left on device\)"), \
            Record(inference.reopen(run), tmp_path / "out") as record:
        record._stream.close()
        record._stream = Path("/dev/full").open("w")
        list(predictions.predict(record, [Source(tmp_path / "a.png", "a.png")],
                                 threading.Event()))


@pytest.mark.parametrize(("table", "sentence"), [
    ("path,score,p_value,verdict,problem\r\na.png,1,0.5,good,\r\n", "or of an older version"),
    (",".join(COLUMNS) + "\r\na.png,high" + "," * (len(COLUMNS) - 2) + "\r\n",
     "line 2 of .*csv is none"),
    (",".join(COLUMNS) + "\r\na.png,1" + "," * (len(COLUMNS) - 1) + "\r\n",
     "line 2 of .*csv is none"),
    (",".join(COLUMNS) + "\r\na.png,1,0.5,good\r\n", "line 2 of .*csv is none"),
], ids=["older", "no number", "more columns", "fewer columns"])
def test_a_table_that_was_not_written_here_is_refused_and_kept(run, tmp_path, capsys, table,
                                                               sentence):
    out = tmp_path / "out"
    picture(tmp_path / "a.png", 0)
    one_more(run, out, tmp_path / "a.png")
    (out / "predictions.csv").write_bytes(table.encode())
    assert cli.main(["predict", str(run), str(tmp_path / "a.png"), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert re.search(sentence, said) and said.count("\n") == 1
    assert (out / "predictions.csv").read_bytes() == table.encode()


def test_the_folder_of_a_run_is_not_written_into(run, course_root, capsys):
    before = (run / "conditions.json").read_bytes()
    words = ["predict", str(run), str(course_root / "nut" / "test"), "--out", str(run)]
    assert cli.main(words) == 2
    assert "is a run's folder, whose files would be overwritten" in capsys.readouterr().err
    assert (run / "conditions.json").read_bytes() == before
    words[-1] = str(run.parent / ("a" * 300))
    assert cli.main(words) == 2
    assert "give another --out" in capsys.readouterr().err


def test_what_was_written_again_has_no_row_already(run, course_root, tmp_path, capsys):
    words = ["predict", str(run), str(tmp_path / "new"), "--out", str(tmp_path / "out")]
    for seed, said in ((1, False), (1, True), (2, False)):
        picture(tmp_path / "new" / "a.png", seed)
        cli.main(words)
        assert ("all of these pictures have a row" in capsys.readouterr().out) == said
    assert len(rows(tmp_path / "out")) == 2


def test_where_nobody_reads_what_is_logged_of_a_picture_it_is_not_called_unreadable(
        run, course_root, tmp_path, monkeypatch):
    def broken(self, file):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")  # as printing does

    monkeypatch.setattr(inference.Reopened, "decode", broken)
    with pytest.raises(BrokenPipeError), Record(inference.reopen(run), tmp_path / "out") as record:
        list(predictions.predict(record, predictions.sources([course_root]), threading.Event()))
    assert rows(tmp_path / "out") == []
