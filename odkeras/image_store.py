"""A content-addressed image directory: one immutable file per image id, written atomically.

A session stores an image when it sends out the task, off the critical path, so that storing the answer later writes
the boxes only. The trainer reads the image from here, possibly on another machine.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from odkeras.images import EncodedImage
from odkeras.project import TEMPORARY_PREFIX, write_atomically

KEEP_S = 3600.0
"""Seconds after its last `put` or `claim` that an image may be deleted. An answer that arrives later carries its image
or the path of the original file."""

_NAME = re.compile(r"[0-9a-f]{32}\.(?:jpeg|png)", re.ASCII)


class ImageStore:
    """The images of one directory. The first `put` creates the directory.

    Args:
        directory: contains `<image_id>.jpeg` and `<image_id>.png`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def put(self, image: EncodedImage) -> Path:
        """Store an image durably if it is not there yet, and return its path. Idempotent.

        The file is kept for at least `KEEP_S` from now: its modification time is set to the current time.

        Raises:
            OSError: disk full, or no permission.
        """
        path = self.directory / f"{image.image_id}.{image.format}"
        try:
            os.utime(path)
        except OSError:
            self.directory.mkdir(parents=True, exist_ok=True)
            write_atomically(path, image.data)
        return path

    def claim(self, image_id: str) -> str | None:
        """Keep an image for another `KEEP_S` and return its file name; None if it is not stored."""
        for suffix in ("jpeg", "png"):
            name = f"{image_id}.{suffix}"
            if _NAME.fullmatch(name):
                try:
                    os.utime(self.directory / name)
                except OSError:
                    continue
                return name
        return None

    def locate(self, name: object) -> Path | None:
        """The path of a file name that `claim` returned. It may have been deleted. None for any other value."""
        return self.directory / name if isinstance(name, str) and _NAME.fullmatch(name) else None

    def remove_unclaimed(self, older_than_s: float = KEEP_S) -> list[Path]:
        """Delete images that were not put or claimed recently, and partial files of a killed process.

        Call it only while no batch waits in the inbox: a waiting batch may refer to an image whose claim has expired.
        Ages are measured with the file system's clock, since the machines that share it may disagree about the time.

        Args:
            older_than_s: minimum age in seconds.

        Returns:
            The deleted paths.
        """
        newest_s = self._now_s() - older_than_s
        return [path for path in self._files() if _mtime_s(path) <= newest_s and self._remove(path, newest_s)]

    def _remove(self, path: Path, newest_s: float) -> bool:
        """Rename, check the age again, then delete, so that an image claimed since the first check is restored."""
        grave = path.with_name(f"{TEMPORARY_PREFIX}{path.name.removeprefix(TEMPORARY_PREFIX)}")
        try:
            path.rename(grave)
            if _mtime_s(grave) > newest_s:
                grave.rename(path)
                return False
            grave.unlink()
            return True
        except OSError:
            return False

    def _files(self) -> list[Path]:
        try:
            return [path for path in self.directory.iterdir() if _is_ours(path.name)]
        except OSError:
            return []

    def _now_s(self) -> float:
        probe = self.directory / ".now"
        try:
            probe.write_bytes(b"")
            now_s = probe.stat().st_mtime
            probe.unlink()
            return now_s
        except OSError:  # the directory is missing or read-only; with time 0 nothing counts as expired
            return 0.0


def _is_ours(name: str) -> bool:
    return name.startswith(TEMPORARY_PREFIX) or _NAME.fullmatch(name) is not None


def _mtime_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")
