"""From the inbox to a TFRecord: takes the batches that wait and makes one record of them.

It may be killed between any two lines: a batch leaves the inbox only when everything it says is on disk, and a
batch whose examples are in a record already is recognised by its name and not taken again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odkeras import inbox, project
from odkeras.annotation import Annotation
from odkeras.data import records
from odkeras.data.replay import ReplayStore
from odkeras.errors import AnswerError, ImageError
from odkeras.formats.prodigy import read_answer
from odkeras.image_store import ImageStore
from odkeras.images import DEFAULT_MAX_PIXELS, bytes_from_data_uri, encode_image, read_image
from odkeras.labels import LabelMap
from odkeras.project import Project
from odkeras.work import Row, withdrawn_row, work_row

MOST_BYTES = 512 * 2**20
"""Of encoded images in one record: a trainer that was away for days must not take all of them into memory at once."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Intake:
    """What one visit to the inbox brought.

    Args:
        batches: names of the batches that were taken.
        record: the new TFRecord; None when no answer was to be trained on.
        accepted: images in the record.
        withdrawn: rejected or ignored answers.
        unusable: answers that went to rejected.jsonl.
        problems: boxes that were left out of accepted answers, with the reason.
        work: what people did with the suggestions of each accepted answer (`work.work_row`).
    """

    batches: tuple[str, ...] = ()
    record: Path | None = None
    accepted: int = 0
    withdrawn: int = 0
    unusable: int = 0
    problems: tuple[str, ...] = ()
    work: tuple[Row, ...] = ()

    @property
    def why_nothing_trains(self) -> str:
        """For a person, if there is no record."""
        return (
            f"the last answers held nothing to train on: {self.withdrawn} rejected or ignored, {self.unusable} that "
            "could not be used (see rejected.jsonl)"
        )


def take_batches(
    directories: Project,
    store: ReplayStore,
    label_map: LabelMap,
    *,
    after_record: int = 0,
    masks: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    clock: Callable[[], float] = time.time,
) -> Intake:
    """Move the waiting batches into one new record, oldest first, as many as memory has room for.

    Args:
        directories: where the inbox is and the record goes.
        store: told of the new examples and of the images withdrawn.
        label_map: translates the labels.
        after_record: the new record's number will be larger.
        masks: every example gets masks, not only one with a polygon.
        max_pixels: larger images are refused.
        clock: seconds since the epoch, for the record's number.

    Raises:
        InboxError: a batch cannot be read.
        RecordError: the record cannot be written; the batches stay in the inbox.
    """
    waiting = [path for path in inbox.list_batches(directories.inbox_dir) if not _was_taken(path, store)]
    if not waiting:
        return Intake()
    answers = _Answers(label_map, max_pixels, ImageStore(directories.kept_images_dir))
    paths = answers.read_some(waiting)
    _note_rejected(directories.rejected_path, answers.rejected)
    project.append_jsonl(directories.work_path, answers.work)  # twice after a crash: the last row of an image counts
    store.withdraw(answers.withdrawn)
    record = None
    if answers.annotations:
        record = _record_path(directories, after_record, clock)
        _write_record(record, answers.annotations, label_map, masks)
        store.add_record(record)
    for path in paths:
        path.unlink(missing_ok=True)
    if not inbox.list_batches(directories.inbox_dir):  # what still waits may refer to them
        ImageStore(inbox.images_dir(directories.inbox_dir)).remove_unclaimed()
    return Intake(
        batches=tuple(path.name for path in paths),
        record=record,
        accepted=len(answers.annotations),
        withdrawn=len(answers.withdrawn),
        unusable=len(answers.rejected),
        problems=tuple(answers.problems),
        work=tuple(answers.work),
    )


def _was_taken(path: Path, store: ReplayStore) -> bool:
    """A crash came after the record was written and before the batch was deleted."""
    if path.name not in store.batches:
        return False
    path.unlink(missing_ok=True)
    return True


class _Answers:
    """The answers of several batches, the latest one about each image."""

    def __init__(self, label_map: LabelMap, max_pixels: int, kept_images: ImageStore) -> None:
        self._label_map = label_map
        self._max_pixels = max_pixels
        self._kept_images = kept_images
        self.annotations: dict[str, Annotation] = {}
        self.withdrawn: dict[str, str] = {}
        self.rejected: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.work: list[Row] = []
        self._image_bytes = 0  # of all that was read: an image that two answers are about counts twice

    def read_some(self, paths: Sequence[Path]) -> list[Path]:
        """Reads batches until their images are `MOST_BYTES`; returns those that were read."""
        done: list[Path] = []
        for path in paths:
            if done and self._image_bytes > MOST_BYTES:
                break
            self.read(path)
            done.append(path)
        return done

    def read(self, path: Path) -> None:
        for number, (answer, error) in enumerate(inbox.read_batch(path), start=1):
            try:
                if answer is None:
                    raise AnswerError(error or "empty")
                self._take(inbox.with_stored_image(answer, path.parent), path.name)
            except AnswerError as reason:
                _log.warning("%s, answer %d: %s", path.name, number, reason)
                row = {"batch": path.name, "number": number, "reason": str(reason)}
                self.rejected.append({**row, "answer": self._with_kept_image(answer, path.parent)})

    def _with_kept_image(self, answer: dict[str, Any] | None, inbox_dir: Path) -> dict[str, Any] | None:
        """The answer, its image in a place where it stays until somebody mends the answer."""
        if answer is None:
            return answer
        whole = inbox.with_stored_image(answer, inbox_dir)
        try:
            if str(whole["image"]).startswith("data:"):
                image = encode_image(bytes_from_data_uri(whole["image"]), source="answer", max_pixels=0)
            elif inbox.STORED_IMAGE in answer:
                image = read_image(whole["image"], max_pixels=0)
            else:
                return answer
            return {**whole, "image": str(self._kept_images.put(image))}
        except (ImageError, OSError, KeyError):
            return answer

    def _take(self, answer: dict[str, Any], batch: str) -> None:
        read = read_answer(answer, self._label_map, batch=batch, max_pixels=self._max_pixels)
        for problem in read.problems:
            _log.warning("%s: %s", batch, problem)
        self.problems.extend(read.problems)
        if read.annotation is not None:
            self._image_bytes += len(read.annotation.image.data)
            self.annotations[read.annotation.image_id] = read.annotation
            self._note_work(answer, read.annotation)
            self.withdrawn.pop(read.annotation.image_id, None)
        elif read.withdrawn_image_id is not None:
            self.annotations.pop(read.withdrawn_image_id, None)
            self.withdrawn[read.withdrawn_image_id] = batch
            self.work.append(withdrawn_row(answer))

    def _note_work(self, answer: dict[str, Any], annotation: Annotation) -> None:
        """Figures for people: whatever is strange about an answer's suggestions, it is trained on all the same."""
        try:
            row = work_row(answer)
        except (AnswerError, ValueError, TypeError, KeyError) as error:
            _log.warning("%s: its suggestions cannot be read: %s", annotation.file, error)
            return
        if row is not None:
            self.work.append(row)


def _note_rejected(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append what is not there yet: after a crash the same batch is read again."""
    if not rows:
        return
    known = {(row.get("batch"), row.get("number")) for row in project.read_jsonl(path)}
    project.append_jsonl(path, [row for row in rows if (row["batch"], row["number"]) not in known])


def _record_path(directories: Project, after: int, clock: Callable[[], float]) -> Path:
    last = max([after, *(record_number(path) for path in directories.train_records())])
    return directories.data_dir / f"{project.next_version([last], clock())}_train.record"


def _write_record(path: Path, annotations: dict[str, Annotation], label_map: LabelMap, masks: bool) -> None:
    examples = (
        records.example_from_annotation(annotation, label_map, masks=masks).SerializeToString()
        for annotation in annotations.values()
    )
    records.write_records(path, examples)


def record_number(path: Path) -> int:
    """The number in `<number>_train.record`; later rounds have larger ones."""
    return int(path.name.partition("_")[0])
