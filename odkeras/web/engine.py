"""What the answer database needs of the engine that keeps its tables. The queries are written once, in the SQL that
SQLite and PostgreSQL both understand, with `?` for each value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from odkeras.database_url import DatabaseLocation


class Rows(Protocol):
    """The result of a query."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> Sequence[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection; a transaction is one in which all statements count or none."""

    def execute(self, query: str, values: Sequence[Any] = (), /) -> Rows: ...

    def executemany(self, query: str, rows: Iterable[Sequence[Any]], /) -> Any: ...

    def insert(self, query: str, values: Sequence[Any]) -> int | None:
        """Run an INSERT into `answers`. Returns the id of the new row; None if there is none, because of a conflict."""
        ...

    def expect_many(self) -> None:
        """Prepare for thousands of new rows in this transaction."""
        ...

    def counted_later(self, dataset: str) -> AbstractContextManager[None]:
        """A block with thousands of changes of a dataset's answers, which are counted at its end if that is quicker."""
        ...

    def notify(self, message: Mapping[str, Any]) -> None:
        """Send a message to all processes that use the database, when the transaction is committed. An engine of one
        process sends nothing."""
        ...

    @property
    def is_lost(self) -> bool:
        """Whether it has ended, and its temporary tables with it."""
        ...

    def close(self) -> None: ...


class Engine(Protocol):
    """Keeps the tables of the answer database. Thread-safe.

    Attributes:
        place: the file or the URL, for messages.
        folder: absolute directory where relative image paths in the answers start.
        rows_together: how many examples one query reads; they may contain images.
        errors: the exceptions of a connection of `connect`.
        contains: the operator that compares texts like LIKE, without regard to case.
        source_table: statements that create the gallery's temporary table.
    """

    rows_together: int
    errors: tuple[type[Exception], ...]
    contains: str

    @property
    def place(self) -> DatabaseLocation: ...

    @property
    def folder(self) -> Path: ...

    @property
    def source_table(self) -> Sequence[str]: ...

    def read(self, query: str, values: Sequence[Any]) -> list[Any]:
        """The rows that a query returns.

        Raises:
            DatabaseError: the database cannot be read.
        """
        ...

    def snapshot(self) -> AbstractContextManager[None]:
        """A block in which all reads of this thread see the same answers."""
        ...

    def transaction(self, failed: str) -> AbstractContextManager[Connection]:
        """A transaction as a `with` block; see `AnswerDatabase.transaction`."""
        ...

    def count_boxes(self, dataset: str) -> dict[str, int]:
        """{label: boxes} of the images whose latest answer is accept, the most frequent label first."""
        ...

    def connect(self) -> Connection:
        """A further connection, outside of transactions."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...
