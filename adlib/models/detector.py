"""What a detector is: good images in, anomaly maps out, higher = more anomalous. The study's own, a
reopened run's and a user's are all a `Detector`, and only that."""
from __future__ import annotations

import time
import typing

import numpy as np
import torch
from torch import nn

from adlib.config import Config, InputError
from adlib.data import corruptions
from adlib.data.part import ImageSet
from adlib.models.fast.device import CHUNK

# where images are taken, any will do: [N,4,h,w] has 255 in its fourth channel where a pixel counts,
# and pictures of their own sizes come one by one
Images = ImageSet | torch.Tensor | typing.Sequence[torch.Tensor]
OWN = "own "  # begins the names of maps that come along with those by others
Fold = tuple[np.ndarray, np.ndarray]  # indices of images: fitted on, held


class Detector(nn.Module):
    """The protocol, as a torch module whose state dict is the whole of a fitted detector.

    A subclass implements `fit` and `anomaly_maps`; one that redraws its input also has
    `reconstruct(images) -> float32 [N,3,S,S] in [0,1]`.
    """

    weights = "none"  # where pretrained weights came from: a code of weights.load_pretrained
    own_score: typing.Callable | None = None  # the user's reduction of the maps (config.score)
    can_be_reopened = True  # is the state dict really the whole of it?
    position_share: float | None = None  # of the features' variance that the position explains
    is_thread_safe = False  # may several threads ask for maps at once? a user's own may not be
    tile: int | None = None  # pixels a side of what it looks at at a time; None = the whole image
    is_fitted = True  # what `registry.build` makes is not before `fit` has ended

    def __init__(self) -> None:
        super().__init__()
        self.history: list[dict[str, float]] = []  # a row an epoch, where something was trained
        self.seconds = 0.0  # that fitting took

    @property
    def of_squares(self) -> Detector:
        """What looks at square images [N,3,S,S]: itself, or what tiles are given to."""
        return self

    def fit(self, images: torch.Tensor, validation: torch.Tensor | None = None) -> Detector:
        """Fit on good images.

        Args:
            images: uint8 [N,3,S,S], good ones only.
            validation: uint8 [M,3,S,S], other good ones: to steer training or to put maps on one
                scale, never to fit on; None where there are none.

        A subclass that also takes `area` and `validation_area` is told which pixels count, bool
        [N,S,S], where not all do. The others have one colour (data.frame.FILL) in any case.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement fit")

    def anomaly_maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """uint8 [N,3,S,S] -> {name: float [N,h,w] of any size, on the CPU}, not smoothed."""
        raise NotImplementedError(f"{type(self).__name__} does not implement anomaly_maps")

    def cross_fitted_maps(self, good: torch.Tensor, fitted_on: torch.Tensor, folds: typing.Sequence[
            Fold], area: torch.Tensor | None = None
            ) -> typing.Iterator[dict[str, torch.Tensor]] | None:
        """For each fold (fit indices, held indices) of `good`: the maps of the held images, in
        their order, by a detector of the same kind that was fitted on the rest. None: refitting
        takes too long. Where the features take the time, the maps by this detector itself come with
        them, under names that begin with OWN.

        Args:
            fitted_on: int64, the indices of `good` that this detector was fitted on.
            area: bool [N,S,S], which pixels of `good` count; None = all.
        """
        return None


def as_tensor(images: ImageSet | torch.Tensor) -> torch.Tensor:
    """Whole pictures: the uint8 [N,3,S,S] of an image set, or of the tensor itself."""
    return images.tensor if isinstance(images, ImageSet) else images[:, :3]


def given(images: Images) -> torch.Tensor | typing.Sequence[torch.Tensor]:
    """What a detector is given of them."""
    return images.given if isinstance(images, ImageSet) else images


def parted(framed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """uint8 [N,3,h,w] or [N,4,h,w] -> the images [N,3,h,w], and which of their pixels count, bool
    [N,h,w]; None = all."""
    return framed[:, :3], framed[:, 3] > 0 if framed.shape[1] == 4 else None


def batches(images: Images, size: int = CHUNK) -> typing.Iterator[
        tuple[torch.Tensor, torch.Tensor | None]]:
    """Images `size` at a time with what counts of them, as `parted`; pictures of their own sizes
    one by one."""
    images = given(images)
    if isinstance(images, torch.Tensor):
        framed = (images[i:i + size] for i in range(0, len(images), size))
    else:
        framed = (images[i][None] for i in range(len(images)))
    return map(parted, framed)


def fit(detector: Config | Detector | object, images: Images, validation: Images | None = None, *,
        run: typing.Any = None) -> Detector:
    """Fit a detector on good images, and return it ready to be used.

    Args:
        detector: what `registry.build` made, any object with `fit` and `anomaly_maps`, or a
            configuration, of which the detector is built first.
        images: the good images to fit on.
            With `vary` in its configuration a varied copy of each is fitted on, too.
        validation: other good images, which calibrate and are not fitted on.
        run: an `adlib.runs.Run`: training goes on from its checkpoint and tells it its progress.

    Raises:
        InputError: where it cannot be built or fitted, in one sentence.
    """
    from adlib.models import registry  # which imports every kind of detector

    built = registry.build(detector) if isinstance(detector, Config) else registry.adopt(detector)
    good, held = given(images), None if validation is None else given(validation)
    more, config = {}, getattr(built, "config", None)
    if isinstance(good, torch.Tensor):
        if isinstance(config, Config) and config.vary:
            good = torch.cat([good, corruptions.varied(good, seed=config.seed)])
        good, more["area"] = parted(good)
        held, more["validation_area"] = (None, None) if held is None else parted(held)
    started, built.is_fitted = time.perf_counter(), False  # nor is it where this is interrupted
    with torch.random.fork_rng(devices=[]):  # whatever a detector draws, others' numbers stay
        fit_on(built, good, held, run=run, **more)
    built.seconds, built.is_fitted = time.perf_counter() - started, True
    return built.eval()


def check_fitted(detector: Detector) -> None:
    """Raises InputError for a detector that has learned nothing, or not to the end, as where cells
    of a notebook are run in another order: a network's numbers would look like any other's."""
    if not detector.is_fitted:
        raise InputError("this detector is not fitted, or its fit was interrupted: run the cell "
                         "with `fit` first, then those below it")


def fit_on(detector: Detector, images: typing.Any, validation: typing.Any,
           **more: typing.Any) -> None:
    """Call its `fit` with what it takes of `more`, as far as that is known."""
    from adlib.models import registry

    detector.fit(images, validation, **{key: value for key, value in more.items() if (
        value is not None and registry.takes(detector.fit, key))})


def load_state(module: nn.Module, state: typing.Mapping[str, torch.Tensor]) -> None:
    """`load_state_dict` into a module that was never fitted: buffers that fitting makes, or makes
    of another shape, are made here.

    Raises:
        AttributeError, RuntimeError: for the state of another detector.
    """
    for key, tensor in state.items():
        path, _, name = key.rpartition(".")
        if name == "_extra_state":  # no tensor: the module's own business
            continue
        owner = module.get_submodule(path)
        present = owner._buffers.get(name)
        if name not in owner._parameters and (present is None or present.shape != tensor.shape):
            owner.register_buffer(name, tensor.clone())
    module.load_state_dict(state)
