"""The exam of the verdict "foreign": how many pictures that do not show the part are refused, and
how many good ones are, too. Nothing found here goes back into a choice."""
from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import torch

from adlib.config import InputError, log
from adlib.data import files, images, layout, reading
from adlib.data.lazy import Lazy
from adlib.data.part import Part
from adlib.data.synthetic import foreign_pictures
from adlib.evaluation.calibration import Decision, chosen_scores
from adlib.evaluation.conformal import TailThreshold, folds, rate_interval
from adlib.evaluation.refusal import fit_foreign_features, known_good, sample
from adlib.models.detector import Detector

PICTURES = 200  # of an exam
EACH = 8  # good pictures of every other category that is beside this one
FOLDS = 5
COLUMNS = ["kind", "pictures", "foreign", "anomalous", "refused", "rate", "low", "high"]


def exam(detector: Detector, decision: Decision, part: Part, others: torch.Tensor | None = None,
         n: int = PICTURES) -> pd.DataFrame:
    """Foreign pictures made from the good ones, through the run.

    Args:
        others: uint8 [M,3,S,S], good pictures of other parts; None: of the categories beside it.

    Returns:
        `counted` of every kind, then of `all`, then of `good`. A run of tiles scores what it does
        not call foreign, laid out in the size of a good picture.
        `good` are the good pictures, each by what was fitted on the other folds: its foreign ones
        are what is refused in addition, at the most. Empty where nothing can be called foreign.
    """
    if decision.foreign_threshold is None:
        return pd.DataFrame(columns=COLUMNS)
    others = other_parts(part) if others is None else others
    made, kinds = foreign_pictures.make(part.good.tensor, others, n, seed=part.config.seed)
    unlike, called = decision.calls_foreign(made), np.zeros(len(made), bool)
    scored, given, usual = np.arange(len(made)), made, part.good.given
    if detector.tile is not None:
        scored = np.flatnonzero(~unlike)
        given = Lazy(len(scored), lambda i: _laid(made[scored[i]], usual[i % len(usual)]))
    if len(scored):
        called[scored] = decision.threshold.exceeded(chosen_scores(detector, decision, given))
    table = pd.DataFrame({"kind": kinds, "foreign": unlike, "anomalous": called})
    good = pd.DataFrame({"kind": "good", "foreign": cross_fitted(decision, part),
                         "anomalous": False})
    return counted(pd.concat([table, table.assign(kind="all"), good]))


def counted(pictures: pd.DataFrame) -> pd.DataFrame:
    """Pictures, a row each (kind; foreign, anomalous: bool, what they are called), as a row a kind:
    kind, pictures, foreign and anomalous (how many are called so), refused (either), rate = refused
    / pictures, low and high (95%, Clopper-Pearson)."""
    rows = []
    for kind, some in pictures.groupby("kind", sort=False):
        refused = int((some["foreign"] | some["anomalous"]).sum())
        rows.append((kind, len(some), int(some["foreign"].sum()), int(some["anomalous"].sum()),
                     refused, refused / len(some), *rate_interval(refused, len(some))))
    return pd.DataFrame(rows, columns=COLUMNS)


def _laid(image: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    """A whole picture, uint8 [3,S,S], in the size of a good one, uint8 [4,h,w], and with what
    counts of that."""
    larger = torch.nn.functional.interpolate(image[None].float(), good.shape[1:], mode="bilinear",
                                             antialias=True)[0]
    return torch.cat([larger.round().to(torch.uint8), good[3:]])


def cross_fitted(decision: Decision, part: Part) -> np.ndarray:
    """Is each good picture called foreign by what was fitted on the other folds, its siblings and
    copies in its own? bool [N]."""
    pictures, of = known_good(part)
    features, n = decision.foreign.features(pictures), len(part.good)
    called, model = np.zeros(n, bool), copy.deepcopy(decision.foreign)
    thing = np.arange(n) if of is None else of.numpy()
    for rest, left in folds(thing.max() + 1, FOLDS, part.config.seed):
        some, held = np.flatnonzero(np.isin(thing, rest)), np.flatnonzero(np.isin(thing[:n], left))
        some = some[sample(len(some), part.config.seed)]
        fit_foreign_features(model, features[some], None if of is None else of[some])
        threshold = TailThreshold(model.calibration.numpy(), decision.foreign_threshold.target_fpr)
        called[held] = threshold.exceeded(model.distances(features[held]).numpy())
    return called


def refused_in_addition(table: pd.DataFrame, decision: Decision, part: Part
                        ) -> dict[str, int] | None:
    """Test images called foreign and not anomalous, beside what the score refuses: the one place
    here that labels come to.

    Args:
        table: Results.table.

    Returns:
        {good, anomalous: how many of the images with that label}; None where nothing can be called
        foreign, or nothing is labelled.
    """
    rows = table[table["split"] == "test"]
    if decision.foreign_threshold is None or not rows["label"].notna().any():
        return None
    unlike = decision.calls_foreign(part.test.tensor)
    unlike &= (rows["chosen_prediction"].fillna(0) == 0).to_numpy(dtype=bool)
    return {name: int(unlike[(rows["label"] == label).fillna(False).to_numpy(dtype=bool)].sum())
            for name, label in (("good", 0), ("anomalous", 1))}


def other_parts(part: Part) -> torch.Tensor:
    """Some good pictures of every category beside this one: uint8 [M,3,S,S]. What cannot be read of
    those is said, and left out: it is not what this run is about."""
    root, size, pictures = part.category.root, part.config.image_size, []
    for name in layout.categories(root):
        if name == part.category.name:
            continue
        try:
            paths = layout.open_category(root, name).train
        except InputError as error:
            log.warning("%s is left out of the exam of foreign pictures: %s", name, error)
            continue
        grey_range = images.grey_range(paths)
        for path in paths[:EACH]:
            try:
                pictures.append(reading.read(path, part.good.size, grey_range)[:3])
            except Exception as error:  # whatever a decoder trips over, the file is named
                log.warning("%s is left out of the exam of foreign pictures: %s", path,
                            files.reason_of(error))
    return torch.from_numpy(np.array(pictures, np.uint8).reshape(-1, 3, size, size))
