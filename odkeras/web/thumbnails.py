"""Thumbnails for the gallery, made on demand and cached in memory."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

from odkeras.errors import ImageError
from odkeras.images import make_thumbnail

SIDE_PX = 256
MAX_BYTES = 24 * 2**20
"""Size of the cache; about two thousand thumbnails. Browsers cache them too, so a larger cache would hardly be used."""

FETCH_TIMEOUT_S = 4.0
RETRY_AFTER_S = 60.0
SLOW_S = 1.0


class Thumbnails:
    """An LRU cache of thumbnails. Thread-safe.

    Args:
        max_bytes: maximum total size of the cached JPEGs.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __contains__(self, key: str) -> bool:
        with self._lock:
            return key in self._kept

    def get(self, key: str, read: Callable[[], bytes]) -> bytes:
        """A JPEG of at most `SIDE_PX` pixels on either side.

        Args:
            key: cache key; identifies the image's content.
            read: returns the image file's bytes; called on a cache miss.

        Raises:
            ImageError: as `images.make_thumbnail` or `read`.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        thumbnail = make_thumbnail(read(), side_px=SIDE_PX, source=key)
        with self._lock:
            self._bytes += len(thumbnail) - len(self._kept.pop(key, b""))
            self._kept[key] = thumbnail
            while self._bytes > self._max_bytes and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return thumbnail


class RemoteImages:
    """Downloads the images behind URLs for thumbnails. Thread-safe.

    A URL that failed is not retried for `RETRY_AFTER_S`. If the failure took longer than `SLOW_S`, this holds for the
    whole server: a browser has few connections, and thumbnails that occupy them would delay answers.

    Args:
        fetch: downloads a URL; raises ImageError.
        clock: monotonic clock, replaced in tests.
    """

    def __init__(self, fetch: Callable[[str], bytes], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._failed: dict[str, tuple[float, str]] = {}  # by URL or server: (retry not before, reason)
        self._lock = threading.Lock()

    def get(self, url: str) -> bytes:
        """Raises: ImageError: the download fails, or failed less than `RETRY_AFTER_S` ago."""
        server = _server_name(url)
        with self._lock:
            for key in (url, server):
                until, reason = self._failed.get(key, (0.0, ""))
                if reason and self._clock() < until:
                    raise ImageError(reason, url)
        started = self._clock()
        try:
            return self._fetch(url)
        except ImageError as error:
            self._note_failure(server if self._clock() - started > SLOW_S else url, error.reason)
            raise

    def _note_failure(self, key: str, reason: str) -> None:
        with self._lock:
            now = self._clock()
            self._failed = {name: why for name, why in self._failed.items() if now < why[0]}
            self._failed[key] = (now + RETRY_AFTER_S, reason)


def _server_name(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return url
