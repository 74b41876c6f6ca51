"""What maps a grid of features, whichever kind it is."""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adlib.config import FITTED_IN_SECONDS
from adlib.models import closed_forms
from tests.models.cells import (
    CHANNELS,
    NAMES,
    ODD,
    SIDE,
    equal64,
    fitted,
    good_features,
    mapped,
    mapped64,
    planted,
)
from tests.tolerances import summed


def test_every_detector_of_the_config_is_here():
    assert {*NAMES, "fused"} == set(FITTED_IN_SECONDS)


@pytest.mark.parametrize("name", NAMES)
def test_one_finite_number_a_cell(all_fitted, name):
    unseen = good_features(4, seed=5)
    found = mapped(all_fitted[name], unseen)
    assert found.shape == (4, SIDE,
                           SIDE) and found.dtype == torch.float32 and torch.isfinite(found).all()
    assert mapped(all_fitted[name], unseen[:0]).shape == (0, SIDE, SIDE)
    # Each image on its own.
    assert equal64(mapped64(all_fitted[name], unseen[1:2]), mapped64(all_fitted[name], unseen)[1:2])
    if name != "classifier":
        assert (found >= 0).all()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(y=st.integers(0, SIDE - 1), x=st.integers(0, SIDE - 1), seed=st.integers(10, 99))
def test_an_odd_cell_is_the_highest_of_its_map(all_fitted, name, y, x, seed):
    clean = good_features(1, seed=seed)
    found, before = mapped(all_fitted[name], planted(clean, [(y, x)]))[0], mapped(
        all_fitted[name], clean)[0]
    assert divmod(int(found.argmax()), SIDE) == (y, x)
    assert found[y, x] > before.max()
    elsewhere = torch.ones(SIDE, SIDE, dtype=torch.bool)
    elsewhere[y, x] = False
    # A cell's score is that of its features.
    found, before = (mapped64(all_fitted[name], some)[0]
                     for some in (planted(clean, [(y, x)]), clean))
    assert equal64(found[elsewhere], before[elsewhere])


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_as_near_to_float64_as_its_sums_allow(all_fitted, name):
    unseen = good_features(4, seed=5)
    found, exact = mapped(all_fitted[name], unseen).double(), mapped64(all_fitted[name], unseen)
    size = float(unseen.square().sum(dim=1).max()) ** 0.5  # of a cell's features: some 10
    noise = 6 * summed(CHANNELS) * size
    if name == "memory":  # of two that are as near, by the rounding of |b|^2 - 2ab, either is right
        assert torch.allclose(found**2, exact**2, rtol=0, atol=2 * noise * size)
    elif name == "pca":  # a squared residual
        assert torch.allclose(found.sqrt(), exact.sqrt(), rtol=0, atol=2 * noise)
    elif name == "classifier":  # standardised features; layers of 128, gains of some ten
        assert torch.allclose(found, exact, rtol=0, atol=60 * summed(3 * 128))
    else:  # whitened by at most 1 / sqrt(RIDGE) = 10
        assert torch.allclose(found, exact, rtol=0, atol=noise / closed_forms.RIDGE**0.5)


@pytest.mark.parametrize("name", NAMES)
def test_the_farther_the_more_anomalous(all_fitted, name):
    clean = good_features(1, seed=3)
    steps = torch.cat([clean + share * ODD[:, None, None] for share in (1.0, 2.0, 4.0)])
    means = mapped(all_fitted[name], steps).mean(dim=(1, 2))
    assert mapped(all_fitted[name], clean).mean() < means[0] < means[1] < means[2]


@pytest.mark.parametrize("name", NAMES)
def test_fitting_and_mapping_leave_the_features_as_they_are(name):
    good, unseen = good_features(), good_features(3, seed=5)
    mapped(fitted(name, good), unseen)
    assert torch.equal(good, good_features()) and torch.equal(unseen, good_features(3, seed=5))
