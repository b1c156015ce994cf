"""Answers out of the database: as Prodigy's `db-out` writes them, or as COCO's detection JSON.

    check_dataset(database, "shapes")
    write_jsonl(database.examples("shapes"), Path("answers.jsonl"))
    write_coco(to_coco(database.iter_latest("shapes", decision="accept")), Path("answers.json"))

Standard output is where it goes without a path.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from odkeras.errors import ConfigError, RecordError
from odkeras.hosts.web.coco import CocoExport
from odkeras.hosts.web.database import AnswerDatabase
from odkeras.hosts.web.pictures import Pictures
from odkeras.project import atomic_path
from odkeras.tasks import Task


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


def write_coco(export: CocoExport, out: Path | None, description: str = "") -> None:
    """Raises: RecordError, BrokenPipeError: as `write_jsonl`."""
    with opened_output(out) as file:
        json.dump(export.to_json(description), file)
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
