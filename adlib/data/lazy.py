"""A sequence whose items are made when they are looked at: pictures too large to be kept."""
from __future__ import annotations

import typing


class Lazy(typing.Sequence[typing.Any]):
    """n items; `make` gives item i, each time it is looked at; a subclass has it as a method."""

    def __init__(self, n: int, make: typing.Callable[[int], typing.Any]) -> None:
        self.n, self.make = n, make

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> typing.Any:
        if not 0 <= i < self.n:
            raise IndexError(i)
        return self.make(i)
