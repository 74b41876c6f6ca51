"""Does a detector keep its side of the protocol? What `adlib check my_detector.py` asks."""
from __future__ import annotations

import dataclasses
import inspect
import io
import typing
from pathlib import Path

import numpy as np
import torch

from adlib.config import Config, InputError, own_file
from adlib.models import registry
from adlib.models.detector import Detector, fit, load_state

SIDE = 64  # pixels of the images it is tried on


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was asked of a detector, and what came out; `advice` is what to do where it is not
    ok."""

    requirement: str
    ok: bool
    advice: str = ""
    needed: bool = True  # False: worth knowing, and no obstacle


def check(given: str, options: str = "") -> list[Finding]:
    """Try a user's detector on small drawn images.

    Args:
        given: "FILE.py:CLASS", or FILE.py where it holds one detector.
        options: of its constructor, as JSON.

    Raises:
        InputError: where there is no such file or class, or it is not clear which is meant.
    """
    config = Config(model=named(given), options=options, image_size=SIDE, held_out=0.0)
    images = _images(12)
    try:
        detector = registry.build(config)
    except InputError as error:
        return [Finding("it can be made", False, str(error))]
    before, findings = images.clone(), [Finding("it can be made", True)]
    for requirement, question in (
            ("it can be fitted on good images", lambda: fit(detector, images[:8], images[8:])),
            ("it leaves the images as they are", lambda: _same(images, before)),
            ("its maps are [N,h,w], finite, for any N",  # which is checked where they are returned
             lambda: [detector.anomaly_maps(_images(n, seed=1)) for n in (3, 1)])):
        findings.append(_answer(requirement, question))
        if not findings[-1].ok:
            return findings
    return [*findings,
            _answer("an image's map does not depend on its neighbours", lambda: _alone(detector)),
            _answer("a blatant defect scores higher than a good image", lambda: _higher(detector),
                    needed=False),
            _answer("fitted again, it gives the same maps", lambda: _repeats(config, images),
                    needed=False),
            _answer("saved and opened again, it gives the same maps",
                    lambda: _reopens(config, detector), needed=False)]


def named(given: str) -> str:
    """FILE.py with its one detector class named: "FILE.py:CLASS"."""
    file, colon, name = given.rpartition(":")
    if colon and file.endswith(".py"):
        return given
    path = own_file(f"{given}:")
    if path is None:
        raise InputError(f"there is no file {given}; give FILE.py or FILE.py:CLASS")
    if path.suffix != ".py":
        raise InputError(f"{given} is no Python file; give FILE.py or FILE.py:CLASS")
    source = registry.load_module(path, given)
    methods = {name: sum(callable(getattr(kind, need, None)) for need in ("fit", "anomaly_maps"))
               for name, kind in vars(source).items()
               if inspect.isclass(kind) and kind.__module__ == source.__name__}
    most = max(methods.values(), default=0)  # of a class that has but one, the other is missing
    names = [name for name, count in methods.items() if count == most]
    if not most:
        raise InputError(f"{Path(given).name} holds no class with fit(images) and "
                         "anomaly_maps(images); docs/your_detector.md has one to begin with")
    if names[1:]:
        raise InputError(f"{Path(given).name} holds {len(names)} detectors, {', '.join(names)}; "
                         "give FILE.py:CLASS")
    return f"{given}:{names[0]}"


def _answer(requirement: str, question: typing.Callable[[], object],
            needed: bool = True) -> Finding:
    """question: raises an InputError, the advice, where the answer is no."""
    try:
        question()
    except InputError as error:
        return Finding(requirement, False, str(error), needed)
    return Finding(requirement, True, needed=needed)


def _images(n: int, seed: int = 0, defect: bool = False) -> torch.Tensor:
    """Noisy gradients, uint8 [n,3,S,S]; a defect is a bright square."""
    noise = np.random.default_rng(seed).normal(0, 6, (n, 3, SIDE, SIDE))
    images = np.linspace(60, 140, SIDE) + noise
    if defect:
        images[:, :, 20:36, 20:36] = 250
    return torch.from_numpy(np.clip(images, 0, 255).astype(np.uint8))


def _same(images: torch.Tensor, before: torch.Tensor) -> None:
    if not torch.equal(images, before):
        raise InputError("fit changed the images that it was given; work on a copy "
                         "(images.float() is one)")


def _alone(detector: Detector) -> None:
    images = _images(3, seed=2)
    together = detector.anomaly_maps(images)
    for i in range(3):
        among = {name: values[i:i + 1] for name, values in together.items()}
        if names := _differing(detector.anomaly_maps(images[i:i + 1]), among, rtol=1e-3, atol=1e-4):
            raise InputError(f"the map {names[0]!r} of an image changes with the images beside it; "
                             "a score would then depend on the batch (batch norm in train mode? a "
                             "minimum or mean over the batch?)")


def _differing(maps: dict[str, torch.Tensor], others: dict[str, torch.Tensor], rtol: float = 1e-5,
               atol: float = 1e-8) -> list[str]:
    """The names of those that are only in one, of another shape, or of other values."""
    return [name for name in maps | others
            if name not in maps or name not in others or maps[name].shape != others[name].shape
            or not torch.allclose(maps[name].double(), others[name].double(), rtol, atol)]


def _higher(detector: Detector) -> None:
    good, bad = (detector.anomaly_maps(_images(4, seed=3, defect=defect)) for defect in (0, 1))
    if all(bad[name].amax(dim=(1, 2)).min() <= good[name].amax(dim=(1, 2)).max() for name in good):
        raise InputError("a white square does not raise its maximum; higher must mean more "
                         "anomalous")


def _repeats(config: Config, images: torch.Tensor) -> None:
    first, second = (fit(registry.build(config), images[:8], images[8:]).anomaly_maps(
        _images(2, seed=4)) for _ in range(2))
    if _differing(first, second, rtol=0, atol=0):
        raise InputError("two fits on the same images differ; draw random numbers from a seed of "
                         "your own")


def _reopens(config: Config, detector: Detector) -> None:
    if not detector.can_be_reopened:
        raise InputError("it is no torch module and has no state() and load(state), so that its "
                         "runs cannot be reopened: no `adlib predict`, no limits")
    buffer = io.BytesIO()
    torch.save(detector.state_dict(), buffer)
    buffer.seek(0)
    again = registry.build(config)
    try:
        load_state(again, torch.load(buffer, weights_only=True))
    except (KeyError, RuntimeError, AttributeError) as error:
        raise InputError(f"its state cannot be loaded into a new one "
                         f"({' '.join(str(error).split())[:200]}); make every layer and buffer in "
                         "the constructor, or offer state() and load(state)") from error
    images = _images(2, seed=5)
    if _differing(detector.anomaly_maps(images), again.eval().anomaly_maps(images)):
        raise InputError("opened again, its maps are others; something is not in its state")
