"""The verdict "foreign", and the one budget of false alarms that it shares with the score."""
from __future__ import annotations

import numpy as np
import torch

from adlib.data import corruptions, siblings
from adlib.data.part import Part
from adlib.evaluation import conformal
from adlib.evaluation.conformal import TailThreshold, Threshold
from adlib.models import foreign
from adlib.models.detector import Images, as_tensor
from adlib.models.foreign import Foreign

MOST = 500  # good images that tell foreign ones, as in fused
# Of good parts, beside target_fpr; foreign pictures lie far out, so that little is lost by it. With
# a calibration picture's share, 1/(n+1), it stays below 1% from n = 100 on.
FOREIGN_FPR = 0.001


def known_good(part: Part) -> tuple[torch.Tensor, torch.Tensor | None]:
    """All good images, uint8 [N,3,S,S], and which thing each shows, int64 [N], None where each
    shows its own; with `vary`, after them a varied copy of each."""
    good = part.good.tensor
    of = siblings.groups(good)
    if part.config.vary:
        return (torch.cat([good, corruptions.varied(good, seed=part.config.seed)]), of.repeat(2))
    return good, of if len(of.unique()) < len(of) else None


def fit_foreign(model: Foreign, good: Images, of: torch.Tensor | None = None, *,
                seed: int) -> Foreign:
    """Fit it on good images, uint8 [N,3,S,S]; of more than MOST a sample. of: as Foreign.fit."""
    kept = sample(len(good), seed)
    return fit_foreign_features(model, model.features(as_tensor(good)[kept]),
                                None if of is None else of[kept])


def sample(n: int, seed: int) -> torch.Tensor:
    """Indices of n good images that it is fitted on, MOST at the most: int64, sorted."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[:MOST].sort().values


def fit_foreign_features(model: Foreign, features: torch.Tensor,
                         of: torch.Tensor | None = None) -> Foreign:
    """The same of their features. A folder of good images is never clean: one that is much more
    unlike the others than they are would hide all that is as unlike, and is set aside."""
    kept = np.arange(len(features))
    while True:
        model.fit(features[kept], None if of is None else of[kept])
        outlying = conformal.outlying(model.calibration.numpy(), FOREIGN_FPR / 10)
        model.set_aside = torch.tensor(len(features) - len(kept))
        if not outlying.any() or (~outlying).sum() < foreign.FEWEST:
            return model
        kept = kept[~outlying]


def threshold_of(model: Foreign | None) -> TailThreshold | None:
    """From which distance on a picture is foreign; None where too few good ones say so."""
    enough = model is not None and len(model.calibration) >= foreign.FEWEST
    return TailThreshold(model.calibration.numpy(), FOREIGN_FPR) if enough else None


def counted_first(model: Foreign | None, distances: np.ndarray, *, new: bool = False) -> np.ndarray:
    """Which of the images of `one_budget` count as the most anomalous, since all others call them
    foreign: bool [n]."""
    if (threshold := threshold_of(model)) is None:
        return np.zeros(len(distances), bool)
    left_out, aside = threshold.calibration, threshold.exceeded(distances)
    if new:
        return aside
    # Only the farthest can lie beyond what the others say; its copies, if any, are no others.
    same = (model.of == model.of[left_out.argmax()]).numpy()
    beyond = same & TailThreshold(left_out[~same], FOREIGN_FPR).exceeded(left_out)
    return np.isclose(distances[:, None], model.own.numpy()[beyond]).any(axis=1) & ~aside


def one_budget(model: Foreign | None, distances: np.ndarray, scores: np.ndarray,
               target_fpr: float, *, new: bool = False) -> np.ndarray:
    """Calibration scores whose threshold shares the asked rate with the verdict "foreign": of good
    images as many are refused, for either reason, as were asked for.

    The image that all others call foreign counts as the most anomalous. What was set aside is taken
    for no good image, and left out where enough are left.

    Args:
        distances, scores: float64 [n], of good images among those that `model` was fitted on; or,
            if `new`, of others, of which it has set aside none.
    """
    if (threshold := threshold_of(model)) is None or not len(scores):
        return scores
    scores = np.where(counted_first(model, distances, new=new), scores.max(), scores)
    kept = scores[~threshold.exceeded(distances)]
    return kept if not new and Threshold(kept, target_fpr).is_attainable else scores
