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


def test_few_are_on_their_own_and_all_alike_are_one():
    same = pictures()[:1].expand(30, -1, -1, -1)
    assert torch.equal(siblings.groups(same[:siblings.FEWEST - 1]),
                       torch.arange(siblings.FEWEST - 1))
    assert torch.equal(siblings.groups(same), torch.zeros(30, dtype=torch.long))
    plain = torch.arange(30, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 64, 64)
    assert torch.equal(siblings.groups(plain), torch.arange(30))  # nothing is known of these


def test_numbers_are_those_that_were_fitted_with():
    good, fitted_on = pictures(), torch.tensor([28, 1, 5])  # 28 is 3's sibling
    found = siblings.numbered(good, fitted_on, torch.tensor([40, 41, 42]))
    assert {i: int(one) for i, one in enumerate(found) if one >= 0} == {
        28: 40, 3: 40, 1: 41, 25: 41, 5: 42}
