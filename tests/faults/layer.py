"""Faults at the n-th file or socket call of a process, below Python, SQLite and TensorFlow. See layer.c.

python -m tests.faults.torture       # preloads the layer into itself

layer = Layer()
layer.arm(folder, "kill", 17)        # the 17th call on a file below the folder, or on a socket
...
calls = layer.disarm()
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("layer.c")
MODES = {
    "count": 1,
    "kill": 2,  # SIGKILL before the call
    "error": 3,  # the call fails: ENOSPC, EIO for reads, ECONNRESET for sockets
    "cut": 4,  # a half is read, written, sent or received
    "torn": 5,  # a half is written, then SIGKILL
    "delay": 6,  # 50 ms
    "full": 7,  # for a while, calls that write fail with ENOSPC
    "dead": 8,  # this call and all later ones fail, so that the files are those after a kill
    "readonly": 9,  # for a while, calls that change something fail with EROFS
    "denied": 10,  # for a while, calls that open, create, rename or delete fail with EACCES
    "gone": 11,  # for a while, calls with a path fail with ENOENT
}
FOR_A_WHILE = 12
"""Number of calls."""
FOR_EVER = 2**62


def preload_into(command: Sequence[str]) -> dict[str, str]:
    """The environment in which `command` has the layer; builds it first.

    Raises:
        FileNotFoundError: there is no C compiler.
    """
    library = Path(tempfile.gettempdir()) / f"odkeras-faults-{os.getuid()}-{SOURCE.stat().st_mtime_ns}.so"
    if not library.exists():
        partial = library.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(partial), str(SOURCE), "-ldl"], check=True)
        partial.rename(library)
    return {**os.environ, "LD_PRELOAD": str(library)}


def exec_with_layer(module: str, arguments: Sequence[str]) -> None:
    """Start this Python module again, with the layer, if it does not have it."""
    if not Layer.is_loaded():
        command = [sys.executable, "-m", module, *arguments]
        os.execve(sys.executable, command, preload_into(command))


class Layer:
    """The layer of this process.

    Raises:
        AttributeError: it was not preloaded.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.faults_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_long]
        self._library.faults_disarm.restype = ctypes.c_long
        self._library.faults_what.restype = ctypes.c_char_p

    @staticmethod
    def is_loaded() -> bool:
        return hasattr(ctypes.CDLL(None), "faults_arm")

    def arm(self, folder: Path, mode: str, at: int = 0, calls: int = FOR_A_WHILE) -> None:
        self._library.faults_arm(str(folder).encode(), MODES[mode], at, calls)

    def disarm(self) -> int:
        """No more faults; returns the number of calls."""
        return int(self._library.faults_disarm())

    @property
    def what(self) -> str:
        """The call that failed, with its file; "" if none has."""
        return str(self._library.faults_what().decode("utf-8", "replace"))
