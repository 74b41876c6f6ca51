import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import structural_similarity

from adlib.config import REFERENCE_SCORE, Config
from adlib.models import anomaly_maps, autoencoders, ssim
from tests.tolerances import NETWORK, UNIT, summed


def pair(seed=0, n=3, size=32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, size, size, generator=generator)
    return x, (x + 0.1 * torch.randn(n, 3, size, size, generator=generator)).clamp(0, 1)


def some_maps(seed=0, n=5, size=32):
    rng = np.random.default_rng(seed)
    return {
        name: (scale * rng.random((n, size, size)) + shift).astype(np.float32)
        for name, scale, shift in (("squared", 0.01, 0), ("ssim", 1, 0.3), ("gradient", 0.2, 0))
    }


def table_of(maps, scale):
    return anomaly_maps.score_table(maps, anomaly_maps.smoothed_maps(maps, scale))


def test_maps_of_identical_images_are_zero():
    x, _ = pair()
    for name, values in anomaly_maps.pixel_maps(x, x).items():
        assert values.shape == (3, 32, 32) and values.dtype == torch.float32
        assert values.abs().max() < 10 * summed(22), name


def test_maps_are_in_their_range_and_symmetric():
    x, y = pair()
    there, back = anomaly_maps.pixel_maps(x, y), anomaly_maps.pixel_maps(y, x)
    assert list(there) == ["squared", "ssim", "gradient"]
    for name, high in (("squared", 1), ("ssim", 2), ("gradient", 1)):
        assert (there[name] >= 0).all() and (there[name] <= high).all() and there[name].max() > 1e-3
        # Two Gaussians of 11 taps, subtracted: SSIM is over a variance of some 0.1.
        assert torch.allclose(there[name], back[name], rtol=0, atol=10 * summed(22))


def test_squared_and_ssim_maps_are_their_definitions():
    x, y = pair()
    found = anomaly_maps.pixel_maps(x, y)
    assert torch.allclose(found["squared"], ((x - y)**2).mean(dim=1))
    assert torch.allclose(found["ssim"], 1 - ssim.ssim_map(x, y, data_range=1.0).mean(dim=1))
    for i in range(3):
        full = structural_similarity(x[i].permute(1, 2, 0).numpy(), y[i].permute(
            1, 2, 0).numpy(), channel_axis=2, gaussian_weights=True, sigma=1.5,
                                     use_sample_covariance=False, data_range=1.0, full=True)[1]
        # Both in float32, theirs as an 11 x 11 filter: variances of some 0.1 are small differences.
        assert np.abs(found["ssim"][i].numpy() - (1 - full.mean(axis=2))).max() < 100 * summed(121)


def slow_gradient_similarity(x, y):
    """Xue et al. 2014, pixel by pixel, on grey [H,W] in [0,1]."""
    c, prewitt = 170 / 255**2, np.array([[1, 0, -1], [1, 0, -1], [1, 0, -1]]) / 3
    found = np.zeros(x.shape)
    padded = [np.pad(z, 1, mode="edge") for z in (x, y)]
    for i, j in np.ndindex(x.shape):
        a, b = (np.hypot((z[i:i + 3, j:j + 3] * prewitt).sum(),
                         (z[i:i + 3, j:j + 3] * prewitt.T).sum()) for z in padded)
        found[i, j] = (2 * a * b + c) / (a**2 + b**2 + c)
    return found


@pytest.mark.parametrize("shape", [(2, 12, 12), (1, 9, 17)])
def test_gradient_similarity_is_xues(shape):
    rng = np.random.default_rng(0)
    x, y = rng.random(shape), ndimage.gaussian_filter(rng.random(shape), (0, 1, 1))
    expected = np.stack([slow_gradient_similarity(a, b) for a, b in zip(x, y, strict=True)])
    found = anomaly_maps.gradient_similarity(
        torch.from_numpy(x).float(),
        torch.from_numpy(y).float()).numpy()
    assert found == pytest.approx(expected, abs=1e-5)


def test_gradient_map_is_that_of_the_mean_over_channels():
    x, y = pair(1)
    expected = [
        1 - slow_gradient_similarity(a.mean(0).double().numpy(),
                                     b.mean(0).double().numpy()) for a, b in zip(x, y, strict=True)
    ]
    assert anomaly_maps.pixel_maps(x, y)["gradient"].numpy() == pytest.approx(
        np.stack(expected), abs=1e-5)


def test_gradient_similarity_does_not_see_brightness():
    x, _ = pair(2)
    grey = x.mean(dim=1) / 2
    assert torch.allclose(anomaly_maps.gradient_similarity(grey, grey + 0.3), torch.ones_like(grey),
                          atol=1e-4)


def scale_of(maps):
    return anomaly_maps.scale_of([(maps, anomaly_maps.WHOLE)])


@pytest.mark.parametrize("size, sigma", [(14, 1.0), (32, 1.0), (64, 1.0), (128, 2.0), (160, 2.5)])
def test_smoothing_is_a_gaussian_of_one_64th_of_the_side_on_each_map(size, sigma):
    maps = np.random.default_rng(0).random((3, size, size))
    expected = np.stack([ndimage.gaussian_filter(one, sigma) for one in maps])
    assert anomaly_maps.smooth(maps) == pytest.approx(expected, abs=1e-12)
    assert anomaly_maps.smooth(np.full((1, size, size), 0.7)) == pytest.approx(
        np.full((1, size, size), 0.7))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 30), st.integers(1, 30), st.integers(0, 99))
def test_reductions_are_numpys(n, h, w, seed):
    maps = np.random.default_rng(seed).normal(size=(n, h, w)).astype(np.float32)
    flat = maps.reshape(n, -1).astype(float)
    count = max(1, round(h * w / 100))
    for how, expected in (("mean", flat.mean(axis=1)), ("max", flat.max(axis=1)),
                          ("top1", np.sort(flat, axis=1)[:, -count:].mean(axis=1))):
        found = anomaly_maps.reduce(maps, how)
        assert found.shape == (n, ) and found.dtype == np.float64 and found == pytest.approx(
            expected, rel=1e-9, abs=1e-12)
    assert (anomaly_maps.reduce(maps, "mean") <= anomaly_maps.reduce(maps, "top1") + 1e-9).all()
    assert (anomaly_maps.reduce(maps, "top1") <= anomaly_maps.reduce(maps, "max") + 1e-9).all()


def test_top1_of_a_square_map():
    maps = np.zeros((2, 20, 20))  # 1 % is four cells
    maps[0, 0, :4], maps[1, 5, :6] = (1, 2, 3, 4), 10
    assert anomaly_maps.reduce(maps, "top1").tolist() == [2.5, 10]
    # at least one cell
    assert anomaly_maps.reduce(np.arange(49.0).reshape(1, 7, 7), "top1").tolist() == [48]


def test_scale_is_of_the_smoothed_maps():
    maps = some_maps()
    found = scale_of(maps)
    for name, values in maps.items():
        smoothed = ndimage.gaussian_filter(values.astype(float), (0, 1, 1))
        # Smoothed maps are rounded to float32, at up to ten times their deviation.
        assert found[name] == pytest.approx((smoothed.mean(), smoothed.std()),
                                            rel=100 * UNIT[torch.float32])


def test_sum_is_in_deviations_of_the_good_images():
    good, maps = some_maps(0), some_maps(1)
    scale = scale_of(good)
    found = anomaly_maps.smoothed_maps(maps, scale)
    assert list(found) == ["squared", "ssim", "gradient", "sum"]
    expected = sum((anomaly_maps.smooth(values) - scale[name][0]) / scale[name][1]
                   for name, values in maps.items())
    assert found["sum"] == pytest.approx(expected)
    assert anomaly_maps.smoothed_maps(good, scale)["sum"].mean(dtype=float) == pytest.approx(
        0, abs=100 * UNIT[torch.float32])
    # one map alone needs no scale
    assert list(anomaly_maps.smoothed_maps({"distance": maps["ssim"]}, {})) == ["distance"]


def test_maps_of_several_sizes_are_summed_at_the_largest():
    fine, coarse = some_maps(0)["ssim"], np.zeros((5, 8, 8), np.float32)
    coarse[:, 2, 6] = 4
    scale = {"fine": (0.0, 1.0), "coarse": (0.0, 0.5)}
    sums = anomaly_maps.smoothed_maps({"coarse": coarse, "fine": fine}, scale)["sum"]
    share = sums - anomaly_maps.smooth(fine)
    assert sums.shape == (5, 32, 32) and divmod(int(share[0].argmax()), 32) in [
        (y, x) for y in range(8, 12) for x in range(24, 28)]
    # Twice the coarse map; a bilinear enlargement keeps the mean, but for what leaves at the border.
    assert share.mean() == pytest.approx(2 * anomaly_maps.smooth(coarse).mean(), rel=0.01)


def test_sum_does_not_depend_on_the_maps_units():
    good, maps = some_maps(0), some_maps(1)
    expected = anomaly_maps.smoothed_maps(maps, scale_of(good))["sum"]
    good["ssim"], maps["ssim"] = 1000 * good["ssim"] + 7, 1000 * maps["ssim"] + 7
    assert anomaly_maps.smoothed_maps(maps, scale_of(good))["sum"] == pytest.approx(
        expected, abs=1e-4)  # 1307 in float32, in deviations of 80: 1e-6


def test_table_has_a_column_a_score_and_a_row_an_image():
    maps = some_maps()
    scale = scale_of(maps)
    found = table_of(maps, scale)
    assert list(found.columns) == [
        f"{name}.{how}" for name in ("squared", "ssim", "gradient", "sum")
        for how in ("top1", "max", "mean")
    ]
    assert len(found) == 5 and (found.dtypes == np.float64).all()
    smoothed = anomaly_maps.smoothed_maps(maps, scale)
    for name in ("squared", "ssim", "gradient"):
        # the map as it is
        assert found[f"{name}.mean"].to_numpy() == pytest.approx(
            maps[name].astype(float).mean(axis=(1, 2)))
        assert found[f"{name}.max"].to_numpy() == pytest.approx(smoothed[name].max(axis=(1, 2)))
    assert found["sum.mean"].to_numpy() == pytest.approx(smoothed["sum"].mean(axis=(1, 2),
                                                                                 dtype=float))
    assert list(
        table_of({"distance": maps["ssim"]},
                           {}).columns) == ["distance.top1", "distance.max", "distance.mean"]


def test_an_images_scores_do_not_depend_on_its_neighbours():
    maps = some_maps()
    scale = scale_of(maps)
    alone = pd.concat([
        table_of({name: values[i:i + 1]
                            for name, values in maps.items()}, scale) for i in range(5)
    ], ignore_index=True)
    pd.testing.assert_frame_equal(alone, table_of(maps, scale), check_exact=True)


CONFIG = Config(image_size=32, batch_size=4, device="cpu", precision="float32")


def pictures(n=6):
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(0))


def network_of(seed=0):
    return autoencoders.Autoencoder(dataclasses.replace(CONFIG, seed=seed)).eval()


def maps_of(detector, images):
    return {name: values.numpy() for name, values in detector.anomaly_maps(images).items()}


def test_the_references_score_is_squared_mean():
    detector = network_of()
    maps = maps_of(detector, pictures())
    assert {name: (values.shape, values.dtype) for name, values in maps.items()} == dict.fromkeys(
        ("squared", "ssim", "gradient"), ((6, 32, 32), np.dtype("float32")))
    x = pictures().double() / 255
    expected = ((x - detector.reconstruct(pictures()).double())**2).mean(dim=(1, 2, 3))
    # The same reconstructions; the map is rounded to float32, the mean is taken in float64.
    assert table_of(maps, scale_of(maps))[REFERENCE_SCORE].to_numpy() == pytest.approx(
        expected.numpy(), rel=4 * UNIT[torch.float32])


def test_its_maps_are_of_the_reconstruction_in_eval_mode():
    detector = network_of()
    maps = maps_of(detector.train(), pictures())
    x = pictures().float() / 255
    with torch.no_grad():
        expected = anomaly_maps.pixel_maps(x, detector.network.eval()(x))
    for name, values in maps.items():  # values in [0,1], one network apart: channels last or not
        assert values == pytest.approx(expected[name].numpy(), abs=6 * NETWORK)
    again = maps_of(detector, pictures())
    assert all((again[name] == values).all() for name, values in maps.items())
