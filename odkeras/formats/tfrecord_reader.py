"""Reads TFRecords of the Object Detection API as labels to import, without TensorFlow: boxes, masks, images."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from odkeras.annotation import Answer, Span
from odkeras.errors import LabelMapError, OdkerasError, RecordError
from odkeras.formats.label_files import (
    CROWD,
    LabelFile,
    LabelledImage,
    ReadNotes,
    box_span,
    labelled_image,
    polygon_span,
    read_label,
    read_objects,
)
from odkeras.formats.outlines import join_rings, trace_mask
from odkeras.images import EncodedImage, encode_image
from odkeras.labels import LabelMap
from odkeras.tfrecord import DamagedRecordError, iter_records

_OBJECT = "image/object/"
_SIDES = tuple(f"{_OBJECT}bbox/{side}" for side in ("xmin", "ymin", "xmax", "ymax"))
Features = Mapping[str, Sequence[Any]]

# Only the fields of tensorflow/core/example/example.proto and feature.proto that are read. A map field is a repeated
# key/value message on the wire.
_PROTO = """
name: "odkeras/example.proto" package: "odkeras.example" syntax: "proto3"
message_type { name: "Example" field { name: "features" number: 1 type_name: "Features" } }
message_type { name: "Features" field { name: "feature" number: 1 type_name: "Entry" label: LABEL_REPEATED } }
message_type {
  name: "Entry"
  field { name: "key" number: 1 type: TYPE_STRING }
  field { name: "value" number: 2 type_name: "Feature" }
}
message_type {
  name: "Feature"
  field { name: "bytes_list" number: 1 type_name: "BytesList" }
  field { name: "float_list" number: 2 type_name: "FloatList" }
  field { name: "int64_list" number: 3 type_name: "Int64List" }
}
message_type { name: "BytesList" field { name: "value" number: 1 type: TYPE_BYTES label: LABEL_REPEATED } }
message_type { name: "FloatList" field { name: "value" number: 1 type: TYPE_FLOAT label: LABEL_REPEATED } }
message_type { name: "Int64List" field { name: "value" number: 1 type: TYPE_INT64 label: LABEL_REPEATED } }
"""


def read_labels(file: LabelFile, notes: ReadNotes) -> Iterator[LabelledImage]:
    """The examples of a TFRecord. Their tasks hold the images.

    Raises:
        RecordError: the file cannot be read.
    """
    names = _label_map_beside(file.path)
    for number, data in enumerate(_records(file.path, notes), start=1):
        where = f"{file.path}: record {number}"
        try:
            answer = _answer(read_features(data), where, names, file, notes)
        except OdkerasError as error:
            notes.refuse(where, error)
            continue
        if answer is not None:
            yield where, answer


def read_features(data: bytes) -> Features:
    """The values of a serialized `tf.train.Example`, by the names of its features.

    Raises:
        RecordError: it is something else.
    """
    from google.protobuf.message import DecodeError

    try:
        example = _example_class().FromString(data)
    except DecodeError as error:
        raise RecordError("not a serialized tf.train.Example") from error
    values: dict[str, Sequence[Any]] = {}
    for entry in example.features.feature:
        lists = (entry.value.bytes_list.value, entry.value.float_list.value, entry.value.int64_list.value)
        values[entry.key] = next((each for each in lists if len(each)), ())
    return values


@functools.cache
def _example_class() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(text_format.Parse(_PROTO, descriptor_pb2.FileDescriptorProto()).SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("odkeras.example.Example"))


def _records(path: Path, notes: ReadNotes) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            for _, data in iter_records(file):
                yield data
    except DamagedRecordError as error:
        notes.refuse(str(path), f"{error}; what follows is not read")
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error


def _label_map_beside(path: Path) -> LabelMap | None:
    """The only label map beside the file, for examples that have ids of classes only."""
    maps = sorted(path.parent.glob("*.pbtxt"))
    try:
        return LabelMap.load(maps[0]) if len(maps) == 1 else None
    except LabelMapError:
        return None


def _answer(features: Features, where: str, names: LabelMap | None, file: LabelFile, notes: ReadNotes) -> Answer | None:
    data = features.get("image/encoded") or [b""]
    name = _text(features, "image/filename") or _text(features, "image/source_id") or where.rpartition(" ")[2]
    image = encode_image(_as_bytes(data[0]), source=name)
    columns = [features.get(side, ()) for side in _SIDES]
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise RecordError(f"xmin, ymin, xmax and ymax have {[len(column) for column in columns]} values")
    if features.get(f"{_OBJECT}keypoint/x"):
        notes.left_out["keypoints of objects (their boxes are imported)"] += 1
    rows = [(f"{where}, object {number}", number - 1) for number in range(1, lengths.pop() + 1)]
    spans = read_objects(rows, lambda at: _span(features, at, image, names, notes), notes)
    return None if spans is None else labelled_image(name, spans, image.image_size_hw, split=file.split, image=image)


def _span(features: Features, at: int, image: EncodedImage, names: LabelMap | None, notes: ReadNotes) -> Span:
    label = _label(features, at, names)
    crowds = features.get(f"{_OBJECT}is_crowd", ())
    other = {CROWD: 1} if at < len(crowds) and crowds[at] else {}
    masks = features.get(f"{_OBJECT}mask", ())
    if masks and isinstance(masks[0], bytes):
        if at >= len(masks):
            raise RecordError(f"there are {len(masks)} masks for more objects")
        rings = trace_mask(_read_mask(masks[at], image.image_size_hw))
        if rings and not (len(rings) == 1 and len(rings[0]) == 4):  # four corners are the box, filled
            return polygon_span(label, join_rings(rings).tolist(), other)
    height, width = image.image_size_hw
    left, top, right, bottom = (float(features[side][at]) for side in _SIDES)
    return box_span(label, (left * width, top * height, right * width, bottom * height), notes, other)


def _label(features: Features, at: int, names: LabelMap | None) -> str:
    texts = features.get(f"{_OBJECT}class/text", ())
    if at < len(texts):
        return read_label(_as_bytes(texts[at]).decode("utf-8", "replace"))
    ids = features.get(f"{_OBJECT}class/label", ())
    if at >= len(ids):
        raise RecordError("the object has no class")
    if names is None:
        raise RecordError(
            f"the object has the class id {ids[at]} and no name; put its label map (.pbtxt) beside the file"
        )
    return names.name_of(ids[at])


def _read_mask(data: bytes, image_size_hw: tuple[int, int]) -> Any:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as opened:
            if (opened.height, opened.width) != image_size_hw:
                raise RecordError(f"the mask has {opened.width} x {opened.height} pixels, unlike the image")
            return np.asarray(opened.convert("L")) > 0
    except RecordError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly any exception type on damaged bytes
        raise RecordError(f"the mask is not a PNG image: {error}") from error


def _text(features: Features, name: str) -> str:
    values = features.get(name) or [b""]
    return _as_bytes(values[0]).decode("utf-8", "replace")


def _as_bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise RecordError(f"an image or a text must be bytes; got {repr(value)[:40]}")
    return value
