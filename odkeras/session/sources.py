"""Sources of images: directories, JSONL files, standard input, object storage, and iterables of paths or tasks. All are
read lazily.

    items, total = open_source("images/", on_skip=print)         # or tasks.jsonl, "-", an iterable
    for item in items:
        task = load_task(item, fetch=WebImages().fetch)          # reads and validates the image

A record of a JSONL file has its image in `image` (data URI, http(s) URL or path) or `path`. Its other keys are carried
along in `Task.other`.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from odkeras.annotation import Span, Task
from odkeras.errors import ConfigError, ImageError
from odkeras.formats.prodigy import HASHES, Record, read_task
from odkeras.image_files import list_image_files
from odkeras.image_ref import Fetch, ImageRef, is_data_uri, is_storage_url, is_url
from odkeras.images import DEFAULT_MAX_PIXELS, SUFFIXES, EncodedImage, absolute_path, is_image_file, read_image
from odkeras.inbox import STORED_IMAGE
from odkeras.session.object_storage import ObjectStorage

Source = Path | str | Iterable[Path | Record]
OnSkip = Callable[[str, str], None]

STDIN = "-"
_COUNTED_BYTES = 256 * 2**20
_JSONL = frozenset({".jsonl", ".ndjson"})
_KINDS = "JPEG, PNG, WebP, BMP, GIF, TIFF"
FILE_FACTS = "odkeras_file"
"""Key of what `odkeras bulk hash` writes about the file of an image."""
_NOT_CARRIED = ("_is_binary", *HASHES, STORED_IMAGE, FILE_FACTS)
"""Keys of an earlier answer, which its image's next task does not have."""


@dataclass(frozen=True)
class Item:
    """An image that has not been read yet.

    Args:
        name: its name in messages.
        path: the image file; None for a record.
        record: the JSON object that describes the image; None for a file.
        base_dir: where the record's relative paths are looked up before the working directory; None = only there.
        number: its position in the source, unique among the source's items.
    """

    name: str
    path: Path | None = None
    record: Mapping[str, Any] | None = None
    base_dir: Path | None = None
    number: int = field(default=0, compare=False)

    @property
    def file(self) -> str:
        """The file name that its task will have in `meta`. Does not read the image."""
        if self.path is not None:
            return self.path.name
        record = self.record or {}
        meta = record.get("meta")
        file = meta.get("file") if isinstance(meta, Mapping) else None
        return file if isinstance(file, str) and file else _base_name(_record_name(record))

    @property
    def file_path(self) -> Path | None:
        """Path of the image; None if the image is in the record, or at a URL."""
        place = self.path or self.reference.locate()
        return place if isinstance(place, Path) else None

    @property
    def url(self) -> str | None:
        """The image's http(s) URL; None for any other image."""
        place = self.reference.locate()
        return place if isinstance(place, str) and is_url(place) else None

    @property
    def reference(self) -> ImageRef:
        """The reference to its image: path, URL or data URI."""
        if self.path is not None:
            return ImageRef((str(self.path),), name=self.name)
        return ImageRef.of_record(self.record or {}, self.base_dir, self.name)

    @property
    def fingerprint(self) -> str | None:
        """Identifies the image across runs without reading it; None if that is impossible.

        It is the path, size and modification time of a file, or the hash of a URL or data URI.
        """
        path = self.path
        if path is None:
            value = self.reference.locate()
            if isinstance(value, str):  # assumes that a URL keeps its image, because fetching all again takes too long
                return hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()[:32]
            path = value
        try:
            stat = path.stat() if path else None
        except (OSError, ValueError):
            return None
        return f"{absolute_path(path)}|{stat.st_size}|{stat.st_mtime_ns}" if path and stat else None


def resolve_source(source: Source) -> Source:
    """Validate a source, and expand a directory to the list of its images.

    Raises:
        ConfigError: the path does not exist, a directory without images, or an unsupported type of file.
    """
    if not isinstance(source, (str, Path)) or str(source) == STDIN:
        return source
    if isinstance(source, str) and is_storage_url(source):
        _check_storage(source)
        return source
    path = Path(source)
    try:
        return path if path.is_file() and path.suffix.lower() in _JSONL else _image_files(path)
    except OSError as error:  # no permission, or a very long name
        raise ConfigError(f"source {path}: cannot be read: {error.strerror}") from error


def open_source(source: Source, *, on_skip: OnSkip, stdin: IO[str] | None = None) -> tuple[Iterator[Item], int | None]:
    """Open a source.

    Args:
        source: directory, image file, JSONL file, "-" for JSONL on standard input, a URL of object storage, or an
            iterable of paths and records.
        on_skip: callback with place and reason of every line that is not a record.
        stdin: the stream to read for "-"; None = standard input.

    Returns:
        An iterator over the items, and their number; None if it is unknown.

    Raises:
        ConfigError: the path does not exist, a directory without images, or an unsupported type of file. Raised by this
            call, not by the first `next`.
    """
    source = resolve_source(source)
    if not isinstance(source, (str, Path)):
        number = len(source) if isinstance(source, Sized) else None
        numbered = enumerate(source)
        return (item for place, record in numbered if (item := _item(record, place, on_skip)) is not None), number
    if isinstance(source, str) and is_storage_url(source):
        return _images_in_storage(source, on_skip), None
    if str(source) == STDIN:
        return _records(stdin or _standard_input(), "stdin", None, on_skip), None
    return _read_lines(Path(source), on_skip), _number_of_lines(Path(source))


def load_task(item: Item, *, fetch: Fetch | None = None, max_pixels: int = DEFAULT_MAX_PIXELS) -> Task:
    """Read an item's image and create its task.

    A record's other keys are carried along. Its spans are shown while no model is being served, if the record has the
    image's size. If the record's `image_id` or `path` is not that of the image, it is kept as `source_image_id` or
    `source_path`.

    Args:
        item: the item to read.
        fetch: returns the bytes at an http(s) URL; None refuses URLs.
        max_pixels: maximum number of pixels of the image.

    Raises:
        ImageError: the image cannot be read, or the record cannot be written as JSON; the message has the reason.
    """
    if item.record is None:
        assert item.path is not None
        image = read_image(item.path, max_pixels=max_pixels)
        return Task.of(image, file=item.path.name, path=str(absolute_path(item.path)))
    return _task_of_record(item.record, *_read_record(item, fetch, max_pixels))


def read_item_bytes(item: Item, *, fetch: Fetch | None = None) -> bytes:
    """The bytes of an item's image file, without decoding or validation.

    Args:
        item: the item to read.
        fetch: returns the bytes at an http(s) URL; None refuses URLs.

    Raises:
        ImageError: there is no image, or it cannot be read.
    """
    return item.reference.read_bytes(fetch)


def _check_storage(url: str) -> None:
    """Raises: ConfigError: the storage cannot be read, or has no images there."""
    try:
        first = next(ObjectStorage().list_images(url), None)
    except ImageError as error:
        raise ConfigError(f"source {error}") from error
    if first is None:
        raise ConfigError(f"source {url}: no images there ({_KINDS})")


def _images_in_storage(url: str, on_skip: OnSkip) -> Iterator[Item]:
    """The images below a prefix; its folders are listed as they are reached."""
    try:
        for number, image in enumerate(ObjectStorage().list_images(url)):
            yield Item(image, record={"image": image}, number=number)
    except ImageError as error:
        on_skip(url, f"the images after this cannot be listed: {error.reason}")


def _item(record: Any, number: int, on_skip: OnSkip) -> Item | None:
    if isinstance(record, Mapping):
        return Item(_record_name(record), record=record, number=number)
    if isinstance(record, (str, Path)):
        return Item(str(record), Path(record), number=number)
    on_skip(repr(record)[:80], f"must be a path or a task; got {type(record).__name__}")
    return None


def _image_files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"source {path}: neither an image ({_KINDS}) nor a .jsonl file with an object per line")
        return [path]
    if not path.is_dir() and set(str(path)) & set("*?["):
        raise ConfigError(
            f"source {path}: no file has this name. Give the folder instead of a pattern; all its images are used"
        )
    if not path.is_dir():
        raise ConfigError(f"source {path}: no such file or directory; give a directory of images, a .jsonl file, or -")
    files = list_image_files(path)
    if not files:
        raise ConfigError(f"source {path}: no images in this directory ({_KINDS})")
    return _without_links_to_the_same(files)


def _without_links_to_the_same(files: Sequence[Path]) -> list[Path]:
    """One path for each file: reading 100,000 links to one picture took two minutes, for one answer."""
    distinct: dict[object, Path] = {}
    for path in files:
        try:
            info = path.stat()
            identity: object = (info.st_dev, info.st_ino) if info.st_ino else path
        except OSError:  # a dangling link is reported when the stream reaches it
            identity = path
        distinct.setdefault(identity, path)
    return list(distinct.values())


def _standard_input() -> IO[str]:
    """Standard input as UTF-8, whatever the locale. Invalid bytes are replaced, so that they affect one line only."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")
    return sys.stdin


def _read_lines(path: Path, on_skip: OnSkip) -> Iterator[Item]:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"source {path}: cannot be read: {error.strerror}") from error
    return _records(_text_lines(path, on_skip), str(path), path.parent, on_skip)


def _number_of_lines(path: Path) -> int | None:
    """Number of non-blank lines; None for a file so large that counting takes long (it contains images)."""
    if path.stat().st_size > _COUNTED_BYTES:
        return None
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def _text_lines(path: Path, on_skip: OnSkip) -> Iterator[str]:
    number = 0
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, start=1):  # noqa: B007 (used in the message)
                yield line
    except OSError as error:
        on_skip(f"{path}:{number + 1}", f"this line and those after it cannot be read: {error.strerror}")


def _records(lines: Iterable[str], source: str, base_dir: Path | None, on_skip: OnSkip) -> Iterator[Item]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            on_skip(f"{source}:{number}", f"not JSON: {error}")
            continue
        if isinstance(record, dict):
            yield Item(f"{source}:{number}", record=record, base_dir=base_dir, number=number)
        else:
            on_skip(f"{source}:{number}", f"a line must be a JSON object; got {type(record).__name__}")


def _record_name(record: Mapping[str, Any]) -> str:
    meta = record.get("meta")
    for value in (meta.get("file") if isinstance(meta, Mapping) else None, record.get("path"), record.get("image")):
        if isinstance(value, str) and value and not value.startswith("data:"):
            return value
    return "a task of the source"


def _read_record(item: Item, fetch: Fetch | None, max_pixels: int) -> tuple[EncodedImage, str | None]:
    """The image, and its path or URL; None for an image in the record whose `path` has no copy of it."""
    reference = item.reference
    place = reference.locate()
    image = reference.read(fetch=fetch, max_pixels=max_pixels)
    if isinstance(place, Path):
        return image, str(absolute_path(place))
    return image, _path_of_copy(item, image) if place is None or is_data_uri(place) else place


def _path_of_copy(item: Item, image: EncodedImage) -> str | None:
    """The record's `path` if that file is this very image, else None: the image may be a crop or a smaller copy."""
    path = (item.record or {}).get("path")
    if not isinstance(path, str) or not path or is_url(path) or is_data_uri(path):
        return None
    file = item.reference.file(path)
    return str(absolute_path(file)) if is_image_file(file, image.image_id) else None


def _task_of_record(record: Mapping[str, Any], image: EncodedImage, path: str | None) -> Task:
    read = read_task(dict(record))
    meta = record.get("meta")
    file = meta.get("file") if isinstance(meta, Mapping) else None
    if not isinstance(file, str) or not file:
        place = path or record.get("path")
        file = _base_name(place) if isinstance(place, str) and place else "image"
    task = Task.of(image, file=file, path=path)
    other = {key: value for key, value in read.other.items() if key not in _NOT_CARRIED}
    for key, own in (("image_id", task.image_id), ("path", task.path)):
        if key in record and record[key] != own:
            other[f"source_{key}"] = record[key]
    spans = _drawable(read.spans) if _is_of_size(record, image.image_size_hw) else ()
    task = replace(task, spans=spans, meta=read.meta, other=other)
    _check_json(task)
    return task


def _check_json(task: Task) -> None:
    carried = [task.meta, task.other, *(span.other for span in task.spans)]
    try:
        json.dumps(carried, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ImageError(f"the record is not plain JSON: {error}", task.file) from error


def _drawable(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    """The spans that the page can draw."""
    return tuple(span for span in spans if len(span.points_xy_px) > 1)


def _is_of_size(record: Mapping[str, Any], image_size_hw: tuple[int, int]) -> bool:
    """Whether the record has the size of the decoded (upright, full-size) image, whose pixels the spans refer to.

    A record without a size passes.
    """
    height, width = record.get("height"), record.get("width")
    return (height is None or height == image_size_hw[0]) and (width is None or width == image_size_hw[1])


def _base_name(path: str) -> str:
    return path.partition("?")[0].rstrip("/").rpartition("/")[2] or path
