"""Ingest the inbox: convert the waiting batches of answers to one TFRecord.

The process may be killed at any point. A batch is deleted from the inbox only after all its data is on disk. A batch
whose examples are already in a record is recognised by its name and not ingested again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odkeras import inbox, project
from odkeras.annotation import Annotation
from odkeras.data import records
from odkeras.data.attempts import MAX_DEATHS, ReadAttempts
from odkeras.data.replay import ReplayStore
from odkeras.data_uri import bytes_from_data_uri
from odkeras.errors import AnswerError, error_reason
from odkeras.formats.prodigy import read_annotation, read_answer
from odkeras.heartbeat import report_progress
from odkeras.image_store import ImageStore
from odkeras.images import DEFAULT_MAX_PIXELS, encode_image, read_image
from odkeras.labels import LabelMap
from odkeras.project import Project
from odkeras.text import replace_surrogates
from odkeras.version_dirs import next_version
from odkeras.work import Row, withdrawn_row, work_row

MAX_BYTES = 512 * 2**20
"""Bytes of encoded images per record after which no further batch is read. Bounds the memory when many batches have
accumulated while no trainer was running."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestResult:
    """The result of ingesting the inbox once.

    Args:
        batches: names of the ingested batches.
        record: the new TFRecord; None if there was no accepted answer.
        accepted: number of images in the record.
        withdrawn: number of images with a rejected or ignored answer.
        unusable: number of answers written to rejected.jsonl.
        problems: a message for each box that was dropped from an accepted answer.
        work: the rows for work.jsonl (`work.work_row` and `work.withdrawn_row`).
    """

    batches: tuple[str, ...] = ()
    record: Path | None = None
    accepted: int = 0
    withdrawn: int = 0
    unusable: int = 0
    problems: tuple[str, ...] = ()
    work: tuple[Row, ...] = ()

    @property
    def no_record_reason(self) -> str:
        """Why there is no record."""
        return (
            f"the last answers have nothing to train on: {self.withdrawn} were rejected or ignored, {self.unusable} "
            "could not be used (see rejected.jsonl)"
        )


def ingest(
    directories: Project,
    store: ReplayStore,
    label_map: LabelMap,
    *,
    after_record: int = 0,
    masks: bool = False,
    max_boxes: int = 0,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    clock: Callable[[], float] = time.time,
) -> IngestResult:
    """Convert waiting batches to one new record, oldest first, up to about `MAX_BYTES` of images.

    Args:
        directories: the project's directories: source of the batches, target of the record.
        store: updated with the new examples and the withdrawn images.
        label_map: translates label names to ids.
        after_record: the number of the new record will be larger than this.
        masks: write masks for every example, not only for those with polygons.
        max_boxes: the reader's `max_number_of_boxes`; more boxes are reported as a problem. 0 = any number.
        max_pixels: larger images are refused.
        clock: returns seconds since the epoch, for the record's number.

    Raises:
        InboxError: a batch cannot be read.
        RecordError: the record cannot be written; the batches stay in the inbox.
    """
    attempts = ReadAttempts(directories.reading_path)
    set_aside = _set_poison_aside(directories, attempts)
    waiting = []
    for path in inbox.list_batches(directories.inbox_dir):
        if path.name in store.batches:  # after a crash between writing the record and deleting the batch
            path.unlink(missing_ok=True)
        else:
            waiting.append(path)
    if not waiting:
        return IngestResult(batches=set_aside, unusable=len(set_aside))
    answers = _AnswerReader(label_map, max_pixels, ImageStore(directories.kept_images_dir), masks)
    paths = answers.read_some(waiting, attempts)
    answers.check_number_of_boxes(max_boxes)
    _note_rejected(directories.rejected_path, answers.rejected)
    # A crash after this line appends the rows again; that is harmless, since only the last row of an image is used.
    project.append_jsonl(directories.work_path, answers.work)
    store.withdraw(answers.withdrawn)
    record = None
    if answers.examples:
        record = _record_path(directories, after_record, clock)
        records.write_records(record, answers.examples.values())
        store.add_record(record)
    for path in paths:
        path.unlink(missing_ok=True)
    if not inbox.has_batches(directories.inbox_dir):  # waiting batches may refer to unclaimed images
        ImageStore(inbox.images_dir(directories.inbox_dir)).remove_unclaimed()
    return IngestResult(
        batches=(*set_aside, *(path.name for path in paths)),
        record=record,
        accepted=len(answers.examples),
        withdrawn=len(answers.withdrawn),
        unusable=len(set_aside) + len(answers.rejected),
        problems=tuple(answers.problems),
        work=tuple(answers.work),
    )


class _AnswerReader:
    """The answers of several batches. The latest answer of each image wins.

    Attributes:
        examples: image id -> serialized example.
    """

    def __init__(self, label_map: LabelMap, max_pixels: int, kept_images: ImageStore, masks: bool) -> None:
        self._label_map = label_map
        self._max_pixels = max_pixels
        self._kept_images = kept_images
        self._masks = masks
        self.examples: dict[str, bytes] = {}
        self.withdrawn: dict[str, str] = {}
        self.rejected: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.work: list[Row] = []
        self._boxes: dict[str, tuple[str, int]] = {}  # image id -> file, number of boxes
        self._image_bytes = 0  # sum over all answers read; an image with two answers counts twice

    def read_some(self, paths: Sequence[Path], attempts: ReadAttempts) -> list[Path]:
        """Read batches until their images exceed `MAX_BYTES`, but at least one; return the paths of those read."""
        for count, path in enumerate(paths):
            if count and self._image_bytes > MAX_BYTES:
                return list(paths[:count])
            with attempts.count(path.name):
                self.read(path)
        return list(paths)

    def read(self, path: Path) -> None:
        for number, (answer, error) in enumerate(inbox.read_batch(path), start=1):
            report_progress()
            try:
                if answer is None:
                    raise AnswerError(error or "empty")
                self._take(inbox.with_stored_image(answer, path.parent), path.name)
            except Exception as error:  # whatever it is, the other answers can be trained on
                reason = replace_surrogates(error_reason(error))
                _log.warning("%s, answer %d: %s", path.name, number, reason)
                row = {"batch": path.name, "number": number, "reason": reason}
                self.rejected.append({**row, "answer": self._with_kept_image(answer, path.parent)})

    def check_number_of_boxes(self, most: int) -> None:
        """Report the images with more boxes than the reader takes."""
        for image_id, (file, count) in self._boxes.items():
            if 0 < most < count and image_id in self.examples:
                problem = replace_surrogates(
                    f"{file}: {count} boxes, but train_input_reader.max_number_of_boxes is {most}: the others are "
                    f"trained as background; set max_number_of_boxes: {count}"
                )
                _log.warning("%s", problem)
                self.problems.append(problem)

    def _with_kept_image(self, answer: dict[str, Any] | None, inbox_dir: Path) -> dict[str, Any] | None:
        """A rejected answer whose image is stored permanently, so that the answer can be corrected later.

        Unchanged if the image cannot be stored, or has its own file already.
        """
        if answer is None:
            return answer
        whole = inbox.with_stored_image(answer, inbox_dir)
        try:
            if str(whole["image"]).startswith("data:"):
                data = bytes_from_data_uri(whole["image"])
                image = encode_image(data, source="answer", max_pixels=self._max_pixels)
            elif inbox.STORED_IMAGE in answer:
                image = read_image(whole["image"], max_pixels=self._max_pixels)
            else:
                return answer
            return {**whole, "image": str(self._kept_images.put(image))}
        except Exception:  # its image may be the reason why it was rejected
            return answer

    def _take(self, answer: dict[str, Any], batch: str) -> None:
        read = read_annotation(answer, self._label_map, batch=batch, max_pixels=self._max_pixels)
        problems = [replace_surrogates(problem) for problem in read.problems]
        for problem in problems:
            _log.warning("%s: %s", batch, problem)
        self.problems.extend(problems)
        if read.annotation is not None:
            example = records.example_from_annotation(read.annotation, self._label_map, masks=self._masks)
            self.examples[read.annotation.image_id] = example.SerializeToString()
            self._image_bytes += len(read.annotation.image.data)
            self._boxes[read.annotation.image_id] = (read.annotation.file, len(read.annotation.groundtruth))
            self._note_work(answer, read.annotation)
            self.withdrawn.pop(read.annotation.image_id, None)
        elif read.withdrawn_image_id is not None:
            self.examples.pop(read.withdrawn_image_id, None)
            self.withdrawn[read.withdrawn_image_id] = batch
            self.work.append(withdrawn_row(read_answer(answer, read.withdrawn_image_id)))

    def _note_work(self, answer: dict[str, Any], annotation: Annotation) -> None:
        """Record the edit counts. They are only statistics: an answer whose edits cannot be counted is trained on."""
        try:
            row = work_row(read_answer(answer, annotation.image_id))
        except Exception as error:
            _log.warning("%s: its edits cannot be counted: %s", annotation.file, error)
            return
        if row is not None:
            self.work.append(row)


def _set_poison_aside(directories: Project, attempts: ReadAttempts) -> tuple[str, ...]:
    """Move what must not be read out of the inbox, and return the names of the batches among it."""
    fatal = attempts.fatal_batch
    batches = [path for path in inbox.list_batches(directories.inbox_dir) if path.name == fatal]
    reasons = {
        **dict.fromkeys(batches, f"the trainer ended {MAX_DEATHS} times while it read this batch"),
        **dict.fromkeys(inbox.list_strays(directories.inbox_dir), "not a regular file with a name in UTF-8"),
    }
    for path, reason in reasons.items():
        message = replace_surrogates(f"{path}: {reason}; it is set aside")
        _note_rejected(
            directories.rejected_path, [{"batch": path.name, "number": 0, "reason": message, "answer": None}]
        )
        with suppress(OSError):  # a stray that cannot be moved is harmless
            inbox.set_aside(path)
            _log.warning("%s", message)
    if fatal is not None:
        attempts.clear()
    return tuple(path.name for path in batches)


def _note_rejected(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append the rows that are not in the file yet. Idempotent, since a batch is read again after a crash."""
    if not rows:
        return
    known = {(row.get("batch"), row.get("number")) for row in project.read_jsonl(path)}
    project.append_jsonl(path, [row for row in rows if (row["batch"], row["number"]) not in known])


def _record_path(directories: Project, after: int, clock: Callable[[], float]) -> Path:
    last = max([after, *(record_number(path) for path in directories.train_records())])
    return directories.data_dir / f"{next_version([last], clock())}_train.record"


def record_number(path: Path) -> int:
    """The number in `<number>_train.record`; it increases from round to round."""
    return int(path.name.partition("_")[0])
