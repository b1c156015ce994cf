"""The images of a job: of folders, files, lists and object storage, or those that label files name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from odkeras.annotation import Decision, Span
from odkeras.bulk.job import Entry
from odkeras.errors import LabelMapError
from odkeras.formats.image_finder import ImageFinder
from odkeras.formats.label_files import SPLIT, LabelFile, ReadNotes
from odkeras.formats.label_formats import read_label_files
from odkeras.image_ref import ImageRef, is_data_uri, is_storage_url, is_url
from odkeras.images import absolute_path
from odkeras.session.sources import open_source

_PER_LINE = "jsonl"
"""The format whose files may have several answers about an image: of these, the last one counts."""


class Labelled(msgspec.Struct, frozen=True):
    """The labels of an image, as they were read: see `formats.label_files`.

    Args:
        place: their place, for messages.
        size_hw: the size that the spans refer to.
    """

    place: str
    size_hw: tuple[int, int] | None
    spans: tuple[Span, ...]
    split: str

    def to_json(self) -> Any:
        """As plain values, for an `Entry`."""
        return msgspec.to_builtins(self)

    @classmethod
    def from_json(cls, value: Any) -> Labelled:
        """Of `to_json`."""
        return msgspec.convert(value, cls, strict=False)


def list_images(sources: Sequence[str]) -> Iterator[Entry]:
    """The images of sources as `odkeras annotate` takes them: folders, image files, JSONL files and prefixes of object
    storage; or URLs of single images.

    Raises:
        ConfigError: a source does not exist, or has no images.
    """
    for source in sources:
        if is_url(source) and not is_storage_url(source):
            yield {"image": source}
            continue
        unlisted: list[Entry] = []
        items, _ = open_source(source, on_skip=partial(_note, unlisted))
        for item in items:
            yield from _taken(unlisted)
            place = item.reference.locate()
            if place is None:
                yield {"image": item.name, "reason": "the record has neither 'image' nor 'path'"}
            else:
                yield {"image": place if isinstance(place, str) else str(absolute_path(place))}
        yield from _taken(unlisted)


def list_labelled(
    files: Sequence[LabelFile], images_dir: Path | None = None, *, check_label: Callable[[str], object] | None = None
) -> Iterator[Entry]:
    """The images that label files name, with their labels in `labels`; of several labels of an image, the last ones.

    Args:
        images_dir: the folder of the images; None: beside and below the labels.
        check_label: raises LabelMapError for a label that cannot be used.

    Raises:
        RecordError: a file cannot be read at all.
        LabelMapError: see `check_label`.
    """
    last = _last_answers(files)
    notes, finder = ReadNotes(), ImageFinder(images_dir)
    for number, (file, place, answer) in enumerate(read_label_files(files, notes)):
        task = answer.task
        if answer.decision is not Decision.ACCEPT or (last and last.get(_digest(_name(answer))) != number):
            continue
        if check_label is not None:
            _check_labels(place, task.spans, check_label)
        found = _find(finder, file, _name(answer))
        if len(found) != 1:
            yield {"image": _name(answer)[:200] or place, "reason": _not_one(found, str(finder.root_of(file)))}
            continue
        labels = Labelled(place, task.image_size_hw, task.spans, str(task.other.get(SPLIT, "")))
        yield {"image": found[0], "labels": labels.to_json()}
    for place, reason in notes.refused:
        yield {"image": place, "reason": reason}


def distinct(entries: Iterable[Entry]) -> Iterator[Entry]:
    """One entry for each image, without labels."""
    seen: set[bytes] = set()
    for entry in entries:
        if (digest := _digest(entry["image"])) not in seen:
            seen.add(digest)
            yield {key: value for key, value in entry.items() if key != "labels"}


def read_bytes(entry: Entry, fetch: Callable[[str], bytes]) -> bytes:
    """The bytes of an image.

    Raises:
        ImageError: it cannot be read.
    """
    return ImageRef((entry["image"],), name=name_of(entry)).read_bytes(fetch)


def name_of(entry: Entry) -> str:
    """The path or URL of an image, for messages."""
    image: str = entry["image"]
    return "an image in the list" if is_data_uri(image) else image


def _last_answers(files: Sequence[LabelFile]) -> dict[bytes, int]:
    """For each image of JSON lines, the number of its last answer; {} for other formats, which have one for each."""
    if not files or files[0].format != _PER_LINE:
        return {}
    rows = enumerate(read_label_files(files, ReadNotes()))
    return {_digest(_name(answer)): number for number, (_, _, answer) in rows}


def _name(answer: Any) -> str:
    task = answer.task
    return task.path or (task.image if isinstance(task.image, str) else "") or task.file


def _check_labels(place: str, spans: Sequence[Span], check_label: Callable[[str], object]) -> None:
    for span in spans:
        try:
            check_label(span.label)
        except LabelMapError as error:
            raise LabelMapError(f"{place}: {error}") from error


def _find(finder: ImageFinder, file: LabelFile, name: str) -> list[str]:
    if is_url(name) or is_data_uri(name):
        return [name]
    found = finder.find(name, file)
    if not found and file.format == _PER_LINE and Path(name).is_file():
        found = [Path(name)]  # odkeras wrote it with its absolute path
    return [str(absolute_path(path)) for path in found]


def _not_one(found: Sequence[str], root: str) -> str:
    return f"several images have this name: {found[0]}, {found[1]}" if found else f"no such image below {root}"


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _note(to: list[Entry], place: str, reason: str) -> None:
    to.append({"image": place, "reason": reason})


def _taken(entries: list[Entry]) -> list[Entry]:
    taken = entries[:]
    entries.clear()
    return taken
