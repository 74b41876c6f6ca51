"""Good images that are all alike, or of one grey: what differs from them is anomalous, and by a
finite amount."""
import numpy as np
import pytest
import torch

from adlib.config import MODELS, Config
from adlib.evaluation.calibration import score_table
from adlib.models import anomaly_maps, fused, registry
from adlib.models.detector import fit
from tests.handmade import SMALL

SIDE = 32
TEXTURE = torch.from_numpy(np.random.default_rng(0).integers(60, 180, (3, SIDE, SIDE))).byte()
GOOD = {"one texture": TEXTURE, "one grey": torch.full_like(TEXTURE, 128)}
BOARD = torch.from_numpy(np.indices((SIDE, SIDE)).sum(axis=0) % 2 * 255).byte().expand(3, -1, -1)
OTHERS = torch.stack([torch.full_like(TEXTURE, 255), BOARD, TEXTURE // 2])


@pytest.mark.parametrize("good", GOOD)
@pytest.mark.parametrize("model", MODELS)
def test_no_score_explodes(model, good, small_detectors):
    config = Config(**SMALL | {"model": model, "name": model, "image_size": SIDE})
    images = GOOD[good].expand(8 + fused.FEW, -1, -1, -1).contiguous()
    detector = fit(registry.build(config), images[:8], images[8:])
    maps = {name: values.numpy() for name, values in detector.anomaly_maps(images[8:]).items()}
    scale = anomaly_maps.scale_of([(maps, anomaly_maps.WHOLE)])
    scores = score_table(detector, scale, torch.cat([images[:1], OTHERS])).to_numpy()
    assert np.isfinite(scores).all() and np.abs(scores).max() < 2e6
    if config.model in ("pca", "memory", "fused", "mean_grey", "gaussian", "gaussian_anywhere"):
        assert (scores[1:] > scores[0]).all()


def test_a_map_without_variance_keeps_its_unit():
    flat, half = np.full((4, 8, 8), 0.3), np.zeros((4, 8, 8))
    half[::2] = 1
    scale = anomaly_maps.scale_of([({"flat": flat, "zero": 0 * flat, "faint": 1e-9 * half,
                                   "usual": 4 * half}, anomaly_maps.WHOLE)])
    assert scale["flat"] == pytest.approx((0.3, 1)) and scale["zero"] == (0, 1)
    assert scale["faint"] == pytest.approx((5e-10, 1e-6)) and scale["usual"] == pytest.approx((2, 2))
