"""How much memory a process with many threads keeps."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # of <malloc.h>
_MOST = 2


def share_arenas() -> bool:
    """Have all threads take their memory from two heaps; returns whether the C library can do that.

    glibc makes up to eight heaps for each core, and each of them keeps what the large images that its threads had in
    hand left behind: 144 MB instead of 87 after 600 photographs (`scripts/bench_web.py`).
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _MOST))
    except (OSError, AttributeError, TypeError):  # not glibc
        return False
