"""Fits labels to their image: sizes, orientation, and what is outside."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal

from odkeras import boxes as box_ops
from odkeras.annotation import Span, Task
from odkeras.errors import RecordError
from odkeras.formats.label_files import UNIT_SIZE_HW, ReadNotes
from odkeras.images import ImageFacts
from odkeras.keypoints import Keypoint
from odkeras.orientation import swaps_sides, to_upright

Exif = Literal["auto", "upright", "stored"]
EXIF: tuple[Exif, ...] = ("auto", "upright", "stored")
"""What the labels of a photograph refer to that its camera turned: the upright picture, as browsers and viewers show
it; the picture as it is stored; or whichever has the size that the labels state."""

MAX_OUTSIDE = 0.1
"""Share of the image's side by which an object may extend beyond the image."""

UNCLEAR = "photographs that their camera turned, with labels that do not tell which way up (taken as upright; --exif)"
TURNED = "objects of photographs that their camera turned (labels for the stored picture)"
SCALED = "objects scaled from another size of the image"
CLIPPED = "objects clipped to the image"


def fit_spans(task: Task, facts: ImageFacts, place: str, notes: ReadNotes, exif: Exif = "auto") -> tuple[Span, ...]:
    """The spans of a task in pixels of its upright image, inside it. What does not fit is refused.

    Args:
        task: its `image_size_hw` is the size that the spans refer to; see `UNIT_SIZE_HW`.
        place: for messages.

    Raises:
        RecordError: the labels are for an image of another shape, or it has objects and none is inside.
    """
    orientation = facts.orientation if _refer_to_stored(task, facts, notes, exif) else 1
    height, width = facts.image_size_hw
    frame_hw = (width, height) if swaps_sides(orientation) else (height, width)
    scale_yx = _scale(task, frame_hw, place)
    spans: list[Span] = []
    for number, span in enumerate(task.spans, start=1):
        try:
            spans.append(_fit(span, scale_yx, frame_hw, orientation, notes))
        except RecordError as error:
            notes.refuse(f"{place}, object {number}", error)
    if task.spans and not spans:
        raise RecordError(f"none of its {len(task.spans)} objects can be used")
    return tuple(spans)


def _refer_to_stored(task: Task, facts: ImageFacts, notes: ReadNotes, exif: Exif) -> bool:
    """Whether the spans refer to the stored picture of a photograph that was turned."""
    if facts.orientation == 1 or not task.spans or exif != "auto":
        return facts.orientation != 1 and exif == "stored"
    height, width = facts.image_size_hw
    size_hw = task.image_size_hw
    if swaps_sides(facts.orientation) and size_hw not in (None, UNIT_SIZE_HW):
        assert size_hw is not None
        is_upright, is_stored = (box_ops.has_same_shape(size_hw, other) for other in ((height, width), (width, height)))
        if is_upright != is_stored:
            return is_stored
    notes.left_out[UNCLEAR] += 1
    return False


def _scale(task: Task, frame_hw: tuple[int, int], place: str) -> tuple[float, float]:
    size_hw = task.image_size_hw
    if size_hw is None:
        return 1.0, 1.0
    if size_hw == UNIT_SIZE_HW:
        return float(frame_hw[0]), float(frame_hw[1])
    if task.spans and not box_ops.has_same_shape(size_hw, frame_hw):
        sizes = f"{size_hw[1]} x {size_hw[0]} pixels, but the image has {frame_hw[1]} x {frame_hw[0]}"
        raise RecordError(f"the labels are for {sizes}")
    return frame_hw[0] / size_hw[0], frame_hw[1] / size_hw[1]


def _fit(
    span: Span, scale_yx: tuple[float, float], frame_hw: tuple[int, int], orientation: int, notes: ReadNotes
) -> Span:
    (scale_y, scale_x), (height, width) = scale_yx, frame_hw
    if scale_yx == (1.0, 1.0):
        left, top, right, bottom = span.xyxy_px
        if right <= 1 and bottom <= 1 and left >= 0 and top >= 0 and min(height, width) > 2:
            raise RecordError(f"the coordinates of {span.label!r} are from 0 to 1; this format needs pixels")
    else:
        span = _moved(span, lambda x, y: (x * scale_x, y * scale_y))
        if scale_yx != (height, width):
            notes.repaired[SCALED] += 1
    left, top, right, bottom = span.xyxy_px
    if max(-left, right - width) > MAX_OUTSIDE * width or max(-top, bottom - height) > MAX_OUTSIDE * height:
        box = [round(value, 2) for value in span.xyxy_px]
        raise RecordError(f"{span.label!r} at {box} is far outside the image of {width} x {height} pixels")
    if left < 0 or top < 0 or right > width or bottom > height:
        span = _clipped(span, frame_hw)
        notes.repaired[CLIPPED] += _is_more_than_rounding(left, top, right - width, bottom - height)
        left, top, right, bottom = span.xyxy_px
    if not (right > left and bottom > top):
        raise RecordError(f"{span.label!r} has no area inside the image")
    if orientation != 1:
        span = _moved(span, lambda x, y: to_upright((x, y), (height, width), orientation))
        notes.repaired[TURNED] += 1
    return span


def _moved(span: Span, move: Callable[[float, float], tuple[float, float]]) -> Span:
    keypoints = tuple(Keypoint(point.name, *move(point.x_px, point.y_px), point.visibility) for point in span.keypoints)
    return replace(span, points_xy_px=tuple(move(x, y) for x, y in span.points_xy_px), keypoints=keypoints)


def _clipped(span: Span, size_hw: tuple[int, int]) -> Span:
    height, width = size_hw
    points: Iterable[tuple[float, float]]
    if span.is_polygon:
        polygon = span.outline(size_hw).polygon
        if polygon is None or not len(polygon):
            raise RecordError(f"{span.label!r} has no area inside the image")
        points = ((float(x) * width, float(y) * height) for y, x in polygon)
    else:
        points = ((min(max(x, 0), width), min(max(y, 0), height)) for x, y in span.points_xy_px)
    return replace(span, points_xy_px=tuple(points))


def _is_more_than_rounding(*distances: float) -> bool:
    left, top, right, bottom = distances
    return max(-left, -top, right, bottom) > 0.01
