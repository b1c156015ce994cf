"""A dataset with the kinds of images and answers that exports of labels must cope with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from click.testing import Result
from pictures import draw_pixels, encode
from PIL import Image
from typer.testing import CliRunner

from odkeras.cli import app
from odkeras.images import read_image
from odkeras.web.database import AnswerDatabase
from odkeras.web.stored import StoredAnswer

Box = tuple[str, tuple[float, float, float, float]]
CAR: Box = ("car", (8.25, 6.5, 40.75, 30.0))
EDGE: Box = ("person", (24.0, 4.0, 64.0, 48.0))
SMALL: Box = ("car", (0.0, 10.0, 3.5, 12.0))
PERSON: Box = ("traffic light", (1.0, 2.0, 20.0, 40.0))
TRIANGLE = [[10.0, 10.0], [30.5, 12.0], [20.0, 40.0]]
TRIANGLE_BOX: Box = ("car", (10.0, 10.0, 30.5, 40.0))
TURNED_BOX: Box = ("car", (5.0, 50.0, 45.0, 60.0))
TURNED = 6
"""The EXIF orientation of a camera that was held upright; its 64 x 48 pixels are a picture of 48 x 64."""

BOXES: dict[str, list[Box]] = {
    "one.jpg": [CAR],
    "none.png": [],
    "three.jpg": [EDGE, SMALL, PERSON],
    "turned.jpg": [TURNED_BOX],
    "Ünïcode ☃ & <1>.jpg": [CAR],
}
"""What the images of `fill` show, without polygons."""


def rect(label: str, box: Sequence[float]) -> dict[str, Any]:
    left, top, right, bottom = box
    points = [[left, top], [left, bottom], [right, bottom], [right, top]]
    return {"label": label, "type": "rect", "points": points}


def triangle() -> dict[str, Any]:
    return {"label": "car", "type": "polygon", "points": TRIANGLE}


def answer(path: Path, *spans: Any, decision: str = "accept", at: int = 1000, **more: Any) -> dict[str, Any]:
    """An answer about an image file, as the page stores it."""
    image = read_image(path)
    height, width = image.image_size_hw
    return {"image": str(path), "path": str(path), "width": width, "height": height, "image_id": image.image_id,
            "meta": {"file": path.name}, "spans": list(spans), "answer": decision, "_timestamp": at,
            "_session_id": "pets-anna", **more}  # fmt: skip


def add(folder: Path, *answers: dict[str, Any], dataset: str = "pets") -> None:
    with AnswerDatabase.open(folder / "annotations.db") as database:
        rows = [StoredAnswer(each, each["image_id"], "anna", each["_timestamp"]) for each in answers]
        database.add(dataset, rows)


def picture(path: Path, seed: int, **options: Any) -> Path:
    """An image file that differs from those with other seeds."""
    pixels = draw_pixels(seed=seed)
    pixels[20:28, 20:28] = (seed * 40) % 256
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(pixels, "PNG" if path.suffix == ".png" else "JPEG", **options))
    return path


def fill(folder: Path, *, polygons: bool = False) -> None:
    """Accepted answers about the images of `BOXES` in `folder/photos`, and one rejected and one ignored.

    Args:
        polygons: add an image with a polygon, triangle.jpg.
    """
    answers = []
    for number, (name, boxes) in enumerate(BOXES.items()):
        exif = Image.Exif()
        if name == "turned.jpg":
            exif[0x0112] = TURNED
        options = {"exif": exif} if name.endswith("jpg") else {}
        path = picture(folder / "photos" / name, number, **options)
        answers.append(answer(path, *(rect(*box) for box in boxes), at=1000 + number))
    for number, decision in enumerate(("reject", "ignore"), start=10):
        path = picture(folder / "photos" / f"{decision}.jpg", number)
        answers.append(answer(path, rect(*CAR), decision=decision, at=1000 + number))
    if polygons:
        path = picture(folder / "photos" / "triangle.jpg", 20)
        answers.append(answer(path, triangle(), at=1020))
    add(folder, *answers)


def export(*arguments: str) -> Result:
    """`odkeras export-labels pets out ...`, which must succeed."""
    result = CliRunner().invoke(app, ["export-labels", "pets", "out", *arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result
