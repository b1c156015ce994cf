"""The label formats that can be written: one registry."""

from __future__ import annotations

from collections.abc import Callable

from odkeras.errors import ConfigError
from odkeras.formats.writers.coco import CocoWriter
from odkeras.formats.writers.csv_boxes import CsvWriter
from odkeras.formats.writers.cvat import CvatWriter
from odkeras.formats.writers.jsonl import JsonlWriter
from odkeras.formats.writers.labelstudio import LabelStudioWriter
from odkeras.formats.writers.voc import VocWriter
from odkeras.formats.writers.writer import LabelWriter
from odkeras.formats.writers.yolo import YoloWriter
from odkeras.formats.writers.yolo_pose import YoloPoseWriter
from odkeras.logs import quiet_import


def _tfrecord_writer() -> type[LabelWriter]:
    quiet_import("tensorflow")
    from odkeras.data.label_records import TfrecordWriter

    return TfrecordWriter


WRITERS: dict[str, Callable[[], type[LabelWriter]]] = {
    "coco": lambda: CocoWriter,
    "voc": lambda: VocWriter,
    "yolo": lambda: YoloWriter,
    "yolo-pose": lambda: YoloPoseWriter,
    "csv": lambda: CsvWriter,
    "tfrecord": _tfrecord_writer,
    "labelstudio": lambda: LabelStudioWriter,
    "cvat": lambda: CvatWriter,
    "jsonl": lambda: JsonlWriter,
}
"""What returns the writer of a format. Functions, because TensorFlow is imported for its own format only."""


def writer_of(format: str) -> type[LabelWriter]:
    """The writer of a format.

    Raises:
        ConfigError: an unknown format.
    """
    if format not in WRITERS:
        raise ConfigError(f"--format must be one of {', '.join(WRITERS)}; got {format!r}")
    return WRITERS[format]()
