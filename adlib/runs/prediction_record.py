"""The folder that keeps what a run said of new pictures: a row each, and an overlay.

A picture is known by its path and its content: what is written again under a known name is another
picture, and gets a row of its own. Rows are only ever added, so that whatever ends it, the same
command goes on.
"""
from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import datetime
import hashlib
import math
import os
import typing
from pathlib import Path

import numpy as np

from adlib.config import InputError, is_folder_name
from adlib.data import files, untrusted
from adlib.evaluation.conditions import ARL, MEASURED, SCORE, ConditionsTest
from adlib.runs.inference import Reopened

LONGEST = 200  # bytes of a picture's name; file systems take 255, and the overlay's own is longer


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a run says of one picture, a row of predictions.csv; one that cannot be read has a
    problem and no score. Both times are UTC."""

    path: str
    score: float | None = None  # higher = more anomalous
    p_value: float | None = None  # share of good parts that would score as high; None if unknown
    verdict: str = ""  # anomalous | foreign | good; empty where no threshold is attainable
    foreign_p_value: float | None = None  # share of good parts that would look as little like one
    reason: str = ""  # of a picture that does not show the part: absent | unlike
    problem: str = ""
    time: str = ""  # when it was read
    modified: str = ""  # when its file was last written
    content: str = ""  # 16 hex digits that tell its file's content from any other
    overlay: str = ""  # its file in overlays/
    brightness: float | None = None  # this and the following: evaluation/conditions
    contrast: float | None = None
    colour: float | None = None
    noise: float | None = None
    sharpness: float | None = None
    alignment: float | None = None


NUMBERS = ("score", "p_value", "foreign_p_value", *MEASURED)
COLUMNS = tuple(field.name for field in dataclasses.fields(Prediction))


@dataclasses.dataclass(eq=False)
class Source:
    """A picture's file to look at.

    name: its path with '/', from which its overlay's is made.
    final: is this the last look? Else, what cannot be read may still be being written.
    watched: may the file have been moved? Then it is known by its content alone.
    done: it has a row, this one or an earlier one.
    """

    path: Path
    name: str
    final: bool = True
    watched: bool = False
    done: bool = False


class Record:
    """The folder of a run's predictions, open to add to: predictions.csv and overlays/, and when it
    is closed the same rows in predictions.json; and conditions.json, which says whether the
    pictures were still taken as the run's own were.

    verdicts: {verdict: rows}, "" = without one. latest: {path: its newest row}. conditions: None
    for a run of an earlier version.
    """

    def __init__(self, run: Reopened, out: Path) -> None:
        """Make the folder, or go on in it; half a row that a kill has left is cut off.

        Raises:
            InputError: the folder cannot be written, is in use, is a run's, or holds other
                predictions.
        """
        if os.path.exists(out / "run.json"):
            raise InputError(f"{out} is a run's folder, whose files would be overwritten; give "
                             "another --out")
        self.run, self.out = run, out
        self.verdicts = collections.Counter[str]()
        self.latest: dict[str, Prediction] = {}
        self._paths: dict[tuple[str, str], str] = {}  # of each content and time of writing
        self._overlays: dict[str, str] = {}  # {name: content}
        self._table, self._about = out / "predictions.csv", out / "predictions.json"
        self.conditions = _test_of(run)
        self._compared: list[Prediction] = []
        self._course: list[float] = []  # log10 of the evidence after each picture
        self.changed: list[Prediction] = []  # from the first that differs to the warning
        self._lock = files.taken(
            out / ".lock", f"another adlib predict writes in {out}; end it, or give another --out",
            "make room or make it writable, or give another --out")
        with contextlib.ExitStack() as failed, self._writing():
            failed.callback(self._lock.release)
            self._stream = self._open()
            failed.pop_all()

    def __enter__(self) -> Record:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            with self._writing():
                self._stream.close()
            if kind is not InputError:  # else the disk is full, and there is half a row
                files.write_json(self._about, self._about_run() | {
                    "predictions": [dataclasses.asdict(one) for one in self._read()]})
                self._write_conditions()
        finally:
            self._lock.release()

    @property
    def unread(self) -> list[str]:
        """The paths whose newest row has a problem."""
        return [path for path, one in self.latest.items() if one.problem]

    def knows(self, source: Source, content: str, modified: str) -> bool:
        """Has this picture a row? One that could not be read is looked at again."""
        path = str(source.path)
        latest = self.latest.get(path)
        if latest and not latest.problem and latest.content == content:
            return True
        before = self._paths.get((content, modified), path)
        if not source.watched or before == path:
            return False
        try:  # is the other one a copy, or was this one moved from there?
            return utc(os.stat(before).st_mtime) != modified
        except OSError:
            return True

    def add(self, one: Prediction) -> bool:
        """Write a row, unless it would only repeat that the same cannot be read: then False."""
        latest = self.latest.get(one.path)
        if latest and one.problem and latest.problem and latest.content == one.content:
            return False
        with self._writing():
            csv.DictWriter(self._stream, COLUMNS).writerow(_row(one))
            self._stream.flush()
        self._keep(one)
        return True

    def overlay_of(self, source: Source, content: str) -> str:
        """Where a picture's overlay goes, relative to the folder: that of another one stays."""
        names = [name if is_folder_name(name) and len(os.fsencode(name)) <= LONGEST else
                 hashlib.sha256(os.fsencode(name)).hexdigest()[:16]  # a name on any system
                 for name in source.name.split("/")]
        stem = "/".join(("overlays", *names))
        free = self._overlays.get(f"{stem}.jpg", content) == content
        return f"{stem}.jpg" if free else f"{stem}.{content}.jpg"

    def _open(self) -> typing.TextIO:
        whole = self._table.read_bytes() if self._table.exists() else b""
        whole = whole[:whole.rfind(b"\n") + 1]
        if whole:
            said = self._about.exists() and files.read_json(self._about) | {"predictions": []}
            header = whole.partition(b"\r\n")[0].decode(errors="replace")
            if said != self._about_run() or header != ",".join(COLUMNS):
                raise InputError(f"{self.out} holds predictions of another run, by another "
                                 "threshold or of an older version; give another --out")
            os.truncate(self._table, len(whole))
            for one in self._read():
                self._keep(one)
        else:  # Before the table: a table without it is not known to be this run's.
            files.write_json(self._about, self._about_run())
        stream = self._table.open("a" if whole else "w", newline="", encoding="utf-8")
        if not whole:
            csv.DictWriter(stream, COLUMNS).writeheader()
            stream.flush()
        return stream

    def _read(self) -> typing.Iterator[Prediction]:
        number = 1
        with self._table.open(newline="", encoding="utf-8") as stream:
            try:
                for number, row in enumerate(csv.reader(stream), 1):
                    if number > 1:
                        yield _prediction(row)
            except (ValueError, csv.Error) as error:
                raise InputError(f"line {number} of {self._table} is none that was written there; "
                                 "mend it, or give another --out") from error

    def _keep(self, one: Prediction) -> None:
        self.latest[one.path] = one
        if not one.problem:
            self.verdicts[one.verdict] += 1
            self._paths[one.content, one.modified] = one.path
            self._overlays[one.overlay] = one.content
            self._compare(one)

    def _compare(self, one: Prediction) -> None:
        """The next picture for the test of the conditions; a warning is written at once."""
        test, values = self.conditions, {name: getattr(one, name) for name in (SCORE, *MEASURED)}
        if test is None or test.change is not None or None in values.values():
            return
        self._compared.append(one)
        changed = test.add(values)
        self._course.append(round(math.log10(max(test.evidence, 1e-3)), 3))
        if changed:
            self.changed = self._compared[test.change.since - 1:]
            self._write_conditions()

    def _write_conditions(self) -> None:
        if (test := self.conditions) is None:
            return
        change = test.change and dataclasses.asdict(test.change) | {
            "path": self.changed[0].path, "time": self.changed[0].time}
        with self._writing():
            files.write_json(self.out / "conditions.json", {
                "pictures": test.n, "evidence": test.evidence, "needed": ARL,
                "change": change, "course": self._course, "usual": {
                    name: [float(np.median(values)), float(np.std(values))] for name, values in
                    self.run.decision.conditions.calibration.items()}})

    def _about_run(self) -> dict[str, typing.Any]:
        config, threshold, before = self.run.config, self.run.threshold, self.run.before
        return ({"recalibrated": before} if before else {}) | {
                "configuration": config.name, "category": config.category, "seed": config.seed,
                "score": self.run.decision.score, "target_fpr": threshold.target_fpr,
                "threshold": None if math.isinf(threshold.value) else threshold.value,
                "calibration_images": len(threshold.calibration), "predictions": []}

    def _writing(self) -> typing.ContextManager[None]:
        return files.saying(f"cannot write in {self.out}", "make room or make it writable, or give "
                            "another --out", OSError)


def utc(seconds: float) -> str:
    """A moment, in seconds since 1970, as a row says it."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds")


def _test_of(run: Reopened) -> ConditionsTest | None:
    """The score is compared where there are calibration scores."""
    if run.decision.conditions is None:
        return None
    scores = run.threshold.calibration
    return ConditionsTest(run.decision.conditions.calibration
                          | ({SCORE: scores} if len(scores) else {}))


def _prediction(row: list[str]) -> Prediction:
    """A row of the table again; ValueError where it is none."""
    values = dict(zip(COLUMNS, row, strict=True))
    numbers = {key: float(values[key]) if values[key] else None for key in NUMBERS}
    return Prediction(**values | numbers | {"path": str(Path(values["path"]))})


def _row(one: Prediction) -> dict[str, typing.Any]:
    # The same file, and no formula in a spreadsheet.
    path = f"./{one.path}" if one.path.startswith(untrusted.FORMULA) else one.path
    values = dataclasses.asdict(one) | {"path": path}
    return {key: "" if value is None else value for key, value in values.items()}
