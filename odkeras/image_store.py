"""Images in a directory, each under its id. A file appears whole or not at all, and is never changed.

Hosts put an image there when they hand it out, while nobody waits, so that storing the answer takes no longer than
writing its boxes. The trainer reads it from there, also on another machine.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from odkeras.images import EncodedImage
from odkeras.project import TEMPORARY_PREFIX, write_atomically

KEEP_S = 3600.0
"""Seconds after which an image that no answer refers to may go. An answer that comes later brings its image along, or
the file that it came from."""

_NAME = re.compile(r"[0-9a-f]{32}\.(?:jpeg|png)", re.ASCII)


class ImageStore:
    """The images of one directory; made when the first one comes in.

    Args:
        directory: holds `<image_id>.jpeg` and `<image_id>.png`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def put(self, image: EncodedImage) -> Path:
        """Store an image durably, unless it is there; returns its file, which stays for `KEEP_S` from now on.

        Raises:
            OSError: the disk is full, no permission.
        """
        path = self.directory / f"{image.image_id}.{image.format}"
        try:
            os.utime(path)
        except OSError:
            self.directory.mkdir(parents=True, exist_ok=True)
            write_atomically(path, image.data)
        return path

    def claim(self, image_id: str) -> str | None:
        """The file name of an image, which now stays for another `KEEP_S`; None if it is not here."""
        for suffix in ("jpeg", "png"):
            name = f"{image_id}.{suffix}"
            if _NAME.fullmatch(name):
                try:
                    os.utime(self.directory / name)
                except OSError:
                    continue
                return name
        return None

    def path_of(self, name: object) -> Path | None:
        """The file of a name that `claim` gave, which may be gone; None for what is no such name."""
        return self.directory / name if isinstance(name, str) and _NAME.fullmatch(name) else None

    def remove_unclaimed(self, older_than_s: float = KEEP_S) -> list[Path]:
        """Delete what nobody has put or claimed for some time, and what a killed host left half-written; returns what
        went. To be called when the batches that waited have been taken: their claims may be older.

        Time is the file system's own: clocks of machines that share it may differ.
        """
        newest_s = self._now_s() - older_than_s
        return [path for path in self._files() if _mtime_s(path) <= newest_s and self._remove(path, newest_s)]

    def _remove(self, path: Path, newest_s: float) -> bool:
        """By way of another name: one that was claimed in the last moment comes back."""
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
        except OSError:  # a read-only or missing directory: nothing is deleted
            return 0.0


def _is_ours(name: str) -> bool:
    return name.startswith(TEMPORARY_PREFIX) or _NAME.fullmatch(name) is not None


def _mtime_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")
