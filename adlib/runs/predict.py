"""New pictures through a finished run's detector: score, p-value and verdict of each, one by one,
as they come."""
from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import math
import os
import sys
import threading
import time
import typing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from adlib.config import InputError
from adlib.data import files, images, layout, untrusted
from adlib.evaluation import conformal
from adlib.runs import overlays
from adlib.runs.reopen import Detector

COLUMNS = ("path", "score", "p_value", "verdict", "problem")
AHEAD = 4  # pictures that are decoded while another one is scored
# how often a watched folder is looked at; a file that has not changed in that time is complete
POLL_S = 1.0
SIDE = 512  # pixels a side of an overlay at most
LONGEST = 200  # bytes of a picture's name; file systems take 255, and the overlay's own is longer


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the detector says of one picture; a picture that cannot be read has a problem and no
    score."""

    path: str
    score: float | None = None  # higher = more anomalous
    # share of good parts that would score as high; None where no good image was held out
    p_value: float | None = None
    verdict: str = ""  # anomalous | good; empty where there is no threshold
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Source:
    """A picture to look at, and the name that its overlay gets."""

    path: Path
    name: str  # with '/'


def sources(given: typing.Sequence[Path]) -> list[Source]:
    """The pictures of files and folders (searched to any depth), in order. Raises InputError for
    what is not there, and for none."""
    found: dict[Path, str] = {}
    taken: set[str] = set()
    for path in given:
        if not path.exists():
            raise InputError(f"there is no {path}; give pictures, or folders of pictures")
        for one in layout.below(path) if path.is_dir() else [path]:
            name, number = one.relative_to(path).as_posix() if path.is_dir() else one.name, 1
            # of another folder: no overlay is overwritten
            while (unique := name if number == 1 else f"{number}/{name}") in taken:
                number += 1
            if one not in found:
                found[one] = unique
                taken.add(unique)
    if not found:
        raise InputError(
            f"{', '.join(map(str, given))} holds no picture ({', '.join(sorted(layout.SUFFIXES))})")
    return [Source(path, name) for path, name in found.items()]


def begin(run: Detector, out: Path) -> list[Prediction]:
    """Make the folder, or go on in it: what an earlier call with the same run has predicted there.
    Unreadable pictures are tried again.

    Raises InputError where the folder cannot be written, or holds predictions of another run.
    """
    table, about = out / "predictions.csv", out / "predictions.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        kept = _rows(table)
        if table.exists() and (not about.exists()
                               or {**files.read_json(about), "predictions": []} != _about(run, [])):
            raise InputError(
                f"{out} holds predictions of another run, or of an older one; give another --out")
        # before the table: a table without it is not known to be this run's
        files.write_json(about, _about(run, kept))
        with files.atomic_path(table) as temporary, temporary.open("w", newline="",
                                                                   encoding="utf-8") as stream:
            csv.DictWriter(stream, COLUMNS).writeheader()
            csv.DictWriter(stream, COLUMNS).writerows(map(_row, kept))
    except OSError as error:
        raise InputError(
            f"cannot write in {out} ({error.strerror or error}); make it writable, or give "
            f"another --out") from error
    return kept


def predict(run: Detector, given: typing.Iterable[Source], out: Path, *,
            ahead: int = AHEAD) -> typing.Iterator[Prediction]:
    """Score the pictures one by one: yields each prediction, after its row is in
    out/predictions.csv and its overlay in out/overlays/.

    Overlays are tinted by the map, outlined where it exceeds what one good part in twenty reaches
    anywhere; one colour scale for all. A picture that cannot be read has a row, too. ahead:
    pictures to decode in advance; 0 where the next may be long in coming.
    """
    with (out / "predictions.csv").open("a", newline="",
                                        encoding="utf-8") as stream, ThreadPoolExecutor(2) as pool:
        for source, decoded in _ahead(pool, given, run.config.image_size, ahead):
            try:
                untrusted.legible(str(source.path))
                picture = decoded()
            # whatever a decoder trips over in a damaged file, the file is named
            except Exception as error:
                found = Prediction(untrusted.shown(source.path), problem=untrusted.shown(
                    str(error) or type(error).__name__))
            else:
                found = _one(run, source, picture, out)
            csv.DictWriter(stream, COLUMNS).writerow(_row(found))
            stream.flush()
            yield found


def end(run: Detector, found: typing.Sequence[Prediction], out: Path) -> None:
    """out/predictions.json: how it was decided, and every prediction."""
    files.write_json(out / "predictions.json", _about(run, found))


def watched(folder: Path, seen: typing.Collection[str],
            stop: threading.Event) -> typing.Iterator[Source]:
    """The pictures of a folder, and whatever is written into it until `stop` is set; those whose
    path is in `seen` are left out."""
    done, sizes = set(seen), dict[Path, tuple[int, int]]()
    while not stop.is_set():
        for path in layout.below(folder):
            with contextlib.suppress(FileNotFoundError):  # moved away meanwhile
                state = (path.stat().st_size, path.stat().st_mtime_ns)
                if str(path) in done:
                    continue
                # a camera has finished writing it
                if sizes.get(path) == state or time.time() - path.stat().st_mtime > POLL_S:
                    done.add(str(path))
                    yield Source(path, path.relative_to(folder).as_posix())
                sizes[path] = state
        stop.wait(POLL_S)


def code(found: typing.Sequence[Prediction]) -> int:
    """The exit code: 1 an anomaly was found, 3 none was, but some picture could not be read, 0 all
    are good."""
    if any(one.verdict == "anomalous" for one in found):
        return 1
    return 3 if any(one.problem for one in found) else 0


def summary(found: typing.Sequence[Prediction], out: Path) -> str:
    """What came out, in a sentence, and every picture that could not be read."""
    anomalous, unread = sum(
        one.verdict == "anomalous" for one in found), [one for one in found if one.problem]
    said = f"{len(found)} pictures: {anomalous} anomalous, {sum(one.verdict == 'good' for one in found)} good"
    said += f", {len(unread)} cannot be read: {', '.join(one.path for one in unread)}" if unread else ""
    if found and not any(one.verdict for one in found) and len(unread) < len(found):
        said += ". The run had too few good images for a threshold: sort by score"
    return f"{said}. Tables and overlays: {out}"


def line(one: Prediction) -> str:
    """A prediction for a terminal."""
    if one.problem:
        return f"unreadable                     {one.path} ({one.problem})"
    p_value = "" if one.p_value is None else f"p {one.p_value:.3f}"
    return f"{one.verdict or 'no verdict':10} {one.score:11.5g} {p_value:8} {one.path}"


def progress(done: int, total: int | None) -> None:
    """Say on a terminal's stderr how far it is; a file or a pipe is not bothered."""
    if sys.stderr.isatty():
        bar = f"[{'#' * (30 * done // total):30}] {done} of {total}" if total else f"{done} so far"
        print(f"\r{bar}\033[K", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _one(run: Detector, source: Source, picture: torch.Tensor, out: Path) -> Prediction:
    scores, maps = run.score_with_maps(picture[None])
    value = float(scores[0])
    p_value = float(conformal.p_values(run.calibration, scores)[0]) if len(
        run.calibration) else None
    verdict = "" if math.isinf(run.threshold) else "anomalous" if value > run.threshold else "good"
    folder, _, name = source.name.rpartition("/")
    if len(os.fsencode(name)) > LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    target = out / "overlays" / folder / f"{name}.jpg"
    target.parent.mkdir(parents=True, exist_ok=True)
    overlays.save(
        overlays.overlay(picture.permute(1, 2, 0).numpy(), maps[0], low=run.low, level=run.level),
        target, SIDE)
    return Prediction(str(source.path), value, p_value, verdict)


def _ahead(pool: ThreadPoolExecutor, given: typing.Iterable[Source], size: int,
           ahead: int) -> typing.Iterator[tuple[Source, typing.Callable[[], torch.Tensor]]]:
    """Every source with a function that waits for its picture, `ahead` of them being decoded
    already."""
    waiting: list[tuple[Source, typing.Any]] = []
    for source in given:
        waiting.append((source,
                        pool.submit(lambda path: torch.from_numpy(images.decode(path, size).copy()),
                                    source.path)))
        if len(waiting) > ahead:
            first, future = waiting.pop(0)
            yield first, future.result
    for first, future in waiting:
        yield first, future.result


def _about(run: Detector, found: typing.Sequence[Prediction]) -> dict[str, typing.Any]:
    return {
        "configuration": run.config.name, "category": run.config.category, "seed": run.config.seed,
        "score": run.score, "threshold": None if math.isinf(run.threshold) else run.threshold,
        "target_fpr": run.config.target_fpr, "calibration_images": len(
            run.calibration), "predictions": [dataclasses.asdict(one) for one in found]
    }


def _row(one: Prediction) -> dict[str, typing.Any]:
    # the same file, and no formula in a spreadsheet
    path = f"./{one.path}" if one.path.startswith(untrusted.FORMULA) else one.path
    return {
        key: "" if value is None else value
        for key, value in (dataclasses.asdict(one) | {"path": path}).items()
    }


def _rows(table: Path) -> list[Prediction]:
    """The whole rows of a table of predictions, those of unreadable pictures left out: a killed
    call may have left half a line."""
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as stream:
        rows = [
            row for row in csv.DictReader(stream) if row.get("score") and row.get("problem") == ""
        ]
    return [
        Prediction(str(Path(row["path"])), float(row["score"]),
                   float(row["p_value"]) if row["p_value"] else None, row["verdict"])
        for row in rows
    ]
