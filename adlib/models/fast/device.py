"""Where, in what precision and by how many threads it is computed."""
from __future__ import annotations

import contextlib
import threading
import typing

import torch

from adlib.config import Config, InputError

AT_ONCE = 32  # images, where nothing is learned: small batches take half as much again an image
CHUNK = 64  # images scored at a time
_MULTIPLYING = threading.Lock()


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


def precision(config: Config, device: torch.device) -> str:
    """float32 or bf16. `auto` takes bf16 only where it is native: emulated, it is ten times
    slower."""
    if config.precision != "auto":
        return config.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "float32"
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16" if device.type == "cpu" and native else "float32"


def autocast(config: Config, device: torch.device) -> torch.autocast:
    """bf16 where `precision` says so. Losses cast back: SSIM in bf16 is off by a tenth."""
    enabled = precision(config, device) == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


@contextlib.contextmanager
def rounded_products(rounded: bool) -> typing.Iterator[None]:
    """Multiply matrices of float32 as bf16, their sums in float32, where the processor can; or, not
    rounded, as they are. That is set for the whole process, so one thread at a time multiplies."""
    with _MULTIPLYING:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium" if rounded else before)
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


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


def describe(config: Config) -> dict[str, str | int]:
    """The device, the number of threads and the precision of a run, for its manifest."""
    device = pick_device(config.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "threads": torch.get_num_threads(),
            "precision": precision(config, device)}
