"""A lazy stream of tasks with the newest model's suggestions.

    source ──► items ──► (exclude) ──► read ──► (exclude, prepare) ──► Suggester, a few tasks at a time ──► host

Images are read and predicted only on `next`, and images that are known to have an answer are not read at all. Tasks are
predicted in small batches, which is faster. If a newer version is served before a task is fetched, it is predicted
again. While the server is down, tasks have no suggestions. Broken images are skipped and reported.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from odkeras.annotation import Task
from odkeras.errors import ImageError, error_reason
from odkeras.session.order import Order
from odkeras.session.reader import ImageReader
from odkeras.session.remaining import Remaining
from odkeras.session.sources import STDIN, Item, OnSkip, Source, open_source

READ_AHEAD_S = 0.5
_MAX_SOURCE = 200  # characters of a path or URL in a message

Prepare = Callable[[Task], Task | None]


class Suggesting(Protocol):
    """The part of `Suggester` that the stream uses."""

    batch_size: int

    def __call__(self, tasks: Sequence[Task]) -> list[Task]: ...

    def is_fresh(self, task: Task) -> bool: ...


class _OneAtATime:
    """A suggester that several threads may call."""

    def __init__(self, suggester: Suggesting) -> None:
        self.batch_size = suggester.batch_size
        self._suggester = suggester
        self._lock = threading.Lock()

    def __call__(self, tasks: Sequence[Task]) -> list[Task]:
        with self._lock:
            return self._suggester(tasks)

    def is_fresh(self, task: Task) -> bool:
        with self._lock:
            return self._suggester.is_fresh(task)


class TaskStream:
    """Iterator of tasks. Thread-safe, because Prodigy calls `next` from several threads; a lock serialises the calls.

    Args:
        source: see `sources.open_source`.
        suggester: adds suggestions to a batch of tasks; returns as many tasks, in the same order.
        reader: reads the images, and stores those whose tasks are returned; None = one without URLs and without store.
        exclude: `image_id`s to leave out. Checked again for every task, so the collection may grow meanwhile.
        prepare: called with every task before it has suggestions; returns the task, or None to leave it out. (Prodigy's
            `set_hashes` belongs here, because hashes must not depend on the suggestions.)
        on_skip: callback with name and reason of every image that cannot be used.
        order: order of the images; None = that of the source.

    Attributes:
        reader: as given.
        total: number of items in the source; None if unknown.
        excluded: number of images left out so far.
        skipped: number of images so far that could not be used.
        remaining: counts the images without an answer.
        is_taken: whether another process annotates an image; such an image is counted, but not returned. May be set.

    Raises:
        ConfigError: see `sources.open_source`.
    """

    def __init__(
        self,
        source: Source,
        suggester: Suggesting,
        reader: ImageReader | None = None,
        *,
        exclude: Collection[str] = (),
        prepare: Prepare | None = None,
        on_skip: OnSkip | None = None,
        order: Order | None = None,
    ) -> None:
        order = order or Order()
        self.reader = reader or ImageReader()
        self.excluded = 0
        self.skipped = 0
        self._on_skip = on_skip or (lambda name, reason: None)
        self._suggester = _OneAtATime(suggester)
        self._exclude = exclude
        self.is_taken: Callable[[str], bool] = lambda image_id: False
        self._source = source
        items, self.total = open_source(source, on_skip=self._lose)
        self.remaining = Remaining(self.total)
        self._prepare = prepare or (lambda task: task)
        bare = (task for item in order.arrange(items) if (task := self._load(item)) is not None)
        self._tasks = SuggestedTasks(bare, self._suggester, look_ahead=order.look_ahead, choose=order.chooser())
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        with self._lock:
            for task in self._tasks:
                # It may have been answered or taken since it was read.
                if not self._is_excluded(task.image_id) and not self.is_taken(task.image_id):
                    return task
            raise StopIteration

    @property
    def is_large_file(self) -> bool:
        """Whether the source is a JSONL file too large to count its lines, so that `total` is None."""
        is_file = isinstance(self._source, (str, Path)) and str(self._source) != STDIN
        return is_file and self.total is None

    def suggest_again(self, tasks: Sequence[Task]) -> list[Task]:
        """Tasks that were returned before, with suggestions of the newest model; unchanged while none is served.

        Args:
            tasks: tasks that contain their images.
        """
        return self._suggester(tasks) if tasks else []  # not under the lock: it is held while a URL is fetched

    def items(self) -> Iterator[Item]:
        """Yields all items of the source, in its order; none if `total` is None, as for a source that can be read only
        once."""
        if self.total is not None:
            yield from open_source(self._source, on_skip=lambda name, reason: None)[0]

    def read(self, item: Item) -> Task:
        """The task of one image, out of order and without suggestions. Images that have an answer are not left out.

        Raises:
            ImageError: the image cannot be read, or `prepare` left it out, because another dataset has an answer.
        """
        task = self.reader.read(item)
        prepared = self._prepare(task)
        is_left = prepared is not None and task.image_id not in self._exclude
        self.remaining.found(item.number, task.image_id if is_left else None)
        if prepared is None:
            raise ImageError("another dataset has an answer about this image", item.name)
        self.reader.keep(prepared)
        return prepared

    def look_up(self, files: Collection[str], *, stop: Callable[[], bool] = lambda: False) -> None:
        """Update `remaining` for the images with these file names now, because they may have answers.

        Only images that no earlier run has read are read; URLs are not fetched. Does nothing if `total` is None.

        Args:
            files: file names, as in `Item.file`.
            stop: polled before each image; True ends the call.
        """
        if self.total is None:
            return
        for item in open_source(self._source, on_skip=lambda name, reason: None)[0]:
            if stop():
                return
            if item.file in files and not self.remaining.knows(item.number):
                self._look_up(item)

    def _look_up(self, item: Item) -> None:
        try:
            image_id = self.reader.ids.id_of(item.fingerprint) or self.reader.read(item, fetch=False).image_id
        except Exception:  # reported when the stream reaches the image
            return
        self.remaining.found(item.number, None if image_id in self._exclude else image_id)

    def _lose(self, name: str, reason: str) -> None:
        self.remaining.lost()
        self._skip(name, reason)

    def _skip(self, name: str, reason: str) -> None:
        self.skipped += 1
        self._on_skip(name, reason)

    def _load(self, item: Item) -> Task | None:
        """The task of an item; None if it is not wanted or cannot be used. Never raises: an exception would end the
        generator that calls it, and with it the stream, as if all images were answered."""
        try:
            task = self._load_if_wanted(item)
        except ImageError as error:
            self._skip(*_place_and_reason(item, error))
            task = None
        except Exception as error:
            self._skip(item.name, error_reason(error))
            task = None
        self.remaining.found(item.number, None if task is None else task.image_id)
        return task

    def _load_if_wanted(self, item: Item) -> Task | None:
        known = self.reader.ids.id_of(item.fingerprint)
        if self._is_excluded(known) or self._is_elsewhere(item, known):
            return None
        task = self.reader.read(item)
        prepared = self._prepare(task)
        if self._is_excluded(task.image_id) or self._is_elsewhere(item, task.image_id):
            return None
        if prepared is None:
            self.excluded += 1
        else:
            self.reader.keep(prepared)
        return prepared

    def _is_elsewhere(self, item: Item, image_id: str | None) -> bool:
        if image_id is None or not self.is_taken(image_id):
            return False
        self.remaining.found(item.number, image_id)
        return True

    def _is_excluded(self, image_id: str | None) -> bool:
        excluded = image_id is not None and image_id in self._exclude
        self.excluded += excluded
        return excluded


def _place_and_reason(item: Item, error: ImageError) -> tuple[str, str]:
    """For a record: its line, and the image as part of the reason."""
    if item.record is None:
        return error.source or item.name, error.reason
    source = error.source[:_MAX_SOURCE]
    return item.name, f"{source}: {error.reason}" if source and source != item.name else error.reason


class SuggestedTasks:
    """Iterator that adds suggestions to tasks in batches, and again if a newer version is served before they are used.

    Args:
        tasks: tasks without suggestions.
        suggester: adds suggestions to a batch of tasks.
        look_ahead: number of tasks to read and predict before one is returned.
        choose: returns the index of the task to return, given the predicted tasks.
        clock: monotonic clock, for tests.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        suggester: Suggesting,
        *,
        look_ahead: int = 0,
        choose: Callable[[Sequence[Task]], int] = lambda tasks: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look_ahead = look_ahead
        self._choose = choose
        self._clock = clock
        self._source = iter(tasks)
        self._suggester = suggester
        self._batch_size = suggester.batch_size
        self._ended = False
        self._bare: deque[Task] = deque()
        self._suggested: deque[Task] = deque()  # the first ones of `_bare`, with suggestions

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        if self._suggested and not self._suggester.is_fresh(self._suggested[0]):
            self._suggested.clear()
        if not self._suggested or self._wants_more():
            self._read_ahead()
            self._ask()
        if not self._suggested:
            raise StopIteration
        index = self._choose(self._suggested)
        task = self._suggested[index]
        del self._suggested[index], self._bare[index]
        return task

    def _wants_more(self) -> bool:
        """Whether the look-ahead window has room for another batch."""
        return not self._ended and len(self._bare) <= self._look_ahead - self._batch_size

    def _ask(self) -> None:
        """Add suggestions to all tasks of `_bare` that have none yet, in batches."""
        while len(self._suggested) < len(self._bare):
            start = len(self._suggested)
            self._suggested.extend(self._suggester(list(self._bare)[start : start + self._batch_size]))

    def _read_ahead(self) -> None:
        """Fill `_bare` up to a batch or the look-ahead window, for at most `READ_AHEAD_S`: the annotator is waiting.

        At least one task is read, unless the source has ended.
        """
        started = self._clock()
        most = max(self._batch_size, self._look_ahead)
        while len(self._bare) < most and (not self._bare or self._clock() - started < READ_AHEAD_S):
            try:
                self._bare.append(next(self._source))
            except StopIteration:
                self._ended = True
                return
