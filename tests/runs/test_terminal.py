"""What a terminal shows of a batch: lines, live bars, the closing table."""
from __future__ import annotations

import contextlib
import functools
import io
import sys
import time
from collections import Counter
from types import SimpleNamespace

import pytest

from adlib.data import files
from adlib.runs import grid, terminal
from adlib.runs.engines import local


@pytest.fixture
def running(project):
    """A job of a run in epoch 3 of 9, whose process is never started."""
    task = next(task for task in grid.plan("params/ok.yaml") if task.kind == "run")
    files.write_json(task.output.parent / "progress.json",
                     {"epoch": 3, "epochs": 9, "loss": 0.25, "seconds_left": 12.4})
    return local.Job(task, execution=None, before=None, made_from={}, began=1000.0)


def test_elsewhere_than_on_a_terminal_progress_is_one_line_in_30_seconds(running, monkeypatch,
                                                                         said):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shown = terminal.Board({running.task: 40.0, "another": 40.0, "a third": 40.0, "a fourth": 40.0})
    for _ in range(100):  # 99 seconds, three of them multiples of 30
        shown.progress([running])
        now[0] += 1
    # what takes longer than forecast makes the rest longer, too
    assert said == [f"0 of 4 done, about {left} min left; nut ok seed 0: epoch 3 of 9, "
                    "loss 0.25, 10 s left" for left in (2, 3, 4)]


def test_on_a_terminal_there_is_a_bar_for_the_batch_and_a_line_for_each_running_task(
        running, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "Console", functools.partial(
        terminal.Console, force_terminal=True, width=90, color_system=None))
    monkeypatch.setattr(sys, "stdout", screen)
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with contextlib.closing(terminal.Board({running.task: 20.0, "another": 60.0})) as shown:
        shown.started(running.task)
        assert "start" not in screen.getvalue()
        now[0] += 20  # as forecast, so the rest is
        shown.progress([running])
        live = screen.getvalue().splitlines()[-2:]
        shown.bars.update(shown.batch, description="part[a]")
        shown.bars.refresh()
        assert "part[a]" in screen.getvalue()
        shown.failed(running.task, "the sky fell", log_too=False)
        assert not shown.running
    assert live[0].rstrip().endswith(" 0 of 2 done, about 60 s left")
    assert live[1].rstrip().endswith(" nut ok seed 0: epoch 3 of 9, loss 0.25, 10 s left")
    assert "FAILED (1 of 2): nut ok seed 0: the sky fell\n" in screen.getvalue()
    assert f"to try again: {running.task.retry}\n" in screen.getvalue()


def test_the_closing_table_fits_100_columns_however_many_categories():
    names = [f"category number {number}" for number in range(7)]
    said = "0.981 [0.93, 1.00] ★\n100% @ 10%, 123 s"
    cells = [(f"Frozen ResNet18 to features {config}", name, said)
             for name in names for config in "abc"]
    cells[1] = (*cells[1][:2], "failed: " + 12 * "of a reason ")
    table = terminal.closing_table(cells)
    assert all(name in table for name in names)
    assert table.count("Frozen ResNet18 to features b") == 3  # however long what failed says
    assert table.count("0.981 [0.93, 1.00] ★") == table.count("100% @ 10%, 123 s") == 20
    assert "failed" in table
    assert max(map(len, table.splitlines())) <= 100 and table.count("AUROC") == 1


@pytest.mark.parametrize(("why", "said_of_it"), [
    ("no_labels", "no AUROC: there are no labelled test images"),
    ("no_good", "no AUROC: the test set has no good image"),
    ("no_anomalous", "no AUROC: the test set has no anomalous image")])
def test_a_run_without_an_auroc_says_which_images_are_missing(running, said, why, said_of_it):
    auroc = {"test": {"value": None, "why_absent": why}}
    files.write_json(running.task.output.with_name("metrics.json"), {"chosen": {"auroc": auroc}})
    terminal.Board({running.task: 40.0}).finished(running)
    assert said[0].startswith(f"done (1 of 1): nut ok seed 0, {said_of_it}, ")


def test_pictures_without_a_verdict_are_counted(tmp_path):
    record = SimpleNamespace(verdicts=Counter({"foreign": 2, "": 3}), unread=[], out=tmp_path)
    assert terminal.predictions_summary(record) == (
        "5 pictures: 0 anomalous, 2 foreign, 0 good, 3 without a verdict. The run had too few good "
        f"images for a threshold: sort by score. Tables: {tmp_path}.")
