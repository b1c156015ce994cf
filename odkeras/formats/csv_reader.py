"""Reads labels in CSV files, a row for each box, in the shapes that tools write.

The header names the columns, in any order. Corners or left top width height; pixels or shares of the image; commas,
semicolons or tabs; OpenImages' own columns; without a header, `path,xmin,ymin,xmax,ymax,label`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from odkeras.annotation import Span
from odkeras.errors import OdkerasError, RecordError
from odkeras.formats.label_files import (
    CROWD,
    UNIT_SIZE_HW,
    LabelFile,
    LabelledImage,
    ReadNotes,
    as_split,
    box_span,
    labelled_image,
    parse_number,
    read_label,
    read_objects,
    read_size_hw,
    read_text,
)

_PATHS = ("path", "filename", "file_name", "file", "image", "image_path", "imageid", "image_id", "image_name", "img")
_LABELS = ("label", "class", "class_name", "labelname", "label_name", "classname", "category", "name", "object")
_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
    ("bbox_xmin", "bbox_ymin", "bbox_xmax", "bbox_ymax"),
)
_SIDES = (
    ("x", "y", "width", "height"),
    ("x", "y", "w", "h"),
    ("xmin", "ymin", "width", "height"),
    ("left", "top", "width", "height"),
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
)
_SIZES = (("image_height", "image_width"), ("img_height", "img_width"), ("height", "width"))
_SPLITS = ("split", "subset", "set", "usage")
_MAX_HEADER = 2**16
_NO_HEADER = ("path", "xmin", "ymin", "xmax", "ymax", "label")


@dataclass(frozen=True)
class Columns:
    """The names of the columns that are used, in lower case.

    Args:
        path: of the image.
        label: of the class; "" if there is none.
        box: the four columns of the box.
        is_xywh: they are left, top, width and height.
        size_hw: the columns of the image's height and width; None without.
        split: "" if there is none.
        order: all columns, in the order of the file.
        is_normalised: the boxes are shares of the image whatever their values are; None: it is seen from the values.
    """

    path: str
    label: str
    box: tuple[str, str, str, str]
    is_xywh: bool
    size_hw: tuple[str, str] | None
    split: str
    order: tuple[str, ...]
    is_normalised: bool | None = None

    @classmethod
    def of(cls, header: Sequence[str]) -> Columns | None:
        """The columns of a header; None if it is not one of a file of boxes."""
        names = tuple(re.sub(r"[ \-]+", "_", cell.strip().strip("\"'").lower()) for cell in header)
        path, label = (next((name for name in known if name in names), "") for known in (_PATHS, _LABELS))
        corners, sides = (next((row for row in known if set(row) <= {*names}), None) for known in (_CORNERS, _SIDES))
        box = corners or sides
        if not path or not label or box is None:
            return None
        sizes = [row for row in _SIZES if set(row) <= {*names} and not (set(row) & set(box))]
        split = next((name for name in _SPLITS if name in names), "")
        of_open_images = {"imageid", "labelname", "xmin"} <= {*names}
        return cls(path, label, box, corners is None, sizes[0] if sizes else None, split, names, of_open_images or None)


class _Row(NamedTuple):
    line: int
    box: tuple[float, float, float, float]
    label: str
    size_hw: tuple[int, int] | None
    is_crowd: bool


def read_labels(file: LabelFile, notes: ReadNotes) -> Iterator[LabelledImage]:
    """The images of a CSV file, in order of first appearance. A row with only a path is an image without objects.

    Raises:
        RecordError: the file cannot be read, or its columns are not those of boxes.
    """
    text = read_text(file.path)
    columns, delimiter, has_header = read_header(text, file.path)
    descriptions = _read_descriptions(file.path.parent) if columns.is_normalised else {}
    images: dict[str, list[_Row]] = {}
    refused: dict[str, int] = {}
    splits: dict[str, str] = {}
    for line, cells in _rows(text, delimiter, file.path, has_header):
        row = dict(zip(columns.order, cells, strict=False))
        path = row.get(columns.path, "")
        try:
            if not path:
                raise RecordError("the path of the image is empty")
            rows = images.setdefault(path, [])
            splits[path] = as_split(row.get(columns.split)) or file.split or ""
            if row.get(columns.label) or any(row.get(name) for name in columns.box):
                rows.append(_read_row(row, columns, line, delimiter))
        except OdkerasError as error:
            notes.refuse(f"{file.path}:{line}", error)
            refused[path] = line
    normalised = columns.is_normalised or _is_normalised(images)
    for path, rows in images.items():
        if not rows and path in refused:
            continue  # none of its boxes can be used, so its objects are unknown
        where = f"{file.path}:{rows[0].line}" if rows else f"{file.path}: {path}"
        try:
            size_hw = UNIT_SIZE_HW if normalised else _common_size(rows)
            places = ((f"{file.path}:{row.line}", row) for row in rows)
            spans = read_objects(places, lambda row: _span(row, descriptions, notes), notes)
            if spans is not None:
                yield where, labelled_image(path, spans, size_hw, split=splits.get(path))
        except OdkerasError as error:
            notes.refuse(where, error)


def read_header(text: str, path: Path) -> tuple[Columns, str, bool]:
    """The columns, the delimiter, and whether the first line is a header.

    Raises:
        RecordError: it is not a file of boxes.
    """
    first = next(iter(text[:_MAX_HEADER].splitlines()), "")
    delimiter = max(",;\t|", key=first.count)
    try:
        cells = next(csv.reader([first], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error as error:
        raise RecordError(f"{path}:1: not a CSV file: {error}") from error
    columns = Columns.of(cells)
    if columns is not None:
        return columns, delimiter, True
    if len(cells) == 6 and _are_coordinates(cells[1:5]):
        known = Columns.of(_NO_HEADER)
        assert known is not None
        return known, delimiter, False
    found = ", ".join(repr(cell[:30]) for cell in cells[:12]) or "nothing"
    raise RecordError(
        f"{path}:1: the header needs a column for the image (path, filename, ...), one for the class (label, class, "
        f"...) and four for the box (xmin, ymin, xmax, ymax or x, y, width, height); it has {found}"
    )


def _are_coordinates(cells: Sequence[str]) -> bool:
    try:
        [float(cell or 0) for cell in cells]
    except ValueError:
        return False
    return True


def _rows(text: str, delimiter: str, path: Path, has_header: bool) -> Iterator[tuple[int, list[str]]]:
    """(line, cells without surrounding spaces) of each row that is not blank."""
    reader = csv.reader(text.splitlines(), delimiter=delimiter, skipinitialspace=True)
    try:
        for number, cells in enumerate(reader):
            cells = [cell.strip() for cell in cells]
            if any(cells) and (number or not has_header):
                yield reader.line_num, cells
    except csv.Error as error:
        raise RecordError(f"{path}:{reader.line_num}: not a CSV file: {error}") from error


def _read_row(row: Mapping[str, str], columns: Columns, line: int, delimiter: str) -> _Row:
    def number(name: str) -> float:
        text = row.get(name)
        return parse_number(text.replace(",", ".") if text and delimiter != "," else text, name)

    label = read_label(row.get(columns.label))
    x1, y1, x2, y2 = (number(name) for name in columns.box)
    size_hw = None
    if columns.size_hw is not None and any(row.get(name) for name in columns.size_hw):
        size_hw = read_size_hw(*(number(name) for name in columns.size_hw))
    if columns.is_xywh:
        x2, y2 = x1 + x2, y1 + y2
    return _Row(line, (x1, y1, x2, y2), label, size_hw, row.get("isgroupof") == "1")


def _is_normalised(images: Mapping[str, Sequence[_Row]]) -> bool:
    """Whether all boxes of a file are shares of the image: no box of pixels is within the first pixel."""
    boxes = [row.box for rows in images.values() for row in rows]
    return bool(boxes) and all(-0.01 <= value <= 1.01 for box in boxes for value in box)


def _common_size(rows: Sequence[_Row]) -> tuple[int, int] | None:
    sizes = {row.size_hw for row in rows}
    if len(sizes) > 1:
        raise RecordError(f"the rows of this image have different sizes: {sorted(map(str, sizes))}")
    return next(iter(sizes), None)


def _span(row: _Row, descriptions: Mapping[str, str], notes: ReadNotes) -> Span:
    other = {}
    if row.is_crowd:
        notes.left_out["crowd boxes, which are trained on as one object (kept, with iscrowd: 1)"] += 1
        other = {CROWD: 1}
    return box_span(descriptions.get(row.label, row.label), row.box, notes, other)


def _read_descriptions(folder: Path) -> dict[str, str]:
    """OpenImages' names of classes by their codes, from `class-descriptions*.csv` beside the labels."""
    names: dict[str, str] = {}
    for path in sorted(folder.glob("class-descriptions*.csv")):
        names.update((row[0], row[1]) for row in csv.reader(read_text(path).splitlines()) if len(row) >= 2)
    return names
