"""A lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

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
    # Without thread_local=False, a lock that one thread takes and another releases would stay held.
    lock = FileLock(path, timeout=wait_s, thread_local=False)
    try:
        lock.acquire(poll_interval=_POLL_S)
    except Timeout:
        raise SetupError(taken) from None
    try:
        yield
    finally:
        lock.release()
