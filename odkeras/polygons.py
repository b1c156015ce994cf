"""Polygons in one format: float32 (K, 2), K >= 3 vertices [y, x] in order, normalised to 0..1.

A polygon is closed: the last vertex is connected to the first. Its area follows the nonzero winding rule, as a browser
fills it, so that a self-intersecting polygon covers the same pixels as on the page.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from odkeras.boxes import FloatArray

BoolArray = npt.NDArray[np.bool_]

_SAME_CORNER_PX = 0.01
_FLAT = 1e-6  # as a fraction of the image side: less than a hundredth of a pixel


def as_polygon(polygon: npt.ArrayLike) -> FloatArray:
    """Convert to float32 (K, 2) and validate.

    Raises:
        ValueError: not of shape (K, 2), fewer than three vertices, or a coordinate that is not finite.
    """
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
    """Whether points (K, 2) are the four corners of an axis-aligned rectangle, in any order, and nothing else.

    Corners are compared with a tolerance of 0.01 px.
    """
    points = np.asarray(points_xy_px, np.float64).tolist()  # plain numbers: exports ask this for a million objects
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    corners = ((left, top), (left, bottom), (right, bottom), (right, top))
    met: set[int] = set()
    for x, y in points:
        at = [
            number
            for number, (corner_x, corner_y) in enumerate(corners)
            if abs(x - corner_x) <= _SAME_CORNER_PX and abs(y - corner_y) <= _SAME_CORNER_PX
        ]
        if not at:
            return False
        met.update(at)
    return len(met) == len(corners)


def is_flat(polygon: npt.ArrayLike) -> bool:
    """Whether the polygon has no area: fewer than three distinct vertices, or all on one line."""
    corners = np.asarray(polygon, np.float64).reshape(-1, 2)
    if len(corners) < 3:
        return True
    offsets = corners - corners[0]
    lengths = np.hypot(*offsets.T)
    farthest = offsets[lengths.argmax()]
    cross = offsets[:, 0] * farthest[1] - offsets[:, 1] * farthest[0]
    return bool(np.abs(cross).max() <= _FLAT * lengths.max())


def clip(polygon: npt.ArrayLike) -> FloatArray:
    """Clip a normalised polygon to the image; shape (0, 2) if it is entirely outside.

    Source: Sutherland and Hodgman, "Reentrant Polygon Clipping", CACM 1974, which clips at one edge after the other.
    """
    corners = np.asarray(polygon, np.float64).reshape(-1, 2)
    for axis in (0, 1):
        corners = _cut(corners, axis, 0.0, 1.0)
        corners = _cut(corners, axis, 1.0, -1.0)
    if is_flat(corners):  # outside, or touching the edge without area inside
        return np.zeros((0, 2), np.float32)
    return np.clip(corners, 0.0, 1.0).astype(np.float32)


def bounds(polygon: npt.ArrayLike) -> FloatArray:
    """The bounding box of a polygon, float32 (4,) [ymin, xmin, ymax, xmax]; zeros if it has no vertices."""
    corners = np.asarray(polygon, np.float32).reshape(-1, 2)
    if not len(corners):
        return np.zeros(4, np.float32)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def fill(polygon: npt.ArrayLike, image_size_hw: tuple[int, int]) -> BoolArray:
    """Rasterise a normalised polygon: bool (H, W), True for each pixel whose centre is inside.

    The centre of pixel (i, j) is at (i + 0.5, j + 0.5). "Inside" follows the nonzero winding rule of SVG and
    PostScript. The winding number of a centre is the sum over the polygon sides that cross its row to the left of it:
    +1 for a side that goes down, -1 for one that goes up.
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


def draw_mask(box: npt.ArrayLike, polygon: FloatArray | None, image_size_hw: tuple[int, int]) -> BoolArray:
    """The mask of an object, bool (H, W), with at least one pixel set.

    Args:
        box: (4,) [ymin, xmin, ymax, xmax], normalised. If it covers no pixel centre, the pixel at its centre is set.
        polygon: None fills the box. So does a polygon that covers no pixel centre.
        image_size_hw: height and width of the mask in pixels.
    """
    ymin, xmin, ymax, xmax = np.asarray(box, np.float64)
    rectangle = np.array([[ymin, xmin], [ymax, xmin], [ymax, xmax], [ymin, xmax]])
    for outline in (polygon, rectangle):
        mask = fill(outline, image_size_hw) if outline is not None else None
        if mask is not None and mask.any():
            return mask
    return _pixel_at((ymin + ymax) / 2, (xmin + xmax) / 2, image_size_hw)


def _cut(corners: npt.NDArray[Any], axis: int, edge: float, sign: float) -> npt.NDArray[Any]:
    """Clip at one edge: keep the part with coordinate >= `edge` if `sign` is 1, <= `edge` if it is -1."""
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
