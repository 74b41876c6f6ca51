"""Everything that good images alone decide: which score, and from which value on a part is called
anomalous. No test image and no label is read here."""
from __future__ import annotations

import dataclasses
import functools
import itertools
import typing

import numpy as np
import pandas as pd
import torch

from adlib.config import REFERENCE_SCORE, InputError
from adlib.data import corruptions, files, siblings
from adlib.data.part import ImageSet, Part
from adlib.data.synthetic import anomalies
from adlib.evaluation.auroc import auroc, undecided
from adlib.evaluation.conditions import Conditions
from adlib.evaluation.conformal import TailThreshold, Threshold, folds
from adlib.evaluation.refusal import (
    counted_first,
    fit_foreign,
    known_good,
    one_budget,
    threshold_of,
)
from adlib.models import anomaly_maps
from adlib.models.anomaly_maps import Scale, View
from adlib.models.detector import OWN, Detector, Images, batches, check_fitted, parted
from adlib.models.fast.device import CHUNK
from adlib.models.foreign import Foreign

SYNTHETIC = 80  # anomalies put into held-out good images, to choose a score with
SCALED_BY = 2 * CHUNK  # good images that the scale and the colours of the maps are from
FIRST_BYTES = 2e8  # of those images' maps, which are kept until the scale is known
TILES, FEWEST_SYNTHETIC = 2000, 16  # looked at for those, of images of many tiles; and at least
FOLDS = 3  # of the cross-conformal scores: what is trained again for each takes its time
Keep = typing.Callable[[np.ndarray, int], object]
BatchMaps = tuple[dict[str, np.ndarray], View]  # of a batch of images, and how these are looked at


@dataclasses.dataclass(frozen=True, eq=False)
class Decision:
    """What was decided without a label.

    ranking: a row a score: `score`, its label-free AUROC `all`, and that of every kind of synthetic
        anomaly; only the column `score` where nothing was held out.
    reference: the configuration's own score: the mean squared error of autoencoders, `top1` of the
        first map of others.
    score: the one that the study uses: chosen without labels where there are several maps, else
        fixed in advance.
    thresholds: {reference and score: Threshold}.
    good_scores: {train, held_out: a column a score, a row an image}.
    conditions: how the good pictures were taken; None in a run of an earlier version, or of one
        good picture.
    low, level: the one colour scale of a run's pictures: the map's median on good images, and what
        one good image in twenty exceeds somewhere; it ends at low + 2 (level - low).
    foreign: what tells pictures that do not show the part; None in the same runs.
    synthetic: the scores of the synthetic anomalies, which `ranking` sets against those of the
        held-out images: a column a score; None where nothing was held out, and in a reopened run.
    synthetic_pixels: how many of the file's pixels each of them covers.
    """

    ranking: pd.DataFrame
    reference: str
    score: str
    scale: Scale
    thresholds: dict[str, Threshold]
    good_scores: dict[str, pd.DataFrame]
    low: float
    level: float
    conditions: Conditions | None = None
    foreign: Foreign | None = None
    synthetic: pd.DataFrame | None = None
    synthetic_pixels: np.ndarray | None = None

    @functools.cached_property
    def foreign_threshold(self) -> TailThreshold | None:
        """From which distance on a picture is foreign; None where too few good ones say so."""
        return threshold_of(self.foreign)

    def calls_foreign(self, images: torch.Tensor) -> np.ndarray:
        """Which of uint8 [N,3,S,S] are foreign: bool [N]. Only where there is a
        foreign_threshold."""
        distances = self.foreign.distances(self.foreign.features(images))
        return self.foreign_threshold.exceeded(distances.numpy())

    @property
    def chosen_without_labels(self) -> bool:
        """Was the score chosen among those of several maps? Else it was fixed in advance."""
        maps = {name.partition(".")[0] for name in self.ranking["score"]}
        several = self.reference == REFERENCE_SCORE or len(maps) > 1
        return several and ":" not in self.score

    @property
    def undecided(self) -> list[str]:
        """The scores that the synthetic anomalies cannot tell apart from the one in use: of several
        the choice among these is unsure."""
        if self.synthetic is None:
            return []
        both = pd.concat([good := self.good_scores["held_out"], self.synthetic])
        return undecided(self.score, np.repeat([0, 1], [len(good), len(self.synthetic)]),
                     {name: both[name].to_numpy() for name in both})

    @property
    def threshold(self) -> Threshold:
        """Of the score that the study uses."""
        return self.thresholds[self.score]


def calibrate(detector: Detector, part: Part) -> Decision:
    """Decide everything from good images that the detector was not fitted on.

    The scores are ranked by how well they separate held-out good images from synthetic anomalies
    put into them. The threshold is from all good images (cross-conformal) where the detector can
    do without each of them in seconds, else from the held-out ones; from these, too, where they are
    enough and more than a fold. With `vary` it is from these and their disturbed copies together.
    Where nothing is held out, the reference score stays and there is no threshold.

    Raises:
        InputError: for a detector that is not fitted.
    """
    check_fitted(detector)
    config, held = part.config, len(part.held_out)
    foreign = None
    if len(part.good) > 1:
        foreign = fit_foreign(Foreign(config), *known_good(part), seed=config.seed)
    images = part.held_out if held else part.train
    some = images.select(range(min(SCALED_BY, len(images))))
    first: list[BatchMaps] = []

    def looked() -> typing.Iterator[BatchMaps]:
        for _, maps, view in _batches(detector, some):
            if sum(one.nbytes for known, _ in first for one in known.values()) < FIRST_BYTES:
                first.append((maps, view))
            yield maps, view

    scale = anomaly_maps.scale_of(looked())
    shown: dict[str, list[np.ndarray]] = {}

    def keep(smoothed: anomaly_maps.Maps, start: int) -> None:
        for name in smoothed if start < SCALED_BY else ():
            shown.setdefault(name, []).append(
                anomaly_maps.display_map({name: smoothed[name]}, name, config.image_size))

    refitted = _refitted(detector, part, scale)
    own = refitted and refitted[2]  # of all good images, or None
    good = score_table(detector, scale, images if own is None else some, keep, first)
    if own is not None:
        good = own.iloc[part.held_out_index.numpy()].reset_index(drop=True)
    reference = REFERENCE_SCORE if REFERENCE_SCORE in good else f"{next(iter(scale))}.top1"
    ranking, score = pd.DataFrame({"score": good.columns}), reference
    good_scores, synthetic, pixels = {"train": good}, None, None
    if held:
        changed, pixels, kinds = _synthetic(detector, images, config.seed)
        synthetic = score_table(detector, scale, changed)
        ranking = label_free(good, synthetic, kinds)
        score = choose(ranking, reference) if len(scale) > 1 else reference
        good_scores = {"train": score_table(detector, scale, part.train) if own is None else
                       own.iloc[part.train_index.numpy()].reset_index(drop=True), "held_out": good}
    if detector.own_score is not None:
        score = detector.own_score.where
    seen = anomaly_maps.map_of({name: np.concatenate(maps)[:SCALED_BY]
                                for name, maps in shown.items()}, score)
    thresholds = _thresholds(detector, part, scale, good if held else good[:0], refitted,
                             (reference, score), foreign)
    return Decision(
        ranking, reference, score, scale, thresholds, good_scores, float(np.median(seen)),
        float(np.quantile(seen.max(axis=(1, 2)), 0.95)),
        Conditions.of(part.good.tensor) if foreign else None, foreign, synthetic, pixels)


def label_free(good: pd.DataFrame, anomalous: pd.DataFrame,
               kinds: typing.Sequence[str]) -> pd.DataFrame:
    """How well each score separates held-out good images from synthetic anomalies.

    Args:
        good, anomalous: tables of the same columns, a column a score. kinds: of the anomalies.

    Returns:
        A row a score, in the order of the columns: `score`, an AUROC of every kind, and `all`,
        their mean, so that no kind counts for more than another.
    """
    kinds, rows = np.asarray(kinds), []
    for name in good.columns:
        row: dict[str, typing.Any] = {"score": name}
        for kind in dict.fromkeys(kinds):
            values = anomalous[name].to_numpy()[kinds == kind]
            labels = np.r_[np.zeros(len(good), int), np.ones(len(values), int)]
            row[kind] = auroc(labels, np.r_[good[name], values])
        row["all"] = float(np.mean([row[kind] for kind in dict.fromkeys(kinds)]))
        rows.append(row)
    return pd.DataFrame(rows)


def choose(ranking: pd.DataFrame, reference: str) -> str:
    """The score that label_free ranks first; the reference score where none is better."""
    values = ranking.set_index("score")["all"]
    return reference if values[reference] == values.max() else str(values.idxmax())


def score_table(detector: Detector, scale: Scale, images: Images,
                keep: typing.Callable[[anomaly_maps.Maps, int], None] | None = None,
                first: typing.Sequence[BatchMaps] = ()) -> pd.DataFrame:
    """Every score of any number of images, a batch at a time: a row an image, a column a score.

    Args:
        keep: is also given the smoothed maps of each batch, and the number of its first image.
        first: the maps of the first batches, where they are known.
    """
    def tables() -> typing.Iterator[pd.DataFrame]:
        start = 0
        for pixels, maps, view in _batches(detector, images, first):
            smoothed = anomaly_maps.smoothed_maps(maps, scale, view)
            if keep:
                keep(smoothed, start)
            start += len(pixels)
            table = anomaly_maps.score_table(maps, smoothed, view)
            _add_own_score(table, detector, pixels, maps)
            yield table

    # Into a block that is there beforehand: small blocks that stay, among the large ones of maps
    # that go, keep glibc from using the room of those again, and cost 16 KB an image.
    scored = tables()
    head = next(scored, pd.DataFrame())
    values, filled = np.empty((len(images), head.shape[1])), 0
    for table in itertools.chain([head], scored):
        values[filled:filled + len(table)] = table.to_numpy()
        filled += len(table)
    return pd.DataFrame(values, columns=head.columns)


def chosen_scores(detector: Detector, decision: Decision, images: Images) -> np.ndarray:
    """The score that the study uses of any number of images: float64 [N]."""
    return score_table(detector, decision.scale, images)[decision.score].to_numpy()


def score_with_maps(detector: Detector, decision: Decision, images: Images, size: int = 0,
                    keep: Keep = lambda values, i: None) -> tuple[pd.DataFrame, np.ndarray]:
    """`score_table`, and the smoothed maps of decision.score in the frame of whole pictures:
    float32 [N,S,S].

    Args:
        size: S; 0 = the side of the images, or of an image set's whole pictures.
        keep: is also given the map of each image i, [h,w], as it is.
    """
    whole = images.framed if isinstance(images, ImageSet) and not size else images
    size = size or whole.shape[-1]
    maps = np.empty((len(images), size, size), np.float32)

    def put(smoothed: anomaly_maps.Maps, start: int) -> None:
        values = anomaly_maps.map_of(smoothed, decision.score)
        maps[start:start + len(values)] = anomaly_maps.display_map(smoothed, decision.score, size)
        for i, one in enumerate(values, start):
            keep(one, i)

    return score_table(detector, decision.scale, images, put), maps


def _batches(detector: Detector, images: Images, known: typing.Sequence[BatchMaps] = ()
             ) -> typing.Iterator[tuple[torch.Tensor, dict[str, np.ndarray], View]]:
    """Images [n,3,h,w] a batch at a time, their maps, which have nothing where nothing counts, and
    how they are looked at."""
    for i, (pixels, area) in enumerate(batches(images)):
        if i < len(known) and all(len(one) == len(pixels) for one in known[i][0].values()):
            yield pixels, *known[i]
            continue
        view = _view(detector, pixels, area)
        maps = _arrays(detector.anomaly_maps(pixels))
        yield pixels, {name: anomaly_maps.within(one, view) for name, one in maps.items()}, view


def _view(detector: Detector, pixels: torch.Tensor, area: torch.Tensor | None) -> View:
    share = None if detector.tile is None else detector.tile / pixels.shape[-1]
    return View(None if area is None or area.all() else area, share)


def _synthetic(detector: Detector, images: ImageSet, seed: int
               ) -> tuple[Images, np.ndarray, list[str]]:
    """SYNTHETIC anomalies put into good images, how many of the files' pixels each covers, and
    their kinds; with tiles, fewer into images of many, each into a square of a tile's size."""
    tiles = images.given[0][0].numel() // detector.tile**2 if detector.tile else 0
    n = max(FEWEST_SYNTHETIC, min(SYNTHETIC, TILES // tiles)) if tiles else SYNTHETIC
    changed, shares, kinds = anomalies.into(images.given, n, side=detector.tile, seed=seed)
    return changed, shares * [images.own_pixels(i % len(images)) for i in range(n)], kinds


def _arrays(maps: typing.Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in maps.items()}


def _add_own_score(table: pd.DataFrame, detector: Detector, images: torch.Tensor,
                   maps: anomaly_maps.Maps) -> None:
    """The user's own score as one more column, where there is one."""
    own = detector.own_score
    if own is None:
        return
    if own.parameters == 2:
        values = own(images.float() / 255, detector.reconstruct(images))
    else:
        values = own({name: torch.from_numpy(one) for name, one in maps.items()})
    with files.saying(f"{own.where}{own.line} gave no numbers", "give [N], a finite one an image"):
        values = np.asarray(values, float)
    if values.shape != (len(images), ) or not np.isfinite(values).all():
        what = "NaN or infinity" if values.shape == (len(images), ) else f"shape {values.shape}"
        raise InputError(f"{own.where}{own.line} gave {what} for {len(images)} images; give [N], a "
                         "finite number an image")
    table[own.where] = values


def cross_fitted(detector: Detector, part: Part) -> tuple[np.ndarray, typing.Iterator[
        dict[str, torch.Tensor]]] | None:
    """The good images that the threshold is from where it is from all of them, int64 [N] of
    part.good, and their maps by what was fitted without each, in that order, some at a time; None
    where it is from the held-out ones, or from none."""
    config, n, held = part.config, len(part.good), len(part.held_out)
    enough = Threshold(np.zeros(held), config.target_fpr).is_attainable
    # Fitted on more images than the detector in use, the folds' would find good images too usual.
    no_more = len(part.train) >= n - n // FOLDS
    # Of varied copies no fold could be left out: held-out ones, so varied, calibrate instead.
    if not held or enough and not no_more or n < 2 * FOLDS or detector.own_score or config.vary:
        return None
    good, area = part.good.given, None
    group = siblings.groups(good).numpy()  # siblings are held together
    parts = [(np.flatnonzero(np.isin(group, rest)), np.flatnonzero(np.isin(group, left)))
             for rest, left in folds(group.max() + 1, FOLDS, config.seed)]
    if isinstance(good, torch.Tensor):
        good, area = parted(good)
    more = {} if area is None else {"area": area}
    fitted = detector.cross_fitted_maps(good, part.train_index, parts, **more)
    return None if fitted is None else (np.concatenate([rest for _, rest in parts]), fitted)


def _thresholds(detector: Detector, part: Part, scale: Scale, held: pd.DataFrame,
                refitted: tuple[np.ndarray, pd.DataFrame, pd.DataFrame | None] | None,
                names: tuple[str, str], foreign: Foreign | None) -> dict[str, Threshold]:
    """Calibrated on held-out images, or cross-conformal on all good ones; see `calibrate`."""
    how, target_fpr, varied = "split" if len(held) else "none", part.config.target_fpr, False
    index: np.ndarray | torch.Tensor = part.held_out_index
    if refitted is not None:
        (index, held, _), how = refitted, "cross-conformal"
    if not len(held):
        return {name: Threshold(np.zeros(0), target_fpr, how) for name in names}
    chosen, distances = part.good.select(index), np.zeros(len(held))
    pixels = chosen.tensor
    if part.config.vary and Threshold(distances, target_fpr).is_attainable:
        held, varied = score_table(detector, scale, corruptions.every(chosen.given)), True
        pixels = corruptions.every(pixels)
    if foreign:  # all good images in their order are known
        features = (foreign.features(part.good.tensor)[index] if how == "cross-conformal" else
                    foreign.features(pixels))
        distances = foreign.distances(features).numpy()
    first = int(counted_first(foreign, distances, new=varied).sum())
    return {name: Threshold(one_budget(foreign, distances, held[name].to_numpy(), target_fpr,
                                       new=varied), target_fpr, how, first) for name in names}


def _refitted(detector: Detector, part: Part, scale: Scale
              ) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame | None] | None:
    """As `cross_fitted`, but the scores of each image; and, where these come along, those by the
    detector itself, in the order of part.good."""
    if (found := cross_fitted(detector, part)) is None:
        return None
    (order, fitted), start, tables = found, 0, {"": [], OWN: []}
    for maps in map(_arrays, fitted):
        n = len(next(iter(maps.values())))
        view, = (_view(detector, *one) for one in batches(
            part.good.select(order[start:start + n]), max(1, n)))
        for whose, rows in tables.items():
            some = {name.removeprefix(OWN): anomaly_maps.within(one, view)
                    for name, one in maps.items() if name.startswith(OWN) == bool(whose)}
            if some:
                rows.append(anomaly_maps.score_table(
                    some, anomaly_maps.smoothed_maps(some, scale, view), view))
        start += n
    left_out, own = (pd.concat(rows, ignore_index=True) if rows else None
                     for rows in tables.values())
    return order, left_out, None if own is None else own.iloc[np.argsort(order)]
