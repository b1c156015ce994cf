"""Keypoints: named points of an object, such as the joints of a person. The arrays are described in `odkeras.boxes`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from odkeras.boxes import FloatArray

HIDDEN = 1
"""COCO's visibility of a keypoint that is labelled although something covers it."""

VISIBLE = 2
"""COCO's visibility of a keypoint that can be seen."""

MIN_SCORE = 0.5
"""Predicted keypoints with a lower score are drawn hollow, like hidden ones."""


@dataclass(frozen=True)
class Skeleton:
    """The keypoints that a model predicts.

    Args:
        names: the name of each keypoint, by its id.
        edges: pairs of ids between which lines are drawn.
    """

    names: tuple[str, ...] = ()
    edges: tuple[tuple[int, int], ...] = ()

    def name_of(self, id: int) -> str:
        """The name of a keypoint; its number if it has none."""
        return (self.names[id] if id < len(self.names) else "") or str(id)


class DrawnKeypoint(NamedTuple):
    """A keypoint to draw.

    Args:
        x_px: from the left of the image.
        y_px: from its top.
        is_filled: whether it is drawn as a disc; a hidden or uncertain one is drawn as a circle.
    """

    x_px: float
    y_px: float
    is_filled: bool


def to_draw(keypoints: FloatArray, image_size_hw: tuple[int, int], *, filled_from: float) -> list[DrawnKeypoint | None]:
    """The keypoints of one object, in pixels; None for those that are not there.

    Args:
        keypoints: float32 (K, 3) [y, x, visibility or score], normalised; 0 in the last column: not there.
        filled_from: the lowest visibility or score of a filled keypoint.
    """
    height, width = image_size_hw
    return [
        DrawnKeypoint(x * width, y * height, value >= filled_from) if value > 0 and math.isfinite(y + x) else None
        for y, x, value in np.asarray(keypoints, np.float64).tolist()
    ]


def edges_between(
    points: Sequence[DrawnKeypoint | None], edges: Sequence[tuple[int, int]]
) -> list[tuple[DrawnKeypoint, DrawnKeypoint]]:
    """The edges whose ends are both there."""
    ends = [(points[a], points[b]) for a, b in edges if max(a, b) < len(points)]
    return [(start, end) for start, end in ends if start is not None and end is not None]
