"""`adlib` and papermill as processes of their own, without ten seconds of imports for each.

One process has made the imports and forks what a test begins; and a batch that it forks forks the
process from which its notebooks come, which would be started cold (adlib/runs/engines/warm.py).
From then on everything is as it is on a command line: arguments, environment, working directory,
signals, standard output, exit codes. Where systems cannot fork, commands start cold.
"""
from __future__ import annotations

import gc
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import types
import typing
from pathlib import Path

import pytest

from adlib.runs.engines import local, warm

ROOT = Path(__file__).resolve().parents[1]
KEPT = 1024  # file descriptors of a process, at most


class Command:
    """A command that runs, as far as a test uses subprocess.Popen; what it says comes in one."""

    def __init__(self, tool: str, words: list[str], cwd: Path, env: dict[str, str]) -> None:
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload(["tests.forked_imports"])
        self._said = tempfile.NamedTemporaryFile(suffix=".log")
        self._process = forks.Process(target=_run, args=(tool, words, cwd, env, self._said.name),
                                      name=tool, daemon=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(ROOT))  # of the process that forks
            self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self.poll()) is None:
            self.kill()  # or this process would wait for it at its own end
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        self.wait(timeout)
        return Path(self._said.name).read_text(encoding="utf-8", errors="replace"), None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def begin(tool: str, words: typing.Sequence[object], cwd: Path = ROOT,
          env: dict[str, str] | None = None) -> Command | subprocess.Popen:
    """Start `adlib`, `papermill` or `python` (tool) with some words, python's code first, and what
    env adds to the environment."""
    if not warm.POSSIBLE:
        return cold(tool, words, cwd, env)
    return Command(tool, [str(word) for word in words], cwd, dict(os.environ) | (env or {}))


def cold(tool: str, words: typing.Sequence[object], cwd: Path = ROOT,
         env: dict[str, str] | None = None) -> subprocess.Popen:
    """The same in a new interpreter, as a user starts it."""
    of_tool = {"adlib": ["-m", "adlib.cli"], "papermill": ["-m", "papermill"], "python": ["-c"]}
    return subprocess.Popen([sys.executable, *of_tool[tool], *map(str, words)], cwd=cwd,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env=os.environ | (env or {}))


def _run(tool: str, words: list[str], cwd: Path, env: dict[str, str], said: str) -> None:
    """In the forked process."""
    gc.enable()
    for number, name, how in ((0, os.devnull, os.O_RDONLY), (1, said, os.O_WRONLY | os.O_APPEND)):
        os.dup2(os.open(name, how), number)
    os.dup2(1, 2)
    _become(cwd, env)
    if tool == "papermill":
        _compute(env)
        warm._papermill(words, said)
    elif tool == "python":
        code, *sys.argv[1:] = words
        exec(code, {"__name__": "__main__"})  # noqa: S102 - a test's own
    else:
        from adlib import cli

        warm.subprocess = types.SimpleNamespace(Popen=_Waiting(), PIPE=subprocess.PIPE)
        sys.exit(cli.main(words))


def _become(cwd: Path, env: dict[str, str]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    place = env.get("PYTHONPATH", "")
    if place and (Path(place) / "sitecustomize.py").exists():  # which a new interpreter imports
        sys.path.insert(0, place)
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")


def _compute(env: dict[str, str]) -> None:
    """What torch and matplotlib read from the environment when they are imported."""
    import matplotlib
    import torch

    torch.set_num_threads(int(env["OMP_NUM_THREADS"]))
    matplotlib.rcParams["backend"] = local.KERNEL["MPLBACKEND"]


class _Waiting:
    """Popen of the process that a batch forks its notebooks from: forked at once, since a batch has
    threads by the time it needs one, and waits. The next, where that was killed, starts cold."""

    def __init__(self) -> None:
        self.server: _Server | None = _Server()

    def __call__(self, words: list[str], **how: typing.Any) -> _Server | subprocess.Popen:
        server, self.server = self.server, None
        return server.begin(how["cwd"], how["env"]) if server else subprocess.Popen(words, **how)


class _Server(warm._Kernel):
    def __init__(self) -> None:
        self._code, (asked, ask), (hear, tell) = None, os.pipe(), os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.setsid()
                os.dup2(asked, 0)
                os.dup2(tell, 1)
                os.closerange(3, KEPT)  # the pipe whose end is the batch's
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_DFL)
                begun = json.loads(self._line())
                _become(begun["cwd"], begun["env"])
                _compute(begun["env"])
                warm.serve()
            finally:
                os._exit(1)
        os.close(asked)
        os.close(tell)
        self.stdin, self.stdout = open(ask, "wb"), open(hear, "rb")

    def begin(self, cwd: Path, env: dict[str, str]) -> _Server:
        self.stdin.write(json.dumps({"cwd": str(cwd), "env": env}).encode() + b"\n")
        self.stdin.flush()
        return self

    @staticmethod
    def _line() -> bytes:
        """The first line of stdin, and nothing of what follows; the batch's end ends this too."""
        line = b""
        while not line.endswith(b"\n"):
            if not (more := os.read(0, 1)):
                os._exit(0)
            line += more
        return line

    def kill(self) -> None:
        if self.poll() is None:
            super().kill()
