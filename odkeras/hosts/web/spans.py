"""Spans as the page sends them: checked, within the image, in Prodigy's form."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from odkeras import boxes as box_ops
from odkeras.boxes import Detections, Groundtruth
from odkeras.metrics import Effort, effort
from odkeras.tasks import Task

MOST_SPANS = 2000
_MOST_POINTS = 5000
_SMALLEST_PX = 0.5
_MOST_PX = 1e7

Span = dict[str, Any]


def read_spans(spans: Any, labels: Collection[str], image_size_hw: tuple[int, int]) -> list[Span]:
    """The page's spans in Prodigy's form, clipped to the image.

    Raises:
        ValueError: one of them cannot be used; with its number and what is wrong.
    """
    if not isinstance(spans, list):
        raise ValueError(f"spans must be a list; got {type(spans).__name__}")
    if len(spans) > MOST_SPANS:
        raise ValueError(f"{len(spans)} boxes are more than {MOST_SPANS}")
    return [_read_span(span, number, labels, image_size_hw) for number, span in enumerate(spans, start=1)]


def _read_span(span: Any, number: int, labels: Collection[str], image_size_hw: tuple[int, int]) -> Span:
    if not isinstance(span, Mapping):
        raise ValueError(f"box {number} must be a JSON object; got {type(span).__name__}")
    label = span.get("label")
    if label not in labels:
        raise ValueError(f"box {number} has the label {label!r}; known: {', '.join(labels)}")
    kind = span.get("type", "rect")
    if kind not in ("rect", "polygon"):
        raise ValueError(f"box {number} is a {kind!r}; rect and polygon can be read")
    points = _rect_points(span, number) if kind == "rect" else _polygon_points(span, number)
    height, width = image_size_hw
    points = [[min(max(x, 0.0), width), min(max(y, 0.0), height)] for x, y in points]
    read: Span = {"id": _id_of(span), "label": label, "type": kind, **_extent(points, number)}
    read["points"] = _corners(read) if kind == "rect" else [[round(x, 2), round(y, 2)] for x, y in points]
    score = span.get("score")
    if _is_within(score, 1e9):
        read["score"] = score
    return read


def _rect_points(span: Mapping[str, Any], number: int) -> list[list[float]]:
    x, y, width, height = (_number(span.get(name), number, name) for name in ("x", "y", "width", "height"))
    return [[x, y], [x + width, y + height]]


def _polygon_points(span: Mapping[str, Any], number: int) -> list[list[float]]:
    points = span.get("points")
    if not isinstance(points, list) or not 3 <= len(points) <= _MOST_POINTS:
        raise ValueError(f"box {number} is a polygon, but its points are no list of 3 to {_MOST_POINTS}")
    read = []
    for point in points:
        if not isinstance(point, (list, tuple)) or len(point) != 2:
            raise ValueError(f"box {number}: a point must be [x, y]; got {str(point)[:40]}")
        read.append([_number(point[0], number, "x"), _number(point[1], number, "y")])
    return read


def _number(value: Any, number: int, name: str) -> float:
    if not _is_within(value, _MOST_PX):
        raise ValueError(f"box {number}: {name} must be a number of pixels; got {str(value)[:40]}")
    return float(value)


def _is_within(value: Any, most: float) -> bool:
    """Whether it is a number of that size. JSON may hold whole numbers that are too large for a float."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= most


def _extent(points: list[list[float]], number: int) -> Span:
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    top, bottom = min(y for _, y in points), max(y for _, y in points)
    if right - left < _SMALLEST_PX or bottom - top < _SMALLEST_PX:
        raise ValueError(f"box {number} has no area within the image")
    x, y, width, height = (round(value, 2) for value in (left, top, right - left, bottom - top))
    center = [round(x + width / 2, 3), round(y + height / 2, 3)]
    return {"x": x, "y": y, "width": width, "height": height, "center": center}


def _corners(span: Span) -> list[list[float]]:
    x, y = span["x"], span["y"]
    right, bottom = round(x + span["width"], 2), round(y + span["height"], 2)
    return [[x, y], [x, bottom], [right, bottom], [right, y]]


def _id_of(span: Mapping[str, Any]) -> str:
    given = span.get("id")
    return given if isinstance(given, str) and 0 < len(given) <= 64 else str(uuid.uuid4())


def effort_of(task: Task, spans: list[Span]) -> Effort | None:
    """What a person did with the task's suggestions to get to these spans; None if no model made any, or they were
    not shown."""
    made = task.get("_suggestions")
    if not isinstance(made, Mapping) or made.get("version") is None or made.get("control"):
        return None
    size_hw = (int(task["height"]), int(task["width"]))
    suggested = [span for span in made.get("spans") or () if isinstance(span, Mapping)]
    classes = {label: id for id, label in enumerate({str(span.get("label")) for span in [*suggested, *spans]}, start=1)}
    truth = Groundtruth(_boxes(spans, size_hw), _classes(spans, classes))
    scores = np.array([float(span.get("score") or 0) for span in suggested], np.float32)
    return effort(truth, Detections(_boxes(suggested, size_hw), scores, _classes(suggested, classes)))


def _boxes(spans: Collection[Mapping[str, Any]], size_hw: tuple[int, int]) -> np.ndarray:
    xyxy_px = [[each["x"], each["y"], each["x"] + each["width"], each["y"] + each["height"]] for each in spans]
    return box_ops.from_xyxy_px(xyxy_px, size_hw)


def _classes(spans: Collection[Mapping[str, Any]], classes: Mapping[str, int]) -> np.ndarray:
    return np.array([classes[str(span.get("label"))] for span in spans], np.int32)
