"""A picture of any size through a detector of squares: cut into overlapping tiles, whose maps are
stitched into one.

What it wraps sees images of one size and knows of no tiles. It is fitted on a sample of them, the
same number from every place, so that all tiles share what it has learned (a memory, say); if it
takes that, it is told where they begin, for what belongs around there (models/by_place). Tiles
begin at multiples of a feature cell, so that their maps lie on one grid and nothing is resampled.
"""
from __future__ import annotations

import contextlib
import hashlib
import typing

import numpy as np
import torch
from torch import nn

from adlib.config import Config
from adlib.data import siblings
from adlib.data.frame import CELL
from adlib.data.images import Pictures
from adlib.models.backbone import BATCH, KEPT_BYTES, OnBackbone, on_grid
from adlib.models.detector import OWN, Detector, Fold, fit_on, parted
from adlib.models.fast.device import CHUNK, pick_device, spread, threads
from adlib.models.fast.trim import trim
from adlib.models.fused import MOST, FeatureDetector, left_out_and_own

SAMPLE = 500 * 256**2  # pixels of the tiles that it is fitted on, of each channel
FEWEST = 32  # tiles
FEATURE_BYTES = 14  # that the features of a pixel take on disk
KNOWN = 10_000  # tiles whose maps are not computed again; the oldest go first
# tiles [n,3,T,T], and where they begin, [n,2] in sides of a tile -> {name: [n,t,t]}
MapsOf = typing.Callable[[torch.Tensor, torch.Tensor], dict[typing.Any, torch.Tensor]]


class Tiled(Detector):
    """A detector of squares as one of pictures [N,3,H,W] of any size, at least a tile's."""

    def __init__(self, detector: Detector, config: Config) -> None:
        super().__init__()
        self.detector, self.weights = detector, detector.weights
        self.tile, self.overlap = config.tile_size, config.overlap
        self.seed, self.can_be_reopened = config.seed, detector.can_be_reopened
        self._known: dict[bytes, dict[str, torch.Tensor]] = {}  # the maps of tiles
        self.register_load_state_dict_post_hook(lambda module, _: module._known.clear())
        _keep_features(detector, False)

    @property
    def of_squares(self) -> Detector:
        return self.detector

    def fit(self, images: Pictures, validation: Pictures | None = None, *,
            run: typing.Any = None) -> Tiled:
        """As Detector.fit, on pictures [4,h,w] of their own sizes, taken one by one."""
        self._known.clear()
        pixels = len(images) * images[0][0].numel()
        _keep_features(self.detector, FEATURE_BYTES * pixels < KEPT_BYTES / 8)
        framed, of, origins = self.sample(images)
        self.of = siblings.groups(
            images, () if validation is None else validation)[:len(images)]
        good, area = parted(framed)
        held, held_area, held_origins = None, None, None
        if validation is not None and len(validation):
            framed, _, held_origins = self.sample(validation)
            held, held_area = parted(framed)
        fit_on(self.detector, good, held, run=run, area=area, validation_area=held_area,
               of=self.of[torch.from_numpy(of)], origins=origins, validation_origins=held_origins)
        self.history, self.position_share = self.detector.history, self.detector.position_share
        return self

    def anomaly_maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """{name: [N,h,w]}, a cell of 8 pixels, or of one where the wrapped detector's maps are so
        fine; where tiles overlap, a mean that gives less weight to their rims."""
        maps = [self.stitched(image, self._maps_of) for image in images]
        return {name: torch.stack([one[name] for one in maps]) for name in maps[0]} if maps else {}

    def _maps_of(self, tiles: torch.Tensor, origins: torch.Tensor) -> dict[str, torch.Tensor]:
        """The detector's maps of tiles, uint8 [n,3,T,T], that begin at origins [n,2]. A picture
        with a synthetic anomaly has most of them in common with the one that it was put into. Maps
        as fine as the pixels would fill memory."""
        keys = [hashlib.sha256(tile.numpy()).digest() for tile in tiles]
        maps_of = self.detector.anomaly_maps
        if placed := self.asks_origins:
            keys = [key + origin.numpy().tobytes()
                    for key, origin in zip(keys, origins, strict=True)]
        known = {key: self._known[key] for key in keys if key in self._known}
        new = [i for i, key in enumerate(keys) if key not in known]
        if new:
            # with how many others changes the numbers of a tile by rounding, unless `_spread` asks
            new = new if self._by_threads else range(len(keys))
            maps = self._spread(maps_of if placed else lambda tiles, _: maps_of(tiles),
                                tiles[new], origins[new])
            known |= {keys[i]: {name: values[row].clone() for name, values in maps.items()}
                      for row, i in enumerate(new)}
            if all(values.shape[-1] <= self.tile // CELL for values in maps.values()):
                self._known |= known
        for key in list(self._known)[:max(0, len(self._known) - KNOWN)]:
            del self._known[key]
        return {name: torch.stack([known[key][name] for key in keys]) for name in known[keys[0]]}

    @property
    def asks_origins(self) -> bool:
        """Does the detector ask where in its picture a tile begins?"""
        return getattr(self.detector, "asks_origins", False)

    @property
    def _by_threads(self) -> bool:
        return isinstance(self.detector, OnBackbone) and pick_device(
            self.detector.config.device).type == "cpu"

    def _spread(self, maps_of: MapsOf, tiles: torch.Tensor,
                origins: torch.Tensor) -> dict[str, torch.Tensor]:
        """The maps of tiles, by a thread BATCH of them from pixels to maps: what is between stays
        in the processor's cache. The last ones are asked with copies, so that a tile's numbers
        do not depend on how many others are asked for."""
        if not self._by_threads:
            return maps_of(tiles, origins)
        n = len(tiles)
        batches = torch.arange(-(-n // BATCH) * BATCH).clamp_max(n - 1).split(BATCH)
        with threads(1) if len(batches) == 1 else contextlib.nullcontext():
            maps = spread(lambda some: maps_of(tiles[some], origins[some]), batches)
        return {name: torch.cat([one[name] for one in maps])[:n] for name in maps[0]}

    def cross_fitted_maps(self, good: Pictures, fitted_on: torch.Tensor,
                          folds: typing.Sequence[Fold], area: torch.Tensor | None = None
                          ) -> typing.Iterator[dict[str, torch.Tensor]] | None:
        """As Detector.cross_fitted_maps, picture by picture; of heads on frozen features, and up to
        MOST pictures. The maps by its own head come with them: features take long."""
        quick = isinstance(self.detector, FeatureDetector) and len(good) <= MOST
        return self._cross_fit(good, fitted_on, folds) if quick else None

    @torch.no_grad()
    def _cross_fit(self, good: Pictures, fitted_on: torch.Tensor, folds: typing.Sequence[Fold]
                   ) -> typing.Iterator[dict[str, torch.Tensor]]:
        place = siblings.numbered(good, fitted_on, self.of)
        detector, own = self.detector, self.detector.head
        refit = None if hasattr(own, "without") else detector.refitting(*self.sample(good)[:2])
        heads = ([refit(rest) for rest, _ in folds] if refit else
                 spread(own.without, [place[held] for _, held in folds]))
        for head, (_, held) in zip(heads, folds, strict=True):
            for i in held:
                def both(tiles: torch.Tensor, origins: torch.Tensor, head: nn.Module = head,
                         i: int = i) -> dict[str, torch.Tensor]:
                    features = detector.features(tiles, origins if self.asks_origins else None)
                    if refit:
                        return {"distance": head(features), f"{OWN}distance": own(features)}
                    return left_out_and_own(head, own, features, place[i].expand(len(features)))

                maps = self.stitched(good[int(i)][:3], lambda *tiles, both=both: self._spread(
                    both, *tiles))
                yield {name: one[None] for name, one in maps.items()}

    def sample(self, pictures: typing.Sequence[torch.Tensor], most: int = 0, seed: int | None =
               None) -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
        """Tiles of pictures, uint8 [n,4,T,T], the pictures that they are of, and where they begin,
        in sides of a tile, float32 [n,2]: as many of each place, each time of another picture,
        drawn by the seed; none where nothing counts.

        Args:
            most: how many; 0: as many as it is fitted on. seed: None: the configuration's.
        """
        most = most or min(MOST, max(FEWEST, SAMPLE // self.tile**2))
        rng = np.random.default_rng(self.seed if seed is None else seed)
        order = rng.permutation(len(pictures))
        places = [self._places(*picture.shape[1:]) for picture in pictures]
        turns = [[(int(order[(turn + place) % len(order)]), place)
                  for place in rng.permutation(max(map(len, places), default=0))]
                 for turn in range(len(order))]
        drawn = [(i, places[i][place]) for turn in turns for i, place in turn
                 if place < len(places[i])]
        tiles, of, begin = [], [], []
        for i, (y, x) in drawn:
            tile = pictures[i][:, y:y + self.tile, x:x + self.tile]
            if tile[3].any():
                tiles.append(tile.clone())
                of.append(i)
                begin.append((y, x))
            if len(tiles) == most:
                break
        return torch.stack(tiles), np.array(of), torch.tensor(begin) / self.tile

    def _places(self, height: int, width: int) -> list[tuple[int, int]]:
        """Where the tiles of a picture begin."""
        return [(y, x) for y in starts(height, self.tile, self.overlap)
                for x in starts(width, self.tile, self.overlap)]

    def stitched(self, image: torch.Tensor, maps_of: MapsOf) -> dict[typing.Any, torch.Tensor]:
        """The stitched maps of [3,H,W], float32 [h,w] each; of a smaller or odd one with its rim
        repeated beyond it, which is then cut off."""
        tile, sides = self.tile, image.shape[1:]
        size = [max(tile, -(-side // CELL) * CELL) for side in sides]
        down, right = (outer - side for outer, side in zip(size, sides, strict=True))
        if down or right:
            image = nn.functional.pad(image[None].float(), (0, right, 0, down),
                                      mode="replicate")[0].to(image.dtype)
        places = self._places(*size)
        sums: dict[str, torch.Tensor] = {}
        for first in range(0, len(places), CHUNK):
            some = places[first:first + CHUNK]
            maps = maps_of(torch.stack([image[:, y:y + tile, x:x + tile] for y, x in some]),
                           torch.tensor(some) / tile)
            for name, values in maps.items():
                values = on_cells(values, tile)
                cell = tile // values.shape[-1]
                weight = window(values.shape[-1], self.overlap // cell)
                shape = [2, *(side // cell for side in size)]
                total = sums.setdefault(name, torch.zeros(shape))
                for (y, x), one in zip(some, values, strict=True):
                    rows, columns = (slice(at // cell, (at + tile) // cell) for at in (y, x))
                    total[0, rows, columns] += weight * one
                    total[1, rows, columns] += weight
        trim()  # or it grows with every picture
        return {name: (total[0] / total[1])[:-(-sides[0] * total.shape[1] // size[0]),
                                            :-(-sides[1] * total.shape[2] // size[1])]
                for name, total in sums.items()}


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along a side, at multiples of CELL: as few as cover it and share at least
    `overlap` pixels, evenly spread. length: at least a tile's, a multiple of CELL."""
    count = 1 + -(-(length - tile) // (tile - overlap))
    return [round((length - tile) * i / max(1, count - 1) / CELL) * CELL for i in range(count)]


def window(side: int, overlap: int) -> torch.Tensor:
    """A tile's weight at each of its cells, float32 [side,side]: 1 in the middle, falling as a
    cosine over the overlap towards the rim, and nowhere 0."""
    rim = torch.arange(side).minimum(torch.arange(side).flip(0)) + 0.5
    line = 0.5 - 0.5 * torch.cos(torch.pi * (rim / max(1, overlap)).clamp(max=1))
    return line[:, None] * line


def on_cells(maps: torch.Tensor, tile: int) -> torch.Tensor:
    """Maps of tiles [n,h,w] as float32 on the features' grid; those as fine as the pixels stay."""
    cells = tile // CELL
    if maps.shape[1:] in ((tile, tile), (cells, cells)):  # an exported graph has no step for it
        return maps.float()
    return on_grid(maps.float()[:, None], cells)[:, 0]


def _keep_features(detector: Detector, keep: bool) -> None:
    if isinstance(detector, OnBackbone):
        detector.keeps_features = keep
