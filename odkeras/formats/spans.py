"""The JSON of a span: what `image_manual` of Prodigy has for an object, and its keypoints.

    {"label": "person", "points": [[8, 4], [8, 40], [24, 40], [24, 4]], ...,
     "keypoints": [{"name": "nose", "x": 16.5, "y": 9, "visibility": 2}]}

The keypoints are in pixels, as the span. Their names are those of the label map; the visibility is COCO's (see
`odkeras.keypoints.Keypoint`), and 2 if it is missing. Keypoints that are not listed are not labelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from odkeras import keypoints as keypoint_ops
from odkeras.annotation import Span, is_list_of_pairs
from odkeras.boxes import FloatArray
from odkeras.errors import AnswerError
from odkeras.keypoints import NOT_LABELLED, VISIBILITIES, VISIBLE, Keypoint
from odkeras.labels import LabelMap
from odkeras.numeric import is_number

DECIMALS = 2
"""Of a pixel, in what is written."""
_SPAN_KEYS = frozenset(
    {"label", "type", "x", "y", "width", "height", "w", "h", "center", "points", "score", "id", "picked"}
)
_KEYPOINT_KEYS = ("name", "x", "y", "visibility")


def write_span(span: Span) -> dict[str, Any]:
    """The span as `image_manual` has it; coordinates are rounded to `DECIMALS`."""
    left, top, right, bottom = span.xyxy_px
    left, top, right, bottom = (
        round(left, DECIMALS),
        round(top, DECIMALS),
        round(right, DECIMALS),
        round(bottom, DECIMALS),
    )
    is_polygon = span.is_polygon
    written: dict[str, Any] = {
        **span.other,
        "label": span.label,
        "type": "polygon" if is_polygon else "rect",
        "x": left,
        "y": top,
        "width": round(right - left, DECIMALS),
        "height": round(bottom - top, DECIMALS),
        "center": [round((left + right) / 2, 3), round((top + bottom) / 2, 3)],
        "points": [[left, top], [left, bottom], [right, bottom], [right, top]],
    }
    if is_polygon:
        written["points"] = [[round(x, DECIMALS), round(y, DECIMALS)] for x, y in span.points_xy_px]
    if span.score is not None:
        written["score"] = span.score
    if span.id:
        written["id"] = span.id
    if span.picked:
        written["picked"] = True
    if span.keypoints:
        written["keypoints"] = [write_keypoint(point) for point in span.keypoints]
    return written


def read_span(span: Any) -> Span:
    """A span of an answer: all of its `points`, the one key that all versions of Prodigy write, else x, y and size.

    Keypoints that cannot be read stay in `other`, as another tool may have them; `keypoints_of_span` refuses them.

    Raises:
        AnswerError: it is not an object, has no label or no corners, or they are not numbers.
    """
    if not isinstance(span, Mapping):
        raise AnswerError(f"a span must be a JSON object; got {type(span).__name__}")
    label, score, id = span.get("label"), span.get("score"), span.get("id")
    if not isinstance(label, str) or not label.strip():
        raise AnswerError("it has no label")
    other = {key: value for key, value in span.items() if key not in _SPAN_KEYS}
    keypoints: tuple[Keypoint, ...] = ()
    with suppress(AnswerError):
        keypoints = read_keypoints(span.get("keypoints"))
        other.pop("keypoints", None)
    return Span(
        label,
        _corners_px(span),
        score if is_number(score) else None,
        id if isinstance(id, str) else "",
        span.get("picked") is True,
        other,
        keypoints,
    )


def write_keypoint(point: Keypoint) -> dict[str, Any]:
    """A keypoint as its span has it; coordinates are rounded to `DECIMALS`."""
    x, y = (round(value, DECIMALS) for value in (point.x_px, point.y_px))
    return {"name": point.name, "x": x, "y": y, "visibility": point.visibility}


def read_keypoints(rows: Any) -> tuple[Keypoint, ...]:
    """The keypoints of a span; () for None.

    Raises:
        AnswerError: the first one that is not a keypoint, by its number, or a name that is used twice.
    """
    if rows is None:
        return ()
    if not isinstance(rows, list):
        raise AnswerError(f"keypoints must be a list of objects with name, x, y and visibility; got {repr(rows)[:40]}")
    points = tuple(_read_keypoint(row, f"keypoint {number}") for number, row in enumerate(rows, start=1))
    names = [point.name for point in points]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise AnswerError(f"keypoints: {twice!r} is there twice")
    return points


def _read_keypoint(row: Any, where: str) -> Keypoint:
    if not isinstance(row, Mapping):
        raise AnswerError(f"{where} must be an object with name, x, y and visibility; got {repr(row)[:40]}")
    name, visibility = row.get("name"), row.get("visibility", VISIBLE)
    if not isinstance(name, str) or not name:
        raise AnswerError(f"{where}: name must be a text; got {repr(name)[:40]}")
    if isinstance(visibility, bool) or visibility not in VISIBILITIES:
        raise AnswerError(f"{where} ({name}): visibility must be 0, 1 or 2; got {repr(visibility)[:40]}")
    x, y = (row.get(side, 0 if visibility == NOT_LABELLED else None) for side in ("x", "y"))
    for side, value in (("x", x), ("y", y)):
        if not is_number(value):
            raise AnswerError(f"{where} ({name}): {side} must be a finite number of pixels; got {repr(value)[:40]}")
    return Keypoint(name, float(x), float(y), int(visibility))


def keypoints_of_span(span: Span, label_map: LabelMap, image_size_hw: tuple[float, float]) -> FloatArray:
    """float32 (K, 3) [y, x, visibility], normalised: the span's keypoints, by their ids in the label map; zeros for
    those that are not labelled. K is 0 if the label map names no keypoints.

    Raises:
        AnswerError: they cannot be read, or one of them is not of the span's class, or outside the image.
        LabelMapError: the label is not in the label map.
    """
    if not label_map.num_keypoints:
        return keypoint_ops.to_array((), (), 0, image_size_hw)
    read_keypoints(span.other.get("keypoints"))
    named = label_map.keypoints_of(label_map.id_of(span.label))
    try:
        return keypoint_ops.to_array(span.keypoints, named, label_map.num_keypoints, image_size_hw)
    except ValueError as error:
        raise AnswerError(f"{span.label!r}: {error}") from error


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


def write_candidate(span: Span) -> list[Any]:
    """A candidate in short: label, score, box, and [name, x, y, visibility] of each keypoint if it has any."""
    row: list[Any] = [span.label, span.score, [round(value, 1) for value in span.xyxy_px]]
    points = [[point.name, round(point.x_px, 1), round(point.y_px, 1), point.visibility] for point in span.keypoints]
    return [*row, points] if points else row


def readable_candidates(rows: Any) -> Iterator[Span]:
    """The candidates of a task that can be read; the others, of another tool, are left out."""
    for row in rows if isinstance(rows, list) else ():
        with suppress(ValueError, TypeError, AnswerError):
            label, score, (left, top, right, bottom), *more = row
            points = [dict(zip(_KEYPOINT_KEYS, point, strict=True)) for point in more[0]] if more else []
            if isinstance(label, str) and all(map(is_number, (score, left, top, right, bottom))):
                corners = ((left, top), (right, bottom))
                yield Span(label, corners, float(score), keypoints=read_keypoints(points))
