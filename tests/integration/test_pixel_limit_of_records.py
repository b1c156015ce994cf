"""Pictures with too many pixels on the way into records, and in records that other tools made."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf
from object_detection.protos import input_reader_pb2

from odkeras.data.conversion import labels_to_records
from odkeras.data.records import write_records
from odkeras.errors import ConfigError, RecordError
from odkeras.images import too_many_pixels
from odkeras.labels import Label, LabelMap
from odkeras.training.record_checks import check_records
from tests.odd_pngs import chunk, header

LABEL_MAP = LabelMap((Label(1, "car"),))
BOMB = b"\x89PNG\r\n\x1a\n" + header(10_000, 10_000) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_from_csv_skips_it_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(BOMB)
    (tmp_path / "boxes.csv").write_text("path,xmin,ymin,xmax,ymax,label\nbomb.png,1,1,9,9,car\n")
    with pytest.raises(RecordError, match="too large: 100,000,000 pixels"):
        labels_to_records(tmp_path / "boxes.csv", tmp_path / "x.record", label_map=LABEL_MAP, images_dir=tmp_path)


def test_a_record_with_it_is_refused_before_the_training(tmp_path: Path) -> None:
    features = {"image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[BOMB]))}
    example = tf.train.Example(features=tf.train.Features(feature=features))
    path = tmp_path / "x.record"
    write_records(path, [example.SerializeToString()])
    reader = input_reader_pb2.InputReader()
    reader.tf_record_input_reader.input_path.append(str(path))
    with pytest.raises(ConfigError) as refused:
        check_records(reader, LABEL_MAP, "train_input_reader")
    assert str(refused.value).endswith(too_many_pixels(100_000_000, 50_000_000))
    assert f"{path}, example 1" in str(refused.value)
    check_records(reader, LABEL_MAP, "train_input_reader", max_pixels=100_000_000)
