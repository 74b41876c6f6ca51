import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from adlib.models import ssim
from tests.tolerances import summed


def pair(seed, shape=(2, 3, 24, 31)):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    return x, (x + 0.2 * torch.randn(shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


@pytest.mark.parametrize("data_range", [1.0, 255.0])
@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_image(seed, data_range):
    x, y = (t * data_range for t in pair(seed))
    for i in range(2):
        index, full = structural_similarity(x[i].permute(1, 2, 0).numpy(), y[i].permute(
            1, 2, 0).numpy(), channel_axis=2, gaussian_weights=True, sigma=1.5,
                                            use_sample_covariance=False, data_range=data_range,
                                            full=True)
        assert ssim.ssim_index(x, y, data_range=data_range)[i].item() == pytest.approx(
            index, abs=1e-9)
        assert np.abs(
            ssim.ssim_map(x, y, data_range=data_range)[i].permute(1, 2, 0).numpy() -
            full).max() < 1e-9


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.001, 1000))
def test_laws(seed, data_range):
    x, y = (t * data_range for t in pair(seed, (1, 1, 16, 16)))
    forward, back = (ssim.ssim_map(a, b, data_range=data_range) for a, b in ((x, y), (y, x)))
    assert torch.allclose(forward, back, atol=1e-12)
    assert forward.max() <= 1 + 1e-12
    assert torch.allclose(ssim.ssim_map(x, x, data_range=data_range), torch.ones_like(x), atol=1e-9)


def test_gradient():
    x, y = pair(0, (1, 2, 13, 12))
    y.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda t: ssim.ssim_index(x, t, data_range=1.0), y)


def test_bfloat16_is_computed_in_float32():
    x, y = (t.bfloat16() for t in pair(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = ssim.ssim_index(x, y, data_range=1.0)
    assert half.dtype == torch.float32
    # Two Gaussians of 11 taps in float32, over a variance of some 0.1.
    assert torch.allclose(half.double(), ssim.ssim_index(x.double(), y.double(), data_range=1.0),
                          rtol=0, atol=10 * summed(22))


def test_usable_in_training_after_inference_mode():
    ssim._filter.cache_clear()
    x, y = pair(2)
    with torch.inference_mode():
        ssim.ssim_index(x, y, data_range=1.0)
    y.requires_grad_(True)
    ssim.ssim_index(x, y, data_range=1.0).sum().backward()
    assert torch.isfinite(y.grad).all()


def test_bad_input():
    x, y = pair(0)
    with pytest.raises(TypeError, match="data_range"):
        ssim.ssim_index(x, y)
    with pytest.raises(ValueError, match="data_range"):
        ssim.ssim_index(x, y, data_range=0)
    with pytest.raises(ValueError, match="data_range is -1"):  # squared, it would do as well as 1
        ssim.ssim_index(x, y, data_range=-1)
    with pytest.raises(ValueError, match="one shape"):  # whose moments would be mixed
        ssim.ssim_map(x[0], y[0], data_range=1.0)
    with pytest.raises(ValueError, match="one shape"):
        ssim.ssim_map(x, y[:1], data_range=1.0)
    with pytest.raises(ValueError, match="11 taps"):
        ssim.ssim_map(x[..., :10], y[..., :10], data_range=1.0)


def test_types():
    x, y = pair(3)
    assert ssim.ssim_map(x, y, data_range=1.0).dtype == torch.float64
    assert ssim.ssim_map(x.float(), y.float(), data_range=1.0).dtype == torch.float32
    assert ssim.ssim_index(x.half(), y.half(), data_range=1.0).dtype == torch.float32
    for one, other in ((x.float(), y), (x, y.float())):  # by the finer of two
        assert ssim.ssim_map(one, other, data_range=1.0).dtype == torch.float64


def test_index_is_the_mean_of_the_maps_inside():
    x, y = pair(4)
    inside = ssim.ssim_map(x, y, data_range=1.0)[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
    assert torch.allclose(ssim.ssim_index(x, y, data_range=1.0), inside, atol=1e-12)


def test_smallest_image():
    x, y = pair(5, (1, 1, 11, 11))
    assert ssim.ssim_map(x, y, data_range=1.0).shape == x.shape
    assert ssim.ssim_index(x, y, data_range=1.0).item() == pytest.approx(
        ssim.ssim_map(x, y, data_range=1.0)[0, 0, 5, 5].item())
