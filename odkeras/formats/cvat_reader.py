"""Reads "CVAT for images 1.1": one XML file with boxes and polygons of many images."""

from __future__ import annotations

import math
from collections.abc import Iterator

from odkeras.annotation import Answer, Span
from odkeras.errors import OdkerasError, RecordError
from odkeras.formats.label_files import (
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
    read_size_hw,
)
from odkeras.formats.xml_elements import Element, iter_elements

ROOT = "annotations"
_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_OTHER_SHAPES = frozenset({"polyline", "points", "cuboid", "ellipse", "skeleton", "mask"})


def read_labels(file: LabelFile, notes: ReadNotes) -> Iterator[LabelledImage]:
    """The images of a CVAT file. An image without shapes is one without objects.

    Raises:
        RecordError: the file is not XML of this form.
    """
    for element in iter_elements(file.path, ROOT):
        where = f"{file.path}:{element.line}"
        if element.tag == "track":
            notes.refuse(where, "a track of CVAT for video; export the task as 'CVAT for images 1.1'")
        elif element.tag == "image":
            try:
                answer = _image(element, file, notes)
            except OdkerasError as error:
                notes.refuse(where, error)
                continue
            if answer is not None:
                yield where, answer


def read_classes(file: LabelFile) -> list[str]:
    """The labels of the task, in its order; [] if the file does not list them.

    Raises:
        RecordError: the file is not XML of this form.
    """
    meta = next((element for element in iter_elements(file.path, ROOT) if element.tag == "meta"), None)
    return [] if meta is None else [label.text_of("name") or "" for label in _labels_in(meta)]


def _labels_in(element: Element) -> Iterator[Element]:
    for child in element.children:
        if child.tag == "labels":
            yield from child.find_all("label")
        else:
            yield from _labels_in(child)


def _image(element: Element, file: LabelFile, notes: ReadNotes) -> Answer | None:
    attributes = element.attributes
    height, width = (attributes.get(name) for name in ("height", "width"))
    size_hw = None
    if height or width:
        size_hw = read_size_hw(parse_number(height, "height"), parse_number(width, "width"))
    rows = [(f"{file.path}:{shape.line}", shape) for shape in element.children if shape.tag != "tag"]
    spans = read_objects(rows, lambda shape: _span(shape, notes), notes)
    if spans is None:
        return None
    split = as_split(attributes.get("subset")) or file.split
    return labelled_image(attributes.get("name", ""), spans, size_hw, split=split)


def _span(shape: Element, notes: ReadNotes) -> Span | None:
    values = shape.attributes
    if shape.tag in _OTHER_SHAPES:
        notes.left_out[f"shapes of CVAT's kind {shape.tag}"] += 1
        return None
    label = read_label(values.get("label"))
    other = {"occluded": 1} if values.get("occluded") == "1" else {}
    if shape.tag == "polygon":
        points = [point.split(",") for point in values.get("points", "").split(";")]
        if not all(len(point) == 2 for point in points):
            raise RecordError(f"points must be x,y;x,y;...; got {values.get('points', '')[:40]!r}")
        return polygon_span(label, [[parse_number(x, "x"), parse_number(y, "y")] for x, y in points], other)
    if shape.tag != "box":
        raise RecordError(f"unknown shape <{shape.tag[:40]}>")
    corners = [parse_number(values.get(name), name) for name in _CORNERS]
    angle = parse_number(values.get("rotation") or "0", "rotation")
    if angle % 360:
        return polygon_span(label, turned_box(corners, angle), other)
    return box_span(label, corners, notes, other)


def turned_box(xyxy: list[float], degrees: float, pivot: tuple[float, float] | None = None) -> list[list[float]]:
    """The corners [x, y] of a box that is turned clockwise.

    Args:
        pivot: the point (x, y) around which it is turned; None: its middle.
    """
    left, top, right, bottom = xyxy
    x0, y0 = pivot or ((left + right) / 2, (top + bottom) / 2)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [
        [x0 + (x - x0) * cos - (y - y0) * sin, y0 + (x - x0) * sin + (y - y0) * cos]
        for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))
    ]
