"""What the annotator is asked about: the recipe's SOURCE, without what has been answered before."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from odkeras.annotation import DECISIONS
from odkeras.errors import ConfigError
from odkeras.formats.prodigy import Task
from odkeras.hosts.prodigy.api import ProdigyApi, read_dataset, read_input_hashes
from odkeras.loop.sources import STDIN, Source, resolve_source

DATASET_SOURCE = "dataset:"


def split_list(text: str | None) -> list[str] | None:
    """The parts of a comma-separated list, or the lines of the text file of that name; None for nothing."""
    if not text:
        return None
    path = Path(text)
    with suppress(OSError, ValueError):  # too long for a name, or not a text
        text = ",".join(path.read_text(encoding="utf-8-sig").splitlines()) if path.is_file() else text
    return split_commas(text)


def split_commas(text: str | None) -> list[str] | None:
    """The parts of a comma-separated list; None for nothing."""
    return [part.strip() for part in (text or "").split(",") if part.strip()] or None


def open_recipe_source(source: Any, api: str | None, prodigy: ProdigyApi) -> Source:
    """The recipe's SOURCE as one that the stream reads: directory, image, JSONL file, "-" or nothing for standard
    input, `dataset:NAME` or `dataset:NAME:accept`, an iterable, or (with `api`) one of Prodigy's API loaders.

    Raises:
        ConfigError: nothing is there, or nothing that can be a source.
    """
    if api:
        return prodigy.open_api(source, api)
    if source is None or source == STDIN:
        return STDIN
    if isinstance(source, str) and source.startswith(DATASET_SOURCE):
        return _tasks_of_dataset(source.removeprefix(DATASET_SOURCE), prodigy)
    return resolve_source(source)


def _tasks_of_dataset(name: str, prodigy: ProdigyApi) -> list[Task]:
    name, _, decision = name.partition(":")
    if decision and decision not in DECISIONS:
        raise ConfigError(f"source dataset:{name}:{decision}: the answer must be one of {', '.join(DECISIONS)}")
    examples = read_dataset(prodigy.connect(), name)
    chosen = [example for example in examples if not decision or example.get("answer") == decision]
    if not chosen:
        raise ConfigError(f"source dataset:{name}:{decision}: none of its {len(examples)} examples has that answer")
    return chosen


class AnsweredImages(Collection[str]):
    """The images that need not be asked for again, by `image_id`. Empty until `load` is called."""

    def __init__(self, prodigy: ProdigyApi) -> None:
        self._prodigy = prodigy
        self._hashes: set[int] = set()

    def load(self, db: Any, names: Collection[str]) -> None:
        """Take what the datasets hold."""
        self._hashes |= read_input_hashes(db, list(names))

    def __contains__(self, image_id: object) -> bool:
        return bool(self._hashes) and self._prodigy.input_hash_of(str(image_id)) in self._hashes

    def __iter__(self) -> Iterator[str]:  # hashes only are known
        return iter(())

    def __len__(self) -> int:
        return len(self._hashes)

    def has_elsewhere(self, task: Task) -> bool:
        """Whether another recipe's hash of the task is known: image.manual and the 2019 recipe hash the data URI (newer
        versions perhaps the path) and the file name, with or without its ending."""
        if not self._hashes:
            return False
        file = str(task["meta"]["file"])
        images = [task[key] for key in ("image", "path") if key in task]
        if "://" not in str(task.get("path") or "://"):  # tasks have absolute paths; other recipes as they were typed
            images.append(os.path.relpath(task["path"]))
        texts: list[Task] = [{}, {"text": file}, {"text": Path(file).stem}]
        candidates = ({"image": image, **text} for image in images for text in texts)
        return any(self._prodigy.input_hash(candidate) in self._hashes for candidate in candidates)


class Progress:
    """How much of the source is answered. May be used by several threads."""

    def __init__(self) -> None:
        self._answered: set[str] = set()
        self._lock = threading.Lock()

    def add(self, answers: Collection[Task]) -> None:
        with self._lock:
            ids = (answer.get("image_id") for answer in answers if isinstance(answer, dict))
            self._answered.update(image_id for image_id in ids if isinstance(image_id, str))

    def share(self, total: int | None, done_before: int, skipped: int) -> float | None:
        """0 to 1; None, which Prodigy shows as infinite, where the source has no length."""
        if not total:
            return None
        with self._lock:
            return min(1.0, (len(self._answered) + done_before + skipped) / total)
