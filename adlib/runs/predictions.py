"""New pictures through a finished run, two at a time, kept in their order in a record."""
from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import io
import math
import os
import threading
import typing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from adlib.config import InputError
from adlib.data import files, layout, reading, untrusted
from adlib.runs import overlays
from adlib.runs.inference import Decoded, Reopened
from adlib.runs.record import Prediction, Record, Source, utc

AHEAD, WORKERS = 4, 2  # pictures that are looked at before their turn, and at the same time
SIDE = 512  # pixels a side of an overlay at most


def sources(given: typing.Sequence[Path]) -> list[Source]:
    """The pictures of files and folders (to any depth), in order, each once.

    Raises:
        InputError: for what is not there, and where there is no picture.
    """
    named: dict[Path, str] = {}
    for path in given:
        if not path.exists():
            raise InputError(f"there is no {path}; give pictures, or folders of pictures")
        for picture in below(path) if path.is_dir() else [path]:
            named.setdefault(picture, picture.relative_to(path).as_posix() if path.is_dir() else
                             picture.name)
    if not named:
        raise InputError(f"{', '.join(map(str, given))} holds no picture "
                         f"({', '.join(sorted(layout.SUFFIXES))})")
    return [Source(path, name) for path, name in named.items()]


def below(folder: Path) -> list[Path]:
    """The pictures of a folder to any depth, those whose names do not say so included: a file that
    nobody looks at would be taken as good. Without overlays, which are pictures of predictions."""
    others = filter(reading.is_picture, layout.below(folder, images=False))
    return sorted(path for path in (*layout.below(folder), *others) if not any(
        parent.name == "overlays" and (folder / parent.parent / "predictions.json").is_file()
        for parent in path.relative_to(folder).parents))


def predict(record: Record, given: typing.Iterable[Source], stop: threading.Event, *,
            ahead: int = AHEAD, overlaid: bool = True) -> typing.Iterator[Prediction]:
    """Score what the record does not know, until `stop` is set: yields each prediction after its
    row and its overlay are written.

    Overlays are tinted by the map, outlined where it exceeds what one good part in twenty reaches
    anywhere; one colour scale for all. A picture that cannot be read has a row, too.

    Args:
        ahead: pictures to look at in advance; 0 where the next may be long in coming.
        overlaid: write overlays.
    """
    # Two at a time on half of the cores each take less time than one after the other on all.
    threads = torch.get_num_threads()
    each = max(1, threads // WORKERS) if ahead else threads
    look = functools.partial(_looked_at, record, overlaid=overlaid)
    with contextlib.ExitStack() as after:
        after.callback(torch.set_num_threads, threads)
        pool = after.enter_context(ThreadPoolExecutor(
            WORKERS, initializer=torch.set_num_threads, initargs=[each]))
        for source, result in _ahead(pool, look, given, ahead):
            looked = result()
            source.done |= looked is None
            if looked and (source.final or not looked[0].problem):
                prediction, overlay = looked
                if overlay:
                    prediction = dataclasses.replace(
                        prediction, overlay=record.overlay_of(source, prediction.content))
                    with files.atomic_path(record.out / prediction.overlay) as temporary:
                        temporary.write_bytes(overlay)
                added, told = record.add(prediction), source.done
                source.done = True
                if added or not told:
                    yield prediction
            if stop.is_set():
                return


def exit_code(record: Record) -> int:
    """1: an anomaly was found; else 4: some picture does not show the part; else 5: the conditions
    have changed; else 3: some picture could not be read; 0: all are good."""
    found = ((1, record.verdicts["anomalous"]), (4, record.verdicts["foreign"]),
             (5, record.changed_at), (3, record.unread))
    return next((code for code, what in found if what), 0)


def _looked_at(record: Record, source: Source, *, overlaid: bool
               ) -> tuple[Prediction, bytes] | None:
    """Read, and scored where it could be: the row, and the overlay's file, b"" for none; None for
    what has a row."""
    read = _read(record, source)
    return None if read is None else _scored(record.run, *read, overlaid)


def _scored(run: Reopened, read: Prediction, picture: Decoded | None, overlaid: bool
            ) -> tuple[Prediction, bytes]:
    if picture is None:
        return read, b""
    whole = picture.whole[None, :3]
    scores, maps = run.score_with_maps(picture.given[None])
    if not math.isfinite(scores[0]):
        return dataclasses.replace(read, problem=f"its score is {scores[0]}"), b""
    overlay = overlays.jpeg(overlays.overlay(
        whole[0].permute(1, 2, 0).numpy(), maps[0], low=run.decision.low,
        level=run.decision.level), SIDE) if overlaid else b""
    p_value, usual = float(run.threshold.p_values(scores)[0]), run.decision.conditions
    taken = {name: float(values[0]) for name, values in usual.measure(whole).items()
             } if usual else {}
    (foreign_p_value, ), (reason, ) = run.foreign(whole)
    return dataclasses.replace(
        read, score=float(scores[0]), p_value=None if math.isnan(p_value) else p_value,
        verdict=_verdict(run, scores, reason), reason=reason,
        foreign_p_value=None if math.isnan(foreign_p_value) else float(foreign_p_value), **taken
    ), overlay


def _verdict(run: Reopened, scores: np.ndarray, reason: str) -> str:
    """A large defect can make a picture unlike the part, too: it is anomalous then. Where the part
    is absent there is nothing to be anomalous."""
    if reason != "absent" and run.threshold.exceeded(scores)[0]:
        return "anomalous"
    return "foreign" if reason else "" if math.isinf(run.threshold.value) else "good"


def _ahead(pool: ThreadPoolExecutor, look: typing.Callable[[Source], typing.Any],
           given: typing.Iterable[Source], ahead: int
           ) -> typing.Iterator[tuple[Source, typing.Callable[[], typing.Any]]]:
    """Every source with a function that waits for `look`, `ahead` of them being looked at."""
    waiting: collections.deque[tuple[Source, typing.Any]] = collections.deque()
    for source in given:
        waiting.append((source, pool.submit(look, source)))
        if len(waiting) > ahead:
            first, future = waiting.popleft()
            yield first, future.result
    for first, future in waiting:
        yield first, future.result


def _read(record: Record, source: Source) -> tuple[Prediction, Decoded | None] | None:
    """A file read once, so that what is decoded is what is known by its content: the row without a
    score, and the picture, None where that cannot be; None for what has a row."""
    content = modified = problem = ""
    picture, now = None, datetime.datetime.now().timestamp()
    try:
        untrusted.check_name(str(source.path))
        with source.path.open("rb") as stream:
            modified, data = utc(os.fstat(stream.fileno()).st_mtime), stream.read()
        content = hashlib.sha256(data).hexdigest()[:16]
        if record.knows(source, content, modified):
            return None
        held = io.BytesIO(data)
        held.name = str(source.path)
        picture = record.run.decode(held)
    except InputError as error:  # its name: it cannot be mended by waiting
        problem, source.final = untrusted.sanitized(str(error)), True
    except FileNotFoundError:
        problem = "it has gone before it could be read"
    except Exception as error:  # whatever a decoder trips over, the file is named
        problem = untrusted.sanitized(str(error) or type(error).__name__)
    return Prediction(untrusted.sanitized(source.path), problem=problem, time=utc(now),
                      modified=modified, content=content), picture
