"""The tables of the answer database. Databases of older odkeras versions are migrated when they are opened."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from odkeras.errors import DatabaseError
from odkeras.web import counters, gallery_rows

BUSY_S = 10.0
"""Timeout in seconds while another process holds the write lock."""

_SCHEMA_VERSION = 8
_WITH_GALLERY = 3
_ADDED_COLUMNS = (("batch", "TEXT"), ("kept_80", "INTEGER"), ("picked", "INTEGER"), ("active_s", "REAL"))
"""Columns of `answers` that databases before schema 4, 5 (two) and 6 lack."""
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY,
    answer_id TEXT NOT NULL,
    dataset TEXT NOT NULL,
    session TEXT NOT NULL,
    image_id TEXT NOT NULL,
    input_hash INTEGER NOT NULL,
    decision TEXT NOT NULL,
    answered_at REAL NOT NULL,
    replaced INTEGER NOT NULL,
    handed_on INTEGER NOT NULL, -- 1: delivered to the trainer
    boxes INTEGER NOT NULL,
    version INTEGER,
    kept INTEGER, moved INTEGER, relabelled INTEGER, deleted INTEGER, added INTEGER,
    example TEXT NOT NULL,
    batch TEXT, -- the batch of its delivery, from just before the batch is written
    kept_80 INTEGER, picked INTEGER, -- NULL before schema 5
    active_s REAL, -- NULL: not measured, or before schema 6
    UNIQUE (dataset, answer_id)
);
CREATE TABLE IF NOT EXISTS open_tasks (
    dataset TEXT NOT NULL,
    image_id TEXT NOT NULL,
    task TEXT NOT NULL,
    PRIMARY KEY (dataset, image_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deliveries (
    dataset TEXT PRIMARY KEY,
    data_id TEXT NOT NULL -- the data directory that handed_on refers to
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS label_maps (
    dataset TEXT PRIMARY KEY,
    path TEXT NOT NULL,
    pbtxt TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_of_image ON answers (dataset, image_id, session);
CREATE INDEX IF NOT EXISTS answers_by_hash ON answers (dataset, input_hash);
CREATE INDEX IF NOT EXISTS answers_to_deliver ON answers (dataset, answered_at) WHERE handed_on = 0 AND replaced = 0;
CREATE INDEX IF NOT EXISTS answers_of_session ON answers (dataset, session, answered_at) WHERE replaced = 0;
DROP INDEX IF EXISTS answers_to_hand_on;
{gallery_rows.TABLE}
{counters.TABLES}
"""
_INDEX_OF_BATCHES = (
    "CREATE INDEX IF NOT EXISTS answers_in_batch ON answers (dataset, batch) WHERE handed_on = 0 AND batch IS NOT NULL"
)
"""Made after the column, which databases before schema 4 lack."""
_WITH_COUNTERS = 8


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Configure the connection and create or migrate the tables.

    Raises:
        DatabaseError: the file belongs to another application or to a newer odkeras.
        sqlite3.Error: the file cannot be used.
    """
    version = _known_version(connection, path)  # first, so that another application's database is not modified
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    _use_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    if version < _SCHEMA_VERSION:
        _bring_up_to_date(connection, path)


def _bring_up_to_date(connection: sqlite3.Connection, path: Path) -> None:
    """Migrate in one transaction, so that a killed process leaves the old tables."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _known_version(connection, path)  # another process may have migrated in the meantime
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        columns = [row[1] for row in connection.execute("PRAGMA table_info(answers)")]
        for name, kind in _ADDED_COLUMNS:
            if name not in columns:
                connection.execute(f"ALTER TABLE answers ADD COLUMN {name} {kind}")
        if 0 < version < _WITH_GALLERY:
            gallery_rows.fill(connection, path.absolute().parent)
        connection.execute(_INDEX_OF_BATCHES)
        if version < _WITH_COUNTERS:
            counters.fill(connection)
        connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _known_version(connection: sqlite3.Connection, path: Path) -> int:
    """The schema version of the file; 0 for a new file."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if tables and ("answers" not in tables or version == 0):
        raise DatabaseError(f"{path}: a database of something else; give another file with --db")
    if version > _SCHEMA_VERSION:
        raise DatabaseError(f"{path}: created by a newer odkeras (schema {version}); update odkeras")
    return int(version)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL. Retries by hand: SQLite's busy timeout does not cover a concurrent change of the journal mode."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
