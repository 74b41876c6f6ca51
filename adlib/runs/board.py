"""What the user sees of a batch: live bars on a terminal, plain lines elsewhere; the closing table.
"""
from __future__ import annotations

import io
import sys
import time
import typing

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table

from adlib.config import InputError, log
from adlib.data import files
from adlib.runs import run_folder
from adlib.runs.engines import local
from adlib.runs.engines.local import Job
from adlib.runs.grid import Task

LIVE_S, PLAIN_S = 0.5, 30.0  # how often progress is shown: on a terminal, elsewhere
LOG_LINES = 10  # of a failed task's log, repeated on the screen
WIDTH = 100  # columns of the closing table
CELLS = 2  # categories side by side in it


class Board:
    """Says what starts, ends and fails, and how far the running tasks are, of `total`."""
    def __init__(self, total: int) -> None:
        self.total, self.done, self.shown = total, 0, time.monotonic()
        self.rows: dict[Task, int] = {}  # a running task's bar
        self.console = Console(file=sys.stdout)
        columns = TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[far]}")
        self.bars = Progress(*columns, console=self.console, transient=True, auto_refresh=False,
                             redirect_stderr=False, disable=not self.console.is_terminal)
        self.bars.start()
        self.batch = self.bars.add_task("batch", total=total, far=f"0 of {total} done")

    def say(self, text: str) -> None:
        if self.console.is_terminal:  # above the bars; a long command stays in one piece
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            log.info("%s", text)

    def started(self, task: Task) -> None:
        self.say(f"start: {task.title}")
        self.rows[task] = self.bars.add_task(f"  {task.title}", total=None, far="")

    def finished(self, job: Job) -> None:
        self._end(job.task)
        self.say(f"done ({self.done} of {self.total}): {job.task.title}{_result(job.task)}, "
                 f"{job.seconds():.0f} s")

    def failed(self, task: Task, reason: str, *, log_too: bool = True) -> None:
        self._end(task)
        self.say(f"FAILED ({self.done} of {self.total}): {task.title}: {reason}")
        if log_too:
            folder = task.output.parent
            for line in local.log_end(folder, LOG_LINES):
                self.say(f"    | {line}")
            self.say(f"    whole log: {folder / 'log.txt'}")
        self.say(f"    to try again: {task.retry}")

    def progress(self, running: list[Job]) -> None:
        """Show how far the running tasks are, every now and then."""
        now = time.monotonic()
        if not running or now - self.shown < (
                LIVE_S if self.console.is_terminal else PLAIN_S):
            return
        self.shown = now
        if not self.console.is_terminal:
            self.say(f"{self.done} of {self.total} done; "
                     + "; ".join(f"{job.task.title}: {_far(job)[0]}" for job in running))
            return
        for job in running:
            far, epoch, epochs = _far(job)
            self.bars.update(self.rows[job.task], far=far, completed=epoch, total=epochs)
        self.bars.refresh()

    def close(self) -> None:
        """Take the bars off the screen."""
        self.bars.stop()

    def _end(self, task: Task) -> None:
        self.done += 1
        if task in self.rows:
            self.bars.remove_task(self.rows.pop(task))
        self.bars.update(self.batch, advance=1, far=f"{self.done} of {self.total} done")
        self.bars.refresh()


def closing_table(rows: typing.Iterable[dict[str, str]]) -> str:
    """Configurations x categories in 100 columns, some categories at a time.

    Args:
        rows: texts of one configuration on one category: `label`, `category`, and `cell`, such as
            "0.981 [0.95, 1.00], 12 s".
    """
    rows = list(rows)
    categories = list(dict.fromkeys(row["category"] for row in rows))
    cells = {(row["label"], row["category"]): row["cell"] for row in rows}
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    for start in range(0, len(categories), CELLS):
        some = categories[start:start + CELLS]
        table = Table("", *(Column(category, no_wrap=True) for category in some),
                      title=None if start else "AUROC [95 % interval], seconds of a run",
                      title_justify="left", title_style="none")
        for label in dict.fromkeys(row["label"] for row in rows):
            table.add_row(label, *(cells.get((label, category), "") for category in some))
        console.print(table, markup=False)
    return console.file.getvalue().rstrip()


def _far(job: Job) -> tuple[str, float | None, float | None]:
    """How far a task is: in words, the epoch and of how many; no epochs where it tells none."""
    try:
        if job.task.kind == "run":
            state = files.read_json(job.task.output.parent / "progress.json")
            return (f"epoch {state['epoch']} of {state['epochs']}, loss {state['loss']:.5f}, "
                    f"{state['seconds_left']:.0f} s left", state["epoch"], state["epochs"])
    except (InputError, KeyError, TypeError, ValueError):
        pass
    return f"{job.seconds():.0f} s", None, None


def _result(task: Task) -> str:
    if task.kind != "run":
        return ""
    test = run_folder.metrics(task.output.parent)["auroc"].get("test", {})
    if test.get("value") is None:
        return f", no AUROC ({test.get('why_absent', 'no labels')})"
    return f", AUROC {test['value']:.4f}"
