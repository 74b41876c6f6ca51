"""What was freed goes back to the system."""
from __future__ import annotations

import contextlib
import ctypes

_TRIM = None
with contextlib.suppress(OSError, TypeError, AttributeError):  # of another system or C library
    _TRIM = ctypes.CDLL(None).malloc_trim
    _TRIM.argtypes = [ctypes.c_size_t]


def trim() -> None:
    """Give back freed memory that glibc keeps for itself, as it does where small blocks that stay
    lie between large ones that are gone: of tiles' features that is some GB. Takes milliseconds;
    does nothing where there is another allocator."""
    if _TRIM:
        _TRIM(0)
