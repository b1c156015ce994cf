"""Known boxes for the simulation and for records, in every format that can be imported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from label_exports import BOXES, answer, export, fill

from odkeras.errors import ConfigError, RecordError
from odkeras.groundtruth_csv import GroundtruthImage
from odkeras.known_labels import read_known_labels
from odkeras.labels import LabelMap
from odkeras.simulation.truth import read_labeled_images

FORMATS = ("coco", "voc", "yolo", "labelstudio", "cvat", "jsonl")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODKERAS_DB", raising=False)
    fill(tmp_path, polygons=False)
    return tmp_path


def read(path: Path, images_dir: Path | None = None) -> tuple[dict[str, GroundtruthImage], list[tuple[str, str]]]:
    skipped: list[tuple[str, str]] = []
    truths = read_known_labels(path, images_dir, on_skip=lambda place, reason: skipped.append((place, reason)))
    return {truth.path.name: truth for truth in truths}, skipped


@pytest.mark.parametrize("format", FORMATS)
def test_boxes_and_labels_of_every_image(folder: Path, format: str) -> None:
    export("--format", format, "--copy-images")
    truths, skipped = read(folder / "out")
    assert skipped == [] and len(truths) == len(BOXES)
    for name, boxes in BOXES.items():
        name = name.replace("<", "_").replace(">", "_")
        truth = truths[name if name in truths else name.replace(" ", "_")]
        found = sorted(zip(truth.labels, truth.boxes_xyxy_px.tolist(), strict=True))
        assert len(found) == len(boxes)
        for (label, box), (wanted, corners) in zip(found, sorted(boxes), strict=True):
            assert label == wanted and box == pytest.approx(corners, abs=0.51 if format == "voc" else 0.01)


def test_the_simulation_takes_them(folder: Path) -> None:
    export("--format", "coco", "--copy-images")
    labels = LabelMap.from_names(sorted({label for boxes in BOXES.values() for label, _ in boxes}))
    known = read_labeled_images(folder / "out", None, labels, on_skip=lambda *_: None)
    images = [*known.annotate, *known.held_out]
    assert sum(len(image.groundtruth) for image in images) == sum(map(len, BOXES.values()))


def test_what_cannot_be_used_is_named_and_the_rest_is_read(folder: Path) -> None:
    export("--format", "coco", "--copy-images")
    path = next((folder / "out").rglob("instances_*.json"))
    document = json.loads(path.read_text())
    names = {image["id"]: image["file_name"] for image in document["images"]}
    document["images"].append({"id": 99, "file_name": "gone.jpg", "width": 8, "height": 8})
    document["annotations"][0]["bbox"] = [5000, 5000, 10, 10]
    path.write_text(json.dumps(document))
    truths, skipped = read(folder / "out")
    reasons = " ".join(f"{place}: {reason}" for place, reason in skipped)
    assert "gone.jpg: no such image below" in reasons and "far outside the image" in reasons
    assert len(truths) in (len(names), len(names) - 1)


def test_rejected_and_ignored_images_are_no_truth(folder: Path) -> None:
    decisions = {"one.jpg": "reject", "none.png": "accept", "three.jpg": "ignore"}
    rows = [answer(folder / "photos" / name, decision=decision) for name, decision in decisions.items()]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(read(folder / "answers.jsonl")[0]) == ["none.png"]


def test_two_images_of_one_name(folder: Path) -> None:
    export("--format", "coco", "--copy-images")
    path = next((folder / "out").rglob("instances_*.json"))
    shutil.copytree(folder / "out" / "images", folder / "images")
    (one,) = (folder / "images").rglob("one.jpg")
    for name in ("a", "b"):
        (folder / "images" / name).mkdir()
        shutil.copy(one, folder / "images" / name / "one.jpg")
    one.unlink()
    _, skipped = read(path, folder / "images")
    assert any("one.jpg: several images have this name" in reason for _, reason in skipped)


def test_none_of_the_images_is_there(folder: Path) -> None:
    export("--format", "coco", "--copy-images")
    (folder / "empty").mkdir()
    with pytest.raises(RecordError, match=r"none of the \d+ images of .* is found; --images names"):
        read(folder / "out", folder / "empty")


def test_no_labels(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(ConfigError, match="no labels"):
        read(folder / "empty")


class TestCsvOfOthers:
    """A CSV that is not in our form is read as `odkeras import` reads it."""

    def write(self, folder: Path, text: str) -> Path:
        path = folder / "boxes.csv"
        path.write_text(text)
        return path

    @pytest.mark.parametrize(
        "text",
        [
            "filename;width;height;class;xmin;ymin;xmax;ymax\none.jpg;64;48;car;1;2;30;40\n",
            "path,xmin,ymin,xmax,ymax,label\nC:\\Users\\me\\one.jpg,1,2,30,40,car\n",
            "path,xmin,ymin,xmax,ymax,label\nsub\\one.jpg,1,2,30,40,car\n",
            "/home/me/one.jpg,1,2,30,40,car\n",
            "image_name,x,y,width,height,label\none.jpg,1,2,29,38,car\n",
        ],
        ids=["semicolons", "path of Windows", "backslash", "no header", "widths"],
    )
    def test_it_is_read(self, folder: Path, text: str) -> None:
        truths, skipped = read(self.write(folder, text), folder / "photos")
        (truth,) = truths.values()
        assert (truth.path, truth.labels) == (folder / "photos" / "one.jpg", ("car",))
        assert truth.boxes_xyxy_px.tolist() == [[1, 2, 30, 40]] and skipped == []

    def test_a_wrong_row_of_our_form_stays_an_error(self, folder: Path) -> None:
        path = self.write(folder, "path,xmin,ymin,xmax,ymax,label\none.jpg,1,2,x,40,car\n")
        with pytest.raises(RecordError, match=r"boxes\.csv:2: xmax must be a number"):
            read(path, folder / "photos")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("path,xmin,ymin,xmax,ymax,label\ngone.jpg,1,2,3,4,car\n", "none of the 1 images of .*boxes.csv is in"),
            ("a,b,c\n1,2,3\n", "boxes.csv:1: the header lacks path"),
        ],
    )
    def test_else_the_first_reason_is_given(self, folder: Path, text: str, message: str) -> None:
        with pytest.raises(RecordError, match=message):
            read(self.write(folder, text), folder / "photos")
