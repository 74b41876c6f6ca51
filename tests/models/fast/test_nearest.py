"""The nearest patch: by float32, or but for rounding where that is enough."""
import pytest
import torch
from scipy.spatial.distance import cdist

from adlib.models.fast import nearest
from adlib.models.fast.device import has_bf16
from adlib.models.fast.nearest import Nearest

CPU = torch.device("cpu")


def drawn(n: int, channels: int, seed: int = 0) -> torch.Tensor:
    """Of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, generator=generator) * torch.rand(n, 1, generator=generator)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("channels", [3, 8, 448])
@pytest.mark.parametrize("size", [1e-3, 1., 1e3])
def test_it_is_scipys(size, channels, rounded, monkeypatch):
    """With few channels many are as near but for rounding."""
    monkeypatch.setattr(nearest, "has_bf16", lambda device: rounded)
    bank, cells = size * drawn(3000, channels), size * drawn(300, channels, 1)
    search, distances = Nearest(bank, CPU), cdist(cells, bank)
    assert search.rounded == rounded
    for barred in (None, torch.arange(0, 3000, 2)):
        if barred is not None:
            distances[:, barred] = float("inf")
        found = search(cells, barred)
        assert found.dtype == torch.int64
        # but for what float32 cannot tell apart, either
        assert distances[range(300), found] == pytest.approx(distances.min(axis=1), rel=1e-4,
                                                             abs=1e-3 * size)
        assert (found.numpy() == distances.argmin(axis=1)).mean() > 0.99


@pytest.mark.skipif(not has_bf16(CPU), reason="this processor rounds no products to bf16")
def test_where_that_is_enough_it_is_the_nearest_but_for_rounding():
    """Far from the origin, where bf16 tells nothing apart: it looks from the patches' centre."""
    torch.manual_seed(0)
    bank, cells = 100 + torch.randn(300, 64), 100 + torch.randn(50, 64)
    exact, found = (torch.from_numpy(cdist(cells, bank)).gather(
        1, Nearest(bank, CPU, exact)(cells)[:, None]) for exact in (True, False))
    assert torch.get_float32_matmul_precision() == "highest"
    # squared distances that rounding 64 products to 8 bits, twice, cannot tell apart
    assert 0 <= (found.square() - exact.square()).max() < 12 * 2**-8 * 64**0.5
    assert (found == exact).double().mean() > 0.8


@pytest.mark.parametrize("rounded", [False, True])
def test_a_cell_that_is_no_number_spoils_no_other(rounded, monkeypatch):
    monkeypatch.setattr(nearest, "has_bf16", lambda device: rounded)
    bank, cells = drawn(50, 8), drawn(20, 8, 1)
    expected = cdist(cells, bank).argmin(axis=1)
    cells[[3, 7]] = torch.tensor([[float("nan")], [float("inf")]])
    found = Nearest(bank, CPU)(cells)
    usual = [i for i in range(20) if i not in (3, 7)]
    assert found.shape == (20, ) and (found.numpy()[usual] == expected[usual]).all()


def test_patches_that_are_one_and_a_cell_that_is_one_of_them():
    bank = drawn(50, 8)
    bank[25:] = bank[:25]
    for exact in (True, False):
        search = Nearest(bank, CPU, exact)
        assert torch.equal(bank[search(bank)], bank)
        assert search(bank, torch.arange(25)).min() >= 25
        assert search(bank[:0]).shape == (0, )
    alike = Nearest(bank[:1].repeat(4, 1), CPU)
    assert alike(bank).shape == (50, )
