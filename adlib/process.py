"""One papermill process for each task: starting it, ending it with all its children, and what it left behind."""
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

from adlib import files, runs
from adlib.config import InputError, project_root
from adlib.grid import Task

# Of all that papermill imports, one grammar takes three quarters of the time, to check addresses that no notebook has.
PAPERMILL = "import sys; sys.modules['rfc3987_syntax'] = None; from papermill.cli import papermill; papermill()"
# glibc returns large blocks to the system, which has to clear them again for the next training step: a tenth of a run.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**33)}
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Job:
    """A task under way."""

    task: Task
    process: subprocess.Popen
    before: object  # run.json's `started` before this attempt
    began: float = field(default_factory=time.monotonic)
    timed_out: bool = False

    def seconds(self) -> float:
        return time.monotonic() - self.began


def start(task: Task, jobs: int) -> Job:
    """Start a task's process as one of `jobs`; its parameters and its log lie beside its output."""
    folder = task.output.parent
    files.write_text(folder / "params.yaml", yaml.safe_dump(task.params, sort_keys=False))
    for leftover in (_temporary(task), folder / "progress.json", *([task.output, task.note] if task.note else [])):
        leftover.unlink(missing_ok=True)
    command = [sys.executable, "-c", PAPERMILL, str(task.notebook), str(_temporary(task)), "-f", str(folder / "params.yaml"),
               "-k", "python3", "--log-output", "--no-progress-bar"]
    env = KEEP_MEMORY | os.environ | {"OMP_NUM_THREADS": str(max(1, _cores() // jobs)), "JUPYTER_PREFER_ENV_PATH": "1"}
    for name in ("ADLIB_DATA", "ADLIB_CACHE"):  # the notebook stands in the project's folder, the person perhaps elsewhere
        if env.get(name):
            env[name] = os.path.abspath(env[name])
    before = runs.manifest(folder).get("started")
    try:
        with (folder / "log.txt").open("wb") as log:
            # A session of its own: Ctrl-C reaches this process alone, which then ends the children in order.
            process = subprocess.Popen(command, cwd=project_root(), env=env, stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=subprocess.STDOUT, start_new_session=True)
    except OSError as error:
        raise InputError(f"cannot start {task.title} in {folder}: {error.strerror or error}; free some space or choose a "
                         "folder that can be written") from error
    return Job(task, process, before)


def keep_notebook(task: Task) -> str:
    """Put the executed notebook, even a partial one, in its place; return the error it shows, "" if none."""
    try:
        cells = files.read_json(_temporary(task))["cells"]
    except (InputError, KeyError, TypeError):
        return ""  # nothing, or cut off in the middle of a write
    _temporary(task).replace(task.output)
    outputs = [output for cell in cells for output in cell.get("outputs", []) if output.get("output_type") == "error"]
    text = " ".join(ANSI.sub("", f"{outputs[-1]['ename']}: {outputs[-1]['evalue']}").split()) if outputs else ""
    return text if len(text) <= 500 else text[:497] + "..."


def reason_of_exit(code: int, folder: Path) -> str:
    """What an exit code means, for a notebook that shows no error itself."""
    if code == 138:  # papermill's own code
        return "the kernel died (out of memory?)"
    if code < 0:
        return f"killed by signal {-code}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
    return f"papermill ended with exit code {code}: " + ("".join(log_end(folder, 1)) or "its log is empty")


def kill_tree(process: subprocess.Popen) -> None:
    """End a process with all its descendants; kernels have sessions of their own, so no process group holds them all."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        parent.suspend()  # so that it starts no further child while they are counted
        family = [*parent.children(recursive=True), parent]
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
    """An event that Ctrl-C, SIGTERM and a closed terminal set, instead of a traceback in the middle of something."""
    stop = threading.Event()
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in (getattr(signal, name) for name in names)}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}  # nohup stays nohup
    if threading.current_thread() is not threading.main_thread():
        before = {}
    try:
        for number in before:
            signal.signal(number, lambda *_: stop.set())
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _temporary(task: Task) -> Path:
    return task.output.with_name(f".{task.output.stem}-running.ipynb")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
