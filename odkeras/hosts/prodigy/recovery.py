"""Answers that are in Prodigy's database and not in the data directory: lost on the way, or given before there was one.

Prodigy stores answers and calls `update` one after the other; it may be killed in between, and a disk may be full. The
images would not be asked for again, and never be trained on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from odkeras.formats.prodigy import Task
from odkeras.hosts.prodigy.api import INPUT_HASH, read_dataset, read_input_hashes
from odkeras.project import append_jsonl, read_jsonl

TOGETHER = 10
_VIEW = "image_manual"


class AnsweredLedger:
    """Which answers of a dataset, by Prodigy's input hash, have been handed to the trainer: a file of JSON lines.

    A line that is lost costs training once more on the same answer.

    Args:
        path: read when first asked; made when something is added.
        dataset: only its lines are looked at.
    """

    def __init__(self, path: Path, dataset: str) -> None:
        self._path = path
        self._dataset = dataset
        self._hashes: set[int] | None = None
        self._lock = threading.Lock()

    def add(self, hashes: Iterable[Any]) -> None:
        """Never raises; what is no hash is left out."""
        with self._lock:
            new = {value for value in hashes if isinstance(value, int)} - self._known()
            self._known().update(new)
            with suppress(OSError):
                rows = [{"dataset": self._dataset, "input_hash": value} for value in sorted(new)]
                append_jsonl(self._path, rows, durable=False)

    def __len__(self) -> int:
        with self._lock:
            return len(self._known())

    def missing(self, hashes: Iterable[int]) -> set[int]:
        """Those of `hashes` that have not been handed on."""
        with self._lock:
            return set(hashes) - self._known()

    def _known(self) -> set[int]:
        if self._hashes is None:
            rows: list[dict[str, Any]] = []
            with suppress(OSError):
                rows = read_jsonl(self._path)
            found = [row.get("input_hash") for row in rows if row.get("dataset") == self._dataset]
            self._hashes = {value for value in found if isinstance(value, int)}
        return self._hashes


def hashes_of(answers: Iterable[Any]) -> list[Any]:
    """Their input hashes, None for an answer without one."""
    return [answer.get(INPUT_HASH) for answer in answers if isinstance(answer, dict)]


def find_missing(db: Any, dataset: str, ledger: AnsweredLedger) -> list[Task]:
    """The latest answer about each image that has not been handed on, oldest first.

    The database is asked for hashes alone, unless something is missing. What is no answer about an image (other recipes
    may share the dataset) is noted in the ledger, so that it is not looked at again.
    """
    missing = ledger.missing(read_input_hashes(db, [dataset]))
    if not missing:
        return []
    latest: dict[Any, Task] = {}
    for example in read_dataset(db, dataset):
        value = example.get(INPUT_HASH)
        if value in missing:
            latest.pop(value, None)
            latest[value] = example
    answers = [example for example in latest.values() if _is_about_boxes(example)]
    ledger.add(missing.difference(hashes_of(answers)))
    return answers


def hand_on(
    answers: Sequence[Task],
    ledger: AnsweredLedger,
    write: Callable[[Sequence[Task]], object],
    *,
    alone: AbstractContextManager[Any],
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Give answers to `write`, a few at a time, and note them.

    Args:
        alone: entered around each look at the ledger and its write, as by who else writes answers: an answer that came
            meanwhile is newer than ours.
        stop: asked now and then; True ends it.

    Returns:
        How many answers were handed on.

    Raises:
        whatever `write` does; what is left is handed on at the next start.
    """
    done = 0
    for start in range(0, len(answers), TOGETHER):
        if stop():
            break
        chunk = answers[start : start + TOGETHER]
        with alone:
            missing = ledger.missing(example[INPUT_HASH] for example in chunk)
            still = [example for example in chunk if example[INPUT_HASH] in missing]
            if still:
                write(still)
                ledger.add(missing)
        done += len(still)
    return done


def _is_about_boxes(example: Task) -> bool:
    has_image = any(isinstance(example.get(key), str) for key in ("image", "path"))
    has_boxes = example.get("_view_id") == _VIEW or isinstance(example.get("spans"), list)
    return has_image and has_boxes and example.get("answer") in ("accept", "reject", "ignore")
