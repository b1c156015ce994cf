"""The framing of TFRecord files, read without TensorFlow: length (8 bytes), checksum (4), data, checksum (4)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

_HEADER = struct.Struct("<Q4x")
_CHECKSUM_SIZE = 4


class DamagedRecordError(ValueError):
    """A record is cut short, or the file is no TFRecord. The checksums are not looked at."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"is damaged at byte {offset}")


def iter_records(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The offset and the data of each record.

    Raises:
        DamagedRecordError: after the records before the damage.
    """
    size = os.fstat(file.fileno()).st_size  # a damaged length may be larger than the memory
    while header := file.read(_HEADER.size):
        offset = file.tell()
        length = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else size
        if offset + length + _CHECKSUM_SIZE > size:
            raise DamagedRecordError(offset)
        yield offset, file.read(length)
        file.seek(_CHECKSUM_SIZE, os.SEEK_CUR)
