"""Small pictures for the gallery, made when they are asked for; the last ones are kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from odkeras.images import make_thumbnail

SIDE_PX = 256
MAX_BYTES = 24 * 2**20
"""Some two thousand thumbnails. Browsers keep those that they have had, so more would hardly be asked for."""


class Thumbnails:
    """May be used by several threads.

    Args:
        max_bytes: the ones asked for longest ago go when all together are larger.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: str, read: Callable[[], bytes]) -> bytes:
        """A JPEG of at most `SIDE_PX` pixels on either side.

        Args:
            key: stands for the image's contents.
            read: gives the image file's bytes.

        Raises:
            ImageError: as `images.make_thumbnail`, or as `read` does.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make_thumbnail(read(), side_px=SIDE_PX, source=key)
        with self._lock:
            self._bytes += len(made) - len(self._kept.pop(key, b""))
            self._kept[key] = made
            while self._bytes > self._max_bytes and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return made
