"""How much memory a process with many threads keeps."""

from __future__ import annotations

import ctypes
import os

_M_ARENA_MAX = -8  # of <malloc.h>
_MOST = 2


def share_arenas() -> bool:
    """Have all threads take their memory from two heaps; returns whether they do.

    Not if somebody has set MALLOC_ARENA_MAX, nor with another C library than glibc.

    glibc makes up to eight heaps for each core, and each of them keeps what the large images that its threads had in
    hand left behind (`scripts/bench_web.py`).
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _MOST))
    except (OSError, AttributeError, TypeError):  # not glibc
        return False
