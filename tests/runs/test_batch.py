"""The runner, with real papermill processes on notebooks that only pretend to train."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import filelock
import nbformat
import psutil
import pytest

from adlib.config import InputError
from adlib.data import files
from adlib.runs import batch, freshness, grid, run_folder
from adlib.runs.engines import local
from tests.runs.conftest import write


def folder(project: Path, name: str) -> Path:
    return project / "reports" / "runs" / "nut" / name / "seed-0"


def reasons(name: str, **options) -> dict[str, str]:
    return {
        task.title: reason
        for task, reason in batch.due(grid.plan(f"params/{name}.yaml"), **options).items()
    }


def test_names_that_a_format_would_fill_in_are_names(project):
    (project / "data" / "nut").rename(project / "data" / "nut {0} 100%")
    tasks = [task for task in grid.plan("params/ok.yaml", reports=str(project / "{reports}"))
             if task.config]
    batch.run(tasks, local.Local(1), reports=project / "{reports}")
    run = project / "{reports}" / "runs" / "nut {0} 100%" / "ok" / "seed-0"
    assert run_folder.status(run) == run_folder.Status("finished")


def test_one_failure_does_not_sink_the_rest_and_every_reason_is_told(project, said):
    code = batch.run(grid.plan("params/all.yaml"), local.Local(2), reports=project / "reports")
    text = "\n".join(said)
    assert code == 1
    assert run_folder.status(folder(project, "ok")) == run_folder.Status("finished")
    assert run_folder.status(folder(project, "boom")) == run_folder.Status(
        "failed", "ValueError: the sky fell")
    assert run_folder.status(folder(project, "killed")) == run_folder.Status(
        "failed", "the kernel died (out of memory?)")
    assert run_folder.status(folder(project, "silent")) == run_folder.Status(
        "failed", "the notebook ended without writing metrics.json")
    assert "nut ok seed 0, AUROC 0.7500" in text and "(6 of 6): comparison" in text
    assert "to try again: adlib run params/all.yaml --only category=nut,config=boom,seed=0" in text and "    | " in text
    assert said[-1].startswith("failed: 3 of 6 steps: ") and "nut boom seed 0, " in said[-1]
    for name in ("ok", "boom"):  # a partial notebook is worth seeing
        assert nbformat.read(folder(project, name) / "notebook.ipynb", 4).cells
        assert (folder(project, name) / "log.txt").stat().st_size and not list(
            folder(project, name).glob(".*-running.ipynb"))

    entries = {
        entry["title"]: entry
        for entry in json.loads((project / "reports" / "batch.json").read_text())
    }
    assert [entry["status"] for entry in entries.values()] == [
        "finished", "finished", "failed", "failed", "failed", "finished"
    ]
    boom = entries["nut boom seed 0"]
    assert (boom["category"], boom["name"], boom["seed"],
            boom["folder"]) == ("nut", "boom", 0, "runs/nut/boom/seed-0")
    assert boom["reason"] == "ValueError: the sky fell" and boom["retry"].startswith("adlib run")
    saw = nbformat.read(project / "reports" / "comparison.ipynb", 4).cells[-1].outputs[0].text
    assert saw.strip() == str(["failed"] * 3 + ["finished"] * 2 + ["waiting"])

    due = reasons("all")  # the same batch again: only what failed
    assert due["nut: the data"] == due["nut ok seed 0"] == ""
    assert due["nut boom seed 0"] == "failed: ValueError: the sky fell"
    assert reasons("all", force=True)["nut ok seed 0"] == "asked for with --force"
    write(project, "new", {"name": "new", "model": "cae", "image_size": 256})
    assert reasons("new")["nut: the data"] == "" != reasons("new")["nut new seed 0"]
    write(project, "all", {"configs": ["ok"], "set": {"epochs": 7}})
    assert reasons("all")["nut ok seed 0"] == "epochs: 5 -> 7"
    (project / "data" / "nut" / "train" / "good" / "0.png").write_bytes(b"another")
    assert reasons("ok")["nut ok seed 0"] == "the data changed" and reasons(
        "ok")["nut: the data"] == "the data changed"


def test_what_an_attempt_left_half_done_goes_and_a_persons_own_hidden_file_stays(project):
    own, half = project / "reports" / ".pre-commit-config.yaml", folder(project,
                                                                        "ok") / ".model-x1y2z3.pt"
    for path in (own, half):
        files.write_text(path, "...")
    write(project, "all", {"configs": ["ok"]})
    assert batch.run(grid.plan("params/all.yaml"), local.Local(1), reports=project / "reports") == 0
    assert own.read_text() == "..." and not half.exists()


def test_an_unchanged_study_is_not_compared_again(project):
    write(project, "all", {"configs": ["ok"]})
    assert batch.run(grid.plan("params/all.yaml"), local.Local(1), reports=project / "reports") == 0
    before = (project / "reports" / "comparison.ipynb").stat().st_mtime_ns
    assert set(reasons("all").values()) == {""}
    assert batch.run(grid.plan("params/all.yaml"), local.Local(1), reports=project / "reports") == 0
    assert (project / "reports" / "comparison.ipynb").stat().st_mtime_ns == before and set(
        reasons("all").values()) == {""}

    metrics = folder(project, "ok") / "metrics.json"
    os.utime(metrics, (1, 1))  # written again, by hand in JupyterLab, say
    assert reasons("all")["comparison"] == "the runs changed"
    assert batch.run(grid.plan("params/all.yaml"), local.Local(1), reports=project / "reports") == 0
    write(project, "all", {"configs": ["ok"], "seeds": [0], "limits": ["ok"]})
    assert reasons("all")["comparison"] == "what it compares is due"
    notebook = project / "notebooks" / "06_comparison.ipynb"
    notebook.write_text(notebook.read_text().replace("print", "raise ValueError"))
    write(project, "all", {"configs": ["ok"]})
    assert reasons("all")["comparison"] == "the notebook changed"
    assert batch.run(grid.plan("params/all.yaml"), local.Local(1), reports=project / "reports") == 1
    assert reasons("all")["comparison"] == "never run"  # it failed: it is due until it succeeds


def planned(project, kinds=("run", "limits")):
    """The tasks of configurations ok and boom with their limits; by kind, to save processes."""
    write(project, "limits", {"configs": ["boom", "ok"], "limits": ["boom", "ok"]})
    return [task for task in grid.plan("params/limits.yaml") if task.kind in kinds]


def limits(project, name):
    return project / "reports" / "limits" / "nut" / name


def test_limits_wait_for_their_run_and_are_not_taken_where_it_failed(project, said):
    files.write_text(limits(project, "boom") / "notebook.ipynb", "of an earlier run")
    assert batch.run(planned(project), local.Local(3), reports=project / "reports") == 1
    text = "\n".join(said)
    assert text.index("nut ok seed 0, AUROC 0.7500") < text.index("start: nut ok limits")
    assert "start: nut boom limits" not in text and not (limits(project, "boom") /
                                                         "notebook.ipynb").exists()
    why = "its run, nut boom seed 0, has not finished (failed: ValueError: the sky fell)"
    assert freshness.failure(limits(project, "boom") / "limits.json") == {
        "failed": why,
        "retry": "adlib run params/limits.yaml --only category=nut,config=boom,seed=0"
    }
    entries = json.loads((project / "reports" / "batch.json").read_text())[2:]
    assert [(entry["title"], entry["status"], entry["reason"])
            for entry in entries] == [("nut boom limits", "failed", why),
                                      ("nut ok limits", "finished", "")]
    assert nbformat.read(limits(project, "ok") / "notebook.ipynb", 4).cells and freshness.failure(
        limits(project, "ok") / "limits.json") is None

    due = reasons("limits")  # the same again: only what failed, and what waits for it
    assert due["nut ok seed 0"] == due["nut ok limits"] == "" and due[
        "nut boom limits"] == "its run is due"
    assert set(reasons("limits",
                       force=True).values()) >= {"asked for with --force", "its run is due"}
    # redone, with other numbers
    files.write_json(folder(project, "ok") / "metrics.json", {"auroc": {"test": {"value": 0.5}}})
    assert reasons("limits")["nut ok limits"] == "the run changed" and reasons(
        "limits")["nut ok seed 0"] == ""
    auroc = {"test": {"value": 0.75}}
    files.write_json(folder(project, "ok") / "metrics.json",
                     {"auroc": auroc, "chosen": {"auroc": auroc}})
    (limits(project, "ok") / "notebook.ipynb").unlink()
    assert reasons("limits")["nut ok limits"] == "never run"
    write(project, "limits", {"configs": ["ok"], "limits": ["ok"], "set": {"epochs": 7}})
    assert reasons("limits") == {
        "nut: the data": "never run", "nut ok seed 0": "epochs: 5 -> 7",
        "nut ok limits": "its run is due", "comparison": "what it compares is due"
    }


@pytest.mark.parametrize(("state", "why"), [(None, "missing: never run"),
                                            ("failed", "failed: the sky fell"),
                                            ("running", "interrupted: ")])
def test_limits_without_a_finished_run_start_no_process(project, monkeypatch, state, why):
    task = planned(project, ("limits", ))[1]
    if state:
        files.write_json(
            folder(project, "ok") / "run.json", {"status": state, "error": "the sky fell"})
    monkeypatch.setattr(subprocess, "Popen",
                        lambda *args, **options: pytest.fail("a process was started"))
    assert batch.run([task], local.Local(1), reports=project / "reports") == 1
    failure = freshness.failure(limits(project, "ok") / "limits.json")
    assert failure["failed"].startswith(
        f"its run, nut ok seed 0, has not finished ({why}") and failure["retry"] == task.retry
    assert batch.due([task]) != {task: ""}


def test_limits_that_fail_say_why_and_are_tried_again(project, said):
    task = planned(project, ("limits", ))[1]
    files.write_json(folder(project, "ok") / "run.json", {"status": "finished", "inputs": {}})
    files.write_json(folder(project, "ok") / "metrics.json", {"auroc": {"test": {"value": 0.75}}})
    notebook = project / "notebooks" / "05_limits.ipynb"
    notebook.write_text(notebook.read_text().replace("from adlib.data import files",
                                                     "raise ValueError('too dark')"))
    assert batch.run([task], local.Local(1), reports=project / "reports") == 1
    failure = freshness.failure(limits(project, "ok") / "limits.json")
    assert failure == {"failed": "ValueError: too dark", "retry": task.retry
                       } and "too dark" in "\n".join(said)
    assert run_folder.status(folder(project, "ok")).state == "finished"  # the run is none the worse
    assert batch.due([task])[task] == "failed: ValueError: too dark"


def test_a_time_limit_ends_a_run(project):
    tasks = [task for task in grid.plan("params/hang.yaml") if task.kind == "run"]
    assert batch.run(tasks, local.Local(1), reports=project / "reports", timeout_s=2) == 1
    assert run_folder.status(folder(project, "hang")) == run_folder.Status(
        "failed", "time limit of 2 s")


def test_a_kernel_that_does_nothing_is_ended_long_before_the_time_limit(project, monkeypatch):
    monkeypatch.setattr(local, "STUCK_S", 3.0)
    monkeypatch.setattr(local, "LOOK_S", 0.5)
    monkeypatch.setattr(local, "LEAST", 0.05)
    tasks = [task for task in grid.plan("params/hang.yaml") if task.kind == "run"]
    assert batch.run(tasks, local.Local(1), reports=project / "reports") == 1
    assert run_folder.status(folder(project, "hang")).reason == (
        "it was stuck, without progress or processor time for 3 s, and had to be ended (out of "
        "memory?)")
    assert not psutil.pid_exists(int((folder(project, "hang") / "pid").read_text()))


def test_an_interrupt_leaves_what_finished_and_no_process(project):
    write(project, "both", {"configs": ["ok", "hang"]})
    script = ("import sys; from pathlib import Path; from adlib.config import show_log\n"
              "from adlib.runs import batch, grid; from adlib.runs.engines import local\n"
              "show_log()\n"
              "tasks = [t for t in grid.plan('params/both.yaml') if t.kind != 'eda']\n"
              "sys.exit(batch.run(tasks, local.Local(1), reports=Path('reports')))")
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True)
    mark = folder(project, "hang") / "pid"
    deadline = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    family = psutil.Process(child.pid).children(recursive=True)
    kernel = int(mark.read_text())
    assert kernel in [member.pid for member in family]
    # Two batches at once: the second says so, and by hand or not, nobody else takes the running
    # run.
    with pytest.raises(InputError, match="another batch is at work"):
        batch.run([], local.Local(1), reports=project / "reports")
    assert reasons("hang")["nut hang seed 0"] == "running"
    child.send_signal(signal.SIGTERM)
    said = child.communicate(timeout=300)[0]
    assert child.returncode == 130 and "Traceback" not in said and "stopped" in said
    assert not [
        member
        for member in family if member.is_running() and member.status() != psutil.STATUS_ZOMBIE
    ]
    assert run_folder.status(folder(project, "ok")).state == "finished"
    assert run_folder.status(folder(project, "hang")).state == "interrupted"
    entries = json.loads((project / "reports" / "batch.json").read_text())
    assert [entry["status"] for entry in entries] == ["finished", "interrupted", "waiting"]


def test_a_run_that_someone_else_is_running_is_left_alone(project, said):
    task = next(task for task in grid.plan("params/ok.yaml") if task.kind == "run")
    here = task.output.parent
    here.mkdir(parents=True)
    (here / "run.json").write_text('{"status": "running"}')
    with filelock.FileLock(here / ".lock"):
        assert batch.run([task], local.Local(1), reports=project / "reports") == 1
        assert "another process is at work" in "\n".join(said)
        assert json.loads((here / "run.json").read_text()) == {"status": "running"}


def test_a_dry_run_says_what_and_why_and_touches_nothing(project, said):
    before = sorted(project.rglob("*"))
    assert batch.run(grid.plan("params/all.yaml"), local.Local(1), reports=project / "reports",
                     dry_run=True) == 0
    assert said[0].startswith(
        "due: 6 of 6 steps: 1 data page, 4 runs, 1 comparison, on nut\ntime: ")
    assert said[2] == "due: nut ok seed 0 (never run)" and len(said) == 7
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize("reports", ["/dev/null/reports", "/proc/reports"])
def test_reports_that_cannot_be_written_are_one_sentence(project, reports):
    with pytest.raises(InputError, match=f"cannot write in {reports}"):
        batch.run(grid.plan("params/ok.yaml", reports=reports), local.Local(1),
                  reports=Path(reports))


def test_a_full_disk_is_one_sentence_for_each_task(project, monkeypatch, said):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(subprocess, "Popen", full)
    tasks = grid.plan("params/ok.yaml")
    assert batch.run(tasks, local.Local(1), reports=project / "reports") == 1
    told = [line for line in said if "No space left on device" in line]
    assert len(told) == len(tasks) and not any("Traceback" in line for line in said)


def test_kill_tree_reaches_children_in_sessions_of_their_own():
    inner = "import time; time.sleep(600)"
    outer = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {inner!r}], start_new_session=True).wait()"
    parent = subprocess.Popen([sys.executable, "-c", outer], start_new_session=True)
    deadline = time.monotonic() + 60
    while not (family := psutil.Process(parent.pid).children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    local.kill_tree(parent)
    assert parent.returncode == -signal.SIGKILL
    assert family and not any(member.is_running() and member.status() != psutil.STATUS_ZOMBIE
                              for member in family)


@pytest.mark.parametrize(("slots", "eda_slots", "first"), [
    (1, 0, ["ok"]), (1, 1, ["ok", "nut: the data"]), (2, 1, ["ok", "nut: the data", "other"]),
    (3, 0, ["ok", "nut: the data", "other"])])
def test_a_page_of_the_data_is_drawn_beside_the_runs(project, slots, eda_slots, first):
    write(project, "other", {"name": "other", "model": "cae"})
    write(project, "third", {"name": "third", "model": "cae"})
    write(project, "all", {"configs": ["ok", "other", "third"]})
    eda, *runs, _ = grid.plan("params/all.yaml")
    queue, running = [runs[0], eda, *runs[1:]], []
    engine = types.SimpleNamespace(slots=slots, eda_slots=eda_slots)
    while task := batch._next(queue, running, engine):
        queue.remove(task)
        running.append(types.SimpleNamespace(task=task))
    assert [job.task.title for job in running] == [
        title if ":" in title else f"nut {title} seed 0" for title in first]


def test_exit_codes_in_words(tmp_path):
    assert local.reason_of_exit(-9, tmp_path) == "killed by signal 9 (out of memory?)"
    assert local.reason_of_exit(-11, tmp_path) == "killed by signal 11"
    (tmp_path / "log.txt").write_text("one\n\x1b[31mNo such kernel\x1b[0m\n\n")
    assert local.reason_of_exit(1, tmp_path) == "papermill ended with exit code 1: No such kernel"


def test_importing_the_runner_imports_no_torch():
    script = "import sys, adlib.runs.batch; sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", script], env=os.environ,
                          check=False).returncode == 0
