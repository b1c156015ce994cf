"""Boxes in one format: float32 (N, 4), [ymin, xmin, ymax, xmax], normalised to 0..1.

Pixel coordinates appear only at the edges (spans, CSV files, drawings). All conversions of boxes are in this module,
those of outlines in `polygons`. Class ids are label-map ids, from 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Groundtruth:
    """The ground truth boxes of one image.

    Args:
        boxes: float32 (N, 4), normalised.
        classes: int32 (N,), label-map ids.
        keypoints: float32 (N, K, 3) [y, x, visibility], normalised; the visibility is COCO's: 0 = not labelled, 1 =
            labelled but hidden, 2 = visible. None if the objects have no keypoints.

    Raises:
        ValueError: wrong shapes, or a coordinate that is not finite.
    """

    boxes: FloatArray
    classes: IntArray
    keypoints: FloatArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "keypoints", _as_keypoints(self.keypoints, len(self.boxes)))
        if self.keypoints is not None and not np.isfinite(self.keypoints).all():
            raise ValueError("keypoints must be finite; a keypoint that is not labelled is 0, 0 with visibility 0")
        object.__setattr__(self, "boxes", _as_boxes(self.boxes))
        object.__setattr__(self, "classes", _as_column("classes", self.classes, np.int32, len(self.boxes)))
        if not np.isfinite(self.boxes).all():
            raise ValueError(f"boxes must be finite; got {self.boxes[~np.isfinite(self.boxes).all(axis=1)][0]}")

    @classmethod
    def empty(cls) -> Groundtruth:
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.int32))

    def take(self, rows: Any) -> Groundtruth:
        """The objects that `rows` selects: a boolean or integer array, or a slice."""
        keypoints = None if self.keypoints is None else self.keypoints[rows]
        return Groundtruth(self.boxes[rows], self.classes[rows], keypoints)

    def __len__(self) -> int:
        return len(self.boxes)

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None  # type: ignore[assignment]  # holds arrays


@dataclass(frozen=True, eq=False)
class Detections:
    """A model's detections in one image, in the model's order (best first).

    Args:
        boxes: float32 (N, 4), normalised. May contain NaN: a model whose training diverged returns such boxes.
        scores: float32 (N,), 0..1.
        classes: int32 (N,), label-map ids.
        keypoints: float32 (N, K, 3) [y, x, score], normalised; None if the model predicts none.

    Raises:
        ValueError: wrong shapes.
    """

    boxes: FloatArray
    scores: FloatArray
    classes: IntArray
    keypoints: FloatArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "keypoints", _as_keypoints(self.keypoints, len(self.boxes)))
        object.__setattr__(self, "boxes", _as_boxes(self.boxes))
        object.__setattr__(self, "scores", _as_column("scores", self.scores, np.float32, len(self.boxes)))
        object.__setattr__(self, "classes", _as_column("classes", self.classes, np.int32, len(self.boxes)))

    @classmethod
    def empty(cls) -> Detections:
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))

    def above(self, threshold: float) -> Detections:
        """The detections with a score of at least `threshold`. NaN scores are dropped."""
        return self.take(self.scores >= threshold)

    def take(self, rows: Any) -> Detections:
        """The detections that `rows` selects: a boolean or integer array, or a slice."""
        keypoints = None if self.keypoints is None else self.keypoints[rows]
        return Detections(self.boxes[rows], self.scores[rows], self.classes[rows], keypoints)

    def __len__(self) -> int:
        return len(self.boxes)

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None  # type: ignore[assignment]  # holds arrays


def from_xyxy_px(boxes_xyxy_px: npt.ArrayLike, image_size_hw: tuple[float, float]) -> FloatArray:
    """Pixels [xmin, ymin, xmax, ymax] -> normalised [ymin, xmin, ymax, xmax]. Nothing is clipped."""
    xyxy = _check_shape(np.asarray(boxes_xyxy_px, np.float64), "boxes_xyxy_px")
    return (xyxy[:, [1, 0, 3, 2]] / _scale(image_size_hw)).astype(np.float32)


def to_xyxy_px(boxes: npt.ArrayLike, image_size_hw: tuple[float, float]) -> FloatArray:
    """Normalised [ymin, xmin, ymax, xmax] -> pixels [xmin, ymin, xmax, ymax]. Nothing is clipped or rounded."""
    yxyx = _check_shape(np.asarray(boxes, np.float64), "boxes") * _scale(image_size_hw)
    return yxyx[:, [1, 0, 3, 2]].astype(np.float32)


def has_same_shape(size_hw: tuple[float, float], image_size_hw: tuple[float, float]) -> bool:
    """Whether an image of `size_hw` can be a scaled copy of the other, within a pixel or 2 % per side."""
    scale = math.sqrt(size_hw[0] * size_hw[1] / (image_size_hw[0] * image_size_hw[1]))
    expected_hw = (image_size_hw[0] * scale, image_size_hw[1] * scale)
    return all(abs(a - b) <= max(1.0, 0.02 * b) for a, b in zip(size_hw, expected_hw, strict=True))


def clip(boxes: npt.ArrayLike) -> FloatArray:
    """Clip normalised boxes to the image. A box entirely outside ends up with zero area."""
    return np.clip(_as_boxes(boxes), 0.0, 1.0)


def area(boxes: npt.ArrayLike) -> FloatArray:
    """float32 (N,) areas, in the squared unit of the boxes; 0 for a box whose max is below its min."""
    sides = _as_boxes(boxes)
    return _product(sides[:, 2:] - sides[:, :2])


def iou(boxes_a: npt.ArrayLike, boxes_b: npt.ArrayLike) -> FloatArray:
    """float32 (N, M) intersection over union of boxes_a (N, 4) and boxes_b (M, 4); 0 where a box has no area."""
    a, b = _as_boxes(boxes_a), _as_boxes(boxes_b)
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = _product(bottom_right - top_left)
    union = area(a)[:, None] + area(b)[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def _product(sides: FloatArray) -> FloatArray:
    height_width = np.maximum(sides, 0)
    return height_width[..., 0] * height_width[..., 1]


def _scale(image_size_hw: tuple[float, float]) -> npt.NDArray[np.float64]:
    height, width = image_size_hw
    if height <= 0 or width <= 0:
        raise ValueError(f"image_size_hw must be positive; got {image_size_hw}")
    return np.array([height, width, height, width], np.float64)


def _as_boxes(boxes: npt.ArrayLike) -> FloatArray:
    return _check_shape(np.asarray(boxes, np.float32), "boxes")


def _check_shape(boxes: Any, name: str) -> Any:
    if boxes.size == 0 and boxes.ndim < 3:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} must have shape (N, 4); got {boxes.shape}")
    return boxes


def _as_column(name: str, values: npt.ArrayLike, dtype: Any, length: int) -> Any:
    column: npt.NDArray[Any] = np.asarray(values, dtype)
    if column.shape != (length,):
        raise ValueError(f"{name} must have shape ({length},), one per box; got {column.shape}")
    return column


def _as_keypoints(keypoints: npt.ArrayLike | None, length: int) -> FloatArray | None:
    if keypoints is None:
        return None
    points = np.asarray(keypoints, np.float32)
    if points.ndim != 3 or points.shape[0] != length or points.shape[2] != 3:
        raise ValueError(f"keypoints must have shape ({length}, K, 3), K for each box; got {points.shape}")
    return points


def _equal(one: Any, other: object) -> bool:
    if type(one) is not type(other):
        return NotImplemented
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in vars(one))
