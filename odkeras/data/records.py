"""Annotations <-> tf.train.Example <-> TFRecord files, with the Object Detection API's feature names."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from PIL import Image

from odkeras import boxes as box_ops
from odkeras import polygons as polygon_ops
from odkeras.boxes import FloatArray, Groundtruth
from odkeras.errors import AnswerError, ImageError, LabelMapError, RecordError
from odkeras.groundtruth_csv import TruthImage, read_truth_csv
from odkeras.images import DEFAULT_MAX_PIXELS, EncodedImage, encode_image, read_image
from odkeras.labels import LabelMap
from odkeras.polygons import BoolArray
from odkeras.project import atomic_path
from odkeras.tasks import Annotation, Task, read_answer

BATCH_FEATURE = "odkeras/batch"
MASK_FEATURE = "image/object/mask"
_FORMATS = {b"jpeg": "jpeg", b"jpg": "jpeg", b"png": "png"}
Progress = Callable[[int, int], None]


@dataclass
class RecordsReport:
    """What a conversion did.

    Args:
        images: examples written; `negatives` of them have no box.
        boxes: boxes written.
        skipped: (file, reason) for each image or box that was left out.
    """

    images: int = 0
    boxes: int = 0
    negatives: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def count(self, annotation: Annotation) -> None:
        self.images += 1
        self.boxes += len(annotation.groundtruth)
        self.negatives += not len(annotation.groundtruth)


def example_from_annotation(annotation: Annotation, label_map: LabelMap, *, masks: bool = False) -> tf.train.Example:
    """The features that the API's decoder reads, and `odkeras/batch`, the inbox file that the annotation came in.

    Where an object has a polygon, or `masks` asks for them, there is a mask for every object: a PNG of the image's
    size, 1 where the object is (for a rectangle: in its box) and 0 elsewhere. The decoder calls them PNG_MASKS.

    Raises:
        LabelMapError: a class is not in the label map.
    """
    image, truth = annotation.image, annotation.groundtruth
    height, width = image.image_size_hw
    names = [label_map.name_of(class_id).encode() for class_id in truth.classes]
    features = {
        "image/encoded": _bytes([image.data]),
        "image/format": _bytes([image.format.encode()]),
        "image/height": _ints([height]),
        "image/width": _ints([width]),
        "image/filename": _bytes([annotation.file.encode("utf-8", "replace")]),
        "image/source_id": _bytes([annotation.image_id.encode()]),
        "image/key/sha256": _bytes([image.image_id.encode()]),
        "image/object/class/text": _bytes(names),
        "image/object/class/label": _ints(truth.classes),
        "image/object/is_crowd": _ints(np.zeros(len(truth), np.int64)),
        "image/object/difficult": _ints(np.zeros(len(truth), np.int64)),
        BATCH_FEATURE: _bytes([annotation.batch.encode()]),
    }
    for column, side in enumerate(("ymin", "xmin", "ymax", "xmax")):
        features[f"image/object/bbox/{side}"] = _floats(truth.boxes[:, column])
    if masks or annotation.polygons:
        features[MASK_FEATURE] = _bytes(_png_masks(truth.boxes, image.image_size_hw, annotation.polygons))
    return tf.train.Example(features=tf.train.Features(feature=features))


def annotation_from_example(serialized: bytes) -> Annotation:
    """The annotation in a serialized example, also one that another tool wrote (there the size and id may be missing).

    Masks stay behind: an example does not keep the polygons that they were made of.

    Raises:
        RecordError: not an example, no readable image, or boxes that do not fit together.
    """
    features = _parse(serialized).features.feature
    file = _text(features, "image/filename")
    image = _image_of(features, file)
    image_id = _text(features, "image/source_id") or image.image_id
    truth = _groundtruth_of(features, file)
    return Annotation(image, truth, image_id, file, _text(features, BATCH_FEATURE))


def with_masks(serialized: bytes) -> bytes:
    """The serialized example itself if it has masks, else a copy with its boxes, filled, for masks.

    Raises:
        RecordError: as `annotation_from_example`.
    """
    example = _parse(serialized)
    features = example.features.feature
    if MASK_FEATURE in features:
        return serialized
    file = _text(features, "image/filename")
    boxes, size_hw = _groundtruth_of(features, file).boxes, _image_of(features, file).image_size_hw
    features[MASK_FEATURE].CopyFrom(_bytes(_png_masks(boxes, size_hw)))
    return example.SerializeToString()


def write_records(path: Path | str, serialized: Iterable[bytes]) -> int:
    """Write a TFRecord that appears whole or not at all, and say how many records it has.

    Raises:
        RecordError: disk full, no permission, no such directory.
    """
    count = 0
    try:
        with atomic_path(path) as temporary:
            with tf.io.TFRecordWriter(str(temporary)) as writer:
                for record in serialized:
                    writer.write(record)
                    count += 1
            temporary.touch()  # no record at all leaves no file
    except (OSError, tf.errors.OpError) as error:
        raise RecordError(f"cannot write {path}: {_message(error)}") from error
    return count


def read_records(path: Path | str) -> Iterator[bytes]:
    """The serialized records of a TFRecord file, in order.

    Raises:
        RecordError: no such file, or it is truncated or damaged (after the records before the damage).
    """
    try:
        yield from tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    except tf.errors.OpError as error:
        raise RecordError(f"cannot read {path}: {_message(error)}") from error


def csv_to_records(
    csv_path: Path | str,
    out: Path | str,
    *,
    label_map: LabelMap,
    images_dir: Path | str,
    progress: Progress | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> RecordsReport:
    """Convert known boxes (see `groundtruth_csv`) to a TFRecord. Images that cannot be used are skipped and reported.

    Args:
        progress: called with (images done, images in all).

    Raises:
        RecordError: the CSV cannot be read, the TFRecord not written, or no image is left.
        LabelMapError: the CSV has a label that is not in the map.
    """
    truths = read_truth_csv(csv_path, images_dir)
    for truth in truths:
        _check_labels(truth, label_map)
    report = RecordsReport()

    def examples() -> Iterator[bytes]:
        for done, truth in enumerate(truths, start=1):
            annotation = _annotation_of(truth, label_map, max_pixels, report)
            if annotation is not None:
                report.count(annotation)
                yield example_from_annotation(annotation, label_map).SerializeToString()
            if progress is not None:
                progress(done, len(truths))
        _check_not_empty(report, csv_path)

    _make_folder_of(out)
    write_records(out, examples())
    return report


def prodigy_to_records(
    jsonl_path: Path | str,
    out: Path | str,
    *,
    label_map: LabelMap,
    masks: bool = False,
    progress: Progress | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> RecordsReport:
    """Convert the answers of a Prodigy dataset (`prodigy db-out`) to a TFRecord. An image's latest answer counts.

    Args:
        masks: every example gets masks, not only one with a polygon; see `example_from_annotation`.
        progress: called with (lines done, lines in all).

    Raises:
        RecordError: the file cannot be read, the TFRecord not written, or no accepted answer is left.
    """
    try:
        lines = _count_lines(Path(jsonl_path))
        with Path(jsonl_path).open("rb") as file:
            return answers_to_records(
                ((f"{jsonl_path}:{number}", line) for number, line in enumerate(file, start=1)),
                out,
                label_map=label_map,
                source=str(jsonl_path),
                masks=masks,
                progress=None if progress is None else lambda done: progress(done, lines),
                max_pixels=max_pixels,
            )
    except OSError as error:
        raise RecordError(f"cannot convert {jsonl_path} to {out}: {error.strerror}") from error


def answers_to_records(
    answers: Iterable[tuple[str, bytes | Task]],
    out: Path | str,
    *,
    label_map: LabelMap,
    source: str,
    masks: bool = False,
    progress: Callable[[int], None] | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> RecordsReport:
    """Convert answers to a TFRecord. An image's latest answer counts.

    Args:
        answers: (place, answer); the place is for messages, the answer may be a line of JSON.
        source: where they come from, for messages.
        masks: every example gets masks, not only one with a polygon; see `example_from_annotation`.
        progress: called with the number of answers done.

    Raises:
        RecordError: the TFRecord cannot be written, or no accepted answer is left.
    """
    report = RecordsReport()
    _make_folder_of(out)
    try:
        with tempfile.TemporaryFile(dir=Path(out).parent) as spool:
            kept = _Latest(spool, label_map, report, masks)
            for number, (where, answer) in enumerate(answers, start=1):
                kept.take(answer, where, max_pixels)
                if progress is not None:
                    progress(number)
            kept.count_all()
            _check_not_empty(report, source)
            write_records(out, kept.examples())
    except OSError as error:
        raise RecordError(f"cannot convert {source} to {out}: {error.strerror}") from error
    return report


class _Latest:
    """Each image's latest accepted answer; the examples lie in a spool file, as a dataset may not fit in memory."""

    def __init__(self, spool: IO[bytes], label_map: LabelMap, report: RecordsReport, masks: bool) -> None:
        self._spool = spool
        self._label_map = label_map
        self._report = report
        self._masks = masks
        self._places: dict[str, tuple[int, int, int]] = {}  # image id -> offset, length, boxes

    def take(self, answer: bytes | Task, where: str, max_pixels: int) -> None:
        if isinstance(answer, bytes) and not answer.strip():
            return
        try:
            task = json.loads(answer) if isinstance(answer, bytes) else answer
            read = read_answer(task, self._label_map, max_pixels=max_pixels)
        except (AnswerError, ValueError) as error:
            self._report.skipped.append((where, str(error)))
            return
        self._report.skipped += [(where, problem) for problem in read.problems]
        if read.annotation is None:
            self._places.pop(str(read.withdrawn_image_id), None)
            return
        made = example_from_annotation(read.annotation, self._label_map, masks=self._masks)
        example = made.SerializeToString()
        place = (self._spool.tell(), len(example), len(read.annotation.groundtruth))
        self._spool.write(example)
        self._places[read.annotation.image_id] = place

    def count_all(self) -> None:
        self._report.images = len(self._places)
        self._report.boxes = sum(boxes for _, _, boxes in self._places.values())
        self._report.negatives = sum(boxes == 0 for _, _, boxes in self._places.values())

    def examples(self) -> Iterator[bytes]:
        for offset, length, _ in self._places.values():
            self._spool.seek(offset)
            yield self._spool.read(length)


def _check_labels(truth: TruthImage, label_map: LabelMap) -> None:
    for label in truth.labels:
        try:
            label_map.id_of(label)
        except LabelMapError as error:
            raise LabelMapError(f"{truth.path.name}: {error}") from error


def _annotation_of(truth: TruthImage, label_map: LabelMap, max_pixels: int, report: RecordsReport) -> Annotation | None:
    file = truth.path.name
    try:
        image = read_image(truth.path, max_pixels=max_pixels)
    except ImageError as error:
        report.skipped.append((str(truth.path), error.reason))
        return None
    boxes = box_ops.clip(box_ops.from_xyxy_px(truth.boxes_xyxy_px, image.image_size_hw))
    usable = box_ops.area(boxes) > 0
    for box in truth.boxes_xyxy_px[~usable]:
        report.skipped.append((str(truth.path), f"box {box.tolist()} has no area inside the image"))
    if len(boxes) and not usable.any():
        return None  # it has objects, so it is no negative example
    classes = np.array([label_map.id_of(label) for label in truth.labels], np.int32)
    return Annotation(image, Groundtruth(boxes[usable], classes[usable]), image.image_id, file)


def _check_not_empty(report: RecordsReport, source: Path | str) -> None:
    if not report.images:
        reasons = "".join(f"; {file}: {reason}" for file, reason in report.skipped[:3])
        raise RecordError(f"{source} has no image to write{reasons}")


def _make_folder_of(out: Path | str) -> None:
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"cannot write {out}: {error.strerror}") from error


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _parse(serialized: bytes) -> tf.train.Example:
    try:
        return tf.train.Example.FromString(serialized)
    except DecodeError as error:
        raise RecordError("not a serialized tf.train.Example") from error


def _png_masks(
    boxes: FloatArray, image_size_hw: tuple[int, int], polygons: Sequence[FloatArray | None] = ()
) -> list[bytes]:
    """An image file for each box, with one bit a pixel."""
    return [
        _png(polygon_ops.mask_of(box, polygon, image_size_hw))
        for box, polygon in zip(boxes, polygons or [None] * len(boxes), strict=True)
    ]


def _png(mask: BoolArray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def _image_of(features: Any, file: str) -> EncodedImage:
    data = _values(features, "image/encoded", "bytes_list")
    if not data:
        raise RecordError(f"example {file!r} has no image/encoded")
    height, width = _values(features, "image/height", "int64_list"), _values(features, "image/width", "int64_list")
    format = _FORMATS.get(_text(features, "image/format").lower().encode())
    if format and height and width and height[0] > 0 and width[0] > 0:
        return EncodedImage(data[0], (int(height[0]), int(width[0])), format)  # type: ignore[arg-type]
    try:
        return encode_image(data[0], source=file)
    except ImageError as error:
        raise RecordError(f"example {file!r}: {error.reason}") from error


def _groundtruth_of(features: Any, file: str) -> Groundtruth:
    sides = [_values(features, f"image/object/bbox/{side}", "float_list") for side in ("ymin", "xmin", "ymax", "xmax")]
    classes = _values(features, "image/object/class/label", "int64_list")
    lengths = [len(side) for side in [*sides, classes]]
    if len(set(lengths)) > 1:
        raise RecordError(f"example {file!r}: ymin, xmin, ymax, xmax and label have {lengths} values")
    try:
        return Groundtruth(np.array(sides, np.float32).T.reshape(-1, 4), np.array(classes, np.int32))
    except ValueError as error:
        raise RecordError(f"example {file!r}: {error}") from error


def _values(features: Any, name: str, kind: str) -> Any:
    return getattr(features[name], kind).value if name in features else []


def _text(features: Any, name: str) -> str:
    values = _values(features, name, "bytes_list")
    return values[0].decode("utf-8", "replace") if values else ""


def _bytes(values: list[bytes]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _ints(values: Iterable[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(values: Iterable[float]) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _message(error: OSError | tf.errors.OpError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else error.message
