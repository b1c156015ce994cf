"""Which answers of Prodigy's dataset were delivered to the trainer, and the delivery of the others.

Prodigy stores answers first and then calls `update`. If Prodigy is killed in between or the disk is full, Prodigy does
not show these images again, and without this module the model would never be trained on them. Answers that are older
than the data directory are delivered too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from odkeras.annotation import DECISIONS
from odkeras.formats.prodigy import Record
from odkeras.integrations.prodigy.api import INPUT_HASH, iter_dataset, read_input_hashes
from odkeras.project import append_jsonl, read_jsonl

CHUNK = 10
_VIEW = "image_manual"


class DeliveryLedger:
    """The answers of a dataset that were delivered to the trainer, by Prodigy's input hash; stored as JSON lines.

    If a line is lost, the model is trained on that answer once more. Thread-safe.

    Args:
        path: read on first use; created by the first `add`.
        dataset: only lines of this dataset are used.
    """

    def __init__(self, path: Path, dataset: str) -> None:
        self._path = path
        self._dataset = dataset
        self._hashes: set[int] | None = None
        self._lock = threading.Lock()

    def add(self, hashes: Iterable[Any]) -> None:
        """Never raises; values that are not integers are ignored."""
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
        """The subset of `hashes` that was not delivered to the trainer."""
        with self._lock:
            return set(hashes) - self._known()

    def _known(self) -> set[int]:
        if self._hashes is None:
            rows: list[dict[str, Any]] = []
            with suppress(OSError):
                rows = read_jsonl(self._path)
            hashes = [row.get("input_hash") for row in rows if row.get("dataset") == self._dataset]
            self._hashes = {value for value in hashes if isinstance(value, int)}
        return self._hashes


def input_hashes(answers: Iterable[Any]) -> list[Any]:
    """Input hash of each answer; None for an answer without one."""
    return [answer.get(INPUT_HASH) for answer in answers if isinstance(answer, dict)]


def find_missing(db: Any, dataset: str, ledger: DeliveryLedger) -> list[Record]:
    """The latest answer for each image that was not delivered to the trainer, oldest first.

    Full examples are read only if a hash is missing, and only those of missing hashes are kept. Examples that are not
    answers about an image (other recipes may share the dataset) are added to the ledger, so that they are not read
    again.
    """
    missing = ledger.missing(read_input_hashes(db, [dataset]))
    if not missing:
        return []
    latest: dict[Any, Record] = {}
    for example in iter_dataset(db, dataset):
        value = example.get(INPUT_HASH)
        if value in missing:
            latest.pop(value, None)
            latest[value] = example
    answers = [example for example in latest.values() if _is_about_boxes(example)]
    ledger.add(missing.difference(input_hashes(answers)))
    return answers


def redeliver(
    answers: Sequence[Record],
    ledger: DeliveryLedger,
    write: Callable[[Sequence[Record]], object],
    *,
    lock: AbstractContextManager[Any],
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Pass answers to `write` in chunks of `CHUNK` and record them in the ledger.

    Args:
        lock: shared with all writers, held across each check of the ledger and the write: an answer that arrives
            in between is newer and must not be overwritten.
        stop: polled before each chunk; True ends the loop.

    Returns:
        The number of answers passed to `write`.

    Raises:
        Anything that `write` raises. The remaining answers are delivered at the next start.
    """
    done = 0
    for start in range(0, len(answers), CHUNK):
        if stop():
            break
        chunk = answers[start : start + CHUNK]
        with lock:
            missing = ledger.missing(example[INPUT_HASH] for example in chunk)
            undelivered = [example for example in chunk if example[INPUT_HASH] in missing]
            if undelivered:
                write(undelivered)
                ledger.add(missing)
        done += len(undelivered)
    return done


def _is_about_boxes(example: Record) -> bool:
    has_image = any(isinstance(example.get(key), str) for key in ("image", "path"))
    has_boxes = example.get("_view_id") == _VIEW or isinstance(example.get("spans"), list)
    return has_image and has_boxes and example.get("answer") in DECISIONS
