"""The values that the answer database stores and returns."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from odkeras.annotation import DECISIONS, EditCounts
from odkeras.formats.prodigy import Record
from odkeras.json_text import encode_json


@dataclass(frozen=True)
class StoredAnswer:
    """An answer to be stored.

    Args:
        example: the task with `answer` and `spans`, plain JSON.
        image_id: identifies the image.
        session: who answered.
        answered_at: seconds since the epoch.
        answer_id: identifies the act of answering; storing the same id again has no effect.
        version: the model version that made the suggestions; None without suggestions.
        edits: edit counts of the suggestions; None if unknown.
        delivered: whether the trainer already has the answer.
        active_s: as in `annotation.Answer`.
    """

    example: Record
    image_id: str
    session: str
    answered_at: float = field(default_factory=time.time)
    answer_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    version: int | None = None
    edits: EditCounts | None = None
    delivered: bool = False
    active_s: float | None = None

    @property
    def decision(self) -> str:
        return str(self.example.get("answer"))


@dataclass(frozen=True)
class PendingAnswer:
    """An answer that the trainer does not have yet.

    Args:
        batch: name of the batch in which it was to be delivered when the process was killed; None if it was in none.
    """

    answer_id: str
    session: str
    image_id: str
    batch: str | None


@dataclass(frozen=True)
class HistoryEntry:
    """A row of a session's history."""

    image_id: str
    file: str
    decision: str
    boxes: int
    answered_at: float
    delivered: bool


@dataclass(frozen=True)
class VersionEdits:
    """Edit counts of one model version's suggestions, over accepted images."""

    version: int
    images: int
    edits: EditCounts


def hash_image_id(image_id: str) -> int:
    """Prodigy's input hash for an image: an integer made of the first 60 bits of its id."""
    try:
        return int(image_id[:15], 16)
    except ValueError:  # not one of our ids
        return int(uuid.uuid5(uuid.NAMESPACE_OID, image_id).hex[:15], 16)


# The columns keep their original names: "moved" holds the number of adjusted boxes.
COLUMNS = (
    *("answer_id", "dataset", "session", "image_id", "input_hash", "decision", "answered_at", "replaced", "handed_on"),
    *("boxes", "version", "kept", "moved", "relabelled", "deleted", "added", "kept_80", "picked"),
    *("active_s", "example"),
)


def to_row(dataset: str, answer: StoredAnswer, text: str, replaced: bool) -> tuple[Any, ...]:
    edits = answer.edits
    counts: tuple[int | None, ...] = (None,) * 7
    if edits is not None:
        counts = (edits.kept, edits.adjusted, edits.relabelled, edits.deleted, edits.added, edits.kept_80, edits.picked)
    spans = answer.example.get("spans")
    return (
        answer.answer_id,
        dataset,
        answer.session,
        answer.image_id,
        hash_image_id(answer.image_id),
        answer.decision,
        answer.answered_at,
        int(replaced),
        int(answer.delivered),
        len(spans) if isinstance(spans, list) else 0,
        answer.version,
        *counts,
        answer.active_s,
        text,
    )


def to_json(answer: StoredAnswer) -> str:
    if answer.decision not in DECISIONS:
        raise ValueError(f"answer must be one of {', '.join(DECISIONS)}; got {answer.decision!r}")
    return encode_json(answer.example)


def with_places_below(folder: Path, example: Record) -> Record:
    """Make the relative image paths of a stored example absolute if they exist below the database's directory. Earlier
    versions stored paths relative to the working directory, which also held the database. Nothing changes if that still
    is the working directory.

    Args:
        folder: absolute directory of the database.
    """
    if folder == Path.cwd():
        return example
    places = {key: value for key in ("image", "path") if isinstance(value := example.get(key), str)}
    paths = {key: str(file) for key, value in places.items() if (file := _file_below(folder, value))}
    return {**example, **paths}


def _file_below(folder: Path, place: str) -> Path | None:
    """The existing file behind a relative path; None if the path is not relative or the file does not exist."""
    if not place or place.startswith(("data:", "http://", "https://", "file:")) or Path(place).is_absolute():
        return None
    try:
        file = folder / place
        return file if file.is_file() else None
    except (OSError, ValueError):  # too long, or with a NUL character
        return None
