"""Features of good images, odd cells planted in them, and detectors fitted to them."""
import copy

import numpy as np
import torch

from adlib.models import detectors
from adlib.models.fused import CLOSED_FORM

SIDE, CHANNELS = 6, 12
NAMES = (*CLOSED_FORM, "classifier")


def classifier():
    return detectors.SyntheticAnomalyClassifier(CHANNELS)


def good_features(n=10, channels=CHANNELS, side=SIDE, seed=0):
    """A few directions that vary much, all others little; the same at every place."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(3, channels))
    x = rng.normal(size=(n, side, side, 3)) @ mixing + 0.1 * rng.normal(size=(n, side, side,
                                                                              channels)) + 2
    return torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32)).contiguous()


ODD = torch.from_numpy(np.random.default_rng(7).normal(size=CHANNELS).astype(np.float32)) * 3


def planted(features, cells):
    """The features with something odd at cell cells[i] of image i."""
    features = features.clone()
    for i, (y, x) in enumerate(cells):
        features[i, :, y, x] += ODD
    return features


def anomalies_of(n=12, seed=1):
    """Features with one odd cell each, the masks of the 4x4 pixels of that cell, and which good
    images they count as made of."""
    cells = [(i % SIDE, (2 * i + 1) % SIDE) for i in range(n)]
    masks = torch.zeros(n, 4 * SIDE, 4 * SIDE, dtype=torch.bool)
    for mask, (y, x) in zip(masks, cells, strict=True):
        mask[4 * y:4 * y + 4, 4 * x:4 * x + 4] = True
    return planted(good_features(n, seed=seed), cells), masks, torch.arange(n)[:, None] % 10


def fitted(name, good=None, **seed):
    good = good_features() if good is None else good
    if name == "classifier":
        return classifier().fit(good, *anomalies_of(), **seed)
    return CLOSED_FORM[name]().fit(good, **seed)


def mapped(detector, features):
    with torch.no_grad():
        return detector(features)


def mapped64(detector, features):
    """In float64, where two ways of computing it must agree: in float32 a small distance between
    large features is mostly rounding."""
    return mapped(copy.deepcopy(detector).double(), features.double())


def fitted64(name, good=None, **seed):
    """Fitted in float64: an eigenvector of float32 is off by as much as its neighbours are near."""
    good = good_features() if good is None else good
    return CLOSED_FORM[name]().fit(good.double(), **seed)


def equal64(a, b):
    return torch.allclose(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-6, atol=1e-6)


def cells_of(features):
    return features.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
