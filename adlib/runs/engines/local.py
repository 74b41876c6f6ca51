"""One papermill process for each task: starting it, ending it with all its children, and what it
left behind.

Where the process runs is an engine's business: `Local` starts it on this machine, engines.dask on
another one.
"""
from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import typing
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from adlib.config import WHERE, Config, InputError, cache_dir, given_path, project_root
from adlib.data import files
from adlib.runs import freshness, run_folder
from adlib.runs.engines import warm
from adlib.runs.grid import Task

# Whoever starts this process holds its standard input open: when that ends, killed or not, so do
# this process and its kernel.
PAPERMILL = """
import os, threading
def end_with_the_one_that_started_this():
    os.read(0, 1)
    import psutil
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)
threading.Thread(target=end_with_the_one_that_started_this, daemon=True).start()
from adlib.runs.engines import warm
warm.prepare_papermill()
from papermill.cli import papermill
papermill()
"""
# glibc returns large blocks to the system, which has to clear them again for the next training
# step: a tenth of a run.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**33)}
STUCK_S, LOOK_S = 45.0, 5.0  # without work it is stuck; how often one looks
LEAST = 0.25  # work that counts: seconds of processor time, or megabytes. Idle ones do a fifth
STUCK = 1000  # nobody's exit code
# The kernel is this interpreter's, and draws as notebooks do, whatever an editor's terminal or a
# cluster's modules have set (JUPYTER_PATH comes before all other places of kernels).
KERNEL = {"JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_PATH": "", "PYTHONUTF8": "1",
          "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Execution(typing.Protocol):
    """A process that executes a task, wherever it runs."""
    def poll(self) -> int | None:
        """Its exit code (negative: the signal that killed it), None while it runs. Raises
        InputError where that cannot be known."""

    def kill(self) -> None:
        """End it with all its descendants."""


class Engine(typing.Protocol):
    """What executes tasks: the one seam between the batch and the machines."""
    eda_slots: int  # pages of the data, which take seconds of a core, drawn beside these
    @property
    def slots(self) -> int:
        """How many other tasks it takes at a time, now."""

    def launch(self, task: Task) -> Execution:
        """Start a task's process. Raises InputError where it cannot be started."""


@dataclass
class Job:
    """A task under way."""

    task: Task
    execution: Execution
    before: object  # run.json's `started` before this attempt
    made_from: dict[str, typing.Any]  # of a task with a note: what it says
    began: float = field(default_factory=time.monotonic)
    timed_out: bool = False

    def seconds(self) -> float:
        return time.monotonic() - self.began


class Local:
    """The engine of this machine: `jobs` processes at a time, which share its cores."""
    def __init__(self, jobs: int) -> None:
        """Raises InputError for less than one."""
        if jobs < 1:
            raise InputError(f"jobs is {jobs}; give at least 1")
        self.slots, self.eda_slots = jobs, int(cores() > 1)
        self._threads = max(1, cores() // jobs)
        self._server = (warm.Server(project_root(), environment(self._threads))
                        if warm.POSSIBLE else None)

    def prepare(self, notebook: Path) -> None:
        """Let what a notebook imports be imported, before it is launched."""
        with contextlib.suppress(OSError):  # the launch will meet it too, and say so
            if self._server:
                self._server.prepare(freshness.imported(notebook))

    def launch(self, task: Task) -> LocalProcess:
        return LocalProcess(task, project_root(), threads=self._threads, server=self._server)

    def close(self) -> None:
        if self._server:
            self._server.close()


def environment(threads: int) -> dict[str, str]:
    """Of papermill and its kernel."""
    env = KEEP_MEMORY | os.environ | KERNEL | {"OMP_NUM_THREADS": str(threads)}
    # the notebook stands in the project's folder, the user perhaps elsewhere
    env["ADLIB_CACHE"] = str(cache_dir().absolute())
    if data := env.get("ADLIB_DATA"):
        env["ADLIB_DATA"] = str(given_path(data).absolute())
    return env


class LocalProcess:
    """A papermill process of this machine."""
    def __init__(self, task: Task, project: Path, *, threads: int,
                 server: warm.Server | None = None) -> None:
        """server: that forks it; None = a new process."""
        # papermill fills in braces
        paths = [str(path).replace("{", "{{").replace("}", "}}")
                 for path in (task.notebook, _temporary(task))]
        words = [*paths, "-f", str(_parameters(task)), "-k", "python3", "--log-output",
                 "--no-progress-bar"]
        path = task.output.parent / "log.txt"
        with (files.saying(f"cannot start {task.title} in {task.output.parent}",
                           "free some space or choose a folder that can be written", OSError),
              path.open("wb") as log):
            if server:
                self._process = server.fork(words, path, freshness.imported(task.notebook))
            else:
                # A session of its own: Ctrl-C reaches this process alone, which then ends the
                # children in order.
                self._process = subprocess.Popen(
                    [sys.executable, "-c", PAPERMILL, *words], cwd=project,
                    env=environment(threads), stdin=subprocess.PIPE, stdout=log,
                    stderr=subprocess.STDOUT, start_new_session=True)
        self._watch = Watch(self._process.pid)

    def poll(self) -> int | None:
        """Its exit code; STUCK where it had to be ended for doing nothing."""
        code = self._process.poll()
        if code is None and self._watch.stuck():
            self.kill()
            return STUCK
        return code

    def kill(self) -> None:
        kill_tree(self._process)


class Watch:
    """Notices that a process and its descendants have stopped working: a kernel without memory may
    neither die nor answer, and papermill waits for it as long as it lives."""
    def __init__(self, pid: int) -> None:
        self._pid, self._done = pid, 0.0
        self._since = self._looked = time.monotonic()

    def stuck(self) -> bool:
        """Has nothing been done for STUCK_S?"""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return False
        self._looked, done = now, self._work()
        if abs(done - self._done) >= LEAST:  # what a child did goes with it
            self._done, self._since = done, now
        return now - self._since > STUCK_S

    def _work(self) -> float:
        """What they did so far, in seconds of processor time and megabytes read and written; more
        each time while one waits for something else."""
        total = 0.0
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(self._pid)
            for member in (parent, *parent.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    times = member.cpu_times()
                    total += times.user + times.system
                    if psutil.LINUX:
                        moved = member.io_counters()
                        total += (moved.read_chars + moved.write_chars) / 1e6
                    if _waits(member):
                        return self._done + 1
        return total


def start(task: Task, engine: Engine, made_from: dict[str, typing.Any]) -> Job:
    """Start a task; its parameters and its log lie beside its output, and nothing that an earlier
    attempt left half done."""
    folder = task.output.parent
    files.write_text(_parameters(task), yaml.safe_dump(_injected(task), sort_keys=False))
    # The comparison lies in the reports folder itself, where the user may keep hidden files of
    # their own (`--reports .`).
    halves = [_temporary(task)] if task.kind == "comparison" else folder.glob(".*-*")
    for leftover in (*halves, run_folder.work(folder) / "progress.json",
                     *([] if has_finished_run(task) else [task.output]),
                     *([task.note] if task.note else [])):
        leftover.unlink(missing_ok=True)
    before = run_folder.manifest(folder).get("started")
    return Job(task, engine.launch(task), before, made_from)


def error_shown(task: Task) -> str:
    """The error that the executed notebook shows, "" if none."""
    errors = [output for cell in _executed(task) for output in cell.get("outputs", [])
              if output.get("output_type") == "error"]
    text = f"{errors[-1]['ename']}: {errors[-1]['evalue']}" if errors else ""
    text = " ".join(ANSI.sub("", text).split())
    return text if len(text) <= 500 else text[:497] + "..."


def keep_notebook(task: Task, failed: bool) -> None:
    """Put the executed notebook, even a partial one, in its place; but not of a failed attempt in
    that of a run whose numbers stand."""
    if failed and has_finished_run(task) or not _executed(task):
        _temporary(task).unlink(missing_ok=True)
    else:
        _temporary(task).replace(task.output)


def has_finished_run(task: Task) -> bool:
    """Are there finished numbers of this task's run?"""
    return task.kind == "run" and run_folder.status(task.output.parent).state == "finished"


def reason_of_exit(code: int, folder: Path) -> str:
    """What an exit code means, for a notebook that shows no error itself."""
    if code == STUCK:
        return (f"it was stuck, without progress or processor time for {STUCK_S:.0f} s, and had to "
                f"be ended (out of memory?)")
    if code == 138:  # papermill's own code
        return "the kernel died (out of memory?)"
    if code < 0:
        return f"killed by signal {-code}" + " (out of memory?)" * (code == warm.KILLED)
    last = "".join(log_end(folder, 1)) or "its log is empty"
    return f"papermill ended with exit code {code}: {last}"


def own_line(task: Task) -> str:
    """Which line of the user's own files was under way when a process ended without a word, as its
    log has it (config.errors.tell_where); "" if none was."""
    own = [Path(file).name for file in task.config.own_files] if task.config else []
    for line in log_end(task.output.parent, 400):
        frame = re.fullmatch(r'\s*File "(.+)", line (\d+) in .+', line)
        if frame and Path(frame[1]).name in own:
            return f"; it was at {Path(frame[1]).name}, line {frame[2]}"
    return ""


def kill_tree(process: subprocess.Popen) -> None:
    """End a process with all its descendants; kernels have sessions of their own, so no process
    group holds them all."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        parent.suspend()  # so that it starts no further child while they are counted
        family = [*parent.children(recursive=True), parent]
        if WHERE and len(family) > 1:
            for member in family[:-1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.send_signal(WHERE)
            time.sleep(0.2)  # for its log
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family[:-1], timeout=5)
    process.wait()


def log_end(folder: Path, lines: int) -> list[str]:
    """The last lines of a task's log that hold anything, without colours."""
    log = folder / "log.txt"
    text = ANSI.sub("", log.read_text(encoding="utf-8", errors="replace")) if log.is_file() else ""
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


@contextlib.contextmanager
def stop_signals() -> typing.Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and a closed terminal set, instead of a traceback in the middle
    of something."""
    stop = threading.Event()
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP")
               if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: handler for number in numbers
              if (handler := signal.getsignal(number)) != signal.SIG_IGN}  # nohup stays nohup
    try:
        for number in before:
            signal.signal(number, lambda *_: stop.set())
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _waits(member: psutil.Process) -> bool:
    """Was it stopped, or does it wait for a disk, or for a machine that does not answer?"""
    return member.status() in (psutil.STATUS_DISK_SLEEP, psutil.STATUS_STOPPED) or any(
        link.status == psutil.CONN_SYN_SENT for link in member.net_connections("tcp"))


def _temporary(task: Task) -> Path:
    return task.output.with_name(f".{task.output.stem}-running.ipynb")


def _executed(task: Task) -> list[dict[str, typing.Any]]:
    """The cells of the notebook that papermill writes; none where it is missing or cut off in the
    middle of a write."""
    try:
        return files.read_json(_temporary(task))["cells"]
    except (InputError, KeyError, TypeError):
        return []


def _injected(task: Task) -> dict[str, typing.Any]:
    """The parameters that the notebook declares, and those that are not as usual: of any other
    papermill would warn."""
    cells = [cell for cell in files.read_json(task.notebook)["cells"]
             if "parameters" in cell["metadata"].get("tags", [])]
    if task.config is None or not cells:
        return task.params
    declared = re.findall(r"^(\w+)\s*[:=]", "".join(cells[0]["source"]), re.MULTILINE)
    usual = Config().as_dict()
    return {key: value for key, value in task.params.items()
            if key in declared or value != usual[key]}


def _parameters(task: Task) -> Path:
    return task.output.with_name("params.yaml")
