import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from skimage import filters

from adlib.config import STATISTICS, Config
from adlib.models import anomaly_maps, statistics
from adlib.models.detector import load_state


@pytest.fixture(scope="module")
def noise():
    return torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (3, 3, 24, 24), dtype=np.uint8))


def test_by_hand():
    picture = torch.zeros(1, 3, 3, 3, dtype=torch.uint8)
    # a spot of grey 90 on black
    picture[0, :, 1, 1] = torch.tensor([60, 90, 120], dtype=torch.uint8)
    assert statistics.statistic(picture, "mean_grey").tolist() == [10.0]
    assert statistics.statistic(picture, "contrast")[0] == pytest.approx(np.sqrt(90**2 / 9 - 10**2))
    # The Laplacian is -360 at the spot, 90 at its four neighbours, 0 in the corners: mean 0.
    assert statistics.statistic(picture, "laplacian_variance")[0] == pytest.approx(
        (360**2 + 4 * 90**2) / 9)


@pytest.mark.parametrize("name", STATISTICS)
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


def distance(values, good, monkeypatch):
    """The detector's one map, of images whose statistic is given."""
    given = {3: values, 5: good}  # by the images' number of rows
    monkeypatch.setattr(statistics, "statistic", lambda images, name: given[images.shape[2]])
    detector = statistics.Statistic(Config(model="contrast"))
    detector.fit(torch.zeros(len(good), 3, 5, 5, dtype=torch.uint8))
    maps = detector.anomaly_maps(torch.zeros(len(values), 3, 3, 3, dtype=torch.uint8))
    assert list(maps) == ["distance"] and maps["distance"].shape == (len(values), 1, 1)
    return maps["distance"].flatten().numpy()


def test_distance_by_hand(monkeypatch):
    # Median 10, deviations 2 1 0 1 90: their median is 1.
    good = np.array([8.0, 9.0, 10.0, 11.0, 100.0])
    assert distance(np.array([10.0, 13.0, 7.0]), good, monkeypatch) == pytest.approx(
        [0, 3 / 1.4826, 3 / 1.4826])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 255), min_size=1, max_size=30),
       st.lists(st.floats(0, 255), min_size=1, max_size=10))
def test_distance_is_in_normal_deviations_and_always_finite(good, values):
    good, values = np.array(good), np.array(values)
    with pytest.MonkeyPatch.context() as patch:
        found = distance(values, good, patch)
    assert np.isfinite(found).all() and (found >= 0).all()
    scale = stats.median_abs_deviation(good, scale="normal")
    # In the number's own unit where the deviation is smaller. 1.4826 for 1.482602: five digits.
    assert found == pytest.approx(np.abs(values - np.median(good)) / max(scale, 1), rel=2e-6)


def test_identical_good_images_still_rank(monkeypatch):
    found = distance(np.array([5.0, 6.0, 3.0]), np.full(4, 5.0), monkeypatch)
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("name", STATISTICS)
def test_a_statistic_is_a_detector_without_a_network(name):
    rng = np.random.default_rng(1)
    good = torch.from_numpy(rng.integers(100, 110, (10, 3, 16, 16), dtype=np.uint8))
    test = good[:4].clone()
    test[2, :, 4:12, 4:12] = 250
    detector = statistics.Statistic(Config(model=name)).fit(good)
    maps = {key: value.numpy() for key, value in detector.anomaly_maps(test).items()}
    table = anomaly_maps.score_table(maps, anomaly_maps.smoothed_maps(maps, {}))
    # One cell: all three reductions are that number.
    assert table.to_numpy() == pytest.approx(maps["distance"][:, 0].repeat(3, axis=1))
    if name != "compressed_size":  # noise and a flat square
        assert table["distance.top1"].argmax() == 2
    assert (detector.weights, detector.history) == ("none", [])
    assert detector.position_share is None and not list(detector.parameters())
    again = statistics.Statistic(Config(model=name))
    load_state(again, detector.state_dict())
    assert torch.equal(again.anomaly_maps(test)["distance"], detector.anomaly_maps(test)["distance"])
