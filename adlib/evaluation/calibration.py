"""Everything a run can decide without a test label: which score, and from which score on a part is
called anomalous."""
from __future__ import annotations

import dataclasses
import itertools
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adlib.config import FITTED_IN_SECONDS, REFERENCE_SCORE, Config
from adlib.data import images, layout
from adlib.data.synthetic import anomalies
from adlib.evaluation import conformal
from adlib.models import anomaly_maps, featurespace, training
from adlib.models import backbone as features

SYNTHETIC = 80  # anomalies put into held-out good images, to choose a score with
BATCH = features.CHUNK
# good images that the scale and the colours of the maps are from; more would only cost memory
SCALED_BY = 2 * BATCH


@dataclasses.dataclass(frozen=True)
class Decided:
    """What good images alone decide: before any test image is read."""

    ranking: pd.DataFrame  # score.label_free; only the column `score` where nothing is held out
    # the score of the configuration: the reference's for its autoencoders, distance.top1 in feature
    # space
    primary: str
    # the study's: an autoencoder's best one without a test label (score.choose), else the primary
    # one
    chosen: str
    scale: dict[str, tuple[float, float]]  # score.scale_of the held-out good images
    # train, held_out: paths, and a column a score
    splits: dict[str, tuple[list[Path], pd.DataFrame]]
    # the one colour scale of a run's pictures: good parts are at `low`, the median of the chosen
    # score's map on good images;
    low: float
    # what one good image in twenty exceeds somewhere; the scale ends at low + 2 * (level - low)
    level: float


@dataclasses.dataclass(frozen=True)
class Scored(Decided):
    """The same with the scores of every image of a category (splits: also test and train_bad), and
    p-values."""

    # {primary or chosen: {test, train_bad: [N]}}; NaN where nothing is held out
    p_values: dict[str, dict[str, np.ndarray]]
    calibration: int  # good images that the p-values are from
    how: str  # split | cross-conformal | none
    # float64 [calibration]: the chosen score of these images, by a detector that was not fitted on
    # them
    known: np.ndarray
    maps: np.ndarray  # float32 [N,S,S]: the chosen score's smoothed maps of the test images


def split_of(category: layout.Category, config: Config) -> dict[str, list[Path]]:
    """The paths of train, held_out, test and train_bad."""
    kept, held = training.split(len(category.train), config.held_out, config.seed)
    return {
        "train": [category.train[i] for i in kept], "held_out": [category.train[i] for i in held],
        "test": list(category.test), "train_bad": list(category.train_bad)
    }


def decide(scorer: anomaly_maps.Scorer, category: layout.Category, config: Config) -> Decided:
    """Rank the scores by synthetic anomalies in held-out good images, and choose an autoencoder's;
    no test image is read.

    The good images the detector was fitted on are never used for that. Where nothing is held out,
    the primary score stays; so it does in feature space, where the one map has one reduction that
    was fixed in advance.
    """
    paths = split_of(category, config)
    good = images.load(paths["held_out"] or paths["train"], config.image_size)
    found = [scorer(part) for part in good[:SCALED_BY].split(BATCH)]
    maps = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    scale = anomaly_maps.scale_of(maps)
    smoothed = anomaly_maps.all_maps(maps, scale)
    scored = pd.concat(
        [anomaly_maps.reduced(maps, smoothed),
         tables(scorer, good[SCALED_BY:], scale)], ignore_index=True)

    primary = REFERENCE_SCORE if REFERENCE_SCORE in scored else "distance.top1"
    if paths["held_out"]:
        changed, _, kinds = anomalies.insert(good, SYNTHETIC, seed=config.seed)
        ranking = anomaly_maps.label_free(scored, tables(scorer, changed, scale), kinds)
        chosen = anomaly_maps.choose(ranking, primary) if primary == REFERENCE_SCORE else primary
        splits = {
            "train": tables(scorer, images.load(paths["train"], config.image_size), scale),
            "held_out": scored
        }
    else:
        ranking, chosen, splits = pd.DataFrame(
            {"score": scored.columns}), primary, {"train": scored}
    normal = map_of(smoothed, config.image_size, chosen)
    return Decided(ranking, primary, chosen, scale,
                   {name: (paths[name], table)
                    for name, table in splits.items()}, float(np.median(normal)),
                   float(np.quantile(normal.max(axis=(1, 2)), 0.95)))


def scores(scorer: anomaly_maps.Scorer, category: layout.Category, config: Config) -> Scored:
    """Decide, then score the evaluation splits; their p-values are from the held-out good images.
    """
    decided = decide(scorer, category, config)
    paths = split_of(category, config)
    test, seen = score_with_maps(scorer, images.load(paths["test"], config.image_size),
                                 decided.chosen, decided.scale)
    unseen = {"test": (paths["test"], test)} if paths["test"] else {}
    if paths["train_bad"]:
        unseen["train_bad"] = (paths["train_bad"],
                               tables(scorer, images.load(paths["train_bad"], config.image_size),
                                      decided.scale))
    splits = decided.splits | unseen
    known = splits["held_out"][1] if "held_out" in splits else None
    p_values = {
        name: {
            split: np.full(len(table), np.nan) if known is None else conformal.p_values(
                known[name].to_numpy(), table[name].to_numpy())
            for split, (_, table) in unseen.items()
        }
        for name in (decided.primary, decided.chosen)
    }
    return Scored(**{**vars(decided), "splits": splits}, p_values=p_values,
                  calibration=0 if known is None else len(known),
                  how="none" if known is None else "split",
                  known=np.zeros(0) if known is None else known[decided.chosen].to_numpy(),
                  maps=seen)


def tables(scorer: anomaly_maps.Scorer, pictures: torch.Tensor,
           scale: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """score.table of any number of images, a batch at a time: maps of all of them at once would not
    fit into memory."""
    return _stacked(
        (anomaly_maps.table(scorer(part), scale) for part in pictures.split(BATCH) if len(part)),
        len(pictures))


def map_of(smoothed: dict[str, np.ndarray], size: int, name: str) -> np.ndarray:
    """The map of a score ("ssim.max" -> ssim) at the images' own size, of score.all_maps: {map:
    [N,h,w]} -> float32 [N,size,size]."""
    chosen = torch.from_numpy(smoothed[name.split(".")[0]]).float()[:, None]
    return torch.nn.functional.interpolate(chosen, size=size, mode="bilinear")[:, 0].numpy()


def score_with_maps(scorer: anomaly_maps.Scorer, pictures: torch.Tensor, name: str,
                    scale: dict[str, tuple[float, float]]) -> tuple[pd.DataFrame, np.ndarray]:
    """`tables` and the score's smoothed maps of the same pictures in one go: a row an image, and
    float32 [N,S,S]."""
    kept = np.empty((len(pictures), *pictures.shape[-2:]), np.float32)

    def rows() -> typing.Iterator[pd.DataFrame]:
        for start in range(0, len(pictures), BATCH):
            found = scorer(pictures[start:start + BATCH])
            smoothed = anomaly_maps.all_maps(found, scale)
            kept[start:start + BATCH] = map_of(smoothed, pictures.shape[-1], name)
            yield anomaly_maps.reduced(found, smoothed)

    return _stacked(rows(), len(pictures)), kept


def _stacked(parts: typing.Iterator[pd.DataFrame], count: int) -> pd.DataFrame:
    """Tables of numbers that come one by one, `count` rows in all, as one; no columns where none
    comes.

    Into a block that is there beforehand: small blocks that stay, among the large ones of maps that
    go, keep glibc from using the room of those again, and cost 16 KB an image.
    """
    first = next(parts, pd.DataFrame())
    values, filled = np.empty((count, first.shape[1])), 0
    for table in itertools.chain([first], parts):
        values[filled:filled + len(table)] = table.to_numpy()
        filled += len(table)
    return pd.DataFrame(values, columns=first.columns)


def cross_p_values(scored: Scored, fitted: featurespace.Fitted, category: layout.Category,
                   config: Config) -> Scored:
    """The same with p-values from every good image, where those held out cannot support the asked
    false-alarm rate.

    Five detectors, each judged by the fifth of the good images it has not seen (Vovk 2015). Only
    for detectors that take seconds to fit, on up to featurespace.MOST images; others, and those
    whose held-out images suffice, come back unchanged.
    """
    enough = scored.how == "none" or conformal.is_attainable(scored.calibration, config.target_fpr)
    if enough or config.model not in FITTED_IN_SECONDS or not 2 * featurespace.FOLDS <= len(
            category.train) <= featurespace.MOST:
        return scored
    wanted = list(scored.p_values[scored.primary])
    kept, _ = training.split(len(category.train), config.held_out, config.seed)
    folds = conformal.folds(len(category.train), featurespace.FOLDS, config.seed)
    found = featurespace.cross_maps(
        fitted, images.load(category.train, config.image_size), kept,
        [images.load(scored.splits[name][0], config.image_size) for name in wanted], folds)
    tables_of = [(anomaly_maps.table(
        {"distance": held}, {}), [anomaly_maps.table({"distance": other}, {}) for other in others])
                 for held, others in found]
    p_values = {
        name: {
            split: conformal.cross_p_values([held[name].to_numpy() for held, _ in tables_of],
                                            [others[i][name].to_numpy() for _, others in tables_of])
            for i, split in enumerate(wanted)
        }
        for name in {scored.primary, scored.chosen}
    }
    known = np.concatenate([held[scored.chosen].to_numpy() for held, _ in tables_of])
    return dataclasses.replace(scored, p_values=p_values, calibration=len(category.train),
                               how="cross-conformal", known=known)
