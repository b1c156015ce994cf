"""EXIF orientation: how the camera was turned, and where a point of the stored picture is in the upright one."""

from __future__ import annotations

from PIL import Image

_TAG = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a stored picture upright, by its orientation; none is needed for 1."""


def read_orientation(image: Image.Image) -> int:
    """The EXIF orientation 1..8; 1 (upright) if it is missing or unreadable."""
    try:
        value = image.getexif().get(_TAG, 1)
    except Exception:  # the pixels may be fine even if the EXIF data is damaged
        return 1
    return value if isinstance(value, int) and value in UPRIGHT else 1


def swaps_sides(orientation: int) -> bool:
    """Whether the upright picture is as wide as the stored one is high."""
    return orientation >= 5


def to_upright(xy: tuple[float, float], stored_size_hw: tuple[float, float], orientation: int) -> tuple[float, float]:
    """Where a point (x, y) of the stored picture is in the upright one.

    Args:
        stored_size_hw: height and width of the stored picture, in the unit of the point.
    """
    (x, y), (height, width) = xy, stored_size_hw
    from_right, from_bottom = width - x, height - y
    return {
        2: (from_right, y),
        3: (from_right, from_bottom),
        4: (x, from_bottom),
        5: (y, x),
        6: (from_bottom, x),
        7: (from_bottom, from_right),
        8: (y, from_right),
    }.get(orientation, (x, y))
