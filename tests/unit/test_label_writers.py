"""The files of each label format, read by the format's own tool where there is one, else by its published rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from label_exports import BOXES, CAR, EDGE, TRIANGLE, TRIANGLE_BOX, Box, add, answer, export, fill, picture, rect
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODKERAS_DB", raising=False)
    return tmp_path


def safe(name: str) -> str:
    """The name of an image in the export."""
    return name.replace("<", "_").replace(">", "_")


EXPECTED = {safe(name): boxes for name, boxes in BOXES.items()}
Read = dict[str, list[Box]]


def assert_same(read: Read, expected: Read, *, within_px: float) -> None:
    assert {name: [label for label, _ in boxes] for name, boxes in read.items()} == {
        name: [label for label, _ in boxes] for name, boxes in expected.items()
    }
    for name, boxes in expected.items():
        for (_, box), (_, wanted) in zip(read[name], boxes, strict=True):
            assert box == pytest.approx(wanted, abs=within_px), name


def split_files(folder: Path) -> dict[str, set[str]]:
    """The images that each split has in the folder."""
    return {each.name: {path.name for path in each.iterdir()} for each in (folder / "out" / "images").iterdir()}


# --- COCO


def read_coco(folder: Path, split: str = "train") -> tuple[Any, Read]:
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO

    read = COCO(str(folder / "out" / "annotations" / f"instances_{split}.json"))
    boxes: Read = {}
    for image_id, image in read.imgs.items():
        rows = boxes.setdefault(image["file_name"], [])
        for each in read.loadAnns(read.getAnnIds(image_id)):
            x, y, width, height = each["bbox"]
            rows.append((read.cats[each["category_id"]]["name"], (x, y, x + width, y + height)))
    return read, boxes


class TestCoco:
    def test_pycocotools_reads_the_boxes(self, folder: Path) -> None:
        fill(folder)
        export("--format", "coco", "--copy-images")
        assert_same(read_coco(folder)[1], EXPECTED, within_px=0.01)

    def test_each_split_has_a_file_whose_ids_count_from_1(self, folder: Path) -> None:
        fill(folder)
        export("--format", "coco", "--split", "0.5/0.5", "--copy-images")
        both = {}
        for split, names in split_files(folder).items():
            read, boxes = read_coco(folder, split)
            assert set(boxes) == names and sorted(read.imgs) == [*range(1, len(names) + 1)]
            assert sorted(read.anns) == [*range(1, len(read.anns) + 1)]
            both |= boxes
        assert_same(both, EXPECTED, within_px=0.01)

    def test_a_polygon_keeps_its_outline_and_area(self, folder: Path) -> None:
        fill(folder, polygons=True)
        export("--format", "coco")
        read, boxes = read_coco(folder)
        assert boxes["triangle.jpg"] == [TRIANGLE_BOX]
        (annotation,) = [each for each in read.anns.values() if "segmentation" in each]
        assert annotation["segmentation"] == [[value for point in TRIANGLE for value in point]]
        assert read.annToMask(annotation).sum() == pytest.approx(annotation["area"], rel=0.05)

    def test_keypoints_are_those_of_the_category(self, folder: Path) -> None:
        nose = {"name": "nose", "x": 30.5, "y": 10, "visibility": 2}
        tail = {"name": "tail", "x": 9, "y": 20, "visibility": 1}
        one, other = {**rect(*EDGE), "keypoints": [nose]}, {**rect(*EDGE), "keypoints": [tail, nose]}
        add(folder, answer(picture(folder / "a.jpg", 1), one, other, rect(*CAR)))
        assert "without their keypoints" not in export("--format", "coco").stderr
        read, _ = read_coco(folder)
        person = next(each for each in read.cats.values() if each["name"] == "person")
        assert person["keypoints"] == ["nose", "tail"]
        rows = [(each.get("keypoints"), each.get("num_keypoints")) for each in read.anns.values()]
        assert rows == [([30.5, 10, 2, 0, 0, 0], 1), ([30.5, 10, 2, 9, 20, 1], 2), (None, None)]


# --- YOLO: docs.ultralytics.com/datasets/detect


def read_yolo(folder: Path, split: str = "train") -> Read:
    """The boxes in pixels, as Ultralytics reads them: the labels' path is that of the image with /images/ replaced."""
    data = yaml.safe_load((folder / "out" / "data.yaml").read_text("utf-8"))
    images = Path(data["path"]) / data[split]
    boxes: Read = {}
    for path in images.iterdir():
        with Image.open(path) as image:
            width, height = image.size
        before, _, after = str(path).rpartition("/images/")
        text = Path(f"{before}/labels/{after}".rpartition(".")[0] + ".txt").read_text("ascii")
        rows = [line.split() for line in text.splitlines()]
        is_polygon = any(len(row) > 6 for row in rows)
        for row in rows:
            values = [float(value) for value in row[1:]]
            assert all(0 <= value <= 1 for value in values)
            if is_polygon:
                left, right = min(values[::2]), max(values[::2])
                top, bottom = min(values[1::2]), max(values[1::2])
            else:
                x, y, w, h = values
                left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
            box = (left * width, top * height, right * width, bottom * height)
            boxes.setdefault(path.name, []).append((data["names"][int(row[0])], box))
        boxes.setdefault(path.name, [])
    return boxes


class TestYolo:
    @pytest.mark.parametrize("option", ["--copy-images", "--link-images"])
    def test_the_boxes(self, folder: Path, option: str) -> None:
        fill(folder)
        export("--format", "yolo", option)
        assert_same(read_yolo(folder), EXPECTED, within_px=0.01)

    def test_the_splits(self, folder: Path) -> None:
        fill(folder)
        result = export("--format", "yolo", "--split", "0.5/0.5")
        assert "val is the same as train" not in result.stderr
        train, val = read_yolo(folder), read_yolo(folder, "val")
        assert {"train": set(train), "val": set(val)} == split_files(folder)
        assert_same({**train, **val}, EXPECTED, within_px=0.01)

    def test_without_a_split_val_is_train(self, folder: Path) -> None:
        """Ultralytics refuses a data.yaml without val."""
        fill(folder)
        assert "val is the same as train" in export("--format", "yolo").stderr
        assert read_yolo(folder, "val") == read_yolo(folder, "train")

    def test_a_file_with_a_polygon_has_only_polygons(self, folder: Path) -> None:
        """A box's line in a file with polygons is read as two points of a polygon."""
        fill(folder, polygons=True)
        add(folder, answer(picture(folder / "both.jpg", 30), rect(*CAR), {**rect(*CAR), "points": TRIANGLE}, at=2000))
        export("--format", "yolo")
        expected = {**EXPECTED, "triangle.jpg": [TRIANGLE_BOX], "both.jpg": [CAR, TRIANGLE_BOX]}
        assert_same(read_yolo(folder), expected, within_px=0.01)
        (line,) = (folder / "out" / "labels" / "train" / "triangle.txt").read_text().splitlines()
        values = [float(value) for value in line.split()[1:]]
        assert values == pytest.approx([side for x, y in TRIANGLE for side in (x / 64, y / 48)], abs=1e-6)

    @pytest.mark.parametrize(
        "label", ["a: b", "# no", "'", '"', "yes", "12", "naïve ☃ 🦝", "tab\there", "a\u2028b\x7f"]
    )
    def test_any_label_is_a_text_in_data_yaml(self, folder: Path, label: str) -> None:
        add(folder, answer(picture(folder / "a.jpg", 1), rect(label, CAR[1])))
        export("--format", "yolo")
        assert yaml.safe_load((folder / "out" / "data.yaml").read_text("utf-8"))["names"] == {0: label}
