"""`odkeras db out --format tfrecord`: the same as db out, then `records from-prodigy`, and as the COCO export says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import IMAGE_SIZE_HW, TRUTH_XYXY_PX, draw_pixels, encode
from typer.testing import CliRunner

from odkeras.annotation import Task
from odkeras.boxes import to_xyxy_px
from odkeras.cli import app
from odkeras.data.records import MASK_FEATURE, annotation_from_example, read_records
from odkeras.errors import RecordError
from odkeras.formats.prodigy import write_task
from odkeras.images import read_image
from odkeras.labels import LabelMap
from odkeras.web.database import AnswerDatabase
from odkeras.web.stored import StoredAnswer

pytestmark = pytest.mark.integration


def span(box: list[float], label: str) -> dict[str, Any]:
    left, top, right, bottom = box
    return {"label": label, "points": [[left, top], [left, bottom], [right, bottom], [right, top]]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with the answers of two sessions about pictures with none, one and three boxes, and a label map."""
    monkeypatch.chdir(tmp_path)
    LabelMap.from_names(["car", "person"]).save(tmp_path / "map.pbtxt")
    with AnswerDatabase.open("annotations.db") as database:
        for seed, (kind, rows) in enumerate(TRUTH_XYXY_PX.items()):
            path = tmp_path / f"{kind}.jpg"
            path.write_bytes(encode(draw_pixels(seed=seed), "JPEG"))
            image = read_image(path)
            task = {
                **write_task(Task.of(image, file=path.name, path=str(path))),
                "image": str(path),
                "answer": "accept",
            }
            database.add(
                "shapes",
                [
                    StoredAnswer({**task, "spans": [span([0, 0, 9, 9], "car")]}, image.image_id, "anna", 1.0),
                    StoredAnswer({**task, "spans": [span(*row) for row in rows]}, image.image_id, "ben", 2.0 + seed),
                ],
            )
    return tmp_path


def out(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["db", "out", "shapes", *arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stderr


def test_the_last_answers_become_records(folder: Path) -> None:
    told = out("train.record", "--format", "tfrecord", "--label-map", "map.pbtxt")
    assert told == "class ids: map.pbtxt\ntrain.record: 3 images, 4 boxes, 1 without boxes\n"
    found = [annotation_from_example(serialized) for serialized in read_records("train.record")]
    assert [annotation.file for annotation in found] == ["none.jpg", "one.jpg", "three.jpg"]
    for annotation, rows in zip(found, TRUTH_XYXY_PX.values(), strict=True):
        boxes = to_xyxy_px(annotation.groundtruth.boxes, IMAGE_SIZE_HW)
        assert np.allclose(boxes, np.reshape([box for box, _ in rows], (-1, 4)), atol=1e-3)
        assert annotation.image_id == annotation.image.image_id

    out("train.json", "--format", "coco", "--label-map", "map.pbtxt")
    document = json.loads(Path("train.json").read_text())
    bboxes = [each["bbox"] for each in document["annotations"]]
    in_records = [to_xyxy_px(annotation.groundtruth.boxes, IMAGE_SIZE_HW) for annotation in found]
    expected = [[x, y, right - x, bottom - y] for boxes in in_records for x, y, right, bottom in boxes]
    assert np.allclose(bboxes, expected, atol=0.01)
    classes = [int(each) for annotation in found for each in annotation.groundtruth.classes]
    assert [each["category_id"] for each in document["annotations"]] == classes


def test_masks_are_written_and_skipped_images_reported(folder: Path) -> None:
    (folder / "one.jpg").unlink()
    told = out("train.record", "--format", "tfrecord", "--label-map", "map.pbtxt", "--masks")
    assert "skipped shapes: " in told and "one.jpg" in told
    assert told.endswith("train.record: 2 images, 3 boxes, 1 without boxes\n")
    assert all(MASK_FEATURE.encode() in serialized for serialized in read_records("train.record"))


def test_no_record_without_an_image(folder: Path) -> None:
    for path in folder.glob("*.jpg"):
        path.unlink()
    arguments = ["db", "out", "shapes", "train.record", "--format", "tfrecord", "--label-map", "map.pbtxt"]
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, RecordError)
    assert "dataset shapes has no image to write" in str(error)
    assert not (folder / "train.record").exists()
