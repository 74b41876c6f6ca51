import ctypes
import os
from pathlib import Path

import numpy as np
import pytest

from adlib.models.fast.trim import trim


def _resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(os.name != "posix" or not hasattr(ctypes.CDLL(None), "malloc_trim") or
                    not Path("/proc/self/statm").exists(), reason="another allocator than glibc's")
def test_freed_memory_between_what_stays_goes_back():
    blocks = [np.ones(8192) for _ in range(2000)]  # 64 KB: too small for pages of their own
    staying = blocks[::100]
    del blocks
    before = _resident()
    trim()
    assert before - _resident() > 64e6 and all(one.sum() == 8192 for one in staying)
