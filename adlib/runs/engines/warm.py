"""A process that has imported what notebooks import, and forks: a task's papermill, and its kernel,
start in a tenth of a second instead of seven seconds of a core. Linux's alone.

    batch ── a line a task ──> server ── fork ──> papermill ── fork ──> kernel

Each ends with the one above it (prctl's PR_SET_PDEATHSIG), killed or not. The kernel comes to
papermill by jupyter_client's own seam for that, a provisioner.
"""
from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
import types
import typing
from pathlib import Path

from adlib.runs import freshness

POSSIBLE = sys.platform == "linux"  # macOS's and Windows' libraries do not bear a fork
LOOK_S = 0.05  # how often the server asks after its children
KILLED = -9  # an exit code: by SIGKILL, which Windows has none of
DIES_WITH_PARENT, NAME = 1, 15  # of prctl


class Server:
    """The batch's side: starts the server when it is first asked, and again if it was killed."""

    def __init__(self, project: Path, env: dict[str, str]) -> None:
        self._project, self._env = project, env
        self._server: subprocess.Popen | None = None
        self._codes: dict[int, int] = {}
        self._started: list[int] = []
        self._said = threading.Condition()

    def fork(self, words: list[str], log: Path, modules: list[str]) -> Forked:
        """Execute papermill with these words, its output in `log`, after `modules` are imported.

        Raises:
            OSError: where no process can be started.
        """
        server = self._ask({"words": words, "log": str(log.absolute()), "modules": modules})
        with self._said:
            self._said.wait_for(lambda: self._started or server.poll() is not None)
            if not self._started:
                raise OSError("the process that starts notebooks was killed")
            return Forked(self, server, self._started.pop())

    def prepare(self, modules: list[str]) -> None:
        """Let it import modules before the first task asks for them. Raises OSError as `fork`."""
        self._ask({"modules": modules})

    def code(self, server: subprocess.Popen, pid: int) -> int | None:
        """What a child ended with, None while it runs. They all end with the server."""
        with self._said:
            gone = server is not self._server or server.poll() is not None
            return self._codes.get(pid, KILLED if gone else None)

    def close(self) -> None:
        """End it, and what it started."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            with contextlib.suppress(OSError):
                self._server.stdin.close()

    def _ask(self, request: dict[str, typing.Any]) -> subprocess.Popen:
        """Of a server, which is started if there is none."""
        if self._server is None or self._server.poll() is not None:
            # A session of its own: Ctrl-C reaches the batch alone.
            self._server = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import serve; serve()"],
                cwd=self._project, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                start_new_session=True)
            atexit.register(self.close)  # and where the batch is killed, it reads its end
            threading.Thread(target=self._listen, args=[self._server], daemon=True).start()
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._server.stdin.flush()
        return self._server

    def _listen(self, server: subprocess.Popen) -> None:
        for line in server.stdout:
            pid, code = json.loads(line)
            with self._said:
                if code is None:
                    self._codes.pop(pid, None)  # of another process that had this number
                    self._started.append(pid)
                else:
                    self._codes[pid] = code
                self._said.notify_all()
        server.wait()
        with self._said:
            self._said.notify_all()


class Forked(typing.NamedTuple):
    """A child of the server, as far as a batch uses subprocess.Popen."""

    server: Server
    parent: subprocess.Popen
    pid: int

    def poll(self) -> int | None:
        return self.server.code(self.parent, self.pid)

    def wait(self) -> int:
        while (code := self.poll()) is None:
            time.sleep(LOOK_S)
        return code


def serve() -> None:
    """The server: a request a line on stdin, of a task or of modules alone; on stdout [pid, null]
    when a child has started, and [pid, exit code] when it has ended. Whatever else is printed goes
    to stderr.

    Nothing here becomes garbage: to look for it takes a third of the time of all imports. Nor is a
    child's collection to look through what it shares with this process, and so copy it.
    """
    gc.disable()
    said = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    prepare_papermill()
    children: set[int] = set()
    rest = b""
    while True:
        for pid in list(children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                children.discard(pid)
                said.write(json.dumps([pid, os.waitstatus_to_exitcode(status)]) + "\n")
        if not select.select([0], [], [], LOOK_S if children else None)[0]:
            continue
        if not (more := os.read(0, 65536)):
            os._exit(0)  # the batch has ended, and what was forked ends with this
        *lines, rest = (rest + more).split(b"\n")
        for line in lines:
            request = json.loads(line)
            _import(request["modules"])
            if "words" not in request:
                continue
            gc.freeze()
            pid = _fork("papermill", functools.partial(_papermill, request["words"],
                                                       request["log"]))
            children.add(pid)
            said.write(json.dumps([pid, None]) + "\n")


def prepare_papermill() -> None:
    """Import papermill, its client as a batch needs it.

    Of all that papermill imports, one grammar takes three quarters of the time, to check addresses
    that no notebook has. A kernel whose cells are done has written everything; to let it take
    itself and torch apart costs two seconds. A cell's last words may come later than the four
    seconds that are usual: after twenty thousand lines, or on a busy machine.
    A kernel that cannot show its error, for want of memory say, still names it in its reply.
    """
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    import papermill.cli  # noqa: F401
    from papermill.clientwrap import PapermillNotebookClient as Client

    Client.shutdown_kernel, Client.iopub_timeout = "immediate", 600
    Client.on_cell_error = staticmethod(_show_error)


def _show_error(cell: typing.Any, execute_reply: dict[str, typing.Any], **_: object) -> None:
    """Give a cell that failed without a word the error of the kernel's reply."""
    from nbformat import v4

    said = execute_reply["content"]
    if all(output["output_type"] != "error" for output in cell["outputs"]):
        cell["outputs"].append(v4.new_output("error", ename=said["ename"], evalue=said["evalue"],
                                             traceback=said.get("traceback") or []))


def _import(modules: list[str]) -> None:
    import ipykernel.kernelapp  # noqa: F401

    if modules:  # A run is made from what is imported here, whatever the files say by then.
        freshness.numeric_code()
    for name in modules:
        with contextlib.suppress(Exception):  # the notebook imports it, too, and says what is wrong
            importlib.import_module(name)
    if "torch" in sys.modules:
        import torch._dynamo  # noqa: F401  (every optimizer does, for two seconds)


def _fork(name: str, do: typing.Callable[[], object]) -> int:
    """A child, which ends with this process. Returns its process id."""
    parent = os.getpid()
    if pid := os.fork():
        return pid
    code = 1
    gc.enable()
    try:
        libc = ctypes.CDLL(None)
        libc.prctl(DIES_WITH_PARENT, signal.SIGKILL)
        libc.prctl(NAME, name.encode())
        if os.getppid() == parent:
            os.setsid()
            do()
            code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _papermill(words: list[str], log: str) -> None:
    """papermill, whose kernel is forked before it has a thread or a socket, and waits."""
    from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner
    from papermill.cli import papermill

    null, kept = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND)
    for source, target in ((null, 0), (kept, 1), (kept, 2)):
        os.dup2(source, target)
    kernel = _Kernel()

    class Provisioner(LocalProvisioner):
        """Lets the kernel that waits begin."""

        async def launch_kernel(self, cmd: list[str], **kwargs: typing.Any) -> dict[str, object]:
            kernel.begin(cmd[1:], kwargs)
            self.process, self.pid, self.pgid = kernel, kernel.pid, kernel.pid
            return self.connection_info

    factory = KernelProvisionerFactory.instance()
    factory.provisioners["forked"] = types.SimpleNamespace(name="forked", load=lambda: Provisioner)
    factory.default_provisioner_name = "forked"
    papermill(words)


class _Kernel:
    """A kernel that was forked and waits for its connection; as far as jupyter_client uses it, a
    subprocess.Popen."""

    stdin = stdout = stderr = None

    def __init__(self) -> None:
        read, self._write = os.pipe()
        self._code: int | None = None
        self.pid = _fork("kernel", lambda: self._run(read))
        os.close(read)

    def begin(self, words: list[str], how: dict[str, typing.Any]) -> None:
        """words: of the command that would start a kernel, from `-m` on."""
        message = {"words": words[2:], "cwd": str(how.get("cwd") or os.getcwd()),
                   "env": how.get("env") or {}}
        os.write(self._write, json.dumps(message).encode() + b"\n")

    def _run(self, read: int) -> None:
        os.close(self._write)  # or its end would not be seen
        with open(read, encoding="utf-8") as stream:
            line = stream.readline()
        if line:  # else papermill ended before it came to that
            begun = json.loads(line)
            os.chdir(begun["cwd"])
            os.environ.update(begun["env"])
            from ipykernel.kernelapp import IPKernelApp

            IPKernelApp.launch_instance(argv=begun["words"])

    def poll(self) -> int | None:
        if self._code is None:
            with contextlib.suppress(ChildProcessError):
                ended, status = os.waitpid(self.pid, os.WNOHANG)
                self._code = os.waitstatus_to_exitcode(status) if ended else None
        return self._code

    def wait(self) -> int:
        while (code := self.poll()) is None:
            time.sleep(LOOK_S)
        return code

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
