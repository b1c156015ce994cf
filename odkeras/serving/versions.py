"""The versions of one model: found in its directory, loaded, swapped under running requests. No TensorFlow in here.

A thread looks at the directory, loads the newest version beside the one in use, and swaps. Requests hold a lease:

    with ServedModel("raccoon", export_dir, open_backend) as model:
        with model.lease(call) as lease:
            outputs = lease.servable.run("serving_default", inputs)

Where a version differs from the loaded one by its weights only, they are put into the loaded model while no lease is
held: no request sees old and new weights mixed, none fails, newcomers wait for milliseconds.
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

from odkeras.project import list_versions, version_dir
from odkeras.serving.json_tensors import Array
from odkeras.serving.protocol import Call, Signature, VersionStatus, error_of

log = logging.getLogger(__name__)

_ENDED_SHOWN = 8  # unloaded or failed versions that the status still tells of
Stamp = tuple[tuple[str, int, int], ...]


class Servable(Protocol):
    """One loaded version."""

    @property
    def signatures(self) -> Mapping[str, Signature]: ...

    def run(self, signature_name: str, inputs: Mapping[str, Array]) -> dict[str, Array]: ...

    def prepare_update(self, directory: Path) -> Callable[[], None] | None:
        """Read the weights of the version in `directory`; what is returned puts them in. None: it needs a full load."""


class Backend(Protocol):
    def load(self, directory: Path) -> Servable: ...


@dataclass(frozen=True)
class Lease:
    version: int
    servable: Servable


class ServedModel:
    """Serves the newest version of a model.

    Args:
        name: as in the path of a request.
        base_path: its sub-directories named by a whole number are the versions; may not be there yet.
        open_backend: called once, in the thread (it imports TensorFlow).
        poll_wait_s: seconds between two looks at `base_path`.
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
        self._broken: dict[int, Stamp] = {}
        self._said: set[str] = set()
        self._board = _Board()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"odkeras-serving-{name}", daemon=True)

    def __enter__(self) -> ServedModel:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, timeout_s: float = 1.0) -> None:
        """Stop looking. May be called twice. A load that is running is not waited for longer than `timeout_s`."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def statuses(self, call: Call) -> list[VersionStatus]:
        """The versions and their states, newest first.

        Raises:
            RequestError: 404, none is known, or not the one asked for.
        """
        found = [status for status in self._board.rows() if call.version in (None, status.version)]
        if not found:
            raise call.unknown()
        return found

    @contextmanager
    def lease(self, call: Call) -> Iterator[Lease]:
        """Hold the version that a request asks for; its weights stay as they are meanwhile.

        Raises:
            RequestError: 404, it is not loaded.
        """
        with self._hold() as loaded:
            if loaded is None or call.version not in (None, loaded.version):
                raise call.unloaded()
            yield Lease(loaded.version, loaded.servable)

    @contextmanager
    def _hold(self) -> Iterator[_Loaded | None]:
        while (loaded := self._current) is not None:
            with loaded.gate.shared():
                if loaded is not self._current:
                    continue  # it was swapped while we waited at its gate
                yield loaded
                return
        yield None

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self.poll_once()
            except Exception as error:
                self._say(logging.ERROR, f"no version of {self.name} can be served: {error}")
            self._stop.wait(self._poll_wait_s)

    def poll_once(self) -> None:
        """Look at the directory, and load a version if there is one to load. For one thread only."""
        versions = list_versions(self.base_path)
        self._forget_gone(versions)
        broken = {version for version, stamp in self._broken.items() if stamp == stamp_of(self._directory(version))}
        target = choose_version(versions, self._current.version if self._current else None, broken)
        if target is not None:
            self._board.set(VersionStatus(target, "START"))
        elif self._current is None and not versions:
            self._say(logging.INFO, f"waiting for the first version of {self.name} in {self.base_path}")
        if self._backend is None:
            self._backend = self._open_backend()
        if target is not None and not self._stop.is_set():
            self._load(target, self._backend)

    def _say(self, level: int, text: str) -> None:
        """Log it, but not again and again at every look."""
        if text not in self._said:
            log.log(level, "%s", text)
        self._said.add(text)

    def _directory(self, version: int) -> Path:
        return version_dir(self.base_path, version)

    def _forget_gone(self, versions: Collection[int]) -> None:
        self._broken = {version: stamp for version, stamp in self._broken.items() if version in versions}
        self._board.prune(keep=_ENDED_SHOWN)

    def _load(self, version: int, backend: Backend) -> None:
        directory, started = self._directory(version), monotonic()
        stamp = stamp_of(directory)
        self._board.set(VersionStatus(version, "LOADING"))
        try:
            how = "weights updated" if self._update(version, directory) else "loaded"
            if how == "loaded":
                self._swap(_Loaded(version, backend.load(directory)))
        except Exception as error:
            code, message = error_of(error)
            self._broken[version] = stamp
            self._board.set(VersionStatus(version, "END", code, message))
            log.warning("version %d of %s cannot be served: %s (looked in %s)", version, self.name, message, directory)
        else:
            log.info("version %d of %s %s in %.1f s", version, self.name, how, monotonic() - started)

    def _update(self, version: int, directory: Path) -> bool:
        """Try to put the version's weights into the loaded model."""
        loaded = self._current
        put_in = loaded.servable.prepare_update(directory) if loaded else None
        if loaded is None or put_in is None:
            return False
        with loaded.gate.alone():
            try:
                put_in()
            except Exception:  # some weights are new, some old: of no use to anyone
                log.exception("the weights of version %d of %s could not be put in", version, self.name)
                self._drop_current()
                return False
            old, loaded.version = loaded.version, version
            self._board.set(VersionStatus(version, "AVAILABLE"), VersionStatus(old, "END"))
        return True

    def _swap(self, new: _Loaded) -> None:
        old, self._current = self._current, new
        self._board.set(VersionStatus(new.version, "AVAILABLE"))
        if old is None:
            return
        self._board.set(VersionStatus(old.version, "UNLOADING"))
        with old.gate.alone():  # its last requests are done
            pass
        self._board.set(VersionStatus(old.version, "END"))
        del old
        # A SavedModel is full of cycles: without this two or three would stay in memory. (TensorFlow itself keeps some
        # MB of every detection graph that it ran, which cannot be had back; an update of weights costs nothing.)
        gc.collect()

    def _drop_current(self) -> None:
        if self._current is not None:
            self._board.set(VersionStatus(self._current.version, "END", "INTERNAL", "an update of its weights failed"))
        self._current = None


def choose_version(versions: Sequence[int], loaded: int | None, broken: Collection[int]) -> int | None:
    """The version to load now, or None: the newest that is not known to be broken, unless it is the loaded one."""
    newest = max((version for version in versions if version not in broken), default=None)
    return None if newest == loaded else newest


def stamp_of(directory: Path) -> Stamp:
    """Names, sizes and times of all files: a broken version is tried again when this changes."""
    rows = []
    for path in directory.rglob("*"):
        try:
            stat = path.stat()
        except OSError:
            continue
        rows.append((str(path.relative_to(directory)), stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(rows))


class _Loaded:
    """A version in memory, and the gate that its requests go through."""

    def __init__(self, version: int, servable: Servable) -> None:
        self.version = version
        self.servable = servable
        self.gate = Gate()


class Gate:
    """Many may be inside together (requests), or one alone (an update), which goes before newcomers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """For one thread only."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._inside == 0)
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()


class _Board:
    """The state of each version, for the status document."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[int, VersionStatus] = {}

    def set(self, *statuses: VersionStatus) -> None:
        """All of them at once, as a reader sees it."""
        with self._lock:
            self._rows.update({status.version: status for status in statuses})

    def rows(self) -> list[VersionStatus]:
        """Newest version first."""
        with self._lock:
            return sorted(self._rows.values(), key=lambda status: status.version, reverse=True)

    def prune(self, keep: int) -> None:
        ended = [status.version for status in self.rows() if status.state == "END"]
        with self._lock:
            for version in ended[keep:]:
                del self._rows[version]
