"""Which of many patches is the nearest to a cell: by one matrix product, and, where that is rounded
to bf16 for speed, by float32 among the few that rounding may have confused."""
from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from adlib.models.fast.device import has_bf16, rounded_products

# By how much the product of two lines may be off where both are rounded to bf16, twice that: of the
# product of their sizes (Cauchy-Schwarz, 2^-8 a factor), and a fiftieth for what else is rounded
# (of cells near the centre that may leave 1e-5 of the squared size of a patch)
ERROR = 1.02 * 2**-6


class Nearest:
    """The nearest of a bank to each of some cells. An exported graph holds no rounding."""

    def __init__(self, bank: torch.Tensor, device: torch.device, exact: bool = True) -> None:
        """
        Args:
            bank: float32 [M,C], which may change no more.
            device: of the search. Products are rounded on a processor that has bf16 natively: a
                third of the time.
            exact: find the nearest by float32 all the same: two thirds as much time again.
        """
        exported = torch.compiler.is_compiling()
        self.bank, self.device = bank, torch.device("cpu") if exported else device
        self.rounded = not exported and device.type == "cpu" and has_bf16(device)
        self.settles = self.rounded and exact
        self.centre = bank.mean(dim=0)  # about which least is lost by rounding
        away = bank - self.centre
        squares = away.square().sum(dim=1)
        self.sizes = squares.sqrt()
        # |a - b|^2 = |a|^2 + (|b|^2 - 2ab): the nearest has the least part in brackets.
        columns = [-2 * away, squares[:, None]]
        if self.rounded:  # two columns whose sum is as good as exact
            large = squares.bfloat16().float()
            columns[1:] = large[:, None], (squares - large)[:, None]
        if self.settles:
            columns.append(-self.sizes[:, None])
        products = torch.cat(columns, dim=1)
        if self.rounded:  # zeros to a whole number of the processor's tiles: a fifth of the time
            products = nn.functional.pad(products, (0, -products.shape[1] % 32))
        self.products = products.to(self.device)

    def among(self, kept: torch.Tensor) -> Nearest:
        """The same of some of the bank, int64 [K]."""
        other = copy.copy(self)
        other.bank, other.sizes = self.bank[kept], self.sizes[kept]
        other.products = self.products[kept.to(self.device)]
        return other

    def __call__(self, cells: torch.Tensor, barred: torch.Tensor | None = None) -> torch.Tensor:
        """float32 [P,C] -> int64 [P], places in the bank, but for those that are barred: int64, for
        all of them, or bool [P,M]."""
        values, error = self._values(cells)
        if barred is not None and barred.dtype == torch.bool:  # that takes as long as half a search
            values = values.masked_fill(barred.to(self.device), torch.inf)
        elif barred is not None:
            values[:, barred.to(self.device)] = torch.inf
        # NumPy finds it in a tenth of the time that torch takes; an exporter sees torch alone.
        alone = torch.compiler.is_compiling() or values.device.type != "cpu"
        nearest = (values.argmin(dim=1).cpu() if alone else
                   torch.from_numpy(values.numpy().argmin(axis=1)))
        if not self.settles:
            return nearest
        most = values.gather(1, nearest[:, None])[:, 0] + 2 * error * self.sizes[nearest]
        asked = values.numpy() <= most.numpy()[:, None]
        asked[np.arange(len(asked)), nearest] = True  # of a cell that is no number, too
        return self._nearest_of(cells, asked)

    def squares(self, cells: torch.Tensor) -> torch.Tensor:
        """float32 [P,C] -> [P,M], how far each patch lies from each cell: the square, less that of
        the cell from `centre`. For a search that is not exact: rounded, where products are."""
        return self._values(cells)[0]

    def _values(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The part in brackets, and where it settles what that may be off by: [P], of a patch of
        size 1."""
        away, error = cells - self.centre, None
        added = cells.new_ones(len(cells), self.products.shape[1] - cells.shape[1])
        if self.settles:  # each value is at most what it would be unrounded
            error = added[:, 2] = ERROR * away.norm(dim=1)
        with rounded_products(self.rounded):
            return torch.cat([away, added], dim=1).to(self.device) @ self.products.T, error

    def _nearest_of(self, cells: torch.Tensor, asked: np.ndarray) -> torch.Tensor:
        """The nearest of those patches that are asked, bool [P,M]: one or two of thousands."""
        cell, patch = np.divmod(np.flatnonzero(asked), asked.shape[1])
        squares = (cells[cell] - self.bank[patch]).square().sum(dim=1).numpy()
        order = np.lexsort((squares, cell))
        return torch.from_numpy(patch[order][np.unique(cell[order], return_index=True)[1]])
