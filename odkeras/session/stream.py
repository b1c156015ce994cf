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
from contextlib import suppress
from pathlib import Path

from odkeras.config.settings import PREDICT_BATCH_SIZE
from odkeras.errors import ImageError
from odkeras.formats.prodigy import Task
from odkeras.image_store import ImageStore
from odkeras.images import DEFAULT_MAX_PIXELS
from odkeras.session.image_ids import ImageIds
from odkeras.session.order import Order
from odkeras.session.remaining import Remaining
from odkeras.session.sources import STDIN, Fetch, Item, OnSkip, Source, load_task, open_source, read_item_bytes

READ_AHEAD_S = 0.5

Suggest = Callable[[Sequence[Task]], list[Task]]
Prepare = Callable[[Task], Task | None]


class TaskStream:
    """Iterator of tasks. Thread-safe, because Prodigy calls `next` from several threads; a lock serialises the calls.

    Args:
        source: see `sources.open_source`.
        suggest: adds suggestions to a batch of tasks; returns as many tasks, in the same order.
        is_fresh: whether a task's suggestions are those of the newest version; called for every task.
        exclude: `image_id`s to leave out. Checked again for every task, so the collection may grow meanwhile.
        prepare: called with every task before it has suggestions; returns the task, or None to leave it out. (Prodigy's
            `set_hashes` belongs here, because hashes must not depend on the suggestions.)
        on_skip: callback with name and reason of every image that cannot be used.
        fetch: returns the bytes at a URL; None skips images at URLs.
        store: stores every image whose task is returned; None stores none.
        ids: the cache of image ids; None reads every image.
        max_pixels: maximum pixels of an image; larger ones are skipped.
        batch_size: batch size of predictions.
        order: order of the images; None = that of the source.

    Attributes:
        total: number of items in the source; None if unknown.
        excluded: number of images left out so far.
        skipped: number of images so far that could not be used.
        remaining: counts the images without an answer.

    Raises:
        ConfigError: see `sources.open_source`.
    """

    def __init__(
        self,
        source: Source,
        suggest: Suggest,
        *,
        is_fresh: Callable[[Task], bool] = lambda task: True,
        exclude: Collection[str] = (),
        prepare: Prepare | None = None,
        on_skip: OnSkip | None = None,
        fetch: Fetch | None = None,
        store: ImageStore | None = None,
        ids: ImageIds | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        batch_size: int = PREDICT_BATCH_SIZE,
        order: Order | None = None,
    ) -> None:
        order = order or Order()
        self.excluded = 0
        self.skipped = 0
        self._on_skip = on_skip or (lambda name, reason: None)
        self._suggest = suggest
        self._exclude = exclude
        self._fetch, self._store, self._ids, self._max_pixels = fetch, store, ids, max_pixels
        self._source = source
        items, self.total = open_source(source, on_skip=self._lose)
        self.remaining = Remaining(self.total)
        self._prepare = prepare or (lambda task: task)
        bare = (task for item in order.arrange(items) if (task := self._load(item)) is not None)
        self._tasks = SuggestedTasks(
            bare, suggest, is_fresh, batch_size=batch_size, look_ahead=order.look_ahead, choose=order.chooser()
        )
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        with self._lock:
            for task in self._tasks:
                if not self._is_excluded(task.get("image_id")):  # it may have been answered since it was read
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
        with self._lock:
            return self._suggest(tasks) if tasks else []

    def items(self) -> Iterator[Item]:
        """Yields all items of the source, in its order; none if `total` is None, as for a source that can be read only
        once."""
        if self.total is not None:
            yield from open_source(self._source, on_skip=lambda name, reason: None)[0]

    def id_of(self, fingerprint: str | None) -> str | None:
        """The id of the image with this fingerprint; None if the image has not been read yet."""
        return self._ids.id_of(fingerprint) if self._ids is not None else None

    def noted_after(self, number: int) -> list[tuple[str, str]]:
        """See `ImageIds.noted_after`."""
        return self._ids.noted_after(number) if self._ids is not None else []

    def read(self, item: Item) -> Task:
        """The task of one image, out of order and without suggestions. Images that have an answer are not left out.

        Raises:
            ImageError: the image cannot be read, or `prepare` left it out, because another dataset has an answer.
        """
        task, image = load_task(item, fetch=self._fetch, max_pixels=self._max_pixels)
        prepared = self._prepare(task)
        if self._ids is not None:
            self._ids.note(item.fingerprint, image.image_id)
        is_left = prepared is not None and image.image_id not in self._exclude
        self.remaining.found(item.number, image.image_id if is_left else None)
        if prepared is None:
            raise ImageError("another dataset has an answer about this image", item.name)
        if self._store is not None:
            with suppress(OSError):  # disk full: the answer will contain the image instead
                self._store.put(image)
        return prepared

    def read_bytes(self, item: Item) -> bytes:
        """See `sources.read_item_bytes`."""
        return read_item_bytes(item, fetch=self._fetch)

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
        fingerprint = item.fingerprint
        image_id = self._ids.id_of(fingerprint) if self._ids is not None else None
        if image_id is None:
            try:
                image_id = load_task(item, max_pixels=self._max_pixels)[1].image_id
            except Exception:  # reported when the stream reaches the image
                return
            if self._ids is not None:
                self._ids.note(fingerprint, image_id)
        self.remaining.found(item.number, None if image_id in self._exclude else image_id)

    def _lose(self, name: str, reason: str) -> None:
        self.remaining.lost()
        self._skip(name, reason)

    def _skip(self, name: str, reason: str) -> None:
        self.skipped += 1
        self._on_skip(name, reason)

    def _load(self, item: Item) -> Task | None:
        task = self._load_if_wanted(item)
        self.remaining.found(item.number, None if task is None else str(task["image_id"]))
        return task

    def _load_if_wanted(self, item: Item) -> Task | None:
        fingerprint = item.fingerprint if self._ids is not None else None
        if self._ids is not None and self._is_excluded(self._ids.id_of(fingerprint)):
            return None
        try:
            task, image = load_task(item, fetch=self._fetch, max_pixels=self._max_pixels)
            prepared = self._prepare(task)
        except ImageError as error:
            self._skip(error.source or item.name, error.reason)
            return None
        except Exception as error:  # one bad image must not end the stream
            self._skip(item.name, f"{type(error).__name__}: {error}")
            return None
        if self._ids is not None:
            self._ids.note(fingerprint, image.image_id)
        if self._is_excluded(image.image_id):
            return None
        if prepared is None:
            self.excluded += 1
        elif self._store is not None:
            with suppress(OSError):  # disk full: the answer will contain the image instead
                self._store.put(image)
        return prepared

    def _is_excluded(self, image_id: str | None) -> bool:
        excluded = image_id is not None and image_id in self._exclude
        self.excluded += excluded
        return excluded


class SuggestedTasks:
    """Iterator that adds suggestions to tasks in batches, and again if a newer version is served before they are used.

    Args:
        tasks: tasks without suggestions.
        suggest: adds suggestions to a batch of tasks.
        is_fresh: whether a task's suggestions are those of the newest version.
        batch_size: batch size.
        look_ahead: number of tasks to read and predict before one is returned.
        choose: returns the index of the task to return, given the predicted tasks.
        clock: monotonic clock, for tests.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        suggest: Suggest,
        is_fresh: Callable[[Task], bool],
        *,
        batch_size: int = PREDICT_BATCH_SIZE,
        look_ahead: int = 0,
        choose: Callable[[Sequence[Task]], int] = lambda tasks: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look_ahead = look_ahead
        self._choose = choose
        self._clock = clock
        self._source = iter(tasks)
        self._suggest = suggest
        self._is_fresh = is_fresh
        self._batch_size = batch_size
        self._ended = False
        self._bare: deque[Task] = deque()
        self._suggested: deque[Task] = deque()  # the first ones of `_bare`, with suggestions

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        if self._suggested and not self._is_fresh(self._suggested[0]):
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
            self._suggested.extend(self._suggest(list(self._bare)[start : start + self._batch_size]))

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
