"""The files of each label format, read by the format's own tool where there is one, else by its published rules."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest
import yaml
from label_exports import BOXES, CAR, EDGE, TRIANGLE, TRIANGLE_BOX, Box, add, answer, export, fill, picture, rect
from PIL import Image
from typer.testing import CliRunner

from odkeras.cli import app
from odkeras.errors import ConfigError
from odkeras.groundtruth_csv import read_truth_csv


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
        (annotation,) = [each for each in read.anns.values() if each["segmentation"]]
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


class TestYoloPose:
    """docs.ultralytics.com/datasets/pose"""

    def test_each_line_has_all_keypoints(self, folder: Path) -> None:
        nose = {"name": "nose", "x": 32, "y": 12, "visibility": 2}
        tail = {"name": "tail", "x": 64, "y": 48, "visibility": 1}
        proposed = {"name": "tail", "x": 9, "y": 9, "visibility": 0}
        person, other = ({**rect(*EDGE), "keypoints": points} for points in ([nose, proposed], [tail, nose]))
        add(
            folder,
            answer(picture(folder / "a.jpg", 1), person, other, rect(*CAR)),
            answer(picture(folder / "b.jpg", 2)),
        )
        result = export("--format", "yolo-pose")
        assert "lost in" not in result.stderr and "is a polygon" not in result.stderr
        assert yaml.safe_load((folder / "out" / "data.yaml").read_text())["kpt_shape"] == [2, 3]
        lines = (folder / "out" / "labels" / "train" / "a.txt").read_text().splitlines()
        assert [line.split()[5:] for line in lines] == [
            ["0.5", "0.25", "2", "0", "0", "0"],
            ["0.5", "0.25", "2", "1", "1", "1"],
            ["0", "0", "0", "0", "0", "0"],
        ]
        boxes = [[float(value) for value in line.split()[1:5]] for line in lines]
        assert boxes[0] == pytest.approx([44 / 64, 26 / 48, 40 / 64, 44 / 48], abs=1e-6)
        assert (folder / "out" / "labels" / "train" / "b.txt").read_text() == ""

    def test_polygons_become_boxes(self, folder: Path) -> None:
        nose = {"name": "nose", "x": 20, "y": 12, "visibility": 2}
        add(folder, answer(picture(folder / "a.jpg", 1), {**rect(*CAR), "points": TRIANGLE, "keypoints": [nose]}))
        assert "lost in yolo-pose: 1 polygons" in export("--format", "yolo-pose").stderr
        (line,) = (folder / "out" / "labels" / "train" / "a.txt").read_text().splitlines()
        assert len(line.split()) == 5 + 3

    def test_without_keypoints_it_is_refused(self, folder: Path) -> None:
        fill(folder)
        result = CliRunner().invoke(app, ["export-labels", "pets", "out", "--format", "yolo-pose"])
        assert isinstance(result.exception, ConfigError) and "use --format yolo" in str(result.exception)
        assert not (folder / "out").exists()


# --- Pascal VOC: host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc

SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_voc(folder: Path, split: str = "train") -> Read:
    boxes: Read = {}
    for stem in (folder / "out" / "ImageSets" / "Main" / f"{split}.txt").read_text("utf-8").splitlines():
        root = ElementTree.parse(folder / "out" / "Annotations" / f"{stem}.xml").getroot()
        name = root.findtext("filename") or ""
        assert " " not in stem
        rows = boxes.setdefault(name, [])
        for element in root.findall("object"):
            left, top, right, bottom = (int(element.findtext(f"bndbox/{side}") or "") for side in SIDES)
            rows.append((element.findtext("name") or "", (left, top, right, bottom)))
    return boxes


class TestVoc:
    def test_the_boxes_in_whole_pixels(self, folder: Path) -> None:
        fill(folder)
        result = export("--format", "voc", "--copy-images")
        expected = {name.replace(" ", "_"): boxes for name, boxes in EXPECTED.items()}
        assert_same(read_voc(folder), expected, within_px=0.51)
        images = {path.name: path.stem for path in (folder / "out" / "JPEGImages").iterdir()}
        assert set(read_voc(folder)) == set(images)
        assert {path.stem for path in (folder / "out" / "Annotations").iterdir()} == set(images.values())
        assert "lost in voc: 3 boxes are rounded to whole pixels" in result.stderr

    def test_image_sets(self, folder: Path) -> None:
        fill(folder)
        export("--format", "voc", "--split", "0.5/0.5")
        sets = folder / "out" / "ImageSets" / "Main"
        train, val, both = (set((sets / f"{name}.txt").read_text().split()) for name in ("train", "val", "trainval"))
        assert not train & val and train | val == both and len(both) == len(BOXES)

    def test_the_size_and_place_of_the_image(self, folder: Path) -> None:
        fill(folder)
        export("--format", "voc")
        root = ElementTree.parse(folder / "out" / "Annotations" / "turned.xml").getroot()
        assert [root.findtext(f"size/{name}") for name in ("width", "height", "depth")] == ["48", "64", "3"]
        assert root.findtext("path") == str(folder / "photos" / "turned.jpg")
        assert (root.findtext("folder"), root.findtext("filename")) == ("photos", "turned.jpg")

    def test_polygons_become_boxes_and_this_is_said(self, folder: Path) -> None:
        fill(folder, polygons=True)
        result = export("--format", "voc")
        assert "lost in voc: 1 polygons are written as their bounding boxes" in result.stderr
        manifest = json.loads((folder / "out" / "odkeras-export.json").read_text())
        assert {"what": "polygons are written as their bounding boxes", "objects": 1} in manifest["not_held"]
        assert read_voc(folder)["triangle.jpg"] == [("car", (10, 10, 30, 40))]

    @pytest.mark.parametrize(
        ("box", "expected"),
        [
            ((63.7, 47.7, 64, 48), (63, 47, 64, 48)),
            ((0, 0, 0.2, 0.3), (0, 0, 1, 1)),
            ((10.4, 10.6, 10.45, 10.7), (10, 10, 11, 11)),
            ((1.5, 1.2, 63.6, 47.9), (2, 1, 64, 48)),
        ],
    )
    def test_no_box_is_rounded_away(self, folder: Path, box: tuple[float, ...], expected: tuple[int, ...]) -> None:
        add(folder, answer(picture(folder / "a.jpg", 1), rect("car", box)))
        export("--format", "voc")
        assert read_voc(folder)["a.jpg"] == [("car", expected)]


# --- CSV


def read_csv(folder: Path, split: str = "train") -> Read:
    boxes: Read = {}
    with (folder / "out" / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            path = folder / "out" / row["path"]  # an absolute one stays
            assert (int(row["width"]), int(row["height"])) in ((64, 48), (48, 64))
            rows = boxes.setdefault(path.name, [])
            if row["label"]:
                left, top, right, bottom = (float(row[side]) for side in SIDES)
                rows.append((row["label"], (left, top, right, bottom)))
    return boxes


class TestCsv:
    @pytest.mark.parametrize("options", [(), ("--copy-images",)])
    def test_the_boxes(self, folder: Path, options: tuple[str, ...]) -> None:
        fill(folder)
        export("--format", "csv", *options)
        assert_same(read_csv(folder), EXPECTED if options else BOXES, within_px=0.001)

    @pytest.mark.parametrize("options", [(), ("--copy-images",)])
    def test_records_from_csv_reads_it(self, folder: Path, options: tuple[str, ...]) -> None:
        fill(folder)
        export("--format", "csv", *options)
        read: Read = {}
        for truth in read_truth_csv(folder / "out" / "train.csv", folder / "out"):
            assert truth.path.is_file()
            rows = zip(truth.labels, truth.boxes_xyxy_px.tolist(), strict=True)
            read[truth.path.name] = [(label, tuple(box)) for label, box in rows]
        assert_same(read, EXPECTED if options else BOXES, within_px=0.001)

    def test_polygons_become_boxes(self, folder: Path) -> None:
        fill(folder, polygons=True)
        assert "lost in csv: 1 polygons" in export("--format", "csv").stderr
        assert read_csv(folder)["triangle.jpg"] == [TRIANGLE_BOX]


# --- CVAT: docs.cvat.ai/docs/dataset_management/formats/format-cvat


def read_cvat(folder: Path, split: str = "train") -> Read:
    root = ElementTree.parse(folder / "out" / f"{split}.xml").getroot()
    assert root.tag == "annotations" and root.findtext("version") == "1.1"
    labels = {label.findtext("name") for label in root.iterfind("meta/task/labels/label")}
    boxes: Read = {}
    for number, image in enumerate(root.findall("image")):
        assert (int(image.attrib["id"]), image.attrib["subset"]) == (number, split)
        rows = boxes.setdefault(image.attrib["name"], [])
        for shape in image:
            assert shape.attrib["label"] in labels
            if shape.tag == "box":
                left, top, right, bottom = (float(shape.attrib[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
            else:
                points = [tuple(map(float, point.split(","))) for point in shape.attrib["points"].split(";")]
                (left, *_, right), (top, *_, bottom) = (sorted(side) for side in zip(*points, strict=True))
            rows.append((shape.attrib["label"], (left, top, right, bottom)))
    return boxes


class TestCvat:
    @pytest.mark.parametrize("options", [(), ("--link-images",)])
    def test_the_boxes(self, folder: Path, options: tuple[str, ...]) -> None:
        fill(folder)
        export("--format", "cvat", *options)
        assert_same(read_cvat(folder), EXPECTED if options else BOXES, within_px=0.001)

    def test_polygons(self, folder: Path) -> None:
        fill(folder, polygons=True)
        assert "lost in" not in export("--format", "cvat").stderr
        assert read_cvat(folder)["triangle.jpg"] == [TRIANGLE_BOX]


# --- Label Studio: labelstud.io/guide/tasks


def read_labelstudio(folder: Path, split: str = "train") -> Read:
    boxes: Read = {}
    config = ElementTree.parse(folder / "out" / "label_config.xml").getroot()
    controls = {each.attrib["name"]: (each.tag.lower(), each.attrib.get("toName")) for each in config}
    image_tag = config.find("Image")
    assert image_tag is not None
    for task in json.loads((folder / "out" / f"{split}.json").read_text("ascii")):
        address = task["data"][image_tag.attrib["value"].removeprefix("$")]
        place = parse_qs(urlsplit(address).query)["d"][0]
        rows = boxes.setdefault(Path(place).name, [])
        (annotation,) = task["annotations"]
        for result in annotation["result"]:
            assert controls[result["from_name"]] == (result["type"], result["to_name"])
            width, height = result["original_width"] / 100, result["original_height"] / 100
            value = result["value"]
            (label,) = value[result["type"]]
            if result["type"] == "polygonlabels":
                (left, *_, right), (top, *_, bottom) = (sorted(side) for side in zip(*value["points"], strict=True))
            else:
                left, top = value["x"], value["y"]
                right, bottom = left + value["width"], top + value["height"]
            rows.append((label, (left * width, top * height, right * width, bottom * height)))
    return boxes


class TestLabelStudio:
    @pytest.mark.parametrize("options", [(), ("--copy-images",)])
    def test_the_boxes_and_places(self, folder: Path, options: tuple[str, ...]) -> None:
        fill(folder, polygons=True)
        result = export("--format", "labelstudio", *options)
        expected = {**(EXPECTED if options else BOXES), "triangle.jpg": [TRIANGLE_BOX]}
        assert_same(read_labelstudio(folder), expected, within_px=0.001)
        root = folder / ("out" if options else "photos")
        assert f"DOCUMENT_ROOT={folder} and {root} as local storage" in result.stderr
        for task in json.loads((folder / "out" / "train.json").read_text("ascii")):
            assert (folder / parse_qs(urlsplit(task["data"]["image"]).query)["d"][0]).is_file()

    def test_a_split_without_images_is_an_empty_list(self, folder: Path) -> None:
        add(folder, answer(picture(folder / "a.jpg", 1)))
        export("--format", "labelstudio", "--split", "0.4/0.3/0.3")
        lists = [json.loads((folder / "out" / f"{split}.json").read_text()) for split in ("train", "val", "test")]
        assert sorted(map(len, lists)) == [0, 0, 1]


# --- Prodigy


def read_jsonl(folder: Path, split: str = "train") -> Read:
    boxes: Read = {}
    for line in (folder / "out" / f"{split}.jsonl").read_text("ascii").splitlines():
        record = json.loads(line)
        assert record["answer"] == "accept" and (folder / "out" / record["path"]).is_file()
        rows = boxes.setdefault(Path(record["image"]).name, [])
        for span in record["spans"]:
            rows.append((span["label"], (span["x"], span["y"], span["x"] + span["width"], span["y"] + span["height"])))
    return boxes


class TestJsonl:
    @pytest.mark.parametrize("options", [(), ("--copy-images",)])
    def test_the_boxes(self, folder: Path, options: tuple[str, ...]) -> None:
        fill(folder, polygons=True)
        export("--format", "jsonl", *options)
        expected = {**(EXPECTED if options else BOXES), "triangle.jpg": [TRIANGLE_BOX]}
        assert_same(read_jsonl(folder), expected, within_px=0.001)

    def test_all_of_an_answer_is_kept(self, folder: Path) -> None:
        suggestions = {"version": 3, "threshold": 0.5, "spans": [rect(*CAR)], "uncertainty": 0.25}
        nose = {"name": "nose", "x": 30.5, "y": 10, "visibility": 2}
        span = {**rect(*EDGE), "keypoints": [nose], "id": "x1", "score": 0.75}
        more = {"_suggestions": suggestions, "_active_s": 4.5, "weather": "rain"}
        add(folder, answer(picture(folder / "a.jpg", 1), span, at=1234, **more))
        export("--format", "jsonl")
        record = json.loads((folder / "out" / "train.jsonl").read_text())
        assert (record["_timestamp"], record["_session_id"], record["_active_s"]) == (1234, "pets-anna", 4.5)
        assert (record["weather"], record["_suggestions"]["version"]) == ("rain", 3)
        assert record["spans"][0]["keypoints"] == [nose] and record["spans"][0]["score"] == 0.75


# --- all formats

READERS: dict[str, Callable[[Path], Read]] = {
    "coco": lambda folder: read_coco(folder)[1],
    "voc": read_voc,
    "yolo": read_yolo,
    "csv": read_csv,
    "cvat": read_cvat,
    "labelstudio": read_labelstudio,
    "jsonl": read_jsonl,
}


@pytest.mark.parametrize("format", READERS)
@pytest.mark.parametrize("label", ['<b>&"quoted"</b>', "naïve ☃ 🦝", "a, b; c", "a: b # c", "it's", "a\x01b"])
def test_any_label_survives(folder: Path, format: str, label: str) -> None:
    add(folder, answer(picture(folder / "a.jpg", 1), rect(label, CAR[1])))
    export("--format", format)
    ((found, _),) = READERS[format](folder)["a.jpg"]
    assert found == (label.replace("\x01", "?") if format in ("voc", "cvat") else label)


@pytest.mark.parametrize("format", READERS)
def test_a_file_name_that_is_not_text_is_no_trouble(folder: Path, format: str) -> None:
    """Linux allows any bytes in a name; Python reads them as lone surrogates, which UTF-8 cannot have."""
    try:
        path = picture(folder / "b\udcff.jpg", 1)
    except (OSError, UnicodeError):
        pytest.skip("the file system has text names only")
    add(folder, answer(path, rect(*CAR)))
    export("--format", format)
    export("--format", format, "--copy-images", "--overwrite")
    assert READERS[format](folder)["b_.jpg"][0][0] == "car"


@pytest.mark.parametrize("format", [name for name in READERS if name not in ("coco", "jsonl")])
def test_keypoints_are_said_to_be_lost(folder: Path, format: str) -> None:
    span = {**rect(*CAR), "keypoints": [{"name": "wheel", "x": 20, "y": 10, "visibility": 2}]}
    add(folder, answer(picture(folder / "a.jpg", 1), span, rect(*CAR)))
    assert f"lost in {format}: 1 objects are written without their keypoints" in export("--format", format).stderr
