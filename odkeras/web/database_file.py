"""The file of the answer database: opens it, and notices when it is deleted or replaced while it is open.

SQLite goes on writing into a deleted file without an error, so that every further answer would be lost.

Nothing here may open the file itself: closing it would drop the locks that SQLite holds on it in this process, and
another process that closes the database would then delete the log that holds the latest answers.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path
from typing import Any

from odkeras.errors import DatabaseError
from odkeras.project import sync_to_disk, temporary_name
from odkeras.web.schema import BUSY_S, prepare

_log = logging.getLogger(__name__)
_LEAST_BYTES = 512  # the smallest page
_MANY_ANSWERS_CACHE_KB = 65536
"""Each answer changes pages anywhere in several indexes; without room for them they are written several times."""
RESCUED = ".rescued"


class SqliteConnection(sqlite3.Connection):
    """A `Connection` of the engine; see there."""

    def insert(self, query: str, values: Sequence[Any]) -> int | None:
        inserted = self.execute(query, values)
        return inserted.lastrowid if inserted.rowcount else None

    def expect_many(self) -> None:
        self.execute(f"PRAGMA cache_size = -{_MANY_ANSWERS_CACHE_KB}")

    def counted_later(self, dataset: str) -> AbstractContextManager[None]:
        return nullcontext()

    @property
    def is_lost(self) -> bool:
        return False

    def notify(self, message: Mapping[str, Any]) -> None:
        """Nothing: one page process uses the file."""


class DatabaseFile:
    """An open database file.

    Args:
        path: created if it does not exist.

    Attributes:
        connection: replaced by `check` when it had to write the file again.

    Raises:
        DatabaseError: the file is not an odkeras database, or is not accessible.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = _connect(path)
        self._identity = _identity(path)

    def check(self) -> None:
        """Check that the open file is the one at the path. A deleted one is written again, since all of it can still be
        read.

        Raises:
            DatabaseError: it was emptied, replaced, or cannot be written again.
        """
        try:
            found = _identity(self.path)
            if found is not None and found == self._identity:
                if self.path.stat().st_size < _LEAST_BYTES:
                    raise DatabaseError(
                        f"{self.path}: was emptied while it was in use, and cannot be written any more; stop, put back "
                        "a backup (`odkeras backup` makes one), and start again"
                    )
            elif found is None:
                self._write_again()
            else:
                raise DatabaseError(
                    f"{self.path}: was replaced by another file while it was in use; the answers so far are in "
                    f"{self._rescue()}. Stop, decide for one of the two, and start again"
                )
        except (OSError, sqlite3.Error) as error:
            raise DatabaseError(f"{self.path}: was deleted, or cannot be read any more: {error}") from error

    def _rescue(self) -> Path:
        """The path of a copy of the open file; made at the first call."""
        path = self.path.with_name(self.path.name + RESCUED)
        if not path.exists():
            self._copy_to(path)
        return path

    def _write_again(self) -> None:
        temporary = self.path.with_name(temporary_name())
        self._copy_to(temporary)
        self.connection.close()
        for suffix in ("-wal", "-shm"):  # of the deleted file; SQLite would take them for those of the new one
            with suppress(FileNotFoundError):
                self.path.with_name(self.path.name + suffix).unlink()
        temporary.rename(self.path)
        self.connection, self._identity = _connect(self.path), _identity(self.path)
        _log.warning("%s was deleted while it was in use; it has been written again, with all answers", self.path)

    def _copy_to(self, path: Path) -> None:
        try:
            with closing(sqlite3.connect(path)) as copy:
                self.connection.backup(copy)
            sync_to_disk(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def connect(path: Path) -> SqliteConnection:
    """Open a file without checking it.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    return sqlite3.connect(
        path, timeout=BUSY_S, check_same_thread=False, isolation_level=None, factory=SqliteConnection
    )


def _connect(path: Path) -> SqliteConnection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = connect(path)
    except (OSError, sqlite3.Error) as error:
        raise DatabaseError(f"{path}: the database cannot be opened: {error}") from error
    try:
        prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        is_damaged = not isinstance(error, sqlite3.OperationalError)  # which is a lock, or a full disk
        advice = "; `odkeras doctor PROJECT --repair` copies what can be read" if is_damaged else ""
        raise DatabaseError(f"{path}: the database cannot be used: {error}{advice}") from error
    except DatabaseError:
        connection.close()
        raise
    return connection


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells the file from another one at the same path; None if there is no file."""
    try:
        info = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return None
    return info.st_dev, info.st_ino
