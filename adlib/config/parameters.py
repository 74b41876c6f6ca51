"""The parameters of a run: one frozen dataclass, read from a notebook or a YAML file, and checked.

Every knob of the study is a field of `Config`, and nothing else is a knob. The notebooks' parameter
cells list some of the names with the same help texts (a test keeps them in step).
"""
from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import math
import os
import re
import typing
from pathlib import Path

from adlib.config.errors import (
    InputError,
    check_known,
    did_you_mean,
    nearest,
    show_log,
    tell_where,
)
from adlib.config.old_names import upgrade
from adlib.config.places import is_folder_name, own_file

PIXEL_MODELS = ("cae", "resnet18")  # trained end to end on the images
# on a frozen ResNet18's features
FITTED_IN_SECONDS = ("pca", "gaussian", "gaussian_anywhere", "memory", "classifier", "fused")
FEATURE_MODELS = ("to_pixels", "to_features", *FITTED_IN_SECONDS)
# no model at all: the baselines
STATISTICS = ("mean_grey", "contrast", "laplacian_variance", "compressed_size")
MODELS = PIXEL_MODELS + FEATURE_MODELS + STATISTICS
# {kind of model: its module in adlib.models, and the class or function there that makes one}
DETECTORS = (dict.fromkeys(PIXEL_MODELS, ("autoencoders", "Autoencoder"))
             | dict.fromkeys(STATISTICS, ("statistics", "Statistic"))
             | dict.fromkeys(FITTED_IN_SECONDS, ("fused", "FeatureDetector"))
             | dict.fromkeys(("to_pixels", "to_features"),
                             ("feature_autoencoder", "FeatureAutoencoder"))
             | {"anomalib": ("anomalib_adapter", "build")})
LAYERS = ("1", "2", "3")
REFERENCE_SCORE = "squared.mean"  # the mean squared error (models.anomaly_maps names the scores)
KINDS = ("cutpaste", "perlin", "scratch", "structural")
FITS = ("squeeze", "pad", "tile")  # the simplest first
CHOICES = {"device": ("auto", "cpu", "cuda", "mps"), "precision": ("auto", "float32", "bf16"),
           "schedule": ("one_cycle", "reference"), "optimizer": ("adam", "muon"),
           "distance": ("cosine", "squared"), "fit": (*FITS, "auto")}
LANGUAGES = ("en", "zh")
OWN = re.compile(r"(?P<file>.+\.py):(?P<name>[^\W\d]\w*)")  # a user's own class or function


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """One run of the study. Field order is the order of the parameter cells; the comments are their
    help texts."""

    category: str = ""  # which part to study; empty: the first category found in the data
    name: str = "cae_mse"  # name of this configuration, and of its folder
    # keep the run under this name; empty: under `name`, or, with somebody at the notebook, in a
    # scratch folder of its own
    save_as: str = ""
    # network (cae, resnet18), feature detector (to_pixels, to_features, pca, gaussian, memory,
    # fused...) or baseline
    model: str = "cae"
    weights: str = "imagenet"  # of the ResNet18: imagenet | none | path of a state dict
    # if ImageNet weights are out of reach: go on with random ones, and say so everywhere
    weights_fallback: bool = False
    ssim_weight: float = 0.0  # a in the loss (1-a)*MSE + a*(1-SSIM); 0 is MSE only
    image_size: int = 128  # pixels, divisible by 32
    fit: str = "squeeze"  # squeeze | pad (shape kept) | tile (overlapping squares) | auto
    tile_size: int = 256  # of fit tile: pixels a side of a square, divisible by 32
    overlap: int = 32  # of fit tile: pixels that two neighbours share, divisible by 8
    scale: float = 1.0  # of fit tile: pixels that are worked on for each pixel of the file's side
    roi: str = ""  # mask file of the part's: white is looked at, beside masks in roi/ | auto
    ignore: str = ""  # mask file: white is not looked at, beside masks in ignore/
    # of images of more than 8 bits, what becomes 0 and 255, such as 0,4095; empty: the range of the
    # good training images
    grey_range: str = ""
    exclude: str = ""  # good training images to leave out: names, or the path of a list of them
    robust: bool = False  # leave out good images that beside the others look damaged or foreign
    vary: bool = False  # learn and calibrate on good images in other light, focus and place, too
    epochs: int = 5  # passes over the training images
    # images per training step; small ones take more steps, and learn more from as many images
    batch_size: int = 4
    optimizer: str = "adam"  # adam | muon (momentum made orthogonal: fewer steps to the same loss)
    lr: float = 1e-2  # learning rate; of one_cycle the highest
    # one_cycle (up to lr and down to nothing) | reference (the reference's: constant, halved on a
    # plateau)
    schedule: str = "one_cycle"
    layers: str = "1,2,3"  # which ResNet18 stages the feature models look at
    options: str = ""  # of a detector of your own: its constructor's, as YAML or JSON
    loss: str = ""  # another loss: FILE.py:FUNCTION of (images, reconstructions)
    score: str = ""  # another score: FILE.py:FUNCTION of (maps) or of (images, reconstructions)
    distance: str = "cosine"  # for to_features: cosine | squared
    # for classifier and fused: the synthetic anomalies they are shown
    kinds: str = "cutpaste,perlin,scratch,structural"
    target_fpr: float = 0.05  # share of good parts that may be called anomalous; sets the threshold
    # share of good training images kept apart: choices and the threshold rest on them; 0 keeps none
    held_out: float = 0.1
    seed: int = 0  # of the initial weights, the split and the order of the images
    # auto (float32; bf16 to train networks and for tiles, where it is native) | float32 | bf16
    precision: str = "auto"
    device: str = "auto"  # auto | cpu | cuda | mps
    data_root: str = ""  # folder of the data; empty: ADLIB_DATA, else data/, else the synthetic set
    reports: str = ""  # folder of the results; empty: reports/ of the project

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _typed(field, getattr(self, field.name)))
        if self.save_as:
            object.__setattr__(self, "name", self.save_as)
        if not (OWN.fullmatch(self.model) or re.fullmatch(r"anomalib:\w+", self.model)):
            _one_of("model", self.model, (*MODELS, "FILE.py:CLASS", "anomalib:NAME"))
        for key in ("loss", "score"):
            value = getattr(self, key)
            _demand(not value or OWN.fullmatch(value),
                    f"{key} is {value!r}; give FILE.py:FUNCTION of your own, or nothing")
        for key, known in CHOICES.items():
            _one_of(key, getattr(self, key), known)
        _some_of("layers", self.layers, LAYERS)
        _some_of("kinds", self.kinds, KINDS)
        _demand(0 < self.target_fpr < 1,
                f"target_fpr is {self.target_fpr}; give a share between 0 and 1, such as 0.05")
        _demand(self.image_size >= 32 and self.image_size % 32 == 0,
                f"image_size is {self.image_size}; give a multiple of 32 from 32 on")
        _demand(self.tile_size >= 64 and self.tile_size % 32 == 0,
                f"tile_size is {self.tile_size}; give a multiple of 32 from 64 on")
        _demand(0 <= self.overlap <= self.tile_size // 2 and self.overlap % 8 == 0,
                f"overlap is {self.overlap}; give a multiple of 8 from 0 to half of tile_size")
        _demand(not self.vary or self.fit in FITS[:2], "vary is for fit: squeeze and pad; give one")
        _demand(not self.robust or self.uses_weights, f"robust compares pictures by a ResNet18's "
                f"features, which model {self.model!r} has none of; give false, or another model")
        _demand(0 < self.scale <= 1, f"scale is {self.scale}; give a number above 0 and up to 1")
        _demand(_is_range(self.grey_range), f"grey_range is {self.grey_range!r}; give two numbers, "
                f"the lower first, such as 0,4095, or nothing")
        _demand(0 <= self.ssim_weight <= 1,
                f"ssim_weight is {self.ssim_weight}; give a number from 0 (MSE) to 1 (SSIM)")
        _demand(0 <= self.held_out < 1, f"held_out is {self.held_out}; give a share from 0 to 1")
        _demand(self.epochs >= 1, f"epochs is {self.epochs}; give at least 1")
        _demand(self.batch_size >= 2,
                f"batch_size is {self.batch_size}; give at least 2 (batch norm needs two images)")
        _demand(self.lr > 0, f"lr is {self.lr}; give a learning rate above 0, such as 1e-3")
        _demand(0 <= self.seed < 2**32, f"seed is {self.seed}; give 0 or more, below 2**32")
        _demand(is_folder_name(self.name),
                f"name is {self.name!r}; give a name that can be a folder's on any system")

    @classmethod
    def from_mapping(cls, values: typing.Mapping[str, object], where: str = "parameters") -> Config:
        """A checked Config of a mapping (the content of a YAML file, say).

        Args:
            values: parameters by name; names and values of an earlier version are upgraded.
            where: what to call the mapping in errors.
        Raises:
            InputError: for an unknown key (naming the nearest known one), a wrong type, or a value
                out of range.
        """
        known, values = [field.name for field in dataclasses.fields(cls)], upgrade(values, where)
        check_known(values, known, f"{where}: unknown parameter")
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None

    @classmethod
    def from_notebook(cls) -> Config:
        """The Config that the running notebook's parameter cells describe.

        Reads the assignments of every executed cell that begins with '# Parameters': the notebook's
        own, and the one papermill injects below it, where a name that is no parameter would
        otherwise pass with a mere warning. From here on the notebook shows what adlib logs, and can
        be asked where it is.
        """
        from IPython import get_ipython  # only notebooks need IPython

        shell = get_ipython()
        if shell is None:
            raise InputError(
                "Config.from_notebook() was called outside a notebook; use Config(...) in a script")
        show_log()
        tell_where()
        # by first line: of a cell that was mended and run again, the latest version counts
        cells: dict[str, str] = {}
        for source in shell.user_ns["In"]:
            first = source.lstrip().split("\n", 1)[0]
            if first.startswith("# Parameters"):
                cells.pop(first, None)
                cells[first] = source
        if not cells:
            raise InputError("no parameters were given: run the notebook's cell that begins with "
                             "'# Parameters' first")
        return cls.from_mapping(_assigned("\n".join(cells.values())), "notebook parameters")

    def as_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)

    @property
    def excluded(self) -> list[str]:
        """The names of the good training images to leave out."""
        return json.loads(self.exclude or "[]")

    @property
    def uses_weights(self) -> bool:
        """Does the model start from a ResNet18's weights?"""
        return self.model not in ("cae", *STATISTICS)

    @property
    def own_files(self) -> dict[str, Path | None]:
        """{"FILE.py": where it lies, None if nowhere} of the user's code that this run calls."""
        given = filter(OWN.fullmatch, (self.model, self.loss, self.score))
        return {value.rpartition(":")[0]: own_file(value) for value in given}


def _assigned(source: str) -> dict[str, object]:
    """The names that a parameter cell gives a literal value, and those values."""
    values = {}
    try:
        nodes = ast.parse(source).body
    except SyntaxError as error:  # the cell that failed is among those that were run
        raise InputError("notebook parameters: this line cannot be read: "
                         f"{(error.text or '').strip()}; mend it and run its cell again") from None
    for node in nodes:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            try:
                values |= {target.id: ast.literal_eval(node.value) for target in targets}
            except (AttributeError, TypeError, ValueError):  # the first of several names at once
                raise InputError(f"notebook parameters: {ast.unparse(node)!r} does not give one "
                                 "name a plain value; give each a number, a text, True or False"
                                 ) from None
    return values


def _typed(field: dataclasses.Field, value: object) -> object:
    if field.name in ("options", "exclude"):
        return _canonical(field.name, value)
    kind = {"str": str, "int": int, "float": float, "bool": bool}[str(field.type)]
    if kind is str and (value is None or isinstance(value, (str, os.PathLike))):
        return os.fspath(value or "")
    if kind is bool and isinstance(value, bool):
        return value
    if kind in (int, float) and not isinstance(value, bool) and isinstance(
            value, (int, float, str)):
        with contextlib.suppress(OverflowError, ValueError):
            number = float(value)  # YAML 1.1 reads 1e-3 as a string
            if math.isfinite(number) and kind(number) == number:
                return kind(number)
    how = f" (in quotes; to papermill with -r {field.name} ...)" if kind is str else ""
    raise InputError(f"{field.name} is {value!r}; give a value of type {kind.__name__}{how}")


def _canonical(key: str, value: object) -> str:
    """Options, or names to exclude, as JSON: equal ones are equal texts."""
    import yaml

    kind, such = (dict, "a mapping of plain values, such as {k: 3}") if key == "options" else (
        list, "names such as ['003.png', '017.png'], or the path of a file (UTF-8) with one a line")
    try:
        found = _listed(value) if key == "exclude" else value
        found = yaml.safe_load(found) if isinstance(found, str) else found
        if found in (None, kind()):
            return ""
        if isinstance(found, kind) and all(isinstance(name, str) for name in found):
            found = found if kind is dict else sorted(set(found))
            return json.dumps(found, sort_keys=True, ensure_ascii=False)
    except (yaml.YAMLError, OSError, RecursionError, TypeError, ValueError):
        pass  # ValueError: of a date, of YAML that holds itself, of another encoding
    raise InputError(f"{key} is {value!r}; give {such}")


def _listed(value: object) -> object:
    """What a file lists, without lines of #; a list as it is."""
    if not isinstance(value, (str, os.PathLike)) or str(value).lstrip()[:1] in ("", "["):
        return value
    found = Path(own_file(f"{value}:")).read_bytes()
    lines = found.decode(json.detect_encoding(found)).splitlines()  # UTF-8, or Windows' UTF-16
    if any("\0" in line for line in lines):
        raise TypeError("another encoding")
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{key} is {value!r} (known: {', '.join(known)})"
                         f"{did_you_mean(value, nearest(value, known))}")


def _some_of(key: str, value: str, known: tuple[str, ...]) -> None:
    words = [word.strip() for word in value.split(",")]
    for word in words:
        if word not in known or words.count(word) > 1:
            raise InputError(f"{key} is {value!r}; give some of {', '.join(known)}, each once, "
                             "with commas between")


def _is_range(given: str) -> bool:
    """Nothing, or "low,high"."""
    with contextlib.suppress(ValueError):
        low, high = map(float, given.split(",")) if given else (0, 1)
        return -math.inf < low < high < math.inf
    return False


def _demand(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)
