"""A folder of downloaded images with a size limit."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path

from odkeras.project import write_atomically

MAX_BYTES = 2 * 2**30
_KEPT = 0.9  # of the limit, after images were deleted


class ImageCache:
    """Images by their URL. When there are more than `max_bytes`, those that were not used for longest are deleted.
    Thread-safe; several processes may use the same folder. Never raises: an image that cannot be kept is fetched again.

    Args:
        folder: created when there is something to keep.
        max_bytes: maximum size of all images.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._size: int | None = None  # of all images; not known before the first `put`
        self._lock = threading.Lock()

    def get(self, url: str) -> bytes | None:
        """The image at a URL; None if the cache does not have it."""
        path = self._path(url)
        with suppress(OSError):
            data = path.read_bytes()
            os.utime(path)
            return data
        return None

    def put(self, url: str, data: bytes) -> None:
        """Keep an image."""
        if len(data) > self._max_bytes * _KEPT:
            return
        with self._lock, suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(self._path(url), data)
            self._size = self._total() if self._size is None else self._size + len(data)
            if self._size > self._max_bytes:
                self._size = self._shrink()

    def _path(self, url: str) -> Path:
        return self._folder / hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()

    def _files(self) -> list[tuple[float, int, Path]]:
        """(time of the last use, size, path) of each image, that of longest ago first."""
        files = []
        for entry in os.scandir(self._folder):
            with suppress(OSError):  # another process may delete it
                info = entry.stat()
                files.append((info.st_mtime, info.st_size, Path(entry.path)))
        return sorted(files)

    def _total(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _shrink(self) -> int:
        files = self._files()
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= self._max_bytes * _KEPT:
                break
            with suppress(OSError):
                path.unlink()
            total -= size
        return total
