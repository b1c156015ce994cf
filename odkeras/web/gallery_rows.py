"""The gallery's index: a small row for each answer. Reading the answers would be slow, as they may contain images."""

from __future__ import annotations

import functools
import json
import os
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from odkeras.annotation import Span, Task
from odkeras.formats.prodigy import read_task
from odkeras.natural_order import natural_key
from odkeras.web.stored import StoredAnswer, with_places_below

TABLE = """
CREATE TABLE IF NOT EXISTS gallery (
    answer INTEGER PRIMARY KEY,
    dataset TEXT NOT NULL,
    image_id TEXT NOT NULL,
    session TEXT NOT NULL,
    sort_key TEXT NOT NULL,
    file TEXT NOT NULL,
    decision TEXT NOT NULL,
    answered_at REAL NOT NULL,
    labels TEXT NOT NULL,
    lowest_score REAL,
    latest INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS gallery_in_order ON gallery (dataset, sort_key, answer) WHERE latest = 1;
CREATE INDEX IF NOT EXISTS gallery_of_session ON gallery (dataset, session, sort_key, answer);
CREATE INDEX IF NOT EXISTS gallery_of_image ON gallery (dataset, image_id, session);
"""
"""One row for each answer that was not replaced by a later one of its session; `answer` is its id in `answers`.
`latest` is 1 for the latest answer for an image over all sessions."""

_INSERT = f"INSERT INTO gallery VALUES ({', '.join('?' * 11)})"
_MARK_LATEST = (
    "UPDATE gallery SET latest = CASE WHEN answer = (SELECT answer FROM gallery WHERE dataset = ? AND image_id = ? "
    "ORDER BY answered_at DESC, answer DESC LIMIT 1) THEN 1 ELSE 0 END WHERE dataset = ? AND image_id = ?"
)
_SEPARATOR = "\n"


class TaskFacts(NamedTuple):
    """What a row has of the answered task, with its boxes."""

    sort_key: str
    file: str
    labels: str
    lowest_score: float | None

    @classmethod
    def of(cls, task: Task) -> TaskFacts:
        return cls(task_sort_key(task), storable(task.file), joined_labels(task.spans), find_lowest_score(task))

    @classmethod
    def of_answer(cls, answer: StoredAnswer) -> TaskFacts:
        return cls.of(read_task(answer.example, answer.image_id))


def insert_row(
    execute: Callable[..., Any],
    answer: int | None,
    facts: TaskFacts,
    *,
    dataset: str,
    image_id: str,
    session: str,
    decision: str,
    answered_at: float,
    is_only_one: bool = False,
) -> None:
    """Add the row of an answer. Its session has no other row for the image.

    Args:
        execute: the connection's `execute`.
        answer: row id in `answers`.
        facts: of the answered task.
        is_only_one: whether no other session has a row for the image; False also if that is not known.
    """
    row = (facts.sort_key, facts.file, decision, answered_at, facts.labels, facts.lowest_score)
    execute(_INSERT, (answer, dataset, image_id, session, *row, int(is_only_one)))
    if not is_only_one:
        execute(_MARK_LATEST, (dataset, image_id, dataset, image_id))


def fill(connection: sqlite3.Connection, folder: Path) -> None:
    """Create the rows for all answers of a database that was made before the gallery existed.

    Args:
        folder: absolute directory of the database, the base of relative image paths.
    """
    connection.execute("DELETE FROM gallery")
    ids = [row_id for (row_id,) in connection.execute("SELECT id FROM answers WHERE replaced = 0 ORDER BY id")]
    query = "SELECT dataset, image_id, session, decision, answered_at, example FROM answers WHERE id = ?"
    for row_id in ids:  # one at a time, because examples may contain images
        *values, text = connection.execute(query, (row_id,)).fetchone()
        given = dict(zip(("dataset", "image_id", "session", "decision", "answered_at"), values, strict=True))
        task = read_task(with_places_below(folder, json.loads(text)), given["image_id"])
        insert_row(connection.execute, row_id, TaskFacts.of(task), **given)


def task_sort_key(task: Task) -> str:
    """The sort key of a task's image; see `place_key`."""
    file = storable(task.file)
    return place_key(file, task.path) if task.path else natural_key(file)


def place_key(file: str, place: str) -> str:
    """A sort key that keeps the images of a directory together and otherwise sorts by name. Images at different
    locations have different keys, even with equal names.

    Args:
        file: display name of the image.
        place: path or URL.
    """
    if "://" not in place:
        place, name = _absolute(place)
        if storable(name) == file:
            return natural_key(place)
    return f"{natural_key(file)}{_SEPARATOR}{storable(place)}"


def _absolute(place: str) -> tuple[str, str]:
    """`Path(place).absolute()` and its name. An import of 100,000 answers would spend seconds in `Path`."""
    folder, name = os.path.split(place)
    if name in ("", ".", ".."):
        path = Path(place).absolute()
        return str(path), path.name
    return os.path.join(_absolute_folder(folder, os.getcwd()), name), name  # noqa: PTH118, PTH109


@functools.lru_cache(maxsize=64)
def _absolute_folder(folder: str, working_directory: str) -> str:
    return str(Path(working_directory, folder))


def joined_labels(spans: Iterable[Span]) -> str:
    """All labels of the boxes as one string, to be searched with `label_pattern`; "" without labels."""
    labels = sorted({span.label for span in spans})
    return storable("".join(f"{_SEPARATOR}{label}" for label in labels) + _SEPARATOR) if labels else ""


def split_labels(joined: str) -> list[str]:
    """The labels of `joined_labels`."""
    return [label for label in joined.split(_SEPARATOR) if label]


def label_pattern(label: str) -> str:
    """The substring by which `joined_labels` contains exactly this label."""
    return storable(f"{_SEPARATOR}{label}{_SEPARATOR}")


def find_lowest_score(task: Task) -> float | None:
    """The lowest score of all suggested boxes, including deleted ones; without suggestions, of the task's boxes. None
    if no box has a score."""
    suggested = () if task.suggestions is None or task.suggestions.hidden else task.suggestions.spans
    scores = ([span.score for span in spans if span.score is not None] for spans in (suggested, task.spans))
    return min(next(filter(None, scores), []), default=None)


def storable(text: str) -> str:
    """Escape surrogates, which Python uses for bytes that are not UTF-8 and which SQLite cannot store."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
