"""A finished run's detector again, from its folder alone."""
from __future__ import annotations

import contextlib
import dataclasses
import functools
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adlib.config import OWN, Config, InputError, did_you_mean, log
from adlib.data import files, frame, layout, masks, part, reading, untrusted
from adlib.data.frame import Frame
from adlib.evaluation.calibration import Decision, score_table, score_with_maps
from adlib.evaluation.conditions import Conditions
from adlib.evaluation.conformal import Threshold, min_calibration_size
from adlib.models import registry
from adlib.models.autoencoders import Autoencoder
from adlib.models.backbone import OnBackbone
from adlib.models.detector import Detector, Images, as_tensor, load_state
from adlib.models.foreign import Foreign
from adlib.runs import run_folder


class Decoded(typing.NamedTuple):
    """A picture, uint8 [3,h,w], or [4,h,w] with 255 in its fourth channel where a pixel counts."""

    whole: torch.Tensor  # S pixels a side
    given: torch.Tensor  # what the detector is given: the same, or of fit tile at its own size
    size: tuple[int, int]  # of the file, as it is shown: height, width


@dataclasses.dataclass(frozen=True, eq=False)
class Reopened:
    """A finished run's detector, and what it decided without labels."""

    config: Config
    detector: Detector
    decision: Decision
    looked_at: np.ndarray | None = None  # what roi and ignore left to be looked at: bool [h,w]
    before: dict[str, float] | None = None  # of a recalibrated one: threshold, what it refused

    @property
    def threshold(self) -> Threshold:
        return self.decision.threshold

    def at(self, target_fpr: float) -> Reopened:
        """The same, deciding for another false-positive rate, in (0,1).

        Raises:
            InputError: for a rate that its calibration cannot support.
        """
        threshold = self.threshold.at(target_fpr)
        if not 0 < target_fpr < 1:
            raise InputError(f"a false-positive rate of {target_fpr:g} was asked for; give a share "
                             "between 0 and 1, such as 0.01")
        if not threshold.is_attainable:
            n = len(threshold.calibration)
            least = (f"they support {threshold.least_target_fpr:g} at the least" if n else
                     "run its configuration with a held_out above 0")
            raise InputError(f"a false-positive rate of {target_fpr:g} takes "
                             f"{min_calibration_size(target_fpr)} calibration images and this run "
                             f"has {n}; {least}")
        thresholds = self.decision.thresholds | {self.decision.score: threshold}
        return dataclasses.replace(
            self, decision=dataclasses.replace(self.decision, thresholds=thresholds))

    @functools.cached_property
    def frames(self) -> list[Frame]:
        """The frame of whole pictures and, of fit tile, of what the detector is given."""
        return [one for one in part.frames(self.config, self.looked_at) if one]

    def decode(self, file: reading.File) -> Decoded:
        """A picture's file as the run was shown its own. Raises as reading.read."""
        grey_range = reading.parsed(self.config.grey_range)
        pixels, extent = reading.laid(file, self.frames, grey_range)
        name = untrusted.sanitized(getattr(file, "name", file))
        if reading.is_outside(extent, grey_range):
            log.warning("%s: its values, from %g to %g, exceed those of the run, which are from %g "
                        "to %g, and are clipped", name, *extent, *grey_range)
        # Of a run of an earlier version nobody knows what it learned from.
        if not extent and grey_range not in (None, run_folder.SIXTEEN_BITS):
            log.warning("%s has 8 bits, and what the run learned from has more: its score may mean "
                        "nothing", name)
        whole, *tiled = (torch.from_numpy(one.copy()) for one in pixels)
        return Decoded(whole, *tiled or [whole], masks.shown_size(file))

    def keep_no_features(self) -> None:
        """Of the pictures to come: they are not seen again."""
        for module in (*self.detector.modules(), *filter(None, [self.decision.foreign])):
            module.keeps_features = False

    def scores(self, given: Images) -> np.ndarray:
        """uint8 [N,3,S,S], or what else the detector is given -> float64 [N], higher = more
        anomalous."""
        table = score_table(self.detector, self.decision.scale, given)
        return table[self.decision.score].to_numpy()

    def foreign(self, given: Images) -> tuple[np.ndarray, np.ndarray]:
        """Does each of uint8 [N,3,S,S] not show the part? The p-values, float64 [N], NaN where that
        is not known, and in a word why: "" (it does), `absent` or `unlike`, object [N]."""
        threshold, whole = self.decision.foreign_threshold, as_tensor(given)
        if threshold is None:
            return np.full(len(whole), np.nan), np.full(len(whole), "", object)
        model = self.decision.foreign
        features = model.features(whole)
        distances = model.distances(features).numpy()
        why = np.where(model.is_empty(features).numpy(), "absent", "unlike").astype(object)
        why[~threshold.exceeded(distances)] = ""
        return threshold.p_values(distances), why

    def score_with_maps(self, given: Images) -> tuple[np.ndarray, np.ndarray]:
        """The scores, and the smoothed maps that they are read off, in the frame of whole
        pictures: float32 [N,S,S]."""
        table, maps = score_with_maps(self.detector, self.decision, given, self.config.image_size)
        return table[self.decision.score].to_numpy(), maps


def existing(config: Config) -> Config:
    """A notebook's, with the category of the run that it is about: without one, the first that has
    a finished run so named and seeded. Raises InputError where there is no such run."""
    if config.category and run_folder.status(run_folder.folder(config)).state != "missing":
        return config  # an unfinished one is told of by `reopen`
    finished = [run.parts[-3:] for run in run_folder.all_runs(
        run_folder.reports_dir(config.reports)) if run_folder.numbers(run).state == "finished"]
    for category, *run in finished:
        if run == [config.name, f"seed-{config.seed}"] and not config.category:
            return dataclasses.replace(config, category=category)
    raise no_such_run(config, list(map("/".join, finished)))


def no_such_run(config: Config, finished: list[str]) -> InputError:
    """Where a notebook asks for a run that is not among the finished ones, each as
    "category/name/seed-n"; a newcomer's own may lie in the scratch folder."""
    reports = run_folder.reports_dir(config.reports)
    scratch, wanted = reports / run_folder.SCRATCH, "/".join(
        [config.category or "(any category)", config.name, f"seed-{config.seed}"])
    said = f"there is no finished run in {reports}; run `adlib run params/grids/quick.yaml` first"
    if finished:
        said = (f"there is no finished run {wanted} in {reports}; run its configuration first, or "
                "set category, name and seed")
    if run_folder.all_runs(scratch):
        said += (f"; what was run in JupyterLab without save_as is in {scratch}: give this folder "
                 "as reports to look at that")
    return InputError(said + (did_you_mean(wanted, finished) if finished else ""))


def reopen(folder: Path) -> Reopened:
    """The detector of a finished run; neither its images nor its pretrained weights are needed.

    Raises:
        InputError: for a run that has not finished, or that cannot be reopened.
    """
    status, stands = run_folder.status(folder), run_folder.numbers(folder)
    if status.state == "missing":
        raise InputError(f"{folder} is no folder of a run; give one such as "
                         "reports/runs/hazelnut/fused/seed-0")
    if stands.state != "finished":
        said = ": ".join(filter(None, (status.state, status.reason)))
        raise InputError(f"{folder} holds no finished run ({said}); " + (
            "wait until it has ended" if status.state == "running" else
            "run its configuration first"))
    if status.state == "failed":
        log.warning("%s: the last try at this run failed (%s); this is the detector from before",
                    folder, status.reason)
    with _reading(folder / "run.json"):
        about, config = run_folder.manifest(folder), run_folder.config_of(folder)
        made_with = about["weights"]
    measured = files.read_json(folder / "metrics.json")
    # A run of an earlier version notes none; of these a user's own detector may not have been kept.
    noted = about.get("reopened_from", ["model.pt"] * (not OWN.fullmatch(config.model)))
    for name in noted:  # a copy without large files, say
        if not (folder / name).exists():
            raise InputError(f"{folder / name} is missing; put it there, or run the run's "
                             "configuration again with --force")
    if not (folder / "model.pt").exists():
        raise InputError(f"{folder} cannot be reopened: its detector, {config.model}, offers "
                         "neither a torch state dict nor state() and load(state) "
                         "(docs/your_detector.md)")
    with _reading(folder / "metrics.json"):
        decision, before = _decision(measured, config.target_fpr)
    with _reading(folder / "model.pt"):
        detector = _detector(folder, config, about)
    if (kept := folder / "conditions.json").exists():  # a run of an earlier version has none
        with _reading(kept):
            usual = Conditions.from_dict(files.read_json(kept))
            decision = dataclasses.replace(decision, conditions=usual)
    decision = dataclasses.replace(decision, foreign=_foreign(folder, config))
    detector.weights = made_with
    return Reopened(config, detector.eval(), decision, frame.kept(folder / run_folder.LOOKED_AT),
                    before)


@contextlib.contextmanager
def _reading(path: Path) -> typing.Iterator[None]:
    """Whatever a damaged file raises (UnpicklingError, KeyError, ...), as a sentence that names
    it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {str(error)[:80]}".split())
        raise InputError(f"{path} cannot be read ({why}); run its configuration again with "
                         "--force") from error


def _decision(measured: dict[str, typing.Any], target_fpr: float
              ) -> tuple[Decision, dict[str, float] | None]:
    """What metrics.json says was decided; of a recalibrated run also what was before."""
    maps, score = measured["maps"], measured["chosen"]["score"]
    return Decision(pd.DataFrame(measured["label_free"]), measured["score"], score,
                    {name: tuple(pair) for name, pair in maps["scale"].items()},
                    {score: Threshold.recorded(measured, target_fpr)}, {}, maps["low"],
                    maps["level"]), measured["calibration"].get("before")


def _detector(folder: Path, config: Config, about: dict[str, typing.Any]) -> Detector:
    state = torch.load(folder / "model.pt", weights_only=True, map_location="cpu")
    own_weights = "none" if _is_current(state) else config.weights
    detector = registry.build(dataclasses.replace(config, weights=own_weights, loss="",
                                                  precision=_precision(config, about)))
    if not _is_current(state) and _digest(detector.weights) != _digest(about["weights"]):
        raise InputError(f"{folder} was made with other weights ({about['weights']}; now: "
                         f"{detector.weights}); give the same ones, or run its configuration "
                         f"again")
    load_state(detector, _current(state, detector))
    detector.is_fitted = True
    return detector


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
                         "again first")
    if (gone := about["data"].get("left_out")) is not None:  # as it was decided then
        opened = opened.without(gone)
    return run, opened


def _foreign(folder: Path, config: Config) -> Foreign | None:
    path = folder / "foreign.pt"
    if not path.exists():
        if run_folder.manifest(folder).get("data", {}).get("counts", {}).get("train") == 1:
            return None  # one good picture says nothing of what others may look like
        log.warning("%s was made before pictures that do not show the part could be told; run its "
                    "configuration again to have them refused", folder)
        return None
    foreign = Foreign(dataclasses.replace(config, weights="none"))
    with _reading(path):
        load_state(foreign, torch.load(path, weights_only=True, map_location="cpu"))
    return foreign.eval()


def _precision(config: Config, about: dict[str, typing.Any]) -> str:
    """That of the run, wherever it is reopened: its threshold is of scores that are rounded so."""
    return about.get("precision", config.precision)


def _digest(weights: str) -> str:
    """What distinguishes two weights: a file's name does not, nor why there are random ones."""
    source, _, which = weights.partition(":")
    return source if source == "random" else which.rpartition(":")[2] or source


def _is_current(state: dict[str, torch.Tensor]) -> bool:
    return any(
        key.startswith(("network.", "backbone.", "good", "subject.", "_extra_state", "model.",
                        "detector."))
        for key in state)


def _current(state: dict[str, torch.Tensor], detector: Detector) -> dict[str, torch.Tensor]:
    """A state dict by today's names; up to version 0.1 it held the network, or the head, alone."""
    if not _is_current(state):
        log.warning("this run was made by adlib 0.1, which the next version will no longer read; "
                    "run its configuration again")
        autoencoder = isinstance(detector, Autoencoder)
        prefix = "network" if autoencoder else "head" if hasattr(detector, "head") else "decoder"
        kept = detector.state_dict() if isinstance(detector, OnBackbone) else {}
        state = {key: tensor for key, tensor in kept.items() if key.startswith("backbone.")} | {
            f"{prefix}.{key}": tensor for key, tensor in state.items()}
    # Earlier runs of `fused` compare no whole pictures, and what was never fitted says nothing of
    # them; nor do they know how far apart good patches lie.
    for bank in [key for key in state if key.endswith("head.classifier.memory.bank")]:
        head = bank.removesuffix("classifier.memory.bank")
        state = {f"{head}local_scale": torch.ones(len(state[bank]))} | {
            key: tensor for key, tensor in detector.state_dict().items()
            if key.startswith(f"{head}whole.")} | state
    return state
