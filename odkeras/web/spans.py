"""Validates the page's spans and clips them to the image."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

from msgspec import Meta, Struct

from odkeras.annotation import Span
from odkeras.errors import AnswerError
from odkeras.formats.spans import read_keypoints
from odkeras.keypoints import Keypoint
from odkeras.numeric import is_number
from odkeras.web.replies import SpanType
from odkeras.web.requests import read_fields

MAX_SPANS = 2000
_MAX_POINTS = 5000
_MIN_SIDE_PX = 0.5
_MAX_PX = 1e7


_Px = Annotated[float, Meta(ge=-_MAX_PX, le=_MAX_PX, description="a number of pixels")]


class _Rect(Struct):
    x: _Px
    y: _Px
    width: _Px
    height: _Px


class _Polygon(Struct):
    points: Annotated[
        list[tuple[_Px, _Px]],
        Meta(min_length=3, max_length=_MAX_POINTS, description=f"a list of 3 to {_MAX_POINTS} points [x, y] in pixels"),
    ]


def read_spans(
    spans: Any,
    labels: Collection[str],
    image_size_hw: tuple[int, int],
    keypoints: Mapping[str, Collection[str]] = MappingProxyType({}),
    earlier: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Span, ...]:
    """The spans that the page sent, clipped to the image.

    Args:
        labels: the allowed labels.
        image_size_hw: (height, width) in pixels.
        keypoints: the names of the keypoints of each label; labels without are left out.
        earlier: other labels that a page may still have, and what they become.

    Raises:
        ValueError: a span is invalid; with its number and the reason.
    """
    if not isinstance(spans, list):
        raise ValueError(f"spans must be a list; got {type(spans).__name__}")
    if len(spans) > MAX_SPANS:
        raise ValueError(f"{len(spans)} boxes are more than {MAX_SPANS}")
    today = {**earlier, **{label: label for label in labels}}
    return tuple(
        _read_span(span, number, today, image_size_hw, keypoints, known=labels)
        for number, span in enumerate(spans, start=1)
    )


def _read_span(
    span: Any,
    number: int,
    today: Mapping[str, str],
    image_size_hw: tuple[int, int],
    keypoints: Mapping[str, Collection[str]],
    *,
    known: Collection[str],
) -> Span:
    if not isinstance(span, Mapping):
        raise ValueError(f"box {number} must be a JSON object; got {type(span).__name__}")
    label = span.get("label")
    if not isinstance(label, str) or label not in today:
        raise ValueError(f"box {number} has the label {label!r}; known: {', '.join(known)}")
    label = today[label]
    kind = span.get("type", "rect")
    if kind not in ("rect", "polygon"):
        raise ValueError(f"box {number} is a {kind!r}; rect and polygon are supported")
    try:
        corners_px = _corners_px(span, kind)
        points = _read_keypoints(span.get("keypoints"), keypoints.get(label, ()), image_size_hw)
    except (ValueError, AnswerError) as error:
        raise ValueError(f"box {number}: {error}") from error
    height, width = image_size_hw
    clipped_px = tuple((min(max(x, 0.0), width), min(max(y, 0.0), height)) for x, y in corners_px)
    score, id = span.get("score"), span.get("id")
    read = Span(
        label,
        clipped_px,
        score if is_number(score) else None,
        id if isinstance(id, str) and 0 < len(id) <= 64 else str(uuid.uuid4()),
        span.get("picked") is True,
        keypoints=points,
    )
    left, top, right, bottom = read.xyxy_px
    if right - left < _MIN_SIDE_PX or bottom - top < _MIN_SIDE_PX:
        raise ValueError(f"box {number} has no area within the image")
    return read


def _read_keypoints(rows: Any, names: Collection[str], image_size_hw: tuple[int, int]) -> tuple[Keypoint, ...]:
    """The keypoints, clipped to the image."""
    points = read_keypoints(rows)
    if unknown := [point.name for point in points if point.name not in names]:
        raise ValueError(f"keypoint {unknown[0]!r} is unknown; known: {', '.join(names) or 'none'}")
    height, width = image_size_hw
    return tuple(
        point._replace(x_px=min(max(point.x_px, 0.0), width), y_px=min(max(point.y_px, 0.0), height))
        for point in points
    )


def _corners_px(span: Mapping[str, Any], kind: SpanType) -> Sequence[tuple[float, float]]:
    if kind == "polygon":
        return read_fields(_Polygon, span).points
    rect = read_fields(_Rect, span)
    return (rect.x, rect.y), (rect.x + rect.width, rect.y + rect.height)
