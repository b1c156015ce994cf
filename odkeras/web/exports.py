"""Exports answers from the database, in the format of Prodigy's `db-out` or as COCO's detection JSON.

    check_dataset(database, "shapes")
    write_jsonl(database.examples("shapes"), Path("answers.jsonl"))
    write_coco(coco_of_dataset(database, "shapes"), Path("answers.json"))

Without a path (None), the output goes to standard output.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from odkeras import __version__
from odkeras.errors import ConfigError, RecordError
from odkeras.formats.coco import CocoExport, to_coco
from odkeras.formats.prodigy import Record, read_task
from odkeras.project import atomic_path
from odkeras.web.database import AnswerDatabase
from odkeras.web.dataset_labels import DatasetLabels, labels_of_dataset
from odkeras.web.pictures import Pictures

_MAX_SKIPPED = 3


def check_dataset(database: AnswerDatabase, dataset: str) -> None:
    """Raises: ConfigError: the dataset has no answers; the message lists the datasets that have."""
    if dataset not in database:
        names = ", ".join(map(repr, database.datasets)) or "none"
        raise ConfigError(f"{database.path} has no dataset {dataset!r} (known: {names})")


def write_jsonl(examples: Iterable[Record], out: Path | None) -> int:
    """Write one ASCII JSON object per line; returns the number of lines. Files are written atomically.

    Args:
        out: standard output when None.

    Raises:
        RecordError: the output cannot be written.
        BrokenPipeError: the reader of standard output has closed it.
    """
    number = 0
    with opened_output(out) as file:
        for number, example in enumerate(examples, start=1):  # noqa: B007 (returned below)
            file.write(json.dumps(example) + "\n")
    return number


def with_image(image_id: str, example: Record) -> Record | None:
    """The example with its image as a data URI; None if the image is missing or was replaced by another one."""
    if str(example.get("image") or "").startswith("data:"):
        return example
    image = Pictures().find(image_id, read_task(example, image_id))
    return None if image is None else {**example, "image": image.data_uri}


@dataclass(frozen=True)
class DatasetExport:
    """A dataset as COCO's detection JSON.

    Args:
        coco: the export, and what was skipped.
        labels: the label map that defines the category ids, and its origin.
        description: text for COCO's `info`.
    """

    coco: CocoExport
    labels: DatasetLabels
    description: str

    def to_json(self) -> dict[str, Any]:
        """The export as COCO JSON. Its `info` says what was left out, because the file may be all that a user sees."""
        return self.coco.to_json(". ".join(part for part in (self.description, self.left_out) if part))

    @property
    def left_out(self) -> str:
        """A sentence about what was left out; "" if nothing was."""
        if not self.coco.skipped:
            return ""
        shown = "; ".join(f"{file}: {reason}" for file, reason in self.coco.skipped[:_MAX_SKIPPED])
        more = len(self.coco.skipped) - _MAX_SKIPPED
        return f"left out: {shown}{f'; and {more} more, which `odkeras db out` lists' if more > 0 else ''}"

    def remarks(self) -> list[str]:
        """Messages for the user about the category ids and file names."""
        folder = self.coco.images_dir
        files = [] if folder is None else [f"file names: relative to {folder}"]
        return [f"category ids: {self.labels.origin}", *files]


def coco_of_dataset(
    database: AnswerDatabase,
    dataset: str,
    *,
    label_map: Path | None = None,
    images_dir: Path | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> DatasetExport:
    """Export the images of a dataset whose latest answer is accept.

    Args:
        label_map: defines the category ids; when None see `labels_of_dataset`.
        images_dir: base directory of the file names; when None, the deepest directory that contains all image files.
        progress: callback with the number of images done.

    Raises:
        LabelMapError: the label map cannot be read.
        DatabaseError: the database cannot be read.
    """
    labels = labels_of_dataset(database, dataset, label_map)
    answers = _counted(database.iter_latest(dataset, decision="accept"), progress)
    export = to_coco(answers, labels.label_map, images_dir)
    description = f"{dataset}, written by odkeras {__version__}. Category ids: {labels.origin}"
    return DatasetExport(export, labels, description)


def _counted(answers: Iterable[tuple[str, Record]], progress: Callable[[int], object]) -> Iterator[tuple[str, Record]]:
    for number, answer in enumerate(answers, start=1):
        yield answer
        progress(number)


def write_coco(export: DatasetExport, out: Path | None) -> None:
    """Write the export as JSON. Raises: RecordError, BrokenPipeError: as `write_jsonl`."""
    with opened_output(out) as file:
        json.dump(export.to_json(), file)
        file.write("\n")


@contextmanager
def opened_output(out: Path | None) -> Iterator[IO[str]]:
    """A text file to write to: standard output when None, else a file that is written atomically.

    Raises:
        RecordError: the output cannot be written.
        BrokenPipeError: the reader of standard output has closed it.
    """
    try:
        if out is None:
            yield sys.stdout
            sys.stdout.flush()
        elif out.exists() and not out.is_file():  # /dev/null or a pipe, which must not be replaced by a file
            with out.open("w", encoding="utf-8") as file:
                yield file
        else:
            out.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(out) as temporary, temporary.open("x", encoding="utf-8") as file:
                yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RecordError(f"cannot write {out or 'to standard output'}: {error.strerror or error}") from error


def silence_standard_output() -> None:
    """After a broken pipe, send buffered output to /dev/null: Python flushes at exit and would fail again."""
    try:
        descriptor = sys.stdout.fileno()
    except io.UnsupportedOperation:
        return
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, descriptor)
    os.close(devnull)
