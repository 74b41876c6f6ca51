"""Chromium, where it is installed: started, read and ended in one place."""
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import bs4
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser",
                                                "google-chrome"))), None)
needed = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
PATIENCE = 90  # seconds; a page takes two, ten on a busy machine


def opened(page: Path, profile: Path, *options: str, at: str = "") -> bs4.BeautifulSoup:
    """The page as the browser has it after its scripts. at: what follows its address."""
    return bs4.BeautifulSoup(run(profile, "--dump-dom", *options, page.as_uri() + at),
                             "html.parser")


def run(profile: Path, *words: str) -> str:
    """What the browser prints. Should it hang, what it has started would hold a pipe open even when
    it is killed: it writes into a file, all of it is ended, and it is asked once more."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu",
               "--virtual-time-budget=4000", f"--user-data-dir={profile}", *words]
    for _ in range(2):
        with tempfile.TemporaryFile("w+", encoding="utf-8") as said, \
                tempfile.TemporaryFile("w+", errors="replace") as log:
            running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=log,
                                       start_new_session=True)
            try:
                code = running.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.pid, signal.SIGKILL)
                running.wait()
            said.seek(0), log.seek(0)
            if code == 0:
                return said.read()
            told = f"{' '.join(command)}: {'hung' if code is None else code}\n{log.read()}"
    raise AssertionError(told)
