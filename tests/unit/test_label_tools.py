"""Exports, read by tools that odkeras does not require: pip install datumaro supervision label-studio-sdk."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from label_exports import BOXES, TRIANGLE_BOX, Box, export, fill

pytestmark = pytest.mark.filterwarnings("ignore")
Read = dict[str, list[Box]]


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
    datumaro = pytest.importorskip("datumaro")
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
    supervision = pytest.importorskip("supervision")
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


def test_label_studio(folder: Path) -> None:
    """The converter of Label Studio reads the tasks with the labelling setup, and writes COCO."""
    converter = pytest.importorskip("label_studio_sdk.converter")
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
