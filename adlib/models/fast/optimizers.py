"""Adam and Muon over weights as they lie in memory, whatever their layout. Muon: fewer steps to the
same loss, from scratch."""
from __future__ import annotations

import typing

import torch

# of the quintic iteration: steepest at 0 among those that end near 1 (Jordan et al.)
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# measured: 3 leave a higher loss; Jordan's 5 suit larger batches, and blew up in bfloat16
STEPS = 4
# root mean square of an update, so that one learning rate serves both kinds (Liu et al.)
AS_LARGE_AS_ADAMS = 0.2
LEAST = 32  # channels on both sides: a narrower convolution is no matrix worth it, and Adam's
# channels made orthogonal to each other: a taller weight in parts takes less time and learns as
# well
TOGETHER = 128


class Adam(torch.optim.Adam):
    """torch's fused Adam, each weight taken as the vector that it is in memory: half the time for
    channels last on a CPU.

    It also keeps off a fault of torch's (2.14, CPU): its fused step pairs weight and gradient by
    their place in memory and is silently wrong where their layouts differ.
    """
    def __init__(self, weights: typing.Iterable[torch.nn.Parameter], lr: float,
                 betas: tuple[float, float]) -> None:
        self.weights = list(weights)
        super().__init__([torch.nn.Parameter(_vector(weight)) for weight in self.weights], lr=lr,
                         betas=betas, fused=True)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for weight in self.weights:
            weight.grad = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for weight, vector in zip(self.weights, self.param_groups[0]["params"], strict=True):
            gradient = weight.grad
            if gradient is not None and gradient.stride() != weight.stride():
                gradient = torch.empty_like(weight).copy_(gradient)
            vector.grad = None if gradient is None else _vector(gradient)
        self._update()

    def _update(self) -> None:
        super().step()


class Muon(Adam):
    """Muon for convolutions of at least 32 channels on both sides, Adam for everything else
    (biases, batch norm, first and last layer).

    Jordan, Jin, Boza, Cesista, Newhouse, Bernstein: Muon (2024); the updates' scale: Liu et al.,
    Muon is scalable for LLM training (2025); weights in parts: Khaled et al., MuonBP (2025), who do
    it between machines and gather the whole now and then, as we do not. The learning rate is
    Adam's; the first of `betas` is the momentum.
    """
    def __init__(self, weights: typing.Iterable[torch.nn.Parameter], lr: float,
                 betas: tuple[float, float], dtype: torch.dtype) -> None:
        """dtype: of the matrix products, float32 or bfloat16."""
        super().__init__(weights, lr, betas)
        self.dtype = dtype

    def _update(self) -> None:
        group = self.param_groups[0]
        for weight, vector in zip(self.weights, group["params"], strict=True):
            if vector.grad is None or weight.ndim != 4 or min(weight.shape[:2]) < LEAST:
                continue
            if not self.state[vector]:  # Adam demands a `step` of every state that it loads
                self.state[vector] |= {
                    "step": torch.tensor(0.0), "momentum": torch.zeros_like(vector)
                }
            momentum = self.state[vector]["momentum"]
            momentum.mul_(group["betas"][0]).add_(vector.grad)
            # Nesterov's. A row a channel; the order of the columns, which is that in memory,
            # changes nothing.
            ahead = vector.grad.add(momentum, alpha=group["betas"][0]).to(self.dtype).view(
                len(weight), -1)
            for part, rows in zip(ahead.split(TOGETHER),
                                  vector.view(ahead.shape).split(TOGETHER), strict=True):
                rows.add_(orthogonal(part),
                          alpha=-group["lr"] * AS_LARGE_AS_ADAMS * max(part.shape)**0.5)
            vector.grad = None  # what is left is Adam's
        super()._update()


def orthogonal(matrix: torch.Tensor, steps: int = STEPS) -> torch.Tensor:
    """[m,n] -> [m,n] of the same singular vectors, its singular values brought near 1 by Newton and
    Schulz's iteration.

    Of the norm-scaled matrix every singular value s becomes a*s + b*s^3 + c*s^5, `steps` times
    over. All of it happens on the smaller side, where a step is a polynomial of the matrix times
    its transpose: half the arithmetic, and the same result.
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


def _vector(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers as one vector, in the order in which they lie in memory, which they fill
    without a gap."""
    return tensor.detach().as_strided((tensor.numel(), ), (1, ))
