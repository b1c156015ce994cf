"""A lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from odkeras.errors import SetupError

_POLL_S = 0.2


@contextlib.contextmanager
def locked(path: Path, *, taken: str, wait_s: float) -> Iterator[None]:
    """Hold a lock file (made when missing, with its directory) until the block ends.

    Args:
        taken: what to say when another process has it.
        wait_s: a process that is just being stopped is waited for.

    Raises:
        SetupError: another process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    with path.open("a+") as file:
        while not _try_lock(file.fileno()):
            if time.monotonic() > deadline:
                raise SetupError(taken)
            time.sleep(_POLL_S)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
