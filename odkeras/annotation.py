"""The values that an annotation consists of, free of any file format: decision, span, counts of edits.

Formats are read into these values and written from them in one file each, for example `odkeras.formats.prodigy`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from odkeras import boxes as box_ops
from odkeras import polygons as polygon_ops
from odkeras.boxes import FloatArray, Groundtruth
from odkeras.images import EncodedImage


class Decision(str, Enum):
    """What an annotator decided about an image. Only accepted images are trained on."""

    ACCEPT = "accept"
    REJECT = "reject"
    IGNORE = "ignore"


DECISIONS: tuple[str, ...] = tuple(decision.value for decision in Decision)


class Outline(NamedTuple):
    """The shape of a span inside its image.

    Args:
        box: float32 (4,) [ymin, xmin, ymax, xmax], normalised.
        polygon: float32 (K, 2) [y, x], normalised; None for a rectangle.
    """

    box: FloatArray
    polygon: FloatArray | None


@dataclass(frozen=True)
class Span:
    """A labelled object, in pixels of the upright image with the origin at the top left.

    Args:
        label: name of the class, as the annotator saw it.
        points_xy_px: two opposite corners of a rectangle, or the corners of a polygon in their order.
        score: the model's score, 0..1; None for a span that no model suggested.
        id: tells spans of one image apart; "" if it has none.

    Raises:
        ValueError: no points.
    """

    label: str
    points_xy_px: tuple[tuple[float, float], ...]
    score: float | None = None
    id: str = ""

    def __post_init__(self) -> None:
        if not self.points_xy_px:
            raise ValueError("a span needs points; got none")

    @property
    def xyxy_px(self) -> tuple[float, float, float, float]:
        """The bounding box (xmin, ymin, xmax, ymax)."""
        x_px, y_px = zip(*self.points_xy_px, strict=True)
        return min(x_px), min(y_px), max(x_px), max(y_px)

    @property
    def is_polygon(self) -> bool:
        """Whether its points make another shape than an upright rectangle."""
        return len(self.points_xy_px) > 2 and not polygon_ops.is_rectangle(self.points_xy_px)

    def outline(self, image_size_hw: tuple[float, float]) -> Outline:
        """The shape clipped to the image. A polygon that covers nothing counts as its bounding box."""
        if self.is_polygon:
            polygon = polygon_ops.from_xy_px(self.points_xy_px, image_size_hw)
            if not polygon_ops.is_flat(polygon):
                clipped = polygon_ops.clip(polygon)
                return Outline(polygon_ops.bounds(clipped), clipped)
        return Outline(box_ops.clip(box_ops.from_xyxy_px([self.xyxy_px], image_size_hw))[0], None)


@dataclass(frozen=True, eq=False)
class Annotation:
    """An image and its true boxes, as a person accepted them.

    Args:
        image: as it is trained on.
        groundtruth: the boxes.
        image_id: stable id of the image.
        file: its name, for people.
        batch: name of the inbox file that it came in.
        polygons: the outline of each box, in their order: float32 (K, 2) [y, x], normalised; None for a rectangle.
            () where all are rectangles.

    Raises:
        ValueError: not one entry per box, or one that is no polygon.
    """

    image: EncodedImage
    groundtruth: Groundtruth
    image_id: str
    file: str
    batch: str = ""
    polygons: tuple[FloatArray | None, ...] = ()

    def __post_init__(self) -> None:
        polygons = tuple(None if each is None else polygon_ops.as_polygon(each) for each in self.polygons)
        if polygons and len(polygons) != len(self.groundtruth):
            raise ValueError(f"polygons must have {len(self.groundtruth)} entries, one per box; got {len(polygons)}")
        object.__setattr__(self, "polygons", polygons if any(each is not None for each in polygons) else ())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Annotation):
            return NotImplemented
        names = [each.name for each in fields(self) if each.name != "polygons"]
        return all(getattr(self, name) == getattr(other, name) for name in names) and _same_polygons(self, other)

    __hash__ = None  # type: ignore[assignment]  # holds arrays


def _same_polygons(one: Annotation, other: Annotation) -> bool:
    pairs = zip(one.polygons, other.polygons, strict=False)
    return len(one.polygons) == len(other.polygons) and all(
        a is b if a is None or b is None else np.array_equal(a, b) for a, b in pairs
    )


_FORMER_NAMES = {"kept_90": "kept", "moved": "adjusted", "drawn": "added"}


@dataclass(frozen=True)
class EditCounts:
    """What an annotator did with suggestions, in boxes. `sum(counts, EditCounts())` adds up.

    Args:
        kept: suggestions that match a true box with IoU >= 0.9: good as they are.
        kept_70: the same with IoU >= 0.7, `kept` included.
        adjusted: suggestions that match (IoU >= 0.5), but not with 0.9.
        relabelled: suggestions that would match (IoU >= 0.5) if their class were another one.
        deleted: suggestions that match nothing.
        added: true boxes that no suggestion matches.
    """

    kept: int = 0
    kept_70: int = 0
    adjusted: int = 0
    relabelled: int = 0
    deleted: int = 0
    added: int = 0

    @classmethod
    def from_json(cls, row: Any) -> EditCounts:
        """Reads what `to_json` wrote, now or under the names of earlier versions; missing counts are 0.

        Raises:
            ValueError, TypeError: a count is not a number.
        """
        named = {_FORMER_NAMES.get(name, name): value for name, value in row.items()}
        return cls(**{each.name: int(named.get(each.name) or 0) for each in fields(cls)})

    def to_json(self) -> dict[str, int]:
        return asdict(self)

    @property
    def suggested(self) -> int:
        """All suggestions."""
        return self.kept + self.adjusted + self.relabelled + self.deleted

    @property
    def objects(self) -> int:
        """All true boxes."""
        return self.kept + self.adjusted + self.relabelled + self.added

    def __add__(self, other: EditCounts) -> EditCounts:
        return EditCounts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


def is_list_of_pairs(points: Any) -> bool:
    """Whether a JSON value is a list of [x, y], whatever x and y are."""
    return isinstance(points, (list, tuple)) and all(
        isinstance(point, (list, tuple)) and len(point) == 2 for point in points
    )
