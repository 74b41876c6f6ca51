"""Convolutions that train faster in bf16 on a CPU; everything else about them is torch's.

oneDNN computes the gradient of a convolution's weights at a third to two thirds of the speed of the
passes beside it, and in a layout that is then turned round, number by number.
The same gradient is one matrix product: the pixels of the smaller side times the windows of the
larger one. A training step takes a fifth less time. In float32 oneDNN's own way is the faster one.
"""
from __future__ import annotations

import typing

import torch
from torch import nn


class Conv2d(nn.Conv2d):
    """torch's, with its weights' gradient as one matrix product where that is the faster way
    (`_faster`)."""
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _apply(self, x, False) if _faster(self, x) else super().forward(x)


class ConvTranspose2d(nn.ConvTranspose2d):
    """The same of torch's."""
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _apply(self, x, True) if _faster(self, x) else super().forward(x)


def weight_gradient(wide: torch.Tensor, narrow: torch.Tensor, kernel: int, stride: int,
                    padding: int) -> torch.Tensor:
    """The gradient of a convolution's weights: its input [N,A,H,W] and its output's gradient
    [N,B,h,w] -> [B,A,kernel,kernel].

    Of a transposed convolution: its output's gradient and its input. Fastest, and without a copy,
    in channels last.
    """
    batch, channels = wide.shape[:2]
    rows = narrow.permute(0, 2, 3, 1).reshape(-1, narrow.shape[1])
    padded = nn.functional.pad(wide.permute(0, 2, 3, 1), (0, 0, *[padding] * 4)).contiguous()
    image, line, pixel, channel = padded.stride()
    windows = padded.as_strided(
        (batch, *narrow.shape[2:], kernel, kernel, channels),
        (image, line * stride, pixel * stride, line, pixel, channel)).reshape(len(rows), -1)
    return (rows.T @ windows).view(-1, kernel, kernel, channels).permute(0, 3, 1, 2)


class _Convolution(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(ctx: typing.Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None,
                *how: typing.Any) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = how
        return torch.convolution(x, weight, bias, *how)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: typing.Any, gradient: torch.Tensor) -> tuple:
        x, weight = ctx.saved_tensors
        (stride, *_), (padding, *_), _, transposed, *_ = ctx.how
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = torch.ops.aten.convolution_backward(gradient, x, weight, None, *ctx.how,
                                                       [True, False, False])[0]
        pair = (gradient, x) if transposed else (x, gradient)
        of_weight = weight_gradient(*pair, weight.shape[-1], stride, padding)
        of_bias = gradient.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None
        return of_x, of_weight, of_bias, *[None] * len(ctx.how)


def _apply(layer: nn.Conv2d | nn.ConvTranspose2d, x: torch.Tensor,
           transposed: bool) -> torch.Tensor:
    return _Convolution.apply(x, layer.weight, layer.bias, layer.stride, layer.padding,
                              layer.dilation, transposed, layer.output_padding, layer.groups)


def _faster(layer: nn.Conv2d | nn.ConvTranspose2d, x: torch.Tensor) -> bool:
    """Is this a training step in bf16 on a CPU, the layer not frozen, and of the kind that
    `weight_gradient` knows?"""
    known = (layer.groups == 1 and set(layer.dilation) == {1} and layer.padding_mode == "zeros"
             and all(
                 len(set(pair)) == 1 for pair in (layer.kernel_size, layer.stride, layer.padding)))
    return (known and x.device.type == "cpu" and torch.is_grad_enabled()
            and layer.weight.requires_grad and torch.is_autocast_enabled("cpu"))
