"""Exports, read by other tools, and labels that these tools write, read again. `make test-tools` installs them."""

from __future__ import annotations

import importlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from label_exports import BOXES, TRIANGLE_BOX, Box, export, fill

from odkeras.formats.image_finder import ImageFinder
from odkeras.formats.label_files import ReadNotes
from odkeras.formats.label_fitting import fit_spans
from odkeras.formats.label_formats import find_label_files, read_label_files
from odkeras.images import inspect_image

pytestmark = pytest.mark.filterwarnings("ignore")
Read = dict[str, list[Box]]


def import_tool(name: str) -> Any:
    """The module of a tool. If it is not installed the test is skipped, or fails with ODKERAS_REQUIRE_TOOLS."""
    return importlib.import_module(name) if os.environ.get("ODKERAS_REQUIRE_TOOLS") else pytest.importorskip(name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODKERAS_DB", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield tmp_path


def expected(format: str, polygons: bool) -> Read:
    names = {name.replace("<", "_").replace(">", "_"): boxes for name, boxes in BOXES.items()}
    if polygons:
        names["triangle.jpg"] = [TRIANGLE_BOX]
    return {name.replace(" ", "_") if format == "voc" else name: boxes for name, boxes in names.items()}


def assert_same(found: Read, wanted: Read, within_px: float) -> None:
    assert {name: sorted(label for label, _ in boxes) for name, boxes in found.items()} == {
        name: sorted(label for label, _ in boxes) for name, boxes in wanted.items()
    }
    for name, boxes in wanted.items():
        for (_, box), (_, sides) in zip(sorted(found[name]), sorted(boxes), strict=True):
            assert box == pytest.approx(sides, abs=within_px), name


@pytest.mark.parametrize(
    ("format", "polygons", "options"),
    [
        ("coco", True, ("--copy-images",)),
        ("voc", False, ("--copy-images",)),
        ("yolo", False, ()),
        ("cvat", True, ("--copy-images",)),
    ],
)
def test_datumaro(folder: Path, format: str, polygons: bool, options: tuple[str, ...]) -> None:
    datumaro = import_tool("datumaro")
    fill(folder, polygons=polygons)
    export("--format", format, "--split", "0.6/0.4", *options)
    dataset = datumaro.Dataset.import_from(str(folder / "out"), format)
    labels = dataset.categories()[datumaro.AnnotationType.label].items
    found: Read = {}
    for item in dataset:
        boxes = found.setdefault(Path(item.media.path).name, [])
        assert Path(item.media.path).is_file()
        if item.subset == "trainval":
            continue
        for each in item.annotations:
            if each.type in (datumaro.AnnotationType.bbox, datumaro.AnnotationType.polygon):
                left, top, width, height = each.get_bbox()
                boxes.append((labels[each.label].name, (left, top, left + width, top + height)))
    if format == "coco":  # a polygon comes with its box
        found["triangle.jpg"] = found["triangle.jpg"][:1]
    assert_same(found, expected(format, polygons), 0.51 if format == "voc" else 0.01)


@pytest.mark.parametrize("format", ["coco", "yolo"])
def test_supervision(folder: Path, format: str) -> None:
    supervision = import_tool("supervision")
    fill(folder, polygons=True)
    export("--format", format, "--split", "0.6/0.4", "--copy-images")
    out = folder / "out"
    found: Read = {}
    for split in ("train", "val"):
        images = str(out / "images" / split)
        if format == "coco":
            labels = str(out / "annotations" / f"instances_{split}.json")
            dataset = supervision.DetectionDataset.from_coco(images, labels)
        else:
            dataset = supervision.DetectionDataset.from_yolo(
                images, str(out / "labels" / split), str(out / "data.yaml")
            )
        for path, detections in dataset.annotations.items():
            names = [dataset.classes[number] for number in detections.class_id] if len(detections) else []
            boxes = [tuple(box) for box in detections.xyxy.tolist()]
            found[Path(path).name] = list(zip(names, boxes, strict=True))  # type: ignore[arg-type]
    assert_same(found, expected(format, True), 0.01)


def read_again(path: Path, format: str) -> Read:
    """The labels that our readers find; the format is recognised."""
    files, notes = find_label_files([path]), ReadNotes()
    found: Read = {}
    assert {file.format for file in files} == {format}
    for file, place, answer in read_label_files(files, notes):
        name = answer.task.path or ""
        (image,) = ImageFinder().find(name, file)
        facts = inspect_image(image.read_bytes(), source=str(image))
        spans = fit_spans(answer.task, facts, place, notes)
        found[image.name] = [(span.label, span.xyxy_px) for span in spans]
    assert notes.refused == []
    return found


@pytest.mark.parametrize("format", ["coco", "voc", "yolo", "yolo_ultralytics", "cvat", "open_images"])
def test_what_datumaro_writes(folder: Path, format: str) -> None:
    datumaro = import_tool("datumaro")
    fill(folder, polygons=False)
    export("--format", "coco", "--split", "0.6/0.4", "--copy-images")
    dataset = datumaro.Dataset.import_from(str(folder / "out"), "coco")
    dataset.export(str(folder / "again"), format, save_media=True)
    found = read_again(folder / "again", {"yolo_ultralytics": "yolo", "open_images": "csv"}.get(format, format))
    wanted = expected("coco", False)
    if format in ("voc", "open_images"):
        del wanted["none.png"]  # they have no file or line for an image without objects
    assert_same(found, wanted, 1.51 if format == "voc" else 0.1)


@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_what_supervision_writes(folder: Path, format: str) -> None:
    supervision = import_tool("supervision")
    fill(folder, polygons=False)
    export("--format", "coco", "--split", "1", "--copy-images")
    out, again = folder / "out", folder / "again"
    images, labels = str(out / "images" / "train"), str(out / "annotations" / "instances_train.json")
    dataset = supervision.DetectionDataset.from_coco(images, labels)
    if format == "coco":
        dataset.as_coco(str(again / "images"), str(again / "instances.json"))
    elif format == "voc":
        dataset.as_pascal_voc(str(again / "images"), str(again / "annotations"))
    else:
        dataset.as_yolo(str(again / "images"), str(again / "labels"), str(again / "data.yaml"))
    found = read_again(again, format)
    assert_same(found, expected("coco", False), 1.51 if format == "voc" else 0.1)


def test_label_studio(folder: Path) -> None:
    """The converter of Label Studio reads the tasks with the labelling setup, and writes COCO."""
    converter = import_tool("label_studio_sdk.converter")
    fill(folder, polygons=True)
    export("--format", "labelstudio", "--copy-images")
    config = converter.Converter(str(folder / "out" / "label_config.xml"), None, download_resources=False)
    config.convert_to_coco(str(folder / "out" / "train.json"), str(folder / "coco"), is_dir=False)
    coco = json.loads((folder / "coco" / "result.json").read_text())
    labels = {each["id"]: each["name"] for each in coco["categories"]}
    names = {each["id"]: unquote(each["file_name"]).rpartition("/")[2] for each in coco["images"]}
    found: Read = {}
    for each in coco["annotations"]:
        left, top, width, height = each["bbox"]
        box = (left, top, left + width, top + height)
        found.setdefault(names[each["image_id"]], []).append((labels[each["category_id"]], box))
    wanted = expected("labelstudio", True)
    del wanted["none.png"]  # it leaves out tasks without objects
    assert_same(found, wanted, 0.01)
