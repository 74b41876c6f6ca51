"""Pretrained weights of a ResNet18: torchvision's download, or a state dict from a file. Nothing
here runs code that a file holds."""
from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import io
import pickle
import socket
import sys
import typing
from pathlib import Path

import torch
from torch import nn

from adlib.config import Config, InputError, given_path

PATIENCE = 30.0  # seconds that a download may stand still; torch alone would wait for ever
NONE = "none"  # the code of where no weights came from


def load_pretrained(encoder: nn.Module, config: Config) -> str:
    """Load what config.weights names into a ResNet18 encoder, in place.

    Returns:
        Where the weights came from, a code: `none` (trained from scratch), `imagenet:VERSION`,
        `file:NAME:SHA256` (12 digits), or `random:WHY` where ImageNet's were asked for, could not
        be had, and config.weights_fallback allows that. WHY: no_connection; unwritable, of torch's
        cache; damaged, of what was fetched or lies there; or unasked (models.foreign).

    Raises:
        InputError: where they cannot be had or do not fit.
    """
    if config.weights == "none":
        return NONE
    if config.weights != "imagenet":
        path = given_path(config.weights)
        load_encoder(encoder, read_state(path), str(path))
        return f"file:{path.name}:{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    try:
        state = _imagenet_state()
    except InputError as error:
        if not config.weights_fallback:
            raise
        why = ("no_connection" if _is_unreachable(error.__cause__) else
               "unwritable" if isinstance(error.__cause__, OSError) else "damaged")
        return f"random:{why}"
    load_encoder(encoder, state, "torchvision IMAGENET1K_V1")
    return "imagenet:IMAGENET1K_V1"


def fetch() -> tuple[str, str, Path]:
    """Fetch ImageNet's weights into torch's cache if need be: why that failed, "" if it did not;
    their address, and where the file belongs."""
    weights, cached = _imagenet()
    try:
        _imagenet_state()
    except InputError as error:
        cause = error.__cause__
        why = "no connection" if _is_unreachable(cause) else _first_line(cause)
        return why, weights.url, cached
    return "", weights.url, cached


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from a file, floating-point tensors as float32. InputError where that fails."""
    if not path.is_file():
        raise InputError(f"weights file {path} is {'a folder' if path.is_dir() else 'missing'}; "
                         "give the path of a ResNet18 state dict, or weights: imagenet or none")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything: IndexError, struct.error, ...
        refused = "unsupported global" in str(error).lower()
        if isinstance(error, pickle.UnpicklingError) and refused:
            raise InputError(f"weights file {path} is not a plain state dict: it holds Python "
                             "objects, which could run code when loaded, so it was refused; save "
                             "model.state_dict() and give that") from None
        # An OSError's own word is clear; torch's others mislead here.
        why = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise InputError(f"weights file {path} cannot be read as a torch state dict{why}; it may "
                         "be truncated or of another kind") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    plain = isinstance(state, dict) and all(isinstance(v, torch.Tensor) for v in state.values())
    if not plain or not state:
        raise InputError(f"weights file {path} holds no state dict (names and tensors); save "
                         "model.state_dict() and give that")
    return {str(name).removeprefix("module."): v.float() if v.is_floating_point() else v
            for name, v in state.items()}


def load_encoder(encoder: nn.Module, state: dict[str, torch.Tensor], where: str) -> None:
    """Load a torchvision ResNet18 state dict; what the encoder ends before, the classifier (fc) and
    maybe layer4, is not needed and left out.

    Raises:
        InputError: listing what is missing, what is too many and what has another shape.
    """
    unused = tuple(f"{part}." for part in ("layer4", "fc") if not hasattr(encoder, part))
    state = {name: tensor for name, tensor in state.items() if not name.startswith(unused)}
    wanted = dict(encoder.state_dict())
    needed = {name for name in wanted if not name.endswith("num_batches_tracked")}
    misshapen = [f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
                 for name in sorted(set(state) & set(wanted))
                 if state[name].shape != wanted[name].shape]
    differences = {"missing": sorted(needed - set(state)),
                   "unexpected": sorted(set(state) - set(wanted)), "of another shape": misshapen}
    words = [f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
             for kind, names in differences.items() if names]
    if words:
        raise InputError(f"weights {where} do not fit ResNet18: {'; '.join(words)}; give a "
                         "torchvision ResNet18 state dict")
    bad = [name for name in sorted(needed) if not torch.isfinite(state[name]).all()]
    if bad:
        raise InputError(f"weights {where} hold NaN or infinity in {len(bad)} tensors "
                         f"({', '.join(bad[:3])}); give a sound file")
    encoder.load_state_dict(state, strict=False)


def _imagenet_state() -> dict[str, torch.Tensor]:
    """ImageNet's weights through torchvision's cache; InputError with the cause attached."""
    weights, cached = _imagenet()
    try:
        if not cached.is_file():
            # Torch says on stdout what it fetches, which would stand on a notebook's page.
            with _bounded_wait(), contextlib.redirect_stdout(io.StringIO()):
                weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True,
                                       weights_only=True)
        # Torch neither hashes a file that is in its cache nor reads it as mere weights: we do.
        return read_state(cached)
    except InputError as error:
        raise InputError(f"{error}; delete it from torch's cache, so that it is fetched again, or "
                         "give weights: PATH or weights: none") from error
    except (OSError, http.client.HTTPException, RuntimeError) as error:  # the last: a wrong hash
        raise InputError(f"ImageNet weights are out of reach ({_first_line(error)}); three ways "
                         "out: give a state dict with --weights PATH (in a file or notebook "
                         f"weights: PATH), put torchvision's file at {cached} (connecting once "
                         "does it), or start from random weights with weights: none") from error


def _imagenet() -> tuple[typing.Any, Path]:
    """torchvision's ResNet18 weights, and where torch keeps their file."""
    from torchvision.models import ResNet18_Weights

    weights = ResNet18_Weights.IMAGENET1K_V1
    return weights, Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]


@contextlib.contextmanager
def _bounded_wait() -> typing.Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _is_unreachable(error: BaseException) -> bool:
    """Not a full disk, or a folder that may not be written to."""
    return isinstance(error, (OSError, http.client.HTTPException)) and not (
        isinstance(error, (PermissionError, FileExistsError, NotADirectoryError))
        or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
