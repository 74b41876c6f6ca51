"""New pictures through a finished run: looked at a few at a time, by several threads, and kept in
their order in a record."""
from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
import itertools
import math
import os
import threading
import time
import typing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from adlib.config import InputError
from adlib.data import files, layout, reading, untrusted
from adlib.models.fast import device
from adlib.runs import overlays
from adlib.runs.inference import Decoded, Reopened
from adlib.runs.prediction_record import Prediction, Record, Source, utc

AHEAD, WORKERS = 8, 8  # pictures looked at together; threads, at the most, that each do so
T = typing.TypeVar("T")
Read = tuple[Prediction, Decoded | None]  # a row without a score, and the picture
SIDE = 512  # pixels of the longer side of an overlay at least


def sources(given: typing.Sequence[Path]) -> list[Source]:
    """The pictures of files and folders (to any depth), in order, each once.

    Raises:
        InputError: for what is not there, and where there is no picture.
    """
    named: dict[Path, str] = {}
    for path in given:
        if not path.exists():
            raise InputError(f"there is no {path}; give pictures, or folders of pictures")
        if files.is_special(path):
            raise InputError(f"{path} is a pipe, a socket or a device; give pictures, or folders "
                             "of pictures")
        for picture in below(path) if path.is_dir() else [path]:
            named.setdefault(picture, picture.relative_to(path).as_posix() if path.is_dir() else
                             picture.name)
    if not named:
        raise InputError(f"{', '.join(map(str, given))} holds no picture "
                         f"({', '.join(sorted(layout.SUFFIXES))})")
    return [Source(path, name) for path, name in named.items()]


def below(folder: Path, is_picture: typing.Callable[[Path], bool] = reading.is_picture
          ) -> list[Path]:
    """The pictures of a folder to any depth, those whose names do not say so included: a file that
    nobody looks at would be taken as good. Without overlays, which are pictures of predictions.
    is_picture: of a file whose name does not say so."""
    others = filter(is_picture, layout.below(folder, images=False))
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
        ahead: pictures to look at together, while others are begun; 0 where the next may be long
            in coming.
        overlaid: write overlays.
    """
    detector = record.run.detector
    at_once = 1 if detector.tile else max(1, ahead)
    # Threads with pictures of their own wait for each other less than those that share each step.
    apart = ahead and detector.is_thread_safe and detector.own_score is None
    workers = min(WORKERS, torch.get_num_threads()) if apart else 1
    record.run.keep_no_features()
    with device.threads(torch.get_num_threads() // workers), ThreadPoolExecutor(workers) as pool:
        results = _prefetched(((some, pool.submit(_scored, record, some, at_once, overlaid))
                               for some in _batched(given, at_once)), workers if ahead else 0)
        for some, result in results:
            for source, looked in zip(some, result.result(), strict=True):
                source.done |= looked is None
                if looked and (source.final or not looked[0].problem):
                    prediction, overlay = looked
                    if overlay:
                        prediction = dataclasses.replace(
                            prediction, overlay=record.overlay_of(source, prediction.content))
                        files.write_bytes(record.out / prediction.overlay, overlay)
                    added, told = record.add(prediction), source.done
                    source.done = True
                    if added or not told:
                        yield prediction
                if stop.is_set():
                    return


def exit_code(record: Record) -> int:
    """1: an anomaly was found; else 4: some picture does not show the part; else 5: the conditions
    have changed; else 3: some picture could not be read; 0: all are good."""
    codes = ((1, record.verdicts["anomalous"]), (4, record.verdicts["foreign"]),
             (5, record.changed), (3, record.unread))
    return next((code for code, what in codes if what), 0)


def _scored(record: Record, some: typing.Sequence[Source], at_once: int, overlaid: bool
            ) -> list[tuple[Prediction, bytes] | None]:
    """Read, scored and drawn: the row of each and its overlay's file (b"" for none); None for what
    has a row."""
    reads = [_read(record, source) for source in some]
    looked_at = [read and (read[0], b"") for read in reads]
    places = [i for i, read in enumerate(reads) if read and read[1] is not None]
    if places:
        rows, pictures = zip(*(reads[i] for i in places), strict=True)
        scores, maps = record.run.score_with_maps(_stacked([one.given for one in pictures],
                                                           at_once))
        whole = _stacked([one.whole[:3] for one in pictures], at_once)
        finished = _finished(record.run, rows, [one.size for one in pictures], whole, scores, maps,
                             overlaid)
        for i, one in zip(places, finished, strict=True):
            looked_at[i] = one
    return looked_at


def _stacked(images: typing.Sequence[torch.Tensor], n: int) -> torch.Tensor:
    """At most n images, [n,C,h,w], the last again where they are fewer: how many others are looked
    at with an image changes its numbers by rounding."""
    return torch.stack([*images, *[images[-1]] * (n - len(images))])


def _finished(run: Reopened, rows: typing.Sequence[Prediction],
              sizes: typing.Sequence[tuple[int, int]], whole: torch.Tensor, scores: np.ndarray,
              maps: np.ndarray, overlaid: bool) -> list[tuple[Prediction, bytes]]:
    """The rows, and overlays, of the first of some images. sizes: of the files."""
    usual, p_values = run.decision.conditions, run.threshold.p_values(scores)
    taken = usual.measure(whole) if usual else {}
    foreign_p_values, reasons = run.foreign(whole)
    finished = []
    for i, row in enumerate(rows):
        if not math.isfinite(scores[i]):
            finished.append((dataclasses.replace(row, problem=f"its score is {scores[i]}"), b""))
            continue
        overlay = overlays.jpeg(overlays.overlay(
            whole[i].permute(1, 2, 0).numpy(), maps[i], low=run.decision.low,
            level=run.decision.level)[run.frames[0].place(*sizes[i])[1].inside],
            sizes[i], max(SIDE, *whole.shape[-2:])) if overlaid else b""
        finished.append((dataclasses.replace(
            row, score=float(scores[i]), p_value=_number(p_values[i]), reason=reasons[i],
            verdict=verdict(run, scores[i:i + 1], reasons[i]),
            foreign_p_value=_number(foreign_p_values[i]),
            **{name: float(values[i]) for name, values in taken.items()}), overlay))
    return finished


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def verdict(run: Reopened, scores: np.ndarray, reason: str) -> str:
    """Of one picture, scores [1]: anomalous, foreign, good, or "" without a threshold. reason: as
    Reopened.foreign.

    A large defect can make a picture unlike the part, too: it is anomalous then. Where the part
    is absent there is nothing to be anomalous."""
    if reason != "absent" and run.threshold.exceeded(scores)[0]:
        return "anomalous"
    return "foreign" if reason else "" if math.isinf(run.threshold.value) else "good"


def _batched(items: typing.Iterable[T], n: int) -> typing.Iterator[list[T]]:
    """The items, n at a time."""
    items = iter(items)
    return iter(lambda: list(itertools.islice(items, n)), [])


def _prefetched(items: typing.Iterable[T], n: int) -> typing.Iterator[T]:
    """The items, each after n more were begun."""
    waiting: collections.deque[T] = collections.deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > n:
            yield waiting.popleft()
    yield from waiting


def _read(record: Record, source: Source) -> Read | None:
    """A file read once, so that what is decoded is what is known by its content: the row without a
    score, and the picture, None where that cannot be; None for what has a row."""
    content = modified = problem = ""
    picture, now = None, time.time()
    try:
        untrusted.check_name(str(source.path))
        if files.is_special(source.path):
            raise InputError(files.NO_FILE)
        with source.path.open("rb") as stream:
            modified, data = utc(os.fstat(stream.fileno()).st_mtime), stream.read()
        content = hashlib.sha256(data).hexdigest()[:16]
        if record.knows(source, content, modified):
            return None
        held = io.BytesIO(data)
        held.name = str(source.path)
        picture = record.run.decode(held)
    except InputError as error:  # its name or kind: it cannot be mended by waiting
        problem, source.final = untrusted.sanitized(str(error)), True
    except FileNotFoundError:
        problem = ("it is a link to nothing" if source.path.is_symlink() else
                   "it has gone before it could be read")
    except BrokenPipeError:  # of what is logged: the file is none the worse
        raise
    except Exception as error:  # whatever a decoder trips over, the file is named
        problem = untrusted.sanitized(files.reason_of(error))
    return Prediction(untrusted.sanitized(source.path), problem=problem, time=utc(now),
                      modified=modified, content=content), picture
