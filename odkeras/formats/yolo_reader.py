"""Reads YOLO's labels: a text file for each image, with rows `class x y width height` or `class x y x y x y ...`.

The names of the classes are in a `data.yaml`, or line by line in `classes.txt` or `obj.names`. The text files are
anywhere below its folder, beside the images or in `labels` where the images are in `images`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from odkeras.annotation import Span
from odkeras.errors import OdkerasError, RecordError
from odkeras.formats.label_files import (
    UNIT_SIZE_HW,
    LabelFile,
    LabelledImage,
    ReadNotes,
    as_split,
    box_span,
    labelled_image,
    parse_number,
    polygon_span,
    read_label,
    read_objects,
    read_text,
    split_of,
    text_lines,
)
from odkeras.natural_order import natural_key

NAMES_FILES = frozenset({"classes.txt", "obj.names", "labels.txt", "predefined_classes.txt"})
_MAX_DEPTH = 50
_ROW = re.compile(rb"\s*\d+(\.0+)?([ \t]+[-+.\deE]+){4,}\s*$")
_NO_LABELS = re.compile(r"(readme.*|requirements|notes|license|(train|val|valid|test)(20\d\d)?)", re.IGNORECASE)


@dataclass(frozen=True)
class YoloNames:
    """What the file with the names says.

    Args:
        names: of the classes, by number.
        keypoints: numbers after the box in each row that are keypoints; 0 without.
        folders: folders of images or labels by split.
        lists: split by the path of an image without suffix, as far as it is listed.
    """

    names: Mapping[int, str]
    keypoints: int = 0
    folders: Sequence[tuple[Path, str]] = ()
    lists: Mapping[str, str] = field(default_factory=dict)

    def split_of(self, path: Path, root: Path) -> str | None:
        """train, val or test for a file of labels."""
        image = path.with_suffix("")
        for place in (image, _as_images(image)):
            if split := self.lists.get(place.name):
                return split
            for folder, split in self.folders:
                if place.is_relative_to(folder):
                    return split
        return split_of(path.relative_to(root).parent)


def read_labels(file: LabelFile, notes: ReadNotes) -> Iterator[LabelledImage]:
    """The images that have a file of labels. An empty file is an image without objects.

    Raises:
        RecordError: the file with the names cannot be used, or there are no files of labels.
    """
    names = read_names(file.path)
    files = list(_label_paths(file.path.parent))
    if not files:
        raise RecordError(f"{file.path}: there are no .txt files with rows 'class x y width height' beside or below it")
    for path in files:
        try:
            spans = read_objects(text_lines(path), lambda row: _span(row, names, notes), notes)
            if spans is not None:
                image = _as_images(path.relative_to(file.path.parent).with_suffix(""))
                split = names.split_of(path, file.path.parent) or file.split
                yield str(path), labelled_image(image.as_posix(), spans, UNIT_SIZE_HW, split=split)
        except OdkerasError as error:
            notes.refuse(str(path), error)


def read_classes(file: LabelFile) -> list[str]:
    """The names of the classes, by number. Raises: as `read_names`."""
    names = read_names(file.path).names
    return [names[number] for number in sorted(names)]


def read_names(path: Path) -> YoloNames:
    """The names of the classes and the splits.

    Raises:
        RecordError: the file cannot be read, or has no names.
    """
    if path.suffix.lower() not in (".yaml", ".yml"):
        return YoloNames(dict(enumerate(read_label(line) for _, line in text_lines(path))))
    document = _read_yaml(path)
    names = document.get("names")
    if isinstance(names, Sequence) and not isinstance(names, str):
        names = dict(enumerate(names))
    if not isinstance(names, Mapping) or not names:
        raise RecordError(f"{path} has no 'names' of classes; got {repr(names)[:40]}")
    if not all(isinstance(number, int) for number in names):
        raise RecordError(f"{path}: the keys of 'names' must be whole numbers; got {repr(list(names))[:80]}")
    shape = document.get("kpt_shape")
    keypoints = shape[0] * shape[1] if isinstance(shape, list) and list(map(type, shape)) == [int, int] else 0
    folders: list[tuple[Path, str]] = []
    lists: dict[str, str] = {}
    for key, value in document.items():
        if split := as_split(key if isinstance(key, str) else None):
            for place in value if isinstance(value, list) else [value]:
                _add_split(_resolved(place, document.get("path"), path.parent), split, folders, lists)
    return YoloNames({number: _name(name, path) for number, name in names.items()}, keypoints, folders, lists)


def _name(value: Any, path: Path) -> str:
    """The name of a class, which may look like a number. Nested lists are not printed: with YAML's aliases, a small
    file can stand for gigabytes of text."""
    if not isinstance(value, (str, int, float)):
        raise RecordError(f"{path}: the names of classes must be text; got a {type(value).__name__}")
    try:
        return read_label(str(value))
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error


def is_row(line: bytes) -> bool:
    """Whether a line of a file looks like a row of labels."""
    return _ROW.match(line) is not None


def _read_yaml(path: Path) -> dict[Any, Any]:
    import yaml

    try:
        text = read_text(path)
        _check_depth(yaml.parse(text, Loader=yaml.SafeLoader))
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise RecordError(f"{path}{line}: not YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(document, dict):
        raise RecordError(f"{path} has no 'names' of classes")
    return document


def _check_depth(events: Iterator[Any]) -> None:
    """Raise a ValueError for nesting whose time grows with the square of its depth in PyYAML: seconds for 3 kB."""
    depth = 0
    for event in events:
        name = type(event).__name__
        depth += name.endswith("StartEvent") - name.endswith("EndEvent")
        if depth > _MAX_DEPTH:
            raise ValueError(f"lists or mappings that are nested more than {_MAX_DEPTH} times")


def _resolved(place: Any, base: Any, folder: Path) -> Path | None:
    """A folder or list of a split; Roboflow writes `../train/images` for `train/images`."""
    if not isinstance(place, str) or "\0" in place:
        return None
    inner = Path(*[part for part in Path(place).parts if part != ".."])
    bases = [folder / base] if isinstance(base, str) and "\0" not in base else []
    candidates = [*(each / place for each in (*bases, folder)), folder / inner]
    try:
        return next((each.resolve() for each in candidates if each.exists()), None)
    except OSError:
        return None


def _add_split(place: Path | None, split: str, folders: list[tuple[Path, str]], lists: dict[str, str]) -> None:
    if place is None:
        return
    if place.is_file():
        lists.update((Path(line.replace("\\", "/")).stem, split) for _, line in text_lines(place))
    else:
        folders.append((place, split))


def _label_paths(folder: Path) -> Iterator[Path]:
    """The files of labels below a folder, in natural order."""
    for path in sorted(folder.rglob("*.txt"), key=natural_key):
        if path.name.lower() in NAMES_FILES or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if "labels" in (part.lower() for part in path.relative_to(folder).parts[:-1]) or _has_rows(path):
            yield path


def _has_rows(path: Path) -> bool:
    """Whether the first line is a row; an empty file has none, and is one of labels all the same."""
    try:
        with path.open("rb") as file:
            line = file.readline(4096)
    except OSError:
        return False
    return is_row(line) or (not line.strip() and not _NO_LABELS.fullmatch(path.stem))


def _as_images(path: Path) -> Path:
    """The path with its last folder `labels` called `images`."""
    parts = list(path.parts)
    for at in reversed(range(len(parts) - 1)):
        if parts[at].lower() == "labels":
            parts[at] = "images"
            return Path(*parts)
    return path


def _span(row: str, names: YoloNames, notes: ReadNotes) -> Span:
    first, *texts = row.split()
    number = parse_number(first, "the class")
    if number not in names.names:
        raise RecordError(f"class {first[:20]} has no name; there are names for {len(names.names)} classes from 0 on")
    label = names.names[int(number)]
    values = [parse_number(text, "a coordinate") for text in texts]
    if names.keypoints and len(values) == 4 + names.keypoints:
        notes.left_out["keypoints of objects (their boxes are imported)"] += 1
        values = values[:4]
    if len(values) in (4, 5):  # the fifth is the score of a detection
        x, y, width, height = values[:4]
        if width < 0 or height < 0:
            raise RecordError(f"width and height must not be negative; got {width:g} and {height:g}")
        return box_span(label, (x - width / 2, y - height / 2, x + width / 2, y + height / 2), notes)
    if len(values) < 6 or len(values) % 2:
        raise RecordError(f"a row must be 'class x y width height' or 'class x y x y x y ...'; got {row[:60]!r}")
    return polygon_span(label, list(zip(values[::2], values[1::2], strict=True)))
