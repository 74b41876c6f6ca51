"""Notebooks are forked from one warm process, and end with it."""
from __future__ import annotations

import os
import signal

import nbformat
import psutil
import pytest

from adlib.runs.engines import local, warm
from tests.tiny_study import wait_for

pytestmark = pytest.mark.skipif(not warm.POSSIBLE, reason="forks on Linux alone")


@pytest.fixture
def server(tmp_path):
    server = warm.Server(tmp_path, local.environment(threads=1))
    yield server
    server.close()


def begin(server, tmp_path, source: str, name: str = "book", modules=()) -> warm.Forked:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)], metadata={
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    nbformat.write(book, tmp_path / f"{name}.ipynb")
    log = tmp_path / f"{name}.txt"
    log.touch()
    words = [str(tmp_path / f"{name}.ipynb"), str(tmp_path / f"{name}-out.ipynb"), "-k", "python3",
             "--log-output", "--no-progress-bar"]
    return server.fork(words, log, list(modules))


def printed(tmp_path, name: str = "book") -> str:
    book = nbformat.read(tmp_path / f"{name}-out.ipynb", 4)
    return "".join(output.get("text", "") for cell in book.cells
                   for output in cell.get("outputs", []))


def kernel_of(forked: warm.Forked) -> psutil.Process:
    return wait_for(lambda: next((child for child in psutil.Process(forked.pid).children()
                                if child.name() == "kernel"), None))


def test_what_is_imported_once_is_there_and_each_notebook_is_its_own(server, tmp_path):
    source = "import sys, os\nprint('adlib.config' in sys.modules, os.getcwd(), 'x' in dir())\nx = 1"
    pids = set()
    for name in ("one", "two"):
        forked = begin(server, tmp_path, source, name,
                       ["adlib.config", "adlib.nosuch", "adlib.config.Config"])
        assert forked.wait() == 0, (tmp_path / f"{name}.txt").read_text()
        assert printed(tmp_path, name) == f"True {tmp_path} False\n"
        pids.add(forked.pid)
    assert len(pids) == 2


def test_what_is_prepared_is_imported_before_the_first_task(server, tmp_path):
    module = tmp_path / "noted.py"
    module.write_text("import os\nopen('imported', 'w').write(str(os.getpid()))\n")
    server.prepare(["noted"])
    wait_for((tmp_path / "imported").is_file)  # and no task was there
    forked = begin(server, tmp_path, "import sys\nprint('noted' in sys.modules)")
    assert forked.wait() == 0 and printed(tmp_path) == "True\n"
    assert int((tmp_path / "imported").read_text()) == forked.parent.pid


def test_a_run_knows_the_code_that_was_imported_and_not_what_the_files_say_since(server, tmp_path):
    """An edit in the middle of a batch: what was imported before is what makes the numbers."""
    source = ("from adlib.runs import freshness\nfreshness.Path = None  # no file could be found\n"
              "print(len(freshness.numeric_code()) > 20)")
    assert begin(server, tmp_path, source, modules=["adlib.config"]).wait() == 0
    assert printed(tmp_path) == "True\n"


def test_a_cell_that_raises_is_papermills_failure_and_in_the_log(server, tmp_path):
    forked = begin(server, tmp_path, "print('last words')\nraise ValueError('the sky fell')")
    assert forked.wait() == 1
    log = (tmp_path / "book.txt").read_text()
    assert "last words" in log and "ValueError: the sky fell" in log


@pytest.mark.parametrize("victim", ["papermill", "server"])
def test_kernels_end_with_what_is_above_them(server, tmp_path, victim):
    forked = begin(server, tmp_path, "import time\ntime.sleep(600)")
    kernel = kernel_of(forked)
    os.kill(forked.pid if victim == "papermill" else server._server.pid, signal.SIGKILL)
    assert forked.wait() == -signal.SIGKILL
    wait_for(lambda: not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE)
    # The next notebook starts all the same.
    assert begin(server, tmp_path, "print(2)", "next").wait() == 0
    assert printed(tmp_path, "next") == "2\n"


def test_a_killed_kernel_is_a_failure(server, tmp_path):
    forked = begin(server, tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert forked.wait() not in (0, None)


def test_where_nothing_can_be_forked_a_process_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr(warm, "POSSIBLE", False)
    engine = local.Local(1)
    monkeypatch.setattr(local, "LocalProcess", lambda *given, **named: named["server"])
    assert engine.launch(None) is None  # no server
    engine.close()
