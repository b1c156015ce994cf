"""Draw labelled boxes and keypoints into images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from odkeras.colours import ink_on
from odkeras.keypoints import DrawnKeypoint, edges_between


class LabelledBox(NamedTuple):
    """One box to draw.

    Args:
        xyxy_px: [xmin, ymin, xmax, ymax] in pixels; must be finite.
        text: caption, drawn above the box on a background of its colour.
        colour: `#rrggbb`.
        keypoints: those of the object in the box, by id.
    """

    xyxy_px: Sequence[float]
    text: str
    colour: str
    keypoints: Sequence[DrawnKeypoint | None] = ()


def draw_boxes(
    picture: Image.Image,
    boxes: Sequence[LabelledBox],
    *,
    line_px: int,
    font_px: int,
    edges: Sequence[tuple[int, int]] = (),
) -> None:
    """Draw the boxes into `picture`, in place, and their keypoints: discs, or circles if hidden or uncertain.

    The first box is drawn last, on top of the others. Captions that would leave the picture are moved inside it.

    Args:
        line_px: width of the outlines.
        font_px: font size of the captions.
        edges: pairs of keypoint ids between which lines are drawn.
    """
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=font_px)
    for box in reversed(boxes):
        draw.rectangle(tuple(box.xyxy_px), outline=box.colour, width=line_px)
        _draw_keypoints(draw, box, line_px, edges)
    for box in reversed(boxes):  # after all outlines, so that no outline crosses a caption
        left, top, right, bottom = draw.textbbox((0, 0), box.text, font=font)
        width, height = right - left + 6, bottom - top + 6
        x = min(max(0.0, box.xyxy_px[0]), max(0.0, picture.width - width))
        y = box.xyxy_px[1] - height
        if y < 0:
            y = min(max(0.0, box.xyxy_px[1]), picture.height - height)
        draw.rectangle((x, y, x + width, y + height), fill=box.colour)
        draw.text((x + 3 - left, y + 3 - top), box.text, fill=ink_on(box.colour), font=font)


def _draw_keypoints(
    draw: ImageDraw.ImageDraw, box: LabelledBox, line_px: int, edges: Sequence[tuple[int, int]]
) -> None:
    ink, radius = ink_on(box.colour), 1.5 * line_px
    for start, end in edges_between(box.keypoints, edges):
        draw.line((start.x_px, start.y_px, end.x_px, end.y_px), fill=box.colour, width=line_px)
    for point in box.keypoints:
        if point is not None:
            around = (point.x_px - radius, point.y_px - radius, point.x_px + radius, point.y_px + radius)
            fill, outline = (box.colour, ink) if point.is_filled else (ink, box.colour)
            draw.ellipse(around, fill=fill, outline=outline)
