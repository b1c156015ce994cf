"""Boxes with the names of their labels, drawn into pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from odkeras.colours import ink_on


class LabelledBox(NamedTuple):
    """One box, finite, [xmin, ymin, xmax, ymax] in pixels; the text stands above it, on the box's colour."""

    xyxy_px: Sequence[float]
    text: str
    colour: str


def draw_boxes(picture: Image.Image, boxes: Sequence[LabelledBox], *, line_px: int, font_px: int) -> None:
    """Change `picture` in place: the first box on top, and each text where it can be read whole, if there is room."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=font_px)
    for box in reversed(boxes):
        draw.rectangle(tuple(box.xyxy_px), outline=box.colour, width=line_px)
    for box in reversed(boxes):  # after all boxes: no line crosses a text
        left, top, right, bottom = draw.textbbox((0, 0), box.text, font=font)
        width, height = right - left + 6, bottom - top + 6
        x = min(max(0.0, box.xyxy_px[0]), max(0.0, picture.width - width))
        y = box.xyxy_px[1] - height
        if y < 0:
            y = min(max(0.0, box.xyxy_px[1]), picture.height - height)
        draw.rectangle((x, y, x + width, y + height), fill=box.colour)
        draw.text((x + 3 - left, y + 3 - top), box.text, fill=ink_on(box.colour), font=font)
