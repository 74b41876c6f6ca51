"""What was freed goes back to the system."""
from __future__ import annotations

import ctypes
import os

_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None


def trim() -> None:
    """Give back freed memory that glibc keeps for itself, as it does where small blocks that stay
    lie between large ones that are gone: of tiles' features that is some GB. Takes milliseconds;
    does nothing where there is another allocator."""
    if _TRIM:
        _TRIM(0)
