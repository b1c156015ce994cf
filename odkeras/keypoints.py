"""Keypoints: named points of an object, such as the joints of a person. The arrays are described in `odkeras.boxes`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from odkeras.boxes import FloatArray
from odkeras.errors import ConfigError

NOT_LABELLED = 0
"""COCO's visibility of a keypoint whose place is not known. Nothing is trained at it."""

HIDDEN = 1
"""COCO's visibility of a keypoint that is labelled although something covers it."""

VISIBLE = 2
"""COCO's visibility of a keypoint that can be seen."""

VISIBILITIES = (NOT_LABELLED, HIDDEN, VISIBLE)

MIN_SCORE = 0.5
"""Predicted keypoints with a lower score are drawn hollow, like hidden ones."""


_TOLERANCE_PX = 1.0
"""How far outside the image a keypoint may be, for rounding; it is clipped."""

_SIDES = {"left": "right", "Left": "Right", "LEFT": "RIGHT"}
_OTHER_SIDE = {**_SIDES, **{right: left for left, right in _SIDES.items()}}


class Keypoint(NamedTuple):
    """A keypoint of one object.

    Args:
        name: its name in the label map.
        x_px: from the left of the upright image.
        y_px: from its top.
        visibility: 0 = not labelled: x and y are only a proposal; 1 = labelled but hidden; 2 = visible.
    """

    name: str
    x_px: float
    y_px: float
    visibility: int = VISIBLE


def to_array(
    keypoints: Iterable[Keypoint],
    named: Sequence[tuple[int, str]],
    num_keypoints: int,
    image_size_hw: tuple[float, float],
) -> FloatArray:
    """float32 (K, 3) [y, x, visibility], normalised; zeros for the keypoints that are not labelled.

    Args:
        named: id and name of the keypoints that the object's class has.
        num_keypoints: K.

    Raises:
        ValueError: the class has no such keypoint, or it is outside the image.
    """
    points = np.zeros((num_keypoints, 3), np.float32)
    ids = {name: id for id, name in named}
    height, width = image_size_hw
    for point in keypoints:
        if point.name not in ids:
            raise ValueError(f"keypoint {point.name!r} is not in the label map (known: {', '.join(ids) or 'none'})")
        if point.visibility == NOT_LABELLED:
            continue
        for side, value, length in (("x", point.x_px, width), ("y", point.y_px, height)):
            if not -_TOLERANCE_PX <= value <= length + _TOLERANCE_PX:
                place = f"{side} is {value:g}, must be 0 to {length:g}"
                fix = "correct it, or set its visibility to 0"
                raise ValueError(f"keypoint {point.name!r} is outside the image: {place}; {fix}")
        y, x = min(max(point.y_px / height, 0.0), 1.0), min(max(point.x_px / width, 0.0), 1.0)
        points[ids[point.name]] = (y, x, point.visibility)
    return points


def from_array(
    points: FloatArray, named: Sequence[tuple[int, str]], image_size_hw: tuple[int, int], decimals: int
) -> tuple[Keypoint, ...]:
    """A model's keypoints of one object. Those with a score below `MIN_SCORE` are not labelled, only proposed; those
    that the model did not find are left out.

    Args:
        points: float32 (K, 3) [y, x, score], normalised.
        named: id and name of the keypoints that the object's class has.
        decimals: of a pixel.
    """
    height, width = image_size_hw
    rows = [(name, *np.asarray(points[id], np.float64).tolist()) for id, name in named if id < len(points)]
    return tuple(
        Keypoint(
            name,
            round(min(max(x, 0.0), 1.0) * width, decimals),
            round(min(max(y, 0.0), 1.0) * height, decimals),
            VISIBLE if score >= MIN_SCORE else NOT_LABELLED,
        )
        for name, y, x, score in rows
        if score > 0 and math.isfinite(y + x)
    )


@dataclass(frozen=True)
class Skeleton:
    """The keypoints that a model predicts, or those of a class.

    Args:
        names: the name of each keypoint, by its id.
        edges: pairs of ids between which lines are drawn.
    """

    names: tuple[str, ...] = ()
    edges: tuple[tuple[int, int], ...] = ()

    def name_of(self, id: int) -> str:
        """The name of a keypoint; its number if it has none."""
        return (self.names[id] if id < len(self.names) else "") or str(id)

    @property
    def mirrored(self) -> tuple[int, ...]:
        """The id of each keypoint in a mirrored image: left and right change places."""
        ids = {name: id for id, name in enumerate(self.names)}
        others = [re.sub("|".join(_OTHER_SIDE), lambda side: _OTHER_SIDE[side[0]], name) for name in self.names]
        return tuple(ids.get(other, id) for id, other in enumerate(others))

    @classmethod
    def parse(cls, text: str) -> Skeleton:
        """The keypoints in a text such as `tail-middle-tip,flag-tip`: names separated by commas; a hyphen draws a line
        between its neighbours.

        Raises:
            ConfigError: a name is missing.
        """
        chains = [[name.strip() for name in chain.split("-")] for chain in text.split(",")]
        if not all(name.isprintable() and name for chain in chains for name in chain):
            raise ConfigError(
                f"{text!r}: a keypoint has no name; give names with commas between them, and hyphens where a line is "
                "to be drawn, for example tail-middle-tip,flag"
            )
        names = tuple(dict.fromkeys(name for chain in chains for name in chain))
        ends = [(names.index(a), names.index(b)) for chain in chains for a, b in pairwise(chain)]
        return cls(names, tuple(dict.fromkeys(ends)))


COCO_PERSON = Skeleton.parse(
    "nose,left_eye,right_eye,left_ear,right_ear,left_shoulder,right_shoulder,left_elbow,right_elbow,left_wrist,"
    "right_wrist,left_hip,right_hip,left_knee,right_knee,left_ankle,right_ankle,"
    "left_ear-left_eye-nose-right_eye-right_ear,left_shoulder-right_shoulder,left_hip-right_hip,"
    "left_shoulder-left_elbow-left_wrist,right_shoulder-right_elbow-right_wrist,"
    "left_shoulder-left_hip-left_knee-left_ankle,right_shoulder-right_hip-right_knee-right_ankle"
)
"""The 17 keypoints of a person in COCO, in COCO's order."""


def parse_class_keypoints(texts: Iterable[str]) -> dict[str, Skeleton]:
    """The keypoints of each class, of texts such as `arrow=tail-middle-tip`, or `person=coco` for `COCO_PERSON`.

    Raises:
        ConfigError: a text has no `=`, or nothing on one side.
    """
    found: dict[str, Skeleton] = {}
    for text in texts:
        label, _, names = text.partition("=")
        if not label.strip() or not names.strip():
            raise ConfigError(
                f"--keypoints must be LABEL=NAME,NAME,..., for example --keypoints arrow=tail-tip or "
                f"--keypoints person=coco; got {text!r}"
            )
        found[label.strip()] = COCO_PERSON if names.strip() == "coco" else Skeleton.parse(names)
    return found


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
