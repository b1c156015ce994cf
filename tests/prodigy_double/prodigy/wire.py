"""What goes over the wire and into the database: plain JSON types, no NaN, and what the image views can show."""

from __future__ import annotations

import json
import math
from typing import Any

Task = dict[str, Any]
_SCALARS = (str, int, bool, type(None))
_LOADABLE = ("data:", "http://", "https://")


def check_plain(value: Any, where: str) -> None:
    """Exact types: the subclasses of numpy pass `json.dumps` but not every serialiser.

    Raises:
        TypeError: not a JSON type.
        ValueError: NaN or infinite.
    """
    if type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError(f"{where}: the key {key!r} is of type {type(key).__name__}, not str")
            check_plain(item, f"{where}[{key!r}]")
    elif type(value) is list:
        for index, item in enumerate(value):
            check_plain(item, f"{where}[{index}]")
    elif type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}, which JSON does not have")
    elif type(value) not in _SCALARS:
        raise TypeError(f"{where} is of type {type(value).__name__}, which JSON does not have")


def over_the_wire(value: Any) -> Any:
    """A copy, as the other side gets it."""
    check_plain(value, "value")
    return json.loads(json.dumps(value, allow_nan=False))


def check_task(task: Any, view_id: str) -> None:
    """Raises when the task could not be sent or shown."""
    if not isinstance(task, dict):
        raise TypeError(f"the stream must yield dicts; got {type(task).__name__}")
    check_plain(task, "task")
    if view_id in ("image", "image_manual"):
        _check_image(task)
        _check_spans(task.get("spans"))


def _check_image(task: Task) -> None:
    image = task.get("image")
    if not isinstance(image, str) or not image.startswith(_LOADABLE):
        raise ValueError(f"no browser can load the image {str(image)[:80]!r}: neither a data URI nor an http(s) URL")


def _check_spans(spans: Any) -> None:
    if spans is not None and not isinstance(spans, list):
        raise ValueError(f"spans must be a list; got {spans!r}")
    for span in spans or []:
        points = span.get("points") if isinstance(span, dict) else None
        if not isinstance(points, list) or not points or not all(_is_point(point) for point in points):
            raise ValueError(f"a span needs points [[x, y], ...]; got {span!r}")


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and [type(value) in (int, float) for value in point] == [True, True]
