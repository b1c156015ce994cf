"""The answer database in a SQLite file, the default."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from odkeras.errors import DatabaseError
from odkeras.web.database_file import DatabaseFile, SqliteConnection, connect

_BOXES = (
    # With two paths, SQLite returns the labels as JSON, in which one that is not valid Unicode keeps its escapes.
    "SELECT json_extract(span.value, '$.label', '$.label'), COUNT(*) "
    "FROM gallery JOIN answers ON answers.id = gallery.answer, json_each(example, '$.spans') AS span "
    "WHERE gallery.dataset = ? AND latest = 1 AND gallery.decision = 'accept' "
    "AND json_type(example, '$.spans') = 'array' AND span.type = 'object' "
    "AND json_type(span.value, '$.label') = 'text' GROUP BY 1 ORDER BY 2 DESC, 1"
)


class SqliteEngine:
    """An `Engine` with one connection, which its threads take turns to use.

    Args:
        path: the file; created if it does not exist.

    Raises:
        DatabaseError: the file is not an odkeras database, or is not accessible.
    """

    rows_together = 1
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    contains = "LIKE"
    source_table = (
        "PRAGMA temp_store = MEMORY",
        "CREATE TEMP TABLE source (key TEXT PRIMARY KEY, image_id TEXT, file TEXT NOT NULL, sort_key TEXT NOT NULL, "
        "labels TEXT NOT NULL DEFAULT '', lowest_score REAL) WITHOUT ROWID",
        "CREATE INDEX temp.source_in_order ON source (sort_key)",
        "CREATE INDEX temp.source_of_image ON source (image_id)",
    )

    def __init__(self, path: Path) -> None:
        self.place = path
        self.folder = path.absolute().parent
        self.file = DatabaseFile(path)
        self._lock = threading.RLock()

    @property
    def connection(self) -> SqliteConnection:
        return self.file.connection

    def close(self) -> None:
        with self._lock:
            self.connection.close()

    def read(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self.connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise DatabaseError(f"{self.place}: cannot be read: {error}") from error

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with self._lock:
            self.read("BEGIN", ())
            try:
                yield
            finally:
                self._roll_back()

    @contextmanager
    def transaction(self, failed: str) -> Iterator[SqliteConnection]:
        with self._lock:
            self.file.check()
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                yield self.connection
                self.connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise DatabaseError(f"{self.place}: {failed}: {error}") from error
            except BaseException:
                self._roll_back()
                raise

    def count_boxes(self, dataset: str) -> dict[str, int]:
        """See `Engine.count_boxes`. In SQL: Python takes several times as long to parse the examples."""
        return {json.loads(labels)[0]: count for labels, count in self.read(_BOXES, (dataset,))}

    def connect(self) -> SqliteConnection:
        connection = connect(self.place)
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        return connection

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):  # on a full disk, SQLite may have rolled back already
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
