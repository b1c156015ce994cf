"""All images in natural order, page by page: answered ones from the database, unanswered ones from the source.

The database has a small row for each answer (`gallery_rows`). The source is listed once, when the gallery is first
opened, into a temporary table: names only, no images. Each page is one query over both tables.

The gallery has its own database connection, so that it never blocks the storing of answers.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from odkeras.annotation import Task
from odkeras.errors import DatabaseError
from odkeras.formats.prodigy import read_task
from odkeras.session.sources import Item
from odkeras.session.stream import TaskStream
from odkeras.web.engine import Connection, Engine
from odkeras.web.gallery_rows import (
    find_lowest_score,
    joined_labels,
    label_pattern,
    place_key,
    storable,
    task_sort_key,
)
from odkeras.web.requests import GalleryFilter

MAX_BOXES = 60
_MAX_RECORD_CHARACTERS = 64 * 1024
"""Larger records contain an image. They are not kept in memory and appear once the stream has reached them."""


@dataclass(frozen=True)
class GalleryEntry:
    """A row of a page.

    Args:
        key: the gallery's key of the image: its image id, or a digest of its location if it has not been read yet.
        answer: row id of the answer in the database; None for an unanswered image.
    """

    key: str
    image_id: str | None
    file: str
    decision: str | None
    session: str | None
    answer: int | None
    lowest_score: float | None


class Gallery:
    """The list of all images. Thread-safe. Call `close` at the end.

    Args:
        engine: of the answer database.
        stream: the task stream, whose source is listed.
        overlap: every session annotates every image, and its gallery shows only its own answers.
        exclude: other datasets; images answered in one of them are listed only if they are answered here too.
    """

    def __init__(
        self,
        engine: Engine,
        dataset: str,
        stream: TaskStream,
        *,
        overlap: bool = False,
        exclude: Collection[str] = (),
    ) -> None:
        self._engine = engine
        self.dataset = dataset
        self.stream = stream
        self.overlap = overlap
        self._exclude = sorted({*exclude} - {dataset})
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._items: dict[str, Item] = {}
        self._keys: dict[str, str] = {}  # fingerprint -> key
        self._noted = 0
        self._unlisted = 0

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    @property
    def missing(self) -> str:
        """Why images may be missing from the list; "" if it is complete."""
        stream = self.stream
        if stream.is_large_file:
            return "The source is too large to list at once: images appear here when they are queued."
        if stream.total is None:
            return "The source is a stream: only images that have been read are listed."
        if self._unlisted == 1:
            return "1 image is embedded in the source file: it appears here when it is queued."
        if self._unlisted:
            return f"{self._unlisted} images are embedded in the source file: they appear here when they are queued."
        return ""

    def page(
        self, wanted: GalleryFilter, session: str, open_tasks: Sequence[Task], offset: int, limit: int
    ) -> tuple[int, list[GalleryEntry]]:
        """The total number of matching images, and up to `limit` of them from `offset` on.

        Args:
            session: the session that asks; decides which answers are shown if there is overlap.
            open_tasks: leased tasks: their suggestions are known and, if the source is a stream, their names.

        Raises:
            DatabaseError: the database cannot be read.
        """
        query, values = _build_query(
            wanted, self.dataset, session, self._engine.contains, overlap=self.overlap, exclude=self._exclude
        )
        with self._lock:
            try:
                connection = self._opened()
                self._note_ids(connection)
                self._note_tasks(connection, open_tasks)
                (total,) = connection.execute(f"SELECT COUNT(*) FROM ({query}) AS listed", values).fetchone()
                rows = connection.execute(
                    f"{query} ORDER BY sort_key, answer LIMIT ? OFFSET ?", (*values, limit, offset)
                ).fetchall()
            except self._engine.errors as error:
                raise self._failed(error) from error
        return total, [GalleryEntry(*row[1:]) for row in rows]

    def examples(self, entries: Sequence[GalleryEntry]) -> dict[int, Task]:
        """The answers of the given entries, keyed by their row id in the database."""
        ids = [entry.answer for entry in entries if entry.answer is not None]
        query = "SELECT example FROM answers WHERE id = ?"
        with self._lock:
            try:
                connection = self._opened()
                rows = {row_id: connection.execute(query, (row_id,)).fetchone() for row_id in ids}
            except self._engine.errors as error:
                raise self._failed(error) from error
        return {row_id: read_task(json.loads(row[0])) for row_id, row in rows.items() if row is not None}

    def item(self, key: str) -> Item | None:
        """The source item behind an entry's key; None if the source has no such item."""
        with self._lock:
            self._opened()
            return self._items.get(key)

    def excluded_by(self, image_id: str) -> str | None:
        """Name of an excluded dataset that has an answer for the image; None if there is none."""
        query = f"SELECT dataset FROM gallery WHERE dataset IN ({_marks(self._exclude)}) AND image_id = ? LIMIT 1"
        with self._lock:
            try:
                row = self._opened().execute(query, (*self._exclude, image_id)).fetchone()
            except self._engine.errors as error:
                raise self._failed(error) from error
        return None if row is None else str(row[0])

    def _opened(self) -> Connection:
        if self._connection is None:
            connection = self._engine.connect()
            try:
                for statement in self._engine.source_table:
                    connection.execute(statement)
                self._read_source(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _failed(self, error: Exception) -> DatabaseError:
        if self._connection is not None and self._connection.is_lost:
            self._connection = None  # the next call lists the source again
        return DatabaseError(f"{self._engine.place}: cannot be read: {error}")

    def _read_source(self, connection: Connection) -> None:
        stream = self.stream
        self._noted = len(stream.reader.ids.noted_after(0))
        self._items, self._keys, self._unlisted, rows = {}, {}, 0, []
        for item in stream.items():
            if _is_large(item):
                self._unlisted += 1
                continue
            fingerprint = item.fingerprint
            if fingerprint is None:
                continue  # the file does not exist
            key = _fingerprint_key(fingerprint)
            self._items[key] = item
            self._keys[fingerprint] = key
            rows.append(
                (key, stream.reader.ids.id_of(fingerprint), storable(item.file), _item_sort_key(item, fingerprint))
            )
        connection.execute("BEGIN")
        insert = "INSERT INTO source (key, image_id, file, sort_key) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
        connection.executemany(insert, rows)
        connection.execute("COMMIT")

    def _note_ids(self, connection: Connection) -> None:
        """Store the ids of images that were read since the last call."""
        noted = self.stream.reader.ids.noted_after(self._noted)
        self._noted += len(noted)
        updates = [(image_id, self._keys[fingerprint]) for fingerprint, image_id in noted if fingerprint in self._keys]
        if updates:
            connection.executemany("UPDATE source SET image_id = ? WHERE key = ?", updates)

    def _note_tasks(self, connection: Connection, tasks: Sequence[Task]) -> None:
        for task in tasks:
            facts = (joined_labels(task.spans), find_lowest_score(task))
            update = "UPDATE source SET labels = ?, lowest_score = ? WHERE image_id = ?"
            if not connection.execute(update, (*facts, task.image_id)).rowcount:
                row = (task.image_id, task.image_id, storable(task.file), task_sort_key(task), *facts)
                connection.execute("INSERT INTO source VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)


def _is_large(item: Item) -> bool:
    image = (item.record or {}).get("image")
    return isinstance(image, str) and len(image) > _MAX_RECORD_CHARACTERS


def _fingerprint_key(fingerprint: str) -> str:
    """A digest in the form of an image id. It changes when the file changes."""
    return hashlib.sha256(fingerprint.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def _item_sort_key(item: Item, fingerprint: str) -> str:
    place = item.file_path or item.url or fingerprint
    return place_key(storable(item.file), str(place))


def _build_query(
    wanted: GalleryFilter, dataset: str, session: str, contains: str, *, overlap: bool, exclude: Sequence[str]
) -> tuple[str, list[Any]]:
    """Build the query for the gallery's rows (sort_key and the fields of GalleryEntry), and its parameters."""
    parts: list[str] = []
    values: list[Any] = []
    facts, fact_values = _facts(wanted, contains)
    own = wanted.annotator or (session if overlap else "")
    if wanted.state != "unanswered":
        conditions = ["dataset = ?", *(["session = ?"] if own else ["latest = 1"])]
        conditions += [*(["decision = ?"] if wanted.decision else []), *facts]
        columns = "sort_key, image_id AS key, image_id, file, decision, session, answer, lowest_score"
        parts.append(f"SELECT {columns} FROM gallery WHERE {' AND '.join(conditions)}")
        values += [dataset, *([own] if own else []), *([wanted.decision] if wanted.decision else []), *fact_values]
    if wanted.state != "answered" and not wanted.decision and not wanted.annotator:
        unanswered, here = _unanswered(dataset, session if overlap else None, exclude)
        columns = "sort_key, key, image_id, file, NULL AS decision, NULL AS session, NULL AS answer, lowest_score"
        parts.append(f"SELECT {columns} FROM source WHERE {' AND '.join([*unanswered, *facts])}")
        values += [*here, *fact_values]
    empty = "SELECT NULL AS sort_key, NULL, NULL, NULL, NULL, NULL, NULL AS answer, NULL WHERE 1 = 0"
    return " UNION ALL ".join(parts) or empty, values


def _unanswered(dataset: str, session: str | None, exclude: Sequence[str]) -> tuple[list[str], list[Any]]:
    """SQL conditions for unanswered source images, and their parameters. An image is unanswered if no session (or, if
    given, not this session) has answered it and no excluded dataset has an answer."""
    excluded = f"gallery.dataset IN ({_marks(exclude)})"
    of_image = "gallery.dataset = ?" + (" AND gallery.session = ?" if session is not None else "")
    at_place = of_image + (" AND gallery.latest = 1" if session is None else "")
    same_image, same_place = "gallery.image_id = source.image_id", "gallery.sort_key = source.sort_key"
    conditions = [
        f"NOT EXISTS (SELECT 1 FROM gallery WHERE {of_image} AND {same_image})",
        f"NOT EXISTS (SELECT 1 FROM gallery WHERE {excluded} AND {same_image})",
        # If the image has never been read, its id is unknown; an answer for the same location counts instead.
        f"(image_id IS NOT NULL OR NOT EXISTS (SELECT 1 FROM gallery WHERE {at_place} AND {same_place}))",
        f"(image_id IS NOT NULL OR NOT EXISTS (SELECT 1 FROM gallery WHERE {excluded} AND gallery.latest = 1 "
        f"AND {same_place}))",
    ]
    here = [dataset, *([session] if session is not None else [])]
    return conditions, [*here, *exclude, *here, *exclude]


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values)) or "NULL"


def _facts(wanted: GalleryFilter, contains: str) -> tuple[list[str], list[Any]]:
    """SQL conditions on the columns that both tables have, and their parameters."""
    conditions: list[str] = []
    values: list[Any] = []
    if wanted.label:
        conditions.append("instr(labels, ?) > 0")
        values.append(label_pattern(wanted.label))
    if wanted.name:
        conditions.append(f"file {contains} ? ESCAPE '\\'")
        values.append(f"%{_escaped(storable(wanted.name))}%")
    for operator, bound in ((">=", wanted.min_score), ("<=", wanted.max_score)):
        if bound is not None:
            conditions.append(f"lowest_score {operator} ?")
            values.append(bound)
    return conditions, values


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
