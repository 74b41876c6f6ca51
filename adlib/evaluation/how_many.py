"""How many good pictures does it take? The AUROC and the false alarms with few, and with more.

Features are computed once. Each good picture gets a small memory of its own (models.detectors: a
coreset of its cells and of those of its mirrored and turned views), and what every other picture
has to say is its distance to each of these. The memory of any set of pictures is then the smallest
of their distances: ten draws of every number cost nothing more. It is the memory of
`fused`, without its local scale and, of tiles, with all places together; the other terms would have
to be fitted for every draw.
"""
from __future__ import annotations

import typing

import numpy as np
import pandas as pd
import torch

from adlib.config import InputError
from adlib.data import siblings
from adlib.data.part import Part
from adlib.data.synthetic import anomalies
from adlib.evaluation import psychometric
from adlib.evaluation.auroc import auroc
from adlib.evaluation.calibration import FEWEST_SYNTHETIC, SYNTHETIC, label_free
from adlib.evaluation.conformal import Threshold
from adlib.evaluation.learning_curve import COUNTS
from adlib.evaluation.results import truth_of
from adlib.models import anomaly_maps, backbone, fused
from adlib.models.anomaly_maps import WHOLE, View
from adlib.models.backbone import OnBackbone
from adlib.models.coreset import coreset
from adlib.models.detector import Detector, Images, batches, parted

DRAWS = 10
PATCHES = 256  # that each picture's memory keeps
VIEWS = (0, 1, 2, 4)  # of each good picture: as it is, mirrored either way, and transposed
TILES = 32  # of a picture, that these are of
AT_ONCE = 16  # good pictures whose memories are searched: the products fit the processor's cache
MOST = 200  # good pictures that are drawn from
TESTED = 50  # test pictures of each class that are looked at
# Of pictures of many tiles fewer of all these, by the root of how many: it takes no longer.


def measure(detector: Detector, part: Part, *, counts: typing.Sequence[int] = COUNTS,
            draws: int = DRAWS) -> pd.DataFrame:
    """A row a number of good pictures and a draw of them.

    Returns:
        Columns pictures (good ones that there are), n, draw; label_free: AUROC of good pictures
        against synthetic anomalies, no picture being compared with itself or what it is made of,
        nor with their siblings;
        auroc: of the test images; good, anomalous: test images of each class; false_positives,
        found: how many of them exceed the threshold of the drawn pictures, each scored by the
        memory of the others; smallest: the share of the picture that a synthetic anomaly covers of
        whose size half are found at it. NaN where there are no labels, or too few pictures for a
        threshold.

    Raises:
        InputError: for a detector that does not look through the backbone.
    """
    if not isinstance(detector.of_squares, OnBackbone):
        raise InputError("how many pictures it takes is measured on the backbone's features, and "
                         f"{part.config.name} has none; take a configuration such as fused")
    random, first = np.random.default_rng(part.config.seed), part.good.given[0][0]
    fewer = max(1.0, first.numel() / detector.tile**2)**0.5 if detector.tile else 1.0
    good = part.good.select(np.sort(random.permutation(len(part.good))[:int(MOST / fewer)]))
    tested, truth = _tested(part, random, max(1, int(TESTED / fewer)))
    changed, sizes, kinds = anomalies.into(
        good.given, max(FEWEST_SYNTHETIC, int(SYNTHETIC / fewer)) if detector.tile else SYNTHETIC,
        side=detector.tile, seed=part.config.seed)
    n, synthetic = len(good), len(kinds)
    apart = np.zeros((n + synthetic + len(tested), n), bool)  # what no picture is compared with
    thing = siblings.groups(good.given).numpy()
    apart[:n] = thing[:, None] == thing
    for made_of in anomalies.sources(synthetic, n, seed=part.config.seed).T:
        apart[n:n + synthetic] |= thing[made_of, None] == thing
    drawn = [(draw, order[:count]) for draw, order in enumerate(
        random.permutation(n) for _ in range(draws)) for count in counts if count <= n]
    scores = np.array([[score(maps, index[~alone[index]], view) for _, index in drawn]
                       for (maps, view), alone in zip(_distances(detector, good.given, (
                           good.given, changed, part.test.select(tested).given)), apart,
                           strict=True)])
    return pd.DataFrame([
        {"pictures": len(part.good), "n": len(index), "draw": draw, **_figures(
            one, index, n, np.asarray(kinds), sizes, truth, part.config.target_fpr)}
        for (draw, index), one in zip(drawn, scores.T, strict=True)])


def _tested(part: Part, random: np.random.Generator, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of up to `most` test images of each class, and their labels."""
    labels = truth_of(part)
    chosen = [random.permutation(np.flatnonzero(labels == truth))[:most] for truth in (0, 1)]
    index = np.sort(np.concatenate(chosen)).astype(int)
    return index, labels[index]


@torch.no_grad()
def _distances(detector: Detector, good: Images, sets: typing.Iterable[Images]
               ) -> typing.Iterator[tuple[np.ndarray, View]]:
    """Of every image of some sets, as the detector is given them: of every cell to the nearest
    patch of each good picture, float32 [good,h,w], and how the image is looked at."""
    banks = [_bank(detector, image, i) for i, image in enumerate(good)]
    kept = max(map(len, banks))  # a picture of which little counts has fewer, some of them twice
    bank = torch.cat([one[torch.arange(kept) % len(one)] for one in banks])
    squares = bank.square().sum(dim=1)

    def to(images: torch.Tensor) -> dict[int, torch.Tensor]:
        maps = []
        for image in images:
            features = _features(detector, image[None])
            cells, nearest = features[0].flatten(1).T, []
            for start in range(0, len(bank), AT_ONCE * kept):
                some = slice(start, start + AT_ONCE * kept)
                nearest.append(torch.addmm(squares[some], cells, bank[some].T, alpha=-2)
                               .unflatten(1, (-1, kept)).amin(dim=2))
            away = torch.cat(nearest, dim=1) + cells.square().sum(dim=1, keepdim=True)
            maps.append(away.clamp_min(0).sqrt().T.unflatten(1, features.shape[-2:]))
        return dict(enumerate(torch.stack(maps, dim=1)))

    for images in sets:
        for pixels, area in batches(images, 1):
            maps = (detector.stitched(pixels[0], lambda tiles, _: to(tiles)) if detector.tile else
                    to(pixels))
            share = detector.tile / pixels.shape[-1] if detector.tile else None
            yield (np.stack([one.numpy().reshape(one.shape[-2:]) for one in maps.values()]),
                   View(None if area is None else area, share))


def _bank(detector: Detector, image: torch.Tensor, i: int) -> torch.Tensor:
    """What the memory keeps of good picture i, of what counts of it: float32 [PATCHES,C]."""
    config = detector.of_squares.config
    tiles = detector.sample([image], TILES, config.seed + i)[0] if detector.tile else image[None]
    cells = []
    for tile in tiles:
        views, area = parted(torch.stack([fused.turned(tile, view) for view in VIEWS]))
        features = torch.cat([_features(detector, view[None]) for view in views])
        some = features.permute(0, 2, 3, 1).flatten(0, 2)
        cells.append(some if area is None else some[
            anomaly_maps.counted(area, features.shape[-2:]).flatten()])
    cells = torch.cat(cells)
    generator = torch.Generator().manual_seed(config.seed)
    return cells[coreset(cells, min(PATCHES, len(cells)), generator)]


def _features(detector: Detector, images: torch.Tensor) -> torch.Tensor:
    squares = detector.of_squares
    return backbone.grid(squares.stages(images), squares.config.layers)


def score(maps: np.ndarray, drawn: np.ndarray, view: View = WHOLE) -> float:
    """Of an image, by the memory of the drawn pictures, whose distances are [good,h,w]; NaN where
    there are none."""
    if not len(drawn):
        return np.nan
    nearest = maps[drawn].min(axis=0)[None]
    return anomaly_maps.reduce(anomaly_maps.smooth(nearest, view), "top1", view)[0]


def _figures(scores: np.ndarray, drawn: np.ndarray, good: int, kinds: np.ndarray,
             sizes: np.ndarray, truth: np.ndarray, target_fpr: float) -> dict[str, float]:
    own, synthetic, test = np.split(scores, [good, good + len(kinds)])
    known, scored = own[~np.isnan(own)], ~np.isnan(synthetic)
    figures = {"label_free": np.nan,
               "auroc": auroc(truth, test) if 0 < truth.sum() < len(truth) else np.nan,
               "good": float((truth == 0).sum()), "anomalous": float(truth.sum()),
               "smallest": np.nan}
    if len(known) and scored.any():
        free = label_free(pd.DataFrame({"top1": known}),
                          pd.DataFrame({"top1": synthetic[scored]}), kinds[scored])
        figures["label_free"] = float(free["all"].iloc[0])
    calibrating = scores[drawn]  # not those of which no other thing was drawn
    threshold = Threshold(calibrating[~np.isnan(calibrating)], target_fpr)
    stands = threshold.is_attainable
    called = threshold.exceeded(test) if stands else np.full(len(test), np.nan)
    if stands and len(np.unique(sizes[scored])) > 1:
        figures["smallest"] = psychometric.fit(
            sizes[scored], threshold.exceeded(synthetic[scored]), fpr=target_fpr).at(0.5)
    return figures | {name: float(called[truth == of].sum()) if (truth == of).any() else np.nan
                      for name, of in (("false_positives", 0), ("found", 1))}
