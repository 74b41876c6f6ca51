import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from adlib.models.fast import optimizers


@given(m=st.integers(2, 12), n=st.integers(2, 12), steps=st.integers(1, 5), seed=st.integers(0, 9))
def test_the_singular_vectors_stay_and_the_values_follow_the_polynomial(m, n, steps, seed):
    matrix = torch.randn(m, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.norm()
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    # In float64; the 1e-7 beside the norm is what is left, times 3.4445 a step near zero.
    np.testing.assert_allclose(optimizers.orthogonal(matrix, steps), u * s @ v, atol=1e-5)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 32, 3, bias=False), nn.BatchNorm2d(32), nn.Conv2d(32, 40, 3))


def grads(model, seed):
    model(torch.randn(2, 3, 9, 9,
                      generator=torch.Generator().manual_seed(seed))).square().mean().backward()


@pytest.mark.parametrize("together", [optimizers.TOGETHER, 16],
                         ids=["in one", "in parts of 16, 16 and 8"])
def test_wide_convolutions_take_torchs_muon_step_and_the_rest_adams(together, monkeypatch):
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("needs torch.optim.Muon (torch >= 2.9) as the reference")
    monkeypatch.setattr(optimizers, "TOGETHER", together)
    ours, theirs = network(), network()
    parts = [
        part.clone().requires_grad_()
        for part in theirs[2].weight.detach().flatten(1).split(together)
    ]
    lr, betas = 1e-2, (0.9, 0.95)
    own = optimizers.Muon(ours.parameters(), lr, betas, torch.float32)
    # Its momentum is an average (ours a sum), which scaling the matrix to norm 1 makes no
    # difference to.
    reference = torch.optim.Muon(parts, lr=lr, weight_decay=0, momentum=betas[0],
                                 ns_steps=optimizers.STEPS, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.Adam([p for name, p in theirs.named_parameters() if name != "2.weight"],
                            lr=lr, betas=betas)
    for seed in range(3):
        theirs[2].weight.data = torch.cat(parts).detach().view_as(theirs[2].weight)
        grads(ours, seed)
        grads(theirs, seed)
        for part, gradient in zip(parts, theirs[2].weight.grad.flatten(1).split(together),
                                  strict=True):
            part.grad = gradient
        for optimiser in (own, reference, adam):
            optimiser.step()
            optimiser.zero_grad()
        theirs.zero_grad()
    moved = (ours[2].weight.flatten(1) - network()[2].weight.flatten(1)).norm()
    # its products are in bfloat16
    assert (ours[2].weight.flatten(1) - torch.cat(parts)).norm() < 0.02 * moved
    for name, value in ours.named_parameters():
        if name != "2.weight":
            # A fifth of a step apart at most: what the reference's products in bfloat16 lead to.
            torch.testing.assert_close(value,
                                       dict(theirs.named_parameters())[name], atol=2e-3, rtol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("turned", [False, True],
                         ids=["gradient as the weight lies", "gradient in the other layout"])
def test_adam_takes_torchs_step_however_weights_and_gradients_lie(layout, turned):
    ours, theirs = network().to(memory_format=layout), network().to(memory_format=layout)
    other = torch.channels_last if layout == torch.contiguous_format else torch.contiguous_format
    own = optimizers.Adam(ours.parameters(), 1e-2, (0.9, 0.95))
    reference = torch.optim.Adam(theirs.parameters(), lr=1e-2, betas=(0.9, 0.95), fused=False)
    for seed in range(3):
        for model, optimiser in ((ours, own), (theirs, reference)):
            optimiser.zero_grad()
            grads(model, seed)
            for weight in model.parameters():
                if turned and weight.ndim == 4:
                    weight.grad = weight.grad.contiguous(memory_format=other)
            optimiser.step()
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        # Three steps of 1e-2 at the most, of a dozen operations in float32 each.
        torch.testing.assert_close(mine, its, atol=1e-6, rtol=1e-5)


def test_its_state_is_saved_and_taken_up_again():
    model = network()
    whole = optimizers.Muon(model.parameters(), 1e-2, (0.9, 0.95), torch.float32)
    grads(model, 0)
    whole.step()
    other = network()
    other.load_state_dict(model.state_dict())
    resumed = optimizers.Muon(other.parameters(), 1e-2, (0.9, 0.95), torch.float32)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for each, optimiser in ((model, whole), (other, resumed)):
        optimiser.zero_grad()
        grads(each, 1)
        optimiser.step()
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
