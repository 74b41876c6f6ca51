"""A finished run's detector again, from its folder alone, and new pictures through it."""
from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import logging
import math
import os
import threading
import time
import typing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adlib.config import Config, InputError
from adlib.data import files, layout, part, reading, untrusted
from adlib.evaluation.calibration import Decision, score_table, score_with_maps
from adlib.evaluation.conformal import Threshold
from adlib.models import registry
from adlib.models.autoencoders import Autoencoder
from adlib.models.backbone import OnBackbone
from adlib.models.detector import Detector, Images, load_state
from adlib.runs import overlays, run_folder

log = logging.getLogger("adlib")
COLUMNS = ("path", "score", "p_value", "verdict", "problem")
AHEAD = 4  # pictures that are decoded while another one is scored
POLL_S = 1.0  # how often a watched folder is looked at; a file unchanged in that time is complete
SIDE = 512  # pixels a side of an overlay at most
LONGEST = 200  # bytes of a picture's name; file systems take 255, and the overlay's own is longer


@dataclasses.dataclass(frozen=True, eq=False)
class Reopened:
    """A finished run's detector, and what it decided without labels."""

    config: Config
    detector: Detector
    decision: Decision

    @property
    def threshold(self) -> Threshold:
        return self.decision.threshold

    def scores(self, given: Images) -> np.ndarray:
        """uint8 [N,3,S,S] -> float64 [N], higher = more anomalous."""
        table = score_table(self.detector, self.decision.scale, given)
        return table[self.decision.score].to_numpy()

    def score_with_maps(self, given: Images) -> tuple[np.ndarray, np.ndarray]:
        """The scores, and the smoothed maps float32 [N,S,S] that they are read off."""
        table, maps = score_with_maps(self.detector, self.decision, given)
        return table[self.decision.score].to_numpy(), maps


def reopen(folder: Path) -> Reopened:
    """The detector of a finished run; neither its images nor its pretrained weights are needed.

    Raises:
        InputError: for a run that has not finished, or that cannot be reopened.
    """
    status = run_folder.status(folder)
    if status.state != "finished":
        raise InputError(f"{folder} holds no finished run ({status.state}: {status.reason}); run "
                         f"its "
                         "configuration first")
    about, measured = run_folder.manifest(folder), run_folder.metrics(folder)
    config = dataclasses.replace(run_folder.config_of(folder),
                                 grey_range=run_folder.grey_range(folder))
    if "maps" not in measured:
        raise InputError(f"{folder} was made by an older version of adlib; run its configuration "
                         f"again first")
    if not (folder / "model.pt").exists():
        raise InputError(f"{folder} cannot be reopened: its detector, {config.model}, offers "
                         f"neither a "
                         "torch state dict nor state() and load(state) (docs/your_detector.md)")
    try:
        state = torch.load(folder / "model.pt", weights_only=True, map_location="cpu")
        own_weights = "none" if _is_current(state) else config.weights
        detector = registry.build(dataclasses.replace(config, weights=own_weights, loss=""))
        if own_weights != "none" and _digest(detector.weights) != _digest(about["weights"]):
            raise InputError(f"{folder} was made with other weights ({about['weights']}; now: "
                             f"{detector.weights}); give the same ones, or run its configuration "
                             f"again")
        if not _is_current(state) and isinstance(detector, OnBackbone):
            _same_weights(folder, about["weights"], detector.weights)
        load_state(detector, _current(state, detector))
        maps, calibration = measured["maps"], measured["calibration"]
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise anything: UnpicklingError, KeyError, ...
        why = f"{type(error).__name__}: {str(error)[:80]}".splitlines()[0]
        raise InputError(f"{folder / 'model.pt'} cannot be read ({why}); run its configuration "
                         f"again "
                         "with --force") from error
    score = measured["chosen"]["score"]
    threshold = Threshold(np.array(calibration["scores"], float), config.target_fpr,
                          calibration["how"])
    decision = Decision(pd.DataFrame(measured["label_free"]), measured["score"], score,
                        {name: tuple(pair) for name, pair in maps["scale"].items()},
                        {score: threshold}, {}, maps["low"], maps["level"])
    detector.weights = about["weights"]
    return Reopened(config, detector.eval(), decision)


def reopen_with_data(folder: Path, data_root: str = "") -> tuple[Reopened, part.Part]:
    """The same with the data that it ran on. data_root: where they are now; "" = where they were.

    Raises:
        InputError: as `reopen`, and where the data have changed since.
    """
    run, about = reopen(folder), run_folder.manifest(folder)
    root = data_root or run_folder.data_root(folder)
    opened = part.open_part(dataclasses.replace(run.config, data_root=root))
    if layout.fingerprint(opened.category) != about["data"]["fingerprint"]:
        raise InputError(f"the data of {folder} have changed since it ran; run its configuration "
                         f"again "
                         "first")
    return run, opened


def _same_weights(folder: Path, before: str, now: str) -> None:
    """Are these the weights that a run of version 0.1, which kept no backbone, was made with?"""
    hashes = [word.partition("sha256:")[2] or word.split(" (")[0] for word in (before, now)]
    if hashes[0] != hashes[1]:
        raise InputError(f"{folder} was made with other weights ({before}; now: {now}); run its "
                         "configuration again")


def _digest(weights: str) -> str:
    """What tells two weights apart: where a file lies does not."""
    return "RANDOM" if weights.startswith("RANDOM") else weights.partition("sha256:")[2] or weights


def _is_current(state: dict[str, torch.Tensor]) -> bool:
    return any(
        key.startswith(("network.", "backbone.", "good", "subject.", "_extra_state", "model."))
        for key in state)


def _current(state: dict[str, torch.Tensor], detector: Detector) -> dict[str, torch.Tensor]:
    """A state dict by today's names; up to version 0.1 it held the network, or the head, alone."""
    if _is_current(state):
        return state
    log.warning("this run was made by adlib 0.1, which the next version will no longer read; run "
                "its "
                "configuration again")
    if isinstance(detector, Autoencoder):
        return {f"network.{key}": tensor for key, tensor in state.items()}
    prefix = "head" if hasattr(detector, "head") else "decoder"
    kept = detector.state_dict() if isinstance(detector, OnBackbone) else {}
    return {key: tensor for key, tensor in kept.items() if key.startswith("backbone.")} | {
        f"{prefix}.{key}": tensor for key, tensor in state.items()}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a run says of one picture; one that cannot be read has a problem and no score."""

    path: str
    score: float | None = None  # higher = more anomalous
    p_value: float | None = None  # share of good parts that would score as high; None if unknown
    verdict: str = ""  # anomalous | good; empty where no threshold is attainable
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Source:
    """A picture to look at, and the name that its overlay gets."""

    path: Path
    name: str  # with '/'


def sources(given: typing.Sequence[Path]) -> list[Source]:
    """The pictures of files and folders (to any depth), in order.

    Raises:
        InputError: for what is not there, and where there is no picture.
    """
    named: dict[Path, str] = {}
    taken: set[str] = set()
    for path in given:
        if not path.exists():
            raise InputError(f"there is no {path}; give pictures, or folders of pictures")
        for picture in _pictures(path) if path.is_dir() else [path]:
            name = picture.relative_to(path).as_posix() if path.is_dir() else picture.name
            unique, number = name, 2
            while unique in taken:  # of another folder: no overlay is overwritten
                unique, number = f"{number}/{name}", number + 1
            if picture not in named:
                named[picture] = unique
                taken.add(unique)
    if not named:
        raise InputError(f"{', '.join(map(str, given))} holds no picture "
                         f"({', '.join(sorted(layout.SUFFIXES))})")
    return [Source(path, name) for path, name in named.items()]


def _pictures(folder: Path) -> list[Path]:
    """Also those whose names do not say so: a file that nobody looks at would be taken as good."""
    others = layout.below(folder, images=False)
    return sorted([*layout.below(folder), *filter(reading.is_picture, others)])


def begin(run: Reopened, out: Path) -> list[Prediction]:
    """Make the folder, or go on in it: what an earlier call with the same run has predicted there.
    Pictures that could not be read are tried again.

    Raises:
        InputError: where the folder cannot be written, or holds another run's predictions.
    """
    table, about = out / "predictions.csv", out / "predictions.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        kept = _rows(table)
        same = about.exists() and {**files.read_json(about), "predictions": []} == _about(run, [])
        if table.exists() and not same:
            raise InputError(f"{out} holds predictions of another run, or of an older one; give "
                             "another --out")
        # Before the table: a table without it is not known to be this run's.
        files.write_json(about, _about(run, kept))
        with files.atomic_path(table) as temporary:
            with temporary.open("w", newline="", encoding="utf-8") as stream:
                csv.DictWriter(stream, COLUMNS).writeheader()
                csv.DictWriter(stream, COLUMNS).writerows(map(_row, kept))
    except OSError as error:
        raise InputError(f"cannot write in {out} ({error.strerror or error}); make it writable, or "
                         "give another --out") from error
    return kept


def predict(run: Reopened, given: typing.Iterable[Source], out: Path, *,
            ahead: int = AHEAD) -> typing.Iterator[Prediction]:
    """Score pictures one by one: yields each prediction after its row is in out/predictions.csv and
    its overlay in out/overlays/.

    Overlays are tinted by the map, outlined where it exceeds what one good part in twenty reaches
    anywhere; one colour scale for all. A picture that cannot be read has a row, too.

    Args:
        ahead: pictures to decode in advance; 0 where the next may be long in coming.
    """
    table = (out / "predictions.csv").open("a", newline="", encoding="utf-8")
    with table as stream, ThreadPoolExecutor(2) as pool:
        for source, decoded in _ahead(pool, given, run.config, ahead):
            try:
                untrusted.check_name(str(source.path))
                picture = decoded()
            except Exception as error:  # whatever a decoder trips over, the file is named
                problem = untrusted.sanitized(str(error) or type(error).__name__)
                prediction = Prediction(untrusted.sanitized(source.path), problem=problem)
            else:
                prediction = _predicted(run, source, picture, out)
            csv.DictWriter(stream, COLUMNS).writerow(_row(prediction))
            stream.flush()
            yield prediction


def end(run: Reopened, predictions: typing.Sequence[Prediction], out: Path) -> None:
    """out/predictions.json: how it was decided, and every prediction."""
    files.write_json(out / "predictions.json", _about(run, predictions))


def watched(folder: Path, seen: typing.Collection[str],
            stop: threading.Event) -> typing.Iterator[Source]:
    """The pictures of a folder, and whatever is written into it until `stop` is set; those whose
    path is in `seen` are left out."""
    done, states = set(seen), dict[Path, tuple[int, int]]()
    while not stop.is_set():
        for path in layout.below(folder):
            with contextlib.suppress(FileNotFoundError):  # moved away meanwhile
                state = (path.stat().st_size, path.stat().st_mtime_ns)
                if str(path) in done:
                    continue
                quiet = time.time() - path.stat().st_mtime > POLL_S
                if states.get(path) == state or quiet:  # a camera has finished writing it
                    done.add(str(path))
                    yield Source(path, path.relative_to(folder).as_posix())
                states[path] = state
        stop.wait(POLL_S)


def exit_code(predictions: typing.Sequence[Prediction]) -> int:
    """1: an anomaly was found; 3: none was, but some picture could not be read; 0: all are good."""
    if any(one.verdict == "anomalous" for one in predictions):
        return 1
    return 3 if any(one.problem for one in predictions) else 0


def _predicted(run: Reopened, source: Source, picture: torch.Tensor, out: Path) -> Prediction:
    scores, maps = run.score_with_maps(picture[None])
    threshold, p_value = run.threshold, float(run.threshold.p_values(scores)[0])
    verdict = "anomalous" if threshold.exceeded(scores)[0] else "good"
    folder, _, name = source.name.rpartition("/")
    if len(os.fsencode(name)) > LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    target = out / "overlays" / folder / f"{name}.jpg"
    target.parent.mkdir(parents=True, exist_ok=True)
    overlays.save(overlays.overlay(picture.permute(1, 2, 0).numpy(), maps[0], low=run.decision.low,
                                   level=run.decision.level), target, SIDE)
    return Prediction(str(source.path), float(scores[0]), None if math.isnan(p_value) else p_value,
                      "" if math.isinf(threshold.value) else verdict)


def _ahead(pool: ThreadPoolExecutor, given: typing.Iterable[Source], config: Config, ahead: int
           ) -> typing.Iterator[tuple[Source, typing.Callable[[], torch.Tensor]]]:
    """Every source with a function that waits for its picture, `ahead` of them being decoded."""
    grey_range = reading.parsed(config.grey_range)

    def decode(path: Path) -> torch.Tensor:
        pixels, extent = reading.read(path, config.image_size, grey_range)
        if reading.is_outside(extent, grey_range):
            log.warning("%s: its values, from %g to %g, exceed those of the run, which are from %g "
                        "to %g, and are clipped", untrusted.sanitized(path), *extent, *grey_range)
        # of a run of an earlier version nobody knows what it learned from
        if not extent and grey_range not in (None, run_folder.SIXTEEN_BITS):
            log.warning("%s has 8 bits, and what the run learned from has more: its score may mean "
                        "nothing", untrusted.sanitized(path))
        return torch.from_numpy(pixels.copy())

    waiting: list[tuple[Source, typing.Any]] = []
    for source in given:
        waiting.append((source, pool.submit(decode, source.path)))
        if len(waiting) > ahead:
            first, future = waiting.pop(0)
            yield first, future.result
    for first, future in waiting:
        yield first, future.result


def _about(run: Reopened, predictions: typing.Sequence[Prediction]) -> dict[str, typing.Any]:
    value = run.threshold.value
    return {"configuration": run.config.name, "category": run.config.category,
            "seed": run.config.seed, "score": run.decision.score,
            "threshold": None if math.isinf(value) else value,
            "target_fpr": run.config.target_fpr,
            "calibration_images": len(run.threshold.calibration),
            "predictions": [dataclasses.asdict(one) for one in predictions]}


def _row(one: Prediction) -> dict[str, typing.Any]:
    # The same file, and no formula in a spreadsheet.
    path = f"./{one.path}" if one.path.startswith(untrusted.FORMULA) else one.path
    values = dataclasses.asdict(one) | {"path": path}
    return {key: "" if value is None else value for key, value in values.items()}


def _rows(table: Path) -> list[Prediction]:
    """The whole rows of a table of predictions, those of unreadable pictures left out: a killed
    call may have left half a line."""
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("score") and row["problem"] == ""]
    return [Prediction(str(Path(row["path"])), float(row["score"]),
                       float(row["p_value"]) if row["p_value"] else None, row["verdict"])
            for row in rows]
