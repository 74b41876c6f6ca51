"""How many good pictures does it take? The AUROC and the false alarms with few, and with more.

Features are computed once. Each good picture gets a small memory of its own (models.detectors: a
coreset of its cells and of those of its mirrored and turned views), and what every other picture
has to say is its distance to each of these. The memory of any set of pictures is then the smallest
of their distances: ten draws of every number cost nothing more. It is the memory half of `fused`;
the other half would have to be trained for every draw.
"""
from __future__ import annotations

import typing

import numpy as np
import pandas as pd
import torch

from adlib.config import InputError
from adlib.data import layout
from adlib.data.part import Part
from adlib.data.synthetic import anomalies
from adlib.evaluation import psychometric
from adlib.evaluation.auroc import auroc
from adlib.evaluation.calibration import SYNTHETIC, label_free
from adlib.evaluation.conformal import Threshold
from adlib.evaluation.learning_curve import COUNTS
from adlib.models import anomaly_maps, backbone, fused
from adlib.models.anomaly_maps import WHOLE, View
from adlib.models.backbone import OnBackbone
from adlib.models.coreset import coreset
from adlib.models.detector import Detector, parted

DRAWS = 10
PATCHES = 256  # that each picture's memory keeps
VIEWS = (0, 1, 2, 4)  # of each good picture: as it is, mirrored either way, and transposed
AT_ONCE = 16  # good pictures whose memories are searched: the products fit the processor's cache
MOST = 200  # good pictures that are drawn from
TESTED = 50  # test pictures of each class that are looked at


def measure(detector: Detector, part: Part, *, counts: typing.Sequence[int] = COUNTS,
            draws: int = DRAWS) -> pd.DataFrame:
    """A row a number of good pictures and a draw of them.

    Returns:
        Columns pictures (good ones that there are), n, draw; label_free: AUROC of good pictures
        against synthetic anomalies, no picture being compared with itself or what it is made of;
        auroc: of the test images; good, anomalous: test images of each class; false_positives,
        found: how many of them exceed the threshold of the drawn pictures, each scored by the
        memory of the others; smallest: the share of the picture that a synthetic anomaly covers of
        whose size half are found at it. NaN where there are no labels, or too few pictures for a
        threshold.

    Raises:
        InputError: for a detector that does not look at whole pictures through the backbone.
    """
    if not isinstance(detector, OnBackbone):
        raise InputError("how many pictures it takes is measured on the backbone's features of "
                         f"whole pictures, and {part.config.name} has none; take a configuration "
                         "such as fused")
    random = np.random.default_rng(part.config.seed)
    good = part.good.select(np.sort(random.permutation(len(part.good))[:MOST])).framed
    tested, truth = _tested(part, random)
    pictures, area = parted(good)
    changed, masks, kinds = anomalies.insert(pictures, SYNTHETIC, seed=part.config.seed, area=area)
    sizes = masks.float().mean(dim=(1, 2)).numpy()
    made_of = anomalies.sources(SYNTHETIC, len(good), seed=part.config.seed)
    test, test_area = parted(part.test.framed[tested])
    to = _distances(detector, good, torch.cat([pictures, changed, test]))
    view = View(None if area is None else torch.cat([
        area, area[torch.arange(SYNTHETIC) % len(good)], test_area]))
    apart = np.zeros((len(to), len(good)), bool)  # what no picture is compared with
    np.fill_diagonal(apart, True)
    apart[len(good) + np.arange(SYNTHETIC)[:, None], made_of] = True
    rows: list[dict[str, float]] = []
    for draw in range(draws):
        order = random.permutation(len(good))
        for n in (n for n in counts if n <= len(good)):
            scores = _scores(to, order[:n], apart, view)
            rows.append({"pictures": len(part.good), "n": n, "draw": draw, **_figures(
                scores, order[:n], len(good), np.asarray(kinds), sizes, truth,
                part.config.target_fpr)})
    return pd.DataFrame(rows)


def _tested(part: Part, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Indices of up to TESTED test images of each class, and their labels."""
    known = layout.read_labels(part.category)
    labels = np.array([int(known[key].anomalous) if key in known else -1
                       for key in part.test.keys], dtype=int)
    chosen = [random.permutation(np.flatnonzero(labels == truth))[:TESTED] for truth in (0, 1)]
    index = np.sort(np.concatenate(chosen)).astype(int)
    return index, labels[index]


@torch.no_grad()
def _distances(detector: OnBackbone, good: torch.Tensor, images: torch.Tensor) -> np.ndarray:
    """Of every cell of every image, uint8 [N,3,S,S], to the nearest patch of each good picture,
    as `framed`: float32 [N, good, g, g]."""
    banks = [_bank(detector, image) for image in good]
    kept = max(map(len, banks))  # a picture of which little counts has fewer, some of them twice
    bank = torch.cat([one[torch.arange(kept) % len(one)] for one in banks])
    squares = bank.square().sum(dim=1)
    found: np.ndarray | None = None
    for i, image in enumerate(images):
        features = _features(detector, image[None])
        cells, nearest = features[0].flatten(1).T, []
        for start in range(0, len(bank), AT_ONCE * kept):
            some = slice(start, start + AT_ONCE * kept)
            nearest.append(torch.addmm(squares[some], cells, bank[some].T, alpha=-2)
                           .unflatten(1, (-1, kept)).amin(dim=2))
        to = torch.cat(nearest, dim=1) + cells.square().sum(dim=1, keepdim=True)
        side = features.shape[-1]
        found = np.empty((len(images), len(good), side, side), np.float32
                         ) if found is None else found
        found[i] = to.clamp_min(0).sqrt().T.reshape(len(good), side, side)
    return found


def _bank(detector: OnBackbone, image: torch.Tensor) -> torch.Tensor:
    """What the memory keeps of one good picture, of what counts of it: float32 [PATCHES,C]."""
    views, area = parted(torch.stack([fused.turned(image, view) for view in VIEWS]))
    features = torch.cat([_features(detector, view[None]) for view in views])
    cells = features.permute(0, 2, 3, 1).flatten(0, 2)
    if area is not None:
        cells = cells[anomaly_maps.counted(area, features.shape[-2:]).flatten()]
    generator = torch.Generator().manual_seed(detector.config.seed)
    return cells[coreset(cells, min(PATCHES, len(cells)), generator)]


def _features(detector: OnBackbone, images: torch.Tensor) -> torch.Tensor:
    return backbone.grid(detector.stages(images), detector.config.layers)


def _scores(to: np.ndarray, drawn: np.ndarray, apart: np.ndarray,
            view: View = WHOLE) -> np.ndarray:
    """float64 [images]: by the memory of the drawn pictures; NaN where none is left of them."""
    distances = to[:, drawn]
    alone = apart[:, drawn]
    distances[alone] = np.inf
    maps = distances.min(axis=1)
    scores = np.full(len(to), np.nan)
    some = ~alone.all(axis=1)
    view = View(None if view.area is None else view.area[torch.from_numpy(some)])
    scores[some] = anomaly_maps.reduce(anomaly_maps.smooth(maps[some], view), "top1", view)
    return scores


def _figures(scores: np.ndarray, drawn: np.ndarray, good: int, kinds: np.ndarray,
             sizes: np.ndarray, truth: np.ndarray, target_fpr: float) -> dict[str, float]:
    own, synthetic, test = np.split(scores, [good, good + len(kinds)])
    some, known = pd.DataFrame({"top1": own}).dropna(), ~np.isnan(synthetic)
    free = label_free(some, pd.DataFrame({"top1": synthetic[known]}), kinds[known])
    found = {"label_free": float(free["all"].iloc[0]) if known.any() and len(some) else np.nan,
             "auroc": auroc(truth, test) if 0 < truth.sum() < len(truth) else np.nan,
             "good": float((truth == 0).sum()), "anomalous": float(truth.sum())}
    threshold = Threshold(scores[drawn], target_fpr) if len(drawn) > 1 else None
    stands = threshold is not None and threshold.is_attainable
    called = threshold.exceeded(test) if stands else np.full(len(test), np.nan)
    found["smallest"] = np.nan
    if stands and len(np.unique(sizes[known])) > 1:
        found["smallest"] = psychometric.fit(
            sizes[known], threshold.exceeded(synthetic[known]), fpr=min(target_fpr, 0.5)).at(0.5)
    return found | {name: float(called[truth == of].sum()) if (truth == of).any() else np.nan
                    for name, of in (("false_positives", 0), ("found", 1))}
