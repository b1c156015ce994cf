"""Loads the versions of one model and swaps them while requests are running. Does not import TensorFlow itself.

A thread polls the model's directory, loads the newest version alongside the current one, and swaps them. A request
holds a lease:

    with ServedModel("raccoon", export_dir, open_backend) as model:
        with model.lease(request) as lease:
            outputs = lease.servable.run("serving_default", inputs)

If a new version differs only in its weights, they are assigned to the loaded model while no lease is held. No request
fails or sees a mix of old and new weights; new requests wait a few milliseconds.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Protocol

from odkeras.serving.json_tensors import Array
from odkeras.serving.protocol import ApiRequest, Signature, VersionStatus, canonical_error
from odkeras.version_dirs import list_versions, version_dir

log = logging.getLogger(__name__)

_MAX_ENDED_VERSIONS = 8  # unloaded and failed versions that stay in the status
Fingerprint = tuple[tuple[str, int, int], ...]


class Servable(Protocol):
    """One loaded version."""

    @property
    def signatures(self) -> Mapping[str, Signature]: ...

    def run(self, signature_name: str, inputs: Mapping[str, Array]) -> dict[str, Array]: ...

    def prepare_update(self, directory: Path) -> Callable[[], None] | None:
        """Read the weights of the version in `directory`. Returns a function that assigns them, or None if this version
        needs a full load."""


class Backend(Protocol):
    """Loads versions. `load` raises any exception for a version that cannot be loaded."""

    def load(self, directory: Path) -> Servable: ...


@dataclass(frozen=True)
class Lease:
    """The loaded version that a request uses. `ServedModel.lease` guarantees that its weights do not change."""

    version: int
    servable: Servable


class ServedModel:
    """Serves the newest version of a model that can be loaded. Thread-safe.

    Args:
        name: the model's name in request paths.
        base_path: sub-directories whose name is a whole number are the versions. It need not exist yet.
        open_backend: called once, in the polling thread, because it imports TensorFlow.
        poll_wait_s: seconds between two polls of `base_path`.
    """

    def __init__(
        self, name: str, base_path: Path, open_backend: Callable[[], Backend], *, poll_wait_s: float = 1.0
    ) -> None:
        self.name = name
        self.base_path = Path(base_path)
        self._open_backend = open_backend
        self._poll_wait_s = poll_wait_s
        self._backend: Backend | None = None
        self._current: _Loaded | None = None
        self._broken: dict[int, Fingerprint] = {}
        self._logged: set[str] = set()
        self._statuses = _StatusTable()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name=f"odkeras-serving-{name}", daemon=True)

    def __enter__(self) -> ServedModel:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, timeout_s: float = 1.0) -> None:
        """Stop polling. Idempotent. Waits at most `timeout_s` for a load that is running."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def statuses(self, request: ApiRequest) -> list[VersionStatus]:
        """The versions that the request selects, newest first.

        Raises:
            RequestError: 404, there is none.
        """
        selected = [status for status in self._statuses.rows() if request.version in (None, status.version)]
        if not selected:
            raise request.not_loaded()
        return selected

    @contextmanager
    def lease(self, request: ApiRequest) -> Iterator[Lease]:
        """Lease the version that a request selects. Its weights do not change within the block.

        Raises:
            RequestError: 404, the version is not loaded.
        """
        while (loaded := self._current) is not None:
            with loaded.lock.shared():
                if loaded is not self._current:
                    continue  # swapped while this thread waited for the lock
                if request.version not in (None, loaded.version):
                    break
                yield Lease(loaded.version, loaded.servable)
                return
        raise request.not_loaded()

    def _poll(self) -> None:
        while not self._stop.is_set():
            try:
                self.poll_once()
            except Exception as error:
                self._log_once(logging.ERROR, f"no version of {self.name} can be served: {error}")
            self._stop.wait(self._poll_wait_s)

    def poll_once(self) -> None:
        """Poll the directory once, and load the newest version if it is new. Not thread-safe."""
        versions = list_versions(self.base_path)
        self._broken = {version: files for version, files in self._broken.items() if version in versions}
        self._statuses.prune_ended(_MAX_ENDED_VERSIONS)
        broken = {version for version, files in self._broken.items() if files == fingerprint(self._directory(version))}
        target = choose_version(versions, self._current.version if self._current else None, broken)
        if target is not None:
            self._statuses.set(VersionStatus(target, "START"))
        elif self._current is None and not versions:
            self._log_once(logging.INFO, f"waiting for the first version of {self.name} in {self.base_path}")
        if self._backend is None:
            self._backend = self._open_backend()
        if target is not None and not self._stop.is_set():
            self._load(target, self._backend)

    def _log_once(self, level: int, message: str) -> None:
        """Log a message, unless an earlier poll has logged it."""
        if message not in self._logged:
            log.log(level, "%s", message)
        self._logged.add(message)

    def _directory(self, version: int) -> Path:
        return version_dir(self.base_path, version)

    def _load(self, version: int, backend: Backend) -> None:
        directory, started = self._directory(version), monotonic()
        files = fingerprint(directory)  # taken before the load, so that files written meanwhile cause a retry
        self._statuses.set(VersionStatus(version, "LOADING"))
        try:
            how = "weights updated" if self._update(version, directory) else "loaded"
            if how == "loaded":
                self._swap(_Loaded(version, backend.load(directory)))
        except Exception as error:
            code, message = canonical_error(error)
            self._broken[version] = files
            self._statuses.set(VersionStatus(version, "END", code, message))
            log.warning("version %d of %s cannot be served: %s (looked in %s)", version, self.name, message, directory)
        else:
            log.info("version %d of %s %s in %.1f s", version, self.name, how, monotonic() - started)

    def _update(self, version: int, directory: Path) -> bool:
        """Assign the version's weights to the loaded model. Returns False if the version needs a full load."""
        loaded = self._current
        assign = loaded.servable.prepare_update(directory) if loaded else None
        if loaded is None or assign is None:
            return False
        with loaded.lock.exclusive():
            try:
                assign()
            except Exception:  # the model may have a mix of old and new weights, so it must not be served any more
                log.exception("the weights of version %d of %s could not be assigned", version, self.name)
                self._statuses.set(VersionStatus(loaded.version, "END", "INTERNAL", "an update of its weights failed"))
                self._current = None
                return False
            old, loaded.version = loaded.version, version
            self._statuses.set(VersionStatus(version, "AVAILABLE"), VersionStatus(old, "END"))
        return True

    def _swap(self, new: _Loaded) -> None:
        old, self._current = self._current, new
        self._statuses.set(VersionStatus(new.version, "AVAILABLE"))
        if old is None:
            return
        self._statuses.set(VersionStatus(old.version, "UNLOADING"))
        with old.lock.exclusive():
            pass  # wait for the last requests that hold a lease on it
        self._statuses.set(VersionStatus(old.version, "END"))
        del old
        # A SavedModel has reference cycles: without this call two or three of them stay in memory. (TensorFlow itself
        # leaks a few MB per detection graph that it has run. Updating the weights leaks nothing.)
        gc.collect()


def choose_version(versions: Sequence[int], loaded: int | None, broken: Collection[int]) -> int | None:
    """The version to load: the newest one that is not known to be broken. None if it is loaded already."""
    newest = max((version for version in versions if version not in broken), default=None)
    return None if newest == loaded else newest


def fingerprint(directory: Path) -> Fingerprint:
    """Names, sizes and modification times of all files below `directory`. A broken version is retried when this
    changes."""
    rows = []
    for path in directory.rglob("*"):
        try:
            stat = path.stat()
        except OSError:
            continue
        rows.append((str(path.relative_to(directory)), stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(rows))


class _Loaded:
    """A version in memory. Requests take its lock shared; an update of the weights takes it exclusively."""

    def __init__(self, version: int, servable: Servable) -> None:
        self.version = version
        self.servable = servable
        self.lock = SharedLock()


class SharedLock:
    """A readers-writer lock in which a waiting writer has precedence, so that steady requests cannot starve it.

    There can be only one writer: the polling thread.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holders = 0
        self._writer = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock together with other readers."""
        with self._changed:
            self._changed.wait_for(lambda: not self._writer)
            self._holders += 1
        try:
            yield
        finally:
            with self._changed:
                self._holders -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock alone: blocks new readers, then waits for the current ones."""
        with self._changed:
            self._writer = True
            self._changed.wait_for(lambda: self._holders == 0)
        try:
            yield
        finally:
            with self._changed:
                self._writer = False
                self._changed.notify_all()


class _StatusTable:
    """The state of each version, for the status document. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[int, VersionStatus] = {}

    def set(self, *statuses: VersionStatus) -> None:
        """Replace several rows atomically."""
        with self._lock:
            self._rows.update({status.version: status for status in statuses})

    def rows(self) -> list[VersionStatus]:
        """The statuses, newest version first."""
        with self._lock:
            return sorted(self._rows.values(), key=lambda status: status.version, reverse=True)

    def prune_ended(self, keep: int) -> None:
        """Remove the oldest versions that have ended, so that the status does not grow without bound."""
        ended = [status.version for status in self.rows() if status.state == "END"]
        with self._lock:
            for version in ended[keep:]:
                del self._rows[version]
