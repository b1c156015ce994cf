"""Answers in a database, as Prodigy-format JSON. Once `add` returns, the answers survive a power cut.

    with AnswerDatabase.open("annotations.db") as database:
        database.add("shapes", [StoredAnswer(example, image_id, "anna")])
        database.examples("shapes")                    # the last answer of each session about each image

Answers are never deleted: one that a later answer of the same session replaces is kept, with `replaced` set.

The rows are also the outbox for the trainer; see `odkeras.web.deliveries`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from odkeras.annotation import DECISIONS, Answer, EditCounts, Task
from odkeras.database_url import DatabaseLocation, DatabaseUrl, read_database_location
from odkeras.errors import DatabaseError, SetupError
from odkeras.formats.prodigy import Record, read_answer, read_task, write_task
from odkeras.web import gallery_rows
from odkeras.web.engine import Connection, Engine
from odkeras.web.sqlite_engine import SqliteEngine
from odkeras.web.stored import (
    COLUMNS,
    HistoryEntry,
    StoredAnswer,
    VersionEdits,
    to_json,
    to_row,
    with_places_below,
)

_INSERT = (
    f"INSERT INTO answers ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) "
    "ON CONFLICT (dataset, answer_id) DO NOTHING"
)
_KEEP_OPEN = (
    "INSERT INTO open_tasks VALUES (?, ?, ?) ON CONFLICT (dataset, image_id) DO UPDATE SET task = excluded.task"
)
_KEEP_LABEL_MAP = (
    "INSERT INTO label_maps VALUES (?, ?, ?) "
    "ON CONFLICT (dataset) DO UPDATE SET path = excluded.path, pbtxt = excluded.pbtxt"
)


class AnswerDatabase:
    """The answers of any number of datasets. Thread-safe; several processes may use the same database.

    Create it with `open`, and use it as a context manager or call `close`, which is idempotent.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def path(self) -> DatabaseLocation:
        """The file or the URL."""
        return self.engine.place

    @classmethod
    def open(cls, place: DatabaseLocation | str, *, create: bool = True) -> AnswerDatabase:
        """Open the database; create the file, or the tables in PostgreSQL, if they do not exist.

        Raises:
            DatabaseError: it is not an odkeras database, is not accessible or (with `create=False`) is missing.
            SetupError: the packages for PostgreSQL are not installed.
        """
        path = read_database_location(place) if isinstance(place, str) else place
        if isinstance(path, DatabaseUrl):
            return cls(_open_postgres(path, create=create))
        if not create and not path.is_file():
            raise DatabaseError(f"{path}: no such database; `odkeras annotate` creates one, --db selects another")
        return cls(SqliteEngine(path))

    def __enter__(self) -> AnswerDatabase:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.engine.close()

    def add(
        self, dataset: str, answers: Sequence[StoredAnswer], *, closed: Iterable[str] = (), shared: bool = False
    ) -> list[StoredAnswer]:
        """Store answers durably in one transaction. Returns the new ones that are their session's latest answer for the
        image. Idempotent: an answer whose `answer_id` is already stored is skipped.

        Args:
            closed: ids of images whose open tasks are deleted; the answer has all that is needed from now on.
            shared: return only answers that are the latest of all sessions. The others are marked as delivered, so that
                the trainer never gets them.

        Raises:
            DatabaseError: the disk is full or the database cannot be written; nothing was stored.
            ValueError: an example is not JSON, or a decision is unknown.
        """
        rows = [(answer, to_json(answer), gallery_rows.TaskFacts.of_answer(answer)) for answer in answers]
        with self.transaction(f"cannot store {len(answers)} answers") as connection:
            last_words = [row[0] for row in rows if self._insert(connection, dataset, *row, shared=shared)]
            connection.executemany(
                "DELETE FROM open_tasks WHERE dataset = ? AND image_id = ?", [(dataset, image) for image in closed]
            )
            stored = [(answer.session, answer.image_id) for answer in answers]
            connection.notify({"kind": "answers", "dataset": dataset, "answers": stored})
            return last_words

    def add_all(self, dataset: str, answers: Iterable[tuple[StoredAnswer, str, gallery_rows.TaskFacts]]) -> int:
        """Store any number of answers in one transaction: all, or after an exception none. They are taken one at a
        time. Returns the number of new ones; see `add`.

        Args:
            answers: each with its `stored.to_json`, and the facts of its task.

        Raises: as `add`.
        """
        with self.transaction("cannot store the answers") as connection:
            connection.expect_many()
            with connection.counted_later(dataset):
                number = sum(self._insert(connection, dataset, *row) is not None for row in answers)
            connection.notify({"kind": "much", "dataset": dataset})
            return number

    def _insert(
        self,
        connection: Connection,
        dataset: str,
        answer: StoredAnswer,
        text: str,
        facts: gallery_rows.TaskFacts,
        *,
        shared: bool = False,
    ) -> bool | None:
        """Returns whether the answer is the latest one, as `add` returns it; None if it is stored already."""
        execute = connection.execute
        query = "SELECT id, session, answered_at FROM answers WHERE dataset = ? AND image_id = ? AND replaced = 0"
        of_image = execute(query, (dataset, answer.image_id)).fetchall()
        earlier = [(row_id, at) for row_id, session, at in of_image if session == answer.session]
        replaced = any(at > answer.answered_at for _, at in earlier)
        inserted = connection.insert(_INSERT, to_row(dataset, answer, text, replaced))
        if inserted is None or replaced:
            return None if inserted is None else False
        for row_id, _ in earlier:
            execute("UPDATE answers SET replaced = 1 WHERE id = ?", (row_id,))
            execute("DELETE FROM gallery WHERE answer = ?", (row_id,))
        gallery_rows.insert_row(
            execute,
            inserted,
            facts,
            dataset=dataset,
            image_id=answer.image_id,
            session=answer.session,
            decision=answer.decision,
            answered_at=answer.answered_at,
            is_only_one=not of_image,
        )
        if not shared or execute("SELECT 1 FROM gallery WHERE answer = ? AND latest = 1", (inserted,)).fetchone():
            return True
        # Another session has a later answer for the image.
        execute("UPDATE answers SET handed_on = 1 WHERE id = ?", (inserted,))
        return False

    def image_of_answer(self, dataset: str, answer_id: str) -> str | None:
        """The image that the answer with this id is about; None if there is no such answer."""
        query = "SELECT image_id FROM answers WHERE dataset = ? AND answer_id = ?"
        rows = self.read(query, dataset, answer_id)
        return str(rows[0][0]) if rows else None

    def keep_open(self, dataset: str, tasks: Sequence[Task]) -> None:
        """Store leased tasks, because their answers may arrive after a restart.

        Raises:
            DatabaseError: the database cannot be written.
        """
        rows = [(dataset, task.image_id, json.dumps(write_task(task))) for task in tasks]
        with self.transaction("cannot store the assignments") as connection:
            connection.executemany(_KEEP_OPEN, rows)

    def keep_label_map(self, dataset: str, path: Path, pbtxt: str) -> None:
        """Store the label map that a dataset is annotated with.

        Raises:
            DatabaseError: the database cannot be written.
        """
        with self.transaction("cannot store the label map") as connection:
            connection.execute(_KEEP_LABEL_MAP, (dataset, str(path.absolute()), pbtxt))

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets that have answers."""
        return [name for (name,) in self.read("SELECT DISTINCT dataset FROM answers ORDER BY dataset")]

    def __contains__(self, dataset: object) -> bool:
        return bool(self.read("SELECT 1 FROM answers WHERE dataset = ? LIMIT 1", dataset))

    def iter_examples(
        self, dataset: str, *, decision: str | None = None, replaced: bool = False
    ) -> Iterator[tuple[str, Record]]:
        """(image_id, example) of each session's latest answer for each image, in the order in which they were given.

        Args:
            decision: accept, reject or ignore; all when None.
            replaced: include answers that were replaced by later ones.
        """
        wanted = ["dataset = ?", *([] if replaced else ["replaced = 0"]), *(["decision = ?"] if decision else [])]
        query = f"SELECT id FROM answers WHERE {' AND '.join(wanted)} ORDER BY answered_at, id"
        yield from self._read_each(query, dataset, *([decision] if decision else []))

    def iter_latest(self, dataset: str, *, decision: str | None = None) -> Iterator[tuple[str, Record]]:
        """(image_id, example) of the latest answer for each image over all sessions, in the order in which they were
        given.

        Args:
            decision: only images whose latest answer is this one; all when None.
        """
        later = (
            "SELECT 1 FROM answers AS later WHERE later.dataset = answers.dataset "
            "AND later.image_id = answers.image_id AND later.replaced = 0 "
            "AND (later.answered_at, later.id) > (answers.answered_at, answers.id)"
        )
        wanted = f"dataset = ? AND replaced = 0{' AND decision = ?' if decision else ''} AND NOT EXISTS ({later})"
        query = f"SELECT id FROM answers WHERE {wanted} ORDER BY answered_at, id"
        yield from self._read_each(query, dataset, *([decision] if decision else []))

    def examples(self, dataset: str, *, decision: str | None = None, replaced: bool = False) -> list[Record]:
        """The examples of `iter_examples`, as a list."""
        return [example for _, example in self.iter_examples(dataset, decision=decision, replaced=replaced)]

    def examples_of_image(self, dataset: str, image_id: str) -> list[Record]:
        """The examples of all answers about an image, including those that were replaced by later ones."""
        query = "SELECT example FROM answers WHERE dataset = ? AND image_id = ?"
        return [self.load(text) for (text,) in self.read(query, dataset, image_id)]

    def answer(self, dataset: str, session: str, image_id: str) -> Answer | None:
        """A session's latest answer for an image; None if there is none."""
        query = "SELECT example FROM answers WHERE dataset = ? AND session = ? AND image_id = ? AND replaced = 0"
        rows = self.read(query, dataset, session, image_id)
        return read_answer(self.load(rows[0][0]), image_id) if rows else None

    def answered_at(self, dataset: str, session: str, image_id: str) -> float | None:
        """Time of a session's latest answer for an image, in seconds since the epoch; None if there is none."""
        query = "SELECT answered_at FROM answers WHERE dataset = ? AND image_id = ? AND session = ? AND replaced = 0"
        rows = self.read(query, dataset, image_id, session)
        return float(rows[0][0]) if rows else None

    def active_s(self, dataset: str, image_id: str, session: str | None = None) -> float | None:
        """Seconds of work on an image until the latest answer of a session, or of any session when None; 0 if there is
        no answer, None if they were not measured."""
        query = "SELECT active_s FROM answers WHERE dataset = ? AND image_id = ? AND replaced = 0"
        query, values = (query, ()) if session is None else (f"{query} AND session = ?", (session,))
        rows = self.read(f"{query} ORDER BY answered_at DESC, id DESC LIMIT 1", dataset, image_id, *values)
        return rows[0][0] if rows else 0.0

    def label_map(self, dataset: str) -> tuple[Path, str] | None:
        """Path and text (pbtxt) of the label map last used for a dataset; None if none is stored."""
        rows = self.read("SELECT path, pbtxt FROM label_maps WHERE dataset = ?", dataset)
        return (Path(rows[0][0]), rows[0][1]) if rows else None

    def open_task(self, dataset: str, image_id: str) -> Task | None:
        """A stored open task, possibly of an earlier run; None if there is none."""
        rows = self.read("SELECT task FROM open_tasks WHERE dataset = ? AND image_id = ?", dataset, image_id)
        return read_task(self.load(rows[0][0])) if rows else None

    def any_answer(self, dataset: str, image_id: str) -> Answer | None:
        """The latest answer for an image over all sessions; None if there is none."""
        query = (
            "SELECT example FROM answers WHERE dataset = ? AND image_id = ? AND replaced = 0 "
            "ORDER BY answered_at DESC, id DESC LIMIT 1"
        )
        rows = self.read(query, dataset, image_id)
        return read_answer(self.load(rows[0][0]), image_id) if rows else None

    def answered(self, dataset: str, *, session: str | None = None, not_by: str | None = None) -> set[str]:
        """Ids of the images answered by one session, or by any session when None, except for one."""
        query, values = "SELECT DISTINCT image_id FROM gallery WHERE dataset = ?", [dataset]  # an index has all of it
        if session is not None:
            query, values = f"{query} AND session = ?", [*values, session]
        if not_by is not None:
            query, values = f"{query} AND session != ?", [*values, not_by]
        return {image_id for (image_id,) in self.read(query, *values)}

    def files(self, dataset: str) -> set[str]:
        """Names and paths of the answered files."""
        names: set[str] = set()
        rows = self.read("SELECT answer, file, sort_key FROM gallery WHERE dataset = ?", dataset)
        for row_id, file, sort_key in rows:
            names.add(file)
            if not sort_key.endswith(f"/{file}"):  # else the name is the path's; parsing all answers takes seconds
                paths = self.read("SELECT json_extract(example, '$.path') FROM answers WHERE id = ?", row_id)
                names.update(path for (path,) in paths if isinstance(path, str))
        return {*names, *(re.split(r"[/\\]", name)[-1] for name in names)}

    def counts(self, dataset: str) -> dict[str, dict[str, int]]:
        """Number of images that each session accepted, rejected and ignored: {session: {decision: number}}."""
        query = "SELECT session, decision, images FROM decision_counts WHERE dataset = ? AND images > 0"
        counts: dict[str, dict[str, int]] = {}
        for session, decision, number in self.read(query, dataset):
            counts.setdefault(session, dict.fromkeys(DECISIONS, 0))[decision] = number
        return counts

    def period(self, dataset: str) -> tuple[float, float] | None:
        """Times of the first and the last answer, in seconds since the epoch; None without answers."""
        first, last = self.read("SELECT MIN(answered_at), MAX(answered_at) FROM answers WHERE dataset = ?", dataset)[0]
        return None if first is None else (first, last)

    def history(self, dataset: str, session: str, limit: int = 20) -> list[HistoryEntry]:
        """A session's latest answers, newest first."""
        query = (
            "SELECT image_id, json_extract(example, '$.meta.file'), decision, boxes, answered_at, handed_on "
            "FROM answers WHERE dataset = ? AND session = ? AND replaced = 0 ORDER BY answered_at DESC, id DESC LIMIT ?"
        )
        rows = self.read(query, dataset, session, limit)
        return [
            HistoryEntry(image_id, str(file or image_id), decision, boxes, answered_at, bool(handed_on))
            for image_id, file, decision, boxes, answered_at, handed_on in rows
        ]

    def version_edits(self, dataset: str) -> list[VersionEdits]:
        """Edit counts of the suggestions of each model version, oldest version first."""
        query = (
            "SELECT version, images, kept, kept_80, moved, relabelled, deleted, added, picked FROM version_counts "
            "WHERE dataset = ? AND images > 0 ORDER BY version"
        )
        return [
            VersionEdits(version, images, EditCounts(*counts)) for version, images, *counts in self.read(query, dataset)
        ]

    def _read_each(self, query: str, *values: Any) -> Iterator[tuple[str, Record]]:
        """(image_id, example) of the rows whose ids `query` selects, in this order. Loads few rows at a time, because
        examples may contain images."""
        ids = [row_id for (row_id,) in self.read(query, *values)]
        for start in range(0, len(ids), self.engine.rows_together):
            some = ids[start : start + self.engine.rows_together]
            marks = ", ".join("?" * len(some))
            rows = self.read(f"SELECT id, image_id, example FROM answers WHERE id IN ({marks})", *some)
            found = {row_id: (image_id, text) for row_id, image_id, text in rows}
            for row_id in some:
                if row_id in found:
                    image_id, text = found[row_id]
                    yield image_id, self.load(text)

    def load(self, text: str) -> Record:
        """The example of a row; see `with_places_below`."""
        example: Record = json.loads(text)
        return with_places_below(self.engine.folder, example)

    def read(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows that a query returns.

        Raises:
            DatabaseError: the database cannot be read.
        """
        return self.engine.read(query, values)

    def snapshot(self) -> AbstractContextManager[None]:
        """A `with` block in which all reads see the same answers, also while other processes add new ones.

        Raises:
            DatabaseError: the database cannot be read.
        """
        return self.engine.snapshot()

    def transaction(self, failed: str) -> AbstractContextManager[Connection]:
        """A transaction as a `with` block, committed at its end and rolled back after an exception. Only one process
        writes at a time.

        Args:
            failed: start of the error message: what could not be done.

        Raises:
            DatabaseError: the database cannot be written, or its file was replaced.
        """
        return self.engine.transaction(failed)


def _open_postgres(url: DatabaseUrl, *, create: bool) -> Engine:
    try:
        from odkeras.web.postgres.engine import PostgresEngine
    except ImportError as error:
        raise SetupError(
            f"{url}: needs SQLAlchemy, psycopg and Alembic; install them with: pip install 'odkeras[postgres]'"
        ) from error
    return PostgresEngine(url, create=create)
