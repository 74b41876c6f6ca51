"""The runner's notes beside executed notebooks: what they were made from, and why they have to be
made again."""
import json
import shutil

import pytest

from adlib.data import files, layout
from adlib.runs import freshness
from tests.handmade import DISTANCE, finished, ranks
from tests.handmade import category as by_hand

MADE = {"data": "1", "notebook": "2", "image_size": 64}


@pytest.fixture
def note(tmp_path):
    files.write_json(tmp_path / "eda.json", MADE)
    return tmp_path / "eda.json"


def test_what_is_as_noted_is_up_to_date(note):
    assert freshness.changed(note, dict(MADE)) == "" and freshness.failure(note) is None


@pytest.mark.parametrize("name", MADE)
def test_whatever_changed_is_named(note, name):
    assert freshness.changed(note, MADE | {name: "other"}) == f"the {name} changed"


def test_all_that_changed_is_named(note):
    assert freshness.changed(
        note, MADE | {"data": "5", "image_size": 128}) == "the data changed; the image_size changed"


def test_what_an_older_note_does_not_know_has_changed(note):
    assert freshness.changed(note, MADE | {"code": "3"}) == "the code changed"


@pytest.mark.parametrize("content", [None, "", "{ half", "[1, 2]", "\"words\"", "null", "{}"])
def test_a_missing_or_damaged_note_means_never_run_and_is_no_failure(tmp_path, content):
    path = tmp_path / "limits.json"
    if content is not None:
        path.write_text(content)
    assert freshness.changed(path, MADE) == "never run" and freshness.failure(path) is None


def test_a_failure_says_why_and_how_to_try_again(tmp_path):
    note = tmp_path / "nut" / "limits.json"  # in a folder that is not there yet
    freshness.fail(note, "the sky fell", "adlib run params/own.yaml")
    assert freshness.failure(note) == {
        "failed": "the sky fell", "retry": "adlib run params/own.yaml"
    }
    assert freshness.changed(note, MADE) == "failed: the sky fell"
    files.write_json(note, MADE)  # it was made in the end
    assert freshness.failure(note) is None and freshness.changed(note, MADE) == ""


def test_a_failure_of_unknown_origin_is_still_one(tmp_path):
    (tmp_path / "limits.json").write_text('{"failed": null}')
    assert freshness.failure(tmp_path / "limits.json") == {"failed": "None", "retry": ""}
    assert freshness.changed(tmp_path / "limits.json", MADE).startswith("failed")


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A notebook in a project of its own; the working directory."""
    for name in ("notebooks", "params"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return written(tmp_path / "notebooks" / "nb.ipynb", "x = 1")


def written(path, source, tag=""):
    cell = {"cell_type": "code", "metadata": {"tags": [tag]}, "source": [source]}
    files.write_json(path, {"cells": [cell]})
    return path


def apart(made, now):
    return {name for name in made if made[name] != now[name]}


def test_a_data_notebook_depends_on_the_data_the_code_and_the_size(course_root, notebook):
    category = layout.open_category(course_root, "nut")
    made = freshness.of_data(notebook, category, 64, "none")
    assert made == freshness.of_data(notebook, category, 64, "none") and made["image_size"] == 64
    assert json.loads(json.dumps(made)) == made  # it is compared with what was read from a file
    written(notebook, "x = 2")
    (course_root / "nut" / "train" / "good" / "000.png").unlink()
    now = freshness.of_data(notebook, layout.open_category(course_root, "nut"), 128, "imagenet")
    assert apart(made, now) == {"data", "code", "image_size", "weights"}


def test_a_data_notebook_is_made_again_for_other_weights_and_for_imagenets_once_at_hand(
        course_root, notebook, tmp_path, monkeypatch):
    category, weights = layout.open_category(course_root, "nut"), tmp_path / "w.pth"
    made = []
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        made.append(freshness.of_data(notebook, category, 64, str(weights)))
    for there in (False, True):
        monkeypatch.setattr(freshness, "imagenet_at_hand", lambda there=there: there)
        made.append(freshness.of_data(notebook, category, 64, "imagenet"))
        assert json.loads(json.dumps(made[-1])) == made[-1]
    assert len({repr(one["weights"]) for one in made}) == 4


def run(reports, shift=1.0, fingerprint="f", **options):
    return finished(reports, "memory", {DISTANCE: ranks(by_hand(), shift)}, fingerprint=fingerprint,
                    **options)


def test_limits_depend_on_their_runs_numbers_and_inputs_and_on_the_code(tmp_path, notebook):
    made = freshness.of_limits(notebook, run(tmp_path))
    # redone, with equal numbers
    assert set(made) == {"run", "code"} and freshness.of_limits(notebook, run(tmp_path)) == made
    for changes in ({"shift": 1.1}, {"fingerprint": "g"}):
        assert apart(made, freshness.of_limits(notebook, run(tmp_path, **changes))) == {"run"}
    written(notebook, "x = 2")
    assert apart(made, freshness.of_limits(notebook, run(tmp_path))) == {"code"}


@pytest.mark.parametrize("path, counts", [
    ("data/layout.py", True), ("data/synthetic/zipper.py", True), ("models/fast/new.py", True),
    ("evaluation/limits.py", True), ("report/figures.py", False), ("runs/batch.py", False)])
def test_numbers_depend_on_the_packages_that_make_them(tmp_path, notebook, monkeypatch, path,
                                                       counts):
    """A changed label parser makes a run stale, a changed figure does not; nothing is listed."""
    package = tmp_path / "adlib"
    shutil.copytree(freshness.Path(freshness.__file__).parents[1], package)
    monkeypatch.setattr(freshness, "__file__", str(package / "runs" / "freshness.py"))
    made = []
    for source in ("x = 1", "x = 1  # why", "x = 2"):
        (package / path).write_text(source)
        freshness._numeric_code.cache_clear()
        made.append(freshness.code(notebook.name))
    freshness._numeric_code.cache_clear()
    assert made[0] == made[1] and (made[1] != made[2]) == counts


@pytest.mark.parametrize("name", ["limits.json", "notebook.ipynb", "robustness.csv"])
def test_limits_are_found_by_whatever_is_there(tmp_path, name):
    for folder in ("zip/pca", "nut/memory"):
        files.write_text(tmp_path / "limits" / folder / name, "x")
    files.write_text(tmp_path / "limits" / "nut" / "pca" / "log.txt", "begun, and nothing more")
    files.write_text(tmp_path / "runs" / "nut" / "memory" / name, "x")
    assert freshness.limits(tmp_path) == [
        tmp_path / "limits" / "nut" / "memory", tmp_path / "limits" / "zip" / "pca"
    ]


def test_a_folder_is_listed_once_and_no_limits_are_no_error(tmp_path):
    assert freshness.limits(tmp_path) == []
    for name in ("limits.json", "notebook.ipynb", "robustness.csv"):
        files.write_text(tmp_path / "limits" / "nut" / "memory" / name, "x")
    assert len(freshness.limits(tmp_path)) == 1
