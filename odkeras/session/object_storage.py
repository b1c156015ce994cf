"""Images in object storage: s3://bucket/key, gs://bucket/key, az://container/key.

    storage = ObjectStorage()
    for url in storage.list_images("s3://photographs/2024/"):
        data = storage.fetch(url)

fsspec and a package for each kind of storage read them (extras s3, gcs, azure). Credentials come from the environment,
as the provider's own tools read it; they are never part of a URL, of a message or of a log.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from odkeras.errors import ImageError
from odkeras.images import SUFFIXES
from odkeras.natural_order import natural_key
from odkeras.session.image_cache import ImageCache

TIMEOUT_S = 15.0
MAX_BYTES = 64 * 2**20
_EXTRAS = {"s3": "s3", "gs": "gcs", "az": "azure"}
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": TIMEOUT_S, "retries": {"max_attempts": 2}}}
}
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL for another server than Amazon's)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_SECRET = ("KEY", "SECRET", "TOKEN", "PASSWORD", "CONNECTION_STRING", "CREDENTIAL")


class MissingObjectError(ImageError):
    """There is no such bucket or object."""


class ObjectStorage:
    """Reads images from object storage. Thread-safe.

    Args:
        cache: keeps images on disk; None keeps none.
        timeout_s: timeout of a request in seconds. Short, because the annotator waits.
        max_bytes: maximum size of a file; larger ones are refused.
    """

    def __init__(
        self, cache: ImageCache | None = None, *, timeout_s: float = TIMEOUT_S, max_bytes: int = MAX_BYTES
    ) -> None:
        self._cache = cache
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._systems: dict[str, Any] = {}
        self._lock = threading.Lock()

    def fetch(self, url: str) -> bytes:
        """The bytes of an object. It is assumed that an object does not change.

        Raises:
            ImageError: not found, not allowed, timeout, too large, or a package is missing.
        """
        if self._cache is not None and (data := self._cache.get(url)) is not None:
            return data
        data = bytes(self._ask("_cat_file", url, start=0, end=self._max_bytes + 1))
        if len(data) > self._max_bytes:
            raise ImageError(f"too large: more than {self._max_bytes / 2**20:.3g} MB", url)
        if self._cache is not None:
            self._cache.put(url, data)
        return data

    def list_images(self, url: str) -> Iterator[str]:
        """The URLs of the images below a prefix that ends at a "/", in natural order, folder by folder; or the URL
        itself if it names an image. Each folder is listed when it is reached.

        Raises:
            ImageError: as `fetch`.
        """
        if PurePosixPath(url).suffix.lower() in SUFFIXES:
            yield url
            return
        scheme, _ = _split(url)
        waiting = [url.rstrip("/")]
        while waiting:
            entries = self._ask("_ls", waiting.pop(), detail=True)
            entries = sorted(entries, key=lambda entry: natural_key(entry["name"]))
            for entry in entries:
                if entry["type"] == "file" and PurePosixPath(entry["name"]).suffix.lower() in SUFFIXES:
                    yield f"{scheme}://{entry['name']}"
            waiting += [f"{scheme}://{entry['name']}" for entry in reversed(entries) if entry["type"] == "directory"]

    def list_names(self, prefix: str) -> set[str]:
        """The names of the objects directly below a prefix; empty if there is none.

        Raises:
            ImageError: as `fetch`.
        """
        try:
            entries = self._ask("_ls", prefix.rstrip("/"), detail=True)
        except MissingObjectError:
            return set()
        return {PurePosixPath(entry["name"]).name for entry in entries if entry["type"] == "file"}

    def list_files(self, prefix: str) -> set[str]:
        """The names of all objects below a prefix, relative to it; empty if there is none.

        Raises:
            ImageError: as `fetch`.
        """
        _, folder = _split(prefix.rstrip("/"))
        try:
            names = self._ask("_find", prefix.rstrip("/"))
        except MissingObjectError:
            return set()
        return {name.removeprefix(f"{folder}/") for name in names}

    def read(self, url: str, start: int = 0, end: int | None = None) -> bytes:
        """The bytes of an object from `start` to before `end`, of any size, and not from the cache.

        Raises:
            ImageError: as `fetch`.
        """
        return bytes(self._ask("_cat_file", url, start=start, end=end))

    def put(self, url: str, data: bytes) -> None:
        """Write an object. Readers see the earlier one until it is complete.

        Raises:
            ImageError: not allowed, timeout, or a package is missing.
        """
        self._ask("_pipe_file", url, data, doing="written")

    def put_file(self, url: str, path: Path) -> None:
        """Write an object with the bytes of a file of any size. Readers see the earlier one until it is complete.

        Raises:
            ImageError: as `put`.
            OSError: the file cannot be read.
        """
        path.stat()
        self._ask("_put_file", url, source=path, doing="written")

    def delete(self, url: str) -> None:
        """Delete an object.

        Raises:
            ImageError: as `fetch`.
        """
        self._ask("_rm_file", url, doing="deleted")

    def _ask(
        self,
        method: str,
        url: str,
        *values: Any,
        source: Path | None = None,
        doing: str = "fetched",
        **options: Any,
    ) -> Any:
        """The result of a method of fsspec's file system. `source` is the file that is copied to `url`."""
        scheme, path = _split(url)
        if "@" in path.partition("/")[0]:
            raise ImageError(f"credentials in a URL are refused; set {_VARIABLES[scheme]}", f"{scheme}://…")
        system = self._system(scheme, url)
        sync = import_module("fsspec.asyn").sync
        places = (path,) if source is None else (str(source), path)
        try:
            return sync(system.loop, getattr(system, method), *places, *values, timeout=self._timeout_s, **options)
        except FileNotFoundError as error:
            raise MissingObjectError(_explain(error, scheme, self._timeout_s), url) from None
        except Exception as error:  # each provider's library has its own
            raise ImageError(
                _explain(error, scheme, self._timeout_s, doing), url
            ) from None  # `error` may quote credentials

    def _system(self, scheme: str, url: str) -> Any:
        with self._lock:
            if scheme not in self._systems:
                try:
                    fsspec = import_module("fsspec")
                    options = {"skip_instance_cache": True, "use_listings_cache": False, **_OPTIONS.get(scheme, {})}
                    self._systems[scheme] = fsspec.filesystem(scheme, **options)
                except ImportError:
                    extra = _EXTRAS[scheme]
                    reason = f"{scheme}:// needs a package that is not installed; run: pip install 'odkeras[{extra}]'"
                    raise ImageError(reason, url) from None
                except Exception as error:  # no credentials, for some providers
                    raise ImageError(_explain(error, scheme, self._timeout_s), url) from None
            return self._systems[scheme]


def _split(url: str) -> tuple[str, str]:
    """The scheme and the rest of a URL."""
    scheme, _, path = url.partition("://")
    return scheme.lower(), path


def _explain(error: Exception, scheme: str, timeout_s: float, doing: str = "fetched") -> str:
    """Why a request failed, without the values of secrets."""
    variables = f"set {_VARIABLES[scheme]} in the environment"
    name = type(error).__name__
    if isinstance(error, TimeoutError) or "Timeout" in name:
        return f"no complete answer within {timeout_s:g} s"
    if isinstance(error, FileNotFoundError):
        return "not found: there is no such bucket or object"
    if isinstance(error, PermissionError):
        return f"not allowed with these credentials; {variables}"
    if "NoCredentials" in name or "DefaultCredentials" in name:
        return f"no credentials; {variables}"
    first = (str(error).splitlines() or [""])[0]
    for variable, value in os.environ.items():
        if len(value) > 3 and any(part in variable.upper() for part in _SECRET):
            first = first.replace(value, "…")
    return f"cannot be {doing}: {name}: {first}" if first else f"cannot be {doing}: {name}"
