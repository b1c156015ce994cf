"""Polygons, in one form: float32 (K, 2), K >= 3 corners [y, x] in their order, normalised to 0..1.

The last corner is joined to the first. What a polygon covers is what a browser fills: also where it crosses itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from odkeras.boxes import FloatArray

BoolArray = npt.NDArray[np.bool_]

_SAME_CORNER_PX = 0.01
_FLAT = 1e-6  # of the image's side: less than a hundredth of a pixel


def as_polygon(polygon: npt.ArrayLike) -> FloatArray:
    """Raises: ValueError: another shape than (K, 2), fewer than three corners, or a coordinate that is not finite."""
    corners = np.asarray(polygon, np.float32)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError(f"a polygon must have shape (K, 2) with K >= 3; got {corners.shape}")
    if not np.isfinite(corners).all():
        raise ValueError(f"a polygon must be finite; got {corners[~np.isfinite(corners).all(axis=1)][0]}")
    return corners


def from_xy_px(points_xy_px: npt.ArrayLike, image_size_hw: tuple[float, float]) -> FloatArray:
    """Pixels (K, 2) [x, y] -> normalised [y, x]. Nothing is clipped."""
    return (np.asarray(points_xy_px, np.float64)[:, ::-1] / image_size_hw).astype(np.float32)


def is_rectangle(points_xy_px: npt.ArrayLike) -> bool:
    """Whether points (K, 2) are the four corners of an upright rectangle, in whatever order, and no others."""
    points = np.asarray(points_xy_px, np.float64)
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    corners = np.array([[left, top], [left, bottom], [right, bottom], [right, top]])
    is_at = np.abs(points[:, None] - corners).max(axis=2) <= _SAME_CORNER_PX
    return bool(is_at.any(axis=1).all() and is_at.any(axis=0).all())


def is_flat(polygon: npt.ArrayLike) -> bool:
    """Whether it covers nothing because it has fewer than three different corners, or all on one line."""
    corners = np.asarray(polygon, np.float64).reshape(-1, 2)
    if len(corners) < 3:
        return True
    offsets = corners - corners[0]
    lengths = np.hypot(*offsets.T)
    farthest = offsets[lengths.argmax()]
    cross = offsets[:, 0] * farthest[1] - offsets[:, 1] * farthest[0]
    return bool(np.abs(cross).max() <= _FLAT * lengths.max())


def clip(polygon: npt.ArrayLike) -> FloatArray:
    """Cut a normalised polygon at the image's edges; (0, 2) where it lies outside.

    After Sutherland and Hodgman, "Reentrant Polygon Clipping", CACM 1974: one edge after the other.
    """
    corners = np.asarray(polygon, np.float64).reshape(-1, 2)
    for axis in (0, 1):
        corners = _cut(corners, axis, 0.0, 1.0)
        corners = _cut(corners, axis, 1.0, -1.0)
    if is_flat(corners):  # it touches an edge at most
        return np.zeros((0, 2), np.float32)
    return np.clip(corners, 0.0, 1.0).astype(np.float32)


def bounds(polygon: npt.ArrayLike) -> FloatArray:
    """(4,) [ymin, xmin, ymax, xmax] of a polygon; zeros for one without corners."""
    corners = np.asarray(polygon, np.float32).reshape(-1, 2)
    if not len(corners):
        return np.zeros(4, np.float32)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def fill(polygon: npt.ArrayLike, image_size_hw: tuple[int, int]) -> BoolArray:
    """(H, W): the pixels whose centre, half a pixel from their corner, lies in a normalised polygon.

    A centre lies in it if the polygon winds around it (the "nonzero" rule of SVG and PostScript). Every row sums up,
    from the left, the sides that it crosses: +1 for one that goes down, -1 for one that goes up.
    """
    height, width = image_size_hw
    corners = np.asarray(polygon, np.float64) * (height, width)
    turns = np.zeros((height, width + 1), np.int16)
    for (y, x), (next_y, next_x) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        first, end = np.clip(np.ceil(np.sort([y, next_y]) - 0.5), 0, height).astype(int)
        rows = np.arange(first, end)
        crossed_x = x + (rows + 0.5 - y) * ((next_x - x) / (next_y - y or 1.0))
        columns = np.clip(np.ceil(crossed_x - 0.5), 0, width).astype(int)
        turns[rows, columns] += 1 if next_y > y else -1
    return np.cumsum(turns[:, :width], axis=1, dtype=np.int16) != 0


def mask_of(box: npt.ArrayLike, polygon: FloatArray | None, image_size_hw: tuple[int, int]) -> BoolArray:
    """(H, W): the pixels of an object, never none at all.

    Args:
        box: (4,) [ymin, xmin, ymax, xmax], normalised.
        polygon: None fills the box. One between the pixels' centres does so too.
        image_size_hw: pixels.
    """
    ymin, xmin, ymax, xmax = np.asarray(box, np.float64)
    rectangle = np.array([[ymin, xmin], [ymax, xmin], [ymax, xmax], [ymin, xmax]])
    for outline in (polygon, rectangle):
        mask = fill(outline, image_size_hw) if outline is not None else None
        if mask is not None and mask.any():
            return mask
    return _pixel_at((ymin + ymax) / 2, (xmin + xmax) / 2, image_size_hw)


def _cut(corners: npt.NDArray[Any], axis: int, edge: float, sign: float) -> npt.NDArray[Any]:
    """What lies on the side of `edge` where `sign` points to."""
    inside_by = sign * (corners[:, axis] - edge)
    next_by, next_corners = np.roll(inside_by, -1), np.roll(corners, -1, axis=0)
    inside, crosses = inside_by >= 0, (inside_by >= 0) != (next_by >= 0)
    way = np.divide(inside_by, inside_by - next_by, out=np.zeros_like(inside_by), where=crosses)
    crossings = corners + way[:, None] * (next_corners - corners)
    both = np.stack([corners, crossings], axis=1).reshape(-1, 2)
    return both[np.stack([inside, crosses], axis=1).ravel()]


def _pixel_at(y: float, x: float, image_size_hw: tuple[int, int]) -> BoolArray:
    height, width = image_size_hw
    mask = np.zeros(image_size_hw, np.bool_)
    mask[min(int(y * height), height - 1), min(int(x * width), width - 1)] = True
    return mask
