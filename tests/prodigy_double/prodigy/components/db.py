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
from prodigy.eras import current_era
from prodigy.hashing import INPUT_HASH_ATTR, TASK_HASH_ATTR
from prodigy.wire import check_plain

Task = dict[str, Any]
_TABLES = """
create table if not exists dataset (name text unique);
create table if not exists example (dataset text, content text);
"""


class Database:
    """Datasets of examples."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._connection() as connection:
            connection.executescript(_TABLES)
        if current_era().has_stream_class:
            self.get_dataset_examples = self._examples  # the newer name
            self.iter_dataset_examples = self._iterate

    @property
    def datasets(self) -> list[str]:
        with self._connection() as connection:
            return [name for (name,) in connection.execute("select name from dataset order by rowid")]

    def __contains__(self, name: str) -> bool:
        return name in self.datasets

    def get_dataset(self, name: str) -> list[Task] | None:
        """None when there is no such dataset (recalled)."""
        return self._examples(name) if name in self else None

    def add_dataset(self, name: str, meta: dict[str, Any] | None = None) -> None:
        with self._connection() as connection:
            connection.execute("insert or ignore into dataset (name) values (?)", (name,))

    def add_examples(self, examples: Sequence[Task], datasets: Sequence[str] = ()) -> None:
        """Makes datasets that are missing. Examples are added, those of the same hash stay."""
        for example in examples:
            check_plain(example, "example")
            if INPUT_HASH_ATTR not in example or TASK_HASH_ATTR not in example:
                raise ValueError("an example without hashes cannot be stored; use set_hashes")
        for name in datasets:
            self.add_dataset(name)
            with self._connection() as connection:
                rows = [(name, json.dumps(example)) for example in examples]
                connection.executemany("insert into example (dataset, content) values (?, ?)", rows)

    def get_input_hashes(self, *names: str) -> set[int]:
        return {example[INPUT_HASH_ATTR] for name in names for example in self._examples(name)}

    def get_task_hashes(self, *names: str) -> set[int]:
        return {example[TASK_HASH_ATTR] for name in names for example in self._examples(name)}

    def _examples(self, name: str) -> list[Task]:
        with self._connection() as connection:
            rows = connection.execute("select content from example where dataset = ? order by rowid", (name,))
            return [json.loads(content) for (content,) in rows]

    def _iterate(self, name: str) -> Iterator[Task]:
        with self._connection() as connection:
            rows = connection.execute("select content from example where dataset = ? order by rowid", (name,))
            for (content,) in rows:
                yield json.loads(content)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._lock, closing(sqlite3.connect(self._path, timeout=30)) as connection, connection:
            yield connection


def connect() -> Database:
    """The database of PRODIGY_HOME."""
    return Database(prodigy_home() / "prodigy.db")
