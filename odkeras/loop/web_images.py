"""Images behind http(s) URLs."""

from __future__ import annotations

import time
from contextlib import closing
from types import TracebackType

import urllib3
from urllib3.exceptions import HTTPError

from odkeras.connections import Connections, is_timeout, login_of, reason_of, web_address
from odkeras.errors import ImageError

TIMEOUT_S = 15.0
MAX_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**18
# Redirections are followed; a refusal or a broken connection is told at once.
_RETRIES = urllib3.Retry(connect=0, read=0, other=0, status=0, redirect=20, respect_retry_after_header=False)


class WebImages:
    """Fetches images; may be used by several threads. `close()` may be called twice.

    Args:
        timeout_s: the longest to wait for an answer, or for all of the image; somebody waits for it.
        max_bytes: larger files are refused.
    """

    def __init__(self, *, timeout_s: float = TIMEOUT_S, max_bytes: int = MAX_BYTES) -> None:
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._connections = Connections()

    def __enter__(self) -> WebImages:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connections.close()

    def fetch(self, url: str) -> bytes:
        """The bytes behind a URL; redirections are followed.

        Raises:
            ImageError: not there, not allowed, too slow, too large.
        """
        deadline = time.monotonic() + self._timeout_s
        try:
            pool, headers = self._connections.pool_for(url), login_of(web_address(url))
            response = pool.request(
                "GET", url, headers=headers, timeout=self._timeout_s, retries=_RETRIES, preload_content=False
            )
            with closing(response):
                if response.status >= 400:
                    raise ImageError(_refusal(response.status), url)
                data = self._read(response, url, deadline)
                response.release_conn()
                return data
        except (HTTPError, ValueError, OSError) as error:
            if is_timeout(error):
                raise ImageError(f"no answer within {self._timeout_s:g} s", url) from None
            raise ImageError(f"cannot be fetched: {reason_of(error)}", url) from error

    def _read(self, response: urllib3.BaseHTTPResponse, url: str, deadline: float) -> bytes:
        data = bytearray()
        while chunk := response.read1(_CHUNK_BYTES):
            data += chunk
            if len(data) > self._max_bytes:
                raise ImageError(f"too large: more than {self._max_bytes / 2**20:.3g} MB", url)
            if time.monotonic() > deadline:
                raise ImageError(f"not complete within {self._timeout_s:g} s", url)
        return bytes(data)


def _refusal(status: int) -> str:
    hint = {401: " (needs a login)", 403: " (not allowed, or the link has expired)", 404: " (not there)"}
    return f"the server answers with status {status}{hint.get(status, '')}"
