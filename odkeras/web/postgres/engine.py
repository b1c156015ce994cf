"""The answer database in PostgreSQL, through SQLAlchemy's pool of connections.

The tables are in the schema `odkeras` of the database. One process writes at a time, as with SQLite: every transaction
takes the same lock first, so that two answers about one image cannot overtake each other, and nothing deadlocks.
"""

from __future__ import annotations

import functools
import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import sqlalchemy
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from odkeras.database_url import DatabaseUrl
from odkeras.errors import ConfigError, DatabaseError
from odkeras.web.postgres.schema import SCHEMA, prepare

_REFUSALS = ("password", "does not exist", "no pg_hba.conf entry", "permission denied")
CHANNEL = "odkeras"
RETRY_S = 3.0
"""How long a request waits for a database that cannot be reached. The page keeps the answers and tries again."""
_RETRY_EVERY_S = 0.1
_WRITE_LOCK = 0x6F646B6572617302
_OPTIONS = (
    f"-c search_path={SCHEMA} -c lock_timeout=10s "
    "-c idle_in_transaction_session_timeout=60s "  # a process that hangs in a transaction must not keep the lock
    "-c plan_cache_mode=force_custom_plan"  # a plan that was made for an empty table reads a full one without its index
)
_CONNECT = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
_MAX_CONNECTIONS = 20
_ANALYZED_AFTER = (300, 3_000, 30_000, 300_000)
"""After so many new answers in one transaction, the tables' statistics are made: without them, PostgreSQL looks for the
answers about an image among all those of the dataset, so that an import takes time with the square."""
_MAX_MESSAGE_BYTES = 7_900  # PostgreSQL's limit is 8,000
_BOXES = """
    SELECT (span -> 'label')::text, COUNT(*) FROM gallery JOIN answers ON answers.id = gallery.answer,
    json_array_elements(
        CASE json_typeof(example::json -> 'spans') WHEN 'array' THEN example::json -> 'spans' END
    ) AS span
    WHERE gallery.dataset = ? AND latest = 1 AND gallery.decision = 'accept' AND json_typeof(span) = 'object'
    AND json_typeof(span -> 'label') = 'string' GROUP BY 1
"""
_ACCEPTED = """
    SELECT example FROM gallery JOIN answers ON answers.id = gallery.answer
    WHERE gallery.dataset = ? AND latest = 1 AND gallery.decision = 'accept'
"""
T = TypeVar("T")


class PostgresEngine:
    """An `Engine` with a pool of connections.

    Args:
        url: the database; a password comes from PGPASSWORD or ~/.pgpass.
        create: create the tables if there are none.

    Attributes:
        instance: a random name; the sender of this engine's messages.

    Raises:
        DatabaseError: the database cannot be reached or used.
    """

    rows_together = 20
    errors: tuple[type[Exception], ...] = (SQLAlchemyError,)
    contains = "ILIKE"
    source_table = (
        'CREATE TEMP TABLE source (key TEXT COLLATE "C" PRIMARY KEY, image_id TEXT COLLATE "C", '
        'file TEXT COLLATE "C" NOT NULL, sort_key TEXT COLLATE "C" NOT NULL, '
        "labels TEXT COLLATE \"C\" NOT NULL DEFAULT '', lowest_score DOUBLE PRECISION)",
        "CREATE INDEX source_in_order ON source (sort_key)",
        "CREATE INDEX source_of_image ON source (image_id)",
    )

    def __init__(self, url: DatabaseUrl, *, create: bool = True) -> None:
        self.place = url
        self.instance = uuid.uuid4().hex
        self.folder = Path.cwd()
        self._pool = _create_pool(url)
        self._reading = self._pool.execution_options(isolation_level="AUTOCOMMIT")
        self._mine = threading.local()  # the connection of this thread's transaction or snapshot
        self._is_closed = False
        try:
            with self._failing_as("the database cannot be used"), self._connected(self._pool) as connection:
                prepare(connection, url, create=create)
                connection.commit()
        except BaseException:
            self._pool.dispose()
            raise

    def close(self) -> None:
        self._is_closed = True
        self._pool.dispose()

    def read(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        def rows(connection: sqlalchemy.Connection) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in connection.exec_driver_sql(_sql(query), _storable(values))]

        with self._failing_as("cannot be read"):
            mine = getattr(self._mine, "connection", None)
            return rows(mine) if mine is not None else self._with_retry(rows)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with (
            self._failing_as("cannot be read"),
            self._connected(self._pool.execution_options(isolation_level="REPEATABLE READ")) as connection,
        ):
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            with self._used_by_this_thread(connection):
                yield

    @contextmanager
    def transaction(self, failed: str) -> Iterator[PostgresConnection]:
        with self._failing_as(failed), self._connected(self._pool) as connection:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_WRITE_LOCK,))
            with self._used_by_this_thread(connection):
                yield PostgresConnection(connection, self.instance)
            connection.commit()

    @contextmanager
    def short_transaction(self, failed: str) -> Iterator[PostgresConnection]:
        """A transaction that does not wait for those of `transaction`, and may not change answers."""
        with self._failing_as(failed), self._connected(self._pool) as connection:
            yield PostgresConnection(connection, self.instance)
            connection.commit()

    def count_boxes(self, dataset: str) -> dict[str, int]:
        """See `Engine.count_boxes`. PostgreSQL does not read escapes that are not valid Unicode; Python does."""
        try:
            return _most_first({json.loads(label): count for label, count in self.read(_BOXES, (dataset,))})
        except DatabaseError as error:
            if not isinstance(getattr(error.__cause__, "orig", None), psycopg.DataError):
                raise
        count = Counter[str]()
        for (text,) in self.read(_ACCEPTED, (dataset,)):
            spans = json.loads(text).get("spans")
            for span in spans if isinstance(spans, list) else ():
                if isinstance(span, dict) and isinstance(label := span.get("label"), str):
                    count[label] += 1
        return _most_first(count)

    def connect(self) -> PostgresConnection:
        """See `Engine.connect`. It is not one of the pool, as it has a temporary table."""
        with self._failing_as("cannot be read"):
            connection = self._open(self._reading)
            connection.detach()
        return PostgresConnection(connection, self.instance)

    def listening_connection(self) -> psycopg.Connection[Any]:
        """A connection of psycopg for notifications and for a lock that lasts as long as the connection.

        Raises:
            SQLAlchemyError: the database cannot be reached.
        """
        raw = self._pool.raw_connection()
        connection = raw.driver_connection
        raw.detach()
        assert isinstance(connection, psycopg.Connection)
        connection.rollback()
        connection.autocommit = True
        return connection

    def _with_retry(self, call: Callable[[sqlalchemy.Connection], T]) -> T:
        """Call with a connection; once more if it was lost."""
        try:
            with self._connected(self._reading) as connection:
                return call(connection)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        with self._connected(self._reading) as connection:
            return call(connection)

    @contextmanager
    def _connected(self, engine: sqlalchemy.Engine) -> Iterator[sqlalchemy.Connection]:
        connection = self._open(engine)
        try:
            yield connection
        finally:
            with suppress(SQLAlchemyError):  # rolls back; a lost connection has done so itself
                connection.close()

    def _open(self, engine: sqlalchemy.Engine) -> sqlalchemy.Connection:
        if self._is_closed:
            raise DatabaseError(f"{self.place}: is closed")
        deadline = time.monotonic() + RETRY_S
        while True:
            try:
                return engine.connect()
            except DBAPIError as error:
                # A wrong password or name stays wrong.
                if not _may_come_back(error) or time.monotonic() > deadline or self._is_closed:
                    raise
                time.sleep(_RETRY_EVERY_S)

    @contextmanager
    def _used_by_this_thread(self, connection: sqlalchemy.Connection) -> Iterator[None]:
        self._mine.connection = connection
        try:
            yield
        finally:
            self._mine.connection = None

    @contextmanager
    def _failing_as(self, failed: str) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise DatabaseError(f"{self.place}: {failed}: {describe(error)}") from error


class PostgresConnection:
    """A `Connection` of the engine."""

    def __init__(self, connection: sqlalchemy.Connection, sender: str) -> None:
        self._connection = connection
        self._sender = sender
        self._inserted = 0

    def execute(self, query: str, values: Sequence[Any] = (), /) -> sqlalchemy.CursorResult[Any]:
        return self._connection.exec_driver_sql(_sql(query), _storable(values))

    def executemany(self, query: str, rows: Iterable[Sequence[Any]], /) -> None:
        if values := [_storable(row) for row in rows]:
            self._connection.exec_driver_sql(_sql(query), values)

    def insert(self, query: str, values: Sequence[Any]) -> int | None:
        row = self.execute(f"{query} RETURNING id", values).fetchone()
        self._inserted += 1
        if self._inserted in _ANALYZED_AFTER:
            self.execute("ANALYZE answers, gallery")
        return None if row is None else int(row[0])

    def expect_many(self) -> None:
        """Nothing: the server has its own cache."""

    def notify(self, message: Mapping[str, Any]) -> None:
        text = json.dumps({"from": self._sender, **message}, separators=(",", ":"))
        if len(text) > _MAX_MESSAGE_BYTES:
            text = json.dumps({"from": self._sender, "kind": "much", "dataset": message.get("dataset")})
        self.execute("SELECT pg_notify(?, ?)", (CHANNEL, text))

    @contextmanager
    def counted_later(self, dataset: str) -> Iterator[None]:
        setting = "SELECT set_config('odkeras.count_later', ?, true)"
        self.execute(setting, ("on",))
        yield
        self.execute("SELECT count_again(?)", (dataset,))
        self.execute("ANALYZE answers, gallery")
        self.execute(setting, ("off",))

    @property
    def is_lost(self) -> bool:
        return self._connection.invalidated or self._connection.closed

    def close(self) -> None:
        self._connection.close()


def describe(error: Exception) -> str:
    """The message of the driver in one line, without the statement and its values."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _most_first(count: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(count.items(), key=lambda item: (-item[1], json.dumps(item[0], ensure_ascii=False))))


def _create_pool(url: DatabaseUrl) -> sqlalchemy.Engine:
    try:
        parsed = sqlalchemy.make_url(url.text).set(drivername="postgresql+psycopg")
    except SQLAlchemyError as error:
        raise ConfigError(f"{url}: not the URL of a database: {describe(error)}") from error
    options = " ".join([str(parsed.query.get("options") or ""), _OPTIONS]).strip()
    return sqlalchemy.create_engine(
        parsed,
        pool_pre_ping=True,
        pool_size=4,
        max_overflow=_MAX_CONNECTIONS - 4,
        hide_parameters=True,
        connect_args={"options": options, "application_name": "odkeras", **_CONNECT},
    )


def _may_come_back(error: DBAPIError) -> bool:
    """Whether a connection may succeed later: the server is not there, starts, stops, or has too many connections."""
    state = str(getattr(error.orig, "sqlstate", None) or "")
    is_refused = any(part in str(error.orig) for part in _REFUSALS)
    return isinstance(error.orig, psycopg.OperationalError) and not state.startswith(("28", "3D")) and not is_refused


@functools.lru_cache(maxsize=512)
def _sql(query: str) -> str:
    """The query with the driver's mark for a value."""
    return query.replace("?", "%s")


def _storable(values: Sequence[Any]) -> tuple[Any, ...]:
    """The values of a query. PostgreSQL cannot store the character NUL, which a name in an imported file may have."""
    return tuple(each.replace("\0", "\\x00") if isinstance(each, str) and "\0" in each else each for each in values)
