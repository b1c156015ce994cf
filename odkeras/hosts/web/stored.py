"""What the database holds: answers, and what is asked about them."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from odkeras.annotation import DECISIONS, EditCounts
from odkeras.formats.prodigy import Task


@dataclass(frozen=True)
class StoredAnswer:
    """An answer on its way into the database.

    Args:
        example: the task with `answer` and `spans`, plain JSON.
        image_id: what tells images apart.
        session: who answered.
        answered_at: seconds since the epoch.
        answer_id: tells one act of answering from another: the same one is stored once.
        version: the model that made the suggestions, None if there were none.
        edits: what the person did with them; None if that is not known.
        handed_on: whether the trainer has it already.
    """

    example: Task
    image_id: str
    session: str
    answered_at: float = field(default_factory=time.time)
    answer_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    version: int | None = None
    edits: EditCounts | None = None
    handed_on: bool = False

    @property
    def decision(self) -> str:
        return str(self.example.get("answer"))


@dataclass(frozen=True)
class HistoryEntry:
    """A row of a session's history."""

    image_id: str
    file: str
    decision: str
    boxes: int
    answered_at: float
    handed_on: bool


@dataclass(frozen=True)
class VersionEdits:
    """What people did with the suggestions of one model version, on accepted images."""

    version: int
    images: int
    edits: EditCounts

    @property
    def counts(self) -> dict[str, int]:
        """Boxes by what became of them. The database does not know `kept_70`."""
        return {name: count for name, count in self.edits.to_json().items() if name != "kept_70"}


def input_hash_of(image_id: str) -> int:
    """A whole number that tells images apart, 60 bits of the id: what Prodigy calls an input hash."""
    try:
        return int(image_id[:15], 16)
    except ValueError:  # an id that somebody else gave
        return int(uuid.uuid5(uuid.NAMESPACE_OID, image_id).hex[:15], 16)


# The columns kept their first names: "moved" holds the boxes that were adjusted.
COLUMNS = (
    *("answer_id", "dataset", "session", "image_id", "input_hash", "decision", "answered_at", "replaced", "handed_on"),
    *("boxes", "version", "kept", "moved", "relabelled", "deleted", "added", "example"),
)


def row_of(dataset: str, answer: StoredAnswer, text: str, replaced: bool) -> tuple[Any, ...]:
    edits = answer.edits
    counts = (edits.kept, edits.adjusted, edits.relabelled, edits.deleted, edits.added) if edits else (None,) * 5
    spans = answer.example.get("spans")
    return (
        answer.answer_id,
        dataset,
        answer.session,
        answer.image_id,
        input_hash_of(answer.image_id),
        answer.decision,
        answer.answered_at,
        int(replaced),
        int(answer.handed_on),
        len(spans) if isinstance(spans, list) else 0,
        answer.version,
        *counts,
        text,
    )


def to_json(answer: StoredAnswer) -> str:
    if answer.decision not in DECISIONS:
        raise ValueError(f"answer must be one of {', '.join(DECISIONS)}; got {answer.decision!r}")
    text = json.dumps(answer.example, ensure_ascii=False, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # the name of a file that is not UTF-8
        return json.dumps(answer.example, allow_nan=False)
    return text


def with_places_below(folder: Path, example: Task) -> Task:
    """A stored example. Relative paths of images, as earlier versions stored them, start where the database is: it was
    in the working directory. They become absolute where that is another one now.

    Args:
        folder: of the database, absolute.
    """
    if folder == Path.cwd():
        return example
    places = {key: value for key in ("image", "path") if isinstance(value := example.get(key), str)}
    found = {key: str(file) for key, value in places.items() if (file := _file_below(folder, value))}
    return {**example, **found}


def _file_below(folder: Path, place: str) -> Path | None:
    """The file that a relative path leads to; None if it is no such path, or nothing is there."""
    if not place or place.startswith(("data:", "http://", "https://", "file:")) or Path(place).is_absolute():
        return None
    try:
        file = folder / place
        return file if file.is_file() else None
    except (OSError, ValueError):  # too long, or with a NUL
        return None
