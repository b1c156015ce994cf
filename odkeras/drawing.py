"""Draw labelled boxes into images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from odkeras.colours import ink_on


class LabelledBox(NamedTuple):
    """One box to draw.

    Args:
        xyxy_px: [xmin, ymin, xmax, ymax] in pixels; must be finite.
        text: caption, drawn above the box on a background of its colour.
        colour: `#rrggbb`.
    """

    xyxy_px: Sequence[float]
    text: str
    colour: str


def draw_boxes(picture: Image.Image, boxes: Sequence[LabelledBox], *, line_px: int, font_px: int) -> None:
    """Draw the boxes into `picture`, in place.

    The first box is drawn last, on top of the others. Captions that would leave the picture are moved inside it.

    Args:
        line_px: width of the outlines.
        font_px: font size of the captions.
    """
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=font_px)
    for box in reversed(boxes):
        draw.rectangle(tuple(box.xyxy_px), outline=box.colour, width=line_px)
    for box in reversed(boxes):  # after all outlines, so that no outline crosses a caption
        left, top, right, bottom = draw.textbbox((0, 0), box.text, font=font)
        width, height = right - left + 6, bottom - top + 6
        x = min(max(0.0, box.xyxy_px[0]), max(0.0, picture.width - width))
        y = box.xyxy_px[1] - height
        if y < 0:
            y = min(max(0.0, box.xyxy_px[1]), picture.height - height)
        draw.rectangle((x, y, x + width, y + height), fill=box.colour)
        draw.text((x + 3 - left, y + 3 - top), box.text, fill=ink_on(box.colour), font=font)
