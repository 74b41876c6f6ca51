"""What the user sees on a terminal: a batch under way (live bars, or plain lines elsewhere), the
closing table, predictions."""
from __future__ import annotations

import contextlib
import io
import sys
import time
import typing

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from adlib.config import InputError, log
from adlib.data import files
from adlib.runs import forecast, run_folder
from adlib.runs.engines import local
from adlib.runs.engines.local import Job
from adlib.runs.grid import Task

if typing.TYPE_CHECKING:  # the runner need not wait for torch
    from adlib.runs.prediction_record import Prediction, Record

LIVE_S, PLAIN_S = 0.5, 30.0  # how often progress is shown: on a terminal, elsewhere
LOG_LINES = 10  # of a failed task's log, repeated on the screen
WIDTH = 100  # columns of the closing table
REASONS = {"absent": "the part is absent or covered", "unlike": "it does not look like the part"}
NO_AUROC = {"no_labels": "there are no labelled test images",
            "no_good": "the test set has no good image",
            "no_anomalous": "the test set has no anomalous image"}
CELL = 20  # of them are one category's: an AUROC with its interval and star


class Board:
    """Says what fails, and how far the batch and its running tasks are: on a terminal in live bars,
    elsewhere in a line now and then, which also says what starts and ends."""
    def __init__(self, forecast: typing.Mapping[Task, float]) -> None:
        """forecast: {task that is due: about how many seconds it takes}."""
        self.forecast, self.done, self.seconds_done = dict(forecast), 0, 0.0
        self.began = self.shown = time.monotonic()
        self.console = Console(file=sys.stdout)
        self.bars = Progress(BarColumn(24), TextColumn("{task.description}", markup=False),
                             console=self.console, transient=True, auto_refresh=False,
                             redirect_stderr=False, disable=not self.console.is_terminal)
        self.bars.start()
        self.batch = self.bars.add_task("", total=max(sum(self.forecast.values()), 1e-9))
        self.running: dict[Task, TaskID] = {}

    def say(self, text: str) -> None:
        if self.console.is_terminal:  # above the bars; a long command stays in one piece
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            log.info("%s", text)

    def started(self, task: Task) -> None:
        if not self.console.is_terminal:
            self.say(f"start: {task.title}")

    def finished(self, job: Job) -> None:
        self._end(job.task)
        if not self.console.is_terminal:
            self.say(f"done ({self._count()}): {job.task.title}{_result(job.task)}, "
                     f"{job.seconds():.0f} s")

    def failed(self, task: Task, reason: str, *, log_too: bool = True) -> None:
        self._end(task)
        said = reason.removeprefix("InputError: ")  # which says all; of others the log says more
        self.say(f"FAILED ({self._count()}): {task.title}: {said}")
        if log_too and said == reason:
            folder = task.output.parent
            for line in local.log_end(folder, LOG_LINES):
                self.say(f"    | {line}")
            self.say(f"    whole log: {folder / 'log.txt'}")
        self.say(f"    to try again: {task.retry}")

    def progress(self, running: list[Job]) -> None:
        """Show how far the running tasks are, every now and then."""
        now = time.monotonic()
        if not running or now - self.shown < (LIVE_S if self.console.is_terminal else PLAIN_S):
            return
        self.shown = now
        # how far a running task is nobody knows; it counts for at most what it was to take
        done = self.seconds_done + sum(
            min(self.forecast[job.task], job.seconds()) for job in running)
        whole = sum(self.forecast.values())
        pace = self.seconds() / done if done > whole / 10 else 1.0
        left = forecast.duration(max(whole - done, 0) * pace)
        text = f"{self._count()} done, about {left} left"
        if not self.console.is_terminal:
            self.say("; ".join([text, *(_progress_of(job)[0] for job in running)]))
            return
        self.bars.update(self.batch, completed=done, description=text)
        for job in running:
            if job.task not in self.running:
                self.running[job.task] = self.bars.add_task("", total=None)
            said, epoch, of = _progress_of(job)
            self.bars.update(self.running[job.task], description=said, completed=epoch, total=of)
        self.bars.refresh()

    def seconds(self) -> float:
        """Since the first task began."""
        return time.monotonic() - self.began

    def close(self) -> None:
        """Take the bars off the screen."""
        self.bars.stop()

    def _count(self) -> str:
        return f"{self.done} of {len(self.forecast)}"

    def _end(self, task: Task) -> None:
        self.done += 1
        self.seconds_done += self.forecast[task]
        if task in self.running:
            self.bars.remove_task(self.running.pop(task))


def closing_table(cells: typing.Iterable[tuple[str, str, str]]) -> str:
    """Configurations x categories in 100 columns, some categories at a time.

    cells: (configuration, category, what is said of it), the first of either first.
    """
    texts = {(str(row), column): text for row, column, text in cells}
    categories = list(dict.fromkeys(category for _, category in texts))
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    longest = max((len(label) for label, _ in texts), default=0)
    at_once = max(1, (WIDTH - longest - 4) // (CELL + 2))
    for start in range(0, len(categories), at_once):
        some = [Column(name, min_width=CELL) for name in categories[start:start + at_once]]
        table = Table(Column(no_wrap=True), *some, title=None if start else
                      "AUROC [95% interval]; bad parts found @ good ones called bad, fitted in",
                      title_justify="left", title_style="none", box=box.SIMPLE_HEAD)
        for label in dict.fromkeys(label for label, _ in texts):
            table.add_row(label, *(texts.get((label, category), "")
                                   for category in categories[start:start + at_once]))
        console.print(table, markup=False)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()).strip("\n")


def progress_bar() -> Progress:
    """A bar on stderr with what is done, of how many, and the time left."""
    return Progress(BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn(),
                    console=Console(stderr=True), redirect_stdout=sys.stdout.isatty(),
                    disable=not sys.stderr.isatty())


def prediction_line(prediction: Prediction) -> str:
    """A prediction for a terminal."""
    if prediction.problem:
        return f"unreadable                     {prediction.path} ({prediction.problem})"
    p_value = "" if prediction.p_value is None else f"p {prediction.p_value:.3f}"
    foreign = prediction.verdict == "foreign"  # of a defect nobody needs to know that it is unlike
    reason = f" ({REASONS[prediction.reason]})" if foreign else ""
    return (f"{prediction.verdict or 'no verdict':10} {prediction.score:11.5g} {p_value:8} "
            f"{prediction.path}{reason}")


def predictions_summary(record: Record) -> str:
    """What came out, in a sentence, and every picture that could not be read."""
    verdicts, unread = record.verdicts, record.unread
    n = verdicts.total() + len(unread)
    text = (f"{n} picture{'s' * (n != 1)}: {verdicts['anomalous']} anomalous, "
            f"{verdicts['foreign']} foreign, {verdicts['good']} good")
    text += f", {verdicts['']} without a verdict" if verdicts[""] else ""
    text += f", {len(unread)} cannot be read: {', '.join(unread)}" if unread else ""
    if verdicts[""]:
        text += ". The run had too few good images for a threshold: sort by score"
    kept = "Tables and overlays" if (record.out / "overlays").is_dir() else "Tables"
    return f"{text}. {kept}: {record.out}."


def _progress_of(job: Job) -> tuple[str, float, float | None]:
    """How far a task is, in words, what is done and of how much: by its epochs, where it tells
    them."""
    with contextlib.suppress(InputError, KeyError, TypeError):
        if job.task.kind == "run":
            state = files.read_json(run_folder.work(job.task.output.parent) / "progress.json")
            return (f"{job.task.title}: epoch {state['epoch']} of {state['epochs']}, loss "
                    f"{state['loss']:.4g}, {forecast.duration(state['seconds_left'])} left",
                    state["epoch"], state["epochs"])
    return f"{job.task.title}: {job.seconds():.0f} s", 0, None


def _result(task: Task) -> str:
    if task.kind != "run":
        return ""
    test = files.read_json(task.output.with_name("metrics.json"))["chosen"]["auroc"]["test"]
    if test.get("value") is None:
        return f", no AUROC: {NO_AUROC[test['why_absent']]}"
    return f", AUROC {test['value']:.4f}"
