"""Processes a shard, in whichever process the executor chose."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from odkeras.bulk.job import Entry, Shard, line_of, read_entries
from odkeras.bulk.store import open_store

Refuse = Callable[[str, str], None]
"""Called with the image and the reason why it cannot be used."""
Process = Callable[[Iterable[Entry], Path, Refuse], int]
"""Processes the images of a shard, writes the file at the path, and returns the number of objects in it."""


class Stopped(Exception):
    """The work was stopped between two images."""


class Transform(Protocol):
    """What is done with the images: hashable and picklable values, from which each worker makes its `Process`."""

    def load(self) -> Process:
        """Called once in each worker process, for example to load a model."""


@dataclass(frozen=True)
class ShardReport:
    """What was done.

    Args:
        images: number of images read, with the refused ones.
        refused: number of lines in the file of refused images.
        objects: number of objects written.
        cpu_s: seconds of CPU time of this process and its threads.
    """

    images: int
    refused: int
    objects: int
    cpu_s: float


_loaded: dict[Transform, Process] = {}
_lock = threading.Lock()


def loaded(transform: Transform) -> Process:
    """The process of a transform, loaded once in this Python process: runners of Beam call from several threads."""
    with _lock:
        if transform not in _loaded:
            _loaded[transform] = transform.load()
        return _loaded[transform]


def run_shard(
    place: str, shard: Shard, transform: Transform, *, should_stop: Callable[[], bool] = lambda: False
) -> ShardReport:
    """Process a shard and write its files. A second call writes the same files again.

    Args:
        place: the folder of the job.
        should_stop: asked before each image.

    Raises:
        Stopped: `should_stop` returned True; nothing was written.
        OdkerasError: the model cannot be loaded, or the folder cannot be read or written.
    """
    process = loaded(transform)
    started_s = time.process_time()
    store = open_store(place)
    refused: list[Entry] = []
    with ExitStack() as stack:  # renames at the end, in the reverse order
        path = stack.enter_context(store.write(shard.name))
        objects = process(
            _until_stopped(read_entries(store, shard), should_stop),
            path,
            lambda image, reason: refused.append({"image": image, "reason": reason}),
        )
        if refused:
            stack.enter_context(store.write(shard.refused_name)).write_bytes(b"".join(map(line_of, refused)))
        else:
            store.delete(shard.refused_name)
    return ShardReport(shard.images, len(refused), objects, time.process_time() - started_s)


def _until_stopped(entries: Iterable[Entry], should_stop: Callable[[], bool]) -> Iterator[Entry]:
    for entry in entries:
        if should_stop():
            raise Stopped
        yield entry
