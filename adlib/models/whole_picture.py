"""How far a whole picture lies from the good ones. What is compared cell by cell may be nowhere
unusual, and yet not go together: a darker cell is usual, a picture of which half is darker is not.
"""
from __future__ import annotations

import torch
from torch import nn

from adlib.models.detectors import DIGIT

SIDE = 4  # a picture is compared by means of so many places across and down
RIDGE = 0.1  # of good pictures' mean squared distance to their mean: what counts as noise
MOST = 3.0  # deviations


class WholePicture(nn.Module):
    """What is left of a picture when it is explained by the ways in which good pictures differ, at
    the place where most is left, in deviations of other good pictures'.

    At most MOST: of pictures that are all unlike the good ones, taken elsewhere say, it then says
    the same of each, and which is bad is left to its cells. At least -MOST: what was photographed
    before hides no defect. Until it is fitted and scaled it is 0.

    Reference: DFM (Ahuja et al. 2019), which keeps the leading components. A ridge shrinks them
        instead, so that leaving a picture out takes no refit.
    """

    def __init__(self, width: int) -> None:
        """width: channels of the features."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(width, SIDE, SIDE))
        self.register_buffer("basis", torch.zeros(0, self.mean.numel()))
        self.register_buffer("centre", torch.tensor(0.0))
        self.register_buffer("spread", torch.tensor(torch.inf))
        self.fitted_on: torch.Tensor | None = None  # the good pictures about their mean, [N,D]

    def fit(self, pooled: torch.Tensor, own: torch.Tensor) -> WholePicture:
        """pooled: of good pictures. own: int64 [N], the same for pictures of one thing."""
        self.mean, self.own = pooled.mean(dim=0), own
        z = (pooled - self.mean).flatten(1).double()
        products = z @ z.T
        self.ridge = RIDGE * float(products.diagonal().mean().clamp_min(1e-12))
        values, vectors = torch.linalg.eigh(products)
        # x - basis' basis x = (z'z / ridge + 1)^-1 x, without a D x D matrix
        self.basis = ((vectors / (values.clamp_min(0) + self.ridge).sqrt()).T @ z).float()
        self.fitted_on = z.float()
        return self

    def scale(self, pooled: torch.Tensor, own: torch.Tensor | None = None) -> None:
        """pooled: of good pictures. own: as `distance`."""
        if self.fitted_on is not None:
            distance = self.distance(pooled, own)
            self.centre, self.spread = distance.mean(), distance.std().clamp_min(DIGIT)

    def forward(self, features: torch.Tensor, own: torch.Tensor | None = None) -> torch.Tensor:
        """float32 [N,C,g,g] -> [N]. own: as `distance`."""
        if not len(self.basis):
            return features.new_zeros(len(features))
        z = (self.distance(self.pooled(features), own) - self.centre) / self.spread
        return z.clamp(-MOST, MOST)

    def pooled(self, features: torch.Tensor) -> torch.Tensor:
        """float32 [N,C,g,g] -> [N,C,SIDE,SIDE]."""
        return nn.functional.avg_pool2d(features, features.shape[-1] // SIDE)

    def distance(self, pooled: torch.Tensor, own: torch.Tensor | None = None) -> torch.Tensor:
        """float32 [N]. own: int64 [N], which pictures each is explained without, as `fit`'s; -1 or
        None where it was none of them."""
        if not len(pooled):
            return pooled.new_zeros(0)
        z = (pooled - self.mean).flatten(1)
        left = torch.stack([self._unexplained(one) for one in z])
        if own is not None:
            left = left + torch.stack([self._explained_by(*one)
                                       for one in zip(own, left, z, strict=True)])
        return left.view(-1, *self.mean.shape).norm(dim=1).amax(dim=(1, 2))

    def _unexplained(self, x: torch.Tensor) -> torch.Tensor:
        """[D] -> [D], one by one: a picture's numbers do not depend on which others are asked."""
        return x - self.basis.T @ (self.basis @ x)

    def _explained_by(self, number: torch.Tensor, left: torch.Tensor,
                      x: torch.Tensor) -> torch.Tensor:
        """What is left of x [D] more when some of the pictures fitted on are left out: [D]."""
        some = self.own == number
        if not some.any() or some.all():
            return torch.zeros_like(left)
        # Woodbury. 1 / N: the mean is that of the others, too.
        z, n = self.fitted_on[some].double(), len(some)
        rest = torch.stack([self._unexplained(one) for one in self.fitted_on[some]]).double()
        hat, share = rest @ z.T / self.ridge + 1 / n, rest @ x.double() / self.ridge + 1 / n
        eye = torch.eye(len(z), dtype=torch.float64)
        return (rest.T @ torch.linalg.solve(eye - hat, share)).to(left)
