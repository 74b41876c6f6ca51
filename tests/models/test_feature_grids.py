"""Stages of features on one grid, and how much of them the place explains."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from adlib.models import backbone as features
from tests.models.noise import same
from tests.tolerances import UNIT, summed


def some_stages(n=3, side=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(n, channels, scale * side // 2, scale * side // 2, generator=generator).half()
        for channels, scale in zip((2, 3, 5), (4, 2, 1), strict=True)
    ]


def on_the_grid(stages):
    """By hand: the 3x3 mean with zeros outside, 2x2 blocks of layer1, layer3 bilinear between the
    centres of its cells."""
    one, two, three = (ndimage.uniform_filter(stage.double().numpy(), size=(1, 1, 3, 3),
                                              mode="constant") for stage in stages)
    one = one.reshape(*one.shape[:2], one.shape[2] // 2, 2, one.shape[3] // 2, 2).mean(axis=(3, 5))
    for axis in (2, 3):
        where = np.clip((np.arange(2 * three.shape[axis]) + 0.5) / 2 - 0.5, 0,
                        three.shape[axis] - 1)
        low = np.floor(where).astype(int)
        high, share = np.minimum(low + 1, three.shape[axis] - 1), np.expand_dims(
            where - low, (1, ) if axis == 2 else ())
        three = np.take(three, low, axis) * (1 - share) + np.take(three, high, axis) * share
    return {1: one, 2: two, 3: three}


@pytest.mark.parametrize("layers", ["1", "2", "3", "1,2", "2,3", "1,3", "1,2,3"])
def test_the_grid_is_layer2s(layers):
    stages = some_stages(side=8)
    found = features.grid(stages, layers)
    expected = np.concatenate([on_the_grid(stages)[int(layer)] for layer in layers.split(",")],
                              axis=1)
    assert found.dtype == torch.float32 and found.shape == expected.shape == (3, expected.shape[1],
                                                                              8, 8)
    # A mean of 9, then of 4 cells of size 1.
    assert found.numpy() == pytest.approx(expected, rel=0, abs=6 * summed(13))


def test_the_order_of_the_layers_is_no_matter():
    assert torch.equal(features.grid(some_stages(), "3, 1"), features.grid(some_stages(), "1,3"))


def test_the_grid_leaves_the_stages_as_they_are():
    stages = some_stages()
    features.grid(stages, "1,2,3")
    assert same(stages, some_stages())


def test_grids_are_those_that_are_asked_for():
    """By a number, a slice, or numbers; what is picked and shared of them is that of the whole."""
    generator = torch.Generator().manual_seed(0)
    stages = [torch.randn(19, channels, 32 // stride, 32 // stride, generator=generator).half()
              for channels, stride in zip(features.CHANNELS, features.STRIDES, strict=True)]
    whole, asked = features.grids(stages, "1,2,3"), features.Grids(
        lambda index: [stage[index] for stage in stages], (19, 3, 32, 32), "1,2,3")
    assert asked.shape == whole.shape and len(asked) == 19
    for index in (3, slice(2, 17), torch.tensor([5, 0, 18]), np.array([1, 1])):
        assert torch.equal(asked[index], whole[index])
    cells = torch.randperm(19 * 16, generator=generator)[:40]
    assert torch.equal(features.picked(asked, cells),
                       whole.permute(0, 2, 3, 1).flatten(0, 2)[cells])
    assert features.position_share(asked) == pytest.approx(features.position_share(whole), rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), st.floats(0, 3), st.floats(-20, 20),
       st.integers(0, 99))
def test_position_share_is_a_share(n, channels, side, share, offset, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, side, side, generator=generator) + offset
    x = x + share * torch.randn(1, channels, side, side, generator=generator)
    found = features.position_share(x)
    assert -1e-6 <= found <= 1 + 1e-5
    # An offset of 20 beside a deviation of 1: its square rounds at 400 times float32's last digit.
    exact = features.position_share(x.double())
    assert found == pytest.approx(exact, abs=1e-6 + 2 * 400 * 6 * UNIT[torch.float32])
    # the share of variance between places, as of an analysis of variance
    here = x.double().permute(1, 2, 3, 0).numpy()
    between, total = np.var(here.mean(axis=3), axis=(1, 2)).sum(), np.var(here,
                                                                          axis=(1, 2, 3)).sum()
    assert exact == pytest.approx(between / total if total > 1e-9 else exact, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(2, 5), st.integers(0, 99))
def test_position_share_is_1_if_all_images_are_alike_and_0_if_all_places_are(
        n, channels, side, seed):
    generator = torch.Generator().manual_seed(seed)
    places = torch.randn(1, channels, side, side, generator=generator)
    assert features.position_share(places.expand(n, -1, -1, -1)) == pytest.approx(1, abs=1e-5)
    images = torch.randn(n, channels, 1, 1, generator=generator)
    assert features.position_share(images.expand(-1, -1, side, side)) == pytest.approx(0, abs=1e-5)


def test_position_share_of_constant_features_is_0():
    assert features.position_share(torch.full((4, 3, 5, 5), 0.1)) == pytest.approx(
        # what is left of a variance, over the floor of it
        0, abs=(6 * summed(100) * 0.1)**2 / 1e-12)


def test_position_share_of_noise_is_near_0_with_many_images():
    shares = [
        features.position_share(
            torch.randn(n, 8, 10, 10, generator=torch.Generator().manual_seed(n)))
        for n in (10, 100)
    ]
    # 1 / number of images: a mean of noise is not zero
    assert shares == pytest.approx([0.1, 0.01], rel=0.2)
