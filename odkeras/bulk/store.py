"""The folder of a job: a directory, or a prefix in object storage. Files appear in it complete or not at all."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from odkeras.errors import ConfigError, ImageError, InUseError, RecordError
from odkeras.image_ref import is_storage_url
from odkeras.project import atomic_path, list_dir, remove_stale_temporaries
from odkeras.session.object_storage import ObjectStorage

_LOCK = ".lock"
_TIMEOUT_S = 600.0  # for a whole shard


class Store(ABC):
    """A folder.

    Args:
        place: its path or URL.
    """

    def __init__(self, place: str) -> None:
        self.place = place

    @abstractmethod
    def names(self) -> set[str]:
        """The names of its files; empty if it does not exist. Raises: RecordError: it cannot be listed."""

    @abstractmethod
    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """The bytes of a file, from `start` to before `end`. Raises: RecordError: it cannot be read."""

    @abstractmethod
    def write(self, name: str) -> AbstractContextManager[Path]:
        """Context manager: a path to write to, which becomes the file after the block.

        Raises:
            RecordError: disk full, no permission, or the storage refuses the file.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file if it exists. Raises: RecordError: it cannot be deleted."""

    @abstractmethod
    def in_use(self) -> AbstractContextManager[None]:
        """Context manager: create the folder, and keep other commands out of it.

        Raises:
            InUseError: another command works in it.
            RecordError: it cannot be created.
        """


class Directory(Store):
    """A directory of a file system."""

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self._path = Path(place)

    def names(self) -> set[str]:
        try:
            return {path.name for path in list_dir(self._path)}
        except OSError as error:
            raise self._error("list", error) from error

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        try:
            with (self._path / name).open("rb") as file:
                file.seek(start)
                return file.read(-1 if end is None else end - start)
        except OSError as error:
            raise self._error("read", error) from error

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        try:
            with atomic_path(self._path / name) as temporary:
                yield temporary
        except OSError as error:
            raise self._error("write", error) from error

    def delete(self, name: str) -> None:
        try:
            (self._path / name).unlink(missing_ok=True)
        except OSError as error:
            raise self._error("write", error) from error

    @contextmanager
    def in_use(self) -> Iterator[None]:
        lock = FileLock(self._path / _LOCK, timeout=0)
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            with suppress(NotImplementedError):  # some network file systems have no locks
                lock.acquire()
            remove_stale_temporaries(self._path)
        except Timeout:
            raise InUseError(f"{self.place}: another command is working in this folder") from None
        except OSError as error:
            raise self._error("write", error) from error
        try:
            yield
        finally:
            with suppress(OSError):
                remove_stale_temporaries(self._path)
            lock.release()

    def _error(self, verb: str, error: OSError) -> RecordError:
        return RecordError(f"cannot {verb} {error.filename or self.place}: {error.strerror or error}")


class Prefix(Store):
    """A prefix in object storage. An object is replaced as a whole, by its upload. There is no lock: two commands with
    the same prefix write the same objects."""

    def __init__(self, place: str) -> None:
        super().__init__(place.rstrip("/"))
        self._storage = ObjectStorage(timeout_s=_TIMEOUT_S)

    def names(self) -> set[str]:
        try:
            return self._storage.list_names(self.place)
        except ImageError as error:
            raise RecordError(str(error)) from None

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        try:
            return self._storage.read(f"{self.place}/{name}", start, end)
        except ImageError as error:
            raise RecordError(str(error)) from None

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="odkeras-bulk-") as folder:
            path = Path(folder, "file")
            yield path
            try:
                self._storage.put(f"{self.place}/{name}", path.read_bytes())
            except ImageError as error:
                raise RecordError(str(error)) from None

    def delete(self, name: str) -> None:
        if name in self.names():
            try:
                self._storage.delete(f"{self.place}/{name}")
            except ImageError as error:
                raise RecordError(str(error)) from None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        yield


def open_store(place: str) -> Store:
    """The folder at a path, or at a URL of object storage. Nothing is created.

    Raises:
        ConfigError: a URL of another kind.
    """
    if is_storage_url(place):
        return Prefix(place)
    if "://" in place:
        raise ConfigError(f"--out {place}: must be a folder, or a prefix that starts with s3://, gs:// or az://")
    return Directory(place)
