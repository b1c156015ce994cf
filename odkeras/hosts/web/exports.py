"""Answers out of the database: as Prodigy's `db-out` writes them, or as COCO's detection JSON.

    check_dataset(database, "shapes")
    write_jsonl(database.examples("shapes"), Path("answers.jsonl"))
    write_coco(coco_of_dataset(database, "shapes"), Path("answers.json"))

Standard output is where it goes without a path.
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
from odkeras.formats.prodigy import Task
from odkeras.hosts.web.coco import CocoExport, to_coco
from odkeras.hosts.web.database import AnswerDatabase
from odkeras.hosts.web.dataset_labels import DatasetLabels, labels_of_dataset
from odkeras.hosts.web.pictures import Pictures
from odkeras.project import atomic_path

_MOST_SKIPPED = 3


def check_dataset(database: AnswerDatabase, dataset: str) -> None:
    """Raises: ConfigError: nobody has answered anything in it; names the datasets that there are."""
    if dataset not in database:
        known = ", ".join(map(repr, database.datasets)) or "none"
        raise ConfigError(f"{database.path} has no dataset {dataset!r} (known: {known})")


def write_jsonl(examples: Iterable[Task], out: Path | None) -> int:
    """A JSON object per line, in ASCII; returns how many. A file appears whole or not at all.

    Args:
        out: standard output when None.

    Raises:
        RecordError: it cannot be written.
        BrokenPipeError: whoever reads standard output has seen enough.
    """
    number = 0
    with opened_output(out) as file:
        for number, example in enumerate(examples, start=1):  # noqa: B007 (is the count)
            file.write(json.dumps(example) + "\n")
    return number


def with_image(image_id: str, example: Task) -> Task | None:
    """The example with its image as a data URI; None if the image is not where it was, or another one is there now."""
    if str(example.get("image") or "").startswith("data:"):
        return example
    image = Pictures().find(image_id, example)
    return None if image is None else {**example, "image": image.data_uri}


@dataclass(frozen=True)
class DatasetExport:
    """A dataset as COCO's detection JSON.

    Args:
        coco: what is in it, and what had to be left out.
        labels: where the category ids come from.
        description: of the whole, for COCO's `info`.
    """

    coco: CocoExport
    labels: DatasetLabels
    description: str

    def to_json(self) -> dict[str, Any]:
        """It says itself what is not in it: the file may be all that a person sees."""
        return self.coco.to_json(". ".join(part for part in (self.description, self.left_out) if part))

    @property
    def left_out(self) -> str:
        """What had to be left out, in a sentence; "" if nothing had."""
        if not self.coco.skipped:
            return ""
        shown = "; ".join(f"{file}: {reason}" for file, reason in self.coco.skipped[:_MOST_SKIPPED])
        more = len(self.coco.skipped) - _MOST_SKIPPED
        return f"left out: {shown}{f'; and {more} more, which `odkeras db out` lists' if more > 0 else ''}"

    def remarks(self) -> list[str]:
        """What a person should know of the ids and file names in it."""
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
    """The images of a dataset whose last answer is accept.

    Args:
        label_map: gives the category ids; when None see `labels_of_dataset`.
        images_dir: what file names are relative to; when None the deepest folder that holds all image files.
        progress: told the number of images done.

    Raises:
        LabelMapError: the label map cannot be read.
        DatabaseError: the database cannot be read.
    """
    labels = labels_of_dataset(database, dataset, label_map)
    answers = _counted(database.iter_latest(dataset, decision="accept"), progress)
    export = to_coco(answers, labels.label_map, images_dir)
    description = f"{dataset}, written by odkeras {__version__}. Category ids: {labels.origin}"
    return DatasetExport(export, labels, description)


def _counted(answers: Iterable[tuple[str, Task]], progress: Callable[[int], object]) -> Iterator[tuple[str, Task]]:
    for number, answer in enumerate(answers, start=1):
        yield answer
        progress(number)


def write_coco(export: DatasetExport, out: Path | None) -> None:
    """Raises: RecordError, BrokenPipeError: as `write_jsonl`."""
    with opened_output(out) as file:
        json.dump(export.to_json(), file)
        file.write("\n")


@contextmanager
def opened_output(out: Path | None) -> Iterator[IO[str]]:
    """A file to write text to: standard output, or one that appears when the block is done.

    Raises:
        RecordError: it cannot be written.
        BrokenPipeError: whoever reads has seen enough.
    """
    try:
        if out is None:
            yield sys.stdout
            sys.stdout.flush()
        elif out.exists() and not out.is_file():  # /dev/null, a pipe: nothing that could be replaced
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
    """After a broken pipe: what is still buffered goes nowhere, instead of failing once more when Python ends."""
    try:
        descriptor = sys.stdout.fileno()
    except io.UnsupportedOperation:
        return
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, descriptor)
    os.close(devnull)
