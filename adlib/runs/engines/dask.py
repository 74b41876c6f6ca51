"""The engine of a cluster: each task is a Dask future whose papermill process runs on one of the
workers (extra `[cluster]`).

Dask brings the machines up (by SLURM, Kubernetes, ssh), keeps count of them, and gives the task of
a lost one to another, where a run goes on from its checkpoint. All machines see this project, the
data and the reports under the same paths, and have adlib installed.
"""
from __future__ import annotations

import contextlib
import shlex
import tempfile
import time
import typing
import uuid
from pathlib import Path
from urllib.parse import urlsplit

from adlib import __version__
from adlib.config import InputError, project_root, study_root
from adlib.runs import run_folder
from adlib.runs.engines import local, warm
from adlib.runs.grid import Task

if typing.TYPE_CHECKING:
    import distributed

LABEL = "GPU"  # where workers have this resource, it is what runs are counted by: one each
PATIENCE_S = 15.0  # for a scheduler that does not answer, and for a task that was told to stop
# what a client says whose scheduler is gone; the last once it has closed itself
GONE = (OSError, ValueError, RuntimeError, AttributeError)
LOOK_S = 0.5  # how often a worker looks whether its task was told to stop


class Cluster:
    """A Dask cluster as an engine: as many tasks at a time as its workers have GPUs by label, else
    threads."""
    def __init__(self, address: str, reports: Path) -> None:
        """Raises InputError where no scheduler answers, it has no workers, or one of them does not
        see the same folders."""
        try:
            import distributed
        except ImportError:
            raise InputError("--cluster needs dask.distributed; install it with: pip install -e "
                             "'.[cluster]'") from None
        try:
            self._client = distributed.Client(address, timeout=PATIENCE_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(f"no Dask scheduler answers at {address} ({error}); give the address "
                             f"that `dask scheduler` prints, such as tcp://head:8786") from None
        self._address = address
        try:
            self._check(reports)
        except BaseException:
            self.close()  # or it would go on asking for a scheduler in the background
            raise

    eda_slots = 0  # what waits for a worker would wait within its time limit

    @property
    def slots(self) -> int:
        return sum(self._workers()[0].values())

    def launch(self, task: Task) -> Remote:
        workers, labelled = self._workers()
        at_once: dict[str, int] = {}
        for worker, count in workers.items():
            at_once[_host(worker)] = at_once.get(_host(worker), 0) + count
        stop = f"stop-{uuid.uuid4()}"
        future = self._client.submit(execute, task, project_root(), at_once, stop,
                                     key=f"{task.title} {stop}", pure=False,
                                     resources={LABEL: 1} if labelled else None)
        return Remote(self._client, future, stop)

    def close(self) -> None:
        self._client.close()

    def _workers(self) -> tuple[dict[str, int], bool]:
        """{address: tasks at a time} of the workers there are now, and whether these are GPUs by
        label.

        Raises InputError where the scheduler is gone.
        """
        try:
            workers = self._client.run_on_scheduler(_resources)
        except GONE as error:
            raise InputError(f"the Dask scheduler at {self._address} is gone ({error}); what had "
                             f"finished is kept, and the same command goes on") from None
        labelled = any(labels for _, labels in workers.values())
        return {worker: labels if labelled else threads
                for worker, (threads, labels) in workers.items()}, labelled

    def _check(self, reports: Path) -> None:
        reports.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=reports, prefix=".cluster-") as token:
            problems = self._client.run(problem, [study_root() / "notebooks", Path(token.name)],
                                        __version__, on_error="return")
        if not problems:
            raise InputError(f"the Dask scheduler at {self._address} has no workers; start some: "
                             f"{shlex.join(['dask', 'worker', self._address])}")
        for worker, reason in problems.items():
            if reason:
                raise InputError(f"worker {worker} cannot take part: {reason}; every machine needs "
                                 f"adlib installed and the same folders under the same paths "
                                 f"(docs/cluster.md)")


class Remote:
    """A task's process on some worker, or on the next one if that is lost."""
    def __init__(self, client: distributed.Client, future: distributed.Future, stop: str) -> None:
        self._client, self._future, self._stop = client, future, stop
        self._taken_back = False

    def poll(self) -> int | None:
        if not self._future.done():
            return None
        if self._future.status == "finished":
            return self._future.result()
        if self._taken_back:
            return warm.KILLED
        if self._future.status != "error":  # lost or cancelled, which nobody here asked for
            raise InputError(
                "the Dask scheduler forgot this task or is gone; the same command goes on")
        error = self._future.exception()
        if isinstance(error, InputError):
            raise error
        raise InputError(
            f"the cluster could not finish this task ({type(error).__name__}: {error})")

    def kill(self) -> None:
        import distributed

        # the scheduler is gone, and its workers end with it
        with contextlib.suppress(*GONE):
            distributed.Event(self._stop, client=self._client).set()
            ends = time.monotonic() + PATIENCE_S
            while not self._future.done() and time.monotonic() < ends:
                time.sleep(LOOK_S)
            # no worker has taken it, or the one that has does not answer
            if not self._future.done():
                self._future.cancel()
                self._taken_back = True


def execute(task: Task, project: Path, at_once: dict[str, int], stop: str) -> int:
    """On a worker: a task's process to its end; its exit code. at_once: how many tasks each host
    takes, which share its cores."""
    import distributed

    # where a worker of this machine was lost, its kernel has a second to live
    run_folder.wait_until_idle(task.output.parent)
    here = distributed.get_worker().address
    threads = max(1, local.cores() // at_once.get(_host(here), 1))
    running, stopped = local.LocalProcess(task, project, threads=threads), distributed.Event(stop)
    while (code := running.poll()) is None:
        if stopped.wait(timeout=LOOK_S):
            running.kill()
    return code


def problem(folders: list[Path], version: str) -> str:
    """On a worker: why it cannot take part, "" if it can."""
    if missing := [str(folder) for folder in folders if not folder.exists()]:
        return f"it does not see {' and '.join(missing)}"
    same = version == __version__
    return "" if same else f"it has adlib {__version__}, and this machine {version}"


def _resources(dask_scheduler: typing.Any = None) -> dict[str, tuple[int, int]]:
    """On the scheduler: {worker: (threads, GPUs by label)}."""
    return {address: (state.nthreads, int(state.resources.get(LABEL, 0)))
            for address, state in dask_scheduler.workers.items()}


def _host(address: str) -> str:
    return urlsplit(address).hostname or address
