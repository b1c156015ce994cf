"""The TFRecord files of the data directory, read without TensorFlow: what they hold, and where they are damaged.

Both checksums of each record are verified. A damaged length ends what can be read of a file, since the next record
begins nobody knows where; a record whose data is damaged is left out alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from odkeras.crc32c import masked_crc32c
from odkeras.damaged_files import set_aside
from odkeras.project import Project, atomic_path, list_dir
from odkeras.tfrecord import FOOTER_SIZE, HEADER_SIZE, DamagedRecordError, iter_records


@dataclass(frozen=True)
class RecordFile:
    """What a TFRecord file holds.

    Args:
        path: the file.
        examples: number of its intact records.
        readable_bytes: size of the file up to the first record with a damaged length.
        size: size of the file.
        is_cut: whether the file only ends in the middle of a record, as after a crash while it was written.
        damaged: first and last byte (exclusive) of each record before that whose data is damaged.
    """

    path: Path
    examples: int
    readable_bytes: int
    size: int
    is_cut: bool = False
    damaged: tuple[tuple[int, int], ...] = ()

    @property
    def is_damaged(self) -> bool:
        return self.readable_bytes < self.size or bool(self.damaged)

    @property
    def problem(self) -> str:
        """What is wrong with a damaged file."""
        parts = []
        if self.damaged:
            first = self.damaged[0][0]
            parts.append(f"has {len(self.damaged)} examples with a wrong checksum, the first one at byte {first}")
        if self.readable_bytes < self.size:
            end = f"is damaged at byte {self.readable_bytes} of {self.size}"
            parts.append(f"{end}, after {self.examples + len(self.damaged)} examples")
        return " and ".join(parts)


def list_record_files(project: Project) -> list[Path]:
    """The records with the answers of a project: those of rounds, and the shards."""
    shards = [path for path in list_dir(project.replay_dir) if path.suffix == ".record" and path.name[0] != "."]
    replay = [project.replay_record] if project.replay_record.is_file() else []
    return [*replay, *sorted(shards), *project.train_records()]


def list_other_records(project: Project) -> list[Path]:
    """TFRecord files in the data directory that the loop did not write, such as those for an evaluation."""
    ours = set(list_record_files(project))
    return [path for path in list_dir(project.data_dir) if _is_other_record(path) and path not in ours]


def _is_other_record(path: Path) -> bool:
    return path.name[0] != "." and (path.suffix == ".record" or ".record-" in path.name) and path.is_file()


def read_record_file(path: Path, visit: Callable[[bytes], None]) -> RecordFile:
    """Read a file up to the first record with a damaged length.

    Args:
        visit: called with each intact example; a ValueError from it means that the record's data is damaged.

    Raises:
        OSError: the file cannot be read.
    """
    intact = readable = 0
    damaged: list[tuple[int, int]] = []
    is_cut = False
    with path.open("rb") as file:
        size = path.stat().st_size
        try:
            for offset, data, checksum in _framed(path, iter_records(file)):
                end = offset + len(data) + FOOTER_SIZE
                try:
                    if checksum != masked_crc32c(data):
                        raise ValueError("the checksum is wrong")
                    visit(data)
                    intact += 1
                except ValueError:
                    damaged.append((readable, end))
                readable = end
        except DamagedRecordError:
            file.seek(readable)
            header = file.read(HEADER_SIZE)
            is_cut = len(header) < HEADER_SIZE or (_is_intact(header) and _end(readable, header) > size)
    return RecordFile(path, intact, readable, size, is_cut, tuple(damaged))


def replace_damaged(found: RecordFile, project: Project) -> Path:
    """Rename a damaged file, write its intact records in its place, and delete the index, which is made again. Returns
    the new path of the damaged file.

    Raises:
        OSError: disk full, or no permission.
    """
    intact_path = found.path.with_name(f".intact-{found.path.name}")
    with atomic_path(intact_path) as temporary, found.path.open("rb") as file, temporary.open("xb") as intact:
        for start, end in _intact_ranges(found):
            _copy(file, start, end, intact)
    moved = set_aside(found.path)
    intact_path.rename(found.path)
    for name in ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm"):
        (project.replay_dir / name).unlink(missing_ok=True)
    return moved


def _intact_ranges(found: RecordFile) -> Iterator[tuple[int, int]]:
    start = 0
    for damaged_start, damaged_end in (*found.damaged, (found.readable_bytes, found.readable_bytes)):
        yield start, damaged_start
        start = damaged_end


def _copy(file: BinaryIO, start: int, end: int, target: BinaryIO) -> None:
    file.seek(start)
    left = end - start
    while left and (piece := file.read(min(left, 2**20))):
        left -= target.write(piece)


def _framed(path: Path, records: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, int]]:
    """Records with the checksum of their data, up to the first one with a damaged length."""
    with path.open("rb") as file:
        for offset, data in records:
            file.seek(offset - HEADER_SIZE)
            if not _is_intact(file.read(HEADER_SIZE)):
                raise DamagedRecordError(offset)
            file.seek(offset + len(data))
            yield offset, data, struct.unpack("<I", file.read(FOOTER_SIZE))[0]


def _is_intact(header: bytes) -> bool:
    return bool(struct.unpack("<8xI", header)[0] == masked_crc32c(header[:8]))


def _end(position: int, header: bytes) -> int:
    return position + HEADER_SIZE + int(struct.unpack("<Q4x", header)[0]) + FOOTER_SIZE
