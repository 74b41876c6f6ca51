"""A process that stopped working is noticed, and one that works, however slowly, is let be."""
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from adlib.runs.engines import local

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


def test_what_has_ended_is_no_matter_of_the_watch(begun):
    child = begun("pass")
    threading.Event().wait(0.1)
    child.wait()
    local.Watch(child.pid).stuck()
