"""Honest fixtures: pictures are not square and differ however they are turned; 0, 1 and 3 boxes, some at an edge."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from odkeras.boxes import Groundtruth, from_xyxy_px
from odkeras.images import EncodedImage, encode_image
from odkeras.labels import LabelMap
from odkeras.tasks import Annotation

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


def truth_of(kind: str, label_map: LabelMap) -> Groundtruth:
    rows = TRUTH_XYXY_PX[kind]
    boxes = from_xyxy_px([box for box, _ in rows], IMAGE_SIZE_HW)
    return Groundtruth(boxes, np.array([label_map.id_of(label) for _, label in rows], np.int32))


@pytest.fixture
def label_map() -> LabelMap:
    return LabelMap.from_names(["car", "person"])


@pytest.fixture
def pixels() -> npt.NDArray[np.uint8]:
    return draw_pixels()


@pytest.fixture
def jpeg_bytes(pixels: npt.NDArray[np.uint8]) -> bytes:
    return encode(pixels, "JPEG", quality=95)


@pytest.fixture
def png_bytes(pixels: npt.NDArray[np.uint8]) -> bytes:
    return encode(pixels, "PNG")


@pytest.fixture
def image(jpeg_bytes: bytes) -> EncodedImage:
    return encode_image(jpeg_bytes, source="fixture.jpg")


@pytest.fixture
def annotations(label_map: LabelMap) -> dict[str, Annotation]:
    """Annotated images by the number of their boxes: "none", "one", "three"."""
    made = {}
    for seed, kind in enumerate(TRUTH_XYXY_PX):
        picture = encode_image(encode(draw_pixels(seed=seed), "JPEG", quality=95), source=kind)
        truth = truth_of(kind, label_map)
        made[kind] = Annotation(picture, truth, picture.image_id, f"{kind}.jpg", "batch.jsonl")
    return made


@pytest.fixture
def truth_dir(tmp_path: Path) -> Path:
    """A directory with `truth.csv` and its images: none.jpg, one.jpg, three.jpg."""
    directory = tmp_path / "truth"
    directory.mkdir()
    lines = ["path,xmin,ymin,xmax,ymax,label"]
    for seed, (kind, rows) in enumerate(TRUTH_XYXY_PX.items()):
        (directory / f"{kind}.jpg").write_bytes(encode(draw_pixels(seed=seed), "JPEG", quality=95))
        lines += [f"{kind}.jpg,{','.join(f'{value:g}' for value in box)},{label}" for box, label in rows]
        lines += [f"{kind}.jpg,,,,,"] * (not rows)
    (directory / "truth.csv").write_text("\n".join(lines) + "\n")
    return directory
