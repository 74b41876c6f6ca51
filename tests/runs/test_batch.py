"""The runner, with real papermill processes on notebooks that only pretend to train."""
from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import os
import shutil
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
import yaml

from adlib.config import Config, InputError, log
from adlib.data import files
from adlib.models import weights
from adlib.runs import batch, forecast, freshness, grid, run_folder, terminal
from adlib.runs.engines import local

CONFIGS = ("ok", "boom", "killed", "silent", "hang")
PARAMETERS = "# Parameters\ncategory = ''\ndata_root = ''\nreports = ''\nimage_size = 128\n"
EDA = "assert category == 'nut'"
RUN = """
import os, sys, time, types
from adlib.config import Config
from adlib.data import files, layout
from adlib.runs import run_folder
config = Config.from_notebook()
if name == "boom":
    raise ValueError("\\x1b[31mthe sky\\x1b[0m fell")
if name == "killed":
    os.kill(os.getpid(), 9)
if name != "silent":
    sys.modules["adlib.models.fast.device"] = types.SimpleNamespace(describe=lambda config: {})
    root, source = layout.find_root(data_root)
    category = layout.open_category(root, category)
    run = run_folder.start(types.SimpleNamespace(config=config, requested=config, category=category,
                                                 source=source, grey_range=None, looked_at=None,
                                                 fit_choice=None, left_out=None),
                           types.SimpleNamespace(weights="none"))
if name == "hang":
    run.progress({"epoch": 1, "epochs": 9, "loss": 0.5, "seconds_left": 8.0})
    files.write_text(run.folder / "pid", str(os.getpid()))
    time.sleep(600)
if name == "ok":
    assert "torch" not in sys.modules
    auroc = {"test": {"value": 0.75}}
    run.finish({"auroc": auroc, "chosen": {"auroc": auroc}}, train_seconds=1.0)
"""
# needs its run
LIMITS = "from adlib.data import files\nfiles.read_json(f'{reports}/runs/{category}/{name}/seed-{seed}/metrics.json')"
COMPARISON = "import json\nplanned = json.load(open(reports + '/batch.json'))\nprint(sorted(p['status'] for p in planned))"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose configurations' names say what becomes of them; the working directory."""
    for folder in ("notebooks", "params", "data/nut/train/good", "data/nut/test"):
        (tmp_path / folder).mkdir(parents=True)
    for i in range(3):
        (tmp_path / "data" / "nut" / "train" / "good" / f"{i}.png").write_bytes(b"%d" % i)
    names = "".join(f"{key} = {value!r}\n" for key, value in Config().as_dict().items()
                    if key + " =" not in PARAMETERS)
    for name, source in (("01_eda", EDA), ("02_cae_baseline", RUN), ("05_limits", LIMITS),
                         ("06_comparison", COMPARISON)):
        cells = [
            nbformat.v4.new_code_cell(PARAMETERS + names, metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(source)
        ]
        metadata = {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata),
                       tmp_path / "notebooks" / f"{name}.ipynb")
    for name in CONFIGS:
        write(tmp_path, name, {"name": name, "model": "cae"})
    write(tmp_path, "all", {"configs": ["ok", "boom", "killed", "silent"]})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def said():
    """What adlib logs, line by line."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield lines
    log.removeHandler(handler)


def write(project: Path, name: str, content: dict) -> None:
    (project / "params" / f"{name}.yaml").write_text(yaml.safe_dump(content))


def folder(project: Path, name: str) -> Path:
    return project / "reports" / "runs" / "nut" / name / "seed-0"


def reasons(name: str, **options) -> dict[str, str]:
    return {
        task.title: reason
        for task, reason in batch.due(grid.plan(f"params/{name}.yaml"), **options).items()
    }


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


@pytest.fixture
def running(project):
    """A job of a run in epoch 3 of 9, whose process is never started."""
    task = next(task for task in grid.plan("params/ok.yaml") if task.kind == "run")
    files.write_json(task.output.parent / "progress.json",
                     {"epoch": 3, "epochs": 9, "loss": 0.25, "seconds_left": 12.4})
    return local.Job(task, execution=None, before=None, made_from={}, began=1000.0)


def test_elsewhere_than_on_a_terminal_progress_is_one_line_in_30_seconds(running, monkeypatch, said):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shown = terminal.Board({running.task: 40.0, "another": 40.0, "a third": 40.0, "a fourth": 40.0})
    for _ in range(100):  # 99 seconds, three of them multiples of 30
        shown.progress([running])
        now[0] += 1
    # what takes longer than forecast makes the rest longer, too
    assert said == [f"0 of 4 done, about {left} min left; nut ok seed 0: epoch 3 of 9, "
                    "loss 0.25, 10 s left" for left in (2, 3, 4)]


def test_on_a_terminal_there_is_a_bar_for_the_batch_and_a_line_for_each_running_task(
        running, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "Console", functools.partial(
        terminal.Console, force_terminal=True, width=90, color_system=None))
    monkeypatch.setattr(sys, "stdout", screen)
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with contextlib.closing(terminal.Board({running.task: 20.0, "another": 60.0})) as shown:
        shown.started(running.task)
        assert "start" not in screen.getvalue()
        now[0] += 20  # as forecast, so the rest is
        shown.progress([running])
        live = screen.getvalue().splitlines()[-2:]
        shown.failed(running.task, "the sky fell", log_too=False)
        assert not shown.running
    assert live[0].rstrip().endswith(" 0 of 2 done, about 60 s left")
    assert live[1].rstrip().endswith(" nut ok seed 0: epoch 3 of 9, loss 0.25, 10 s left")
    assert "FAILED (1 of 2): nut ok seed 0: the sky fell\n" in screen.getvalue()
    assert f"to try again: {running.task.retry}\n" in screen.getvalue()


def test_the_quickest_run_is_the_first(project, said, monkeypatch):
    """It brings the first page."""
    write(project, "other", {"name": "other", "model": "cae"})
    write(project, "all", {"configs": ["ok", "other"]})
    tasks = grid.plan("params/all.yaml")
    monkeypatch.setattr(forecast, "of_tasks", lambda due: {
        task: 1.0 if "other" in task.title else 9.0 for task in due})
    batch.run(tasks, local.Local(1), reports=project / "reports")
    started = [line.removeprefix("start: ") for line in said if line.startswith("start: ")]
    assert started == ["nut other seed 0", "nut: the data", "nut ok seed 0", "comparison"]


@pytest.mark.parametrize(("slots", "beside", "first"), [
    (1, 0, ["ok"]), (1, 1, ["ok", "nut: the data"]), (2, 1, ["ok", "nut: the data", "other"]),
    (3, 0, ["ok", "nut: the data", "other"])])
def test_a_page_of_the_data_is_drawn_beside_the_runs(project, slots, beside, first):
    write(project, "other", {"name": "other", "model": "cae"})
    write(project, "third", {"name": "third", "model": "cae"})
    write(project, "all", {"configs": ["ok", "other", "third"]})
    eda, *runs, _ = grid.plan("params/all.yaml")
    queue, running = [runs[0], eda, *runs[1:]], []
    engine = types.SimpleNamespace(slots=slots, beside=beside)
    while task := batch._next(queue, running, engine):
        queue.remove(task)
        running.append(types.SimpleNamespace(task=task))
    assert [job.task.title for job in running] == [
        title if ":" in title else f"nut {title} seed 0" for title in first]


def test_a_batch_says_what_it_will_do_and_learns_how_long_it_took(project, said, monkeypatch,
                                                                 tmp_path):
    monkeypatch.setenv("ADLIB_CACHE", str(tmp_path / "cache"))
    write(project, "all", {"configs": ["ok"]})
    assert batch.run(grid.plan("params/all.yaml"), local.Local(1), reports=project / "reports") == 0
    assert said[0].splitlines()[0] == "due: 3 of 3 steps: 1 data page, 1 run, 1 comparison, on nut"
    assert "the first batch here, so this may be off" in said[0].splitlines()[1]
    assert said[0].splitlines()[2:] == ["data: data", "weights: none needed"]
    assert not any(line.startswith("due: nut") for line in said)  # never run: no word about it
    tasks = grid.plan("params/all.yaml")
    before = sum(forecast.seconds(task.kind, task.config, (3, 0)) for task in tasks)
    assert 0 < sum(forecast.of_tasks(tasks).values()) != before  # at this machine's pace
    said.clear()
    assert batch.run(tasks, local.Local(1), reports=project / "reports") == 0
    assert said == ["all 3 steps are up to date"]


def test_the_forecast_grows_with_the_work(project):
    write(project, "more", {"configs": ["ok"], "set": {"epochs": 50}})
    few, many = ([task.config for task in grid.plan(f"params/{name}.yaml") if task.config][0]
                 for name in ("ok", "more"))
    assert (forecast.seconds("run", few, (100, 10)) < forecast.seconds("run", few, (200, 10))
            < forecast.seconds("run", many, (200, 10)))
    assert forecast.of_grid(Path("params/all.yaml"), [(3, 0)]) < forecast.of_grid(
        Path("params/all.yaml"), [(3, 0), (3, 0)])
    assert [forecast.duration(s) for s in (3, 62, 100, 3700)] == ["10 s", "60 s", "2 min", "1 h 2 min"]


@pytest.mark.parametrize("fallback", [True, False])
def test_random_weights_are_told_before_the_first_run_with_the_ways_out(project, monkeypatch,
                                                                        fallback):
    write(project, "fused", {"name": "fused", "model": "fused", "weights_fallback": fallback})
    (project / "notebooks" / "04_feature_space.ipynb").write_text(
        (project / "notebooks" / "02_cae_baseline.ipynb").read_text())
    tasks = grid.plan("params/fused.yaml")
    monkeypatch.setattr(freshness, "imagenet_at_hand", lambda: False)
    cached = Path("/cache/resnet18-f37072fd.pth")
    monkeypatch.setattr(weights, "fetch", lambda: (
        "no connection", "https://host.invalid/resnet18-f37072fd.pth", cached))
    said = forecast.weights_out_of_reach(tasks)
    assert "out of reach (no connection)" in said and "so 1 run will" in said
    assert ("RANDOM weights, be grey on every page" if fallback else "fail. ") in said
    for way in ("https://host.invalid/resnet18-f37072fd.pth", "begins with f37072fd",
                "--weights FILE", "WEIGHTS=FILE", str(cached)):
        assert way in said
    monkeypatch.setattr(weights, "fetch", lambda: ("", "", cached))
    assert forecast.weights_out_of_reach(tasks) == ""
    assert forecast.weights_out_of_reach(grid.plan("params/ok.yaml")) == ""


def test_a_detector_of_ones_own_does_not_run_with_random_weights(project, monkeypatch):
    write(project, "own", {"name": "own", "model": "mine.py:Mine"})
    shutil.copy(project / "notebooks" / "02_cae_baseline.ipynb",
                project / "notebooks" / "04_feature_space.ipynb")
    (project / "mine.py").write_text("class Mine: pass")
    monkeypatch.setattr(freshness, "imagenet_at_hand", lambda: False)
    monkeypatch.setattr(weights, "fetch", lambda: ("no connection", "resnet18-x.pth", Path("x")))
    assert forecast.weights_out_of_reach(grid.plan("params/own.yaml")) == ""


def test_the_closing_table_fits_100_columns_however_many_categories():
    names = [f"category number {number}" for number in range(7)]
    said = "0.981 [0.93, 1.00] ★\n100% @ 10%, 123 s"
    cells = [(f"Frozen ResNet18 to features {config}", name, said)
             for name in names for config in "abc"]
    cells[1] = (*cells[1][:2], "failed: " + 12 * "of a reason ")
    table = terminal.closing_table(cells)
    assert all(name in table for name in names)
    assert table.count("Frozen ResNet18 to features b") == 3  # however long what failed says
    assert table.count("0.981 [0.93, 1.00] ★") == table.count("100% @ 10%, 123 s") == 20
    assert "failed" in table
    assert max(map(len, table.splitlines())) <= 100 and table.count("AUROC") == 1


def test_exit_codes_in_words(tmp_path):
    assert local.reason_of_exit(-9, tmp_path) == "killed by signal 9 (out of memory?)"
    assert local.reason_of_exit(-11, tmp_path) == "killed by signal 11"
    (tmp_path / "log.txt").write_text("one\n\x1b[31mNo such kernel\x1b[0m\n\n")
    assert local.reason_of_exit(1, tmp_path) == "papermill ended with exit code 1: No such kernel"


def test_importing_the_runner_imports_no_torch():
    script = "import sys, adlib.runs.batch; sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", script], env=os.environ,
                          check=False).returncode == 0
