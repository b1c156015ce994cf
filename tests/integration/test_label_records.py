"""`odkeras export-labels --format tfrecord`: the records that it writes train, and say what they lack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from label_exports import BOXES, CAR, EDGE, TRIANGLE_BOX, add, answer, export, fill, picture, rect
from typer.testing import CliRunner

from odkeras.boxes import to_xyxy_px
from odkeras.cli import app
from odkeras.data import label_records
from odkeras.data.records import annotation_from_example, example_problem, read_records
from odkeras.errors import ConfigError, ImageError, RecordError
from odkeras.formats.label_files import ReadNotes
from odkeras.formats.label_formats import find_label_files, read_label_files
from odkeras.images import read_image
from odkeras.labels import LabelMap

pytestmark = pytest.mark.integration


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODKERAS_DB", raising=False)
    return tmp_path


def records(folder: Path, split: str = "train") -> list[bytes]:
    return list(read_records(folder / "out" / f"{split}.record"))


def boxes_in(folder: Path, split: str = "train") -> dict[str, list[tuple[str, list[float]]]]:
    label_map = LabelMap.load(folder / "out" / "label_map.pbtxt")
    boxes = {}
    for serialized in records(folder, split):
        assert example_problem(serialized) == ""
        annotation = annotation_from_example(serialized)
        labels = [label_map.name_of(id) for id in annotation.groundtruth.classes]
        sides = to_xyxy_px(annotation.groundtruth.boxes, annotation.image.image_size_hw).tolist()
        boxes[annotation.file] = list(zip(labels, sides, strict=True))
    return boxes


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert set(found) == set(expected)
    for name, rows in expected.items():
        assert [label for label, _ in found[name]] == [label for label, _ in rows]
        for (_, sides), (_, wanted) in zip(found[name], rows, strict=True):
            assert sides == pytest.approx(wanted, abs=0.01)


def safe(boxes: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("<", "_").replace(">", "_"): rows for name, rows in boxes.items()}


def test_the_boxes_the_images_and_the_label_map(folder: Path) -> None:
    fill(folder)
    result = export("--format", "tfrecord")
    assert result.stdout == "out: 5 images, 6 objects, 1 images without objects\n"
    assert_same(boxes_in(folder), safe(BOXES))
    assert {path.name for path in (folder / "out").iterdir()} == {
        "train.record", "label_map.pbtxt", "odkeras-export.json",
    }  # fmt: skip
    by_file = {annotation.file: annotation for annotation in map(annotation_from_example, records(folder))}
    assert by_file["one.jpg"].image.data == (folder / "photos" / "one.jpg").read_bytes()
    assert by_file["one.jpg"].image_id == read_image(folder / "photos" / "one.jpg").image_id
    assert by_file["turned.jpg"].image.image_size_hw == (64, 48)


def test_the_splits_and_the_readers_of_import(folder: Path) -> None:
    fill(folder)
    export("--format", "tfrecord", "--split", "0.5/0.5")
    train, val = boxes_in(folder), boxes_in(folder, "val")
    assert not set(train) & set(val)
    assert_same({**train, **val}, safe(BOXES))
    notes = ReadNotes()
    read = {
        labelled.task.file: [(span.label, list(span.xyxy_px)) for span in labelled.task.spans]
        for _, _, labelled in read_label_files(find_label_files([folder / "out"]), notes)
    }
    assert_same(read, safe(BOXES))
    assert notes.refused == []


def test_with_a_polygon_every_object_has_a_mask(folder: Path) -> None:
    fill(folder, polygons=True)
    assert "each object has a mask" in export("--format", "tfrecord").stderr
    assert_same(boxes_in(folder), safe({**BOXES, "triangle.jpg": [TRIANGLE_BOX]}))
    for serialized in records(folder):
        features = tf.train.Example.FromString(serialized).features.feature
        masks = features["image/object/mask"].bytes_list.value
        assert len(masks) == len(features["image/object/class/text"].bytes_list.value)
        if features["image/filename"].bytes_list.value[0] == b"triangle.jpg":
            assert 0.4 < (tf.io.decode_png(masks[0]).numpy() > 0).sum() / (20.5 * 30) < 0.6


def test_keypoints_of_the_label_map(folder: Path) -> None:
    nose = {"name": "nose", "x": 32, "y": 12, "visibility": 1}
    add(folder, answer(picture(folder / "a.jpg", 1), {**rect(*EDGE), "keypoints": [nose]}, rect(*CAR)))
    assert "lost in" not in export("--format", "tfrecord").stderr
    (annotation,) = map(annotation_from_example, records(folder))
    assert annotation.groundtruth.keypoints is not None
    np.testing.assert_allclose(annotation.groundtruth.keypoints, [[[0.25, 0.5, 1]], [[0, 0, 0]]])
    assert LabelMap.load(folder / "out" / "label_map.pbtxt").keypoint_names == ("nose",)


def test_crowds(folder: Path) -> None:
    add(folder, answer(picture(folder / "a.jpg", 1), {**rect(*EDGE), "iscrowd": 1}, rect(*CAR)))
    assert "lost in" not in export("--format", "tfrecord").stderr
    (serialized,) = records(folder)
    features = tf.train.Example.FromString(serialized).features.feature
    assert list(features["image/object/is_crowd"].int64_list.value) == [1, 0]


def test_an_image_that_tensorflow_cannot_decode_costs_itself_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder)
    example_from_annotation = label_records.example_from_annotation

    def fail_for_one(annotation: Any, *arguments: Any, **options: Any) -> Any:
        if annotation.file == "one.jpg":
            raise ImageError("TensorFlow cannot decode the image: bad", annotation.file)
        return example_from_annotation(annotation, *arguments, **options)

    monkeypatch.setattr(label_records, "example_from_annotation", fail_for_one)
    result = export("--format", "tfrecord")
    assert "4 images, 5 objects" in result.stdout
    left_out = json.loads((folder / "out" / "odkeras-export.json").read_text())["left_out"]
    assert [each["reason"] for each in left_out] == ["TensorFlow cannot decode the image: bad"]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["--copy-images"], ConfigError, "has the images inside its files; leave out --copy-images"),
        (["--link-images"], ConfigError, "has the images inside its files"),
    ],
)
def test_options_that_cannot_work(folder: Path, arguments: list[str], kind: type[Exception], message: str) -> None:
    fill(folder)
    result = CliRunner().invoke(app, ["export-labels", "pets", "out", "--format", "tfrecord", *arguments])
    assert isinstance(result.exception, kind) and message in str(result.exception)


def test_a_dataset_without_labels_needs_a_label_map(folder: Path) -> None:
    add(folder, answer(picture(folder / "a.jpg", 1)))
    result = CliRunner().invoke(app, ["export-labels", "pets", "out", "--format", "tfrecord"])
    assert isinstance(result.exception, ConfigError) and "give --label-map" in str(result.exception)
    LabelMap.from_names(["car"]).save(folder / "map.pbtxt")
    export("--format", "tfrecord", "--label-map", "map.pbtxt")
    assert boxes_in(folder) == {"a.jpg": []}


def test_a_full_disk_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder)
    before = sorted(folder.iterdir())

    def fail(*_: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "/x/train.record; No space left on device")

    monkeypatch.setattr(tf.io.TFRecordWriter, "write", fail)
    result = CliRunner().invoke(app, ["export-labels", "pets", "out", "--format", "tfrecord"])
    assert isinstance(result.exception, RecordError)
    assert str(result.exception) == f"cannot write {folder / 'out'}: No space left on device; nothing was written"
    assert sorted(folder.iterdir()) == before
