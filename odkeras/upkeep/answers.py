"""Checks the answer database, and compares it with the records."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

from odkeras.damaged_files import set_aside
from odkeras.database_url import DatabaseLocation, DatabaseUrl
from odkeras.errors import DatabaseError
from odkeras.inbox import list_batches, read_batch
from odkeras.project import Project, read_jsonl, read_status
from odkeras.upkeep.findings import Finding
from odkeras.web import counters, gallery_rows
from odkeras.web.database import AnswerDatabase
from odkeras.web.sqlite_engine import SqliteEngine
from odkeras.web.stored import COLUMNS

_TABLES = ("answers", "open_tasks", "deliveries", "label_maps")
_BYTES_PER_ROW = 100
_COPIED = {
    "answers": ("id", *COLUMNS, "batch"),
    "gallery": (
        *("answer", "dataset", "image_id", "session", "sort_key", "file", "decision", "answered_at", "labels"),
        *("lowest_score", "latest"),
    ),
    "open_tasks": ("image_id", "dataset", "task"),
    "deliveries": ("dataset", "data_id"),
    "label_maps": ("dataset", "path", "pbtxt"),
}
"""The columns of the tables that are copied; the first one finds the rows."""


def check_database(path: DatabaseLocation) -> Iterator[Finding]:
    """Check the file of the answer database. PostgreSQL checks its own; here, only whether it can be used."""
    if isinstance(path, DatabaseUrl):
        try:
            AnswerDatabase.open(path).close()
        except DatabaseError as error:
            yield Finding(path, str(error), "see the message")
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            rows = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
            if rows == ["ok"]:
                return
            problem = rows[0].splitlines()[-1]
    except sqlite3.Error as error:
        problem = str(error)
    fix = "all answers that can still be read are copied to a new database"
    yield Finding(path, f"is damaged: {problem}", fix, lambda: salvage(path))


def check_deliveries(path: DatabaseLocation, project: Project, in_records: Collection[str]) -> Iterator[Finding]:
    """Find accepted answers that count as delivered, but that the trainer does not have.

    Args:
        in_records: the image ids in the records.
    """
    known = {*in_records, *_withdrawn(project), *_waiting(project), *_rejected(project)}
    data_id = (read_status(project.data_id_path) or {}).get("id")
    try:
        with AnswerDatabase.open(path, create=False) as database, database.transaction("cannot read") as connection:
            rows = connection.execute(
                "SELECT answers.id, answers.image_id FROM answers JOIN gallery ON gallery.answer = answers.id "
                "JOIN deliveries ON deliveries.dataset = answers.dataset AND deliveries.data_id = ? "
                "WHERE handed_on = 1 AND replaced = 0 AND answers.decision = 'accept' AND gallery.latest = 1",
                (data_id,),
            ).fetchall()
    except DatabaseError as error:
        yield Finding(path, str(error), "see the message")
        return
    lost = [row_id for row_id, image_id in rows if image_id not in known]
    if lost:
        problem = f"{len(lost)} accepted answers were delivered, but the trainer's records do not have them"
        yield Finding(path, problem, "they are delivered again", lambda: _deliver_again(path, lost))


def salvage(path: Path) -> str:
    """Copy all rows that can be read from a damaged database to a new one of the same name. The damaged one is kept
    under another name.

    Raises:
        OSError, DatabaseError, sqlite3.Error: the new one cannot be written.
    """
    moved = set_aside(path)
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(moved.with_name(moved.name + suffix))
    kept = lost = 0
    with closing(SqliteEngine(path)) as engine, closing(sqlite3.connect(moved)) as damaged:
        damaged.text_factory = lambda data: data.decode("utf-8", "replace")
        with engine.transaction("cannot copy the answers") as connection:
            for table in _TABLES:
                for row in _readable_rows(damaged, table, moved.stat().st_size):
                    copied = row is not None and _copy(connection, table, row)
                    kept, lost = kept + (copied and table == "answers"), lost + (not copied and table == "answers")
            connection.execute("DELETE FROM gallery")
            gallery_rows.fill(connection, path.absolute().parent)
            counters.fill(connection)
    return (
        f"{kept} answers copied, {lost} lost; the damaged file is now {moved.name}. Answers that were trained are also "
        "in the records, which `odkeras import` reads"
    )


def copy_answers(source: AnswerDatabase, path: Path) -> None:
    """Copy all answers, as they are at one instant, to a new SQLite file.

    Raises:
        DatabaseError: the database cannot be read, or the file cannot be written.
    """
    with (
        AnswerDatabase.open(path) as target,
        source.snapshot(),
        target.transaction("cannot copy the answers") as connection,
    ):
        for table, columns in _COPIED.items():
            key = columns[0]
            query = f"SELECT {', '.join(columns)} FROM {table} WHERE {key} = ?"
            into = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
            for (value,) in source.read(f"SELECT DISTINCT {key} FROM {table} ORDER BY {key}"):
                connection.executemany(into, source.read(query, value))  # a few rows, because they may contain images


def _readable_rows(damaged: sqlite3.Connection, table: str, size: int) -> Iterator[dict[str, object] | None]:
    """The rows of a table; None for each one that is damaged."""
    if table != "answers":
        try:
            cursor = damaged.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in cursor.description]
            for row in cursor:
                yield dict(zip(names, row, strict=True))
        except sqlite3.Error:
            pass
        return
    try:
        last = int(damaged.execute("SELECT MAX(id) FROM answers").fetchone()[0] or 0)
    except (sqlite3.Error, ValueError, TypeError):
        last = size // _BYTES_PER_ROW
    for row_id in range(1, min(last, size // 10) + 1):
        try:
            cursor = damaged.execute("SELECT * FROM answers WHERE id = ?", (row_id,))
            row = cursor.fetchone()
            if row is not None:
                values = dict(zip([column[0] for column in cursor.description], row, strict=True))
                yield values if _is_answer(values) else None
        except sqlite3.Error as error:
            if "no such table" in str(error) or "not a database" in str(error):
                return
            yield None


def _is_answer(values: dict[str, object]) -> bool:
    try:
        return isinstance(json.loads(str(values["example"])), dict) and isinstance(values["answer_id"], str)
    except (ValueError, KeyError, RecursionError):
        return False


def _copy(connection: sqlite3.Connection, table: str, row: dict[str, object]) -> bool:
    try:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
    except sqlite3.Error:
        return False
    return True


def _deliver_again(path: DatabaseLocation, row_ids: list[int]) -> str:
    with AnswerDatabase.open(path, create=False) as database, database.transaction("cannot mark the answers") as rows:
        rows.executemany("UPDATE answers SET handed_on = 0, batch = NULL WHERE id = ?", [(each,) for each in row_ids])
    return f"{len(row_ids)} answers are delivered when `odkeras annotate` runs"


def _withdrawn(project: Project) -> set[str]:
    return {str(row.get("image_id")) for row in read_jsonl(project.withdrawn_path)}


def _waiting(project: Project) -> Iterator[str]:
    for path in list_batches(project.inbox_dir):
        for answer, _ in read_batch(path):
            yield str((answer or {}).get("image_id"))


def _rejected(project: Project) -> Iterator[str]:
    for row in read_jsonl(project.rejected_path):
        answer = row.get("answer")
        if isinstance(answer, dict):
            yield str(answer.get("image_id"))
