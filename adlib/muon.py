"""Muon: momentum made orthogonal, for networks trained from scratch. Fewer steps to the same loss than Adam's."""
from __future__ import annotations

import typing

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration: steepest at 0 among those that end near 1 (Jordan et al.)
STEPS = 4  # measured (docs/performance.md): 3 leave a higher loss; Jordan's 5 suit larger batches, and blew up in bfloat16
AS_LARGE_AS_ADAMS = 0.2  # root mean square of an update, so that one learning rate serves both kinds (Liu et al.)
LEAST = 32  # channels on both sides: a narrower convolution is no matrix worth it, and Adam's


class Muon(torch.optim.Adam):
    """Muon for convolutions of at least 32 channels on both sides, Adam for everything else (biases, batch norm, first and last layer).

    Jordan, Jin, Boza, Cesista, Newhouse, Bernstein: Muon (2024); the updates' scale: Liu et al., Muon is scalable for LLM training
    (2025). The learning rate is Adam's; the first of `betas` is the momentum.
    """

    def __init__(self, parameters: typing.Iterable[torch.nn.Parameter], lr: float, betas: tuple[float, float], dtype: torch.dtype) -> None:
        """dtype: of the matrix products, float32 or bfloat16."""
        super().__init__(parameters, lr=lr, betas=betas, fused=True)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None or weight.ndim != 4 or min(weight.shape[:2]) < LEAST:
                    continue
                if not self.state[weight]:  # Adam demands a `step` of every state that it loads
                    self.state[weight] |= {"step": torch.tensor(0.0), "momentum": torch.zeros_like(weight)}
                momentum = self.state[weight]["momentum"]
                momentum.mul_(group["betas"][0]).add_(weight.grad)
                ahead = weight.grad.add(momentum, alpha=group["betas"][0]).flatten(1)  # Nesterov's
                update = orthogonal(ahead.to(self.dtype)).view_as(weight)
                weight.add_(update, alpha=-group["lr"] * AS_LARGE_AS_ADAMS * max(ahead.shape) ** 0.5)
                weight.grad = None  # what is left is Adam's
        super().step()


def orthogonal(matrix: torch.Tensor, steps: int = STEPS) -> torch.Tensor:
    """[m,n] -> [m,n] of the same singular vectors, its singular values brought near 1 by Newton and Schulz's iteration.

    Of the norm-scaled matrix every singular value s becomes a*s + b*s^3 + c*s^5, `steps` times over. All of it happens on the smaller
    side, where a step is a polynomial of the matrix times its transpose: half the arithmetic, and the same result.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T, steps).T
    a, b, c = COEFFICIENTS
    matrix = matrix / (matrix.norm() + 1e-7)
    gram, product = matrix @ matrix.T, None
    for step in range(1, steps + 1):
        factor = torch.addmm(b * gram, gram, gram, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        if step < steps:
            gram = factor @ gram @ factor
    return product @ matrix
