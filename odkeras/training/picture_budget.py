"""How often pictures are written for TensorBoard, whose event files are kept for ever."""

from __future__ import annotations

from pathlib import Path

from odkeras.project import list_dir

CHUNK_BYTES = 32 * 2**20
"""Every so many bytes of events, pictures come half as often: thousands of rounds take some hundred megabytes."""


class PictureBudget:
    """Pictures of every round at first, then of every second, fourth, eighth, as the event files grow.

    Args:
        directory: has the event files, also those of earlier processes.
    """

    def __init__(self, directory: Path) -> None:
        self._bytes = sum(path.stat().st_size for path in list_dir(directory) if path.is_file())
        self._rounds = 0

    def is_due(self) -> bool:
        """Whether the next round has pictures. Called once a round."""
        due = self._rounds % 2 ** (self._bytes // CHUNK_BYTES) == 0
        self._rounds += 1
        return due

    def spend(self, size_bytes: int) -> None:
        """Count a picture that was written."""
        self._bytes += size_bytes
