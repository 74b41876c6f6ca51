"""From a configuration to its detector: a built-in, one of anomalib's, or the user's own.

The user's own (`model: my_detector.py:MeanImage`) is any object with `fit(images)` and
`anomaly_maps(images)`; docs/your_detector.md says more. Errors in it are told in one sentence, with
the file and the line.
"""
from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import json
import math
import re
import sys
import traceback
import types
import typing
from pathlib import Path

import numpy as np
import torch
from torch import nn

from adlib.config import DETECTORS, Config, InputError, did_you_mean, own_file, project_root
from adlib.models.detector import Detector
from adlib.models.fast import device


def build(config: Config) -> Detector:
    """The detector of a configuration, not fitted yet.

    Raises:
        InputError: for pretrained weights out of reach, and for anything wrong in the user's files.
    """
    if config.fit == "auto":
        raise InputError("fit is auto, which adlib.open_part decides; build the detector of "
                         "part.config")
    device.warn_of_bf16(config)
    detector = _tiled(config) if config.fit == "tile" else _of_squares(config)
    detector.is_fitted = False
    if config.score:
        detector.own_score = _guarded(load_object(config.score, "score"), config.score)
        if detector.own_score.parameters == 2 and not hasattr(detector, "reconstruct"):
            whose = "tiles have" if config.fit == "tile" else f"model {config.model!r} has"
            raise InputError(f"score is {config.score!r}, a function of images and "
                             f"reconstructions (two arguments without a default), which "
                             f"{whose} none of for a score; give one of maps, or take cae or "
                             "resnet18 with another fit than tile")
    return detector


def _of_squares(config: Config) -> Detector:
    kind, _, name = config.model.partition(":")
    if kind in DETECTORS:  # imported by its name: a detector's run depends on no other one's code
        module, maker = DETECTORS[kind]
        make = getattr(importlib.import_module(f"adlib.models.{module}"), maker)
        detector = make(name, config) if name else make(config)
    else:
        detector = adopt(_construct(load_object(config.model, "model"), config), config.model)
    if config.loss:
        if not hasattr(detector, "own_loss"):
            raise InputError(f"loss is {config.loss!r}, and model {config.model!r} is not trained "
                             "by a loss of images and reconstructions; leave it empty, or use cae "
                             "or resnet18")
        detector.own_loss = _own_loss(config.loss)
    return detector


def _tiled(config: Config) -> Detector:
    """A detector of a tile's size, and around it what makes tiles of a picture."""
    tiles = importlib.import_module("adlib.models.tiles")
    rounding = device.precision(config, device.pick_device(config.device))
    return tiles.Tiled(_of_squares(dataclasses.replace(
        config, fit="squeeze", image_size=config.tile_size, precision=rounding)), config)


def adopt(subject: object, where: str = "") -> Detector:
    """Any object with `fit` and `anomaly_maps` as a Detector; a Detector as it is.

    Raises:
        InputError: for an object without one of the two.
    """
    if isinstance(subject, Detector):
        return subject
    where = where or f"the detector {type(subject).__name__}"
    for method in ("fit", "anomaly_maps"):
        if not callable(getattr(subject, method, None)):
            raise InputError(f"{where} has no method {method}(images); a detector has fit(images) "
                             "and anomaly_maps(images) (docs/your_detector.md)")
    return OwnDetector(subject, where)


class OwnDetector(Detector):
    """A user's object as a Detector: what it returns is checked, what it raises is one sentence.

    A torch module is saved by its state dict. Any other object is saved if it offers `state()`, a
    dict of arrays, and `load(state)`.
    """

    def __init__(self, subject: object, where: str) -> None:
        super().__init__()
        self.where, self.subject = where, subject  # a torch module is registered by this
        own_state = all(callable(getattr(subject, name, None)) for name in ("state", "load"))
        self.has_state = own_state and not isinstance(subject, nn.Module)
        self.can_be_reopened = own_state or isinstance(subject, nn.Module)

    def fit(self, images: torch.Tensor, validation: torch.Tensor | None = None) -> OwnDetector:
        given = {"validation": validation} if takes(self.subject.fit, "validation") else {}
        with _one_sentence(self.where, "fit"):
            self.subject.fit(images, **given)
        rows = getattr(self.subject, "history", None)
        with _one_sentence(self.where, "history"):
            self.history = [_row(row, number, self.where)
                            for number, row in enumerate(() if rows is None else rows, 1)]
        return self

    def anomaly_maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Its maps, checked; a single one without a name is called `map`."""
        with _one_sentence(self.where, "anomaly_maps"), torch.no_grad():
            maps = self.subject.anomaly_maps(images)
        if not isinstance(maps, dict):
            maps = {"map": maps}
        wrong = [name for name in maps if not re.fullmatch(r"[\w-]+", str(name)) or name == "sum"]
        if wrong or not maps:
            raise InputError(f"{self._gave} {f'a map named {wrong[0]!r}' if wrong else 'no map'}; "
                             "give one map or several by names of letters, digits, - and _, none "
                             "named 'sum'")
        return {str(name): self._checked(str(name), values, len(images))
                for name, values in maps.items()}

    def get_extra_state(self) -> dict[str, torch.Tensor]:
        if not self.has_state:
            return {}
        with _one_sentence(self.where, "state"):
            state = self.subject.state()
            values = {str(name): torch.as_tensor(value).detach().cpu()
                      for name, value in state.items()}
            # NumPy, whose arrays `load` is given, has no bf16
            return {name: value.float() if value.dtype == torch.bfloat16 else value
                    for name, value in values.items()}

    def set_extra_state(self, state: dict[str, torch.Tensor]) -> None:
        if state:
            with _one_sentence(self.where, "load"):
                self.subject.load({name: value.numpy() for name, value in state.items()})

    @property
    def _gave(self) -> str:
        """How a sentence about its maps begins, with the line that they come from."""
        return f"{self.where}: anomaly_maps{_first_line(self.subject.anomaly_maps)} gave"

    def _checked(self, name: str, values: object, n: int) -> torch.Tensor:
        try:
            values = torch.as_tensor(values).detach().cpu()
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"{self._gave} {type(values).__name__} for {name!r}; give a tensor or "
                             "array [N,h,w]") from None
        if values.ndim != 3 or len(values) != n or not values[0:1].numel() and n:
            raise InputError(f"{self._gave} shape {tuple(values.shape)} for {name!r} of {n} "
                             f"images; give [N,h,w], here ({n}, h, w)")
        values = values if values.dtype in (torch.float32, torch.float64) else values.float()
        if bad := int((~torch.isfinite(values)).flatten(1).any(dim=1).sum()) if n else 0:
            raise InputError(f"{self._gave} NaN or infinity in {name!r} of {bad} of {n} images; "
                             "give finite numbers")
        return values


def load_object(given: str, key: str) -> typing.Any:
    """What "FILE.py:NAME" names. FILE is relative to the working folder or the project's.

    Raises:
        InputError: for a file that is missing or cannot be imported, and for an unknown name.
    """
    file, _, name = given.rpartition(":")
    path = own_file(given)
    if path is None:
        raise InputError(f"{key} is {given!r}, and there is no file {file}; give FILE.py:NAME, the "
                         f"file relative to {project_root().name}/ or absolute")
    module = load_module(path, given)
    if not callable(getattr(module, name, None)):
        names = [known for known, value in vars(module).items()
                 if callable(value) and getattr(value, "__module__", "") == module.__name__]
        raise InputError(f"{key} is {given!r}, and {path.name} defines no {name!r}"
                         f"{did_you_mean(name, names)}")
    return getattr(module, name)


def load_module(path: Path, where: str) -> types.ModuleType:
    """A user's file as a module, run anew. Raises InputError where that fails, naming the line."""
    spec = importlib.util.spec_from_file_location(f"adlib_own_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles in it look for their module there
    with _one_sentence(where, "import"):
        spec.loader.exec_module(module)
    return module


def takes(function: typing.Callable, name: str) -> bool:
    """Does a function have a parameter of that name?"""
    return name in _parameters(function)


def _parameters(function: typing.Callable) -> typing.Mapping[str, inspect.Parameter]:
    """By their names; none where they cannot be known, as of what is no Python code."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def _first_line(function: typing.Callable) -> str:
    """" (FILE.py, line N)" of a function; "" where that cannot be known."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f" ({Path(code.co_filename).name}, line {code.co_firstlineno})" if code else ""


def _construct(made: typing.Callable, config: Config) -> object:
    options = json.loads(config.options) if config.options else {}
    try:
        inspect.signature(made).bind(**options)
    except (TypeError, ValueError) as error:  # the latter of what is no Python code
        raise InputError(f"{config.model} cannot be made with options {options}: {error}") from None
    with _one_sentence(config.model, "constructor"):
        torch.manual_seed(config.seed)
        np.random.seed(config.seed)
        return made(**options)


def _guarded(function: typing.Callable, where: str) -> typing.Callable:
    """parameters: how many arguments it cannot do without."""
    def call(*values: typing.Any) -> typing.Any:
        with _one_sentence(where, "call"):
            return function(*values)
    given = _parameters(getattr(function, "forward", function))  # of a torch module its own
    call.parameters = sum(one.default is one.empty and one.kind <= one.POSITIONAL_OR_KEYWORD
                          for one in given.values())
    call.where, call.line = where, _first_line(function)
    return call


def _own_loss(given: str) -> typing.Callable:
    function = _guarded(load_object(given, "loss"), given)

    def loss(images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
        value = function(images, reconstructions)
        what = ("no tensor" if not isinstance(value, torch.Tensor) else
                f"shape {tuple(value.shape)}" if value.ndim else
                "a number that does not follow from the reconstructions"
                if reconstructions.requires_grad and not value.requires_grad else "")
        if what:
            raise InputError(f"{given}{function.line} gave {what}; give a tensor of one number "
                             "that torch computes from the reconstructions, such as a mean")
        return value

    return loss


def _row(row: object, epoch: int, where: str) -> dict[str, float]:
    """A row of a user's training history, what it does not tell as NaN."""
    try:
        loss = float(row["loss"])
        return {"epoch": epoch, "lr": math.nan, "held_out_loss": math.nan, "seconds": 0.0,
                **{str(key): float(value) for key, value in row.items()}, "loss": loss}
    except (TypeError, LookupError, ValueError, AttributeError):
        said = " ".join(repr(row).split())[:100]
        raise InputError(f"{where}: row {epoch} of its history is {said}; give a dict with a "
                         "loss, such as {'epoch': 1, 'loss': 0.5}") from None


@contextlib.contextmanager
def _one_sentence(where: str, what: str) -> typing.Iterator[None]:
    """What a user's code raises, as an InputError with its file and line."""
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__)
                  if frame.filename not in (__file__, contextlib.__file__)]
        own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
        place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
        if isinstance(error, SyntaxError):  # which says where itself
            place = ""
        words = " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(":")
        raise InputError(f"{where}: {what} failed with {words}{place}") from error
