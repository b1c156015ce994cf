"""Prodigy's task dicts: tasks with suggestions are written, answers are read.

Spans are in pixels of the upright image, with the origin at the top left.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from odkeras import boxes as box_ops
from odkeras.annotation import Annotation, Decision, Span, is_list_of_pairs
from odkeras.boxes import Detections, FloatArray, Groundtruth
from odkeras.errors import AnswerError, ImageError, LabelMapError
from odkeras.image_ref import ImageRef, is_data_uri
from odkeras.images import DEFAULT_MAX_PIXELS, EncodedImage
from odkeras.labels import LabelMap
from odkeras.numeric import is_number

Task = dict[str, Any]
T = TypeVar("T")
DECIMALS = 2
"""Of a pixel, in what is written."""


@dataclass(frozen=True)
class ReadAnswer:
    """What an answer says.

    Args:
        annotation: what to train on, if the answer was "accept".
        withdrawn_image_id: the image that must not be trained on (any longer), if it was "reject" or "ignore".
        problems: what was left out of an accepted answer, each with its reason.
    """

    annotation: Annotation | None
    withdrawn_image_id: str | None
    problems: tuple[str, ...] = ()


def make_task(image: EncodedImage, *, file: str, path: str | None = None) -> Task:
    """A task for `image_manual`. `file` is shown to the annotator, `path` is the image's file, if it has one."""
    height, width = image.image_size_hw
    task: Task = {"image": image.data_uri, "width": width, "height": height, "image_id": image.image_id}
    task["meta"] = {"file": file}
    if path is not None:
        task["path"] = path
    task["spans"] = []
    return task


def with_suggestions(
    task: Task,
    detections: Detections,
    label_map: LabelMap,
    *,
    threshold: float,
    version: int | None,
    use_display_name: bool = False,
) -> Task:
    """A copy of the task whose spans are the detections of at least `threshold`.

    Detections that cannot be drawn are left out: not finite, without area inside the image, of a class that the label
    map does not have. `_suggestions` keeps what was suggested, so that it can be compared with the answer.
    """
    size_hw = (int(task["height"]), int(task["width"]))
    name_of = label_map.display_name_of if use_display_name else label_map.name_of
    spans: list[dict[str, Any]] = []
    shown = detections.above(threshold)
    for box, score, class_id in zip(shown.boxes, shown.scores, shown.classes, strict=True):
        corners = _visible_corners_px(box, size_hw)
        if corners is not None and int(class_id) in label_map.ids:
            spans.append(write_span(Span(name_of(int(class_id)), corners, round(float(score), 4))))
    meta = dict(task.get("meta") or {})
    if spans:
        meta["score"] = max(span["score"] for span in spans)
    if version is not None:
        meta["model version"] = version
    record = {"version": version, "threshold": float(threshold), "spans": copy.deepcopy(spans)}
    return {**task, "spans": spans, "meta": meta, "_suggestions": record}


def read_answer(
    answer: Task, label_map: LabelMap, *, batch: str = "", max_pixels: int = DEFAULT_MAX_PIXELS
) -> ReadAnswer:
    """Understand an answer.

    An accepted answer without spans is an image without objects. One whose spans are all unusable is not: it raises.

    Raises:
        AnswerError: the image cannot be read, no box is usable, or it is not an answer.
    """
    if not isinstance(answer, dict):
        raise AnswerError(f"an answer must be a JSON object; got {type(answer).__name__}")
    decision = answer.get("answer")
    if decision in (Decision.REJECT.value, Decision.IGNORE.value):
        return ReadAnswer(None, _given_id(answer) or _read_image(answer, max_pixels).image_id)
    if decision != Decision.ACCEPT.value:
        raise AnswerError(f"{_file_name(answer)}: answer must be 'accept', 'reject' or 'ignore'; got {decision!r}")
    image = _read_image(answer, max_pixels)
    file = _file_name(answer)
    objects, problems = _read_objects(answer, image, label_map, file)
    boxes = np.array([item.box for item in objects], np.float32)
    groundtruth = Groundtruth(boxes, np.array([item.class_id for item in objects], np.int32))
    polygons = tuple(item.polygon for item in objects)
    image_id = _given_id(answer) or image.image_id
    return ReadAnswer(Annotation(image, groundtruth, image_id, file, batch, polygons), None, problems)


class _Object(NamedTuple):
    """One usable span: label-map id, box (4,), and polygon (K, 2) unless it is a rectangle."""

    class_id: int
    box: FloatArray
    polygon: FloatArray | None


def _visible_corners_px(box: np.ndarray, size_hw: tuple[int, int]) -> tuple[tuple[float, float], ...] | None:
    """Two corners of a normalised box, clipped to the image; None if it is not finite or nothing is left of it."""
    if not np.isfinite(box).all():
        return None
    xyxy_px = box_ops.to_xyxy_px(box_ops.clip(box[None]), size_hw)[0]
    left, top, right, bottom = (round(float(value), DECIMALS) for value in xyxy_px)
    return ((left, top), (right, bottom)) if right > left and bottom > top else None


def write_span(span: Span) -> dict[str, Any]:
    """The span as `image_manual` has it; coordinates are rounded to `DECIMALS`."""
    left, top, right, bottom = (round(value, DECIMALS) for value in span.xyxy_px)
    written: dict[str, Any] = {
        "label": span.label,
        "type": "polygon" if span.is_polygon else "rect",
        "x": left,
        "y": top,
        "width": round(right - left, DECIMALS),
        "height": round(bottom - top, DECIMALS),
        "center": [round((left + right) / 2, 3), round((top + bottom) / 2, 3)],
        "points": [[left, top], [left, bottom], [right, bottom], [right, top]],
    }
    if span.is_polygon:
        written["points"] = [[round(x, DECIMALS), round(y, DECIMALS)] for x, y in span.points_xy_px]
    if span.score is not None:
        written["score"] = span.score
    if span.id:
        written["id"] = span.id
    return written


def read_span(span: Any) -> Span:
    """A span of an answer: all of its `points`, the one key that all versions of Prodigy write, else x, y and size.

    Raises:
        AnswerError: it is not an object, has no label or no corners, or they are not numbers.
    """
    if not isinstance(span, Mapping):
        raise AnswerError(f"a span must be a JSON object; got {type(span).__name__}")
    label, score, id = span.get("label"), span.get("score"), span.get("id")
    if not isinstance(label, str) or not label.strip():
        raise AnswerError("it has no label")
    return Span(label, _corners_px(span), score if is_number(score) else None, id if isinstance(id, str) else "")


def _corners_px(span: Mapping[str, Any]) -> tuple[tuple[float, float], ...]:
    if span.get("points"):
        if not is_list_of_pairs(span["points"]):
            raise AnswerError("'points' must be a list of [x, y]")
        _check_numbers(value for point in span["points"] for value in point)
        return tuple((x, y) for x, y in span["points"])
    x, y, width, height = _check_numbers(
        [span.get("x"), span.get("y"), span.get("width", span.get("w")), span.get("height", span.get("h"))]
    )
    return (x, y), (x + width, y + height)


def _check_numbers(values: Iterable[Any]) -> list[float]:
    numbers = list(values)
    for value in numbers:
        if not is_number(value):
            raise AnswerError(f"coordinates must be finite numbers; got {repr(value)[:40]}")
    return numbers


def readable_spans(spans: Any) -> list[Span]:
    """The spans of a task that can be read; the others, of another tool, are left out."""
    read = []
    for span in spans if isinstance(spans, list) else ():
        try:
            read.append(read_span(span))
        except AnswerError:
            continue
    return read


def detections_from_spans(spans: Iterable[Span], label_map: LabelMap, image_size_hw: tuple[int, int]) -> Detections:
    """Suggested spans as detections; those with a label that the map lacks are left out. A missing score is 0."""
    with_ids = [(span, label_map.find_id(span.label)) for span in spans]
    rows = [(span.xyxy_px, span.score or 0.0, class_id) for span, class_id in with_ids if class_id is not None]
    return Detections(
        box_ops.from_xyxy_px([box for box, _, _ in rows], image_size_hw),
        np.array([score for _, score, _ in rows], np.float32),
        np.array([class_id for _, _, class_id in rows], np.int32),
    )


def _given_id(answer: Task) -> str | None:
    """The answer's own id of its image. One that is not UTF-8 (a lone surrogate) cannot be written to a record."""
    image_id = answer.get("image_id")
    if not isinstance(image_id, str) or not image_id:
        return None
    try:
        image_id.encode("utf-8")
    except UnicodeEncodeError as error:
        raise AnswerError(f"image_id is not valid text: {image_id[:80]!r}") from error
    return image_id


def _file_name(answer: Task) -> str:
    """A name for people: the task's own, else that of the image's file, else its id."""
    meta = answer.get("meta")
    if isinstance(meta, dict) and isinstance(meta.get("file"), str) and meta["file"]:
        return str(meta["file"])
    for key in ("path", "image"):
        value = answer.get(key)
        if isinstance(value, str) and value and not is_data_uri(value):
            return value.partition("?")[0].rstrip("/").rpartition("/")[2] or value
    return _given_id(answer) or "image"


def _read_image(answer: Task, max_pixels: int) -> EncodedImage:
    source = _file_name(answer)
    reference = ImageRef.of_record(answer, name=source)
    if not reference.places:
        raise AnswerError(f"{source}: the answer has neither 'image' nor 'path'")
    try:
        return reference.read(image_id=_given_id(answer) or "", max_pixels=max_pixels)
    except ImageError as error:
        raise AnswerError(f"{error.source or source}: {error.reason}") from error


def _read_objects(
    answer: Task, image: EncodedImage, label_map: LabelMap, file: str
) -> tuple[list[_Object], tuple[str, ...]]:
    size_hw = _frame_hw(answer, image.image_size_hw, file)
    return convert_spans(answer, lambda span: _read_object(span, size_hw, label_map), where=f"{file}: ")


def convert_spans(answer: Task, convert: Callable[[Span], T], *, where: str = "") -> tuple[list[T], tuple[str, ...]]:
    """The converted spans of an accepted answer, and why each of the others was left out.

    Args:
        convert: raises AnswerError or LabelMapError for a span that cannot be used.
        where: stands before each reason.

    Raises:
        AnswerError: `spans` is not a list, or it has spans and none is usable: the image's objects are not known.
    """
    spans = answer.get("spans") or []
    if not isinstance(spans, list):
        raise AnswerError(f"{where}'spans' must be a list; got {type(spans).__name__}")
    usable: list[T] = []
    problems: list[str] = []
    for number, span in enumerate(spans, start=1):
        try:
            usable.append(convert(read_span(span)))
        except (AnswerError, LabelMapError) as error:
            problems.append(f"{where}span {number}: {error}")
    if spans and not usable:
        raise AnswerError(f"accepted, but none of its {len(spans)} spans is usable: {'; '.join(problems)}")
    return usable, tuple(problems)


def _frame_hw(answer: Task, image_size_hw: tuple[int, int], file: str) -> tuple[float, float]:
    """The size that the spans refer to: the answer's own, if it has one. Another scale will do, another shape not."""
    width, height = answer.get("width"), answer.get("height")
    if not is_number(width) or not is_number(height) or width <= 0 or height <= 0:
        return image_size_hw
    scale = math.sqrt((height * width) / (image_size_hw[0] * image_size_hw[1]))
    expected_hw = (image_size_hw[0] * scale, image_size_hw[1] * scale)
    if any(abs(a - b) > max(1.0, 0.02 * b) for a, b in zip((height, width), expected_hw, strict=True)):
        actual = f"{image_size_hw[1]} x {image_size_hw[0]}"
        raise AnswerError(f"{file}: the spans are for an image of {width} x {height}, but this one has {actual} pixels")
    return height, width


def _read_object(span: Span, size_hw: tuple[float, float], label_map: LabelMap) -> _Object:
    class_id = label_map.id_of(span.label)
    box, polygon = span.outline(size_hw)
    if box_ops.area(box[None])[0] <= 0:
        raise AnswerError(f"{span.label!r} has no area inside the image")
    return _Object(class_id, box, polygon)
