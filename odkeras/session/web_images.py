"""Fetches images from http(s) URLs."""

from __future__ import annotations

import time
from contextlib import closing
from types import TracebackType

import urllib3
from urllib3.exceptions import HTTPError

from odkeras.connections import Connections, basic_auth_headers, failure_reason, is_timeout, web_address
from odkeras.errors import ImageError

TIMEOUT_S = 15.0
MAX_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**18
# Redirects are followed. Error responses and failed connections are not retried, because the annotator is waiting.
_RETRIES = urllib3.Retry(connect=0, read=0, other=0, status=0, redirect=20, respect_retry_after_header=False)


class WebImages:
    """Fetches images from URLs. Thread-safe. `close()` is idempotent.

    Args:
        timeout_s: timeout in seconds for the response, and for the complete image. Short, because the annotator waits.
        max_bytes: maximum size of a file; larger ones are refused.
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
        """Close the connections."""
        self._connections.close()

    def fetch(self, url: str) -> bytes:
        """The bytes at a URL. Redirects are followed.

        Raises:
            ImageError: not found, not allowed, timeout, or too large.
        """
        deadline = time.monotonic() + self._timeout_s
        try:
            pool, headers = self._connections.pool_for(url), basic_auth_headers(web_address(url))
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
            raise ImageError(f"cannot be fetched: {failure_reason(error)}", url) from error

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
    hint = {401: " (needs a login)", 403: " (not allowed, or the link has expired)", 404: " (not found)"}
    return f"the server answers with status {status}{hint.get(status, '')}"
