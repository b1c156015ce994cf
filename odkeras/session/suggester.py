"""Adds the newest served model's suggestions to tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import numpy as np

from odkeras.boxes import Detections
from odkeras.errors import RequestError, ServerUnavailableError, ServingError
from odkeras.formats.prodigy import Task, with_suggestions
from odkeras.images import bytes_from_data_uri
from odkeras.labels import LabelMap
from odkeras.session.order import uncertainty
from odkeras.session.thresholds import FixedThreshold, Threshold, list_candidates

ASK_AGAIN_AFTER_S = 1.0


class Predictor(Protocol):
    """The part of `serving.client.ServingClient` that the stream uses."""

    def available_version(self) -> int | None: ...

    def predict(self, images: Sequence[bytes], *, batch_size: int, version: int | None) -> list[Detections]: ...


class Suggester:
    """Adds the newest served model's suggestions to tasks. Server errors are reported, never raised.

    If the server is unavailable, tasks get no suggestions for the next `ask_again_after_s` seconds, so that not every
    task is delayed by a timeout.

    Args:
        predictor: the client of the model server.
        label_map: names of the classes.
        threshold: minimum score of a suggestion, 0 to 1. For a threshold that learns (`Threshold.learns`), tasks also
            get all detections as candidates.
        control: share of control images, 0 <= share < 1. Their suggestions are hidden, so that they do not influence
            the annotator. The choice depends on the image id alone.
        use_display_name: label suggestions with display names instead of names.
        classes: ids of the classes to suggest; None = all of the label map.
        has_learned: whether a version is trained. A version that is not is never called, and suggests nothing.
        available_version: returns the version being served; called before every prediction, so it must be quick. None =
            the predictor's method.
        on_problem: callback when suggestions stop, with the reason, and when they are back, with "".
        on_suggested: callback for every task with its suggestions, and the seconds that its prediction took.
        warn: callback, once per problem, if the model detects a class that the label map lacks (it is not suggested),
            or if the server refuses an image.
        ask_again_after_s: seconds without requests after the server was unavailable.
        clock: monotonic clock, for tests.
    """

    def __init__(
        self,
        predictor: Predictor,
        label_map: LabelMap,
        *,
        threshold: float | Threshold,
        control: float = 0.0,
        use_display_name: bool = False,
        classes: Collection[int] | None = None,
        has_learned: Callable[[int], bool] = lambda version: True,
        available_version: Callable[[], int | None] | None = None,
        on_problem: Callable[[str], None] | None = None,
        on_suggested: Callable[[Task, float], None] | None = None,
        warn: Callable[[str], None] | None = None,
        ask_again_after_s: float = ASK_AGAIN_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._predictor = predictor
        self._available_version = available_version or predictor.available_version
        self._has_learned = has_learned
        self._label_map = label_map
        self._threshold = threshold if not isinstance(threshold, (int, float)) else FixedThreshold(float(threshold))
        self._control = control
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

    def __call__(self, tasks: Sequence[Task]) -> list[Task]:
        if self._failed_at is not None and self._clock() - self._failed_at < self._ask_again_after_s:
            return list(tasks)
        try:
            suggested = self._suggest(tasks)
        except RequestError as error:  # one bad image fails the whole batch: retry each task alone
            if len(tasks) > 1:
                return [self([task])[0] for task in tasks]
            self._warn_once(
                str(error), f"no suggestions for {tasks[0]['meta']['file']}: the server rejects it: {error}"
            )
            return list(tasks)
        except ServingError as error:
            self._failed_at = self._clock()
            self._report(str(error) or type(error).__name__)
            return list(tasks)
        self._failed_at = None
        self._report("")
        return suggested

    def is_fresh(self, task: Task) -> bool:
        """Whether the task's suggestions are of the version being served, or no other version can be used now.

        False for a task without suggestions.
        """
        version = (task.get("_suggestions") or {}).get("version")
        try:
            return version is not None and self._available_version() in (version, None)
        except ServingError:
            return True

    def _suggest(self, tasks: Sequence[Task]) -> list[Task]:
        started = time.monotonic()
        version, detections = self._predict([image_bytes(task) for task in tasks])
        seconds = (time.monotonic() - started) / len(tasks)
        suggested = [self._with_suggestions(*pair, version) for pair in zip(tasks, detections, strict=True)]
        self._check_classes(detections)
        for task in suggested:
            self._on_suggested(task, seconds)
        return suggested

    def _with_suggestions(self, task: Task, detected: Detections, version: int) -> Task:
        wanted = self._wanted(detected)
        thresholds = {int(class_id): self._threshold.of(int(class_id)) for class_id in set(wanted.classes.tolist())}
        lowest = min(1.0, min(thresholds.values(), default=self._threshold.of(0)))  # above 1 means a hidden class
        keep = wanted.scores >= np.array([thresholds[int(class_id)] for class_id in wanted.classes], np.float32)
        shown = Detections(wanted.boxes[keep], wanted.scores[keep], wanted.classes[keep])
        suggested = with_suggestions(
            task,
            shown,
            self._label_map,
            threshold=lowest,
            version=version,
            use_display_name=self._use_display_name,
        )
        suggestions = {**suggested["_suggestions"], "uncertainty": round(uncertainty(wanted), 4)}
        if self._threshold.learns:
            size_hw = (int(task["height"]), int(task["width"]))
            suggestions["candidates"] = list_candidates(wanted, self._label_map, size_hw)
        suggested = {**suggested, "_suggestions": suggestions}
        return without_showing(suggested, task) if is_control(task, self._control) else suggested

    def _wanted(self, detections: Detections) -> Detections:
        if self._classes is None:
            return detections
        keep = np.isin(detections.classes, self._classes)
        return Detections(detections.boxes[keep], detections.scores[keep], detections.classes[keep])

    def _predict(self, images: Sequence[bytes]) -> tuple[int, list[Detections]]:
        """The version and the detections of each image.

        The request names the version, so that suggestions are attributed to the right one. If the server swaps versions
        in between, the request fails and is retried once.
        """
        for attempt in (1, 2):
            version = self._served_version()
            if version is None:
                raise ServerUnavailableError("the model server is unreachable or has no version loaded yet")
            if not self._has_learned(version):
                return version, [Detections.empty()] * len(images)
            try:
                return version, self._predictor.predict(images, batch_size=len(images), version=version)
            except ServerUnavailableError:
                if attempt == 2 or self._served_version() in (None, version):
                    raise
        raise AssertionError("unreachable")

    def _served_version(self) -> int | None:
        try:
            return self._available_version()
        except RequestError as error:  # something other than a model server responds; the images are not the cause
            raise ServerUnavailableError(str(error)) from error

    def _check_classes(self, detections: Sequence[Detections]) -> None:
        shown = {int(class_id) for image in detections for class_id in image.above(self._threshold.of(0)).classes}
        if strange := sorted(shown - set(self._label_map.ids)):
            self._warn_once(
                "unknown class",
                f"the served model detects class {', '.join(map(str, strange))}, which is not in the label map (ids: "
                f"{', '.join(map(str, self._label_map.ids))}); these boxes are dropped. Give the label map of its "
                "training",
            )

    def _warn_once(self, what: str, text: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self._warn(text)

    def _report(self, problem: str) -> None:
        if bool(problem) != bool(self._problem):
            self._on_problem(problem)
        self._problem = problem


def is_control(task: Task, share: float) -> bool:
    """Whether a task is a control image, which is shown without suggestions.

    It depends on other digits of the image id than the hold-out split (see `project.is_held_out`), so that the two are
    independent.
    """
    digits = str(task.get("image_id"))[8:16]
    try:
        return share > 0 and int(digits, 16) < share * 16**8
    except ValueError:
        return False


def without_showing(suggested: Task, bare: Task) -> Task:
    """The task without visible suggestions. The hidden spans are kept in `_suggestions`."""
    suggestions = {**suggested["_suggestions"], "control": True, "hidden_spans": suggested["spans"], "spans": []}
    return {**bare, "spans": [], "_suggestions": suggestions}


def image_bytes(task: Task) -> bytes:
    """The encoded image of a task.

    Raises:
        ImageError: the task holds no data URI.
    """
    return bytes_from_data_uri(task["image"])
