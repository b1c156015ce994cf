"""Count how often the trainer process died while it read a batch.

An exception is handled where it is raised. Only a small file survives a process that the kernel or a decoder kills.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from odkeras.numeric import is_whole
from odkeras.project import read_status, write_atomically

MAX_DEATHS = 3
"""A batch is no longer read after the process died this many times while it read the batch."""


class ReadAttempts:
    """The attempts to read the batch that was read last.

    Args:
        path: the file with the batch's name and the number of attempts. It exists only while a batch is read, and
            after the process died while it read one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def fatal_batch(self) -> str | None:
        """Name of the batch that must not be read again; None if there is none."""
        batch, deaths = self._load()
        return batch if deaths >= MAX_DEATHS else None

    @contextmanager
    def count(self, batch: str) -> Iterator[None]:
        """Count an attempt to read `batch`, until the block ends or raises an `Exception`."""
        last, deaths = self._load()
        row = {"batch": batch, "attempts": deaths + 1 if last == batch else 1}
        write_atomically(self._path, json.dumps(row))
        try:
            yield
        except Exception:
            self.clear()
            raise
        self.clear()

    def clear(self) -> None:
        """Forget all attempts. Idempotent."""
        self._path.unlink(missing_ok=True)

    def _load(self) -> tuple[str | None, int]:
        row = read_status(self._path) or {}
        batch, attempts = row.get("batch"), row.get("attempts")
        return (batch, attempts) if isinstance(batch, str) and is_whole(attempts, 1) else (None, 0)
