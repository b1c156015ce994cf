"""Label downloads of the page, streamed while they are written.

    download = open_download(database, "shapes", "jsonl")
    for chunk in download.chunks(): ...

JSONL is read and sent row by row. COCO JSON is built in memory and encoded in chunks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from odkeras.web.database import AnswerDatabase
from odkeras.web.exports import check_dataset, coco_of_dataset

_CHUNK_CHARS = 64 * 1024


@dataclass(frozen=True)
class Download:
    """A download that is generated on demand.

    Args:
        file: file name; only ASCII letters, digits, `_`, `-` and `.`, which are safe in headers and file systems.
        chunks: starts a new iteration over the text; raises DatabaseError if the database cannot be read.
    """

    file: str
    media_type: str
    chunks: Callable[[], Iterator[str]]


def open_download(
    database: AnswerDatabase, dataset: str, format: str, *, warn: Callable[[str], None] = lambda text: None
) -> Download | None:
    """The dataset in the format of `odkeras db out`; None for an unknown format.

    Args:
        format: jsonl (each session's latest answer for each image) or coco (the accepted images).
        warn: callback for what is left out; called while the download is sent.

    Raises:
        ConfigError: the dataset has no answers yet.
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", dataset)
    if format == "jsonl":
        download = Download(f"{name}.jsonl", "application/x-ndjson", lambda: _joined(_lines(database, dataset)))
    elif format == "coco":
        download = Download(f"{name}_coco.json", "application/json", lambda: _joined(_coco(database, dataset, warn)))
    else:
        return None
    check_dataset(database, dataset)
    return download


def _lines(database: AnswerDatabase, dataset: str) -> Iterator[str]:
    for _, example in database.iter_examples(dataset):
        yield json.dumps(example) + "\n"


def _coco(database: AnswerDatabase, dataset: str, warn: Callable[[str], None]) -> Iterator[str]:
    export = coco_of_dataset(database, dataset)
    if text := export.left_out:
        warn(f"COCO download of {dataset}: {text}")
    yield from json.JSONEncoder().iterencode(export.to_json())
    yield "\n"


def _joined(pieces: Iterable[str]) -> Iterator[str]:
    """Join pieces into chunks of at least `_CHUNK_CHARS`, because each chunk is sent separately."""
    waiting: list[str] = []
    length = 0
    for piece in pieces:
        waiting.append(piece)
        length += len(piece)
        if length >= _CHUNK_CHARS:
            yield "".join(waiting)
            waiting, length = [], 0
    yield "".join(waiting)
