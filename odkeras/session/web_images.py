"""Fetches images from URLs of the web and of object storage."""

from __future__ import annotations

import time
from contextlib import closing
from types import TracebackType
from urllib.parse import urljoin

import urllib3
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.util import Url

from odkeras.connections import Connections, basic_auth_headers, failure_reason, is_timeout, web_address
from odkeras.errors import ImageError
from odkeras.image_ref import is_storage_url
from odkeras.session.image_cache import ImageCache
from odkeras.session.object_storage import ObjectStorage
from odkeras.session.public_addresses import PrivateAddressError, is_private, timed_pools

TIMEOUT_S = 15.0
MAX_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**18
_MAX_REDIRECTS = 20
RETRIED_TIMEOUT_S = 2.0
"""Of a server that has let a request time out: thousands of its URLs would otherwise take 15 s each."""


class WebImages:
    """Fetches images from URLs. Thread-safe. `close()` is idempotent.

    A URL may be of any address that this machine reaches, because whoever annotates chose it. A redirect to another
    server may only lead to a public address: its server chose it, and would make this machine ask in its own network.

    Args:
        timeout_s: timeout in seconds for the complete image. Short, because the annotator waits. After a timeout, the
            same server has `RETRIED_TIMEOUT_S` for its next image.
        max_bytes: maximum size of a file; larger ones are refused.
        allow_private_urls: also follow redirects to addresses that are not public.
        storage: fetches from s3://, gs:// and az://; None: one with the limits above and a cache on disk.
    """

    def __init__(
        self,
        *,
        timeout_s: float = TIMEOUT_S,
        max_bytes: int = MAX_BYTES,
        allow_private_urls: bool = False,
        storage: ObjectStorage | None = None,
    ) -> None:
        self._storage = storage
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._any = Connections(timed_pools())
        self._redirected = Connections(timed_pools(only_public=not allow_private_urls))
        self._only_public = not allow_private_urls
        self._slow: set[tuple[str | None, int | None]] = set()

    def __enter__(self) -> WebImages:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._any.close()
        self._redirected.close()

    def fetch(self, url: str) -> bytes:
        """The bytes at a URL. Redirects to http(s) URLs are followed.

        Raises:
            ImageError: not found, not allowed, timeout, or too large.
        """
        if is_storage_url(url):
            if self._storage is None:
                from odkeras.pretrained.cache import default_cache_folder  # imports much that few need

                cache = ImageCache(default_cache_folder() / "images")
                self._storage = ObjectStorage(cache, timeout_s=self._timeout_s, max_bytes=self._max_bytes)
            return self._storage.fetch(url)
        server: tuple[str | None, int | None] = (None, None)
        timeout_s = self._timeout_s
        try:
            address = web_address(url)
            server = (address.host, address.port)
            timeout_s = min(timeout_s, RETRIED_TIMEOUT_S) if server in self._slow else timeout_s
            data = self._follow(url, address, time.monotonic() + timeout_s)
        except (HTTPError, ValueError, OSError) as error:
            if is_timeout(error):
                self._slow.add(server)
                raise ImageError(f"no complete answer within {timeout_s:g} s", url) from None
            raise ImageError(f"cannot be fetched: {failure_reason(error)}", url) from error
        self._slow.discard(server)
        return data

    def _follow(self, url: str, first: Url, deadline: float) -> bytes:
        place, address, origin = url, first, _origin(first)
        for _ in range(_MAX_REDIRECTS + 1):
            connections = self._any if _origin(address) == origin else self._redirected
            if connections is self._redirected and self._only_public and is_private(address.host or ""):
                raise PrivateAddressError(address.host or "")
            pool = connections.pool_for(place)
            left_s = max(deadline - time.monotonic(), 0.001)
            response = pool.request(
                "GET",
                place,
                headers=basic_auth_headers(address),
                timeout=left_s,
                retries=False,
                redirect=False,
                preload_content=False,
            )
            with closing(response):
                target = response.get_redirect_location()
                if not target:
                    if response.status >= 400:
                        raise ImageError(_refusal(response.status), url)
                    data = self._read(response, url, deadline)
                    response.release_conn()
                    return data
            place = urljoin(place, target)
            address = web_address(place)
        raise ImageError("cannot be fetched: too many redirects", url)

    def _read(self, response: urllib3.BaseHTTPResponse, url: str, deadline: float) -> bytes:
        data = bytearray()
        while chunk := response.read1(_CHUNK_BYTES):
            data += chunk
            if len(data) > self._max_bytes:
                raise ImageError(f"too large: more than {self._max_bytes / 2**20:.3g} MB", url)
            if time.monotonic() > deadline:
                raise ReadTimeoutError(None, url, "not complete")  # type: ignore[arg-type]  # the pool is not used
        return bytes(data)


def _refusal(status: int) -> str:
    hint = {401: " (needs a login)", 403: " (not allowed, or the link has expired)", 404: " (not found)"}
    return f"the server answers with status {status}{hint.get(status, '')}"


def _origin(address: Url) -> tuple[str | None, str | None, int]:
    return address.scheme, address.host, address.port or (443 if address.scheme == "https" else 80)
