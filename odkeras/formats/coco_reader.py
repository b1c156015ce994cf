"""Reads COCO's JSON as labels to import: boxes, polygons, run lengths. `coco_truth` reads it for TFRecords."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from odkeras.annotation import Span
from odkeras.errors import OdkerasError, RecordError
from odkeras.formats.coco_document import Row, check_bbox, check_polygons, decode_row, draw_segmentation, read_lists
from odkeras.formats.label_files import (
    CROWD,
    LabelFile,
    LabelledImage,
    ReadNotes,
    box_span,
    labelled_image,
    polygon_span,
    read_label,
    read_objects,
    read_size_hw,
)
from odkeras.formats.outlines import join_rings, trace_mask
from odkeras.keypoints import VISIBILITIES, Keypoint, Skeleton
from odkeras.numeric import is_number, is_whole


class _ImageOf(msgspec.Struct, gc=False):
    image_id: Any = None


class _Category(NamedTuple):
    name: str
    keypoints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...] = ()


class _Annotation(msgspec.Struct, gc=False):
    """An annotation. Its values are checked when they are used, so that a wrong one costs one object."""

    category_id: Any = None
    bbox: Any = None
    segmentation: Any = None
    iscrowd: Any = None
    keypoints: Any = None
    id: Any = None


def read_labels(file: LabelFile, notes: ReadNotes) -> Iterator[LabelledImage]:
    """The images of a COCO file. An image without annotations is one without objects.

    Raises:
        RecordError: the file is not COCO's JSON.
    """
    lists = read_lists(file.path)
    categories = _read_categories(lists["categories"], file, notes)
    images = list(_images(lists.pop("images"), file, notes))
    annotations = lists["annotations"]
    order, starts = _by_image(annotations, {id: number for number, (id, _) in enumerate(images)}, file, notes)
    for number, (_, row) in enumerate(images):
        where = f"{file.path}: image {row['file_name']}"
        own = (annotations[at] for at in order[starts[number] : starts[number + 1]].tolist())
        try:
            size_hw = read_size_hw(row.get("height"), row.get("width"))
            read = partial(_span, categories=categories, size_hw=size_hw, notes=notes)
            spans = read_objects(_annotations(own, file), read, notes)
            if spans is not None:
                yield where, labelled_image(row["file_name"], spans, size_hw, split=file.split)
        except OdkerasError as error:
            notes.refuse(where, error)


def read_classes(file: LabelFile) -> list[str]:
    """The names of the categories, by their ids.

    Raises:
        RecordError: the file is not COCO's JSON.
    """
    categories = _read_categories(read_lists(file.path)["categories"], file, ReadNotes())
    return [categories[id].name for id in sorted(categories, key=lambda id: (isinstance(id, str), id))]


def read_skeletons(file: LabelFile) -> dict[str, Skeleton]:
    """The keypoints of the categories that have some, by category, and the lines between them.

    Raises:
        RecordError: the file is not COCO's JSON.
    """
    categories = _read_categories(read_lists(file.path)["categories"], file, ReadNotes())
    return {each.name: Skeleton(each.keypoints, each.edges) for each in categories.values() if each.keypoints}


def _read_categories(rows: list[Row], file: LabelFile, notes: ReadNotes) -> dict[Any, _Category]:
    categories: dict[Any, _Category] = {}
    for number, raw in enumerate(rows):
        try:
            row = decode_row(raw)
            keypoints = tuple(read_label(name) for name in row.get("keypoints") or ())
            edges = tuple(_edges(row.get("skeleton"), len(keypoints)))
            categories[_id(row.get("id"))] = _Category(read_label(row.get("name")), keypoints, edges)
        except (OdkerasError, ValueError) as error:
            notes.refuse(f"{file.path}: categories[{number}]", str(error))
    return categories


def _edges(skeleton: Any, count: int) -> Iterator[tuple[int, int]]:
    """The lines between keypoints, which COCO numbers from 1. What is not one is left out: it is drawn, not trained."""
    for edge in skeleton if isinstance(skeleton, list) else ():
        if isinstance(edge, list) and len(edge) == 2 and all(is_whole(end, 1, count) for end in edge):
            yield edge[0] - 1, edge[1] - 1


def _images(rows: list[Row], file: LabelFile, notes: ReadNotes) -> Iterator[tuple[Any, dict[str, Any]]]:
    for number, raw in enumerate(rows):
        try:
            row = decode_row(raw)
            if not isinstance(row.get("file_name"), str):
                raise RecordError(f"needs a file_name; got {repr(row.get('file_name'))[:40]}")
            yield _id(row.get("id")), {name: row.get(name) for name in ("file_name", "height", "width")}
        except (OdkerasError, ValueError) as error:
            notes.refuse(f"{file.path}: images[{number}]", str(error))


def _id(value: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise RecordError(f"its id must be a whole number or text; got {repr(value)[:40]}")
    return value


def _by_image(
    rows: list[Row], numbers: dict[Any, int], file: LabelFile, notes: ReadNotes
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The annotations in the order of their images, as numbers of rows; and where those of each image start."""
    decoder = msgspec.json.Decoder(_ImageOf)
    images = np.full(len(rows), len(numbers), np.int64)  # those without an image come last
    for at, row in enumerate(rows):
        try:
            image = decoder.decode(row).image_id if isinstance(row, msgspec.Raw) else decode_row(row).get("image_id")
            images[at] = numbers[_id(image)]
        except KeyError:
            notes.refuse(f"{file.path}: annotations[{at}]", f"image_id {image!r} is not in the list of images")
        except (OdkerasError, ValueError, msgspec.MsgspecError) as error:
            notes.refuse(f"{file.path}: annotations[{at}]", f"image_id: {error}")
    order = np.argsort(images, kind="stable")
    return order, np.searchsorted(images[order], np.arange(len(numbers) + 1))


_decoder = msgspec.json.Decoder(_Annotation)


def _annotations(rows: Iterator[Row], file: LabelFile) -> Iterator[tuple[str, _Annotation | RecordError]]:
    """The annotations with their places; an error for one that cannot be decoded."""
    for row in rows:
        if not isinstance(row, msgspec.Raw):
            annotation = _Annotation(*(row.get(name) for name in _Annotation.__struct_fields__))
            yield _place(file, annotation.id), annotation
            continue
        try:
            annotation = _decoder.decode(row)
            yield _place(file, annotation.id), annotation
        except (ValueError, msgspec.MsgspecError) as error:
            yield _place(file, None), RecordError(f"{error} of {bytes(row)[:120]!r}")


def _place(file: LabelFile, id: Any) -> str:
    return f"{file.path}: annotation {repr(id)[:40]}"


def _span(
    annotation: _Annotation | RecordError,
    categories: dict[Any, _Category],
    size_hw: tuple[int, int] | None,
    notes: ReadNotes,
) -> Span:
    if isinstance(annotation, RecordError):
        raise annotation
    id = annotation.category_id
    if isinstance(id, (list, dict)) or id not in categories:
        raise RecordError(f"unknown category_id {repr(id)[:40]} (known: {', '.join(map(str, categories))[:80]})")
    label, other = categories[id].name, {}
    if annotation.iscrowd:
        notes.left_out["crowd annotations, which are trained on as one object (kept, with iscrowd: 1)"] += 1
        other = {CROWD: 1}
    polygon = _polygon(annotation.segmentation, size_hw) if annotation.segmentation else None
    if polygon is not None:
        span = polygon_span(label, polygon, other)
    else:
        x, y, width, height = check_bbox(annotation.bbox)
        span = box_span(label, (x, y, x + width, y + height), notes, other)
    return replace(span, keypoints=_keypoints(annotation, categories[id])) if annotation.keypoints else span


def _keypoints(annotation: _Annotation, category: _Category) -> tuple[Keypoint, ...]:
    values, names = annotation.keypoints, category.keypoints
    if not isinstance(values, list) or len(values) != 3 * len(names):
        raise RecordError(f"keypoints: {len(names)} keypoints need {3 * len(names)} numbers; got {repr(values)[:80]}")
    points = list(zip(names, values[::3], values[1::3], values[2::3], strict=True))
    for _, x, y, visibility in points:
        if visibility not in VISIBILITIES or not is_number(x) or not is_number(y):
            raise RecordError(f"keypoints: {[x, y, visibility]} is not [x, y, 0, 1 or 2]")
    return tuple(Keypoint(name, x, y, visibility) for name, x, y, visibility in points if visibility)


def _polygon(shape: Any, size_hw: tuple[int, int] | None) -> list[list[float]] | None:
    """The points [x, y] of a segmentation; None if it covers nothing."""
    if isinstance(shape, list):
        check_polygons(shape)
        if len(shape) == 1:
            return [[x, y] for x, y in zip(shape[0][::2], shape[0][1::2], strict=True)]
        return join_rings([np.reshape(part, (-1, 2)).astype(np.float64) for part in shape], same_way=True).tolist()
    size = shape.get("size") if isinstance(shape, dict) else None
    if size_hw is None and isinstance(size, list) and len(size) == 2:
        size_hw = read_size_hw(*size)
    if size_hw is None:
        raise RecordError("segmentation: it needs the size of the image")
    rings = trace_mask(draw_segmentation(shape, size_hw))
    return join_rings(rings).tolist() if rings else None
