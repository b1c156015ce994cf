"""Check the records that a pipeline.config names: the Object Detection API trains on wrong ones without a word."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from odkeras.config.settings import DEFAULT_MAX_PIXELS
from odkeras.data.records import (
    box_problem,
    class_ids,
    class_texts,
    count_boxes,
    example_problem,
    file_name,
    keypoint_problem,
    size_problem,
)
from odkeras.errors import ConfigError
from odkeras.labels import LabelMap
from odkeras.model.context import context_problem

MAX_CHECKED = 1000
"""Records may have millions of examples."""
_MAX_LISTED = 10


def check_records(
    reader: Any,
    label_map: LabelMap,
    field: str,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    *,
    context_length: int = 0,
) -> list[str]:
    """Check a reader's first `MAX_CHECKED` examples without decoding their images, and return warnings.

    Records that cannot be read are not checked: the input pipeline reports that.

    Args:
        reader: the `input_reader_pb2.InputReader`.
        field: its name in the pipeline.config, for messages.
        max_pixels: larger images are refused.
        context_length: the length of the context features that the model takes; 0: none.

    Raises:
        ConfigError: no record has an example, boxes are not normalised, keypoints are not those of the reader, context
            features not those of the model, or an image is too large.
    """
    try:
        files = _files(reader)
        empty = [path for path in files if next(_read(path), None) is None]
    except tf.errors.OpError:
        return []
    if files and len(empty) == len(files):
        raise ConfigError(f"{field}: {', '.join(files)} holds no examples; write it again, or name another record")
    findings = _Findings(label_map, reader.max_number_of_boxes, reader.num_keypoints, max_pixels, context_length)
    try:
        for path, number, serialized in itertools.islice(_numbered(files), MAX_CHECKED):
            findings.add(serialized, f"{field}: {path}, example {number}")
    except (tf.errors.OpError, DecodeError):
        pass
    warnings = [f"{field}: these records hold no examples: {', '.join(empty)}"] if empty else []
    return warnings + findings.warnings()


def find_bad_example(examples: Iterable[tuple[str, bytes]], num_keypoints: int = 0, *, context_length: int = 0) -> str:
    """Why the first example that the API cannot use cannot be used; "" if all can. Decodes the images.

    Args:
        examples: pairs (place, serialized example).
        num_keypoints: the reader's `num_keypoints`.
        context_length: as in `check_records`.
    """
    for place, serialized in examples:
        if problem := example_problem(serialized, num_keypoints) or _context_problem(serialized, context_length):
            return f"{place}: {problem}"
    return ""


def numbered_examples(reader: Any) -> Iterator[tuple[str, bytes]]:
    """(place, serialized) of each example of a reader's records, up to the first damaged record."""
    try:
        for path, number, serialized in _numbered(_files(reader)):
            yield f"{path}, example {number}", serialized
    except tf.errors.OpError:
        return


def _context_problem(serialized: bytes, context_length: int) -> str:
    features = tf.train.Example.FromString(serialized).features.feature
    problem = context_problem(features, context_length)
    return f"{file_name(features)}: {problem}" if problem else ""


@dataclass
class _Findings:
    """What is wrong with the examples of a reader, counted."""

    label_map: LabelMap
    max_boxes: int
    num_keypoints: int
    max_pixels: int
    context_length: int
    checked: int = 0
    unknown_texts: Counter[str] = field(default_factory=Counter)
    unknown_ids: Counter[int] = field(default_factory=Counter)
    crowded: list[tuple[int, str]] = field(default_factory=list)
    boxes: int = 0

    def add(self, serialized: bytes, place: str) -> None:
        features = tf.train.Example.FromString(serialized).features.feature
        if problem := (
            box_problem(features)
            or keypoint_problem(features, self.num_keypoints)
            or size_problem(features, self.max_pixels)
            or context_problem(features, self.context_length)
        ):
            raise ConfigError(f"{place} ({file_name(features)}): {problem}")
        self.checked += 1
        texts, count = class_texts(features), count_boxes(features)
        self.boxes += count
        self.unknown_texts.update(texts - self.label_map.texts)
        if not texts:  # the API uses the ids only then
            self.unknown_ids.update(class_ids(features) - set(self.label_map.ids))
        if 0 < self.max_boxes < count:
            self.crowded.append((count, f"{place} ({file_name(features)})"))

    def warnings(self) -> list[str]:
        of = f"of the first {self.checked} examples"
        warnings = []
        if self.unknown_texts:
            warnings.append(
                f"the records have classes that are not in the label map ({_listed(self.unknown_texts)} {of}): their "
                "objects are not trained on, as if nothing were there"
            )
        if self.unknown_ids:
            warnings.append(
                f"the records have class ids that are not in the label map ({_listed(self.unknown_ids)} {of}; known: "
                f"{', '.join(map(str, self.label_map.ids[:_MAX_LISTED]))}): add these classes, or correct the records"
            )
        if self.crowded:
            count, place = max(self.crowded)
            warnings.append(
                f"{len(self.crowded)} {of} have more boxes than max_number_of_boxes ({self.max_boxes}), up to {count} "
                f"in {place}: the others are trained as background; set max_number_of_boxes: {count} in the reader"
            )
        if self.checked and not self.boxes:
            warnings.append(f"none {of} has a box: there is nothing to learn but background")
        return warnings


def _files(reader: Any) -> list[str]:
    return sorted(path for pattern in reader.tf_record_input_reader.input_path for path in tf.io.gfile.glob(pattern))


def _listed(counts: Counter[Any]) -> str:
    return ", ".join(f"{name!r} in {count}" for name, count in sorted(counts.items())[:_MAX_LISTED])


def _numbered(files: Sequence[str]) -> Iterator[tuple[str, int, bytes]]:
    return ((path, number, serialized) for path in files for number, serialized in enumerate(_read(path), start=1))


def _read(path: str) -> Iterator[bytes]:
    yield from tf.data.TFRecordDataset(path).as_numpy_iterator()
