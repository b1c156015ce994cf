"""Where the examples in TFRecord files are: the values that the replay store and its index hold."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from odkeras.data import records
from odkeras.errors import RecordError, error_reason
from odkeras.heartbeat import report_progress
from odkeras.inbox import batch_written_s
from odkeras.tfrecord import FOOTER_SIZE, HEADER_SIZE, DamagedRecordError, iter_records

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredExample:
    """The position of one serialized `tf.train.Example` in a TFRecord file.

    Args:
        image_id: stable id of the image.
        batch: name of the inbox batch with its answer; names sort by age.
        path: the TFRecord file.
        offset: byte offset of the example.
        length: number of bytes.
        classes: class texts of its objects.
        split: train, val or test, if its labels were imported with it; else "".
        answered_s: when it was answered, in seconds since the epoch; else when its batch was written; 0 if unknown.
    """

    image_id: str
    batch: str
    path: Path
    offset: int
    length: int
    classes: frozenset[str] = frozenset()
    split: str = ""
    answered_s: float = 0.0

    @property
    def size(self) -> int:
        """Bytes of the example with its framing: length and checksums."""
        return HEADER_SIZE + self.length + FOOTER_SIZE

    def read(self) -> bytes:
        """The serialized example.

        Raises:
            RecordError: the file is gone or truncated.
        """
        return self._read(self.offset, self.length)

    def read_framed(self) -> bytes:
        """The example with its framing, as it is in the file.

        Raises:
            RecordError: the file is gone or truncated.
        """
        return self._read(self.offset - HEADER_SIZE, self.size)

    def _read(self, offset: int, length: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                data = file.read(length)
        except OSError as error:
            raise RecordError(f"cannot read {self.path}: {error.strerror}") from error
        if len(data) != length:
            raise RecordError(f"{self.path} ends at an example that should have {length} bytes; it has {len(data)}")
        return data


def index_record(path: Path) -> list[StoredExample]:
    """The position of each example in a TFRecord; [] if there is no such file. One that cannot be parsed is logged and
    left out.

    Raises:
        RecordError: not a TFRecord, or truncated.
    """
    return index_record_from(path)[0]


def index_record_from(path: Path, start: int = 0, *, may_be_cut_off: bool = False) -> tuple[list[StoredExample], int]:
    """`index_record` from the byte offset `start`, and the offset of the end of the last complete record.

    Args:
        may_be_cut_off: a partial last record is left out instead of raising an error.

    Raises:
        RecordError: as `index_record`.
    """
    examples, end = [], start
    try:
        with path.open("rb") as file:
            file.seek(start)
            for offset, data in iter_records(file):
                try:
                    examples.append(_stored_example(path, offset, data))
                except Exception as error:  # whatever it is, the other examples can be trained on
                    _log.error("%s: the example at byte %d is not used: %s", path, offset, error_reason(error))
                report_progress()
                end = offset + len(data) + FOOTER_SIZE
    except (FileNotFoundError, IsADirectoryError):
        return [], start
    except DamagedRecordError as error:
        if not may_be_cut_off:
            raise RecordError(f"{path} {error}; move it away to continue without its examples") from error
        _log.info("%s: its last record, at byte %d, is incomplete; it will be overwritten", path, end)
    return examples, end


def _stored_example(path: Path, offset: int, data: bytes) -> StoredExample:
    try:
        features = tf.train.Example.FromString(data).features.feature
    except Exception as error:  # the import path of protobuf's DecodeError differs between versions
        raise RecordError(f"{path} has a record that is not a tf.train.Example: {error}") from error
    image_id = _text(features, "image/source_id") or records.annotation_from_example(data).image_id
    batch, classes = sys.intern(_text(features, records.BATCH_FEATURE)), records.class_texts(features)
    split, answered_s = _text(features, records.SPLIT_FEATURE), records.answered_s(features)
    if answered_s is None:
        answered_s = batch_written_s(batch)
    return StoredExample(image_id, batch, path, offset, len(data), classes, split, answered_s)


def _text(features: tf.train.Features, name: str) -> str:
    values = features[name].bytes_list.value if name in features else ()
    return values[0].decode("utf-8", "replace") if values else ""
