"""A category opened for a run: its image sets, each loaded once and when it is first looked at."""
from __future__ import annotations

import dataclasses
import functools
import typing
from pathlib import Path

import torch

from adlib.config import Config, log
from adlib.data import images, layout, masks


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """Some images of a category at one size, which knows its files and keeps what it has loaded."""

    category: layout.Category
    paths: tuple[Path, ...]
    size: int  # pixels a side
    grey_range: str = ""  # the parameter

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def keys(self) -> list[str]:
        """The images' names in tables: paths below the data's root, with '/'."""
        return [self.category.key(path) for path in self.paths]

    @functools.cached_property
    def tensor(self) -> torch.Tensor:
        """uint8 [N,3,S,S], memory-mapped. Raises InputError naming every file that cannot be
        read."""
        return images.load(self.paths, self.size, self.read_by)

    @property
    def read_by(self) -> tuple[float, float] | None:
        """What becomes 0 and 255 in images of more than 8 bits."""
        return images.grey_range(self.category.train, self.grey_range)

    @functools.cached_property
    def mask_paths(self) -> list[Path | None]:
        """The ground-truth mask of each image; None where there is none."""
        return [self.category.masks.get(path) for path in self.paths]

    @functools.cached_property
    def _masks(self) -> tuple[torch.Tensor, list[masks.Notes]]:
        return masks.load(self.paths, self.mask_paths, self.size)

    @property
    def masks(self) -> torch.Tensor:
        """bool [N,S,S], True = defective; all False where an image has no mask. Raises InputError
        naming every mask that cannot be used."""
        return self._masks[0]

    @property
    def mask_notes(self) -> list[masks.Notes]:
        """What had to be assumed to read each image's mask, by the codes of `masks`."""
        return self._masks[1]

    def select(self, indices: typing.Iterable[int]) -> ImageSet:
        """The images of some indices, in that order."""
        return dataclasses.replace(self, paths=tuple(self.paths[int(i)] for i in indices))


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """What a run works on. No label is in it: `adlib.evaluation.results` reads those, at the
    end."""

    config: Config  # with its category filled in
    category: layout.Category
    source: str  # the rule that found the data: parameter | environment | project | drawn
    train_index: torch.Tensor  # int64, of `good`: what a detector is fitted on
    held_out_index: torch.Tensor  # int64, of `good`: what calibrates it

    def _set(self, paths: typing.Sequence[Path]) -> ImageSet:
        return ImageSet(self.category, tuple(paths), self.config.image_size,
                        self.config.grey_range)

    @property
    def grey_range(self) -> tuple[float, float] | None:
        """What becomes 0 and 255 in images of more than 8 bits; None where there are none."""
        return images.grey_range(self.category.train, self.config.grey_range)

    @functools.cached_property
    def good(self) -> ImageSet:
        """All good training images, held out or not."""
        return self._set(self.category.train)

    @functools.cached_property
    def train(self) -> ImageSet:
        return self.good.select(self.train_index)

    @functools.cached_property
    def held_out(self) -> ImageSet:
        return self.good.select(self.held_out_index)

    @functools.cached_property
    def test(self) -> ImageSet:
        return self._set(self.category.test)

    @functools.cached_property
    def train_bad(self) -> ImageSet:
        """The course layout's train/bad: never trained on, an extra set to evaluate with."""
        return self._set(self.category.train_bad)


def open_part(config: Config) -> Part:
    """Find the data of a configuration and split its good images; nothing is decoded yet.

    Raises:
        InputError: for a folder, a category or a file that is not as it has to be, and for too few
            good images.
    """
    root, source = layout.find_root(config.data_root)
    category = layout.open_category(root, config.category, config.excluded)
    if category.unread:
        log.warning("%d files in %s have no place in its layout and are not read: %s",
                    len(category.unread), root / category.name,
                    layout.some(list(map(category.key, category.unread))))
    kept, held = split(len(category.train), config.held_out, config.seed)
    config = dataclasses.replace(config, category=category.name)
    return Part(config, category, source, kept, held)


def split(n: int, held_out: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of n good images -> (to fit on, held out): int64, sorted, decided by `seed` alone.

    A positive share holds out at least one image, and leaves at least two: of fewer than three, and
    where it would take all but one, none is held out.
    """
    count = max(1, round(n * held_out)) if held_out > 0 else 0
    count = count if n - count >= 2 else 0
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[count:].sort().values, order[:count].sort().values
