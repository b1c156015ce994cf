"""The database: a SQLite file in PRODIGY_HOME, usable from any thread."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from prodigy.configuration import prodigy_home
from prodigy.eras import Era, current_era
from prodigy.hashing import INPUT_HASH_ATTR, TASK_HASH_ATTR
from prodigy.wire import check_plain

Task = dict[str, Any]
_TABLES = """
create table if not exists dataset (id integer primary key, name text unique);
create table if not exists example (
    id integer primary key, dataset_id integer references dataset, input_hash integer, task_hash integer, content text
);
"""


class Database:
    """Datasets of examples."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._connection() as connection:
            connection.executescript(_TABLES)

    @property
    def datasets(self) -> list[str]:
        with self._connection() as connection:
            return [name for (name,) in connection.execute("select name from dataset order by id")]

    def __contains__(self, name: str) -> bool:
        return name in self.datasets

    def __len__(self) -> int:
        return len(self.datasets)

    def __bool__(self) -> bool:
        return True

    def get_dataset(self, name: str) -> list[Task] | None:
        """None when there is no such dataset (recalled)."""
        return self._examples(name) if name in self else None

    def add_dataset(self, name: str, meta: dict[str, Any] | None = None) -> None:
        with self._connection() as connection:
            connection.execute("insert or ignore into dataset (name) values (?)", (name,))

    def add_examples(self, examples: Sequence[Task], datasets: Sequence[str] = ()) -> None:
        """Makes datasets that are missing. Examples are added, those of the same hash stay."""
        rows = [_row(example) for example in examples]
        for name in datasets:
            self.add_dataset(name)
            with self._connection() as connection:
                (number,) = connection.execute("select id from dataset where name = ?", (name,)).fetchone()
                connection.executemany(
                    "insert into example (dataset_id, input_hash, task_hash, content) values (?, ?, ?, ?)",
                    [(number, *row) for row in rows],
                )

    def get_input_hashes(self, *names: str) -> set[int]:
        return {example[INPUT_HASH_ATTR] for name in names for example in self._examples(name)}

    def get_task_hashes(self, *names: str) -> set[int]:
        return {example[TASK_HASH_ATTR] for name in names for example in self._examples(name)}

    def drop_dataset(self, name: str) -> None:
        with self._connection() as connection:
            connection.execute(
                "delete from example where dataset_id = (select id from dataset where name = ?)", (name,)
            )
            connection.execute("delete from dataset where name = ?", (name,))

    def _examples(self, name: str) -> list[Task]:
        query = "select content from example join dataset on dataset.id = dataset_id where name = ? order by example.id"
        with self._connection() as connection:
            return [json.loads(content) for (content,) in connection.execute(query, (name,))]

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._lock, closing(sqlite3.connect(self._path, timeout=30)) as connection, connection:
            yield connection


class NewerDatabase(Database):
    """With the name that newer versions have for it."""

    def get_dataset_examples(self, name: str) -> list[Task]:
        return self._examples(name)


def connect(db_id: str | None = None, db_settings: dict[str, Any] | None = None) -> Database:
    """The database of PRODIGY_HOME."""
    if db_id not in (None, "sqlite"):
        raise ValueError(f"this test double has no database {db_id!r}")
    return _sqlite(current_era())


def open_database(component: Any, era: Era) -> Any:
    """What the component `db` asks for: True, the default, is the database of PRODIGY_HOME, False is none."""
    if component is False:
        return None
    if component in (None, True, "sqlite"):
        return _sqlite(era)
    if isinstance(component, str):
        raise ValueError(f"this test double has no database {component!r}")
    return component


def _sqlite(era: Era) -> Database:
    return (NewerDatabase if era.has_stream_class else Database)(prodigy_home() / "prodigy.db")


def _row(example: Task) -> tuple[int, int, str]:
    check_plain(example, "example")
    for key in (INPUT_HASH_ATTR, TASK_HASH_ATTR):
        if key not in example:
            raise ValueError(f"an example without {key} cannot be stored; use set_hashes")
    return example[INPUT_HASH_ATTR], example[TASK_HASH_ATTR], json.dumps(example)
