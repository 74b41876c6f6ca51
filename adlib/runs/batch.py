"""Which tasks are due, each executed in a papermill process of its own; what failed and why.

The runner owns the status. After a kernel was killed the notebook itself says that every cell
completed, so a run counts as finished only when its process ended with 0 and its folder holds the
metrics of this very attempt.
"""
from __future__ import annotations

import contextlib
import threading
import time
import typing
from dataclasses import dataclass
from pathlib import Path

from adlib.config import Config, InputError, log
from adlib.data import files, layout
from adlib.runs import forecast, freshness, run_folder
from adlib.runs.engines import local
from adlib.runs.engines.local import Engine, Job
from adlib.runs.grid import Task
from adlib.runs.terminal import Board

POLL_S = 0.1
NEVER_RUN, COMPARED = "never run", "what it compares is due"  # reasons that need no word


@dataclass
class Outcome:
    status: str  # waiting | running | finished | failed | interrupted
    reason: str = ""


Outcomes = dict[Task, Outcome]


def run(tasks: list[Task], engine: Engine, *, reports: Path, dry_run: bool = False,
        force: bool = False, timeout_s: float = 3600.0,
        notify: typing.Callable[[Outcomes], None] | None = None) -> int:
    """Execute the tasks of `grid.plan` that are due on an engine, the comparison last; write
    reports/batch.json.

    Args:
        dry_run: only say what is due.
        force: also what is up to date.
        timeout_s: for each task.
        notify: called with the outcomes at the start, and whenever a task has started or ended.
    Returns:
        0 when everything succeeded (or was up to date), 1 when something failed, 130 when it was
        interrupted; then what had finished stays.
    Raises:
        InputError: when `reports` cannot be written or another batch is at work there.
    """
    if not timeout_s > 0:
        raise InputError(f"the time limit is {timeout_s:g} s; give more than 0 s")
    with contextlib.ExitStack() as held:
        if not dry_run:
            held.callback(files.taken(
                reports / ".batch.lock", f"another batch is at work in {reports}; wait for it, or "
                "give this one another --reports", "make it writable or give another --reports"
            ).release)
        reasons = due(tasks, force)
        seconds = forecast.of_tasks(task for task, reason in reasons.items() if reason)
        log.info(forecast.describe(reasons, seconds))
        for task, reason in reasons.items():
            if dry_run or reason not in ("", NEVER_RUN, "its run is due", COMPARED):
                log.info(f"due: {task.title} ({reason})" if reason else f"{task.title}: up to date")
        if dry_run:
            return 0
        if isinstance(engine, local.Local) and (warning := forecast.weights_out_of_reach(seconds)):
            log.warning(warning)
        outcomes = {task: Outcome("waiting", reason) if reason else Outcome("finished")
                    for task, reason in reasons.items()}
        board = Board(seconds)
        with contextlib.closing(board), local.stop_signals() as stop:
            queue = [task for task in tasks if reasons[task]]
            quickest = min((task for task in queue if task.kind == "run"), key=seconds.get,
                           default=None)
            queue.sort(key=lambda task: task is not quickest)  # a first page as soon as can be
            _work(queue, outcomes, board, engine=engine, timeout_s=timeout_s, stop=stop,
                  notify=notify if queue and notify else lambda _: None)
            files.write_json(reports / "batch.json", _entries(outcomes))
        if not stop.is_set() and not any(one.status == "failed" for one in outcomes.values()):
            forecast.remember(sum(seconds.values()), board.seconds())
        if stop.is_set():
            log.info("stopped; everything that had finished is kept, and the same command goes on "
                     "from here")
            return 130
    failed = [task.title for task, outcome in outcomes.items() if outcome.status == "failed"]
    if failed:  # once more, where many lines may lie between
        log.warning(f"failed: {len(failed)} of {len(seconds)} steps: {', '.join(failed)} (why is "
                    "said above)")
    return int(bool(failed))


def due(tasks: list[Task], force: bool = False) -> dict[Task, str]:
    """Why each task has to run, in words; "" where it is up to date."""
    opened: dict[tuple[str, str, str], layout.Category] = {}
    reasons: dict[Task | None, str] = {}
    for task in tasks:
        if task.kind == "comparison" and any(reasons.values()):
            reason = COMPARED
        elif task.kind == "comparison":
            made_from = _compared(task, {other: Outcome("finished") for other in reasons})
            reason = freshness.changed(task.note, made_from) or _never_run(task)
        else:
            reason = "its run is due" if reasons.get(task.after) else _due(task, opened)
        reasons[task] = reason or ("asked for with --force" if force else "")
    return reasons


def _due(task: Task, opened: dict[tuple[str, str, str], layout.Category]) -> str:
    folder = task.output.parent
    state = run_folder.status(folder) if task.kind == "run" else None
    if state and state.state != "finished":
        return state.reason if state.state == "missing" else _in_words(state)
    try:
        key = (task.params["data_root"], task.params["category"], task.params.get("exclude", ""))
        if key not in opened:
            opened[key] = _category(task)
        if task.kind == "run":
            now = freshness.of_run(task.config, opened[key])
            return freshness.why_stale(run_folder.manifest(folder), now) or (
                "" if task.output.is_file() else "its executed notebook is missing")
        return freshness.changed(task.note, _made_from(task, opened[key])) or _never_run(task)
    # the notebook will meet it too, and the failure is recorded with its own task
    except InputError as error:
        return f"could not be checked: {error}"


def _category(task: Task) -> layout.Category:
    excluded = Config(exclude=task.params.get("exclude", "")).excluded
    root, _ = layout.find_root(task.params["data_root"])
    return layout.open_category(root, task.params["category"], excluded)


def _never_run(task: Task) -> str:
    return "" if task.output.is_file() else NEVER_RUN


def _in_words(state: run_folder.Status) -> str:
    return f"{state.state}: {state.reason}".rstrip(": ")


def _made_from(task: Task, category: layout.Category) -> freshness.Made:
    if task.after:
        return freshness.after_a_run(task.notebook, task.after.output.parent)
    return freshness.of_data(task.notebook, category, task.params["weights"])


def _compared(task: Task, others: Outcomes) -> freshness.Made:
    """What a comparison is made from: the plan, less itself, and what came of it."""
    plan = _entries({other: outcome for other, outcome in others.items() if other is not task})
    return freshness.of_comparison(task.notebook, task.output.parent, plan)


def _made_from_now(task: Task, outcomes: Outcomes) -> freshness.Made:
    """What a task that is about to start will be made from; noted at its end, so that what changes
    meanwhile is noticed."""
    if task.kind == "run":
        return {}
    if task.kind == "comparison":
        return _compared(task, outcomes) | {"made_by": task.made_by}
    try:
        return _made_from(task, _category(task))
    except InputError:  # the notebook will meet it too, and say so
        return {}


def _work(queue: list[Task], outcomes: Outcomes, board: Board, *, engine: Engine,
          timeout_s: float, stop: threading.Event,
          notify: typing.Callable[[Outcomes], None]) -> None:
    """Run the queue to its end, or to `stop`. Whatever happens, no process of it is left behind."""
    running: list[Job] = []
    notify(outcomes)
    try:
        while (queue or running) and not stop.is_set():
            while task := _next(queue, running, engine):
                queue.remove(task)
                try:
                    reason = _blocked_reason(task)
                    if not reason:
                        if task.kind == "comparison":  # which reads what became of the others
                            files.write_json(task.output.with_name("batch.json"),
                                             _entries(outcomes))
                        running.append(local.start(task, engine, _made_from_now(task, outcomes)))
                        board.started(task)
                        outcomes[task] = Outcome("running")
                        notify(outcomes)
                        continue
                    if task.after:
                        task.output.unlink(missing_ok=True)  # made from an earlier run
                    _note_failure(task, reason)
                # its folder cannot be written, say: the others may still run
                except InputError as error:
                    reason = str(error)
                outcomes[task] = Outcome("failed", reason)
                notify(outcomes)
                board.failed(task, reason, log_too=False)
            for job in list(running):
                try:
                    if (code := job.execution.poll()) is None and job.seconds() > timeout_s:
                        job.timed_out = True
                        job.execution.kill()
                        code = job.execution.poll()
                    if code is None:
                        continue
                    reason = _record_outcome(job, code, timeout_s)
                # its data vanished meanwhile, say: the others may still run
                except InputError as error:
                    reason = str(error)
                running.remove(job)
                outcomes[job.task] = Outcome("failed", reason) if reason else Outcome("finished")
                notify(outcomes)
                if reason:
                    board.failed(job.task, reason)
                else:
                    board.finished(job)
            board.progress(running)
            time.sleep(POLL_S)
    finally:
        for job in running:
            job.execution.kill()
            local.keep_notebook(job.task, failed=True)
            outcomes[job.task] = Outcome("interrupted", "stopped before it finished")
            _note_failure(job.task, "stopped before it finished")


def _next(queue: list[Task], running: list[Job], engine: Engine) -> Task | None:
    """The first task that there is room for and that waits for nothing: what looks at a run waits
    for it, the comparison for all."""
    unfinished = [*queue, *(job.task for job in running)]
    under_way = sum(job.task.kind == "eda" for job in running)
    room = len(running) - min(under_way, engine.eda_slots) < engine.slots

    def waits(task: Task) -> bool:
        return task.after in unfinished or task.kind == "comparison" and len(unfinished) > 1

    return next((task for task in queue if not waits(task)
                 and (room or task.kind == "eda" and under_way < engine.eda_slots)), None)


def _blocked_reason(task: Task) -> str:
    """Why a task cannot be started, "" where it can."""
    if task.kind == "run" and not run_folder.wait_until_idle(task.output.parent):
        return f"another process is at work in {task.output.parent}"
    state = run_folder.status(task.after.output.parent) if task.after else None
    if state and state.state != "finished":
        return f"its run, {task.after.title}, has not finished ({_in_words(state)})"
    return ""


def _record_outcome(job: Job, code: int, timeout_s: float) -> str:
    """Why a task whose process ended with an exit code has failed, "" if it has not; the verdict is
    written where it belongs."""
    task, folder = job.task, job.task.output.parent
    error, reason = local.error_shown(task), ""
    if job.timed_out:
        reason = f"time limit of {timeout_s:g} s{local.own_line(task)}"
    elif code:
        reason = error or local.reason_of_exit(code, folder) + local.own_line(task)
    elif task.kind == "run" and (run_folder.status(folder).state != "finished"
                                 or run_folder.manifest(folder).get("started") == job.before):
        reason = "the notebook ended without writing metrics.json"
    if task.kind == "run" and reason:
        # a kernel whose papermill was killed has a second to live, and a word to say
        run_folder.wait_until_idle(folder)
        run_folder.fail(folder, reason, job.before)
    elif reason:
        _note_failure(task, reason)
    elif task.note:
        files.write_json(task.note, job.made_from | freshness.at_hand(
            task.params.get("weights", "")))  # the notebook may have downloaded them
    local.keep_notebook(task, bool(reason))
    return reason


def _entries(outcomes: Outcomes) -> list[dict[str, typing.Any]]:
    """What batch.json says of each task."""
    return [{"kind": task.kind, "title": task.title, "category": task.params.get("category", ""),
             "name": task.params.get("name", ""), "seed": task.params.get("seed"),
             "folder": task.output.parent.relative_to(task.params["reports"]).as_posix(),
             "status": outcome.status, "reason": outcome.reason, "retry": task.retry}
            for task, outcome in outcomes.items()]


def _note_failure(task: Task, reason: str) -> None:
    """In a task's note. A comparison's, whose folder is all of reports/, has gone when it began."""
    if task.kind not in ("run", "comparison"):
        freshness.fail(task.note, reason, task.retry)
