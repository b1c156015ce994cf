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
from typing import Protocol

import numpy as np

from odkeras.boxes import Detections
from odkeras.errors import ImageError, RequestError, ServerUnavailableError, ServingError
from odkeras.image_store import ImageStore
from odkeras.images import DEFAULT_MAX_PIXELS, bytes_from_data_uri
from odkeras.labels import LabelMap
from odkeras.loop.image_ids import ImageIds
from odkeras.loop.sources import Fetch, Item, OnSkip, Source, load_task, open_source
from odkeras.tasks import Task, with_suggestions

PREDICT_TOGETHER = 5
READ_AHEAD_S = 0.5
ASK_AGAIN_AFTER_S = 1.0

Suggest = Callable[[Sequence[Task]], list[Task]]
Prepare = Callable[[Task], Task | None]


class Predictor(Protocol):
    """The part of `serving.client.ServingClient` that the stream uses."""

    def available_version(self) -> int | None: ...

    def predict(self, images: Sequence[bytes], *, batch_size: int, version: int | None) -> list[Detections]: ...


class TaskStream:
    """Iterator of tasks; safe to call from several threads, one at a time, as Prodigy does.

    Args:
        source: see `sources.open_source`.
        suggest: adds suggestions to a few tasks; gives as many tasks back, in the same order.
        is_fresh: whether what `suggest` said last is still the best there is; asked for every task.
        exclude: `image_id`s of tasks to leave out, asked again for every task (a set that grows while streaming is
            fine).
        prepare: applied to every task before it has suggestions (Prodigy's `set_hashes` belongs here: hashes must not
            change as the model learns); None leaves it out.
        on_skip: told name and reason of every image that cannot be used.
        fetch: gets the bytes of a URL; images behind URLs are skipped when None.
        store: gets every image that is handed out.
        ids: remembers the ids of the images.
        together: how many tasks are predicted at once.

    Attributes:
        total: images in the source; None where that cannot be told.
        excluded: images left out so far.
        skipped: images that could not be used so far.

    Raises:
        ConfigError: as `sources.open_source`.
    """

    def __init__(
        self,
        source: Source,
        suggest: Suggest,
        *,
        is_fresh: Callable[[], bool] = lambda: True,
        exclude: Collection[str] = (),
        prepare: Prepare | None = None,
        on_skip: OnSkip | None = None,
        fetch: Fetch | None = None,
        store: ImageStore | None = None,
        ids: ImageIds | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        together: int = PREDICT_TOGETHER,
    ) -> None:
        self.excluded = 0
        self.skipped = 0
        self._on_skip = on_skip or (lambda name, reason: None)
        self._exclude = exclude
        self._fetch, self._store, self._ids, self._max_pixels = fetch, store, ids, max_pixels
        items, self.total = open_source(source, on_skip=self._skip)
        self._prepare = prepare or (lambda task: task)
        bare = (task for item in items if (task := self._load(item)) is not None)
        self._tasks = SuggestedTasks(bare, suggest, is_fresh, together=together)
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        with self._lock:
            for task in self._tasks:
                if not self._is_excluded(task.get("image_id")):  # by now
                    return task
            raise StopIteration

    def _skip(self, name: str, reason: str) -> None:
        self.skipped += 1
        self._on_skip(name, reason)

    def _load(self, item: Item) -> Task | None:
        fingerprint = item.fingerprint if self._ids is not None else None
        if self._ids is not None and self._is_excluded(self._ids.id_of(fingerprint)):
            return None
        try:
            task, image = load_task(item, fetch=self._fetch, max_pixels=self._max_pixels)
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
        prepared = self._prepare(task)
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
    """Suggestions for up to `together` tasks at once; again for those that were not fetched while they were fresh."""

    def __init__(
        self,
        tasks: Iterable[Task],
        suggest: Suggest,
        is_fresh: Callable[[], bool],
        *,
        together: int = PREDICT_TOGETHER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._source = iter(tasks)
        self._suggest = suggest
        self._is_fresh = is_fresh
        self._together = together
        self._bare: deque[Task] = deque()
        self._suggested: deque[Task] = deque()

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        if not self._suggested or not self._is_fresh():
            self._ask()
        self._bare.popleft()
        return self._suggested.popleft()

    def _ask(self) -> None:
        self._read_ahead()
        if not self._bare:
            raise StopIteration
        self._suggested = deque(self._suggest(list(self._bare)))

    def _read_ahead(self) -> None:
        """Up to `together` tasks, but of a slow source what is there: somebody waits."""
        started = self._clock()
        while len(self._bare) < self._together and (not self._bare or self._clock() - started < READ_AHEAD_S):
            try:
                self._bare.append(next(self._source))
            except StopIteration:
                return


class Suggester:
    """Adds what the newest served model says to tasks; never raises because of the server.

    After a failed attempt the server is left alone for `ask_again_after_s`, so that an absent server slows nobody down.

    Args:
        predictor: asks the server for detections.
        label_map: names of the classes.
        threshold: suggestions below this score are left out.
        use_display_name: show display names rather than names.
        classes: ids of the classes to suggest; all of the label map when None.
        available_version: asked before every prediction, so it should answer soon; the predictor's when None.
        on_problem: told once when suggestions stop, with the reason, and once ("") when they are back.
        on_suggested: told of every task with its suggestions, and the seconds that its prediction took.
        warn: told, once each, if the model finds what the label map does not have, which is left out, and if the
            server refuses an image.
    """

    def __init__(
        self,
        predictor: Predictor,
        label_map: LabelMap,
        *,
        threshold: float,
        use_display_name: bool = False,
        classes: Collection[int] | None = None,
        available_version: Callable[[], int | None] | None = None,
        on_problem: Callable[[str], None] | None = None,
        on_suggested: Callable[[Task, float], None] | None = None,
        warn: Callable[[str], None] | None = None,
        ask_again_after_s: float = ASK_AGAIN_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._predictor = predictor
        self._available_version = available_version or predictor.available_version
        self._label_map = label_map
        self._threshold = threshold
        self._use_display_name = use_display_name
        self._classes = None if classes is None else np.array(sorted(classes), np.int32)
        self._on_problem = on_problem or (lambda reason: None)
        self._on_suggested = on_suggested or (lambda task, seconds: None)
        self._warn = warn or (lambda problem: None)
        self._ask_again_after_s = ask_again_after_s
        self._clock = clock
        self._problem = ""
        self._warned: set[str] = set()
        self._failed_at: float | None = None
        self._version: int | None = None

    def __call__(self, tasks: Sequence[Task]) -> list[Task]:
        if self._failed_at is not None and self._clock() - self._failed_at < self._ask_again_after_s:
            return list(tasks)
        try:
            suggested = self._suggest(tasks)
        except RequestError as error:  # one of them is to blame: the others need not suffer
            if len(tasks) > 1:
                return [self([task])[0] for task in tasks]
            self._warn_once(
                str(error), f"no suggestions for {tasks[0]['meta']['file']}: the server refuses it: {error}"
            )
            return list(tasks)
        except ServingError as error:
            self._failed_at, self._version = self._clock(), None
            self._report(str(error) or type(error).__name__)
            return list(tasks)
        self._failed_at = None
        self._report("")
        return suggested

    def is_fresh(self) -> bool:
        """Whether the version that suggested last is still the newest, or nobody can be asked for more."""
        try:
            return self._version is not None and self._available_version() in (self._version, None)
        except ServingError:
            return True

    def _suggest(self, tasks: Sequence[Task]) -> list[Task]:
        started = time.monotonic()
        version, detections = self._predict([image_bytes(task) for task in tasks])
        self._version = version
        seconds = (time.monotonic() - started) / len(tasks)
        suggested = [
            with_suggestions(
                task,
                self._wanted(found),
                self._label_map,
                threshold=self._threshold,
                version=version,
                use_display_name=self._use_display_name,
            )
            for task, found in zip(tasks, detections, strict=True)
        ]
        self._check_classes(detections)
        for task in suggested:
            self._on_suggested(task, seconds)
        return suggested

    def _wanted(self, found: Detections) -> Detections:
        if self._classes is None:
            return found
        keep = np.isin(found.classes, self._classes)
        return Detections(found.boxes[keep], found.scores[keep], found.classes[keep])

    def _predict(self, images: Sequence[bytes]) -> tuple[int, list[Detections]]:
        """Ask for just the version that is served, so that suggestions carry the right number; a swap in between makes
        it ask once more."""
        for attempt in (1, 2):
            version = self._served_version()
            if version is None:
                raise ServerUnavailableError("the model server is away or has no version loaded yet")
            try:
                return version, self._predictor.predict(images, batch_size=len(images), version=version)
            except ServerUnavailableError:
                if attempt == 2 or self._served_version() in (None, version):
                    raise
        raise AssertionError("unreachable")

    def _served_version(self) -> int | None:
        try:
            return self._available_version()
        except RequestError as error:  # something else than a model server: no image is to blame
            raise ServerUnavailableError(str(error)) from error

    def _check_classes(self, detections: Sequence[Detections]) -> None:
        shown = {int(class_id) for found in detections for class_id in found.above(self._threshold).classes}
        if strange := sorted(shown - set(self._label_map.ids)):
            self._warn_once(
                "unknown class",
                f"the served model finds class {', '.join(map(str, strange))}, which the label map does not have (its "
                f"ids: {', '.join(map(str, self._label_map.ids))}); that is left out. Give the label map that the "
                "model was trained with",
            )

    def _warn_once(self, what: str, text: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self._warn(text)

    def _report(self, problem: str) -> None:
        if bool(problem) != bool(self._problem):
            self._on_problem(problem)
        self._problem = problem


def image_bytes(task: Task) -> bytes:
    """The encoded image of a task.

    Raises:
        ImageError: the task holds no data URI.
    """
    return bytes_from_data_uri(task["image"])
