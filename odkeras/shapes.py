"""Generate a small synthetic data set of coloured shapes, which a model can learn in minutes, without a download.

    python -m odkeras.shapes demo/shapes        # writes images/*.jpg, train.csv and test.csv

Every image has its own random generator, seeded with `[seed, set, number]`, so that image 12 does not depend on the
number of images. Images are wider than high, because square test images hide swapped coordinates.
"""

from __future__ import annotations

import argparse
import colorsys
import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from odkeras.project import write_atomically
from odkeras.text import say

CLASSES = ("circle", "triangle", "square")
# Mean hue of each class. The hues overlap, so that colour helps a randomly initialised network to learn quickly, but
# only the shape identifies the class.
HUES = {"circle": 0.0, "triangle": 1 / 3, "square": 2 / 3}
HUE_SPREAD = 0.27
IMAGE_SIZES_HW = ((120, 160), (120, 160), (120, 180))
MIN_RADIUS_PX, MAX_RADIUS_PX = 13.0, 30.0
MAX_OVERLAP = 0.15
SUPERSAMPLING = 4
JPEG_QUALITY = 92

Colour = tuple[int, int, int]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """One shape.

    Args:
        label: class name.
        points_xy_px: vertices of the outline, float64 (N, 2) [x, y] in pixels.
        colour: RGB, 0..255.
    """

    label: str
    points_xy_px: Points
    colour: Colour

    @property
    def box_xyxy_px(self) -> tuple[float, float, float, float]:
        (xmin, ymin), (xmax, ymax) = self.points_xy_px.min(axis=0), self.points_xy_px.max(axis=0)
        return float(xmin), float(ymin), float(xmax), float(ymax)


@dataclass(frozen=True)
class ShapesDataset:
    """The paths of the generated images and of the two ground truth files."""

    images_dir: Path
    train_csv: Path
    test_csv: Path
    labels: tuple[str, ...] = CLASSES


def generate_shapes(
    directory: Path, *, train_images: int = 80, test_images: int = 40, seed: int = 2019, scale: int = 1
) -> ShapesDataset:
    """Write `images/*.jpg`, `train.csv` and `test.csv` below `directory`. Deterministic; existing files are
    overwritten.

    Args:
        directory: created if it does not exist.
        train_images: number of images in `train.csv`.
        test_images: number of images in `test.csv`; they are different images.
        seed: random seed.
        scale: width and height of the images in multiples of `IMAGE_SIZES_HW`, at most `SUPERSAMPLING`. The contents
            are the same.
    """
    dataset = ShapesDataset(directory / "images", directory / "train.csv", directory / "test.csv")
    dataset.images_dir.mkdir(parents=True, exist_ok=True)
    for number, (name, count) in enumerate((("train", train_images), ("test", test_images))):
        rows: list[Sequence[object]] = []
        for index in range(count):
            picture, shapes = draw_picture(np.random.default_rng([seed, number, index]), scale)
            file_name = f"{name}_{index:03d}.jpg"
            write_atomically(dataset.images_dir / file_name, _jpeg(picture))
            rows += _csv_rows(file_name, picture.size, shapes)
        write_atomically(directory / f"{name}.csv", _csv_text(rows))
    return dataset


def draw_picture(rng: np.random.Generator, scale: int = 1) -> tuple[Image.Image, list[Shape]]:
    """Draw an image with one to four shapes. The shapes are returned in drawing order (later ones are on top).

    Args:
        scale: see `generate_shapes`.
    """
    height, width = IMAGE_SIZES_HW[rng.integers(len(IMAGE_SIZES_HW))]
    picture = _background(rng, height, width).resize((width * SUPERSAMPLING, height * SUPERSAMPLING))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.integers(0, 4)):
        _draw_line(draw, rng, height, width)
    shapes: list[Shape] = []
    for _ in range(rng.integers(1, 5)):
        shape = _place(rng, height, width, shapes)
        if shape is not None:
            _draw_shape(draw, rng, shape)
            shapes.append(shape)
    if rng.random() < 0.25:
        _draw_line(draw, rng, height, width)
    shapes = [replace(shape, points_xy_px=shape.points_xy_px * scale) for shape in shapes]
    return picture.resize((width * scale, height * scale), Image.Resampling.LANCZOS), shapes


def _background(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """A greyish gradient in a random direction, with low-frequency blotches and noise."""
    first, second = (rng.uniform(60, 190) + rng.uniform(-15, 15, 3) for _ in range(2))
    angle = rng.uniform(0, 2 * math.pi)
    ys, xs = np.mgrid[0:height, 0:width]
    along = (xs * math.cos(angle) / width + ys * math.sin(angle) / height + 1) / 2
    gradient = first + np.clip(along, 0, 1)[..., None] * (second - first)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    blotches = (np.asarray(coarse, np.float64)[..., None] - 128) * rng.uniform(0.0, 0.25)
    grain = rng.normal(0, rng.uniform(2, 9), (height, width, 1))
    return Image.fromarray(np.clip(gradient + blotches + grain, 0, 255).astype(np.uint8))


def _place(rng: np.random.Generator, height: int, width: int, others: Sequence[Shape]) -> Shape | None:
    """A random shape that overlaps the others by at most `MAX_OVERLAP`; None if 30 attempts fail."""
    for _ in range(30):
        shape = _random_shape(rng, height, width)
        if all(_overlap(shape.box_xyxy_px, other.box_xyxy_px) <= MAX_OVERLAP for other in others):
            return shape
    return None


def _random_shape(rng: np.random.Generator, height: int, width: int) -> Shape:
    """A shape of random class, size, rotation and position, entirely inside the image."""
    label = CLASSES[rng.integers(len(CLASSES))]
    radius = rng.uniform(MIN_RADIUS_PX, MAX_RADIUS_PX)
    corners = {"circle": 64, "triangle": 3, "square": 4}[label]
    turn = rng.uniform(0, 2 * math.pi)
    angles = turn + np.arange(corners) * (2 * math.pi / corners)
    outline = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    low, high = -outline.min(axis=0) + 1, np.array([width, height]) - outline.max(axis=0) - 1
    return Shape(label, outline + rng.uniform(low, high), _vivid_colour(rng, label))


def _vivid_colour(rng: np.random.Generator, label: str) -> Colour:
    hue = (HUES[label] + rng.uniform(-HUE_SPREAD, HUE_SPREAD)) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, rng.uniform(0.7, 1.0), rng.uniform(0.65, 1.0))
    return round(255 * red), round(255 * green), round(255 * blue)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection area divided by the area of the smaller box. Unlike IoU, it is large if a large shape hides a small
    one."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def _draw_shape(draw: ImageDraw.ImageDraw, rng: np.random.Generator, shape: Shape) -> None:
    outline = tuple(value // 3 for value in shape.colour) if rng.random() < 0.4 else None
    points = [(float(x), float(y)) for x, y in shape.points_xy_px * SUPERSAMPLING]
    draw.polygon(points, fill=shape.colour)
    if outline is not None:
        draw.line([*points, points[0]], fill=outline, width=SUPERSAMPLING, joint="curve")


def _draw_line(draw: ImageDraw.ImageDraw, rng: np.random.Generator, height: int, width: int) -> None:
    """Draw a random line as a distractor, which belongs to no class."""
    ends = rng.uniform((0, 0), (width, height), (2, 2)) * SUPERSAMPLING
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    points = [(float(x), float(y)) for x, y in ends]
    draw.line(points, fill=(red, green, blue), width=int(rng.integers(1, 4)) * SUPERSAMPLING)


def _csv_rows(file_name: str, size: tuple[int, int], shapes: Sequence[Shape]) -> list[Sequence[object]]:
    return [(file_name, *size, *(round(value, 1) for value in shape.box_xyxy_px), shape.label) for shape in shapes]


def _csv_text(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "width", "height", "xmin", "ymin", "xmax", "ymax", "label"])
    writer.writerows(rows)
    return text.getvalue()


def _jpeg(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=JPEG_QUALITY)
    return data.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m odkeras.shapes", description="Draw pictures of shapes, with two CSV files of their boxes."
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="made if it is not there")
    dataset = generate_shapes(parser.parse_args().directory)
    say(f"wrote {dataset.images_dir}, {dataset.train_csv} and {dataset.test_csv}")


if __name__ == "__main__":
    main()
