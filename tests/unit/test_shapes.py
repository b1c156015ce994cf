from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from odkeras.groundtruth_csv import read_truth_csv
from odkeras.shapes import CLASSES, draw_picture, generate_shapes


def test_same_files_every_time(tmp_path: Path) -> None:
    first = generate_shapes(tmp_path / "a", train_images=3, test_images=2)
    again = generate_shapes(tmp_path / "b", train_images=3, test_images=2)
    assert sorted(path.name for path in first.images_dir.iterdir()) == [
        "test_000.jpg",
        "test_001.jpg",
        "train_000.jpg",
        "train_001.jpg",
        "train_002.jpg",
    ]
    assert first.train_csv.read_text() == again.train_csv.read_text()
    assert first.test_csv.read_text() == again.test_csv.read_text()
    for path in first.images_dir.iterdir():
        assert path.read_bytes() == (again.images_dir / path.name).read_bytes()


def test_truth_can_be_read_and_lies_inside_the_pictures(tmp_path: Path) -> None:
    dataset = generate_shapes(tmp_path, train_images=20, test_images=0)
    truth = read_truth_csv(dataset.train_csv, dataset.images_dir)
    assert len(truth) == 20
    assert {label for image in truth for label in image.labels} == set(CLASSES)
    for image in truth:
        with Image.open(image.path) as picture:
            width, height = picture.size
        assert width > height
        assert 1 <= len(image.labels) <= 4
        assert (image.boxes_xyxy_px >= 0).all()
        assert (image.boxes_xyxy_px[:, [0, 2]] <= width).all()
        assert (image.boxes_xyxy_px[:, [1, 3]] <= height).all()


def test_larger_pictures_have_the_same_contents(tmp_path: Path) -> None:
    small = generate_shapes(tmp_path / "small", train_images=3, test_images=0)
    large = generate_shapes(tmp_path / "large", train_images=3, test_images=0, scale=3)
    pairs = zip(
        *(read_truth_csv(each.train_csv, each.images_dir) for each in (small, large)),
        strict=True,
    )
    for one, other in pairs:
        assert one.labels == other.labels
        np.testing.assert_allclose(other.boxes_xyxy_px, 3 * one.boxes_xyxy_px, atol=0.3)
        with Image.open(one.path) as first, Image.open(other.path) as second:
            assert second.size == (3 * first.width, 3 * first.height)
            shrunk = np.asarray(second.resize(first.size, Image.Resampling.LANCZOS), np.float64)
            assert np.abs(shrunk - np.asarray(first, np.float64)).mean() < 5


def test_boxes_fit_the_pixels() -> None:
    """The middle of a shape has its colour; the pixels just outside its box do not (checked on lone shapes)."""
    lone = [
        pair for pair in (draw_picture(np.random.default_rng([7, seed])) for seed in range(60)) if len(pair[1]) == 1
    ]
    assert len(lone) > 5
    for picture, (shape,) in lone:
        pixels = np.asarray(picture, np.int32)
        x, y = shape.points_xy_px.mean(axis=0).astype(int)
        inside = np.abs(pixels[y - 1 : y + 2, x - 1 : x + 2] - np.array(shape.colour)).sum(axis=2).min()
        assert inside < 30
        xmin, ymin, xmax, ymax = shape.box_xyxy_px
        close = np.abs(pixels - np.array(shape.colour)).sum(axis=2) < 30
        ys, xs = np.nonzero(close)
        assert xs.min() >= xmin - 2 or close[:, : int(xmin) - 2].mean() < 0.05
        assert ((xs >= xmin - 2) & (xs <= xmax + 2) & (ys >= ymin - 2) & (ys <= ymax + 2)).mean() > 0.9


def test_the_command_draws_them(tmp_path: Path) -> None:
    """The tutorial needs them, and `make demo` is another command."""
    command = [sys.executable, "-m", "odkeras.shapes", "demo/shapes"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "wrote demo/shapes/images, demo/shapes/train.csv and demo/shapes/test.csv\n"
    assert len(list((tmp_path / "demo" / "shapes" / "images").glob("*.jpg"))) == 120
