"""COCO's JSON document (cocodataset.org, "Data format"): its three lists, and the values of their rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from odkeras.config.settings import DEFAULT_MAX_PIXELS
from odkeras.errors import RecordError
from odkeras.numeric import is_number, is_whole
from odkeras.polygons import BoolArray

LISTS = ("images", "categories", "annotations")
Row = msgspec.Raw | Mapping[str, Any]
"""A row as a part of the text, which costs little memory, or decoded."""


class _Document(msgspec.Struct):
    images: list[msgspec.Raw]
    categories: list[msgspec.Raw]
    annotations: list[msgspec.Raw]


def read_lists(path: Path) -> dict[str, list[Any]]:
    """The rows of each list, by its name: `msgspec.Raw` or, of a file with NaN or infinity, decoded.

    Raises:
        RecordError: the file cannot be read, is not JSON, or lacks one of the lists.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    try:
        document = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"), type=_Document)
        return {name: getattr(document, name) for name in LISTS}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _read_slowly(data, path)  # Python's reader also takes NaN, and says the line of an error


def decode_row(row: Row) -> Mapping[str, Any]:
    """A row of a list.

    Raises:
        ValueError: it is not an object, or has a number that no float can hold.
    """
    try:
        value = msgspec.json.decode(row) if isinstance(row, msgspec.Raw) else row
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, Mapping):
        raise ValueError(f"not an object: {repr(value)[:40]}")
    return value


def size_hw(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of an image; None if the row has none."""
    height, width = row.get("height"), row.get("width")
    return (height, width) if is_whole(height, 1) and is_whole(width, 1) else None


def check_bbox(bbox: Any) -> Sequence[float]:
    """[x, y, width, height] in pixels.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(is_number, bbox)):
        raise ValueError(f"bbox: {repr(bbox)[:80]} is not [x, y, width, height] in pixels")
    return bbox


def check_polygons(shape: Any) -> None:
    """Raises: ValueError: not a list of polygons [x, y, x, y, ...]."""
    for polygon in shape:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("segmentation: a polygon needs an even number of at least 6 numbers")
        if not all(is_number(value) for value in polygon):
            raise ValueError("segmentation: a polygon has a value that is not a finite number")


def draw_segmentation(shape: Any, size_hw: tuple[int, int]) -> BoolArray:
    """The mask, bool (H, W), of polygons or of run lengths.

    Raises:
        ValueError: it cannot be read, or has another size.
    """
    from pycocotools import mask as coco_masks

    height, width = size_hw
    if isinstance(shape, dict) and list(shape.get("size") or ()) != [height, width]:
        raise ValueError(f"segmentation: its size is {shape.get('size')}, and the image's is {[height, width]}")
    if height * width > DEFAULT_MAX_PIXELS:
        raise ValueError(f"segmentation: {width} x {height} pixels are more than {DEFAULT_MAX_PIXELS:,}")
    if not isinstance(shape, dict):
        check_polygons(shape)
    is_text = isinstance(shape, dict) and not isinstance(shape.get("counts"), list)
    try:
        runs = shape if is_text else coco_masks.frPyObjects(shape, height, width)
        mask: BoolArray = coco_masks.decode(coco_masks.merge(runs) if isinstance(runs, list) else runs).astype(bool)
    except Exception as error:  # pycocotools has no class of its own for a shape that it cannot read
        raise ValueError(f"segmentation: {error}") from error
    return mask


def _read_slowly(data: bytes, path: Path) -> dict[str, list[Any]]:
    try:
        document: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise RecordError(f"{path}{line} is not JSON: {error}") from error
    lists = {name: document.get(name) if isinstance(document, dict) else None for name in LISTS}
    if not all(isinstance(rows, list) for rows in lists.values()):
        raise RecordError(f"{path} is not COCO's JSON: it needs the lists of objects {', '.join(LISTS)}")
    return {name: rows for name, rows in lists.items() if rows is not None}
