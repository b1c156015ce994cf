"""Imports answers into the database from JSONL, as written by Prodigy's `db-out`.

    with AnswerDatabase.open("annotations.db") as database:
        report = import_answers(database, "shapes", open_lines("answers.jsonl"), base_dir=Path())

Imports are idempotent: answers that are already in the dataset are recognised and skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
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
from odkeras.json_text import encode_sorted_json
from odkeras.numeric import is_number, is_whole
from odkeras.web.database import AnswerDatabase
from odkeras.web.gallery_rows import TaskFacts
from odkeras.web.stored import StoredAnswer, to_json
from odkeras.work import shown_edits

STDIN = "-"
SESSION = "imported"
_TOGETHER = 5000
"""Most answers in one transaction. Each new answer changes random pages of several indexes, so that many at once write
fewer of them; the page and the trainer can write in between."""
_TOGETHER_CHARACTERS = 8 * 2**20  # answers may contain images
_PROGRESS_EVERY = 100
_NewAnswer = tuple[StoredAnswer, str, TaskFacts]  # as `AnswerDatabase.add_all` takes it
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

    def read_lines() -> Iterator[_NewAnswer]:
        now = time.time()
        number = 0
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield read_line(line, dataset, base_dir=base_dir, decision=decision, now=now + number * 1e-6)
                except Exception as error:  # whatever it is, the other lines can be imported
                    report.skipped.append((number, error_reason(error)))
            if number % _PROGRESS_EVERY == 0:
                progress(number)
        progress(number)

    for answers in _groups(_new_answers(database, dataset, read_lines(), report)):
        report.added += database.add_all(dataset, answers)
    return report


def _new_answers(
    database: AnswerDatabase, dataset: str, answers: Iterable[_NewAnswer], report: ImportReport
) -> Iterator[_NewAnswer]:
    """The answers that the dataset does not have; the report counts the others."""
    known: set[str] = set()  # ids of the answers about the images so far
    images: set[str] = set()
    is_new = dataset not in database
    for row in answers:
        answer = row[0]
        if not is_new and answer.image_id not in images:  # answers of the page have other ids
            images.add(answer.image_id)
            examples = database.examples_of_image(dataset, answer.image_id)
            known.update(derive_answer_id(example, answer.image_id) for example in examples)
        if answer.answer_id in known:
            report.known += 1
        else:
            known.add(answer.answer_id)
            yield row


def _groups(answers: Iterable[_NewAnswer]) -> Iterator[list[_NewAnswer]]:
    """The answers of one transaction each."""
    group: list[_NewAnswer] = []
    size = 0
    for row in answers:
        group.append(row)
        size += len(row[1])
        if len(group) >= _TOGETHER or size >= _TOGETHER_CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group


def read_line(line: bytes, dataset: str, *, base_dir: Path, decision: str, now: float) -> _NewAnswer:
    """Parse a line of JSONL. Returns the answer, its JSON, and the facts of its task.

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
    image_id = read_image_id(example, base_dir)
    read = read_answer(example, image_id)
    answer = stored_answer(example, read, dataset, image_id, now)
    return answer, to_json(answer), TaskFacts.of(read.task)


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
        text = f"[{json.dumps(image_id)},{encode_sorted_json(content)}]"
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
    absolute: dict[str, str] = {}
    for place in dict.fromkeys(ImageRef.of_record(example).places):
        if is_data_uri(place) or is_url(place) or place.startswith("file:") or os.path.isabs(place):  # noqa: PTH117
            continue
        for folder in dict.fromkeys((str(base_dir), ".")):
            file = os.path.join(folder, place)  # noqa: PTH118 (for each of a million lines, a Path takes too long)
            if is_file(file):
                absolute[place] = str(absolute_path(file))
                break
    if not absolute:
        return example
    places = {key: example[key] for key in ("image", "path") if isinstance(example.get(key), str)}
    return {**example, **{key: absolute.get(place, place) for key, place in places.items()}}


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
