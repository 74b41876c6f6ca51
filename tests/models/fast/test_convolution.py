import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from adlib.models.fast import convolution

# Of 8 channels: with 6, torch 2.14.1's own (1, 2) writes beyond its memory on AVX2
SHAPES = [(convolution.Conv2d(8, 5, 3, 2, 1), nn.Conv2d),
          (convolution.Conv2d(8, 5, 3, padding=1, bias=False), nn.Conv2d),
          (convolution.Conv2d(8, 5, 1, 2, bias=False), nn.Conv2d),
          (convolution.ConvTranspose2d(8, 5, 4, 2, 1), nn.ConvTranspose2d),
          (convolution.ConvTranspose2d(8, 5, 3, 2, 1, output_padding=1), nn.ConvTranspose2d)]


@given(kernel=st.integers(1, 4), stride=st.integers(1, 3), padding=st.integers(0, 2),
       side=st.integers(4, 9), seed=st.integers(0, 9))
def test_the_weights_gradient_is_torchs(kernel, stride, padding, side, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, side, side, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 3, kernel, kernel, generator=generator, dtype=torch.float64,
                         requires_grad=True)
    y = nn.functional.conv2d(x, weight, stride=stride, padding=padding)
    gradient = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    y.backward(gradient)
    for layout in (torch.contiguous_format, torch.channels_last):
        pair = (tensor.contiguous(memory_format=layout) for tensor in (x, gradient))
        found = convolution.weight_gradient(*pair, kernel, stride, padding)
        torch.testing.assert_close(found, weight.grad)


def gradients(forward, layer, x, precision):
    layer.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        y = forward(x)
    (y.float() * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
    return {
        "output": y, "input": x.grad,
        **{name: weight.grad.clone()
           for name, weight in layer.named_parameters()}
    }


@pytest.mark.parametrize(("layer", "torchs"), SHAPES, ids=repr)
def test_in_bf16_they_are_as_near_to_float32_as_torchs_own(layer, torchs):
    x = torch.randn(
        4, 8, 12, 12,
        generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)
    layer.to(memory_format=torch.channels_last)
    exact = gradients(layer, layer, x, "float32")
    ours, theirs = gradients(layer, layer, x, "bf16"), gradients(lambda x: torchs.forward(layer, x),
                                                                 layer, x, "bf16")
    assert [type(found["output"].grad_fn).__name__
            for found in (ours, theirs)] == ["_ConvolutionBackward", "ConvolutionBackward0"]
    assert torch.equal(ours["output"], theirs["output"])
    for name, value in exact.items():
        assert ours[name].dtype == theirs[name].dtype
        assert (ours[name] - value).norm() <= 1.2 * (theirs[name] - value).norm() + 1e-6, name


@pytest.mark.parametrize(("layer", "torchs"), SHAPES, ids=repr)
def test_in_float32_and_where_nothing_is_trained_they_are_torchs(layer, torchs):
    x = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    ours, theirs = gradients(layer, layer, x, "float32"), gradients(
        lambda x: torchs.forward(layer, x), layer, x, "float32")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), torchs.forward(layer, x))
    layer.requires_grad_(False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).grad_fn is None
    layer.requires_grad_(True)


@pytest.mark.parametrize("layer", [
    convolution.Conv2d(8, 4, 3, groups=2),
    convolution.Conv2d(8, 4, 3, dilation=2),
    convolution.Conv2d(8, 4, 3, padding=(0, 1)),
    convolution.Conv2d(8, 4, (3, 1)),
    convolution.Conv2d(8, 4, 3, padding="same"),
    convolution.ConvTranspose2d(8, 4, 3, (2, 1)),
    convolution.Conv2d(8, 4, 3, padding=1, padding_mode="reflect")
], ids=repr)
def test_what_the_product_does_not_know_is_left_to_torch(layer):
    x = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(2))
    torchs = nn.ConvTranspose2d if isinstance(layer, nn.ConvTranspose2d) else nn.Conv2d
    ours, theirs = gradients(layer, layer, x, "bf16"), gradients(lambda x: torchs.forward(layer, x),
                                                                 layer, x, "bf16")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_gradient_lies_in_memory_as_its_weight_does():
    layer = convolution.Conv2d(8, 4, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    assert gradients(layer, layer, x,
                     "bf16") and layer.weight.grad.stride() == layer.weight.stride()
