"""Read the framing of TFRecord files without TensorFlow: length (8 bytes), checksum (4), data, checksum (4)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

_HEADER = struct.Struct("<Q4x")
HEADER_SIZE = _HEADER.size
FOOTER_SIZE = 4


class DamagedRecordError(ValueError):
    """A record is truncated, or the file is not a TFRecord. The checksums are not verified.

    Args:
        offset: byte offset of the record's data.
    """

    def __init__(self, offset: int) -> None:
        super().__init__(f"is damaged at byte {offset}")


def iter_records(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield (byte offset of the data, data) of each record.

    Raises:
        DamagedRecordError: a record is damaged; the records before it are yielded first.
    """
    size = os.fstat(file.fileno()).st_size  # checked before reading: a damaged length may exceed the memory
    while header := file.read(_HEADER.size):
        offset = file.tell()
        length = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else size
        if offset + length + FOOTER_SIZE > size:
            raise DamagedRecordError(offset)
        yield offset, file.read(length)
        file.seek(FOOTER_SIZE, os.SEEK_CUR)
