"""Adds the newest served model's suggestions to tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from odkeras import boxes as box_ops
from odkeras.annotation import Span, Suggestions, Task
from odkeras.boxes import Detections, FloatArray
from odkeras.config.settings import PREDICT_BATCH_SIZE
from odkeras.errors import ImageError, RequestError, ServerUnavailableError, ServingError
from odkeras.formats.spans import DECIMALS
from odkeras.labels import LabelMap
from odkeras.session.events import Event, Listener
from odkeras.session.order import uncertainty
from odkeras.session.thresholds import Threshold, detected_keypoints, list_candidates

ASK_AGAIN_AFTER_S = 1.0


class Model(Protocol):
    """The served model; see `remote_model.RemoteModel`."""

    def available_version(self) -> int | None: ...

    def has_learned(self, version: int) -> bool: ...

    def predict(self, images: Sequence[bytes], *, batch_size: int, version: int | None) -> list[Detections]: ...


@dataclass(frozen=True)
class SuggestionRules:
    """Which detections become suggestions.

    Args:
        threshold: minimum score of a suggestion. All detections are the task's candidates.
        control: share of control images, 0 <= share < 1. Their suggestions are hidden, so that they do not influence
            the annotator. The choice depends on the image id alone.
        use_display_name: label suggestions with display names instead of names.
        classes: ids of the classes to suggest; None = all of the label map.
        retired: ids of classes that the label map lacks on purpose, although the model may detect them.
    """

    threshold: Threshold
    control: float = 0.0
    use_display_name: bool = False
    classes: tuple[int, ...] | None = None
    retired: frozenset[int] = frozenset()


class Suggester:
    """Adds the newest served model's suggestions to tasks. Server errors are reported, never raised.

    If the server is unavailable, tasks get no suggestions for the next `ask_again_after_s` seconds, so that not every
    task is delayed by a timeout.

    Args:
        model: the served model. `available_version` is called before every prediction, so it must be quick. A version
            that has not learned anything is never called, and suggests nothing.
        label_map: names of the classes.
        rules: which detections become suggestions.
        listener: receives an event when suggestions stop and when they are back, and, once per problem, if the model
            detects a class that the label map lacks or if the server refuses an image; and each task that has got its
            suggestions.
        batch_size: batch size of predictions.
        ask_again_after_s: seconds without requests after the server was unavailable.
        clock: monotonic clock, for tests.
    """

    def __init__(
        self,
        model: Model,
        label_map: LabelMap,
        rules: SuggestionRules,
        listener: Listener,
        *,
        batch_size: int = PREDICT_BATCH_SIZE,
        ask_again_after_s: float = ASK_AGAIN_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.batch_size = batch_size
        self._model = model
        self._label_map = label_map
        self._rules = rules
        self._threshold = rules.threshold
        self._listener = listener
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
            self._warn_once(str(error), f"no suggestions for {tasks[0].file}: the server rejects it: {error}")
            return list(tasks)
        except ServingError as error:
            self._failed_at = self._clock()
            self._report(str(error) or type(error).__name__)
            return list(tasks)
        self._failed_at = None
        self._report("")
        return suggested

    def use_label_map(
        self, label_map: LabelMap, classes: tuple[int, ...] | None, retired: frozenset[int] = frozenset()
    ) -> None:
        """Use another label map from now on, and suggest these classes; see `SuggestionRules`."""
        self._label_map = label_map
        self._rules = replace(self._rules, classes=classes, retired=retired)

    def is_fresh(self, task: Task) -> bool:
        """Whether the task's suggestions are of the version being served, or no other version can be used now.

        False for a task without suggestions.
        """
        try:
            return task.version is not None and self._model.available_version() in (task.version, None)
        except ServingError:
            return True

    def _suggest(self, tasks: Sequence[Task]) -> list[Task]:
        started = time.monotonic()
        version, detections = self._predict([image_bytes(task) for task in tasks])
        seconds = (time.monotonic() - started) / len(tasks)
        suggested = [self._with_suggestions(*pair, version) for pair in zip(tasks, detections, strict=True)]
        self._check_classes(detections)
        for task in suggested:
            self._listener.suggested(task, seconds)
        return suggested

    def _with_suggestions(self, task: Task, detected: Detections, version: int) -> Task:
        wanted = self._wanted(detected)
        thresholds = {int(class_id): self._threshold.of(int(class_id)) for class_id in set(wanted.classes.tolist())}
        lowest = min(1.0, min(thresholds.values(), default=self._threshold.of(0)))  # above 1 means a hidden class
        keep = wanted.scores >= np.array([thresholds[int(class_id)] for class_id in wanted.classes], np.float32)
        name_of = self._label_map.display_name_of if self._rules.use_display_name else self._label_map.name_of
        hidden = is_control(task.image_id, self._rules.control)
        suggestions = Suggestions(
            version=version,
            threshold=float(lowest),
            spans=visible_spans(wanted.take(keep), self._label_map, name_of, task.size_hw),
            hidden=hidden,
            candidates=list_candidates(wanted, self._label_map, task.size_hw),
            uncertainty=round(uncertainty(wanted), 4),
        )
        return replace(task, spans=() if hidden else suggestions.spans, suggestions=suggestions)

    def _wanted(self, detections: Detections) -> Detections:
        classes = self._rules.classes
        return detections if classes is None else detections.take(np.isin(detections.classes, classes))

    def _predict(self, images: Sequence[bytes]) -> tuple[int, list[Detections]]:
        """The version and the detections of each image.

        The request names the version, so that suggestions are attributed to the right one. If the server swaps versions
        in between, the request fails and is retried once.
        """
        for attempt in (1, 2):
            version = self._served_version()
            if version is None:
                raise ServerUnavailableError("the model server is unreachable or has no version loaded yet")
            if not self._model.has_learned(version):
                return version, [Detections.empty()] * len(images)
            try:
                return version, self._model.predict(images, batch_size=len(images), version=version)
            except ServerUnavailableError:
                if attempt == 2 or self._served_version() in (None, version):
                    raise
        raise AssertionError("unreachable")

    def _served_version(self) -> int | None:
        try:
            return self._model.available_version()
        except RequestError as error:  # something other than a model server responds; the images are not the cause
            raise ServerUnavailableError(str(error)) from error

    def _check_classes(self, detections: Sequence[Detections]) -> None:
        shown = {int(class_id) for image in detections for class_id in image.above(self._threshold.of(0)).classes}
        if strange := sorted(shown - {*self._label_map.ids, *self._rules.retired}):
            self._warn_once(
                "unknown class",
                f"the served model detects class {', '.join(map(str, strange))}, which is not in the label map (ids: "
                f"{', '.join(map(str, self._label_map.ids))}); these boxes are dropped. Give the label map of its "
                "training",
            )

    def _warn_once(self, what: str, text: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self._listener.event(Event.problem(text))

    def _report(self, problem: str) -> None:
        if bool(problem) != bool(self._problem):
            self._listener.event(Event(f"no suggestions: {problem}" if problem else "suggestions are available again"))
        self._problem = problem


def visible_spans(
    detections: Detections, label_map: LabelMap, name_of: Callable[[int], str], image_size_hw: tuple[int, int]
) -> tuple[Span, ...]:
    """The detections that can be drawn: finite, of a class in the label map, with an area inside the image, to which
    they are clipped. They have the model's keypoints that the label map names."""
    spans = []
    for index, (box, score, class_id) in enumerate(
        zip(detections.boxes, detections.scores, detections.classes.tolist(), strict=True)
    ):
        corners = _visible_corners_px(box, image_size_hw)
        if corners is not None and class_id in label_map.ids:
            keypoints = detected_keypoints(detections, index, label_map, image_size_hw)
            spans.append(Span(name_of(class_id), corners, round(float(score), 4), keypoints=keypoints))
    return tuple(spans)


def _visible_corners_px(box: FloatArray, size_hw: tuple[int, int]) -> tuple[tuple[float, float], ...] | None:
    """Two corners of a normalised box, clipped to the image; None if it is not finite or nothing is left of it."""
    if not np.isfinite(box).all():
        return None
    xyxy_px = box_ops.to_xyxy_px(box_ops.clip(box[None]), size_hw)[0]
    left, top, right, bottom = (round(float(value), DECIMALS) for value in xyxy_px)
    return ((left, top), (right, bottom)) if right > left and bottom > top else None


def is_control(image_id: str, share: float) -> bool:
    """Whether an image is a control image, which is shown without suggestions.

    It depends on other digits of the image id than the hold-out split (see `splits.is_held_out`), so that the two are
    independent.
    """
    try:
        return share > 0 and int(image_id[8:16], 16) < share * 16**8
    except ValueError:
        return False


def image_bytes(task: Task) -> bytes:
    """The encoded image of a task.

    Raises:
        ImageError: the task has only the location of its image.
    """
    if isinstance(task.image, str):
        raise ImageError("the image of the task is not loaded", task.file)
    return task.image.data
