import numpy as np
import pytest
import torch

from adlib.models import whole_picture
from adlib.models.whole_picture import MOST, SIDE, WholePicture
from tests.tolerances import summed

GOOD, WIDTH = 12, 3
TERMS = WIDTH * SIDE**2  # of a picture


def pictures(n, seed=0):
    """Pooled features of good pictures: each in its own light, which its channels tell alike."""
    generator = torch.Generator().manual_seed(seed)
    light = torch.rand(n, 1, 1, 1, generator=generator)
    return light + 0.02 * torch.randn(n, WIDTH, SIDE, SIDE, generator=generator)


def fitted(n=GOOD, own=None):
    good = pictures(n)
    whole = WholePicture(WIDTH).fit(good, torch.arange(n) if own is None else own)
    whole.scale(pictures(30, seed=1))
    return whole


def test_it_is_what_a_ridge_leaves_at_the_place_where_most_is_left():
    whole, good, x = fitted(), pictures(GOOD).double(), pictures(4, seed=2)
    mean = good.mean(dim=0)
    z = (good - mean).flatten(1)
    ridge = whole_picture.RIDGE * z.square().sum(dim=1).mean()
    left = torch.linalg.solve(z.T @ z / ridge + torch.eye(TERMS), (x - mean).flatten(1).T).T
    expected = left.view(-1, WIDTH, SIDE**2).norm(dim=1).max(dim=1).values.numpy()
    assert whole.distance(x).numpy() == pytest.approx(expected, rel=20 * summed(TERMS))


def test_a_picture_whose_halves_do_not_go_together_is_unlike_good_ones():
    """Though each half is as one of a good picture."""
    whole, good = fitted(), pictures(40, seed=2)
    light = good.flatten(1).mean(dim=1)
    torn = good[torch.stack([light.argmin(), light.argmax()])]
    torn[:, :, :2] = torn[:, :, :2].flip(0)
    usual, unusual = ((whole.distance(x) - whole.centre) / whole.spread for x in (good, torn))
    assert usual.max() < 4 < 8 < unusual.min()


@pytest.mark.parametrize("own", [torch.arange(GOOD), torch.arange(GOOD) // 3])
def test_a_picture_is_explained_without_its_own_as_if_it_had_never_been_fitted_on(own, monkeypatch):
    whole, good = fitted(own=own), pictures(GOOD)
    found = whole.distance(good, own)
    for i in range(GOOD):
        others = good[own != own[i]]
        # the ridge is the same, though the mean size of fewer is another
        size = (others - others.mean(dim=0)).flatten(1).double().square().sum(dim=1).mean()
        monkeypatch.setattr(whole_picture, "RIDGE", whole.ridge / float(size))
        expected = WholePicture(WIDTH).fit(others, torch.arange(len(others))).distance(good[[i]])
        assert float(found[i]) == pytest.approx(float(expected), rel=1e-4)
    assert (found > whole.distance(good)).all()  # its own explain it, too


def test_who_has_no_own_or_only_own_is_compared_with_all():
    whole, good = fitted(), pictures(GOOD)
    assert torch.equal(whole.distance(good, torch.full((GOOD, ), -1)), whole.distance(good))
    alike = WholePicture(WIDTH).fit(good, torch.zeros(GOOD, dtype=torch.long))
    assert torch.equal(alike.distance(good, torch.zeros(GOOD)), alike.distance(good))


def test_what_is_far_from_all_good_pictures_is_at_most_so_many_deviations_away():
    x = torch.rand(3, WIDTH, 8, 8, generator=torch.Generator().manual_seed(0)) + 100
    assert fitted()(x).tolist() == [MOST] * 3


def test_a_picture_that_was_fitted_on_is_usual_by_no_more_than_an_unusual_one_is_unusual():
    whole = fitted()
    whole.centre, whole.spread = torch.tensor(1e3), torch.tensor(1.0)
    assert whole(pictures(2)).tolist() == [-MOST] * 2


def test_until_it_is_fitted_and_scaled_it_says_nothing():
    x = torch.rand(3, WIDTH, 8, 8)
    never = WholePicture(WIDTH)
    never.scale(never.pooled(x))
    only_fitted = WholePicture(WIDTH).fit(pictures(GOOD), torch.arange(GOOD))
    assert not never(x).any() and not only_fitted(x).any()


@pytest.mark.parametrize("n", [1, GOOD])
def test_good_pictures_that_do_not_differ_divide_by_no_zero(n):
    good = pictures(1).expand(n, -1, -1, -1)
    whole = WholePicture(WIDTH).fit(good, torch.arange(n))
    whole.scale(good.repeat(4, 1, 1, 1), torch.arange(n).repeat(4))
    other = torch.rand(2, WIDTH, SIDE, SIDE)
    assert torch.isfinite(whole(good)).all() and whole(other).tolist() == [MOST] * 2


def test_a_picture_has_the_same_number_alone_and_among_others():
    whole, x = fitted(), torch.rand(9, WIDTH, 8, 8)
    together = whole(x).numpy()
    assert np.array_equal(together, np.concatenate([whole(one[None]).numpy() for one in x]))
