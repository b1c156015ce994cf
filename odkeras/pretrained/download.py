"""Download a file: resumed after an interruption, with retries, through the proxy of the environment."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, Timeout

from odkeras.config.downloads import DownloadSettings
from odkeras.connections import Connections, failure_reason
from odkeras.errors import WeightsError

MAX_BYTES = 4 * 2**30
"""A download stops beyond this size. The largest archives of the model zoo have about 1.5 GB."""

ATTEMPTS = 4
"""Tries in a row without any new bytes. Each continues where the last one ended."""

BACKOFF_S = 1.0
"""Wait before the second attempt; it doubles with each further one."""

_CHUNK_BYTES = 2**16
_TEMPORARY_STATUS = frozenset({408, 416, 425, 429, 500, 502, 503, 504})
_MISSING_STATUS = frozenset({404, 410})
WAYS_OUT = "take another source with --mirror, or give a downloaded file (see `odkeras init --help`: --weights)"

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the total; the total is None if the server does not say."""


def addresses(original: str, path: str, mirror: str) -> list[str]:
    """The addresses to try for the file `path` below the address `original`.

    On a mirror, files are looked for at the same path and, if that does not exist, directly below its address.
    """
    if not mirror:
        return [f"{original}/{path}"]
    base = mirror.rstrip("/")
    return [f"{base}/{path}", f"{base}/{path.rpartition('/')[2]}"]


class _TemporaryError(Exception):
    """A failure after which another attempt may succeed."""


def download(sources: Sequence[str], path: Path, settings: DownloadSettings, progress: Progress) -> str:
    """Download the first of the addresses `sources` that exists to `path`, whose directory must exist, and return it.

    An interrupted download leaves `path`.part, and the next call continues it if the server still has the same file.

    Raises:
        WeightsError: no network, no such file, a timeout, an error of the server or of the proxy, too large a file.
        OSError: the file cannot be written.
    """
    if settings.offline:
        raise WeightsError(
            f"{sources[0]} is not in the cache, and --offline forbids to download it; leave it out once, or give a "
            "downloaded file (see `odkeras init --help`: --weights)"
        )
    with Connections() as connections:
        for address in sources:
            if _download_with_retries(connections, address, path, settings.download_timeout, progress):
                return address
    raise WeightsError(f"cannot download {' or '.join(sources)}: there is no such file; {WAYS_OUT}")


def _download_with_retries(
    connections: Connections, address: str, path: Path, timeout_s: float, progress: Progress
) -> bool:
    """Whether the file was downloaded; False if the server does not have it."""
    partial = _PartialFile(path)
    failures, largest = 0, partial.size
    while True:
        try:
            return _download(connections.pool_for(address), address, partial, timeout_s, progress)
        except (HTTPError, _TemporaryError) as error:
            failures = 1 if partial.size > largest else failures + 1
            largest = max(largest, partial.size)
            if failures >= ATTEMPTS:
                reason = failure_reason(error)
                raise WeightsError(
                    f"cannot download {address}: {reason} (tried {failures} times); {WAYS_OUT}"
                ) from None
        time.sleep(BACKOFF_S * 2 ** (failures - 1))


def _download(
    pool: urllib3.PoolManager, address: str, partial: _PartialFile, timeout_s: float, progress: Progress
) -> bool:
    headers = {"Accept-Encoding": "identity", **partial.headers_to_continue(address)}
    response = pool.request(
        "GET",
        address,
        headers=headers,
        preload_content=False,
        decode_content=False,
        timeout=Timeout(connect=timeout_s, read=timeout_s),
        # Only redirects are followed here: retries continue the file, so the caller does them.
        retries=Retry(total=None, connect=0, read=0, other=0, status=0, redirect=5),
    )
    try:
        if response.status in _MISSING_STATUS:
            return False
        if response.status in _TEMPORARY_STATUS:
            if response.status == 416:  # the part does not fit the file on the server
                partial.discard()
            raise _TemporaryError(f"the server answered HTTP {response.status}")
        if response.status not in (200, 206):
            raise WeightsError(f"cannot download {address}: the server answered HTTP {response.status}; {WAYS_OUT}")
        partial.receive(address, response, progress)
    finally:
        response.close()
    partial.finish()
    return True


class _PartialFile:
    """The part of a file that has been downloaded, and beside it which version of which file it belongs to."""

    def __init__(self, path: Path) -> None:
        self._target = path
        self._path = path.with_name(f"{path.name}.part")
        self._origin = path.with_name(f"{path.name}.part.json")

    @property
    def size(self) -> int:
        """In bytes; 0 if nothing has been downloaded."""
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def headers_to_continue(self, address: str) -> dict[str, str]:
        """The request headers that ask for the rest, if the file is unchanged; {} to start from the beginning."""
        try:
            origin = json.loads(self._origin.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        if (
            not isinstance(origin, dict)
            or not self.size
            or origin.get("address") != address
            or not origin.get("validator")
        ):
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": origin["validator"]}

    def receive(self, address: str, response: urllib3.BaseHTTPResponse, progress: Progress) -> None:
        """Append the body of the answer, or begin anew if the server sends the whole file."""
        start = self._start_of(response)
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else None
        _check_size(address, total or 0)
        etag = response.headers.get("ETag", "")
        # A weak ETag (W/...) may not be used to continue a file, RFC 9110 section 13.1.5.
        validator = response.headers.get("Last-Modified", "") if etag.startswith("W/") or not etag else etag
        with self._path.open("ab" if start else "wb") as file:
            self._origin.write_text(json.dumps({"address": address, "validator": validator}), encoding="utf-8")
            progress(start, total)
            for chunk in response.stream(_CHUNK_BYTES, decode_content=False):
                file.write(chunk)
                _check_size(address, file.tell())
                progress(file.tell(), total)

    def _start_of(self, response: urllib3.BaseHTTPResponse) -> int:
        if response.status == 200:
            return 0
        sent = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if sent is None or int(sent[1]) != self.size:
            self.discard()
            raise _TemporaryError("the server sent another part of the file than asked for")
        return int(sent[1])

    def finish(self) -> None:
        self._path.replace(self._target)
        self._origin.unlink(missing_ok=True)

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)
        self._origin.unlink(missing_ok=True)


def _check_size(address: str, size: int) -> None:
    if size > MAX_BYTES:
        raise WeightsError(f"{address} has more than {MAX_BYTES / 2**30:.0f} GiB, which no archive of weights has")
