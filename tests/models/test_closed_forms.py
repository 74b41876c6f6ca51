"""PCA and Gaussians, beside scikit-learn's and SciPy's."""
import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, mahalanobis
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA

from adlib.models import closed_forms
from adlib.models.fused import CLOSED_FORM
from tests.models.cells import (
    CHANNELS,
    ODD,
    SIDE,
    cells_of,
    equal64,
    fitted,
    fitted64,
    good_features,
    mapped,
    mapped64,
)


@pytest.mark.parametrize("components, kept", [(4, 4), (96, CHANNELS - 1)])
def test_pca_residual_is_sklearns(components, kept, monkeypatch):
    monkeypatch.setattr(closed_forms, "COMPONENTS", components)
    reference = PCA(n_components=kept).fit(cells_of(good_features()))
    unseen = cells_of(good_features(4, seed=5))
    expected = ((unseen - reference.inverse_transform(reference.transform(unseen)))**2).sum(axis=1)
    detector = fitted64("pca")
    assert equal64(mapped(detector, good_features(4, seed=5).double()).ravel(), expected)
    # Never all of them: nothing would be left over.
    assert detector.components.shape == (CHANNELS, kept)


def test_pca_keeps_96_components():
    good = torch.randn(4, 120, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    reference = PCA(n_components=96, svd_solver="full").fit(cells_of(good))
    expected = ((cells_of(good) -
                 reference.inverse_transform(reference.transform(cells_of(good))))**2).sum(axis=1)
    assert equal64(mapped(fitted64("pca", good), good.double()).ravel(), expected)


def test_pca_of_float32_features_is_that_of_float64():
    """What varies little varies in 95 directions alike, by 1 in 10,000 of what varies most, as the
    features of a ResNet18 do: rounding to float32 turns those that are kept into others."""
    size = torch.linspace(1, 0.9, 120).index_fill(0, torch.arange(5), 100)
    turn = torch.linalg.qr(torch.randn(120, 120, generator=torch.Generator().manual_seed(1)))[0]
    away = torch.randn(6, SIDE, SIDE, 120, generator=torch.Generator().manual_seed(0)) * size
    good = (away @ turn).permute(0, 3, 1, 2)
    exact = mapped(fitted64("pca", good), good.double())
    assert (mapped(fitted("pca", good), good) - exact).abs().max() < 0.03 * exact.mean()


def test_pca_does_not_see_what_lies_in_its_span():
    detector, good = fitted64("pca"), good_features().double()
    basis = torch.cat([detector.components, ODD[:, None].double()], dim=1)
    along, across = detector.components[:, -1], torch.linalg.qr(basis)[0][:, -1]
    assert equal64(mapped(detector, good + 5 * along[:, None, None]), mapped(detector, good))
    centre = detector.mean[None, :, None, None]
    assert mapped(detector, centre + 5 * across[None, :, None, None]).item() == pytest.approx(25)


@pytest.mark.parametrize("dimensions", [5, 100])
def test_gaussian_is_scipys_mahalanobis_at_each_place(dimensions, monkeypatch):
    monkeypatch.setattr(closed_forms, "DIMENSIONS", dimensions)
    # another mean in every row
    good, unseen = good_features() + torch.arange(SIDE)[:, None], good_features(2, seed=5)
    detector = fitted64("gaussian", good, seed=4)
    chosen = detector.chosen.tolist()
    assert len(chosen) == min(dimensions, CHANNELS) and chosen == sorted(
        set(chosen)) and set(chosen) <= set(range(CHANNELS))
    found = mapped(detector, unseen.double())
    for y, x in itertools.product(range(SIDE), range(SIDE)):
        here = good[:, chosen, y, x].double().numpy()
        precision = np.linalg.inv(np.cov(here.T) + closed_forms.RIDGE * np.eye(len(chosen)))
        for i in range(2):
            expected = mahalanobis(unseen[i, chosen, y, x].double().numpy(), here.mean(axis=0),
                                   precision)
            assert found[i, y, x].item() == pytest.approx(expected)


def test_one_good_image_gives_the_ridge_alone():
    good, unseen = good_features(1), good_features(2, seed=5)
    expected = (unseen - good).double().norm(dim=1) / closed_forms.RIDGE**0.5
    assert equal64(mapped(fitted64("gaussian", good), unseen.double()), expected.double())


def test_gaussian_anywhere_is_sklearns_mahalanobis():
    covariance = EmpiricalCovariance().fit(cells_of(good_features()))
    precision = np.linalg.inv(covariance.covariance_ + closed_forms.RIDGE * np.eye(CHANNELS))
    expected = cdist(cells_of(good_features(4, seed=5)), covariance.location_[None], "mahalanobis",
                     VI=precision)[:, 0]
    assert equal64(mapped(fitted64("gaussian_anywhere"),
                          good_features(4, seed=5).double()).ravel(), expected)


def test_only_the_gaussian_of_each_position_expects_something_of_a_place():
    good = good_features() + 5 * torch.arange(SIDE)[:, None]  # every row its own level
    swapped = good_features(2, seed=5) + 5 * torch.arange(SIDE).flip(0)[:, None]
    usual = good_features(2, seed=5) + 5 * torch.arange(SIDE)[:, None]
    for name in CLOSED_FORM:
        detector = fitted(name, good)
        if name == "gaussian":
            assert mapped(detector, swapped).median() > 10 * mapped(detector, usual).median()
        else:  # the others map a cell the same wherever it lies
            assert equal64(mapped64(detector, usual.flip(2)), mapped64(detector, usual).flip(1))
