"""Convert ground truth in CSV and COCO files, and answers, to TFRecords."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import tensorflow as tf

from odkeras import boxes as box_ops
from odkeras.annotation import Annotation
from odkeras.boxes import Groundtruth
from odkeras.data.records import example_from_annotation, write_records
from odkeras.errors import AnswerError, ImageError, LabelMapError, RecordError, error_reason
from odkeras.formats.coco_truth import CocoImage, CocoTruth, read_coco
from odkeras.formats.prodigy import Record, read_annotation
from odkeras.groundtruth_csv import GroundtruthImage
from odkeras.images import DEFAULT_MAX_PIXELS, EncodedImage, read_image
from odkeras.known_labels import read_known_labels
from odkeras.labels import LabelMap

Progress = Callable[[int, int], None]


@dataclass
class RecordsReport:
    """The result of a conversion.

    Args:
        images: number of examples written.
        boxes: number of boxes written.
        negatives: number of examples without a box.
        skipped: (file, reason) for each image or box that was skipped.
    """

    images: int = 0
    boxes: int = 0
    negatives: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)

    @contextmanager
    def skipping(self, file: str) -> Iterator[None]:
        """Report an image that cannot be used, instead of ending with the error."""
        try:
            yield
        except ImageError as error:
            self.skipped.append((file, error.reason))
        except RecordError as error:
            self.skipped.append((file, str(error)))

    def count(self, annotation: Annotation) -> None:
        """Add an annotation that was written."""
        self.images += 1
        self.boxes += len(annotation.groundtruth)
        self.negatives += not len(annotation.groundtruth)


def labels_to_records(
    labels: Path | str,
    out: Path | str,
    *,
    label_map: LabelMap,
    images_dir: Path | str | None = None,
    progress: Progress | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> RecordsReport:
    """Convert known boxes (see `known_labels`) to a TFRecord. Unusable images are skipped and reported.

    Args:
        labels: a CSV file, or a file or folder of labels of another tool.
        images_dir: base of the images' paths; None: beside and below the labels.
        progress: callback for progress, called with (images done, number of images).
        max_pixels: larger images are skipped.

    Raises:
        RecordError: the labels cannot be read, the TFRecord cannot be written, or no image is usable.
        ConfigError: there are no labels at this path.
        LabelMapError: a label is not in the map.
    """
    report = RecordsReport()
    folder = None if images_dir is None else Path(images_dir)
    truths = read_known_labels(
        Path(labels), folder, on_skip=lambda place, reason: report.skipped.append((place, reason))
    )
    for truth in truths:
        _check_labels(truth, label_map)

    def examples() -> Iterator[bytes]:
        for done, truth in enumerate(truths, start=1):
            annotation = _read_annotation(truth, label_map, max_pixels, report)
            if annotation is not None:
                report.count(annotation)
                yield example_from_annotation(annotation, label_map).SerializeToString()
            if progress is not None:
                progress(done, len(truths))
        _check_not_empty(report, labels)

    _make_folder_of(out)
    write_records(out, examples())
    return report


def coco_to_records(
    json_path: Path | str,
    out: Path | str,
    *,
    label_map: LabelMap,
    images_dir: Path | str,
    masks: bool = False,
    progress: Progress | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> RecordsReport:
    """Convert a COCO file (see `formats.coco_truth`) to a TFRecord. Unusable images and objects are skipped and
    reported.

    Args:
        label_map: its names choose the categories. If it names keypoints, they are written.
        images_dir: base directory of the file names.
        masks: write the masks of the objects.
        progress: callback for progress, called with (images done, number of images).
        max_pixels: larger images are skipped.

    Raises:
        RecordError: the file cannot be read, the TFRecord cannot be written, or no image is usable.
        LabelMapError: the label map has none of the categories, or lacks a keypoint.
    """
    truth, report = read_coco(json_path, label_map), RecordsReport()
    report.skipped += [
        (name, f"{count} objects are left out: the label map has no {name!r}")
        for name, count in truth.left_out.most_common()
    ]

    def examples() -> Iterator[bytes]:
        for done, coco_image in enumerate(truth.images, start=1):
            with report.skipping(coco_image.file_name):
                image = read_image(Path(images_dir, coco_image.file_name), max_pixels=max_pixels)
                example = _coco_example(truth, coco_image, image, report, masks=masks)
                if example is not None:
                    yield example.SerializeToString()
            if progress is not None:
                progress(done, len(truth.images))
        _check_not_empty(report, json_path)

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
    """Convert the answers of a Prodigy dataset (`prodigy db-out`) to a TFRecord. The latest answer of an image wins.

    Args:
        masks: write masks for every example, not only for those with polygons; see `example_from_annotation`.
        progress: callback for progress, called with (lines done, number of lines).
        max_pixels: larger images are skipped.

    Raises:
        RecordError: the file cannot be read, the TFRecord cannot be written, or no accepted answer is left.
    """
    try:
        with Path(jsonl_path).open("rb") as file:
            lines = sum(1 for _ in file)
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
    answers: Iterable[tuple[str, bytes | Record]],
    out: Path | str,
    *,
    label_map: LabelMap,
    source: str,
    masks: bool = False,
    progress: Callable[[int], None] | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> RecordsReport:
    """Convert answers to a TFRecord. The latest answer of an image wins.

    Args:
        answers: (location for messages, answer); the answer is a record or a line of JSON.
        source: origin of the answers, for messages.
        masks: write masks for every example, not only for those with polygons; see `example_from_annotation`.
        progress: callback for progress, called with the number of answers done.
        max_pixels: larger images are skipped.

    Raises:
        RecordError: the TFRecord cannot be written, or no accepted answer is left.
    """
    report = RecordsReport()
    _make_folder_of(out)
    try:
        with tempfile.TemporaryFile(dir=Path(out).parent) as spool:
            latest = _LatestAnswers(spool, label_map, report, masks)
            for number, (where, answer) in enumerate(answers, start=1):
                latest.take(answer, where, max_pixels)
                if progress is not None:
                    progress(number)
            latest.count_all()
            _check_not_empty(report, source)
            write_records(out, latest.examples())
    except OSError as error:
        raise RecordError(f"cannot convert {source} to {out}: {error.strerror}") from error
    return report


class _LatestAnswers:
    """Keeps the latest accepted answer of each image. Examples are spooled to a file, since a data set may not fit in
    memory."""

    def __init__(self, spool: IO[bytes], label_map: LabelMap, report: RecordsReport, masks: bool) -> None:
        self._spool = spool
        self._label_map = label_map
        self._report = report
        self._masks = masks
        self._places: dict[str, tuple[int, int, int]] = {}  # image id -> offset, length, boxes

    def take(self, answer: bytes | Record, where: str, max_pixels: int) -> None:
        if isinstance(answer, bytes) and not answer.strip():
            return
        try:
            read = read_annotation(_parse(answer), self._label_map, max_pixels=max_pixels)
            example = None
            if read.annotation is not None:
                example = example_from_annotation(read.annotation, self._label_map, masks=self._masks)
        except Exception as error:  # whatever it is, the other answers can be converted
            self._report.skipped.append((where, error_reason(error)))
            return
        self._report.skipped += [(where, problem) for problem in read.problems]
        if read.annotation is None or example is None:
            self._places.pop(str(read.withdrawn_image_id), None)
            return
        data = example.SerializeToString()
        self._places[read.annotation.image_id] = (self._spool.tell(), len(data), len(read.annotation.groundtruth))
        self._spool.write(data)

    def count_all(self) -> None:
        self._report.images = len(self._places)
        self._report.boxes = sum(boxes for _, _, boxes in self._places.values())
        self._report.negatives = sum(boxes == 0 for _, _, boxes in self._places.values())

    def examples(self) -> Iterator[bytes]:
        for offset, length, _ in self._places.values():
            self._spool.seek(offset)
            yield self._spool.read(length)


def _parse(answer: bytes | Record) -> Record:
    if not isinstance(answer, bytes):
        return answer
    try:
        record: Record = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"not JSON: {error}") from error
    return record


def _coco_example(
    truth: CocoTruth, coco_image: CocoImage, image: EncodedImage, report: RecordsReport, *, masks: bool
) -> tf.train.Example | None:
    """The example of an image; None if none of its objects can be used, so that it is not one without objects."""
    if coco_image.size_hw not in (None, image.image_size_hw):
        given, real = ("{1} x {0}".format(*size) for size in (coco_image.size_hw, image.image_size_hw))
        raise RecordError(f"its annotations are for {given} pixels, and the image has {real}")
    objects, problems = truth.objects_of(coco_image, image.image_size_hw, masks=masks)
    report.skipped += [(coco_image.file_name, problem) for problem in problems]
    if problems and not len(objects.groundtruth):
        return None
    annotation = Annotation(image, objects.groundtruth, image.image_id, Path(coco_image.file_name).name)
    drawn = False if objects.masks is None else objects.masks
    example = example_from_annotation(annotation, truth.label_map, masks=drawn, crowds=objects.crowds)
    report.count(annotation)
    return example


def _check_labels(truth: GroundtruthImage, label_map: LabelMap) -> None:
    for label in truth.labels:
        try:
            label_map.id_of(label)
        except LabelMapError as error:
            raise LabelMapError(f"{truth.path.name}: {error}") from error


def _read_annotation(
    truth: GroundtruthImage, label_map: LabelMap, max_pixels: int, report: RecordsReport
) -> Annotation | None:
    with report.skipping(str(truth.path)):
        image = read_image(truth.path, max_pixels=max_pixels)
        boxes = truth.boxes(image.image_size_hw)
        usable = box_ops.area(boxes) > 0
        for box in truth.boxes_xyxy_px[~usable]:
            report.skipped.append((str(truth.path), f"box {box.tolist()} has no area inside the image"))
        if usable.any() or not len(boxes):  # an image with objects must not become a negative example
            classes = np.array([label_map.id_of(label) for label in truth.labels], np.int32)
            groundtruth = Groundtruth(boxes, classes).take(usable)
            return Annotation(image, groundtruth, image.image_id, truth.path.name)
    return None


def _check_not_empty(report: RecordsReport, source: Path | str) -> None:
    if not report.images:
        reasons = "".join(f"; {file}: {reason}" for file, reason in report.skipped[:3])
        raise RecordError(f"{source} has no image to write{reasons}")


def _make_folder_of(out: Path | str) -> None:
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"cannot write {out}: {error.strerror}") from error
