"""Which of many patches is the nearest to a cell: by one matrix product that bounds how near each
is, and by float32 among the few that may be the nearest by that. The bound is the distance rounded
to bf16, or of leading directions alone: either takes a half of what the distance itself does."""
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
# Where bf16 is not native: so many directions in which the patches vary most are told apart; of the
# others a cell's and a patch's sizes say how far apart they are at least (Cauchy-Schwarz).
DIRECTIONS = 156
HIDDEN = 3e-5  # share of the whole squared size that is added to the rest's: rounding to float32
PAIRS = 512  # of a cell and a patch compared at a time: they stay in the processor's cache


class Nearest:
    """The nearest of a bank to each of some cells. An exported graph holds no rounding."""

    def __init__(self, bank: torch.Tensor, device: torch.device, exact: bool = True) -> None:
        """
        Args:
            bank: float32 [M,C], which may change no more.
            device: of the search. Products are rounded on a processor that has bf16 natively: a
                third of the time.
            exact: find the nearest by float32. If not, such a processor finds it but for rounding,
                in two thirds of the time.
        """
        exported = torch.compiler.is_compiling()
        self.bank, self.device = bank, torch.device("cpu") if exported else device
        alone = not exported and device.type == "cpu"
        self.rounded = alone and has_bf16(device)
        self.centre = bank.mean(dim=0)  # about which least is lost by rounding
        away = bank - self.centre
        squares = away.square().sum(dim=1)
        self.sizes, self.directions = squares.sqrt(), None
        if alone and exact and not self.rounded and min(bank.shape) > 2 * DIRECTIONS:
            _, vectors = torch.linalg.eigh((away.T @ away).double())
            self.directions = vectors[:, -DIRECTIONS:].float()
        self.settles = self.rounded and exact or self.directions is not None
        # |a - b|^2 = |a|^2 + (|b|^2 - 2ab): the nearest has the least part in brackets.
        columns = [-2 * self._seen(away, squares), squares[:, None]]
        if self.rounded:  # two columns whose sum is as good as exact
            large = squares.bfloat16().float()
            columns[1:] = large[:, None], (squares - large)[:, None]
        if self.rounded and exact:
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
        away = cells - self.centre
        values, error = self._values(away)
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
        if error is None:
            most = (cells - self.bank[nearest]).square().sum(dim=1) - away.square().sum(dim=1)
        else:
            most = values.gather(1, nearest[:, None])[:, 0] + 2 * error * self.sizes[nearest]
        asked = values.numpy() <= most.numpy()[:, None]
        asked[np.arange(len(asked)), nearest] = True  # of a cell that is no number, too
        return self._nearest_of(cells, asked)

    def squares(self, cells: torch.Tensor) -> torch.Tensor:
        """float32 [P,C] -> [P,M], how far each patch lies from each cell: the square, less that of
        the cell from `centre`. For a search that is not exact: rounded, where products are."""
        return self._values(cells - self.centre)[0]

    def _values(self, away: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The part in brackets, or what it is at least; and where rounding is settled what it may
        be off by: [P], of a patch of size 1. away: cells about the centre."""
        squares = away.square().sum(dim=1)
        seen, error = self._seen(away, squares), None
        added = away.new_ones(len(away), self.products.shape[1] - seen.shape[1])
        if self.rounded and self.settles:
            error = added[:, 2] = ERROR * squares.sqrt()
        with rounded_products(self.rounded):
            return torch.cat([seen, added], dim=1).to(self.device) @ self.products.T, error

    def _seen(self, away: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
        """What is compared of cells or patches about the centre, of such squared sizes: all of
        them, or the leading directions and the size of the rest."""
        if self.directions is None:
            return away
        seen = away @ self.directions
        left = (squares - seen.square().sum(dim=1)).clamp_min(0) + HIDDEN * squares
        return torch.cat([seen, left.sqrt()[:, None]], dim=1)

    def _nearest_of(self, cells: torch.Tensor, asked: np.ndarray) -> torch.Tensor:
        """The nearest of those patches that are asked, bool [P,M]: one or two of thousands."""
        cell, patch = map(torch.from_numpy, np.divmod(np.flatnonzero(asked), asked.shape[1]))
        squares = torch.cat([(cells[some] - self.bank[those]).square_().sum(dim=1) for some, those
                             in zip(cell.split(PAIRS), patch.split(PAIRS), strict=True)])
        order = np.lexsort((squares, cell))
        return patch[order][np.unique(cell[order], return_index=True)[1]]
