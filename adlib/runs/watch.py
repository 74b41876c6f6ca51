"""A folder that is written into, by a camera say: which of its files to look at, and when.

Nothing says that a writer has finished. So a file is looked at when it has not changed since the
folder was last asked, and again when it has stood still for STILL_S, by when what cannot be read
counts as unreadable; whatever changes it begins that anew. A file that never stands still, because
it is written again and again, is looked at every time. The folder is asked, because a network share
tells nobody of its changes, and only this process's own time counts, because clocks are set and
those of two machines differ.
"""
from __future__ import annotations

import dataclasses
import os
import threading
import typing
from pathlib import Path
from time import monotonic

from adlib.config import InputError, log
from adlib.data import files, reading
from adlib.runs.prediction_record import Record, Source
from adlib.runs.predictions import below

POLL_S = 1.0  # how often the folder is asked, at the most
RESTLESS_S = 5.0  # after which a file that has not stood still meanwhile is looked at all the same
STILL_S = 10.0
ROUND_S = 5.0  # of looking at files, after which the folder is asked for newer ones
Stamp = tuple[int, ...]  # size, when it was written, when changed; device and inode


@dataclasses.dataclass
class _File:
    source: Source
    stamp: Stamp
    since: float  # when it was first seen so
    restless: float  # when it last stood still, or was first seen
    looks: int = 0


def watched(folder: Path, record: Record, stop: threading.Event) -> typing.Iterator[Source]:
    """The files of a folder, to any depth, whenever they may hold a picture that `record` does not
    know, until `stop` is set. One that has gone before it could be read comes a last time."""
    tracked: dict[Path, _File] = {}
    for asked, present in _listings(folder, stop):
        places = {stamp[3:] for stamp in present.values()}
        for gone in [tracked.pop(path) for path in tracked.keys() - present.keys()]:
            if not gone.source.done and gone.stamp[3:] not in places:  # else it was moved
                gone.source.final = True
                yield gone.source
        for path, stamp in present.items():
            before = tracked.get(path)
            if before is None or before.stamp[:3] != stamp[:3]:  # some shares invent inodes
                same = before is not None and before.stamp[:2] == stamp[:2]
                source = Source(path, path.relative_to(folder).as_posix(), watched=True,
                                done=same and before.source.done)
                tracked[path] = _File(source, stamp, asked, before.restless if before else asked)
        began = monotonic()
        # New names first: a restart reads all others again, to know them by their content.
        for path in sorted(present, key=lambda path: (str(path) in record.latest, path)):
            if stop.is_set() or monotonic() - began > ROUND_S:
                break
            file = tracked[path]
            looks = (asked > file.since) + (asked - file.since >= STILL_S)
            if file.looks < looks or not looks and asked - file.restless >= RESTLESS_S:
                file.looks, file.source.final = looks, looks == 2
                yield file.source
            if looks:
                file.restless = asked


def _listings(folder: Path, stop: threading.Event
              ) -> typing.Iterator[tuple[float, dict[Path, Stamp]]]:
    """What is in the folder, again and again, and when that was asked."""
    failed, looked = 0, dict[Path, tuple[Stamp, bool]]()  # at files whose names say no picture

    def is_picture(path: Path) -> bool:
        """Opened again only where it has changed: a folder may hold thousands of other files."""
        stamp, before = (_stamp(path) or ())[:3], earlier.get(path)
        looked[path] = before if before and before[0] == stamp else (
            stamp, reading.is_picture(path))
        return looked[path][1]

    while not stop.is_set():
        asked, earlier, looked = monotonic(), looked, {}
        try:
            with os.scandir(folder):  # below() takes a folder that is out of reach for an empty one
                present = {path: stamp for path in below(folder, is_picture)
                           if (stamp := _stamp(path))}
        # Once, where a folder is deleted just then; or out of reach, it or one in it.
        except (OSError, InputError) as error:
            if isinstance(error, InputError) and error.code != "unread":
                raise
            failed += 1
            if failed == 2:
                log.warning("%s cannot be listed (%s); going on as soon as it can", folder,
                            files.reason_of(error))
            stop.wait(POLL_S)
            continue
        failed, took = 0, monotonic() - asked
        yield asked, present
        # At most half of the time goes into asking.
        stop.wait(max(0.0, asked + max(POLL_S, 2 * took) - monotonic()))


def _stamp(path: Path) -> Stamp | None:
    try:
        stat = path.stat() if path.exists() else path.lstat()  # a link to nothing has a row, too
    except OSError:  # it has gone since it was listed
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_dev, stat.st_ino
