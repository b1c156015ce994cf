"""The recipe's SOURCE argument, and which of its images were already answered."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from odkeras.annotation import Task
from odkeras.formats.prodigy import Record
from odkeras.image_ref import is_url
from odkeras.integrations.prodigy.api import INPUT_HASH, ProdigyApi, iter_dataset, read_input_hashes
from odkeras.session.arguments import choose_examples, split_dataset
from odkeras.session.sources import STDIN, Source, resolve_source


def open_recipe_source(source: Any, api: str | None, prodigy: ProdigyApi) -> Source:
    """Turn the recipe's SOURCE into one that the stream can read. SOURCE is a directory, an image, a JSONL file, "-" or
    None for standard input, `dataset:NAME` or `dataset:NAME:accept`, an iterable, or (with `api`) the argument of one
    of Prodigy's API loaders.

    Raises:
        ConfigError: the source does not exist, is empty or has an unsupported type.
    """
    if api:
        return prodigy.open_api(source, api)
    if source is None or source == STDIN:
        return STDIN
    if (chosen := split_dataset(source)) is not None:
        db = prodigy.connect()
        names = [str(name) for name in getattr(db, "datasets", None) or ()]
        return choose_examples(chosen, list(iter_dataset(db, chosen[0])), known=names)
    return resolve_source(source)


class AnsweredImages(Collection[str]):
    """Already answered images, queried by `image_id`. Empty until `load` is called."""

    def __init__(self, prodigy: ProdigyApi) -> None:
        self._prodigy = prodigy
        self._hashes: set[int] = set()

    def load(self, db: Any, names: Collection[str]) -> None:
        """Add the answered images of the datasets."""
        self._hashes |= read_input_hashes(db, list(names))

    def __contains__(self, image_id: object) -> bool:
        return bool(self._hashes) and self._prodigy.hashes(str(image_id))[INPUT_HASH] in self._hashes

    def __iter__(self) -> Iterator[str]:  # only hashes are known, so the ids cannot be listed
        return iter(())

    def __len__(self) -> int:
        return len(self._hashes)

    def has_elsewhere(self, task: Task) -> bool:
        """Whether the task was answered in another recipe, which hashes it differently: image.manual and the 2019
        recipe hash the data URI (newer versions perhaps the path) and the file name, with or without its suffix."""
        if not self._hashes:
            return False
        images = [task.image if isinstance(task.image, str) else task.image.data_uri]
        if task.path is not None:
            images.append(task.path)
            if not is_url(task.path):  # our paths are absolute; other recipes keep relative ones
                images.append(os.path.relpath(task.path))
        texts: list[Record] = [{}, {"text": task.file}, {"text": Path(task.file).stem}]
        candidates = ({"image": image, **text} for image in images for text in texts)
        return any(self._prodigy.input_hash(candidate) in self._hashes for candidate in candidates)


class Progress:
    """Share of the source that is answered. Thread-safe."""

    def __init__(self) -> None:
        self._answered: set[str] = set()
        self._lock = threading.Lock()

    def add(self, answers: Collection[Record]) -> None:
        with self._lock:
            ids = (answer.get("image_id") for answer in answers if isinstance(answer, dict))
            self._answered.update(image_id for image_id in ids if isinstance(image_id, str))

    def share(self, total: int | None, done_before: int, skipped: int) -> float | None:
        """Progress from 0 to 1; None if the length of the source is unknown, which Prodigy shows as infinite."""
        if not total:
            return None
        with self._lock:
            return min(1.0, (len(self._answered) + done_before + skipped) / total)
