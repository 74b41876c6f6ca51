"""Detectors on frozen features that remember good cells: a memory, and a small classifier.

Each is fitted and maps as the closed forms (models/closed_forms). The features that it is fitted on
may be computed when looked at (backbone.Grids).
"""
from __future__ import annotations

import copy
import typing

import torch
from torch import nn

from adlib.config import InputError
from adlib.models import by_place, training
from adlib.models.backbone import Grids, picked
from adlib.models.closed_forms import Counts, cells_of
from adlib.models.coreset import coreset
from adlib.models.fast.device import rounded_products, spread
from adlib.models.fast.nearest import Nearest

BANK, POOL = 4000, 20000  # patches the memory keeps, and random ones it chooses them from
AROUND, LEAST_SCALE = 5, 0.25  # patches that say how far apart good ones lie; of the median of that
AT_ONCE = 1024  # cells that are compared with the bank: the products fit the processor's cache
HIDDEN, EPOCHS, PEAK_LR, BATCH = 128, 6, 2e-3, 2048  # of the classifier; a batch is of cells
GOOD_CELLS, CELLS_BESIDE = 128, 64  # it sees of each good image, and good ones of each anomalous
DIGIT = 2.0**-10  # of float16, as features are kept: what good images vary by at least
# Cells of mirrored and turned good images [P,C], and which good image each is of, int64 [P].
Views = tuple[torch.Tensor, torch.Tensor]
# cells [P,C], and the places in the bank of their nearest
Chunk = tuple[torch.Tensor, torch.Tensor | None]
Features = torch.Tensor | Grids
Groups = torch.Tensor | None  # int64 [N]: whose tile each good image is; None = each on its own


class Neighbours(typing.NamedTuple):
    """The nearest good cells to those of some images, searched for already."""
    places: torch.Tensor  # int64 [N,h,w], in the bank
    own: torch.Tensor | None = None  # int64 [N]: the images fitted on that none of them is of


class Memory(nn.Module):
    """Distance of a cell's features to the nearest of a bank of good ones.

    The bank is a greedy k-centre coreset of random good patches, chosen in a random projection.
    Among the patches are those of mirrored and turned good images: a few good images show few of
    the ways in which a good part may look.

    Tiles' features have two channels more, which say where the tile begins: where that tells more
    than it costs (by_place.compare), a cell is compared with those of the tiles around its own.

    Reference: PatchCore (Roth et al., CVPR 2022), without its re-weighting of the image score.
    """

    exact = True  # does the search find the nearest by float32, whatever it multiplies in?
    device = torch.device("cpu")  # of the search; what is fitted lies on the CPU

    def __init__(self, width: int | None = None) -> None:
        """width: channels that are features, before those of an origin; None: all."""
        super().__init__()
        self.width = width
        self.by_place: by_place.Found | None = None  # what was decided of tiles
        self.register_buffer("origins", None)  # of the patches' tiles; None: places do not count
        self._made: tuple[typing.Any, Nearest] | None = None  # of which bank, and its search

    def fit(self, features: Features, seed: int = 0, views: Views | None = None,
            counts: Counts = None, of: Groups = None) -> Memory:
        """features: of good images, as they are, of tiles with their origins. views: cells of
        mirrored and turned ones."""
        generator = torch.Generator().manual_seed(seed)
        each = features.shape[2:].numel()
        cells = (torch.arange(len(features) * each) if counts is None else
                 counts.flatten().nonzero()[:, 0])
        drawn = cells[torch.randperm(len(cells), generator=generator)[:POOL]]
        pool, image = picked(features, drawn), drawn // each
        of_tiles = self.width is not None and self.width < pool.shape[1]
        self.by_place = by_place.compare(*self._parted(pool), image if of is None else of[image]
                                         ) if of_tiles else None
        if views is not None:
            pool, image = torch.cat([pool, views[0]]), torch.cat([image, views[1]])
        if of is not None:
            image = torch.cat([of, of.max()[None] + 1])[image]
        pool, origins = self._parted(pool)
        chosen = coreset(pool, min(BANK, len(pool)), generator)
        self.origins = origins[chosen] if self.by_place and self.by_place.chosen else None
        self.register_buffer("bank", pool[chosen])
        self.register_buffer("image", image[chosen])  # that each patch of the bank is from
        return self

    def forward(self, features: torch.Tensor, nearest: Neighbours | None = None) -> torch.Tensor:
        """nearest: of the features' cells, where they are known."""
        n, _, h, w = features.shape
        search = self.search()
        return torch.cat(spread(lambda chunk: self.difference(*chunk, search).norm(dim=1),
                                _chunks(features, nearest), self.device)).view(n, h, w)

    def _parted(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features, and what follows them: of tiles where they begin."""
        width = self.width or cells.shape[1]
        return cells[:, :width], cells[:, width:]

    def find(self, cells: torch.Tensor, search: Nearest,
             own: torch.Tensor | None = None) -> torch.Tensor:
        """Of cells [P,C] the places in the bank, int64 [P], of the nearest good ones; by place, of
        those around their own tile, if there are any. own: bool [M], which are not compared with.
        """
        features, origins = self._parted(cells)
        if self.origins is None:
            return search(features, None if own is None else own.nonzero()[:, 0])
        if torch.compiler.is_compiling():  # a graph has no sizes that values decide
            return search(features, self._barred(origins, own))
        tiles, of = origins.unique(dim=0, return_inverse=True)
        found = torch.empty(len(cells), dtype=torch.int64)
        for i, barred in enumerate(self._barred(tiles, own)):
            rows, kept = (of == i).nonzero()[:, 0], (~barred).nonzero()[:, 0]
            found[rows] = kept[search.among(kept)(features[rows])]
        return found

    def _barred(self, tiles: torch.Tensor, own: torch.Tensor | None) -> torch.Tensor:
        """Which patches the cells of tiles, that begin at [T,2], are not compared with: bool
        [T,M], never all of them."""
        barred = by_place.elsewhere(tiles, self.origins)
        if own is not None:
            barred |= own
            barred[barred.all(dim=1)] = own
        return barred

    def without(self, images: torch.Tensor) -> Memory:
        """Itself: of images that a cell is not to be compared with it is told with each."""
        return self

    def difference(self, cells: torch.Tensor, nearest: torch.Tensor | None = None,
                   search: Nearest | None = None) -> torch.Tensor:
        """The features of cells minus those of the nearest good one: [P,C]. nearest: int64 [P], its
        place in the bank, where that is known. search: of `search`, for many calls."""
        if nearest is None:
            nearest = self.find(cells, search or self.search())
        return cells[:, :self.width] - self.bank[nearest]

    def nearest_other(self, cells: torch.Tensor, without: torch.Tensor, search: Nearest,
                      known: torch.Tensor | None = None) -> torch.Tensor:
        """Of cells [P,C] the places in the bank, int64 [P], of the nearest good ones that are not
        of the images `without` (int64 indices of those fitted on), where others are in the bank.
        known: the nearest of all; only a cell whose nearest may not be is searched for again."""
        own = torch.isin(self.image, without)
        if own.all():
            return self.find(cells, search) if known is None else known
        if known is None:
            return self.find(cells, search, own)
        places, again = known.clone(), own[known]
        if again.any():
            places[again] = self.find(cells[again], search, own)
        return places

    def nearest(self, features: torch.Tensor, own: torch.Tensor) -> tuple[Neighbours, Neighbours]:
        """Of all good cells, and of other images'. own: of each image its place among those fitted
        on, int64 [N]; -1 where it was none."""
        cells, search = features.permute(0, 2, 3, 1).flatten(1, 2), self.search()

        def look(i: int) -> torch.Tensor:
            known = torch.cat([self.find(some, search) for some in cells[i].split(AT_ONCE)])
            return torch.stack([known, self.nearest_other(cells[i], own[i], search, known)])

        places = torch.stack(spread(look, range(len(features)), self.device), dim=1)
        of_all, of_others = places.unflatten(2, features.shape[2:])
        return Neighbours(of_all), Neighbours(of_others, own)

    def local_scale(self) -> torch.Tensor:
        """How far apart good patches lie around each of the bank: the mean distance to its AROUND
        nearest of other images, float32 [M]; at least LEAST_SCALE of the median, as of what good
        images repeat to the bit it would be nothing. 1 where there is no other image.

        Reference: local scaling (Zelnik-Manor and Perona 2004), as in the local outlier factor
            (Breunig et al. 2000); PatchCore's re-weighting asks the same of the nearest patch.
        """
        away = self.bank - self.bank.mean(dim=0)  # about which less is lost by rounding
        with rounded_products(False):
            distances = torch.cdist(away, away)
        distances.masked_fill_(self.image[:, None] == self.image, torch.inf)
        if self.origins is not None:  # as it is compared
            distances.masked_fill_(by_place.elsewhere(self.origins, self.origins), torch.inf)
        near = distances.topk(min(AROUND, len(away)), largest=False).values
        known = near.isfinite()  # there may be fewer
        if not known.any():
            return torch.ones(len(away))
        scale = near.masked_fill(~known, 0).sum(dim=1) / known.sum(dim=1).clamp_min(1)
        median = scale[known[:, 0]].median()
        scale = torch.where(known[:, 0], scale, median)
        return scale.clamp_min(max(float(LEAST_SCALE * median), DIGIT))

    def places(self, features: torch.Tensor) -> torch.Tensor:
        """Of each cell the place of the nearest good one in the bank: int64 [N,h,w]."""
        n, _, h, w = features.shape
        search = self.search()
        return torch.cat(spread(lambda some: self.find(some, search),
                                cells_of(features).split(AT_ONCE), self.device)).view(n, h, w)

    def search(self) -> Nearest:
        """Of the bank, made once of it as it is: that takes a quarter of what one picture's search
        does."""
        if torch.compiler.is_compiling():
            return Nearest(self.bank, self.device)
        key = self.exact, self.device, id(self.bank), self.bank._version
        if self._made is None or self._made[0] != key:
            self._made = key, Nearest(self.bank, self.device, self.exact)
        return self._made[1]


class SyntheticAnomalyClassifier(nn.Module):
    """A perceptron with two hidden layers that tells cells of synthetic anomalies from good ones by
    how far they are from the memory in each channel; the map is its logit.

    What it looks at is the size of each channel's difference to the nearest good cell. It learns
    which channels' differences mean damage, where the memory's distance weighs all alike. Looking
    at the features themselves it learned what synthetic anomalies look like, and was lost where
    real ones look otherwise: docs/fused.md has the figures.

    Reference: related are CutPaste (Li et al. 2021), DRAEM (Zavrtanik et al. 2021), SimpleNet (Liu
    et al. 2023), and the residual features of ResAD (Yao et al., NeurIPS 2024).
    """

    def __init__(self, width: int) -> None:
        """width: channels of the features."""
        super().__init__()
        self.memory = Memory(width=width)
        self.head = _perceptron(width)
        self.history: list[dict[str, float]] = []

    def fit(self, features: Features, anomalous: Features, masks: torch.Tensor,
            made_of: torch.Tensor, views: Views | None = None, *, seed: int = 0,
            counts: Counts = None, of: Groups = None) -> SyntheticAnomalyClassifier:
        """Remember good cells, then train on a sample of them and on the anomalous ones.

        No cell is compared with its own image: a new one's isn't in the memory either.

        Args:
            features: float32 [N,C,g,g] of good images. anomalous: [M,C,g,g] of synthetic anomalies.
            masks: bool [M,S,S], the pixels changed. A cell is anomalous where most of a 2x2 block
                of pixels is, good where no pixel is, and left out in between.
            made_of: int64 [M,K], the good images that each anomaly has something of, first the one
                that it is put into.
            views: as Memory.fit.
        """
        generator = torch.Generator().manual_seed(seed)
        self.memory.fit(features, seed, views, counts, of)
        blocks = nn.functional.avg_pool2d(masks[:, None].float(), 2)
        coarse = nn.functional.adaptive_max_pool2d(blocks, features.shape[-1]).flatten(1)
        everywhere = (torch.ones(len(features), coarse.shape[1], dtype=torch.bool)
                      if counts is None else counts.flatten(1))
        lying = everywhere[made_of[:, 0]]  # where the image counts that an anomaly is put into
        marked = lying & (coarse > 0.5)
        made_of = made_of if of is None else of[made_of]
        if not marked.any():
            raise InputError("no synthetic anomaly covers most of a 2x2 block of pixels; give a "
                             "larger image_size")
        own = torch.arange(len(features)) if of is None else of
        sets = ((features, own[:, None].expand(-1, made_of.shape[1]),
                 _some(everywhere, GOOD_CELLS, generator)),
                (anomalous, made_of, _some((coarse == 0) & lying, CELLS_BESIDE, generator)),
                (anomalous, made_of, marked))
        x = self._differences(sets)
        y, n = torch.zeros(len(x)), int(marked.sum())
        y[-n:] = 1
        self.register_buffer("std", x[:-n].std(dim=0).clamp_min(DIGIT) + 1e-6)
        x.div_(self.std).abs_()
        torch.manual_seed(seed)
        self.seed = seed
        self.untrained = (_perceptron(x.shape[1]), )  # a tuple keeps it out of the state dict
        self.training_set = (x, y, torch.cat([
            images.repeat_interleave(chosen.sum(dim=1), dim=0) for _, images, chosen in sets]))
        self.head, self.history = self._trained(torch.arange(len(x)))
        return self

    @torch.enable_grad()
    def without(self, images: torch.Tensor) -> SyntheticAnomalyClassifier:
        """The same with a perceptron trained again on what has nothing of some images. That can be
        asked of the one that was fitted, not of one that was reopened.

        It is trained in as many steps, and put on one scale with this one by the good cells that
        both have learned: the logit of what is good goes on falling with each step, so that what is
        left out would look less usual than what is new.
        """
        x, y, made_of = self.training_set
        kept, other = (~torch.isin(made_of, images).any(dim=1)).nonzero()[:, 0], copied(self)
        steps, fewer = (max(1, n // BATCH) for n in (len(x), len(kept)))
        other.head = self._trained(kept, round(EPOCHS * steps / fewer))[0]
        with torch.no_grad():
            good = kept[y[kept] == 0].split(BATCH)
            own, new = (torch.cat([head(x[some]) for some in good])
                        for head in (self.head, other.head))
            spread_of = [values.std().clamp_min(DIGIT) for values in (own, new)]  # alike ones: 0
            scale, last = spread_of[0] / spread_of[1], other.head[-1]
            last.weight.mul_(scale)
            last.bias.sub_(new.mean()).mul_(scale).add_(own.mean())
        return other

    def _trained(self, rows: torch.Tensor,
                 epochs: int = EPOCHS) -> tuple[nn.Module, list[dict[str, float]]]:
        """A new perceptron, trained on some rows of the training set."""
        x, y, _ = self.training_set
        head = copy.deepcopy(self.untrained[0])  # threads may do so at the same time

        def loss_of(index: torch.Tensor) -> torch.Tensor:
            some = rows[index]
            return nn.functional.binary_cross_entropy_with_logits(head(x[some])[:, 0], y[some])

        history = training.one_cycle(head.parameters(), loss_of, len(rows), epochs=epochs,
                                     batch_size=BATCH, peak=PEAK_LR, seed=self.seed)
        return head.eval(), history

    def forward(self, features: torch.Tensor, nearest: Neighbours | None = None) -> torch.Tensor:
        """nearest: as Memory.forward."""
        return self.both(features, nearest)[1]

    def both(self, features: torch.Tensor,
             nearest: Neighbours | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The memory's map and the classifier's, by one search for the nearest good cells. nearest:
        as Memory.forward."""
        n, _, h, w = features.shape
        search = self.memory.search()

        def look(chunk: Chunk) -> tuple[torch.Tensor, torch.Tensor]:
            difference = self.memory.difference(*chunk, search)
            with rounded_products(False):  # whatever another thread does
                return difference.norm(dim=1), self.head((difference / self.std).abs())[:, 0]

        found = spread(look, _chunks(features, nearest), self.memory.device)
        distances, logits = map(torch.cat, zip(*found, strict=True))
        return distances.view(n, h, w), logits.view(n, h, w)

    def _differences(self, sets: typing.Iterable[tuple[Features, torch.Tensor, torch.Tensor]]
                     ) -> torch.Tensor:
        """Of some sets of images, what each image is made of, and its chosen cells, bool [N,g*g];
        one set after the other, [P,C]."""
        memory, search = self.memory, self.memory.search()
        images = [(features, i, made_of[i], chosen[i]) for features, made_of, chosen in sets
                  for i in range(len(features))]
        counts = [int(chosen.sum()) for *_, chosen in images]
        found = memory.bank.new_empty(sum(counts), memory.bank.shape[1])

        def look(image: tuple[Features, int, torch.Tensor, torch.Tensor],
                 rows: torch.Tensor) -> None:
            features, i, without, chosen = image
            cells = features[i].flatten(1).T[chosen]
            rows.copy_(memory.difference(cells, memory.nearest_other(cells, without, search)))

        spread(lambda one: look(*one), zip(images, found.split(counts), strict=True),
               self.memory.device)
        return found


def _chunks(features: torch.Tensor, nearest: Neighbours | None) -> typing.Iterator[Chunk]:
    """Cells, and their nearest where these are known."""
    cells = cells_of(features).split(AT_ONCE)
    known = [None] * len(cells) if nearest is None else nearest.places.flatten().split(AT_ONCE)
    return zip(cells, known, strict=True)


def copied(module: nn.Module) -> typing.Any:
    """The module with modules and buffers of its own that can be replaced."""
    other = copy.copy(module)
    other._modules, other._buffers = dict(module._modules), dict(module._buffers)
    return other


def _some(cells: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Of the cells that are True in bool [N,P] at most `count` random ones of each row."""
    order = torch.rand(cells.shape, generator=generator).masked_fill(~cells, torch.inf)
    return cells & (order <= order.sort(dim=1).values[:, min(count, cells.shape[1]) - 1, None])


def _perceptron(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(),
                         nn.Linear(HIDDEN, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(),
                         nn.Linear(HIDDEN, 1))
