"""The same two images with the same boxes, in every format of labels that can be imported."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from pictures import draw_pixels, encode
from typer.testing import CliRunner

from odkeras.cli import app
from odkeras.web.database import AnswerDatabase

SIZE_HW = (48, 64)
BOXES: dict[str, list[tuple[list[float], str]]] = {
    "a.jpg": [([8, 6, 40, 30], "car")],
    "b.jpg": [([0, 12, 16, 36], "person"), ([32, 24, 64, 48], "car")],
}
CLASSES = ["car", "person"]


def write_images(folder: Path, size_hw: tuple[int, int] = SIZE_HW) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(BOXES):
        (folder / name).write_bytes(encode(draw_pixels(size_hw, seed), "JPEG"))


def coco(**of_first: Any) -> dict[str, Any]:
    names = list(BOXES)
    rows = [(name, box, label) for name, boxes in BOXES.items() for box, label in boxes]
    annotations: list[dict[str, Any]] = [
        {
            "id": number,
            "image_id": names.index(name) + 1,
            "category_id": CLASSES.index(label) + 7,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "area": 1.0,
            "iscrowd": 0,
        }
        for number, (name, box, label) in enumerate(rows, start=1)
    ]
    annotations[0] |= of_first
    return {
        "images": [
            {"id": number, "file_name": name, "width": 64, "height": 48} for number, name in enumerate(names, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=7)],
    }


def write_coco(folder: Path) -> Path:
    (folder / "instances.json").write_text(json.dumps(coco()))
    return folder / "instances.json"


def voc(name: str, boxes: list[tuple[list[float], str]]) -> str:
    objects = "".join(
        f"<object>\n<name>{label}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>\n"
        for (x1, y1, x2, y2), label in boxes
    )
    size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
    return f"<annotation><folder>x</folder><filename>{name}</filename>{size}\n{objects}</annotation>"


def write_voc(folder: Path) -> Path:
    for name, boxes in BOXES.items():
        (folder / name).with_suffix(".xml").write_text(voc(name, boxes))
    return folder


def write_yolo(folder: Path) -> Path:
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    for name, boxes in BOXES.items():
        rows = [
            f"{CLASSES.index(label)} {(x1 + x2) / 128} {(y1 + y2) / 96} {(x2 - x1) / 64} {(y2 - y1) / 48}"
            for (x1, y1, x2, y2), label in boxes
        ]
        (folder / name).with_suffix(".txt").write_text("\n".join(rows) + "\n")
    return folder


def csv_text(header: str, row: Callable[[str, list[float], str], str]) -> str:
    rows = [row(name, box, label) for name, boxes in BOXES.items() for box, label in boxes]
    return "\n".join([header, *rows] if header else rows) + "\n"


def write_csv(folder: Path) -> Path:
    text = csv_text(
        "filename,width,height,class,xmin,ymin,xmax,ymax",
        lambda name, box, label: ",".join([name, "64", "48", label, *map(str, box)]),
    )
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"


def write_labelstudio(folder: Path) -> Path:
    tasks = []
    for number, (name, boxes) in enumerate(BOXES.items()):
        results = [
            {
                "type": "rectanglelabels",
                "original_width": 64,
                "original_height": 48,
                "value": {
                    "x": x1 / 0.64,
                    "y": y1 / 0.48,
                    "width": (x2 - x1) / 0.64,
                    "height": (y2 - y1) / 0.48,
                    "rotation": 0,
                    "rectanglelabels": [label],
                },
            }
            for (x1, y1, x2, y2), label in boxes
        ]
        data = {"image": f"/data/upload/1/0a1b2c3d-{name}"}
        tasks.append({"id": number, "data": data, "annotations": [{"result": results}]})
    (folder / "project.json").write_text(json.dumps(tasks))
    return folder / "project.json"


def write_cvat(folder: Path) -> Path:
    images = "".join(
        f'<image id="{number}" name="{name}" width="64" height="48">\n'
        + "".join(
            f'<box label="{label}" occluded="0" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}" z_order="0"></box>\n'
            for (x1, y1, x2, y2), label in boxes
        )
        + "</image>\n"
        for number, (name, boxes) in enumerate(BOXES.items())
    )
    labels = "".join(f"<label><name>{name}</name></label>" for name in CLASSES)
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    text = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{meta}\n{images}</annotations>'
    (folder / "annotations.xml").write_text(text)
    return folder / "annotations.xml"


def write_jsonl(folder: Path) -> Path:
    lines = [
        json.dumps(
            {
                "image": name,
                "width": 64,
                "height": 48,
                "spans": [
                    {"label": label, "points": [[x1, y1], [x1, y2], [x2, y2], [x2, y1]]}
                    for (x1, y1, x2, y2), label in boxes
                ],
                "answer": "accept",
            }
        )
        for name, boxes in BOXES.items()
    ]
    (folder / "answers.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "answers.jsonl"


WRITERS: dict[str, Callable[[Path], Path]] = {
    "coco": write_coco,
    "voc": write_voc,
    "yolo": write_yolo,
    "csv": write_csv,
    "labelstudio": write_labelstudio,
    "cvat": write_cvat,
    "jsonl": write_jsonl,
}
"""By format: writes the labels into a folder, and returns what to import."""

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"


def documented_starts() -> list[tuple[str, list[str]]]:
    """The commands with which the tutorial begins a project, by the comment that names the format of the labels."""
    _, _, text = TUTORIAL.read_text(encoding="utf-8").partition("## Begin with labels that you have")
    starts: list[tuple[str, list[str]]] = []
    for line in text.split("```")[1].strip().splitlines():
        if line.startswith("# "):
            starts.append((line[2:], []))
        else:
            starts[-1][1].append(line)
    return starts


def run_start(commands: list[str], folder: Path, write: Callable[[Path], Path]) -> dict[str, list[Any]]:
    """Run the commands of a start in a folder, without the page itself; returns the imported boxes by image.

    Args:
        write: writes labels into a folder and returns what to import; see `WRITERS`.
    """
    write_images(folder / "photos")
    words = [shlex.split(command) for command in commands]
    labels = folder / words[0][words[0].index("--labels") + 1]
    is_folder = not labels.suffix
    if is_folder:
        labels.mkdir()
    written = write(labels if is_folder else folder)
    assert written.resolve() == labels.resolve()
    for command, *arguments in (line[1:] for line in words):
        with mock.patch("odkeras.web.server.run_annotate") as run_annotate:
            result = CliRunner().invoke(app, [command, *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    run_annotate.assert_called_once()
    with AnswerDatabase.open(folder / "pets" / "annotations.db", create=False) as opened:
        return {
            example["meta"]["file"]: [
                ([span["x"], span["y"], span["x"] + span["width"], span["y"] + span["height"]], span["label"])
                for span in example["spans"]
            ]
            for example in opened.examples("pets")
        }
