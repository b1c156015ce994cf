"""TFRecords as the trainer and `odkeras records` write them, read as labels without TensorFlow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
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
