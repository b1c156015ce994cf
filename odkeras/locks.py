"""An inter-process file lock. The operating system releases it when the process ends, even after a crash."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from odkeras.errors import InUseError

_POLL_S = 0.2


@contextlib.contextmanager
def locked(path: Path, *, taken: str, wait_s: float) -> Iterator[None]:
    """Hold an exclusive lock on `path` for the duration of the block. Creates the file and its directory.

    Args:
        taken: the message of the error if another process holds the lock.
        wait_s: seconds to wait for the lock, since its holder may be shutting down.

    Raises:
        InUseError: another process still holds the lock after `wait_s`. Its message names the process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without thread_local=False, a lock that one thread takes and another releases would stay held.
    lock = FileLock(path, timeout=wait_s, thread_local=False)
    owner = path.with_name(f"{path.name}.owner")
    try:
        lock.acquire(poll_interval=_POLL_S)
    except Timeout:
        raise InUseError(f"{taken}{_described(owner)}") from None
    try:
        with contextlib.suppress(OSError):  # a full disk
            owner.write_text(f"{os.getpid()} {socket.gethostname()}")
        yield
    finally:
        with contextlib.suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def _described(owner: Path) -> str:
    """The process that holds a lock, as it wrote it down; "" if it has not yet."""
    try:
        process, _, host = owner.read_text(errors="replace").partition(" ")
    except OSError:
        return ""
    here = "" if host == socket.gethostname() else f" on {host}"
    return f" (process {process}{here})" if process else ""
