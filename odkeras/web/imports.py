"""Imports answers into the database from JSONL, as written by Prodigy's `db-out`.

    with AnswerDatabase.open("annotations.db") as database:
        report = import_answers(database, "shapes", open_lines("answers.jsonl"), base_dir=Path())

Imports are idempotent: answers that are already in the dataset are recognised and skipped.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from odkeras.annotation import DECISIONS, Answer, EditCounts
from odkeras.errors import AnswerError, RecordError, error_reason
from odkeras.formats.prodigy import Record, read_answer
from odkeras.image_ref import ImageRef, is_data_uri, is_file, is_url
from odkeras.images import absolute_path
from odkeras.numeric import is_number, is_whole
from odkeras.web.database import AnswerDatabase
from odkeras.web.stored import StoredAnswer
from odkeras.work import shown_edits

STDIN = "-"
SESSION = "imported"
_TOGETHER = 100
_IMAGE_ID = re.compile(r"[0-9a-fA-F]{32}")
_DAY_S = 86400.0


@dataclass
class ImportReport:
    """The result of an import.

    Args:
        added: number of new answers.
        known: number of answers that were already in the database.
        skipped: (line number, reason) of each line that was left out.
    """

    added: int = 0
    known: int = 0
    skipped: list[tuple[int, str]] = field(default_factory=list)


def open_lines(source: str) -> Iterator[bytes]:
    """The lines of a file, or of standard input for "-". The file is opened at once, so that a missing file fails here.

    Raises:
        RecordError: the file cannot be read.
    """
    if source == STDIN:
        return iter(sys.stdin.buffer)
    try:
        file = Path(source).open("rb")  # noqa: SIM115 (closed by the generator)
    except OSError as error:
        raise RecordError(f"cannot read {source}: {error.strerror}") from error
    return _read_lines(file, source)


def count_lines(source: str) -> int | None:
    """Number of lines; None for a source that can be read only once: standard input, a pipe.

    Raises:
        RecordError: the file cannot be read.
    """
    return sum(1 for _ in open_lines(source)) if source != STDIN and Path(source).is_file() else None


def _read_lines(file: BinaryIO, source: str) -> Iterator[bytes]:
    try:
        with file:
            yield from file
    except OSError as error:
        raise RecordError(f"cannot read {source}: {error.strerror}") from error


def import_answers(
    database: AnswerDatabase,
    dataset: str,
    lines: Iterable[bytes],
    *,
    base_dir: Path,
    decision: str = "accept",
    progress: Callable[[int], None] = lambda done: None,
) -> ImportReport:
    """Store the answers that are not in the dataset yet, as not yet handed to the trainer. Invalid lines are skipped.

    Args:
        base_dir: base directory of relative paths; the working directory if the file does not exist there.
        decision: decision for examples without `answer`.
        progress: callback with the number of lines done.

    Raises:
        DatabaseError: the database cannot be written. What was stored before stays; a second call resumes.
    """
    report = ImportReport()
    ids = {derive_answer_id(example, image_id) for image_id, example in database.iter_examples(dataset, replaced=True)}
    waiting: list[StoredAnswer] = []
    now = time.time()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                answer = read_line(line, dataset, base_dir=base_dir, decision=decision, now=now + number * 1e-6)
            except Exception as error:  # whatever it is, the other lines can be imported
                report.skipped.append((number, error_reason(error)))
            else:
                report.known += answer.answer_id in ids
                if answer.answer_id not in ids:
                    ids.add(answer.answer_id)
                    waiting.append(answer)
        if len(waiting) >= _TOGETHER:
            database.add(dataset, waiting)
            report.added += len(waiting)
            waiting = []
        progress(number)
    database.add(dataset, waiting)
    report.added += len(waiting)
    return report


def read_line(line: bytes, dataset: str, *, base_dir: Path, decision: str, now: float) -> StoredAnswer:
    """Parse a line of JSONL.

    Args:
        decision: used if the line has no `answer`.
        now: time in seconds since the epoch, used if the line has no usable `_timestamp`.

    Raises:
        AnswerError, ImageError: the answer cannot be stored; with the reason.
    """
    try:
        example = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"not JSON: {error}") from error
    if not isinstance(example, dict):
        raise AnswerError(f"a line must be a JSON object; got {type(example).__name__}")
    example = _with_paths(_with_answer(example, decision), base_dir)
    return stored_answer(example, read_answer(example), dataset, read_image_id(example, base_dir), now)


def stored_answer(example: Record, read: Answer, dataset: str, image_id: str, now: float) -> StoredAnswer:
    """An answer from elsewhere, to be stored.

    Args:
        read: what the example says.
        now: as for `read_line`.

    Raises:
        AnswerError: the example is not plain JSON.
    """
    version, edits = _suggested(read)
    return StoredAnswer(
        example,
        image_id=image_id,
        session=read_session(example, dataset),
        answered_at=_answered_at(example, now),
        answer_id=derive_answer_id(example, image_id),
        version=version,
        edits=edits,
        active_s=read.active_s,
    )


def derive_answer_id(example: Record, image_id: str) -> str:
    """A digest of the answer that does not depend on key order, formatting or the image's location.

    Raises:
        AnswerError: the example contains NaN or infinity.
    """
    content = {key: value for key, value in example.items() if key not in ("image", "path", "image_id")}
    try:
        text = json.dumps([image_id, content], sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"not plain JSON: {error}") from error
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def read_session(example: Record, dataset: str) -> str:
    """The session's name. Prodigy's `_session_id` is dataset and session, joined by a hyphen."""
    session = example.get("_session_id")
    if not isinstance(session, str) or not session:
        return SESSION
    return _encodable(session.removeprefix(f"{dataset}-") or session)


def read_image_id(example: Record, base_dir: Path) -> str:
    """The example's own id if it has the form of ours; else the id of the image, which is read; else, for a URL or a
    missing file, a digest of the location.

    Raises:
        AnswerError: the example has neither `image` nor `path`.
        ImageError: the image exists but cannot be used.
    """
    reference = ImageRef.of_record(example, base_dir, "its data URI")
    if not reference.places:
        raise AnswerError("the example has neither 'image' nor 'path'")
    own = example.get("image_id")
    return own if isinstance(own, str) and _IMAGE_ID.fullmatch(own) else reference.identify()


def _with_answer(example: Record, decision: str) -> Record:
    if example.get("answer") is None:
        example = {**example, "answer": decision}
    if example["answer"] not in DECISIONS:
        raise AnswerError(f"answer must be 'accept', 'reject' or 'ignore'; got {str(example['answer'])[:40]!r}")
    if not isinstance(example.get("spans") or [], list):
        raise AnswerError(f"'spans' must be a list; got {type(example['spans']).__name__}")
    return example


def _with_paths(example: Record, base_dir: Path) -> Record:
    """Make relative paths of existing files absolute, because their base directory will not be known later."""
    reference = ImageRef.of_record(example, base_dir)
    changed = {}
    for key in ("image", "path"):
        place = example.get(key)
        if not isinstance(place, str) or is_data_uri(place) or is_url(place) or place.startswith("file:"):
            continue
        file = reference.file(place)
        if place and is_file(file) and not Path(place).is_absolute():
            changed[key] = str(absolute_path(file))
    return {**example, **changed}


def _answered_at(example: Record, now: float) -> float:
    """`_timestamp` in seconds. One in the future (milliseconds?) is ignored: no later answer could replace it."""
    seconds = example.get("_timestamp")
    if is_number(seconds, now + _DAY_S) and seconds > 0:
        return float(seconds)
    return now


def _suggested(answer: Answer) -> tuple[int | None, EditCounts | None]:
    """The model version of the suggestions, and the edits to them if the image was accepted; None if unknown."""
    version = answer.task.version
    if not is_whole(version, 1, 2**63 - 1):
        return None, None
    try:
        return version, shown_edits(answer)
    except ValueError:  # its size is not known
        return version, None


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
