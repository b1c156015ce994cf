from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from odkeras.web.memory import share_arenas

_COUNT_ARENAS = """
import re, sys, threading
from ctypes import CDLL, c_void_p
from odkeras.web.memory import share_arenas

libc = CDLL(None)
libc.fopen.restype = c_void_p
if sys.argv[1] == "shared":
    assert share_arenas()
together = threading.Barrier(12)

def take():
    together.wait()
    kept = [bytes(100_000) for _ in range(50)]
    together.wait()

threads = [threading.Thread(target=take) for _ in range(12)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.malloc_info(0, c_void_p(libc.fopen(b"/dev/stdout", b"w")))
libc.fflush(None)
"""


def arenas(how: str) -> int:
    env = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    done = subprocess.run(
        [sys.executable, "-c", _COUNT_ARENAS, how], capture_output=True, text=True, check=True, env=env
    )
    return done.stdout.count("<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas")
def test_threads_share_two_heaps() -> None:
    assert arenas("shared") <= 2 < arenas("alone")


def test_somebody_has_decided_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    assert not share_arenas()


def test_another_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not share_arenas()
