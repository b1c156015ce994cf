"""A lazy stream of tasks with the newest model's suggestions.

    source ──► items ──► (exclude) ──► read ──► (exclude, prepare) ──► Suggester, a few tasks at a time ──► host

Nothing is read or predicted before the host asks for it, and an image that is known to be answered is not even read. A
few tasks are predicted together, because a model is faster that way; one that was not fetched before a newer version
came is predicted again when it is. While the server is away tasks go out without suggestions; a broken image is skipped
and reported.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from odkeras.errors import ImageError
from odkeras.formats.prodigy import Task
from odkeras.image_store import ImageStore
from odkeras.images import DEFAULT_MAX_PIXELS
from odkeras.loop.image_ids import ImageIds
from odkeras.loop.order import Order
from odkeras.loop.remaining import Remaining
from odkeras.loop.sources import STDIN, Fetch, Item, OnSkip, Source, load_task, open_source, read_item_bytes

PREDICT_TOGETHER = 5
READ_AHEAD_S = 0.5

Suggest = Callable[[Sequence[Task]], list[Task]]
Prepare = Callable[[Task], Task | None]


class TaskStream:
    """Iterator of tasks; safe to call from several threads, one at a time, as Prodigy does.

    Args:
        source: see `sources.open_source`.
        suggest: adds suggestions to a few tasks; gives as many tasks back, in the same order.
        is_fresh: whether a task's suggestions are still the best there are; asked for every task.
        exclude: `image_id`s of tasks to leave out, asked again for every task (a set that grows while streaming is
            fine).
        prepare: applied to every task before it has suggestions (Prodigy's `set_hashes` belongs here: hashes must not
            change as the model learns); None leaves it out.
        on_skip: told name and reason of every image that cannot be used.
        fetch: gets the bytes of a URL; images behind URLs are skipped when None.
        store: gets every image that is handed out.
        ids: remembers the ids of the images.
        together: how many tasks are predicted at once.
        order: in which order the images come.

    Attributes:
        total: images in the source; None where that cannot be told.
        excluded: images left out so far.
        skipped: images that could not be used so far.
        remaining: which images are left to be answered.

    Raises:
        ConfigError: as `sources.open_source`.
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
        together: int = PREDICT_TOGETHER,
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
            bare, suggest, is_fresh, together=together, look_ahead=order.look_ahead, choose=order.chooser()
        )
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        with self._lock:
            for task in self._tasks:
                if not self._is_excluded(task.get("image_id")):  # by now
                    return task
            raise StopIteration

    @property
    def is_large_file(self) -> bool:
        """Whether the source is a file that takes long to read; then it has no `total`."""
        is_file = isinstance(self._source, (str, Path)) and str(self._source) != STDIN
        return is_file and self.total is None

    def suggest_again(self, tasks: Sequence[Task]) -> list[Task]:
        """Tasks that were handed out before, with what the newest model says; as they are while there is none.

        Args:
            tasks: with their images.
        """
        with self._lock:
            return self._suggest(tasks) if tasks else []

    def items(self) -> Iterator[Item]:
        """All items of the source, in its order; none where the source is a stream that can be read only once."""
        if self.total is not None:
            yield from open_source(self._source, on_skip=lambda name, reason: None)[0]

    def id_of(self, fingerprint: str | None) -> str | None:
        """The id of the image with this fingerprint; None if it has not been read yet."""
        return self._ids.id_of(fingerprint) if self._ids is not None else None

    def noted_after(self, number: int) -> list[tuple[str, str]]:
        """See `ImageIds.noted_after`."""
        return self._ids.noted_after(number) if self._ids is not None else []

    def read(self, item: Item) -> Task:
        """The task of one image out of its turn, without suggestions, also if it is answered already.

        Raises:
            ImageError: it cannot be read, or other datasets have it.
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
            with suppress(OSError):  # a full disk: the answer will bring the image along
                self._store.put(image)
        return prepared

    def read_bytes(self, item: Item) -> bytes:
        """See `sources.read_item_bytes`."""
        return read_item_bytes(item, fetch=self._fetch)

    def look_up(self, files: Collection[str], *, stop: Callable[[], bool] = lambda: False) -> None:
        """Tell `remaining` now, and not when their turn comes, of the images with these names: they may be answered.

        Only those are read that no earlier run has read; nothing is fetched. Where the source has no length nothing is
        done.

        Args:
            stop: asked before each image; True ends it.
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
            except Exception:  # it is told of when its turn comes
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
        except Exception as error:  # whatever it is, the other images are still there
            self._skip(item.name, f"{type(error).__name__}: {error}")
            return None
        if self._ids is not None:
            self._ids.note(fingerprint, image.image_id)
        if self._is_excluded(image.image_id):
            return None
        if prepared is None:
            self.excluded += 1
        elif self._store is not None:
            with suppress(OSError):  # a full disk: the answer will bring the image along
                self._store.put(image)
        return prepared

    def _is_excluded(self, image_id: str | None) -> bool:
        found = image_id is not None and image_id in self._exclude
        self.excluded += found
        return found


class SuggestedTasks:
    """Suggestions for up to `together` tasks at once; again for those that were not fetched while they were fresh.

    Args:
        look_ahead: read and predict so many before one is given out.
        choose: the index of the one to give out, of those that are predicted.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        suggest: Suggest,
        is_fresh: Callable[[Task], bool],
        *,
        together: int = PREDICT_TOGETHER,
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
        self._together = together
        self._ended = False
        self._bare: deque[Task] = deque()
        self._suggested: deque[Task] = deque()  # what was said about the first ones of `_bare`

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
        """Whether there is room for as many as are predicted together."""
        return not self._ended and len(self._bare) <= self._look_ahead - self._together

    def _ask(self) -> None:
        """About all that nothing has been said about."""
        while len(self._suggested) < len(self._bare):
            start = len(self._suggested)
            self._suggested.extend(self._suggest(list(self._bare)[start : start + self._together]))

    def _read_ahead(self) -> None:
        """As many as are predicted together, but of a slow source what is there: somebody waits."""
        started = self._clock()
        most = max(self._together, self._look_ahead)
        while len(self._bare) < most and (not self._bare or self._clock() - started < READ_AHEAD_S):
            try:
                self._bare.append(next(self._source))
            except StopIteration:
                self._ended = True
                return
