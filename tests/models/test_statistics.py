import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from skimage import filters

from adlib.models import statistics


@pytest.fixture(scope="module")
def noise():
    return torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (3, 3, 24, 24), dtype=np.uint8))


def test_the_names():
    assert statistics.STATISTICS == ("mean_grey", "contrast", "laplacian_variance",
                                     "compressed_size")


def test_by_hand():
    picture = torch.zeros(1, 3, 3, 3, dtype=torch.uint8)
    # a spot of grey 90 on black
    picture[0, :, 1, 1] = torch.tensor([60, 90, 120], dtype=torch.uint8)
    assert statistics.statistic(picture, "mean_grey").tolist() == [10.0]
    assert statistics.statistic(picture, "contrast")[0] == pytest.approx(np.sqrt(90**2 / 9 - 10**2))
    # The Laplacian is -360 at the spot, 90 at its four neighbours, 0 in the corners: mean 0.
    assert statistics.statistic(picture, "laplacian_variance")[0] == pytest.approx(
        (360**2 + 4 * 90**2) / 9)


@pytest.mark.parametrize("name", statistics.STATISTICS)
def test_one_float_an_image_that_depends_on_that_image_only(noise, name):
    before = noise.clone()
    values = statistics.statistic(noise, name)
    assert values.shape == (3, ) and values.dtype == np.float64 and np.isfinite(values).all()
    assert statistics.statistic(noise.flip(0), name).tolist() == values[::-1].tolist()
    assert torch.equal(noise, before)
    assert statistics.statistic(noise[:0], name).shape == (0, )


def test_laplacian_equals_scikit_image(noise):
    for picture, value in zip(noise, statistics.statistic(noise, "laplacian_variance"),
                              strict=True):
        grey = picture.numpy().astype(float).mean(axis=0)
        assert value == pytest.approx(filters.laplace(grey).var())  # theirs has the other sign


def test_compressed_size_is_what_a_lossless_file_needs(noise):
    raw = 3 * 24 * 24
    # noise cannot be compressed
    assert (statistics.statistic(noise, "compressed_size") >= raw).all()
    # one filter byte a row, headers and checksums
    assert (statistics.statistic(noise, "compressed_size") <= raw + 150).all()
    flat = torch.full((1, 3, 24, 24), 77, dtype=torch.uint8)
    assert 60 < statistics.statistic(flat, "compressed_size")[0] < 150


def test_distance_by_hand():
    # median 10, deviations 2 1 0 1 90: their median is 1
    good = np.array([8.0, 9.0, 10.0, 11.0, 100.0])
    assert statistics.distance(np.array([10.0, 13.0, 7.0]), good) == pytest.approx(
        [0, 3 / 1.4826, 3 / 1.4826])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 255), min_size=1, max_size=30),
       st.lists(st.floats(0, 255), min_size=1, max_size=10))
def test_distance_is_in_normal_deviations_and_always_finite(good, values):
    good, values = np.array(good), np.array(values)
    found = statistics.distance(values, good)
    assert np.isfinite(found).all() and (found >= 0).all()
    scale = stats.median_abs_deviation(good, scale="normal")
    if scale > 1e-6:
        assert found == pytest.approx(np.abs(values - np.median(good)) / scale, rel=1e-4)


def test_identical_good_images_still_rank():
    assert np.diff(statistics.distance(np.array([5.0, 6.0, 3.0]), np.full(4,
                                                                          5.0))).tolist() > [0, 0]


def test_the_odd_one_out_scores_highest():
    rng = np.random.default_rng(1)
    good = torch.from_numpy(rng.integers(100, 110, (10, 3, 16, 16), dtype=np.uint8))
    test = good[:4].clone()
    test[2, :, 4:12, 4:12] = 250
    for name in ("mean_grey", "contrast", "laplacian_variance"):
        scores = statistics.distance(statistics.statistic(test, name),
                                     statistics.statistic(good, name))
        assert scores.argmax() == 2


def test_bad_input(noise):
    with pytest.raises(ValueError,
                       match="'entropy'.*mean_grey, contrast, laplacian_variance, compressed_size"):
        statistics.statistic(noise, "entropy")
