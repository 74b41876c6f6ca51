"""What is wrong with what a user gave, in one sentence; and the log, which says what else a user
should know."""
from __future__ import annotations

import difflib
import faulthandler
import logging
import signal
import sys
import typing

log = logging.getLogger("adlib")


class InputError(ValueError):
    """Wrong input from the user. The message is one sentence: what, where, and what to do.

    code, values: the same for a file that records it, where one does; "" and {} elsewhere.
    """

    def __init__(self, sentence: str, code: str = "", **values: typing.Any) -> None:
        super().__init__(sentence)
        self.code, self.values = code, values

    # IPython's hook: in a notebook, show the sentence and not the stack
    def _render_traceback_(self) -> list[str]:
        return [f"InputError: {self}"]


def check_known(words: typing.Iterable[object], known: typing.Collection[str], said: str) -> None:
    """Raises InputError for the first word that is none of the known ones. said: what comes before
    it, such as "unknown parameter"."""
    for word in words:
        if word not in known:
            raise InputError(f"{said} {word!r}{did_you_mean(str(word), known)}")


def did_you_mean(word: str, known: typing.Iterable[str]) -> str:
    """The tail of an error about an unknown word: the nearest known one, or all of them."""
    known = sorted(known)
    if near := nearest(word, known):
        return f"; did you mean {near[0]!r}?"
    return f"; known are: {', '.join(known)}" if known else ""


def nearest(word: str, known: typing.Sequence[str]) -> list[str]:
    """The known word that is meant by a misspelt one: one of the same letters, as where two have
    changed places, before any other that is like it; [] where none is."""
    same = [each for each in known if sorted(each) == sorted(word)]
    return same[:1] or difflib.get_close_matches(word, known, n=1, cutoff=0.6)


class _Shown(logging.Handler):
    """Prints each message to whatever standard output is now."""
    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), flush=True)


WHERE = getattr(signal, "SIGUSR1", None)  # asks a notebook's process where it is; none on Windows


def tell_where() -> None:
    """Write the stack to the process's log when it crashes and when WHERE asks for it."""
    # ipykernel sends what is written to stderr to the page, and keeps the log beside it
    out = getattr(sys.stderr, "_original_stdstream_copy", None) or sys.__stderr__
    if out is not None:
        faulthandler.enable(out)
    if WHERE and out is not None:
        faulthandler.register(WHERE, out)


def show_log() -> None:
    """Print what adlib logs, one plain line a message."""
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, _Shown) for handler in log.handlers):
        log.addHandler(_Shown())
