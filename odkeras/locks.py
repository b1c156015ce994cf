"""An inter-process file lock. The operating system releases it when the process ends, even after a crash."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from odkeras.errors import SetupError

_POLL_S = 0.2


@contextlib.contextmanager
def locked(path: Path, *, taken: str, wait_s: float) -> Iterator[None]:
    """Hold an exclusive lock on `path` for the duration of the block. Creates the file and its directory.

    Args:
        taken: the message of the error if another process holds the lock.
        wait_s: seconds to wait for the lock, since its holder may be shutting down.

    Raises:
        SetupError: another process still holds the lock after `wait_s`.
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
