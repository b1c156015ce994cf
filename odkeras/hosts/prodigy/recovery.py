"""Answers that are in Prodigy's database and not in the data directory: lost on the way, or given before there was one.

Prodigy stores answers and calls `update` one after the other; it may be killed in between, and a disk may be full. The
images would not be asked for again, and never be trained on.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from odkeras.hosts.prodigy.api import INPUT_HASH, read_dataset, read_input_hashes
from odkeras.project import read_jsonl
from odkeras.tasks import Task

TOGETHER = 10


class AnsweredLedger:
    """Which answers, by Prodigy's input hash, have been handed to the trainer: a file of JSON lines.

    A line that is lost costs training once more on the same answer.

    Args:
        path: read when first asked; made when something is added.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hashes: set[int] | None = None
        self._lock = threading.Lock()

    def add(self, answers: Collection[Task]) -> None:
        """Never raises."""
        found = [answer.get(INPUT_HASH) for answer in answers if isinstance(answer, dict)]
        with self._lock:
            new = {value for value in found if isinstance(value, int)} - self._known()
            self._known().update(new)
            with suppress(OSError):
                if new:
                    with self._path.open("a", encoding="ascii") as file:
                        file.writelines(json.dumps({"input_hash": value}) + "\n" for value in new)

    def missing(self, hashes: Collection[int]) -> set[int]:
        """Those of `hashes` that have not been handed on."""
        with self._lock:
            return set(hashes) - self._known()

    def _known(self) -> set[int]:
        if self._hashes is None:
            rows: list[dict[str, Any]] = []
            with suppress(OSError):
                rows = read_jsonl(self._path)
            self._hashes = {row["input_hash"] for row in rows if isinstance(row.get("input_hash"), int)}
        return self._hashes


def recover_answers(
    db: Any,
    dataset: str,
    ledger: AnsweredLedger,
    write: Callable[[Sequence[Task]], object],
    *,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Hand the latest answer about each image that the ledger does not know to `write`, and note it.

    The database is asked for hashes alone, unless something is missing.

    Returns:
        How many answers were handed on.

    Raises:
        whatever `write` and the database do; what is missing is handed on at the next start then.
    """
    missing = ledger.missing(read_input_hashes(db, [dataset]))
    if not missing:
        return 0
    latest = {example.get(INPUT_HASH): example for example in read_dataset(db, dataset)}
    answers = [latest[value] for value in missing if value in latest and _is_about_an_image(latest[value])]
    for start in range(0, len(answers), TOGETHER):
        if stop():
            return start
        write(answers[start : start + TOGETHER])
    ledger.add([{INPUT_HASH: value} for value in missing])
    return len(answers)


def _is_about_an_image(example: Task) -> bool:
    has_image = any(isinstance(example.get(key), str) for key in ("image", "path"))
    return has_image and example.get("answer") in ("accept", "reject", "ignore")
