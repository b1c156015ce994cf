"""A job: its images, divided into shards, and the files that it writes.

    with open_store("scores").in_use():
        job = prepare_job(store, identity, entries, shard_images=1000, suffix="jsonl")
        for shard in job.unfinished(): ...

`job.json` has what the job is and where its shards are in `inputs.jsonl`, which has one line for each image. Both are
written once; a run that continues reads them, whatever has become of the folder of the images. Shard 3 of 10 is written
to `shard-00003-of-00010.jsonl`, and what could not be used to `refused-00003-of-00010.jsonl` before it: a shard is
finished when its file exists.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from odkeras.bulk.store import Store, open_store
from odkeras.errors import ConfigError, RecordError

MANIFEST = "job.json"
INPUTS = "inputs.jsonl"
UNLISTED = "refused-inputs.jsonl"
"""What of the sources is no image, such as a line that is no JSON."""
Entry = dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """A part of the images.

    Args:
        number: from 0.
        total: number of shards.
        start, end: where its lines are in `INPUTS`, in bytes.
        images: number of its lines.
        suffix: of its file.
    """

    number: int
    total: int
    start: int
    end: int
    images: int
    suffix: str

    @property
    def name(self) -> str:
        """Name of the file with its results."""
        return f"shard-{self.number:05d}-of-{self.total:05d}.{self.suffix}"

    @property
    def refused_name(self) -> str:
        """Name of the file with what could not be used; there is none if everything could be used."""
        return f"refused-{self.number:05d}-of-{self.total:05d}.jsonl"


@dataclass(frozen=True)
class Job:
    """A job whose images are listed.

    Args:
        place: its folder.
        shards: all of its shards.
    """

    place: str
    shards: tuple[Shard, ...]

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(shard.images for shard in self.shards)

    def unfinished(self, *, retry_refused: bool = False) -> list[Shard]:
        """The shards to be done.

        Args:
            retry_refused: also those with refused images.

        Raises:
            RecordError: the folder cannot be listed.
        """
        names = open_store(self.place).names()
        return [
            shard for shard in self.shards if shard.name not in names or (retry_refused and shard.refused_name in names)
        ]

    def refused(self) -> Iterator[Entry]:
        """What could not be used: dicts with `image` and `reason`, those of the list of images first."""
        store = open_store(self.place)
        names = store.names()
        for name in (UNLISTED, *(shard.refused_name for shard in self.shards)):
            if name in names:
                yield from map(json.loads, store.read(name).splitlines())


def read_entries(store: Store, shard: Shard) -> list[Entry]:
    """The images of a shard.

    Raises:
        RecordError: the list of the images cannot be read, or is damaged.
    """
    lines = store.read(INPUTS, shard.start, shard.end).splitlines()
    try:
        entries = [json.loads(line) for line in lines]
    except ValueError:
        entries = []
    if len(entries) != shard.images:
        raise RecordError(f"{store.place}/{INPUTS} is damaged; name a new --out folder, and run the command again")
    return entries


def find_job(store: Store, identity: Mapping[str, Any]) -> Job | None:
    """The job that the folder has; None if it has none.

    Args:
        identity: the command, its sources and the options that its results depend on.

    Raises:
        ConfigError: it has another job; the message names the difference.
        RecordError: it has other files, or its job cannot be read.
    """
    names = store.names()
    if MANIFEST not in names:
        others = sorted(name for name in names if not name.startswith(".") and name not in (INPUTS, UNLISTED))
        if others:
            raise ConfigError(f"--out {store.place} has other files ({others[0]}); name a new or an empty folder")
        return None
    try:
        manifest = json.loads(store.read(MANIFEST))
        rows, suffix, found = manifest["shards"], manifest["suffix"], manifest["job"]
        shards = _shards(rows, suffix)
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{store.place}/{MANIFEST} is damaged; name a new --out folder") from error
    for key in (*identity, *found):
        if found.get(key) != identity.get(key):
            raise ConfigError(
                f"--out {store.place} has a job with another {key}: {_short(found.get(key))} there, "
                f"{_short(identity.get(key))} now; repeat its command to continue it, or name a new folder"
            )
    return Job(store.place, shards)


def prepare_job(
    store: Store, identity: Mapping[str, Any], entries: Iterable[Entry], *, shard_images: int, suffix: str
) -> Job:
    """List the images of a new job.

    Args:
        identity: see `find_job`.
        entries: for each image a dict that can be written as JSON; those with a `reason` cannot be used.
        shard_images: images of a shard; the last one may have fewer.
        suffix: of the files of the shards.

    Raises:
        ConfigError: there are no images.
        RecordError: the folder cannot be written.
    """
    rows: list[tuple[int, int, int]] = []
    refused: list[Entry] = []
    start = end = images = 0
    with store.write(INPUTS) as path, path.open("wb") as file:
        for entry in entries:
            if "reason" in entry:
                refused.append(entry)
                continue
            end += file.write(line_of(entry))
            images += 1
            if images == shard_images:
                rows.append((start, end, images))
                start, images = end, 0
        if images:
            rows.append((start, end, images))
        if not rows:
            why = f"; {refused[0]['image']}: {refused[0]['reason']}" if refused else ""
            raise ConfigError(f"there are no images in what was given{why}")
    store.delete(UNLISTED)  # of a listing that did not end
    if refused:
        with store.write(UNLISTED) as path:
            path.write_bytes(b"".join(map(line_of, refused)))
    manifest = {"job": dict(identity), "suffix": suffix, "images": sum(row[2] for row in rows), "shards": rows}
    with store.write(MANIFEST) as path:
        path.write_bytes(line_of(manifest))
    return Job(store.place, _shards(rows, suffix))


def _shards(rows: Sequence[Sequence[int]], suffix: str) -> tuple[Shard, ...]:
    return tuple(
        Shard(number, len(rows), int(start), int(end), int(images), suffix)
        for number, (start, end, images) in enumerate(rows)
    )


def line_of(entry: Mapping[str, Any]) -> bytes:
    """A line of JSON."""
    return json.dumps(entry).encode() + b"\n"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
