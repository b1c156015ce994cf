"""Small pictures for the gallery, made when they are asked for; the last ones are kept in memory."""

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
"""Some two thousand thumbnails. Browsers keep those that they have had, so more would hardly be asked for."""

FETCH_TIMEOUT_S = 4.0
RETRY_AFTER_S = 60.0
SLOW_S = 1.0


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

    def __contains__(self, key: str) -> bool:
        with self._lock:
            return key in self._kept

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


class RemoteImages:
    """The images behind URLs that thumbnails are made of. May be used by several threads.

    What cannot be fetched is not asked for again for a while, and if that took long nothing else of its server either:
    a browser has few connections, and answers would wait for those that thumbnails hold.

    Args:
        fetch: gets the bytes of a URL; raises ImageError.
        clock: for tests.
    """

    def __init__(self, fetch: Callable[[str], bytes], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._failed: dict[str, tuple[float, str]] = {}  # by URL or server: until when, and why
        self._lock = threading.Lock()

    def get(self, url: str) -> bytes:
        """Raises: ImageError: it cannot be fetched, or could not a short while ago."""
        server = _server_of(url)
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
            self._failed = {each: why for each, why in self._failed.items() if now < why[0]}
            self._failed[key] = (now + RETRY_AFTER_S, reason)


def _server_of(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return url
