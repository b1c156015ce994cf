"""The three directories of a project: the only interface between the processes. Files are written atomically."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from odkeras.errors import ConfigError, SetupError

CONFIG_NAME = "pipeline.config"
LOCK_NAME = "trainer.lock"
TEMPORARY_PREFIX = ".tmp-"
_TRAIN_RECORD = re.compile(r"(\d+)_train\.record", re.ASCII)
_WRITER = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}(?P<machine>[0-9a-f]{{8}})-(?P<process>\d+)-", re.ASCII)
T = TypeVar("T")


@dataclass(frozen=True)
class Project:
    """The paths of a project.

    Args:
        data_dir: answers and TFRecords.
        model_dir: checkpoints, status and logs of the trainer.
        export_dir: published versions of the model.
    """

    data_dir: Path
    model_dir: Path
    export_dir: Path

    def __post_init__(self) -> None:
        for name in ("data_dir", "model_dir", "export_dir"):
            object.__setattr__(self, name, Path(getattr(self, name)))

    def create(self) -> None:
        """Create missing directories, and check that all are writable.

        Raises:
            ConfigError: a file is in the place of a directory.
            SetupError: no write permission, or disk full.
        """
        for path in (self.data_dir, self.inbox_dir, self.model_dir, self.export_dir):
            _create_dir(path)

    @property
    def inbox_dir(self) -> Path:
        return self.data_dir / "inbox"

    @property
    def replay_record(self) -> Path:
        """What earlier versions merged older records into; read, but not written any more."""
        return self.data_dir / "replay.record"

    @property
    def replay_dir(self) -> Path:
        """The shards that the examples of older records are moved to, and the index of all records."""
        return self.data_dir / "replay"

    @property
    def image_ids_path(self) -> Path:
        """A cache: the id of each source image when it was last read."""
        return self.data_dir / "image_ids.jsonl"

    @property
    def answered_path(self) -> Path:
        """Which answers of Prodigy's datasets were delivered to the trainer; in odkeras 0.1 those of the page, too."""
        return self.data_dir / "answered.jsonl"

    @property
    def data_id_path(self) -> Path:
        """Identifies the data directory, for the database that the page delivers answers from."""
        return self.data_dir / "data_id.json"

    @property
    def databases_path(self) -> Path:
        """Maps a dataset to its database, if that is not the one next to the config."""
        return self.data_dir / "databases.json"

    @property
    def kept_images_dir(self) -> Path:
        """Images without a source file that a database or rejected.jsonl refers to. Never deleted."""
        return self.data_dir / "images"

    @property
    def work_path(self) -> Path:
        """How annotators edited the suggestions; see `odkeras.work`."""
        return self.data_dir / "work.jsonl"

    @property
    def rejected_path(self) -> Path:
        """Answers that could not be used, with the reasons."""
        return self.data_dir / "rejected.jsonl"

    @property
    def reading_path(self) -> Path:
        """The batch that the trainer is reading; see `odkeras.data.attempts`."""
        return self.data_dir / "reading.json"

    @property
    def withdrawn_path(self) -> Path:
        """Rejected and ignored answers: image id and batch."""
        return self.data_dir / "withdrawn.jsonl"

    @property
    def status_path(self) -> Path:
        """The current state of the trainer."""
        return self.model_dir / "status.json"

    @property
    def control_path(self) -> Path:
        """Whether training is paused or stopped; see `odkeras.control`."""
        return self.model_dir / "control.json"

    @property
    def lock_path(self) -> Path:
        """Locked by the process that trains in the model directory."""
        return self.model_dir / LOCK_NAME

    @property
    def deaths_path(self) -> Path:
        """How often the trainer died while it trained, and with which images; see `odkeras.training.deaths`."""
        return self.model_dir / "deaths.json"

    @property
    def drawn_path(self) -> Path:
        """The images that the trainer trains on now. It exists only meanwhile, and after the trainer died."""
        return self.model_dir / "drawn.jsonl"

    @property
    def metrics_path(self) -> Path:
        """The log of rounds, evaluations and deletions."""
        return self.model_dir / "metrics.jsonl"

    @property
    def config_path(self) -> Path:
        return self.model_dir / CONFIG_NAME

    @property
    def logs_dir(self) -> Path:
        return self.model_dir / "logs"

    def train_records(self) -> list[Path]:
        """The `<number>_train.record` files of the training rounds, oldest first."""
        records = [(match, path) for path in list_dir(self.data_dir) if (match := _TRAIN_RECORD.fullmatch(path.name))]
        return [path for _, path in sorted((int(match[1]), path) for match, path in records)]


def config_path(place: Path | str) -> Path:
    """The path of the pipeline.config, given the file itself or the project directory that contains it.

    Raises:
        ConfigError: a directory without a pipeline.config, or a project's model directory, which contains a copy.
    """
    place = Path(place)
    if not place.is_dir():
        return place
    config = place / CONFIG_NAME
    if not config.is_file():
        others = sorted(path.name for path in place.glob("*.config"))
        advice = f"name one of its files: {', '.join(others)}" if others else "`odkeras init` creates a project folder"
        raise ConfigError(f"{place}: a folder without a {CONFIG_NAME}; {advice}")
    if (place / "status.json").is_file() and (place.resolve().parent / CONFIG_NAME).is_file():
        raise ConfigError(f"{place} is a model directory; name the project folder, {place.resolve().parent}")
    return config


def plan_retention(items: Sequence[T], keep: int, protected: Collection[T] = ()) -> list[T]:
    """Which of `items` (oldest first) to delete: all but the newest `keep` and the protected ones. keep <= 0: none."""
    if keep <= 0:
        return []
    return [item for item in items[:-keep] if item not in protected]


def write_atomically(path: Path | str, data: bytes | str) -> None:
    """Write a file atomically and durably: readers see either the old or the new content, even after a crash.

    Raises:
        OSError: disk full, or no permission; the old content is unchanged.
    """
    with atomic_path(path) as temporary, temporary.open("xb") as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path next to `path`. It is synced and renamed to `path` after the block, or deleted if the
    block raises."""
    path = Path(path)
    temporary = path.with_name(temporary_name())
    try:
        yield temporary
        sync_to_disk(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_to_disk(path.parent)


def append_jsonl(path: Path | str, rows: Iterable[dict[str, Any]], *, durable: bool = True) -> None:
    """Append rows to a JSON Lines file. If a crash left a partial last line, it is terminated first.

    Args:
        durable: sync the file to disk before returning.

    Raises:
        OSError: disk full, or no permission.
    """
    data = b"".join(json.dumps(row).encode("utf-8") + b"\n" for row in rows)
    if not data:
        return
    with Path(path).open("ab+", buffering=0) as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            data = data if file.read(1) == b"\n" else b"\n" + data
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        if durable:
            os.fsync(file.fileno())


def read_jsonl(path: Path | str) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file; [] if there is no file. Invalid lines, such as partial ones, are skipped."""
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [row for line in lines if (row := _json_object(line)) is not None]


def find_round(metrics: Sequence[dict[str, Any]], batch: str) -> dict[str, Any] | None:
    """The row of `metrics.jsonl` of the first round that trained on a batch; None if there is none yet."""
    return next((row for row in metrics if row.get("kind") == "round" and batch in (row.get("batches") or ())), None)


class JsonlTail:
    """Follows a JSON Lines file that other processes append to, and returns each row once.

    Args:
        path: need not exist yet. If the file is truncated or replaced, it is read again from its start.
        offset: read from this byte on.

    Attributes:
        offset: end of the last complete line that was read.
    """

    def __init__(self, path: Path | str, offset: int = 0) -> None:
        self._path = Path(path)
        self.offset = offset
        self._inode: int | None = None

    def skip(self) -> None:
        """Move to the end of the last complete line without parsing the existing rows."""
        try:
            with self._path.open("rb") as file:
                self._inode = os.fstat(file.fileno()).st_ino
                self.offset = sum(len(line) for line in file if line.endswith(b"\n"))
        except OSError:
            return

    def read(self) -> list[dict[str, Any]]:
        """The rows since the last call. A line that is still being written is returned by a later call."""
        try:
            stat = self._path.stat()
            if self._inode not in (None, stat.st_ino) or stat.st_size < self.offset:
                self.offset = 0
            self._inode = stat.st_ino
            if stat.st_size == self.offset:
                return []
            with self._path.open("rb") as file:
                file.seek(self.offset)
                whole = file.read().rpartition(b"\n")[0]
        except OSError:
            return []
        self.offset += len(whole) + 1 if whole else 0
        return [row for line in whole.split(b"\n") if (row := _json_object(line)) is not None]


def read_status(path: Path | str) -> dict[str, Any] | None:
    """The contents of the trainer's status.json; None if it does not exist (yet) or is not a JSON object."""
    try:
        return _json_object(Path(path).read_bytes())
    except OSError:
        return None


def remove_stale_temporaries(directory: Path | str, older_than_s: float = 600.0) -> list[Path]:
    """Delete the temporary files of processes that have ended, and return their paths.

    Those whose writer ran on this machine are deleted if it has ended. Of any other writer, those that are at least
    `older_than_s` old are deleted.
    """
    newest_s = time.time() - older_than_s
    stale = [path for path in list_dir(Path(directory)) if _is_stale(path, newest_s)]
    for path in stale:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return stale


def _is_stale(path: Path, newest_s: float) -> bool:
    if not path.name.startswith(TEMPORARY_PREFIX):
        return False
    writer = _WRITER.match(path.name)
    if writer is not None and writer["machine"] == _machine():
        return not _is_running(int(writer["process"]))
    try:
        return path.lstat().st_mtime <= newest_s
    except FileNotFoundError:  # its owner has just renamed or deleted it
        return False


def temporary_name() -> str:
    """A new name for a file or directory that is renamed once it is complete. It names its writer."""
    return f"{TEMPORARY_PREFIX}{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


@cache
def _machine() -> str:
    """Eight digits that are the same for all processes that see each other's process ids: on one machine, and in one
    container."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]


def _is_running(process: int) -> bool:
    """Whether a process of this machine is running. On Windows, where asking would end it: always."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        pass
    return True


def _create_dir(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / temporary_name()
        probe.touch()
        probe.unlink()
    except (FileExistsError, NotADirectoryError) as error:
        blocking = next((parent for parent in (path, *path.parents) if parent.is_file()), path)
        raise ConfigError(f"{path} must be a directory, but {blocking} is a file; move it or name another") from error
    except OSError as error:
        raise SetupError(f"cannot write to the directory {path}: {error.strerror}") from error


def list_dir(directory: Path) -> list[Path]:
    """The entries of a directory; [] if it does not exist."""
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _json_object(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def sync_to_disk(path: Path) -> None:
    """fsync a file, or the entries of a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
