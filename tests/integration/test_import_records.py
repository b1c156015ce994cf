"""TFRecords as the trainer and `odkeras records` write them, read as labels without TensorFlow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from label_sets import BOXES, documented_starts, run_start
from pictures import IMAGE_SIZE_HW, draw_pixels, encode

from odkeras import polygons
from odkeras.annotation import Annotation
from odkeras.boxes import Groundtruth, from_xyxy_px
from odkeras.data.records import example_from_annotation, write_records
from odkeras.formats.label_files import SPLIT, ReadNotes
from odkeras.formats.label_formats import find_label_files, read_label_files
from odkeras.images import encode_image
from odkeras.labels import LabelMap

pytestmark = pytest.mark.integration

LABEL_MAP = LabelMap.from_names(["car", "person"])
BOXES_PX = [[8, 6, 40, 30], [24, 4, 64, 48]]
TRIANGLE = np.array([[6, 8], [30, 8], [6, 40]], np.float32) / IMAGE_SIZE_HW


@pytest.mark.parametrize("with_polygon", [False, True])
def test_what_tensorflow_writes_is_read(tmp_path: Path, with_polygon: bool) -> None:
    image = encode_image(encode(draw_pixels(), "JPEG"), source="x")
    truth = Groundtruth(from_xyxy_px(BOXES_PX, IMAGE_SIZE_HW), np.array([1, 2], np.int32))
    outlines = (TRIANGLE, None) if with_polygon else ()
    annotations = [
        Annotation(image, truth, image.image_id, "a.jpg", polygons=outlines),
        Annotation(image, Groundtruth.empty(), image.image_id, "b.jpg"),
    ]
    path = tmp_path / "val.record-00000-of-00001"
    write_records(path, [example_from_annotation(each, LABEL_MAP).SerializeToString() for each in annotations])
    notes = ReadNotes()
    files = find_label_files([tmp_path])
    (_, _, first), (_, _, second) = read_label_files(files, notes)
    assert [file.format for file in files] == ["tfrecord"] and notes == ReadNotes()
    assert first.task.image == image and first.task.other == {SPLIT: "val"}
    assert (second.task.path, second.task.spans) == ("b.jpg", ())
    assert [span.label for span in first.task.spans] == ["car", "person"]
    for span, box in zip(first.task.spans, BOXES_PX, strict=True):
        assert span.xyxy_px == pytest.approx(box, abs=1.01 if with_polygon else 0.001)  # a mask has whole pixels
    if with_polygon:
        points = polygons.from_xy_px(first.task.spans[0].points_xy_px, IMAGE_SIZE_HW)
        again, drawn = (polygons.fill(each, IMAGE_SIZE_HW) for each in (points, TRIANGLE))
        assert (again & drawn).sum() / (again | drawn).sum() > 0.95


def test_the_tutorial_begins_with_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODKERAS_DB", raising=False)
    ((_, commands),) = (start for start in documented_starts() if start[0].startswith("TFRecord"))

    def write(folder: Path) -> Path:
        annotations = []
        for name, boxes in BOXES.items():
            image = encode_image((folder / "photos" / name).read_bytes(), source=name)
            classes = np.array([LABEL_MAP.id_of(label) for _, label in boxes], np.int32)
            truth = Groundtruth(from_xyxy_px([box for box, _ in boxes], IMAGE_SIZE_HW), classes)
            annotations.append(Annotation(image, truth, image.image_id, name))
        examples = [example_from_annotation(each, LABEL_MAP).SerializeToString() for each in annotations]
        write_records(folder / "train.record", examples)
        return folder / "train.record"

    imported = run_start(commands, tmp_path, write)
    assert {name: [label for _, label in boxes] for name, boxes in imported.items()} == {
        name: [label for _, label in boxes] for name, boxes in BOXES.items()
    }
    for name, boxes in BOXES.items():
        for (box, _), (read, _) in zip(boxes, imported[name], strict=True):
            assert read == pytest.approx(box, abs=0.01)
