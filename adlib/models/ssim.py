"""SSIM, the structural similarity of two images (Wang, Bovik, Sheikh and Simoncelli, IEEE TIP
2004).

Convention: 11-tap Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, population (not sample)
covariance, and a `data_range` that must be given (1.0 for images in [0,1]): a wrong one gives
plausible numbers that mean nothing. The numbers equal scikit-image's
structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False). Computed in
float32 at least: bfloat16 is off by a tenth.
"""
from __future__ import annotations

import functools

import torch

TAPS, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03
PAD = TAPS // 2


def ssim_map(x: torch.Tensor, y: torch.Tensor, *, data_range: float) -> torch.Tensor:
    """SSIM at every pixel: two [N,C,H,W] tensors in [0, data_range] -> [N,C,H,W] in [-1,1]; 1 =
    alike ('same' size).

    Beyond the border the image is mirrored with its edge pixel repeated, as scikit-image does.
    Raises ValueError for unequal shapes and for images smaller than the window.
    """
    return _ssim(x, y, data_range, same=True)


def ssim_index(x: torch.Tensor, y: torch.Tensor, *, data_range: float) -> torch.Tensor:
    """Mean SSIM of each pair: two [N,C,H,W] tensors in [0, data_range] -> [N] in [-1,1]; 1 = alike.

    The mean is over the channels and the 'valid' pixels, whose whole window lies inside the image.
    Raises ValueError as `ssim_map` does. Differentiable.
    """
    return _ssim(x, y, data_range, same=False).mean(dim=(1, 2, 3))


def _ssim(x: torch.Tensor, y: torch.Tensor, data_range: float, same: bool) -> torch.Tensor:
    if x.shape != y.shape or x.ndim != 4:
        raise ValueError(f"SSIM needs two [N,C,H,W] tensors of one shape, got {tuple(x.shape)} and "
                         f"{tuple(y.shape)}")
    if min(x.shape[-2:]) < TAPS:
        raise ValueError(
            f"SSIM's window has {TAPS} taps, the image only {min(x.shape[-2:])} pixels on a side")
    if not data_range > 0:
        raise ValueError(
            f"data_range is {data_range}; give the span of the values, 1.0 for images in [0,1]")
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
        x, y = x.to(dtype), y.to(dtype)
        n, (h, w) = x.shape[0], x.shape[-2:]
        # A separable filter is two matrix products: exact at the borders, and as quick as
        # convolutions on small images.
        down, across = _filter(h, same, dtype, x.device), _filter(w, same, dtype, x.device)
        moments = down @ torch.cat([x, y, x * x + y * y, x * y]) @ across.mT
        mean_x, mean_y, squares, product = moments.split(n)
        mean_product, mean_squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
        c1, c2 = (K1 * data_range)**2, (K2 * data_range)**2
        # Both variances enter only as their sum, so x*x + y*y is filtered once.
        return ((2 * mean_product + c1) * (2 * (product - mean_product) + c2) /
                ((mean_squares + c1) * (squares - mean_squares + c2)))


@functools.lru_cache(maxsize=32)
def _filter(size: int, same: bool, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The Gaussian window as a banded matrix: [size, size] for 'same', [size - 10, size] for
    'valid'."""
    taps = torch.exp(-((torch.arange(TAPS, dtype=torch.float64) - PAD)**2) / (2 * SIGMA**2))
    taps /= taps.sum()
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for row in range(size):
        for tap in range(TAPS):
            column = row + tap - PAD
            column = -1 - column if column < 0 else min(column, 2 * size - 1 - column)
            matrix[row, column] += taps[tap]
    # an inference tensor in the cache could not take part in training later
    with torch.inference_mode(False):
        return (matrix if same else matrix[PAD:-PAD]).to(dtype).to(device).clone()
