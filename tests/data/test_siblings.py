"""Pictures of one and the same thing are found whatever the light, and parts that only look alike
are not."""
import numpy as np
import pytest
import torch
from scipy import ndimage

from adlib.data import siblings


def part(seed, side=96):
    """A ring, as every part has, with a grain of its own: float [side,side], 0 to 255."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - side / 2
    grain = ndimage.gaussian_filter(rng.normal(size=(side, side)), 1.5)
    return 120 + 50 * (abs(np.hypot(y, x) - 30) < 6) + 12 * grain / grain.std()


def taken(grey, seed, gain=1.0, light=0.0):
    """Photographed: uint8 [3,side,side]."""
    noise = np.random.default_rng([7, seed]).normal(0, 3, grey.shape)
    return torch.from_numpy(np.clip(gain * grey + light + noise, 0, 255).astype(np.uint8)
                            ).expand(3, -1, -1)


def pictures():
    """24 parts; of the first four there are two, two, three and two pictures."""
    once = [taken(part(i), i) for i in range(24)]
    again = [taken(part(i), 100 + j, gain, light) for j, (i, gain, light) in enumerate(
        [(0, 1, 0), (1, 0.7, -10), (2, 1.2, 20), (2, 0.8, 0), (3, 1, -40)])]
    return torch.stack(once + again)


def test_siblings_are_found_in_other_light_and_no_one_else():
    expected = torch.cat([torch.arange(24), torch.tensor([0, 1, 2, 2, 3])])
    assert torch.equal(siblings.groups(pictures()), expected)
    assert torch.equal(siblings.groups(pictures()[:24], pictures()[24:]), expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_does_not_matter(seed):
    order = torch.randperm(29, generator=torch.Generator().manual_seed(seed))
    there, here = siblings.groups(pictures()), siblings.groups(pictures()[order])
    assert torch.equal(here[:, None] == here, there[order][:, None] == there[order])


def test_sizes_of_their_own_and_a_fourth_channel():
    """As pictures of tiles are: a sibling is one at another size, too."""
    found = [torch.cat([one, torch.full_like(one[:1], 255)]) for one in pictures()]
    found[24] = torch.nn.functional.interpolate(found[24][None].float(), (120, 150), mode="bilinear"
                                                )[0].byte()
    assert torch.equal(siblings.groups(found), siblings.groups(pictures()))


def test_parts_that_lie_alike_are_no_siblings():
    """Rings without any grain, anywhere: each is like those that happen to lie near it, and these
    like others."""
    y, x = np.mgrid[:96, :96] - 48
    places = np.random.default_rng(0).uniform(-5, 5, (60, 2))
    rings = [taken(120.0 + 50 * (abs(np.hypot(y - down, x - across) - 30) < 6), i)
             for i, (down, across) in enumerate(places)]
    assert torch.equal(siblings.groups(torch.stack(rings)), torch.arange(60))


def test_a_few_types_are_no_things():
    """A part made tomorrow is of one of these."""
    types = [taken(part(i % 6), i) for i in range(48)]
    assert torch.equal(siblings.groups(torch.stack(types)), torch.arange(48))


def test_few_are_on_their_own():
    same = pictures()[:1].expand(30, -1, -1, -1)
    assert torch.equal(siblings.groups(pictures()[-19:]), torch.arange(19))
    assert torch.equal(siblings.groups(same), torch.arange(30))
    plain = torch.arange(30, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 64, 64)
    assert torch.equal(siblings.groups(plain), torch.arange(30))  # nothing is known of these


def test_numbers_are_those_that_were_fitted_with():
    good, fitted_on = pictures(), torch.tensor([28, 1, 5])  # 28 is 3's sibling
    found = siblings.numbered(good, fitted_on, torch.tensor([40, 41, 42]))
    assert {i: int(one) for i, one in enumerate(found) if one >= 0} == {
        28: 40, 3: 40, 1: 41, 25: 41, 5: 42}


def test_copies_are_found_and_not_what_differs_in_a_few_ways():
    """Rings that lie a little differently are as near to each other as happens."""
    y, x = np.mgrid[:96, :96] - 48
    places = np.random.default_rng(0).uniform(-3, 3, (60, 2))
    rings = torch.stack([taken(120.0 + 50 * (abs(np.hypot(y - down, x - across) - 30) < 6), i)
                         for i, (down, across) in enumerate(places)])
    assert (siblings.copies(rings) >= 0).mean() <= 0.05
    again = torch.cat([rings, (0.9 * rings[[7, 31]].float() + 5).byte()])
    found = siblings.copies(again)
    assert list(found[60:]) == [7, 31] and (found[:60] >= 0).mean() <= 0.05
    textured = pictures()
    assert siblings.copies(textured).tolist() == [-1] * 24 + [0, 1, 2, 2, 3]
