"""Limits the memory that glibc keeps for a process with many threads."""

from __future__ import annotations

import ctypes
import os

_M_ARENA_MAX = -8  # from <malloc.h>
_MOST = 2


def share_arenas() -> bool:
    """Make all threads allocate from two glibc arenas; returns whether that succeeded.

    By default glibc creates up to eight arenas per core, and each retains freed image buffers; `scripts/bench_web.py`
    measures it. Does nothing if MALLOC_ARENA_MAX is set or the C library is not glibc.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _MOST))
    except (OSError, AttributeError, TypeError):  # not glibc
        return False
