"""What the readers of label files share.

A reader yields (place, `Answer`) for each image of a file. The answer's task has `path` as the file writes it, the size
that the spans refer to, and the spans. The image is not looked for here. What cannot be used is reported in `ReadNotes`
with its place, and costs itself alone; a file that cannot be read at all raises RecordError.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, TypeVar

from odkeras.annotation import Answer, Decision, Span, Task
from odkeras.errors import OdkerasError, RecordError, error_reason
from odkeras.images import EncodedImage
from odkeras.numeric import is_number
from odkeras.text import is_utf8

T = TypeVar("T")
LabelledImage = tuple[str, Answer]
"""The place of an image in its label file, for messages, and its labels."""

UNIT_SIZE_HW = (1, 1)
"""`Task.image_size_hw` of a task whose spans are shares of the image, because the file does not have its size."""

SPLIT = "split"
"""Key of `Task.other`: train, val or test, if the files say so."""
CROWD = "iscrowd"
"""Key of `Span.other`: 1 for a box that holds many objects, as in COCO."""

_MAX_KEPT = 1000
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SPLIT_FOLDER = re.compile(rf"({'|'.join(_SPLITS)})(?:20\d\d)?", re.IGNORECASE)
_SPLIT_IN_NAME = re.compile(rf"(?:^|[_\-. ])({'|'.join(_SPLITS)})(?:20\d\d)?(?=$|[_\-. ])", re.IGNORECASE)


@dataclass(frozen=True)
class LabelFile:
    """A file of labels; for YOLO, the file with the names of the classes.

    Args:
        path: the file.
        format: name of its format.
        folder: the folder in which its images are looked for.
        split: train, val or test, if its path says so.
    """

    path: Path
    format: str
    folder: Path
    split: str | None = None


@dataclass
class ReadNotes:
    """What a reader could not use or had to repair.

    Args:
        refused: (place, reason) of images and objects that cannot be used; the first thousand.
        num_refused: number of all of these.
        repaired: number of objects by what was repaired.
        left_out: number of things by kind that an answer cannot hold.
        unlabelled: number of images that the files list as not labelled yet.
    """

    refused: list[tuple[str, str]] = field(default_factory=list)
    num_refused: int = 0
    repaired: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    unlabelled: int = 0

    def refuse(self, place: str, reason: str | Exception) -> None:
        self.num_refused += 1
        if len(self.refused) < _MAX_KEPT:
            self.refused.append((place, reason if isinstance(reason, str) else error_reason(reason)))


def labelled_image(
    path: str,
    spans: Iterable[Span],
    size_hw: tuple[int, int] | None,
    *,
    split: str | None = None,
    image: EncodedImage | str = "",
) -> Answer:
    """The labels of an image as an accepted answer.

    Args:
        path: path of the image as the label file writes it.
        size_hw: height and width that the spans refer to; None if the file does not say.

    Raises:
        RecordError: the path is empty, or no valid text.
    """
    if not path.strip() or not is_utf8(path) or "\0" in path:
        raise RecordError(f"the name of the image is not usable: {path[:80]!r}")
    posix = path.replace("\\", "/")
    name = (PurePath(posix).name or path) if "/" in posix else path
    other = {SPLIT: split} if split else {}
    return Answer(Task("", name, image, size_hw, path, tuple(spans), other=other), Decision.ACCEPT)


def read_objects(
    rows: Iterable[tuple[str, T]], read: Callable[[T], Span | None], notes: ReadNotes
) -> tuple[Span, ...] | None:
    """The spans of an image; None if it has objects and none of them can be used, so that its objects are unknown.

    Args:
        rows: (place, object) of each object.
        read: returns the span; None for an object of a kind that an answer cannot hold, which it has counted.
    """
    spans: list[Span] = []
    empty = True
    for place, row in rows:
        empty = False
        try:
            span = read(row)
        except (OdkerasError, ValueError, TypeError, KeyError, OverflowError) as error:
            expected = isinstance(error, (OdkerasError, ValueError))
            notes.refuse(place, str(error) if expected else f"not a usable object: {error}")
            continue
        if span is not None:
            spans.append(span)
    return tuple(spans) if spans or empty else None


def box_span(label: str, xyxy: Sequence[Any], notes: ReadNotes, other: Mapping[str, Any] | None = None) -> Span:
    """A box from its corners [xmin, ymin, xmax, ymax]; reversed corners are repaired.

    Raises:
        RecordError: a coordinate is not a finite number.
    """
    if not all(map(is_number, xyxy)):
        raise RecordError(f"the corners of a box must be finite numbers; got {repr(list(xyxy))[:80]}")
    left, top, right, bottom = map(float, xyxy)
    if left > right or top > bottom:
        notes.repaired["corners in reversed order"] += 1
        left, right, top, bottom = min(left, right), max(left, right), min(top, bottom), max(top, bottom)
    return Span(label, ((left, top), (right, bottom)), other=other or {})


def polygon_span(label: str, points_xy: Sequence[Sequence[Any]], other: Mapping[str, Any] | None = None) -> Span:
    """A polygon from its points [x, y].

    Raises:
        RecordError: fewer than three points, or a coordinate is not a finite number.
    """
    if len(points_xy) < 3:
        raise RecordError(f"a polygon needs at least 3 points; got {len(points_xy)}")
    if not all(len(point) == 2 and is_number(point[0]) and is_number(point[1]) for point in points_xy):
        raise RecordError(f"the points of a polygon must be pairs of finite numbers; got {repr(points_xy)[:80]}")
    return Span(label, tuple((float(x), float(y)) for x, y in points_xy), other=other or {})


def read_label(value: Any) -> str:
    """The name of a class, unchanged.

    Raises:
        RecordError: not text, or empty.
    """
    if not isinstance(value, str) or not value.strip() or not is_utf8(value):
        raise RecordError(f"the label must be text; got {repr(value)[:40]}")
    return value


def read_size_hw(height: Any, width: Any) -> tuple[int, int] | None:
    """Height and width in pixels; None if they are not stated (missing, 0).

    Raises:
        RecordError: not a number of pixels.
    """
    if not height and not width:
        return None
    if not is_number(height) or not is_number(width) or height < 1 or width < 1:
        raise RecordError(f"height and width must be at least 1 pixel; got {repr(height)[:20]} and {repr(width)[:20]}")
    return int(height), int(width)


def parse_number(text: str | None, name: str) -> float:
    """A number from text.

    Raises:
        RecordError: missing, not a number, or not finite.
    """
    try:
        value = float((text or "").strip())
    except ValueError:
        value = float("nan")
    if not is_number(value):
        raise RecordError(f"{name} must be a finite number; got {repr(text)[:40]}")
    return value


def split_of(path: PurePath) -> str | None:
    """train, val or test, from the name of a file or of one of its folders: `valid/a.xml`, `instances_val2017.json`."""
    if found := _SPLIT_IN_NAME.search(PurePath(path.name).stem):
        return _SPLITS[found[1].lower()]
    folders = (_SPLIT_FOLDER.fullmatch(part) for part in reversed(path.parts[:-1]))
    return next((_SPLITS[found[1].lower()] for found in folders if found), None)


def as_split(name: str | None) -> str | None:
    """train, val or test, from what a file calls it; None for anything else."""
    return _SPLITS.get((name or "").strip().lower())


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        RecordError: the file cannot be read, or has another encoding.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    return decode_text(data, path)


def decode_text(data: bytes, path: Path) -> str:
    """See `read_text`."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RecordError(f"{path}:{line}: not text in UTF-8; save the file in that encoding") from error
    if "\0" in text:
        raise RecordError(f"{path}:{text[: text.index(chr(0))].count(chr(10)) + 1}: not a text file")
    return text


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """(`file:line`, line) of each line that is not blank. Raises: as `read_text`."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            yield f"{path}:{number}", line.strip()
