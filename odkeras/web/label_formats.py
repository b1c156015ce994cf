"""The label formats that can be written: one registry."""

from __future__ import annotations

from collections.abc import Callable

from odkeras.errors import ConfigError
from odkeras.formats.writers.coco import CocoWriter
from odkeras.formats.writers.writer import LabelWriter
from odkeras.formats.writers.yolo import YoloWriter

WRITERS: dict[str, Callable[[], type[LabelWriter]]] = {
    "coco": lambda: CocoWriter,
    "yolo": lambda: YoloWriter,
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
