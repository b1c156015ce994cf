"""Prodigy's task dicts <-> our values. Spans are in pixels of the upright image, origin at the top left."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from odkeras import boxes as box_ops
from odkeras import polygons as polygon_ops
from odkeras.boxes import Detections, FloatArray, Groundtruth
from odkeras.errors import AnswerError, ImageError, LabelMapError
from odkeras.images import (
    DEFAULT_MAX_PIXELS,
    EncodedImage,
    bytes_from_data_uri,
    encode_image,
    local_path,
    read_image,
    recall_image,
)
from odkeras.labels import LabelMap

Task = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Annotation:
    """An image and its true boxes, as a person accepted them.

    Args:
        image: as it is trained on.
        groundtruth: the boxes.
        image_id: stable id of the image.
        file: its name, for people.
        batch: name of the inbox file that it came in.
        polygons: the outline of each box, in their order: float32 (K, 2) [y, x], normalised; None for a rectangle.
            () where all are rectangles.

    Raises:
        ValueError: not one entry per box, or one that is no polygon.
    """

    image: EncodedImage
    groundtruth: Groundtruth
    image_id: str
    file: str
    batch: str = ""
    polygons: tuple[FloatArray | None, ...] = ()

    def __post_init__(self) -> None:
        polygons = tuple(None if each is None else polygon_ops.as_polygon(each) for each in self.polygons)
        if polygons and len(polygons) != len(self.groundtruth):
            raise ValueError(f"polygons must have {len(self.groundtruth)} entries, one per box; got {len(polygons)}")
        object.__setattr__(self, "polygons", polygons if any(each is not None for each in polygons) else ())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Annotation):
            return NotImplemented
        names = [each.name for each in fields(self) if each.name != "polygons"]
        return all(getattr(self, name) == getattr(other, name) for name in names) and _same_polygons(self, other)

    __hash__ = None  # type: ignore[assignment]  # holds arrays


def _same_polygons(one: Annotation, other: Annotation) -> bool:
    pairs = zip(one.polygons, other.polygons, strict=False)
    return len(one.polygons) == len(other.polygons) and all(
        a is b if a is None or b is None else np.array_equal(a, b) for a, b in pairs
    )


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
    """A task for `image_manual`. `file` is shown to the annotator, `path` is where the image lies, if it does."""
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
        span = _span(box, size_hw)
        if span is not None and int(class_id) in label_map.ids:
            spans.append({**span, "label": name_of(int(class_id)), "score": round(float(score), 4)})
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
    if decision in ("reject", "ignore"):
        return ReadAnswer(None, _given_id(answer) or _image_of(answer, max_pixels).image_id)
    if decision != "accept":
        raise AnswerError(f"{_file_of(answer)}: answer must be 'accept', 'reject' or 'ignore'; got {decision!r}")
    image = _image_of(answer, max_pixels)
    file = _file_of(answer)
    objects, problems = _objects_of(answer, image, label_map, file)
    boxes = np.array([each.box for each in objects], np.float32)
    groundtruth = Groundtruth(boxes, np.array([each.class_id for each in objects], np.int32))
    polygons = tuple(each.polygon for each in objects)
    image_id = _given_id(answer) or image.image_id
    return ReadAnswer(Annotation(image, groundtruth, image_id, file, batch, polygons), None, problems)


class _Object(NamedTuple):
    """One usable span: label-map id, box (4,), and polygon (K, 2) unless it is a rectangle."""

    class_id: int
    box: FloatArray
    polygon: FloatArray | None


def _span(box: np.ndarray, size_hw: tuple[int, int]) -> dict[str, Any] | None:
    if not np.isfinite(box).all():
        return None
    xyxy_px = box_ops.to_xyxy_px(box_ops.clip(box[None]), size_hw)[0]
    x, y, right, bottom = (round(float(value), 2) for value in xyxy_px)
    if right <= x or bottom <= y:
        return None
    return {
        "type": "rect",
        "x": x,
        "y": y,
        "width": round(right - x, 2),
        "height": round(bottom - y, 2),
        "center": [round((x + right) / 2, 3), round((y + bottom) / 2, 3)],
        "points": [[x, y], [x, bottom], [right, bottom], [right, y]],
    }


def _given_id(answer: Task) -> str | None:
    image_id = answer.get("image_id")
    return image_id if isinstance(image_id, str) and image_id else None


def _file_of(answer: Task) -> str:
    """A name for people: the task's own, else that of the image's file, else its id."""
    meta = answer.get("meta")
    if isinstance(meta, dict) and isinstance(meta.get("file"), str) and meta["file"]:
        return str(meta["file"])
    for key in ("path", "image"):
        value = answer.get(key)
        if isinstance(value, str) and value and not value.startswith("data:"):
            return value.partition("?")[0].rstrip("/").rpartition("/")[2] or value
    return _given_id(answer) or "image"


def _image_of(answer: Task, max_pixels: int) -> EncodedImage:
    """From the data URI in `image`, else the file that `image` names, else the one that `path` names."""
    image, path, source = answer.get("image"), answer.get("path"), _file_of(answer)
    try:
        if isinstance(image, str) and image.startswith("data:"):
            data = bytes_from_data_uri(image)
            recalled = recall_image(data, _given_id(answer) or "", source=source, max_pixels=max_pixels)
            return recalled or encode_image(data, source=source, max_pixels=max_pixels)
        names = [name for name in (image, path) if isinstance(name, str) and name]
        if not names:
            raise AnswerError(f"{source}: the answer has neither 'image' nor 'path'")
        existing = [name for name in names if _is_file(name)]
        if not existing and all("://" in name and not name.startswith("file:") for name in names):
            raise AnswerError(f"{source}: the image is a URL ({names[0][:80]}), which is not fetched; add its 'path'")
        return _read_file((existing or names)[0], _given_id(answer) or "", max_pixels)
    except ImageError as error:
        raise AnswerError(f"{error.source or source}: {error.reason}") from error


def _read_file(name: str, image_id: str, max_pixels: int) -> EncodedImage:
    path = local_path(name)
    try:
        recalled = recall_image(path.read_bytes(), image_id, source=str(path), max_pixels=max_pixels)
    except (OSError, ValueError):
        recalled = None
    return recalled or read_image(path, max_pixels=max_pixels)


def _is_file(name: str) -> bool:
    try:
        return local_path(name).is_file()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def _objects_of(
    answer: Task, image: EncodedImage, label_map: LabelMap, file: str
) -> tuple[list[_Object], tuple[str, ...]]:
    spans = answer.get("spans") or []
    if not isinstance(spans, list):
        raise AnswerError(f"{file}: 'spans' must be a list; got {type(spans).__name__}")
    size_hw = _frame_hw(answer, image.image_size_hw, file)
    usable: list[_Object] = []
    problems: list[str] = []
    for number, span in enumerate(spans, start=1):
        try:
            usable.append(_read_span(span, size_hw, label_map))
        except (AnswerError, LabelMapError) as error:
            problems.append(f"{file}: span {number}: {error}")
    if spans and not usable:
        raise AnswerError(f"accepted, but none of its {len(spans)} spans is usable: {'; '.join(problems)}")
    return usable, tuple(problems)


def _frame_hw(answer: Task, image_size_hw: tuple[int, int], file: str) -> tuple[float, float]:
    """The size that the spans refer to: the answer's own, if it has one. Another scale will do, another shape not."""
    width, height = answer.get("width"), answer.get("height")
    if not _is_number(width) or not _is_number(height) or width <= 0 or height <= 0:
        return image_size_hw
    scale = math.sqrt((height * width) / (image_size_hw[0] * image_size_hw[1]))
    expected_hw = (image_size_hw[0] * scale, image_size_hw[1] * scale)
    if any(abs(a - b) > max(1.0, 0.02 * b) for a, b in zip((height, width), expected_hw, strict=True)):
        found = f"{image_size_hw[1]} x {image_size_hw[0]}"
        raise AnswerError(f"{file}: the spans are for an image of {width} x {height}, but this one has {found} pixels")
    return height, width


def _read_span(span: Any, size_hw: tuple[float, float], label_map: LabelMap) -> _Object:
    if not isinstance(span, dict):
        raise AnswerError(f"a span must be a JSON object; got {type(span).__name__}")
    label = span.get("label")
    if not isinstance(label, str):
        raise AnswerError("it has no label")
    class_id = label_map.id_of(label)
    box, polygon = _shape_of(span, size_hw)
    if box_ops.area(box[None])[0] <= 0:
        raise AnswerError(f"{label!r} has no area inside the image")
    return _Object(class_id, box, polygon)


def _shape_of(span: dict[str, Any], size_hw: tuple[float, float]) -> tuple[FloatArray, FloatArray | None]:
    """Box and polygon inside the image. The points decide, not the span's `type`, which old versions do not write."""
    corners_px = points_px(span)
    if len(corners_px) > 2 and not polygon_ops.is_rectangle(corners_px):
        polygon = polygon_ops.from_xy_px(corners_px, size_hw)
        if not polygon_ops.is_flat(polygon):
            inside = polygon_ops.clip(polygon)
            return polygon_ops.bounds(inside), inside
    (left, top), (right, bottom) = np.min(corners_px, axis=0), np.max(corners_px, axis=0)
    return box_ops.clip(box_ops.from_xyxy_px([(left, top, right, bottom)], size_hw))[0], None


def points_px(span: dict[str, Any]) -> list[tuple[float, float]]:
    """A span's corners [x, y] in pixels: all of `points`, the one key that all versions of Prodigy write, else two
    opposite ones.

    Raises:
        AnswerError: it has none, or they are no numbers.
    """
    points = span.get("points")
    if points:
        if not isinstance(points, list) or not all(
            isinstance(point, list | tuple) and len(point) == 2 for point in points
        ):
            raise AnswerError("'points' must be a list of [x, y]")
        _check_numbers([value for point in points for value in point])
        return [(x, y) for x, y in points]
    corner = [span.get("x"), span.get("y")]
    size = [span.get("width", span.get("w")), span.get("height", span.get("h"))]
    x, y, width, height = _check_numbers([*corner, *size])
    return [(x, y), (x + width, y + height)]


def _check_numbers(values: list[Any]) -> list[float]:
    for value in values:
        if not _is_number(value):
            raise AnswerError(f"coordinates must be finite numbers; got {value!r}")
    return values


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
