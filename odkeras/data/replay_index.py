"""The index of the replay store in SQLite: a start of the trainer reads it instead of every byte of every record.

It is a cache. The records and withdrawn.jsonl have everything that is in it: what the index lacks is read from them,
and an index that cannot be used is made again.
"""

from __future__ import annotations

import gc
import json
import logging
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from odkeras.data.stored_example import StoredExample

_SCHEMA_VERSION = 2
_PAGE_BYTES = 1024  # a round changes a few rows in many pages; smaller pages are fewer bytes to write
_SCHEMA = """
CREATE TABLE files (name TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE examples (
    id INTEGER PRIMARY KEY, -- in the order of arrival, so that the rows of a round are on few pages
    image_id TEXT NOT NULL UNIQUE,
    batch TEXT NOT NULL,
    file TEXT NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    classes TEXT NOT NULL,
    split TEXT NOT NULL,
    answered_s REAL NOT NULL
);
CREATE TABLE batches (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE withdrawn (image_id TEXT PRIMARY KEY, batch TEXT NOT NULL) WITHOUT ROWID;
"""
_PUT_EXAMPLE = (
    "INSERT INTO examples (image_id, batch, file, offset, length, classes, split, answered_s) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (image_id) DO UPDATE SET batch = excluded.batch, file = excluded.file, offset = excluded.offset, "
    "length = excluded.length, classes = excluded.classes, split = excluded.split, answered_s = excluded.answered_s"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexContents:
    """What the index holds.

    Args:
        sizes: file -> number of its bytes that are indexed.
        examples: the latest example about each image.
        batches: names of all batches that are in the records.
        withdrawn: image id -> name of the batch with its rejected or ignored answer.
    """

    sizes: dict[Path, int] = field(default_factory=dict)
    examples: list[StoredExample] = field(default_factory=list)
    batches: set[str] = field(default_factory=set)
    withdrawn: dict[str, str] = field(default_factory=dict)


@dataclass
class IndexChange:
    """What one transaction changes; the fields are those of `IndexContents`.

    Args:
        removed: image ids without an example from now on.
        deleted: files that are not indexed any more.
    """

    sizes: Mapping[Path, int] = field(default_factory=dict)
    examples: Iterable[StoredExample] = ()
    batches: Iterable[str] = ()
    withdrawn: Mapping[str, str] = field(default_factory=dict)
    removed: Iterable[str] = ()
    deleted: Iterable[Path] = ()


class ReplayIndex:
    """One index file. Call `close` at the end.

    After an error nothing more is written: the next start reads from the records what the index lacks.

    Args:
        path: the SQLite file; created if it is missing or cannot be used.
        data_dir: file names in the index are relative to it.
    """

    def __init__(self, path: Path, data_dir: Path) -> None:
        self._path = path
        self._data_dir = data_dir
        self._connection: sqlite3.Connection | None = None

    def open(self) -> IndexContents:
        """Open the index, and return what it holds: nothing if it is new or cannot be used."""
        try:
            self._path.parent.mkdir(exist_ok=True)
            self._connection = _connect(self._path)
            return self._read(self._connection)
        except (OSError, sqlite3.OperationalError) as error:  # locked, read-only, or the disk is full
            self._give_up(error)
        except sqlite3.DatabaseError as error:
            _log.warning("%s cannot be used (%s); it is made again from the records", self._path, error)
            self.clear()
        return IndexContents()

    def clear(self) -> None:
        """Start with an empty index."""
        self.close()
        try:
            for suffix in ("", "-journal"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._connection = _connect(self._path)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def write(self, change: IndexChange) -> None:
        """Write a change, durably and in one transaction. An error is logged."""
        if self._connection is None:
            return
        try:
            with self._connection as connection:
                connection.execute("BEGIN IMMEDIATE")
                self._write(connection, change)
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        """Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _read(self, connection: sqlite3.Connection) -> IndexContents:
        was_enabled = gc.isenabled()
        gc.disable()  # it would search the new examples for cycles again and again: a third of the time of a start
        try:
            return self._read_tables(connection)
        finally:
            if was_enabled:
                gc.enable()

    def _read_tables(self, connection: sqlite3.Connection) -> IndexContents:
        paths: dict[str, Path] = {}
        texts: dict[str, str] = {}  # one string for equal ones: most images share them
        classes: dict[str, frozenset[str]] = {}
        examples = []
        for image_id, batch, file, offset, length, names, split, answered_s in connection.execute(
            "SELECT image_id, batch, file, offset, length, classes, split, answered_s FROM examples"
        ):
            if (path := paths.get(file)) is None:
                path = paths[file] = self._data_dir / file
            if (texts_of_classes := classes.get(names)) is None:
                texts_of_classes = classes[names] = frozenset(json.loads(names))
            batch, split = texts.setdefault(batch, batch), texts.setdefault(split, split)
            examples.append(StoredExample(image_id, batch, path, offset, length, texts_of_classes, split, answered_s))
        return IndexContents(
            {self._data_dir / name: size for name, size in connection.execute("SELECT name, size FROM files")},
            examples,
            {name for (name,) in connection.execute("SELECT name FROM batches")},
            dict(connection.execute("SELECT image_id, batch FROM withdrawn")),
        )

    def _write(self, connection: sqlite3.Connection, change: IndexChange) -> None:
        many, name = connection.executemany, self._name
        many("DELETE FROM examples WHERE image_id = ?", [(image_id,) for image_id in change.removed])
        many("DELETE FROM files WHERE name = ?", [(name(path),) for path in change.deleted])
        many("INSERT OR REPLACE INTO files VALUES (?, ?)", [(name(path), size) for path, size in change.sizes.items()])
        many("INSERT OR IGNORE INTO batches VALUES (?)", [(batch,) for batch in change.batches])
        many("INSERT OR REPLACE INTO withdrawn VALUES (?, ?)", change.withdrawn.items())
        for each in change.examples:
            classes = json.dumps(sorted(each.classes))
            place = (name(each.path), each.offset, each.length)
            connection.execute(_PUT_EXAMPLE, (each.image_id, each.batch, *place, classes, each.split, each.answered_s))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._data_dir).as_posix()

    def _give_up(self, error: Exception) -> None:
        _log.warning("%s cannot be used: %s; the next start reads the records again", self._path, error)
        with suppress(sqlite3.Error):
            self.close()
        self._connection = None


def _connect(path: Path) -> sqlite3.Connection:
    # A rollback journal, not WAL: the data directory may be on a file system of the network.
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA synchronous = FULL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, _SCHEMA_VERSION):
            raise sqlite3.DatabaseError(f"schema {version}")
        if not version:
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
        return connection
    except BaseException:
        connection.close()
        raise
