"""Where, in what precision and by how many threads it is computed."""
from __future__ import annotations

import contextlib
import threading
import typing
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from adlib.config import Config, InputError, log

AT_ONCE = 32  # images, where nothing is learned: small batches take half as much again an image
CHUNK = 64  # images scored at a time
_TURN = threading.Condition()
_PLACING = threading.Lock()
# of each thread that multiplies: are its products rounded, and what is the process's own way
_MULTIPLYING: list[tuple[bool, str]] = []
CPU = torch.device("cpu")
T, R = typing.TypeVar("T"), typing.TypeVar("R")
M = typing.TypeVar("M", bound=nn.Module)


def pick_device(name: str) -> torch.device:
    """`auto`: CUDA if there is one, then Apple's MPS, then the CPU.

    Raises:
        InputError: for a device that was asked for and is not there.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(),
               "cpu": True}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if present[device])
    if not present[name]:
        raise InputError(f"device is {name!r}, but torch {torch.__version__} sees none here; use "
                         "device: auto or cpu")
    return torch.device(name)


def precision(config: Config, device: torch.device, *, learning: bool = False) -> str:
    """float32 or bf16. `auto` learns in bf16 where that is native, and scores in float32: so are
    scores the same on every processor, and in the ONNX file. The hundreds of tiles of a picture
    are scored in bf16, too."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if (learning or config.fit == "tile") and has_bf16(device) else "float32"


def has_bf16(device: torch.device) -> bool:
    """Natively: emulated, it is ten times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type == "cpu" and known()


def warn_of_bf16(config: Config) -> None:
    """Say where bf16 is asked for and only imitated."""
    if config.precision == "bf16" and not has_bf16(pick_device(config.device)):
        log.warning("precision is bf16, which this processor imitates: it takes some ten times as "
                    "long as float32 (precision: auto, for a run yet to be made)")


def autocast(config: Config, device: torch.device, *, learning: bool = False) -> torch.autocast:
    """bf16 where `precision` says so. Losses cast back: SSIM in bf16 is off by a tenth."""
    enabled = precision(config, device, learning=learning) == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


@contextlib.contextmanager
def rounded_products(rounded: bool) -> typing.Iterator[None]:
    """Multiply matrices of float32 as bf16, their sums in float32, where the processor can; or, not
    rounded, as they are. That is set for the whole process: threads that want the same multiply at
    the same time, others wait."""
    with _TURN:
        _TURN.wait_for(lambda: not _MULTIPLYING or _MULTIPLYING[0][0] == rounded)
        own = _MULTIPLYING[0][1] if _MULTIPLYING else torch.get_float32_matmul_precision()
        _MULTIPLYING.append((rounded, own))
        torch.set_float32_matmul_precision("medium" if rounded else own)
    try:
        yield
    finally:
        with _TURN:
            _MULTIPLYING.pop()
            if not _MULTIPLYING:
                torch.set_float32_matmul_precision(own)
            _TURN.notify_all()


@contextlib.contextmanager
def threads(n: int) -> typing.Iterator[None]:
    """By how many threads each operation is done. One is best for thousands of small steps: two
    would spend them waiting for each other, and beside a busy neighbour most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def placed(module: M, device: torch.device = CPU) -> M:
    """The module on the device, its weights channels last, in which convolutions are faster. Where
    it lies so already it is left alone: threads that move one module at the same time end the
    process."""
    def lies_so(values: torch.Tensor) -> bool:
        return values.device.type == device.type and (
            values.dim() != 4 or values.is_contiguous(memory_format=torch.channels_last))

    with _PLACING:
        if not all(map(lies_so, (*module.parameters(), *module.buffers()))):
            module.to(device, memory_format=torch.channels_last)
    return module


def spread(work: typing.Callable[[T], R], parts: typing.Iterable[T],
           device: torch.device = CPU) -> list[R]:
    """work(part) of each part, in their order. On the processor, as many parts at a time as an
    operation has threads, each of whose operations has one: threads that share every small step
    wait for each other at each. What runs on another device is asked by one thread."""
    parts, n = list(parts), torch.get_num_threads()
    if min(n, len(parts)) < 2 or device.type != "cpu" or torch.compiler.is_compiling():
        return [work(part) for part in parts]
    learns = torch.is_grad_enabled()  # which a thread does not inherit

    def alone(part: T) -> R:
        with torch.set_grad_enabled(learns):
            return work(part)

    with threads(1), ThreadPoolExecutor(n) as pool:
        return list(pool.map(alone, parts))


def describe(config: Config) -> dict[str, str | int]:
    """The device, the number of threads and the precision of a run, in which it scores and in which
    it learns, for its manifest."""
    device = pick_device(config.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "threads": torch.get_num_threads(),
            "precision": precision(config, device),
            "learned_in": precision(config, device, learning=True)}
