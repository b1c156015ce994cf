"""Images behind http(s) URLs."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import httpx

from odkeras.errors import ImageError

TIMEOUT_S = 15.0
MAX_BYTES = 64 * 2**20
_THIS_MACHINE = ("127.0.0.1", "[::1]", "localhost")


class WebImages:
    """Fetches images; may be used by several threads. `close()` may be called twice.

    Args:
        timeout_s: the longest to wait for an answer, or for all of the image; somebody waits for it.
        max_bytes: larger files are refused.
    """

    def __init__(self, *, timeout_s: float = TIMEOUT_S, max_bytes: int = MAX_BYTES) -> None:
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._http: httpx.Client | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> WebImages:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            if self._http is not None:
                self._http.close()
            self._http = None

    def fetch(self, url: str) -> bytes:
        """The bytes behind a URL; redirections are followed.

        Raises:
            ImageError: not there, not allowed, too slow, too large.
        """
        deadline = time.monotonic() + self._timeout_s
        try:
            with self._client().stream("GET", url) as response:
                if response.is_error:
                    raise ImageError(_refusal(response.status_code), url)
                return self._read(response, url, deadline)
        except httpx.TimeoutException:
            raise ImageError(f"no answer within {self._timeout_s:g} s", url) from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError, ImportError) as error:
            raise ImageError(f"cannot be fetched: {str(error) or type(error).__name__}", url) from error

    def _client(self) -> httpx.Client:
        with self._lock:
            if self._http is None:
                # A proxy in the environment is meant for hosts far away.
                direct = {f"all://{host}": None for host in _THIS_MACHINE}
                self._http = httpx.Client(follow_redirects=True, timeout=self._timeout_s, mounts=direct)
            return self._http

    def _read(self, response: httpx.Response, url: str, deadline: float) -> bytes:
        data = bytearray()
        for chunk in response.iter_bytes():
            data += chunk
            if len(data) > self._max_bytes:
                raise ImageError(f"too large: more than {self._max_bytes / 2**20:.3g} MB", url)
            if time.monotonic() > deadline:
                raise ImageError(f"not complete within {self._timeout_s:g} s", url)
        return bytes(data)


def _refusal(status: int) -> str:
    hint = {401: " (needs a login)", 403: " (not allowed, or the link has expired)", 404: " (not there)"}
    return f"the server answers with status {status}{hint.get(status, '')}"
