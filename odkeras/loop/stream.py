"""A lazy stream of tasks with the newest model's suggestions.

    source ──► tasks_from_source ──► (exclude, prepare) ──► Suggester, a few tasks at a time ──► host

Nothing is read or predicted before the host asks for it. A few tasks are predicted together, because a model is
faster that way; one that was not fetched soon afterwards is predicted again when it is, so that a host which comes
back after a training round gets what the newer model says. While the server is away tasks go out without suggestions;
a broken image is skipped and reported.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from odkeras.boxes import Detections
from odkeras.errors import ConfigError, ImageError, RequestError, ServerUnavailableError, ServingError
from odkeras.images import DEFAULT_MAX_PIXELS, bytes_from_data_uri, list_image_files, read_image
from odkeras.labels import LabelMap
from odkeras.tasks import make_task, with_suggestions

PREDICT_TOGETHER = 4
FRESH_FOR_S = 1.0
ASK_AGAIN_AFTER_S = 1.0

Task = dict[str, Any]
Source = Path | str | Iterable[Path | Task]
OnSkip = Callable[[str, str], None]


class Predictor(Protocol):
    """The part of `serving.client.ServingClient` that the stream uses."""

    def available_version(self) -> int | None: ...

    def predict(self, images: Sequence[bytes]) -> list[Detections]: ...


class TaskStream:
    """Iterator of tasks; safe to call from several threads, one at a time, as Prodigy does.

    Args:
        source: directory of images, one image file, or paths and ready tasks.
        suggest: adds suggestions to a few tasks; gives as many tasks back, in the same order.
        exclude: `image_id`s of tasks to leave out, asked again for every task (a set that grows while streaming is
            fine).
        prepare: applied to every task before it has suggestions (Prodigy's `set_hashes` belongs here: hashes must not
            change as the model learns).
        on_skip: told file name and reason of every image that cannot be used.
    """

    def __init__(
        self,
        source: Source,
        suggest: Callable[[Sequence[Task]], list[Task]],
        *,
        exclude: Collection[str] = (),
        prepare: Callable[[Task], Task] | None = None,
        on_skip: OnSkip | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        together: int = PREDICT_TOGETHER,
    ) -> None:
        bare = tasks_from_source(source, on_skip=on_skip or (lambda file, reason: None), max_pixels=max_pixels)
        wanted = (task for task in bare if task.get("image_id") not in exclude)
        prepared = wanted if prepare is None else (prepare(task) for task in wanted)
        self._tasks = suggested_tasks(prepared, suggest, together=together)
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        with self._lock:
            return next(self._tasks)


def suggested_tasks(
    tasks: Iterable[Task],
    suggest: Callable[[Sequence[Task]], list[Task]],
    *,
    together: int = PREDICT_TOGETHER,
    fresh_for_s: float = FRESH_FOR_S,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Task]:
    """Suggestions for up to `together` tasks at once; again for those that were not fetched within `fresh_for_s`."""
    tasks = iter(tasks)
    bare: deque[Task] = deque()
    while True:
        bare.extend(islice(tasks, together - len(bare)))
        if not bare:
            return
        suggested = suggest(list(bare))
        asked_at = clock()
        for task in suggested:
            if clock() - asked_at > fresh_for_s:
                break
            bare.popleft()
            yield task


def tasks_from_source(source: Source, *, on_skip: OnSkip, max_pixels: int = DEFAULT_MAX_PIXELS) -> Iterator[Task]:
    """Tasks without suggestions; images are read one by one, when they are asked for.

    Raises:
        ConfigError: the source is a path with no file or directory there, or a directory without images (said at
        once, not
            at the first task).
    """
    items: Iterable[Path | Task] = _list_paths(Path(source)) if isinstance(source, (str, Path)) else source
    return (task for item in items if (task := _task_or_skip(item, on_skip, max_pixels)) is not None)


def _list_paths(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"source {path}: no such file or directory; give a directory of images")
    files = list_image_files(path)
    if not files:
        raise ConfigError(f"source {path}: no images in this directory (JPEG, PNG, WebP, BMP, GIF, TIFF)")
    return files


def _task_or_skip(item: Path | Task, on_skip: OnSkip, max_pixels: int) -> Task | None:
    if isinstance(item, dict):
        return item
    try:
        return make_task(read_image(item, max_pixels=max_pixels), file=item.name, path=str(item))
    except ImageError as error:
        on_skip(str(item), error.reason)
    except OSError as error:
        on_skip(str(item), error.strerror or str(error))
    return None


class Suggester:
    """Adds what the newest served model says to tasks; never raises because of the server.

    After a failed attempt the server is left alone for `ask_again_after_s`, so that an absent server slows nobody down.

    Args:
        predictor: asks the server for detections.
        label_map: names of the classes.
        threshold: suggestions below this score are left out.
        use_display_name: show display names rather than names.
        available_version: asked before every prediction, so it should answer soon; the predictor's when None.
        on_problem: told once when suggestions stop, with the reason, and once ("") when they are back.
    """

    def __init__(
        self,
        predictor: Predictor,
        label_map: LabelMap,
        *,
        threshold: float,
        use_display_name: bool = False,
        available_version: Callable[[], int | None] | None = None,
        on_problem: Callable[[str], None] | None = None,
        ask_again_after_s: float = ASK_AGAIN_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._predictor = predictor
        self._available_version = available_version or predictor.available_version
        self._label_map = label_map
        self._threshold = threshold
        self._use_display_name = use_display_name
        self._on_problem = on_problem or (lambda reason: None)
        self._ask_again_after_s = ask_again_after_s
        self._clock = clock
        self._problem = ""
        self._failed_at: float | None = None

    def __call__(self, tasks: Sequence[Task]) -> list[Task]:
        if self._failed_at is not None and self._clock() - self._failed_at < self._ask_again_after_s:
            return list(tasks)
        try:
            suggested = self._suggest(tasks)
        except RequestError as error:  # one of them is to blame: the others need not suffer
            if len(tasks) > 1:
                return [self([task])[0] for task in tasks]
            self._report(str(error))
            return list(tasks)
        except ServingError as error:
            self._failed_at = self._clock()
            self._report(str(error) or type(error).__name__)
            return list(tasks)
        self._failed_at = None
        self._report("")
        return suggested

    def _suggest(self, tasks: Sequence[Task]) -> list[Task]:
        version = self._available_version()
        if version is None:
            raise ServerUnavailableError("the model server is away or has no version loaded yet")
        detections = self._predictor.predict([image_bytes(task) for task in tasks])
        return [
            with_suggestions(
                task,
                found,
                self._label_map,
                threshold=self._threshold,
                version=version,
                use_display_name=self._use_display_name,
            )
            for task, found in zip(tasks, detections, strict=True)
        ]

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
