import json
import subprocess
import sys

import filelock
import pytest

from adlib.config import Config, InputError
from adlib.data import files, layout
from adlib.runs import provenance, run_folder


@pytest.fixture
def setting(course_root, tmp_path):
    category = layout.open_category(course_root, "nut")
    return Config(category="nut", reports=str(tmp_path / "reports")), category


def begin(setting):
    return run_folder.start(*setting, source="parameter", weights="none", device="cpu", threads=1,
                            precision="float32")


METRICS = {"auroc": {"test": {"value": 0.5}}}


def test_life_of_a_run(setting):
    config, category = setting
    here = run_folder.folder(config)
    assert here.parts[-4:] == ("runs", "nut", "cae_mse", "seed-0")
    assert run_folder.status(here).state == "missing"
    run = begin(setting)
    assert run_folder.status(here).state == "running"
    run.progress({"epoch": 1})
    files.write_text(here / "checkpoint.pt", "x")
    run.finish(METRICS, train_seconds=1.5)
    assert run_folder.status(here) == run_folder.Status("finished")
    about = run_folder.manifest(here)
    assert about["data"]["counts"] == {"train": 8, "test": 6, "train_bad": 2
                                       } and about["train_seconds"] == 1.5
    assert about["versions"]["torch"] and about["git"] and about["inputs"][
        "data"] == layout.fingerprint(category)
    assert not (here / "progress.json").exists() and not (here / "checkpoint.pt").exists()
    assert run_folder.all_runs(run_folder.reports_dir(config.reports)) == [here]


def test_metrics_hold_no_time_and_are_written_last(setting, monkeypatch):
    run = begin(setting)
    wrote = []
    real = files.write_json
    monkeypatch.setattr(files, "write_json", lambda path, value:
                        (wrote.append(path.name), real(path, value)))
    run.finish(METRICS, train_seconds=1.5)
    assert wrote[-1] == "metrics.json" and json.loads(
        (run.folder / "metrics.json").read_text()) == METRICS


def test_a_run_without_metrics_has_not_finished(setting):
    run = begin(setting)
    run.finish(METRICS, train_seconds=1)
    (run.folder / "metrics.json").unlink()
    assert run_folder.status(run.folder).state == "failed"


def test_a_killed_run_is_interrupted_and_its_folder_free(setting, course_root):
    config, _ = setting
    code = f"""if True:
        import os, signal
        from adlib import data, runs
        from adlib.config import Config
        runs.start(Config(**{config.as_dict()!r}), data.open_category(__import__("pathlib").Path({str(course_root)!r}), "nut"),
                   source="s", weights="none", device="cpu", threads=1, precision="float32")
        os.kill(os.getpid(), signal.SIGKILL)"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert run_folder.status(run_folder.folder(config)).state == "interrupted"
    files.write_text(run_folder.folder(config) / "checkpoint.pt", "x")
    run = begin(setting)  # the same inputs: its checkpoint is kept
    assert (run.folder / "checkpoint.pt").exists()
    run.lock.release(force=True)


def test_other_inputs_drop_the_checkpoint(setting):
    run = begin(setting)
    files.write_text(run.folder / "checkpoint.pt", "x")
    run.lock.release(force=True)
    other = Config(**setting[0].as_dict() | {"epochs": 3})
    again = run_folder.start(other, setting[1], source="s", weights="none", device="cpu", threads=1,
                             precision="float32")
    assert not (again.folder / "checkpoint.pt").exists()
    again.lock.release(force=True)


def test_two_processes_on_one_folder(setting):
    here = run_folder.folder(setting[0])
    here.mkdir(parents=True)
    with filelock.FileLock(here / ".lock"), pytest.raises(InputError,
                                                          match="another process is working on"):
        begin(setting)


def test_starting_twice_in_one_kernel(setting):
    begin(setting)
    begin(setting).finish(METRICS, train_seconds=1)
    assert run_folder.status(run_folder.folder(setting[0])).state == "finished"


def test_a_reports_folder_that_cannot_be_written(setting, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write in"):
        run_folder.start(Config(category="nut", reports=str(tmp_path / "file")), setting[1],
                         source="", weights="", device="", threads=1, precision="")


def test_why_a_run_is_stale(setting, course_root):
    config, category = setting
    run = begin(setting)
    run.finish(METRICS, train_seconds=1)
    now = run_folder.inputs(config, category)
    assert run_folder.stale(run.folder, now) is None
    assert run_folder.stale(run.folder,
                            run_folder.inputs(Config(**config.as_dict() | {"epochs": 7}),
                                              category)) == "epochs: 5 -> 7"
    (course_root / "nut" / "train" / "good" / "000.png").write_bytes(
        (course_root / "nut" / "train" / "good" / "001.png").read_bytes())
    assert run_folder.stale(run.folder, run_folder.inputs(config, category)) == "the data changed"
    assert run_folder.stale(run.folder,
                            now | {"code": "x"}) == "the code that makes the numbers changed"
    files.write_json(run.folder / "run.json", {"old": "format"})
    assert run_folder.stale(run.folder, now) == "it was made by another version of adlib"
    assert run_folder.status(run.folder).state == "failed"


@pytest.mark.parametrize("metrics", ["", "5", "null", "[]", "{}", "\udcff"])
def test_metrics_that_cannot_be_understood_are_a_failed_run(setting, metrics):
    run = begin(setting)
    run.finish(METRICS, train_seconds=1)
    (run.folder / "metrics.json").write_bytes(metrics.encode(errors="surrogateescape"))
    assert run_folder.status(run.folder).state == "failed"


def test_a_manifest_with_an_input_of_another_version_is_stale(setting):
    run = begin(setting)
    run.finish(METRICS, train_seconds=1)
    now = run_folder.inputs(*setting)
    files.write_json(run.folder / "run.json",
                     run_folder.manifest(run.folder) | {"inputs": now | {"another": 1}})
    assert run_folder.stale(run.folder, now) == "it was made by another version of adlib"


def test_a_lock_that_may_not_be_opened_leaves_the_manifests_word(setting, monkeypatch):
    begin(setting).lock.release(force=True)

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    assert run_folder.status(run_folder.folder(setting[0])).state == "running"


def test_runs_are_in_the_order_of_their_seeds(tmp_path):
    for name in ("b/seed-0", "a/seed-10", "a/seed-2", "a/seed-x"):
        files.write_json(tmp_path / "runs" / "nut" / name / "run.json", {})
    found = [
        path.relative_to(tmp_path / "runs" / "nut").as_posix()
        for path in run_folder.all_runs(tmp_path)
    ]
    assert found == ["a/seed-x", "a/seed-2", "a/seed-10", "b/seed-0"]


def test_the_notebooks_code_counts_and_is_read_anew(setting, tmp_path, monkeypatch):
    for name in ("notebooks", "params"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)

    def code(source: str, tag: str = "") -> str:
        cell = {"cell_type": "code", "metadata": {"tags": [tag]}, "source": [source]}
        files.write_json(tmp_path / "notebooks" / "02_cae_baseline.ipynb", {"cells": [cell]})
        return run_folder.inputs(*setting)["code"]

    assert code("x = 1") != code("x = 2")
    assert code("x = 1", "parameters") == code("x = 2", "parameters")
    files.write_text(tmp_path / "notebooks" / "02_cae_baseline.ipynb", "{")
    with pytest.raises(InputError, match="02_cae_baseline.ipynb is not valid JSON"):
        run_folder.inputs(*setting)


def test_fail_stands_above_the_notebooks_word(setting):
    run = begin(setting)
    run.finish(METRICS, train_seconds=1)
    run_folder.fail(run.folder, "out of memory")
    assert run_folder.status(run.folder) == run_folder.Status("failed", "out of memory")


def test_comments_and_docstrings_make_nothing_stale():
    assert provenance.bare('def f():\n    "one"\n    return 1\n') == provenance.bare(
        "def f():  # why\n    return 1")
    assert provenance.bare("def f():\n    return 1") != provenance.bare("def f():\n    return 2")


def test_weights_are_known_by_content(setting, tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"one")
    config = Config(**setting[0].as_dict() | {"model": "resnet18", "weights": str(path)})
    first = run_folder.inputs(config, setting[1])["weights"]
    path.write_bytes(b"two")
    assert run_folder.inputs(config, setting[1])["weights"] != first
    # the CAE has none, whatever the parameter says
    assert run_folder.inputs(setting[0], setting[1])["weights"] == "none"


def test_a_run_with_random_weights_is_stale_once_imagenets_are_at_hand(
        setting, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    run = run_folder.start(*setting, source="s", weights="RANDOM, not ImageNet's (no network)",
                           device="cpu", threads=1, precision="float32")
    run.finish(METRICS, train_seconds=1)
    now = run_folder.inputs(*setting)
    assert run_folder.stale(run.folder, now) is None
    files.write_text(tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth", "x")
    assert "random weights" in run_folder.stale(run.folder, now)
