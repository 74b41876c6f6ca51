"""The runner's notes beside executed notebooks: what they were made from, and why they have to be
made again."""
import functools
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from adlib.config import Config
from adlib.data import files, layout
from adlib.runs import freshness
from tests.handmade import DISTANCE, finished, ranks
from tests.handmade import category as by_hand

ROOT = Path(__file__).resolve().parents[2]
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


def test_a_data_notebook_depends_on_the_data_and_the_code_that_looks_at_them(course_root, notebook):
    category = layout.open_category(course_root, "nut")
    made = freshness.of_data(notebook, category, "none")
    assert made == freshness.of_data(notebook, category, "none") and set(made) == {"data", "code"}
    assert json.loads(json.dumps(made)) == made  # it is compared with what was read from a file
    written(notebook, "x = 2")
    (course_root / "nut" / "train" / "good" / "000.png").unlink()
    now = freshness.of_data(notebook, layout.open_category(course_root, "nut"), "none")
    assert apart(made, now) == {"data", "code"}


def test_a_data_notebook_is_made_again_once_weights_are_at_hand_and_never_for_others(
        course_root, notebook, note, tmp_path, monkeypatch):
    category, weights = layout.open_category(course_root, "nut"), tmp_path / "w.pth"

    def stale(weights):
        return freshness.changed(note, freshness.of_data(notebook, category, weights))

    monkeypatch.setattr(freshness, "imagenet_at_hand", lambda: False)
    files.write_json(note, freshness.of_data(notebook, category, "imagenet"))
    assert stale("none") == stale("imagenet") == stale(str(weights)) == ""
    weights.write_bytes(b"one")
    assert stale(str(weights)) == "the weights changed"  # there are some now
    files.write_json(note, freshness.of_data(notebook, category, str(weights)))
    weights.write_bytes(b"two")
    monkeypatch.setattr(freshness, "imagenet_at_hand", lambda: True)
    assert stale("none") == stale("imagenet") == stale(str(weights)) == ""


def run(reports, shift=1.0, fingerprint="f", **options):
    return finished(reports, "memory", {DISTANCE: ranks(by_hand(), shift)}, fingerprint=fingerprint,
                    **options)


def test_limits_depend_on_their_runs_numbers_and_inputs_and_on_the_code(tmp_path, notebook):
    made = freshness.after_a_run(notebook, run(tmp_path))
    # redone, with equal numbers
    assert set(made) == {"run", "code"} and freshness.after_a_run(notebook, run(tmp_path)) == made
    for changes in ({"shift": 1.1}, {"fingerprint": "g"}):
        assert apart(made, freshness.after_a_run(notebook, run(tmp_path, **changes))) == {"run"}
    written(notebook, "x = 2")
    assert apart(made, freshness.after_a_run(notebook, run(tmp_path))) == {"code"}


KINDS = ("cae", "resnet18", "mean_grey", "pca", "fused", "to_features", "anomalib:Padim",
         "own.py:Mine")
NOTEBOOKS = ("01_eda.ipynb", "05_limits.ipynb")
# for speed: what is read again is nearly all the same
REMEMBERED = {name: functools.cache(getattr(freshness, name)) for name in ("bare", "_imported")}


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """adlib, its notebooks and a detector of one's own, to be edited; the working directory."""
    for name in ("adlib", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "params").mkdir()
    (tmp_path / "own.py").write_text("from adlib.models.backbone import grid\n")
    monkeypatch.chdir(tmp_path)
    for name, remembered in REMEMBERED.items():
        monkeypatch.setattr(freshness, name, remembered)
    monkeypatch.setattr(freshness, "__file__", str(tmp_path / "adlib" / "runs" / "freshness.py"))
    yield tmp_path
    freshness.numeric_code.cache_clear()


def hashes(category):
    """{model or notebook: the hash of its code}."""
    freshness.numeric_code.cache_clear()
    made = {kind: freshness.of_run(Config(model=kind), category)["code"] for kind in KINDS}
    return made | {name: freshness.code(name) for name in NOTEBOOKS}


@pytest.mark.parametrize("path, stale", [
    ("models/autoencoders.py", {"cae", "resnet18"}), ("models/statistics.py", {"mean_grey"}),
    ("models/detectors.py", {"pca", "fused"}), ("models/fused.py", {"pca", "fused"}),
    ("models/feature_autoencoder.py", {"to_features"}),
    # What is foreign is told on the backbone, whatever the detector is.
    ("models/backbone.py", {*KINDS, "05_limits.ipynb"}),
    ("models/anomalib_adapter.py", {"anomalib:Padim"}),
    ("models/training.py", {"cae", "resnet18", "pca", "fused", "to_features"}),
    ("models/fast/new.py", set()), ("models/embedding.py", set()),
    ("evaluation/results.py", {*KINDS, "05_limits.ipynb"}),
    ("evaluation/limits.py", {"05_limits.ipynb"}), ("data/quality.py", {"01_eda.ipynb"}),
    ("data/layout.py", {*KINDS, *NOTEBOOKS}), ("report/figures.py", set()),
    ("runs/batch.py", set())])
def test_a_result_is_stale_by_what_it_imports(copied, course_root, path, stale):
    """One detector's edit makes no other's run stale, and no page of the data; nothing is listed."""
    category, made = layout.open_category(course_root, "nut"), []
    source = copied / "adlib" / path
    before = source.read_text() if source.exists() else ""
    for more in ("", "x = 1", "x = 1  # why", "x = 2"):
        source.write_text(f"{before}\n{more}\n")
        made.append(hashes(category))
    assert made[1] == made[2]
    for one, other in ((0, 1), (1, 3)):
        assert {name for name in made[one] if made[one][name] != made[other][name]} == stale


def test_what_is_imported_inside_a_function_or_by_a_name_of_adlib_counts():
    found = freshness._imported("%matplotlib inline\ndef f():\n    from adlib.data import images\n"
                                "from adlib import fit, Config\nimport adlib.models.ssim as s")
    assert found >= {"adlib.data.images", "adlib.models.detector", "adlib.models.ssim"}
    assert "adlib.evaluation.calibration" in freshness._imported("import adlib\nadlib.calibrate")
    assert freshness._imported("this is no Python") == set()


@pytest.mark.parametrize("name", ["limits.json", "notebook.ipynb", "robustness.csv"])
def test_limits_are_found_by_whatever_is_there(tmp_path, name):
    for folder in ("zip/pca", "nut/memory"):
        files.write_text(tmp_path / "limits" / folder / name, "x")
    files.write_text(tmp_path / "limits" / "nut" / "pca" / "log.txt", "begun, and nothing more")
    files.write_text(tmp_path / "runs" / "nut" / "memory" / name, "x")
    assert freshness.result_folders(tmp_path, "limits") == [
        tmp_path / "limits" / "nut" / "memory", tmp_path / "limits" / "zip" / "pca"
    ]


def test_a_folder_is_listed_once_and_no_limits_are_no_error(tmp_path):
    assert freshness.result_folders(tmp_path, "limits") == []
    for name in ("limits.json", "notebook.ipynb", "robustness.csv"):
        files.write_text(tmp_path / "limits" / "nut" / "memory" / name, "x")
    assert len(freshness.result_folders(tmp_path, "limits")) == 1


def test_a_checkout_around_adlib_is_not_its_revision(tmp_path, monkeypatch):
    """An environment in another project's folder."""
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path,
                       check=True, capture_output=True)

    path = tmp_path / "env" / "freshness.py"
    files.write_text(path, "")
    monkeypatch.setattr(freshness, "__file__", str(path))
    git("init")
    git("commit", "--allow-empty", "-m", "another project")
    assert freshness.revision() == "unknown"
    git("add", "-f", str(path))
    git("commit", "-m", "adlib")
    assert re.fullmatch(r"[0-9a-f]{12}", freshness.revision())


def test_imagenets_weights_are_looked_for_where_torch_does(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", "~/torch")
    assert not freshness.imagenet_at_hand()
    files.write_text(Path(torch.hub.get_dir()) / "checkpoints" / "resnet18-f37072fd.pth", "x")
    assert freshness.imagenet_at_hand()
