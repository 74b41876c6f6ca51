"""Detectors on frozen features that are fitted in seconds, and the best of them: two maps fused."""
from __future__ import annotations

import typing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

from adlib.config import Config
from adlib.data import corruptions, siblings
from adlib.data.synthetic import anomalies
from adlib.models import anomaly_maps, backbone, by_place, closed_forms, detectors
from adlib.models.backbone import OnBackbone
from adlib.models.closed_forms import Counts
from adlib.models.detector import OWN, Fold
from adlib.models.detectors import Features, Neighbours, Views
from adlib.models.fast.device import CHUNK, pick_device, precision, spread
from adlib.models.fast.trim import trim
from adlib.models.whole_picture import WholePicture

SYNTHETIC = 240  # anomalies that the classifier is trained with
NOISE = (9 / 12, 1 / 12, 1 / 12, 1 / 12)  # shares of them in images with noise of strength 0 to 3
VIEWS = 400  # mirrored and turned good images that the memory has patches of, too
MOST = 500  # good images that are looked at: a sample of more would say the same, and fill memory
FEW = 10  # good images whose scores' spread says little
DISTURBED = ("shift", "rotation", "brighter", "darker")
TRAINING_SEED = 1_000_000  # added: it is not trained with the anomalies that choices are made with
CLOSED_FORM = {"pca": closed_forms.PCAResidual, "gaussian": closed_forms.GaussianPerPosition,
               "gaussian_anywhere": closed_forms.GaussianAnywhere, "memory": detectors.Memory}
LEFT_OUT = ("memory", "classifier", "fused")  # they can do without an image they were fitted on
# features [M,C,g,g], masks [M,S,S], and which of the good images each is made of, int64 [M,2]
Synthetic = tuple[Features, torch.Tensor, torch.Tensor]
# images, and where it is known which of their pixels count, and where they begin as tiles
Framed = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]


class Fused(nn.Module):
    """The sum of the memory's and the classifier's map, each in deviations of validation images'
    scores; one search for the nearest good cells gives both. How far the whole picture lies from
    the good ones is added to each of its cells.

    Where good cells lie far from each other a distance counts for less: it is in units of theirs.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.classifier = detectors.SyntheticAnomalyClassifier(width)
        self.whole = WholePicture(width)
        self.register_buffer("centre", torch.zeros(2))  # of either map; [2,g,g] in earlier runs
        self.register_buffer("spread", torch.ones(2))
        self.register_buffer("local_scale", torch.ones(0))  # of the memory's patches, [M]

    @property
    def history(self) -> list[dict[str, float]]:
        return self.classifier.history

    def fit(self, *learned: torch.Tensor | Views, **more: typing.Any) -> Fused:
        """As the classifier."""
        self.classifier.fit(*learned, **more)
        self.local_scale = self.classifier.memory.local_scale()
        return self

    def without(self, images: torch.Tensor) -> Fused:
        """As the classifier's."""
        other = detectors.copied(self)
        other.classifier = self.classifier.without(images)
        return other

    @torch.no_grad()
    def fit_whole(self, features: Features, own: torch.Tensor) -> None:
        """See how the images fitted on vary as wholes, by their features float32 [N,C,g,g]. own: as
        Memory.nearest's."""
        self.whole.fit(torch.cat([self.whole.pooled(features[some])
                                  for some in _in_chunks(features)]), own)

    @torch.no_grad()
    def scale(self, features: Features, area: torch.Tensor | None = None,
              own: torch.Tensor | None = None) -> Fused:
        """Put both maps and whole pictures on one scale by the features of good images. area: which
        of their pixels count, bool [N,S,S]. own: as Memory.nearest's."""
        view, both, pooled = anomaly_maps.View(area), [], []
        for some in _in_chunks(features):
            chunk = features[some]
            memory = self.classifier.memory
            nearest = self.neighbours(
                chunk, None if own is None else memory.nearest(chunk, own[some])[1])
            both.append(self.in_local_scale(nearest, *self.classifier.both(chunk, nearest)))
            pooled.append(self.whole.pooled(chunk))
            del chunk  # as large as the next one
        self.whole.scale(torch.cat(pooled), own)
        tops = torch.stack([
            torch.from_numpy(anomaly_maps.reduce(anomaly_maps.smooth(values.numpy(), view), "top1",
                                                 view))
            for values in map(torch.cat, zip(*both, strict=True))]).float()
        # of distances in units of `local_scale` a digit is another share
        least = detectors.DIGIT / torch.stack([self.local_scale.median(), torch.tensor(1.0)])
        self.centre, self.spread = tops.mean(dim=1), torch.maximum(tops.std(dim=1), least)
        return self

    def forward(self, features: torch.Tensor, nearest: Neighbours | None = None) -> torch.Tensor:
        """nearest: as Memory.forward."""
        nearest = self.neighbours(features, nearest)
        return self.combined(features, nearest, *self.classifier.both(features, nearest))

    def neighbours(self, features: torch.Tensor, nearest: Neighbours | None) -> Neighbours:
        """What is known, or is searched for."""
        return nearest or Neighbours(self.classifier.memory.places(features))

    def in_local_scale(self, nearest: Neighbours, distances: torch.Tensor, logits: torch.Tensor
                       ) -> tuple[torch.Tensor, torch.Tensor]:
        """The halves' maps, distances in units of how far apart good cells lie there."""
        return distances / self.local_scale[nearest.places], logits

    def combined(self, features: torch.Tensor, nearest: Neighbours, distances: torch.Tensor,
                 logits: torch.Tensor) -> torch.Tensor:
        """The fused map of the halves' maps."""
        halves = self.in_local_scale(nearest, distances, logits)
        return self.whole(features, nearest.own)[:, None, None] + sum(
            (values - c) / s
            for values, c, s in zip(halves, self.centre, self.spread, strict=True))


class FeatureDetector(OnBackbone):
    """A closed form, a memory, a classifier or their fusion on the backbone's features, as
    config.model says. Its one map is `distance`, [N,S/8,S/8]."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.head = self._new_head()

    def fit(self, images: torch.Tensor, validation: torch.Tensor | None = None, *,
            area: torch.Tensor | None = None, validation_area: torch.Tensor | None = None,
            of: detectors.Groups = None, origins: torch.Tensor | None = None,
            validation_origins: torch.Tensor | None = None) -> FeatureDetector:
        """As Detector.fit. `fused` puts its maps on one scale by the validation images.

        of: which picture each image is a tile of, int64 [N], the same for siblings; None where
            each is one of its own.
        origins: of tiles, where each begins, float32 [N,2] (by_place.with_origins).
        """
        index, whole = self._sample(len(images)), of is None
        good, area, of, origins = (_chosen(one, index) for one in (images, area, of, origins))
        if of is None and not self.config.vary:  # a varied copy is a picture of its own
            of = siblings.groups(good, good[:0] if validation is None else validation)[:len(good)]
        self.of = of
        counts = self._counts(area)
        # drawing and convolutions each leave cores idle for a part of their time
        with ThreadPoolExecutor(1) as beside:
            drawn = beside.submit(self._anomalies, good, area)
            features, views = self.grids(good, origins), self._views(good, area, origins)
            synthetic = self._synthetic(origins, *drawn.result())
        trim()  # what the features left behind
        self.head = self._fit_head(features, synthetic, views, counts, of)
        self.position_share = backbone.position_share(
            features if origins is None else self.grids(good), counts)
        # A place in a tile is none in the part, and a varied copy would explain its original.
        if whole and not self.config.vary and isinstance(self.head, Fused):
            self.head.fit_whole(features, torch.arange(len(good)) if of is None else of)
        del features, drawn, synthetic  # as much memory as what follows takes
        trim()
        if not self.asks_origins:  # they would double what is held of a chunk
            origins = validation_origins = None
        if isinstance(self.head, Fused):
            self._scale((good, area, origins), (validation, validation_area, validation_origins),
                        of)
        self.history = getattr(self.head, "history", [])
        return self

    def _scale(self, fitted_on: Framed, validation: Framed, of: detectors.Groups) -> None:
        """Put the fused maps on one scale by held-out images. The spread of a few says next to
        nothing: then all good ones count, those that it was fitted on without their own patches;
        and of these few, copies as the same line might have taken them a moment later."""
        good, held, own = fitted_on[0], validation, None
        if held[0] is None:
            held = tuple(None if one is None else one[:0] for one in fitted_on)
        if len(held[0]) < FEW:
            own = torch.arange(len(good)) if of is None else of
            own = torch.cat([own, own.new_full((len(held[0]), ), -1)])
            held = tuple(None if one is None else torch.cat([one, one[:0] if two is None else two])
                         for one, two in zip(fitted_on, held, strict=True))
        images, area, origins = held
        if len(images) < FEW:
            again = torch.arange(len(images)).repeat(len(DISTURBED))
            images = torch.cat([corruptions.apply(images, name, 1) for name in DISTURBED])
            area, origins, own = (_chosen(one, again) for one in (area, origins, own))
        index = self._sample(len(images))
        self.head.scale(self.grids(images[index], _chosen(origins, index)), _chosen(area, index),
                        _chosen(own, index))

    @property
    def by_place(self) -> by_place.Found | None:
        """What was decided of tiles when it was fitted; a reopened one knows `asks_origins`."""
        return getattr(_memory(self.head), "by_place", None)

    @property
    def asks_origins(self) -> bool:
        """Does it have to be told where a tile begins?"""
        return getattr(_memory(self.head), "origins", None) is not None

    @torch.no_grad()
    def anomaly_maps(self, images: torch.Tensor,
                     origins: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """As Detector.anomaly_maps. origins: as fit's, where it `asks_origins`."""
        self.head.eval()
        # In chunks, so that memory does not grow with the number of images.
        return {"distance": torch.cat([
            self.head(self.features(images[some], _chosen(origins, some)))
            for some in _in_chunks(images)])}

    def cross_fitted_maps(self, good: torch.Tensor, fitted_on: torch.Tensor, folds: typing.Sequence[
            Fold], area: torch.Tensor | None = None
            ) -> typing.Iterator[dict[str, torch.Tensor]] | None:
        """As Detector.cross_fitted_maps; None for more than MOST images.

        A closed form is fitted again on each fold. The memory stays, but no picture is compared
        with its own patches in it, or its siblings'; the classifier is trained again on what has
        nothing of the fold's held pictures, synthetic anomalies included. The fused detector's two
        scales stay.
        """
        return None if len(good) > MOST else self._cross_fit(good, fitted_on, folds, area)

    @torch.no_grad()
    def _cross_fit(self, good: torch.Tensor, fitted_on: torch.Tensor, folds: typing.Sequence[Fold],
                   area: torch.Tensor | None) -> typing.Iterator[dict[str, torch.Tensor]]:
        features, place = self.grids(good), siblings.numbered(good, fitted_on, self.of)
        if self.config.model in LEFT_OUT:
            heads = spread(self.head.without, [place[held] for _, held in folds])
            for head, (_, held) in zip(heads, folds, strict=True):
                for some in torch.from_numpy(held).split(CHUNK):
                    yield left_out_and_own(head, self.head, features[some], place[some])
            return
        counts = self._counts(area)
        for rest, held in folds:
            head = self._fit_head(features[rest], None, None, _chosen(counts, rest))
            grids = features[held]
            yield {"distance": head(grids), f"{OWN}distance": self.head(grids)}

    def refitting(self, framed: torch.Tensor, of: np.ndarray
                  ) -> typing.Callable[[np.ndarray], nn.Module]:
        """A closed form fitted on the tiles of some pictures: (indices of pictures) -> a head.

        Args:
            framed: uint8 [N,4,T,T], tiles, 255 in the fourth channel where a pixel counts.
            of: int64 [N], the pictures that they are of.
        """
        features, counts = self.grids(framed[:, :3]), self._counts(framed[:, 3] > 0)

        def refit(pictures: np.ndarray) -> nn.Module:
            tiles = np.flatnonzero(np.isin(of, pictures))
            return self._fit_head(features[tiles], None, None, counts[tiles])

        return refit

    def features(self, images: torch.Tensor, origins: torch.Tensor | None = None) -> torch.Tensor:
        """uint8 [N,3,S,S] -> float32 [N,C,S/8,S/8]. origins: as fit's; two channels more."""
        return self.grids(images, origins)[:]

    def grids(self, images: torch.Tensor, origins: torch.Tensor | None = None) -> backbone.Grids:
        """The same, computed when looked at: from the stages, which take half the memory; where
        none are kept on disk either, of large pictures' tiles, from the images."""
        origins = origins if self.config.model in LEFT_OUT else None
        if self.keeps_features:
            stages = self.stages(images)
            return backbone.Grids(lambda index: [stage[index] for stage in stages], images.shape,
                                  self.config.layers, origins)
        return backbone.Grids(lambda index: self.stages(images[index]), images.shape,
                              self.config.layers, origins)

    def _counts(self, area: torch.Tensor | None) -> Counts:
        """Which cells count: bool [N,S,S] -> [N,S/8,S/8]."""
        return None if area is None else anomaly_maps.counted(
            area, [side // backbone.STRIDES[1] for side in area.shape[-2:]])

    def _sample(self, n: int) -> torch.Tensor | slice:
        """All of n images, or MOST of them, drawn by the seed."""
        if n <= MOST:
            return slice(None)
        generator = torch.Generator().manual_seed(self.config.seed)
        return torch.randperm(n, generator=generator)[:MOST].sort().values

    def _anomalies(self, good: torch.Tensor, area: torch.Tensor | None
                   ) -> tuple[torch.Tensor, ...]:
        """Images that the classifier is trained with, image i made from good image i modulo N,
        their masks, and which good images each is made of; nothing for a detector that has none.
        Some are put into noisy copies: else noise that no good image has looks like damage. (What
        is pasted may have other noise than the image around it, which is damage like any other.)
        """
        if self.config.model not in ("classifier", "fused"):
            return ()
        seed = TRAINING_SEED + self.config.seed
        framed = good if area is None else torch.cat([good, area[:, None].byte() * 255], dim=1)
        index = torch.arange(max(SYNTHETIC, len(good))) % len(good)
        hosts = [framed[i] for i in index.tolist()]
        strengths = np.random.default_rng(seed).choice(len(NOISE), len(hosts), p=NOISE)
        for strength in range(1, len(NOISE)):
            some = np.flatnonzero(strengths == strength)
            clean = framed[index[some]]
            noisy = corruptions.apply(clean, "noise", strength, seed=TRAINING_SEED + seed)
            noisy = torch.where(clean[:, 3:] == 0, clean, noisy) if area is not None else noisy
            for i, host in zip(some, noisy, strict=True):
                hosts[i] = host
        images, masks, _ = anomalies.insert(hosts, SYNTHETIC, seed=seed,
                                            kinds=self.config.kinds.replace(" ", "").split(","))
        made_of = index[torch.from_numpy(anomalies.sources(SYNTHETIC, len(hosts), seed=seed))]
        return images[:, :3], masks, made_of

    def _synthetic(self, origins: torch.Tensor | None, *drawn: torch.Tensor) -> Synthetic | None:
        """What the classifier is trained with, of what `_anomalies` gives."""
        if not drawn:
            return None
        images, masks, made_of = drawn
        return self.grids(images, _chosen(origins, made_of[:, 0])), masks, made_of

    def _views(self, good: torch.Tensor, area: torch.Tensor | None = None,
               origins: torch.Tensor | None = None) -> Views | None:
        """Random cells of good images, each image in up to seven of the other positions that a
        mirror and quarter turns can bring it to."""
        if self.config.model not in LEFT_OUT:
            return None
        generator = torch.Generator().manual_seed(self.config.seed)
        drawn = torch.randperm(7 * len(good), generator=generator)[:VIEWS].sort().values
        cells, of = [], []
        for chunk in drawn.split(CHUNK):
            views = torch.stack([turned(good[one % len(good)], one // len(good) + 1)
                                 for one in chunk.tolist()])
            found = self.features(views, _chosen(origins, chunk % len(good))).flatten(2)
            for one, number in zip(found, chunk.tolist(), strict=True):
                image, position = number % len(good), number // len(good) + 1
                if area is not None:
                    one = one[:, self._counts(turned(area[image], position)[None]).flatten()]
                count = min(one.shape[1], detectors.POOL // len(drawn))
                chosen = torch.randperm(one.shape[1], generator=generator)[:count]
                cells.append(one[:, chosen].T)
                # The only good image is compared with its own views: else there is nothing to
                # learn from.
                of.append(torch.full((count, ), image + (len(good) == 1)))
        return torch.cat(cells), torch.cat(of)

    def _new_head(self) -> nn.Module:
        model, width = self.config.model, backbone.width(self.config.layers)
        if model in CLOSED_FORM:
            head = CLOSED_FORM[model]()
        else:
            head = (Fused if model == "fused" else detectors.SyntheticAnomalyClassifier)(width)
        device = pick_device(self.config.device)
        exact = precision(self.config, device) == "float32"
        if (memory := _memory(head)) is not None:
            memory.exact, memory.device, memory.width = exact, device, width
        return head

    def _fit_head(self, good: Features, synthetic: Synthetic | None,
                  views: Views | None, counts: Counts, of: detectors.Groups = None) -> nn.Module:
        head, how = self._new_head(), {"seed": self.config.seed, "counts": counts}
        if views is None:  # a closed form
            return head.fit(good[:], **how)
        return head.fit(good, *(synthetic or ()), views=views, of=of, **how)


def left_out_and_own(head: nn.Module, own: nn.Module, features: torch.Tensor,
                     place: torch.Tensor) -> dict[str, torch.Tensor]:
    """Maps of good images by a fold's head, none of whose cells is compared with its own image's,
    and by the head in use: by one search. place: as Memory.nearest's `own`."""
    of_all, of_others = _memory(own).nearest(features, place)
    return {"distance": head(features, of_others), f"{OWN}distance": own(features, of_all)}


def _memory(head: nn.Module) -> detectors.Memory | None:
    """That of a head, which a closed form has none of."""
    return next((one for one in head.modules() if isinstance(one, detectors.Memory)), None)


def _in_chunks(features: Features) -> list[slice]:
    """So that memory does not grow with the number of images."""
    return [slice(start, start + CHUNK) for start in range(0, max(1, len(features)), CHUNK)]


def _chosen(images: torch.Tensor | None,
            index: torch.Tensor | np.ndarray | slice) -> torch.Tensor | None:
    return None if images is None else images[index]


def turned(image: torch.Tensor, position: int) -> torch.Tensor:
    """[...,S,S] in one of the eight positions, 0 to 7, that mirrors and quarter turns lead to."""
    image = image.flip(-1) if position & 1 else image
    image = image.flip(-2) if position & 2 else image
    return image.mT if position & 4 else image
