"""Good images that are all alike, or of one grey: what differs from them is anomalous, and by a
finite amount."""
import numpy as np
import pytest
import torch

from adlib.config import MODELS, Config
from adlib.evaluation.calibration import score_table
from adlib.models import anomaly_maps, fused, registry
from adlib.models.detector import fit
from adlib.models.detectors import SyntheticAnomalyClassifier
from tests.handmade import SMALL

SIDE = 64
TEXTURE = torch.from_numpy(np.random.default_rng(0).integers(60, 180, (3, SIDE, SIDE))).byte()
GOOD = {"one texture": TEXTURE, "one grey": torch.full_like(TEXTURE, 128)}
BOARD = torch.from_numpy(np.indices((SIDE, SIDE)).sum(axis=0) % 2 * 255).byte().expand(3, -1, -1)
OTHERS = torch.stack([torch.full_like(TEXTURE, 255), BOARD, TEXTURE // 2])


@pytest.mark.parametrize("good", GOOD)
@pytest.mark.parametrize("model", MODELS)
def test_no_score_explodes(model, good, monkeypatch):
    monkeypatch.setattr(fused, "SYNTHETIC", 24)
    config = Config(**SMALL | {"model": model, "name": model, "image_size": SIDE})
    images = GOOD[good].expand(12, -1, -1, -1).contiguous()
    detector = fit(registry.build(config), images[:8], images[8:])
    scale = anomaly_maps.scale_of({name: values.numpy()
                                   for name, values in detector.anomaly_maps(images[8:]).items()})
    scores = score_table(detector, scale, torch.cat([images[:1], OTHERS])).to_numpy()
    assert np.isfinite(scores).all() and np.abs(scores).max() < 2e6
    if config.model in ("pca", "memory", "fused", "mean_grey", "gaussian", "gaussian_anywhere"):
        assert (scores[1:] > scores[0]).all()


def test_a_feature_that_no_good_image_has_counts_by_its_size():
    generator = torch.Generator().manual_seed(0)
    good = torch.randn(12, 16, 8, 8, generator=generator)
    anomalous = torch.randn(30, 16, 8, 8, generator=generator)
    masks = torch.zeros(30, SIDE, SIDE, dtype=torch.bool)
    masks[:, 16:40, 16:40] = True
    anomalous[:, 1, 2:5, 2:5] += 5
    good[:, 0] = anomalous[:, 0] = 0  # what a unit of a network often does
    head = SyntheticAnomalyClassifier(16).fit(good, anomalous, masks).eval()
    with torch.no_grad():
        usual = head(torch.cat([good, anomalous])).abs().max()
        good[:, 0] = 0.01
        assert head(good).abs().max() < 10 * usual  # a deviation of 1e-6 made it 500 times as large


def test_a_map_without_variance_keeps_its_unit():
    flat, half = np.full((4, 8, 8), 0.3), np.zeros((4, 8, 8))
    half[::2] = 1
    scale = anomaly_maps.scale_of({"flat": flat, "zero": 0 * flat, "faint": 1e-9 * half,
                                   "usual": 4 * half})
    assert scale["flat"] == pytest.approx((0.3, 1)) and scale["zero"] == (0, 1)
    assert scale["faint"] == pytest.approx((5e-10, 1e-6)) and scale["usual"] == pytest.approx((2, 2))
