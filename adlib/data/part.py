"""A category opened for a run: its image sets, each loaded once and when it is first looked at."""
from __future__ import annotations

import dataclasses
import functools
import typing
from pathlib import Path

import numpy as np
import torch

from adlib.config import Config, log
from adlib.data import background, frame, images, layout, masks
from adlib.data.frame import Frame


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """Some images of a category at one size, which knows its files and keeps what it has loaded."""

    category: layout.Category
    paths: tuple[Path, ...]
    size: int | Frame  # pixels a side, or the frame of whole pictures
    grey_range: str = ""  # the parameter
    tiled: Frame | None = None  # of fit tile: the frame of what a detector is given

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def keys(self) -> list[str]:
        """The images' names in tables: paths below the data's root, with '/'."""
        return [self.category.key(path) for path in self.paths]

    @functools.cached_property
    def framed(self) -> torch.Tensor:
        """`tensor`, or [N,4,S,S] where not every pixel counts: the fourth channel is 255 where one
        does. Raises InputError naming every file that cannot be read."""
        return images.load(self.paths, self.size, self.read_by, self.tiled)

    @property
    def tensor(self) -> torch.Tensor:
        """uint8 [N,3,S,S], memory-mapped: whole pictures. Raises as `framed`."""
        return self.framed[:, :3]

    @property
    def given(self) -> torch.Tensor | images.Pictures:
        """What a detector is given: `framed`, or of fit tile pictures of their own sizes."""
        if self.tiled is None:
            return self.framed
        return images.Pictures(self.paths, self.tiled, self.read_by)

    @property
    def read_by(self) -> tuple[float, float] | None:
        """What becomes 0 and 255 in images of more than 8 bits."""
        return images.grey_range(self.category.train, self.grey_range)

    @property
    def shown_sizes(self) -> list[tuple[int, int]]:
        """The height and width of each image's file, as it is shown."""
        return [masks.shown_size(path) for path in self.paths]

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

    @property
    def area(self) -> torch.Tensor | None:
        """Which pixels of `tensor` count, bool [N,S,S]; None = all."""
        return self.framed[:, 3] > 0 if self.framed.shape[1] == 4 else None

    def native_mask(self, i: int) -> np.ndarray:
        """The mask of image i on its own pixels, bool [H,W]."""
        return masks.native(self.paths[i], self.mask_paths[i])

    def native_area(self, i: int) -> np.ndarray:
        """Which of its own pixels count, bool [H,W]."""
        size = masks.shown_size(self.paths[i])
        looked_at = self.tiled.looked_at
        return np.ones(size, bool) if looked_at is None else frame.stretched(looked_at, size)

    def on_own_pixels(self, map_: np.ndarray, i: int) -> np.ndarray:
        """A map of `given` image i, [h,w], on the image's own pixels: float32 [H,W]."""
        return frame.unlaid(map_, self.tiled, masks.shown_size(self.paths[i]))

    def own_pixels(self, i: int) -> float:
        """How many of its own pixels the frame of image i is of, its rim included."""
        height, width = masks.shown_size(self.paths[i])
        outer, box = (self.tiled or self.size).place(height, width)
        return height * width * outer[0] * outer[1] / (box.height * box.width)

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
    # of `fit: auto` what was decided and why (evaluation/fits); config.fit is the chosen one
    fit_choice: dict[str, typing.Any] | None = None
    found: tuple[np.ndarray | None, str] = None, ""  # of `roi: auto`, as background.region
    # of `robust` the good images left out: path (the key), reason, distance (evaluation/suspects)
    left_out: list[dict[str, typing.Any]] | None = None

    @property
    def requested(self) -> Config:
        """The configuration before a fit was chosen."""
        return dataclasses.replace(self.config, fit="auto") if self.fit_choice else self.config

    def _set(self, paths: typing.Sequence[Path]) -> ImageSet:
        whole, tiled = frames(self.config, self.looked_at)
        return ImageSet(self.category, tuple(paths), whole, self.config.grey_range, tiled)

    @functools.cached_property
    def looked_at(self) -> np.ndarray | None:
        """What the category's masks roi and ignore leave to be looked at, bool [h,w], stretched
        over every picture; None = all. InputError for masks that cannot be used."""
        return frame.looked_at(self.category.roi, self.category.ignore, masks.region, self.found[0])

    @property
    def grey_range(self) -> tuple[float, float] | None:
        """What becomes 0 and 255 in images of more than 8 bits; None where there are none."""
        return images.grey_range(self.category.train, self.config.grey_range)

    @functools.cached_property
    def good(self) -> ImageSet:
        """All good training images, held out or not; none of left_out."""
        keys = {row["path"] for row in self.left_out or ()}
        return self._set([path for path in self.category.train
                          if self.category.key(path) not in keys])

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

    def without(self, left_out: list[dict[str, typing.Any]]) -> Part:
        """The same without some good images, its left_out, and split again."""
        kept, held = split(len(self.category.train) - len(left_out), self.config.held_out,
                           self.config.seed)
        return dataclasses.replace(self, train_index=kept, held_out_index=held, left_out=left_out)


def frames(config: Config, looked_at: np.ndarray | None = None) -> tuple[Frame, Frame | None]:
    """The frame of whole pictures, and of fit tile that of what a detector is given."""
    if config.fit != "tile":  # auto, until it is decided: what is simplest
        fit = "squeeze" if config.fit == "auto" else config.fit
        return Frame(fit, config.image_size, looked_at=looked_at), None
    return (Frame("squeeze", config.image_size, looked_at=looked_at),
            Frame("tile", config.tile_size, config.scale, looked_at))


def open_part(config: Config) -> Part:
    """Find the data of a configuration and split its good images; nothing is decoded yet, but for
    `roi: auto`.

    Raises:
        InputError: for a folder, a category or a file that is not as it has to be, and for too few
            good images.
    """
    root, source = layout.find_root(config.data_root)
    category = layout.open_category(root, config.category, config.excluded).looking(
        config.roi, config.ignore)
    if category.unread:
        log.warning("%d files in %s have no place in its layout and are not read: %s",
                    len(category.unread), root / category.name,
                    layout.some(list(map(category.key, category.unread))))
    kept, held = split(len(category.train), config.held_out, config.seed)
    part = Part(dataclasses.replace(config, category=category.name), category, source, kept, held)
    if config.roi != "auto":
        return part
    mask = background.region(images.load(category.train, background.SIDE, part.grey_range))
    if mask[0] is None:
        log.warning("roi: auto cuts nothing off: %s", background.WHY[mask[1]])
    return dataclasses.replace(part, found=mask)


def split(n: int, held_out: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of n good images -> (to fit on, held out): int64, sorted, decided by `seed` alone.

    A positive share holds out at least one image, and leaves at least two: of fewer than three, and
    where it would take all but one, none is held out.
    """
    count = max(1, round(n * held_out)) if held_out > 0 else 0
    count = count if n - count >= 2 else 0
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[count:].sort().values, order[:count].sort().values
