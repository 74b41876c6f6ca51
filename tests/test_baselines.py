import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from skimage import filters

from adlib import baselines


@pytest.fixture(scope="module")
def noise():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 24, 24), dtype=np.uint8))


def test_the_names():
    assert baselines.STATISTICS == ("mean_grey", "contrast", "laplacian_variance", "compressed_size")


def test_by_hand():
    picture = torch.zeros(1, 3, 3, 3, dtype=torch.uint8)
    picture[0, :, 1, 1] = torch.tensor([60, 90, 120], dtype=torch.uint8)  # a spot of grey 90 on black
    assert baselines.statistic(picture, "mean_grey").tolist() == [10.0]
    assert baselines.statistic(picture, "contrast")[0] == pytest.approx(np.sqrt(90**2 / 9 - 10**2))
    # The Laplacian is -360 at the spot, 90 at its four neighbours, 0 in the corners: mean 0.
    assert baselines.statistic(picture, "laplacian_variance")[0] == pytest.approx((360**2 + 4 * 90**2) / 9)


@pytest.mark.parametrize("name", baselines.STATISTICS)
def test_one_float_an_image_that_depends_on_that_image_only(noise, name):
    before = noise.clone()
    values = baselines.statistic(noise, name)
    assert values.shape == (3,) and values.dtype == np.float64 and np.isfinite(values).all()
    assert baselines.statistic(noise.flip(0), name).tolist() == values[::-1].tolist()
    assert torch.equal(noise, before)
    assert baselines.statistic(noise[:0], name).shape == (0,)


def test_laplacian_equals_scikit_image(noise):
    for picture, value in zip(noise, baselines.statistic(noise, "laplacian_variance"), strict=True):
        grey = picture.numpy().astype(float).mean(axis=0)
        assert value == pytest.approx(filters.laplace(grey).var())  # theirs has the other sign


def test_compressed_size_is_what_a_lossless_file_needs(noise):
    raw = 3 * 24 * 24
    assert (baselines.statistic(noise, "compressed_size") >= raw).all()  # noise cannot be compressed
    assert (baselines.statistic(noise, "compressed_size") <= raw + 150).all()  # one filter byte a row, headers and checksums
    flat = torch.full((1, 3, 24, 24), 77, dtype=torch.uint8)
    assert 60 < baselines.statistic(flat, "compressed_size")[0] < 150


def test_distance_by_hand():
    good = np.array([8.0, 9.0, 10.0, 11.0, 100.0])  # median 10, deviations 2 1 0 1 90: their median is 1
    assert baselines.distance(np.array([10.0, 13.0, 7.0]), good) == pytest.approx([0, 3 / 1.4826, 3 / 1.4826])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 255), min_size=1, max_size=30), st.lists(st.floats(0, 255), min_size=1, max_size=10))
def test_distance_is_in_normal_deviations_and_always_finite(good, values):
    good, values = np.array(good), np.array(values)
    found = baselines.distance(values, good)
    assert np.isfinite(found).all() and (found >= 0).all()
    scale = stats.median_abs_deviation(good, scale="normal")
    if scale > 1e-6:
        assert found == pytest.approx(np.abs(values - np.median(good)) / scale, rel=1e-4)


def test_identical_good_images_still_rank():
    assert np.diff(baselines.distance(np.array([5.0, 6.0, 3.0]), np.full(4, 5.0))).tolist() > [0, 0]


def test_the_odd_one_out_scores_highest():
    rng = np.random.default_rng(1)
    good = torch.from_numpy(rng.integers(100, 110, (10, 3, 16, 16), dtype=np.uint8))
    test = good[:4].clone()
    test[2, :, 4:12, 4:12] = 250
    for name in ("mean_grey", "contrast", "laplacian_variance"):
        scores = baselines.distance(baselines.statistic(test, name), baselines.statistic(good, name))
        assert scores.argmax() == 2


def test_bad_input(noise):
    with pytest.raises(ValueError, match="'entropy'.*mean_grey, contrast, laplacian_variance, compressed_size"):
        baselines.statistic(noise, "entropy")
