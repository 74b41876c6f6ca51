"""What a person sees of a batch under way: live lines on a terminal, plain lines elsewhere."""
from __future__ import annotations

import shutil
import sys
import time
import typing

from adlib.config import InputError
from adlib.data import files
from adlib.runs.engines import process
from adlib.runs.engines.process import Job
from adlib.runs.grid import Task

LIVE_S, PLAIN_S = 1.0, 30.0  # how often progress is shown: on a terminal, elsewhere
LOG_LINES = 10  # of a failed task's log, repeated on the screen

Say = typing.Callable[[str], None]


class Board:
    """Says what starts, ends and fails, and how far the running ones are, of `total` tasks."""
    def __init__(self, total: int, say: Say) -> None:
        self.total, self.done, self.say = total, 0, say
        self.live = sys.stdout.isatty()
        self.drawn = 0  # live lines that are on the screen now
        self.shown = time.monotonic()

    def started(self, task: Task) -> None:
        self._line(f"start: {task.title}")

    def finished(self, job: Job) -> None:
        self.done += 1
        self._line(f"done ({self.done} of {self.total}): {job.task.title}{_result(job.task)}, "
                   f"{job.seconds():.0f} s")

    def failed(self, task: Task, reason: str, *, log: bool = True) -> None:
        self.done += 1
        self._line(f"FAILED ({self.done} of {self.total}): {task.title}: {reason}")
        if log:
            folder = task.output.parent
            for line in process.log_end(folder, LOG_LINES):
                self.say(f"    | {line}")
            self.say(f"    whole log: {folder / 'log.txt'}")
        self.say(f"    to try again: {task.retry}")

    def progress(self, running: list[Job]) -> None:
        now = time.monotonic()
        if not running or now - self.shown < (LIVE_S if self.live else PLAIN_S):
            return
        self.shown = now
        if not self.live:
            self.say(f"{self.done} of {self.total} done; " + "; ".join(map(_far, running)))
            return
        self.clear()
        # a line that wraps could not be cleared again
        width = shutil.get_terminal_size().columns - 1
        lines = [*map(_far, running), f"{self.done} of {self.total} done"]
        print(*(line[:width] for line in lines), sep="\n", flush=True)
        self.drawn = len(lines)

    def clear(self) -> None:
        """Take the live lines off the screen."""
        if self.drawn:
            print(f"\x1b[{self.drawn}A\x1b[J", end="", flush=True)
            self.drawn = 0

    def _line(self, text: str) -> None:
        self.clear()
        self.say(text)


def _far(job: Job) -> str:
    try:
        state = files.read_json(job.task.output.parent /
                                "progress.json") if job.task.kind == "run" else {}
        return (f"{job.task.title}: epoch {state['epoch']} of {state['epochs']}, loss "
                f"{state['loss']:.5f}, "
                f"{state['seconds_left']:.0f} s left")
    except (InputError, KeyError, TypeError, ValueError):
        return f"{job.task.title}: {job.seconds():.0f} s"


def _result(task: Task) -> str:
    if task.kind != "run":
        return ""
    test = files.read_json(task.output.parent / "metrics.json")["auroc"].get("test", {})
    if test.get("value") is None:
        return f", no AUROC ({test.get('why_absent', 'no labels')})"
    return f", AUROC {test['value']:.4f}"
