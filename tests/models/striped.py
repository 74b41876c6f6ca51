"""Striped pictures, and detectors that are fitted to a few of them."""
import dataclasses

import numpy as np
import torch

from adlib.config import Config
from adlib.models.detector import fit

SIZE, SIDE, SYNTHETIC = 32, 4, 24
CONFIG = Config(model="fused", image_size=SIZE, epochs=2, batch_size=4, weights="none",
                device="cpu", precision="float32", seed=0)
TRAINED = ("to_pixels", "to_features")
KEPT, HELD = torch.tensor([0, 1, 3, 4, 5, 6, 8, 9]), torch.tensor([2, 7, 10])


def configured(model, **changes):
    return dataclasses.replace(CONFIG, model=model, **changes)


def pictures(n=11, seed=0, size=SIZE):
    """Good ones: stripes on a gradient, with some noise; each a little lighter or darker."""
    rng = np.random.default_rng(seed)
    stripes = np.linspace(60, 120, size)[:, None] + 25 * np.sin(np.arange(size) * np.pi / 4)
    grey = (stripes[None, None] + rng.normal(0, 4, (n, 1, 1, 1))
            + rng.normal(0, 6, (n, 3, size, size)))
    return torch.from_numpy(np.clip(grey, 0, 255).astype(np.uint8))


def spotted(good, index=slice(None), y=12, x=20):
    """The same with a white square of 8 pixels in some of them."""
    changed = good.clone()
    changed[index, :, y:y + 8, x:x + 8] = 255
    return changed


def fitted_to(model, good=None, held=HELD, **changes):
    good = pictures() if good is None else good
    validation = None if held is None else good[held]
    return fit(configured(model, **changes), good[KEPT], validation)


def equal_states(a, b):
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name])
                                              for name, tensor in one.items())


def maps(detector, some):
    return detector.anomaly_maps(some)["distance"].numpy()
