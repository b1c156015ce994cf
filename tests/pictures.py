"""Test pictures, for tests that need more than the fixtures."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

IMAGE_SIZE_HW = (48, 64)
TRUTH_XYXY_PX: dict[str, list[tuple[list[float], str]]] = {
    "none": [],
    "one": [([8, 6, 40, 30], "car")],
    "three": [([0, 10, 20, 34], "car"), ([24, 4, 44, 16], "person"), ([30, 20, 64, 48], "person")],  # two touch edges
}


def encode(image: Image.Image | npt.NDArray[Any], format: str, **options: Any) -> bytes:
    """The bytes of an image file, as Pillow writes them."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def draw_pixels(image_size_hw: tuple[int, int] = IMAGE_SIZE_HW, seed: int = 0) -> npt.NDArray[np.uint8]:
    """uint8 (H, W, 3): smooth (JPEG keeps it within a few levels), and with four different corners."""
    height, width = image_size_hw
    ys, xs = np.mgrid[0:height, 0:width] / [[[max(height - 1, 1)]], [[max(width - 1, 1)]]]
    planes = [40 + 170 * xs, 200 - 150 * ys, 30 + 10 * (seed % 20) + 60 * xs * ys]
    return np.stack(planes, axis=-1).round().astype(np.uint8)
