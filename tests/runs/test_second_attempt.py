"""A finished run that is run again: its numbers stand until new ones are complete."""
import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from adlib.config import Config, InputError
from adlib.data import files
from adlib.runs import freshness, run_folder
from tests.runs.test_run_folder import begin, why_stale


@pytest.fixture
def first(setting):
    """A finished run with what its numbers come with."""
    run = begin(setting)
    for name in ("all_results.csv", "epochs.csv", "old.png", "model.pt", "foreign.pt"):
        files.write_text(run.folder / name, "first")
    run.finish({"auroc": 1}, train_seconds=1)
    return run.folder


def numbers(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()
            if path.is_file() and path.name != ".lock"}


def second(setting, **changes):
    """Begun again, and about to finish, with a table less and another figure."""
    run = begin((Config(**setting[0].as_dict() | changes), setting[1]))
    for name in ("all_results.csv", "new.png", "model.pt"):
        files.write_text(run.folder / name, "second")
    return run


@pytest.mark.parametrize("changes", [{}, {"epochs": 7}], ids=["alike", "otherwise"])
def test_numbers_stand_until_new_ones_are_complete(setting, first, changes):
    before = numbers(first)
    run = second(setting, **changes)
    run.progress({"epoch": 1})
    assert numbers(first) == before and run_folder.status(first).state == "running"
    assert run_folder.work(first) == run.folder != first
    run.lock.release(force=True)  # its process was killed
    assert numbers(first) == before and run_folder.status(first).state == "finished"
    run = second(setting, **changes)
    run.finish({"auroc": 2}, train_seconds=1)
    now = numbers(first)
    assert not (first / "foreign.pt").exists()
    assert run.folder == first and not (first / ".again").exists()
    assert {name for name in now if now[name] == b"second"} == {"all_results.csv", "new.png",
                                                                "model.pt"}
    assert not {"old.png", "epochs.csv", "progress.json"} & set(now)
    assert json.loads(now["metrics.json"]) == {"auroc": 2}


def test_data_that_change_meanwhile_leave_the_numbers_that_were_there(setting, first, course_root):
    before = numbers(first)
    run = second(setting)
    (course_root / "nut" / "train" / "good" / "000.png").unlink()
    with pytest.raises(InputError, match="the data changed"):
        run.finish({"auroc": 2}, train_seconds=1)
    run.lock.release(force=True)
    assert numbers(first) == before and run_folder.status(first).state == "finished"


def test_a_checkpoint_of_the_second_attempt_is_kept_for_the_third(setting, first):
    files.write_text(second(setting).folder / "checkpoint.pt", "x")
    assert (second(setting).folder / "checkpoint.pt").exists()
    assert not (second(setting, epochs=7).folder / "checkpoint.pt").exists()
    second(setting).finish({"auroc": 2}, train_seconds=1)


def test_killed_while_numbers_are_replaced_it_is_completed_by_whoever_looks_next(
        setting, first, monkeypatch):
    class Killed(BaseException):
        pass

    def after(steps):
        """Path's rename and unlink, until as many files were touched."""
        def wrapped(real):
            def touch(*args, **options):
                nonlocal steps
                if str(first) in str(args[0]):
                    steps -= 1
                    if steps < 0:
                        raise Killed
                return real(*args, **options)
            return touch
        return wrapped

    kept, moments = shutil.copytree(first, first.parent / "kept"), 0
    for steps in itertools.count():
        shutil.rmtree(first)
        shutil.copytree(kept, first)
        run = second(setting, epochs=7)
        with monkeypatch.context() as patch:
            for name in ("replace", "unlink"):
                patch.setattr(Path, name, after(steps)(getattr(Path, name)))
            try:
                run.finish({"auroc": 2}, train_seconds=1)
            except Killed:
                moments += 1
        run.lock.release(force=True)
        assert run_folder.status(first).state == "finished"
        found, whole = numbers(first), json.loads((first / "metrics.json").read_text())
        assert whole in ({"auroc": 1}, {"auroc": 2})
        version = b"first" if whole == {"auroc": 1} else b"second"
        assert {found[name] for name in ("all_results.csv", "model.pt")} == {version}
        assert ("old.png" in found) == ("epochs.csv" in found) == (version == b"first")
        assert run_folder.manifest(first)["params"]["epochs"] == (5 if version == b"first" else 7)
        if whole == {"auroc": 2} and not (first / ".again").exists() and steps > moments:
            break
    assert moments > 8


def test_nothing_of_an_attempt_that_failed_at_its_end_is_taken_for_the_next_ones(setting):
    run, left = begin(setting), ("history.csv", "loss_curve.png", "model.pt", "foreign.pt")
    for name in left:
        files.write_text(run.folder / name, "of another model")
    run.lock.release(force=True)
    run_folder.fail(run.folder, "the data changed")
    again = second(setting, epochs=7)
    assert again.folder == run.folder and {name for name in left if (
        run.folder / name).exists()} == {"model.pt"}
    assert (run.folder / "model.pt").read_text() == "second"
    again.lock.release(force=True)


@pytest.mark.parametrize("changes, state", [({}, "finished"), ({"epochs": 7}, "failed")])
def test_the_runners_verdict_on_a_second_attempt_keeps_the_numbers(setting, first, changes, state):
    """They answer what is asked, or they do not: then the run has failed, and they lie there."""
    before = numbers(first)
    run, began = second(setting, **changes), run_folder.manifest(first)["started"]
    run.lock.release(force=True)
    run_folder.fail(first, "out of memory", began)
    assert numbers(first) == before and run_folder.status(first).state == state
    second(setting, **changes).finish({"auroc": 2}, train_seconds=1)
    assert run_folder.status(first).state == "finished"


def test_an_attempt_that_failed_before_it_began_keeps_the_numbers(setting, first):
    before = numbers(first)
    run_folder.fail(first, "no such name", run_folder.manifest(first)["started"])
    assert numbers(first) == before
    assert run_folder.status(first) == run_folder.Status("failed", "no such name")


def test_with_somebody_at_the_notebook_a_run_is_kept_apart_unless_it_is_named(
        setting, first, monkeypatch):
    before = numbers(first)
    shell = SimpleNamespace(parent_header={"content": {"allow_stdin": True}},
                            user_ns={"In": ["", "# Parameters\nepochs = 5", "x = 1"]})
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    run = second(setting)
    run.finish({"auroc": 2}, train_seconds=1)
    reports = run_folder.reports_dir(setting[0].reports)
    assert run.folder == reports / "scratch" / "runs" / "nut" / "cae_mse" / "seed-0"
    assert numbers(first) == before and run_folder.all_runs(reports) == [first]
    assert run_folder.folder_after(setting[0], "limits") == (
        reports / "scratch" / "limits" / "nut" / "cae_mse")

    named = second(setting, save_as="mine")
    named.finish({"auroc": 3}, train_seconds=1)
    assert named.folder == reports / "runs" / "nut" / "mine" / "seed-0"
    assert why_stale(named, freshness.of_run(*setting)) == "it was run by hand, in a notebook"
    again = second(setting, save_as="cae_mse")
    assert numbers(first) == before
    again.finish({"auroc": 4}, train_seconds=1)
    assert json.loads((first / "metrics.json").read_text()) == {"auroc": 4}
