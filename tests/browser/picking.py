"""Pages whose images have candidates, and what is shown of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from desk import Box, Desk, Server, change_tasks
from playwright.sync_api import expect

LARGE, SMALL, OTHER = (10, 8, 70, 56), (20, 16, 44, 40), (74, 4, 94, 24)
Scored = tuple[Box, float]


def open_with_candidates(
    server: Server,
    new_desk: Callable[..., Desk],
    *candidates: Scored | Box,
    label: str = "person",
    boxes: Sequence[Box] = (),
    threshold: float | None = None,
    **options: object,
) -> Desk:
    """A page whose images have these candidates, and these boxes as suggestions of cars."""
    scored = [each if len(each) == 2 else (each, 0.4) for each in candidates]
    more = [{"label": label, "rect": xywh(box), "score": score} for box, score in scored]
    spans = [_span(number, box) for number, box in enumerate(boxes)]

    server.start()
    desk = new_desk(**options)
    change_tasks(desk.page, lambda task: task.update(candidates=more, spans=spans, threshold=threshold))
    desk.open()
    expect(desk.by("box-item")).to_have_count(len(boxes))
    return desk


def xywh(box: Box) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _span(number: int, box: Box) -> dict[str, object]:
    x, y, width, height = xywh(box)
    place = {"x": x, "y": y, "width": width, "height": height}
    return {"id": f"box {number}", "label": "car", "type": "rect", **place, "score": 0.8}


def ghost(desk: Desk) -> Box | None:
    """The candidate whose outline is on the screen."""
    element = desk.by("ghost")
    if element.is_hidden():
        return None
    x, y, width, height = map(float, str(element.get_attribute("data-rect")).split(","))
    place, start, end = element.bounding_box(), desk.point(x, y), desk.point(x + width, y + height)
    assert place is not None
    assert (place["x"], place["y"]) == pytest.approx(start, abs=0.5)
    assert (place["x"] + place["width"], place["y"] + place["height"]) == pytest.approx(end, abs=0.5)
    return x, y, x + width, y + height
