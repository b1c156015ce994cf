"""Draws images with boxes, in the colours of their labels, for TensorBoard."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from odkeras.boxes import Detections, Groundtruth, to_xyxy_px
from odkeras.colours import colour_of
from odkeras.drawing import LabelledBox, draw_boxes
from odkeras.errors import LabelMapError
from odkeras.labels import LabelMap

MOST_PX = 480
"""Maximum longer side of an image. Every round adds several images to the event files, which are never pruned."""

LEAST_PX = 320
"""Minimum longer side; smaller images are scaled up."""
SHOWN_SCORE = 0.5
BEST_FEW = 3

_BAND_PX, _GAP_PX, _LINE_PX, _FONT_PX = 24, 8, 3, 14
_PAPER, _INK = "#ffffff", "#1f2328"
_QUALITY = 88


class Pen:
    """Draws boxes with their labels.

    Args:
        label_map: gives names and colours. None labels boxes with their class ids.
    """

    def __init__(self, label_map: LabelMap | None = None) -> None:
        self._label_map = label_map

    def draw(self, image: Any, boxes: Groundtruth | Detections) -> Image.Image:
        """Draw boxes on an image, uint8 (H, W, 3), resized by `fitted`. Detections are labelled with their scores.

        Boxes that are not finite, or that end before they begin, are skipped.
        """
        picture = fitted(image)
        scores = boxes.scores.tolist() if isinstance(boxes, Detections) else [None] * len(boxes)
        corners = to_xyxy_px(boxes.boxes, (picture.height, picture.width))
        drawn = [
            LabelledBox(box, self._text(int(class_id), score), self.colour_of(int(class_id)))
            for box, class_id, score in zip(corners.tolist(), boxes.classes, scores, strict=True)
            if np.isfinite(box).all() and box[0] <= box[2] and box[1] <= box[3]
        ]
        draw_boxes(picture, drawn, line_px=_LINE_PX, font_px=_FONT_PX)
        return picture

    def name_of(self, class_id: int) -> str:
        """The class's display name; the id itself if the label map lacks it."""
        try:
            return self._label_map.display_name_of(class_id) if self._label_map else str(class_id)
        except LabelMapError:
            return str(class_id)

    def colour_of(self, class_id: int) -> str:
        """The colour of the class's position in the label map, as on the page."""
        ids = self._label_map.ids if self._label_map else ()
        return colour_of(ids.index(class_id) if class_id in ids else class_id - 1)

    def _text(self, class_id: int, score: float | None) -> str:
        return self.name_of(class_id) if score is None else f"{self.name_of(class_id)} {score:.2f}"


_FONT = ImageFont.load_default(size=_FONT_PX)


def compare(pen: Pen, image: Any, truth: Groundtruth, found: Detections) -> Image.Image:
    """Groundtruth and detections side by side.

    Shows the detections with a score of at least `SHOWN_SCORE`; if there are none, the `BEST_FEW` best.

    Args:
        pen: draws the boxes.
        image: uint8 (H, W, 3).
        truth: groundtruth boxes, drawn on the left.
        found: detections, drawn on the right.
    """
    shown = found.above(SHOWN_SCORE)
    heading = f"detections, score at least {SHOWN_SCORE:g}"
    if not len(shown):
        shown = best(found)
        heading = f"the best {len(shown)}, none has {SHOWN_SCORE:g}" if len(shown) else "no detections"
    left, right = pen.draw(image, truth), pen.draw(image, shown)
    panel = Image.new("RGB", (left.width + _GAP_PX + right.width, left.height + _BAND_PX), _PAPER)
    draw = ImageDraw.Draw(panel)
    for picture, x, text in ((left, 0, f"truth: {len(truth)}"), (right, left.width + _GAP_PX, heading)):
        panel.paste(picture, (x, _BAND_PX))
        draw.text((x + 4, _BAND_PX / 2), text, fill=_INK, font=_FONT, anchor="lm")
    return panel


def best(found: Detections, count: int = BEST_FEW) -> Detections:
    """The `count` detections with the highest scores, best first. A NaN score comes last."""
    order = np.argsort(-np.nan_to_num(found.scores, nan=-1.0), kind="stable")[:count]
    return Detections(found.boxes[order], found.scores[order], found.classes[order])


def fitted(image: Any) -> Image.Image:
    """Resize an image, uint8 (H, W, 3), so that its longer side is between `LEAST_PX` and `MOST_PX`."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    longest = max(picture.size)
    target = LEAST_PX if longest < LEAST_PX else min(longest, MOST_PX)
    if target == longest:
        return picture
    width, height = (max(1, round(side * target / longest)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def from_any_range(image: Any) -> Any:
    """Convert an image, (H, W, 3) or (H, W, 1), to uint8 (H, W, 3).

    Other dtypes are the result of a model's preprocessing, whose range differs between models: their own minimum and
    maximum are stretched to 0 and 255.
    """
    if image.ndim == 3 and image.shape[-1] == 1:
        image = np.repeat(image, 3, axis=-1)
    if image.dtype == np.uint8:
        return image
    image = np.nan_to_num(np.asarray(image, np.float32))
    low, high = float(image.min()), float(image.max())
    return ((image - low) / max(high - low, 1e-6) * 255).astype(np.uint8)


def as_jpeg(picture: Image.Image) -> bytes:
    """Encode as JPEG, without chroma subsampling, which would blur the coloured lines of boxes."""
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=_QUALITY, subsampling=0)
    return data.getvalue()
