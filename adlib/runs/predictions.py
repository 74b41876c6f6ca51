"""New pictures through a finished run: scored one by one, decoded and drawn beside that, and kept
in their order in a record."""
from __future__ import annotations

import collections
import dataclasses
import datetime
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

AHEAD, WORKERS = 2, 2  # pictures begun before their turn; threads that decode and draw
T = typing.TypeVar("T")
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
        ahead: pictures to begin in advance; 0 where the next may be long in coming.
        overlaid: write overlays.
    """
    with ThreadPoolExecutor(WORKERS) as pool:
        reads = _later(((source, pool.submit(_read, record, source).result) for source in given),
                       ahead)
        looks = _later(((source, _looked_at(pool, record.run, read(), overlaid))
                        for source, read in reads), ahead)
        for source, look in looks:
            looked = look()
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


def _looked_at(pool: ThreadPoolExecutor, run: Reopened,
               read: tuple[Prediction, Decoded | None] | None, overlaid: bool
               ) -> typing.Callable[[], tuple[Prediction, bytes] | None]:
    """Scored, here; the rest, which takes as long, beside the next one's score. Returns what waits
    for the row and the overlay's file (b"" for none); for None of what has a row."""
    if read is None or read[1] is None:
        return lambda: read and (read[0], b"")
    row, picture = read
    scores, maps = run.score_with_maps(picture.given[None])
    if not math.isfinite(scores[0]):
        return lambda: (dataclasses.replace(row, problem=f"its score is {scores[0]}"), b"")
    return pool.submit(_finished, run, row, picture.whole[None, :3], scores, maps[0],
                       overlaid).result


def _finished(run: Reopened, read: Prediction, whole: torch.Tensor, scores: np.ndarray,
              map_: np.ndarray, overlaid: bool) -> tuple[Prediction, bytes]:
    overlay = overlays.jpeg(overlays.overlay(
        whole[0].permute(1, 2, 0).numpy(), map_, low=run.decision.low,
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


def _later(items: typing.Iterable[T], n: int) -> typing.Iterator[T]:
    """The items, each after n more were begun."""
    waiting: collections.deque[T] = collections.deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > n:
            yield waiting.popleft()
    yield from waiting


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
