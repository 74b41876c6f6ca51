"""What the user sees on a terminal: a batch under way (live bars, or plain lines elsewhere), the
closing table, predictions."""
from __future__ import annotations

import io
import math
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

if typing.TYPE_CHECKING:  # the runner need not wait for torch
    from adlib.runs.predictions import Prediction, Record

LIVE_S, PLAIN_S = 0.5, 30.0  # how often progress is shown: on a terminal, elsewhere
LOG_LINES = 10  # of a failed task's log, repeated on the screen
WIDTH = 100  # columns of the closing table
CELLS = 2  # categories side by side in it
REASONS = {"absent": "the part is absent or covered", "unlike": "it does not look like the part"}


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


def closing_table(rows: typing.Iterable[dict[str, typing.Any]]) -> str:
    """Configurations x categories in 100 columns, some categories at a time.

    Args:
        rows: of one configuration on one category: label, category, auroc, low, high,
            train_seconds; of one without a finished run its `status`, and `seeds` 0.
    """
    cells = {(str(row["label"]), row["category"]): _cell(row) for row in rows}
    categories = list(dict.fromkeys(category for _, category in cells))
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    for start in range(0, len(categories), CELLS):
        some = categories[start:start + CELLS]
        table = Table("", *(Column(category, no_wrap=True) for category in some),
                      title=None if start else "AUROC [95 % interval], seconds of training",
                      title_justify="left", title_style="none")
        for label in dict.fromkeys(label for label, _ in cells):
            table.add_row(label, *(cells.get((label, category), "") for category in some))
        console.print(table, markup=False)
    return console.file.getvalue().rstrip()


def _cell(row: dict[str, typing.Any]) -> str:
    if not row["seeds"]:
        return row["status"]
    interval = f"{row['auroc']:.3f} [{row['low']:.2f}, {row['high']:.2f}]"
    return (f"{'no AUROC' if math.isnan(row['auroc']) else interval}, "
            f"{row['train_seconds']:.0f} s")


def prediction_line(prediction: Prediction) -> str:
    """A prediction for a terminal."""
    if prediction.problem:
        return f"unreadable                     {prediction.path} ({prediction.problem})"
    p_value = "" if prediction.p_value is None else f"p {prediction.p_value:.3f}"
    reason = f" ({REASONS[prediction.reason]})" if prediction.reason else ""
    return (f"{prediction.verdict or 'no verdict':10} {prediction.score:11.5g} {p_value:8} "
            f"{prediction.path}{reason}")


CAUSES = {"redder": "redder", "bluer": "bluer", "brighter": "brighter", "darker": "darker",
          "noisier": "noisier", "blurrier": "blurrier", "sharper": "sharper",
          "more_contrast": "richer in contrast", "less_contrast": "poorer in contrast",
          "moved": "shifted, turned or of something else", "aligned": "better aligned",
          "more_anomalous": "more anomalous as a whole", "less_anomalous": "less anomalous"}


def conditions_line(record: Record) -> str:
    """Since when pictures are not taken as the run's own were, and how they differ; "" where no
    change was found."""
    if record.changed_at is None:
        return ""
    change = record.conditions.change
    return (f"CONDITIONS HAVE CHANGED since picture {change.since}, {record.changed_at.path} "
            f"({record.changed_at.time}): the pictures are {CAUSES[change.cause]}, by "
            f"{change.by:.1f} deviations of the good pictures. Verdicts since then cannot be "
            "relied on: see to camera and light, or take 40 good pictures and run "
            "adlib recalibrate")


def predictions_summary(record: Record) -> str:
    """What came out, in a sentence, and every picture that could not be read."""
    verdicts, unread = record.verdicts, record.unread
    text = (f"{verdicts.total() + len(unread)} pictures: {verdicts['anomalous']} anomalous, "
            f"{verdicts['foreign']} foreign, {verdicts['good']} good")
    text += f", {len(unread)} cannot be read: {', '.join(unread)}" if unread else ""
    if verdicts[""]:
        text += ". The run had too few good images for a threshold: sort by score"
    changed = f"{line}. " if (line := conditions_line(record)) else ""
    return f"{text}. {changed}Tables and overlays: {record.out}"


def _far(job: Job) -> tuple[str, float | None, float | None]:
    """How far a task is: in words, the epoch and of how many; no epochs where it tells none."""
    try:
        if job.task.kind == "run":
            state = files.read_json(run_folder.work(job.task.output.parent) / "progress.json")
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
