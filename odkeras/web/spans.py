"""Validates the page's spans and clips them to the image."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from typing import Any

from odkeras.annotation import Span, is_list_of_pairs
from odkeras.numeric import is_number

MAX_SPANS = 2000
_MAX_POINTS = 5000
_MIN_SIDE_PX = 0.5
_MAX_PX = 1e7


def read_spans(spans: Any, labels: Collection[str], image_size_hw: tuple[int, int]) -> tuple[Span, ...]:
    """The spans that the page sent, clipped to the image.

    Args:
        labels: the allowed labels.
        image_size_hw: (height, width) in pixels.

    Raises:
        ValueError: a span is invalid; with its number and the reason.
    """
    if not isinstance(spans, list):
        raise ValueError(f"spans must be a list; got {type(spans).__name__}")
    if len(spans) > MAX_SPANS:
        raise ValueError(f"{len(spans)} boxes are more than {MAX_SPANS}")
    return tuple(_read_span(span, number, labels, image_size_hw) for number, span in enumerate(spans, start=1))


def _read_span(span: Any, number: int, labels: Collection[str], image_size_hw: tuple[int, int]) -> Span:
    if not isinstance(span, Mapping):
        raise ValueError(f"box {number} must be a JSON object; got {type(span).__name__}")
    label = span.get("label")
    if not isinstance(label, str) or label not in labels:
        raise ValueError(f"box {number} has the label {label!r}; known: {', '.join(labels)}")
    kind = span.get("type", "rect")
    if kind not in ("rect", "polygon"):
        raise ValueError(f"box {number} is a {kind!r}; rect and polygon are supported")
    corners_px = _rect_corners(span, number) if kind == "rect" else _polygon_corners(span, number)
    height, width = image_size_hw
    clipped_px = tuple((min(max(x, 0.0), width), min(max(y, 0.0), height)) for x, y in corners_px)
    score, id = span.get("score"), span.get("id")
    read = Span(
        label,
        clipped_px,
        score if is_number(score) else None,
        id if isinstance(id, str) and 0 < len(id) <= 64 else str(uuid.uuid4()),
    )
    left, top, right, bottom = read.xyxy_px
    if right - left < _MIN_SIDE_PX or bottom - top < _MIN_SIDE_PX:
        raise ValueError(f"box {number} has no area within the image")
    return read


def _rect_corners(span: Mapping[str, Any], number: int) -> tuple[tuple[float, float], ...]:
    for name in ("x", "y", "width", "height"):
        if not is_number(span.get(name), _MAX_PX):
            raise ValueError(f"box {number}: {name} must be a number of pixels; got {str(span.get(name))[:40]}")
    x, y, width, height = (float(span[name]) for name in ("x", "y", "width", "height"))
    return (x, y), (x + width, y + height)


def _polygon_corners(span: Mapping[str, Any], number: int) -> tuple[tuple[float, float], ...]:
    points = span.get("points")
    if not isinstance(points, list) or not 3 <= len(points) <= _MAX_POINTS:
        raise ValueError(f"box {number} is a polygon, but its points are not a list of 3 to {_MAX_POINTS}")
    for point in points:
        if not is_list_of_pairs([point]) or not all(is_number(value, _MAX_PX) for value in point):
            raise ValueError(f"box {number}: a point must be [x, y], in pixels; got {str(point)[:40]}")
    return tuple((float(x), float(y)) for x, y in points)
