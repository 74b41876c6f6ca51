import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace

import filelock
import pytest

from adlib import calibrate, evaluate
from adlib.config import Config, InputError
from adlib.data import files, layout, part
from adlib.models import registry
from adlib.runs import freshness, run_folder
from tests.handmade import SMALL, small_run, spine


def begin(setting, weights="none"):
    """Start a run of (config, category), with a detector of which only the weights matter."""
    config, category = setting
    part = SimpleNamespace(config=config, requested=config, category=category, source="parameter",
                           grey_range=None, looked_at=None, fit_choice=None, left_out=None)
    return run_folder.start(part, SimpleNamespace(weights=weights))


def why_stale(run, now):
    return freshness.why_stale(run_folder.manifest(run.folder), now)


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
        from pathlib import Path
        from types import SimpleNamespace
        from adlib.config import Config
        from adlib.data import layout
        from adlib.runs import run_folder
        config = Config(**{config.as_dict()!r})
        part = SimpleNamespace(config=config, requested=config, source="parameter", grey_range=None,
                               fit_choice=None, left_out=None,
                               category=layout.open_category(Path({str(course_root)!r}), "nut"))
        run_folder.start(part, SimpleNamespace(weights="none"))
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
    again = begin((other, setting[1]))
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
        begin((Config(category="nut", reports=str(tmp_path / "file")), setting[1]))


def test_why_a_run_is_stale(setting, course_root):
    config, category = setting
    run = begin(setting)
    run.finish(METRICS, train_seconds=1)
    now = freshness.of_run(config, category)
    assert why_stale(run, now) == ""
    assert why_stale(run, freshness.of_run(Config(**config.as_dict() | {"epochs": 7}),
                                              category)) == "epochs: 5 -> 7"
    (course_root / "nut" / "train" / "good" / "000.png").write_bytes(
        (course_root / "nut" / "train" / "good" / "001.png").read_bytes())
    assert why_stale(run, freshness.of_run(config, category)) == "the data changed"
    assert why_stale(run, now | {"code": "x"}) == "the code that makes the numbers changed"
    files.write_json(run.folder / "run.json", {"old": "format"})
    assert why_stale(run, now) == "it was made by another version of adlib"
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
    now = freshness.of_run(*setting)
    files.write_json(run.folder / "run.json",
                     run_folder.manifest(run.folder) | {"inputs": now | {"another": 1}})
    assert why_stale(run, now) == "it was made by another version of adlib"


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
        return freshness.of_run(*setting)["code"]

    assert code("x = 1") != code("x = 2")
    assert code("x = 1", "parameters") == code("x = 2", "parameters")
    files.write_text(tmp_path / "notebooks" / "02_cae_baseline.ipynb", "{")
    with pytest.raises(InputError, match="02_cae_baseline.ipynb is not valid JSON"):
        freshness.of_run(*setting)


def test_fail_stands_above_the_notebooks_word(setting):
    run = begin(setting)
    run.finish(METRICS, train_seconds=1)
    run_folder.fail(run.folder, "out of memory")
    assert run_folder.status(run.folder) == run_folder.Status("failed", "out of memory")


def test_comments_and_docstrings_make_nothing_stale():
    assert freshness.bare('def f():\n    "one"\n    return 1\n') == freshness.bare(
        "def f():  # why\n    return 1")
    assert freshness.bare("def f():\n    return 1") != freshness.bare("def f():\n    return 2")


def test_weights_are_known_by_content(setting, tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"one")
    config = Config(**setting[0].as_dict() | {"model": "resnet18", "weights": str(path)})
    first = freshness.of_run(config, setting[1])["weights"]
    path.write_bytes(b"two")
    assert freshness.of_run(config, setting[1])["weights"] != first
    # the CAE has none, whatever the parameter says
    assert freshness.of_run(setting[0], setting[1])["weights"] == "none"


@pytest.mark.parametrize("code", ["random:no_connection", "RANDOM, not ImageNet's (no network)"])
def test_a_run_with_random_weights_is_stale_once_imagenets_are_at_hand(
        setting, tmp_path, monkeypatch, code):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    run = begin(setting, code)
    run.finish(METRICS, train_seconds=1)
    now = freshness.of_run(*setting)
    assert why_stale(run, now) == ""
    files.write_text(tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth", "x")
    assert "random weights" in why_stale(run, now)


def test_a_folder_that_is_passed_on_names_no_place_and_no_machine(setting, tmp_path, course_root):
    weights = tmp_path / "secret" / "w.pth"
    files.write_text(weights, "x")
    config = Config(**setting[0].as_dict() | {
        "model": "resnet18", "weights": str(weights), "data_root": str(course_root)})
    run = begin((config, setting[1]), "file:w.pth:01")
    run.finish(METRICS, train_seconds=1)
    said = (run.folder / "run.json").read_text()
    assert str(tmp_path) not in said and "host" not in json.loads(said)
    about = run_folder.manifest(run.folder)
    assert about["data"]["root"] == about["params"]["data_root"] == course_root.name
    assert about["params"]["weights"] == "w.pth"

    kept = run_folder.local(run.folder)
    assert kept["host"] and kept["data_root"] == str(course_root.resolve())
    assert run_folder.config_of(run.folder) == config
    (run.folder / ".local.json").unlink()  # on another machine
    assert run_folder.local(run.folder) == {}
    assert run_folder.config_of(run.folder).weights == "w.pth"


def test_a_run_folder_of_an_earlier_version_is_read_in_this_versions_words(tmp_path):
    params = Config(category="nut", data_root="/data", weights="/w.pth").as_dict()
    for key in ("loss", "score", "options", "target_fpr"):
        del params[key]
    params |= {"false_alarms": 0.1, "schedule": "seed", "model": "taught", "name": "taught_shape"}
    files.write_json(tmp_path / "run.json", {
        "status": "finished", "host": "here", "params": params, "inputs": {"params": params},
        "data": {"root": "/data/parts", "layout": "seed"},
        "weights": "file a b.pth sha256:0123456789ab",
        "foreign_weights": "RANDOM, not ImageNet's (no connection)"})
    files.write_json(tmp_path / "metrics.json", {
        "auroc": {"test": {"value": 0.5}}, "follows": {"size": 0.1},
        "operating": {"test": {"false_alarms": {"rate": 0.2}, "oracle_f1": {"false_alarms": 0.3}}}})
    assert run_folder.status(tmp_path).state == "finished"
    about, config = run_folder.manifest(tmp_path), run_folder.config_of(tmp_path)
    assert about["params"]["target_fpr"] == 0.1 and about["data"]["layout"] == "course"
    assert about["weights"] == "file:a b.pth:0123456789ab"
    assert about["foreign_weights"] == "random:no connection"  # the reason as it was said
    assert (config.schedule, config.model, config.name) == ("reference", "classifier",
                                                            "classifier_shape")
    assert config.weights == "/w.pth" and run_folder.local(tmp_path)["data_root"] == "/data/parts"
    assert run_folder.metrics(tmp_path) == {
        "auroc": {"test": {"value": 0.5}}, "confounders": {"size": 0.1}, "operating": {"test": {
            "false_positives": {"rate": 0.2}, "oracle_f1": {"false_positives": 0.3}}}}
    now = {"params": Config(schedule="reference", model="classifier", name="classifier_shape",
                            target_fpr=0.1, weights="/w.pth").as_dict(), "code": "new"}
    now["params"] = {key: value for key, value in now["params"].items()
                     if key not in (*freshness.NOT_INPUTS, "weights")}
    assert freshness.why_stale(about, now) == "the code that makes the numbers changed"


@pytest.mark.parametrize("key, value", [("model", "own.py:Detector"), ("loss", "own.py:loss"),
                                        ("score", "own.py:score")])
def test_a_run_depends_on_the_content_of_the_users_own_code(setting, tmp_path, monkeypatch, key,
                                                            value):
    for name in ("notebooks", "params"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")  # relative to the project, wherever it is run from
    config = Config(**setting[0].as_dict() | {key: value})
    made = []
    for content in (None, "x = 1", "x = 2"):
        if content:
            files.write_text(tmp_path / "own.py", content)
        made.append(freshness.of_run(config, setting[1]))
    assert made[0]["files"] == {"own.py": "missing"}
    assert freshness.why_stale({"inputs": made[1]}, made[2]) == "your own code changed"
    assert "files" not in freshness.of_run(setting[0], setting[1])


# ---- a finished run, run again


def test_what_tells_a_foreign_picture_is_in_the_manifest(course_root, tmp_path):
    folder = small_run(course_root, tmp_path / "reports", model="mean_grey", name="mean_grey")
    about = run_folder.manifest(folder)
    assert about["weights"] == "none"  # the statistic's own; and yet a network looks, too
    assert about["foreign_weights"] == "random:unasked"


def test_cells_out_of_order_are_told_and_save_nothing(course_root, tmp_path):
    """As in JupyterLab: nothing of an unfitted network, of other images, or of a saved run's gone
    weights is shown or kept as a result."""
    config = Config(**SMALL | {"data_root": str(course_root), "reports": str(tmp_path)})
    folder, detector, decision, results = spine(config)
    opened = part.open_part(config)
    fresh = registry.build(opened.config)
    for early in (lambda: calibrate(fresh, opened), lambda: evaluate(fresh, decision, opened)):
        with pytest.raises(InputError, match="is not fitted, .*run the cell with `fit` first"):
            early()
    with pytest.raises(InputError, match=r"epoch.*\.pt is gone.*run the cell with `fit` first"):
        evaluate(detector, decision, opened)
    run = run_folder.start(opened, fresh)
    other = dataclasses.replace(results, table=results.table.assign(path="bolt/test/000.png"))
    for given, wrong, why in ((fresh, results, "is not fitted"),
                              (detector, other, "not of the images of .*seed-0")):
        with pytest.raises(InputError, match=why):
            run.save(given, decision, wrong)
    run.save(detector, decision, results)
    assert run_folder.status(folder).state == "finished"
