"""The append-only TFRecord files of the replay store.

Examples are appended with the framing that they have in their record. A crash may leave a partial record at the end of
the newest shard; the next append overwrites it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from odkeras.data.stored_example import StoredExample
from odkeras.errors import RecordError
from odkeras.project import list_dir, sync_to_disk
from odkeras.tfrecord import HEADER_SIZE

SHARD_BYTES = 64 * 2**20
"""A shard that has reached this size gets no further examples."""

_NAME = re.compile(r"\d{8}\.record", re.ASCII)


def list_shards(directory: Path) -> list[Path]:
    """The shards, oldest first."""
    return sorted(path for path in list_dir(directory) if _NAME.fullmatch(path.name))


def is_mostly_dead(live_bytes: int, size: int) -> bool:
    """Whether more than half of a file belongs to examples that were replaced or withdrawn."""
    return 2 * live_bytes < size


def next_shard(directory: Path) -> Path:
    """The path of a new shard after all others."""
    shards = list_shards(directory)
    return directory / f"{int(shards[-1].stem) + 1 if shards else 1:08}.record"


def append_examples(shard: Path, position: int, examples: Iterable[StoredExample]) -> tuple[list[StoredExample], int]:
    """Append examples durably.

    Args:
        shard: the file; created if it is missing.
        position: end of its complete records; what follows is overwritten.

    Returns:
        The examples as they are in the shard, and its new size in bytes.

    Raises:
        RecordError: disk full, no permission, or an example cannot be read; the shard has its old content.
    """
    appended, end = [], position
    try:
        shard.parent.mkdir(exist_ok=True)
        with shard.open("ab") as file:
            try:
                file.truncate(position)
                for example in examples:
                    file.write(example.read_framed())
                    appended.append(replace(example, path=shard, offset=end + HEADER_SIZE))
                    end += example.size
                file.flush()
                sync_to_disk(shard)
            except BaseException:
                with suppress(OSError):
                    file.truncate(position)
                raise
        sync_to_disk(shard.parent)
    except OSError as error:
        raise RecordError(f"cannot write {shard}: {error.strerror}") from error
    return appended, end
