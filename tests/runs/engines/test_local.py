"""A process that stopped working is noticed, and one that works, however slowly, is let be. What
surrounds a kernel does not change it."""
import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import nbformat
import psutil
import pytest

from adlib.config import WHERE, Config, cache_dir
from adlib.data import files, layout
from adlib.runs.engines import local
from tests.conftest import ROOT

IDLE = "import time; time.sleep(600)"
CHILD_IDLES = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {IDLE!r}])"
COMPUTES = "while True: pass"
CHILD_COMPUTES = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {COMPUTES!r}])"
READS = """import time
while True:
    with open("/dev/zero", "rb") as stream:
        stream.read(2**20)
    time.sleep(0.2)"""
CALLS = "import socket; socket.create_connection(('127.0.0.1', {port}), timeout=600)"


@pytest.fixture
def begun(monkeypatch):
    """Starts a script; it is stuck after two seconds without work, looked for five times a second."""
    monkeypatch.setattr(local, "STUCK_S", 2.0)
    monkeypatch.setattr(local, "LOOK_S", 0.2)
    monkeypatch.setattr(local, "LEAST", 0.05)
    children = []

    def begin(script):
        children.append(subprocess.Popen([sys.executable, "-c", script], start_new_session=True))
        return children[-1]

    yield begin
    for child in children:
        local.kill_tree(child)


def noticed(child, seconds):
    """Is the child called stuck within some seconds?"""
    watch, ends = local.Watch(child.pid), time.monotonic() + seconds
    while time.monotonic() < ends:
        if watch.stuck():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("script", [IDLE, CHILD_IDLES], ids=["itself", "its child"])
def test_what_neither_computes_nor_reads_is_stuck(begun, script):
    assert noticed(begun(script), seconds=60)


@pytest.mark.parametrize("script", [COMPUTES, CHILD_COMPUTES, READS],
                         ids=["computes", "its child computes", "reads"])
@pytest.mark.skipif(sys.platform != "linux", reason="what a process reads is told on Linux")
def test_what_works_is_not(begun, script):
    assert not noticed(begun(script), seconds=5)


def test_nor_is_what_was_stopped_by_somebody(begun):
    child = begun(IDLE)
    os.kill(child.pid, signal.SIGSTOP)
    assert not noticed(child, seconds=4)
    os.kill(child.pid, signal.SIGCONT)
    assert noticed(child, seconds=60)


@pytest.mark.skipif(sys.platform != "linux", reason="a full queue of connections waits on Linux")
def test_nor_what_waits_for_a_machine_that_does_not_answer(begun):
    """A firewall that drops what one sends: the weights' download waits for it, and then goes on
    without."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port, queued = server.getsockname()[1], []
        for _ in range(2):  # the queue is full with these
            queued.append(socket.socket())
            queued[-1].setblocking(False)
            queued[-1].connect_ex(("127.0.0.1", port))
        child = begun(CALLS.format(port=port))
        ends = time.monotonic() + 30
        while not any(link.status == psutil.CONN_SYN_SENT
                      for link in psutil.Process(child.pid).net_connections("tcp")):
            assert time.monotonic() < ends and child.poll() is None
            time.sleep(0.05)
        assert not noticed(child, seconds=4)
        for one in queued:
            one.close()


def test_to_ask_after_what_has_ended_raises_nothing(begun):
    child = begun("pass")
    child.wait()
    assert local.Watch(child.pid)._work() == 0


# ---- what was reported of papermill, Jupyter and Matplotlib


def test_a_cells_last_words_may_come_late():
    """nteract/papermill#426: after many lines the run failed, four seconds after the cell's end."""
    looked = """
import nbformat, types
from adlib.runs.engines import warm
warm.prepare_papermill()
from papermill.clientwrap import PapermillNotebookClient
client = PapermillNotebookClient(types.SimpleNamespace(nb=nbformat.v4.new_notebook()))
print(client.iopub_timeout, client.shutdown_kernel)"""
    assert "prepare_papermill()" in local.PAPERMILL
    assert subprocess.run([sys.executable, "-c", looked], capture_output=True, encoding="utf-8",
                          check=True).stdout == "600 immediate\n"


def executed(source, folder):
    """A notebook of one cell as a task, and what its process ended with."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)], metadata={
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    nbformat.write(book, folder / "book.ipynb")
    (folder / "params.yaml").write_text("{}")
    task = SimpleNamespace(notebook=folder / "book.ipynb", output=folder / "out.ipynb",
                           title="a book")
    process = local.LocalProcess(task, folder, threads=1)
    while (code := process.poll()) is None:
        time.sleep(0.1)
    return task, code


def test_a_kernel_that_cannot_show_its_error_still_names_it(tmp_path):
    """It was told as a want of memory, whatever it was."""
    task, code = executed(
        "get_ipython().showtraceback = lambda *_, **__: None\nNone.mean", tmp_path)
    assert code == 1
    assert local.error_shown(task) == "AttributeError: 'NoneType' object has no attribute 'mean'"


def test_the_kernel_is_this_interpreters_and_draws_as_notebooks_do(tmp_path, monkeypatch):
    """Bad3r/nixos#436: a python3 on JUPYTER_PATH came first. matplotlib/matplotlib#23911: PyCharm's
    terminals ask for a backend that only PyCharm has."""
    files.write_json(tmp_path / "kernels" / "python3" / "kernel.json",
                     {"argv": ["false"], "display_name": "another", "language": "python"})
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "module://backend_interagg")
    source = "import sys, matplotlib.pyplot as plt\nplt.subplots()\nprint(sys.executable)"
    _, code = executed(source, tmp_path)
    assert code == 0, (tmp_path / "log.txt").read_text()
    done = nbformat.read(tmp_path / ".out-running.ipynb", as_version=4)
    assert done.cells[0].outputs[0].text.strip() == sys.executable


@pytest.mark.skipif(not WHERE, reason="there is no such signal on Windows")
@pytest.mark.parametrize(("last", "ended_by"), [("time.sleep(600)", "kill_tree"),
                                                ("ctypes.string_at(0)", "a crash")])
def test_of_what_ended_without_a_word_the_line_is_told(tmp_path, last, ended_by):
    (tmp_path / "mine.py").write_text(
        "import ctypes, sys, time\nfrom adlib.config import errors\nerrors.tell_where()\n"
        f"def fit():\n    open('begun', 'w')\n    {last}\nfit()\n")
    starts = ("import subprocess, sys; subprocess.run([sys.executable, 'mine.py'], "
              "stderr=open('log.txt', 'w'))")
    parent = subprocess.Popen([sys.executable, "-c", starts], cwd=tmp_path, start_new_session=True,
                              env=os.environ | {"PYTHONPATH": str(ROOT)})
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    if ended_by == "kill_tree":
        time.sleep(0.5)  # from one line to the next
        local.kill_tree(parent)
    parent.wait()
    ran = Config(model="folder/mine.py:Mine")
    task = SimpleNamespace(config=ran, output=tmp_path / "notebook.ipynb")
    assert local.own_line(task) == "; it was at mine.py, line 6"
    assert local.own_line(SimpleNamespace(config=Config(), output=task.output)) == ""


@pytest.mark.parametrize("given", ["~/kept", "kept"])
def test_a_kernel_finds_what_variables_name_where_the_command_does(tmp_path, monkeypatch, given):
    """In a user's home; or from below the project's folder, where data in it are found, too."""
    for name in ("notebooks", "params", "kept", "below"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ADLIB_DATA", "ADLIB_CACHE"):
        monkeypatch.setenv(name, given)
    env = local.environment(1)
    assert env["ADLIB_DATA"] == str(layout.find_root()[0].absolute()) == str(tmp_path / "kept")
    home = tmp_path if given.startswith("~") else tmp_path / "below"
    assert env["ADLIB_CACHE"] == str(cache_dir().absolute()) == str(home / "kept")
