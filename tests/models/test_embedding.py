"""Images in a plane: pooled features, a layout that repeats itself, and what the neighbours say."""
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adlib.config import Config
from adlib.models import backbone as features
from adlib.models import embedding
from tests.tolerances import DIGIT16, UNIT

CONFIG = Config(weights="none", precision="float32", device="cpu", image_size=32)


def test_features_are_each_channels_mean_in_deviations_whatever_the_chunks(monkeypatch):
    encoder, _ = features.load_backbone(CONFIG)
    pictures = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8,
                             generator=torch.Generator().manual_seed(0))
    found = embedding.pooled(encoder, pictures, CONFIG)
    assert found.shape == (7, sum(features.CHANNELS)) and found.dtype == float
    assert np.allclose(found.mean(axis=0), 0, atol=1e-9) and ((np.isclose(found.std(axis=0), 1)) |
                                                              (found.std(axis=0) == 0)).all()
    stages = features.extract(encoder, pictures, CONFIG)
    raw = stages[0].float().mean(dim=(2, 3)).numpy()
    # `found` is in float64, `raw` in float32.
    assert np.allclose(found[:, :64] * raw.std(axis=0) + raw.mean(axis=0), raw, rtol=0,
                       atol=8 * UNIT[torch.float32] * raw.max())
    monkeypatch.setattr(embedding, "CHUNK", 2)
    # Features are kept as float16, and a channel's mean is taken in deviations over the images.
    spread = np.concatenate([(stage.float().mean(dim=(2, 3)).std(dim=0, correction=0)
                              / stage.float().abs().amax(dim=(0, 2, 3)).clamp_min(1e-12)).numpy()
                             for stage in stages])
    for one, all_, share in zip(embedding.pooled(encoder, pictures, CONFIG).T, found.T, spread,
                                strict=True):
        assert np.allclose(one, all_, rtol=0, atol=2 * DIGIT16 / max(share, DIGIT16))


@pytest.mark.parametrize(("n", "how"), [(1, "PCA"), (2, "PCA"), (9, "PCA"), (10, "t-SNE"),
                                        (40, "t-SNE")])
def test_few_images_are_laid_out_by_pca_and_the_layout_repeats_itself(n, how):
    found = np.random.default_rng(n).normal(size=(n, 5))
    flat, said = embedding.plane(found)
    assert flat.shape == (n, 2) and said == how and np.isfinite(flat).all()
    assert (embedding.plane(found)[0] == flat).all()


def test_two_groups_stay_two_groups():
    rng = np.random.default_rng(0)
    found = np.r_[rng.normal(0, 1, (20, 5)), rng.normal(30, 1, (20, 5))]
    flat, _ = embedding.plane(found)
    assert embedding.alike(flat, np.arange(40) >= 20) == (20, 20)


@given(st.integers(1, 12), st.integers(0, 2**31))
def test_the_nearest_neighbour_is_that_of_all_pairs(n, seed):
    rng = np.random.default_rng(seed)
    found, anomalous = rng.normal(size=(n, 3)), rng.random(n) < 0.5
    expected = 0
    for i in np.flatnonzero(anomalous):
        distance = np.linalg.norm(found - found[i], axis=1)
        distance[i] = np.inf
        expected += n > 1 and anomalous[distance.argmin()]
    assert embedding.alike(found, anomalous) == (expected, anomalous.sum())


def test_without_anomalous_images_there_is_nothing_to_count():
    found = np.array([[0.0], [1.0], [10.0], [11.0]])
    assert embedding.alike(found, np.array([0, 0, 1, 1], bool)) == (2, 2)
    assert embedding.alike(found, np.array([1, 0, 1, 0], bool)) == (0, 2)
    assert embedding.alike(found, np.zeros(4, bool)) == (0, 0)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=9), st.integers(10, 400))
def test_small_kinds_are_shown_whole_and_together_they_are_not_too_many(counts, most):
    kept = embedding.spread(counts, most)
    assert sum(kept) <= most and all(0 < some <= count
                                     for some, count in zip(kept, counts, strict=True))
    assert sum(kept) == min(most, sum(counts))
    assert all(
        some == count or some >= max(kept) - 1 for some, count in zip(kept, counts, strict=True))
