"""Reads Pascal VOC's XML: one file for each image, with boxes, or the polygons of later tools."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from odkeras.annotation import Span
from odkeras.errors import OdkerasError, RecordError
from odkeras.formats.label_files import (
    LabelFile,
    LabelledImage,
    ReadNotes,
    box_span,
    labelled_image,
    parse_number,
    polygon_span,
    read_label,
    read_objects,
    read_size_hw,
)
from odkeras.formats.xml_elements import Element, iter_elements

ROOT = "annotation"
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_FLAGS = ("difficult", "truncated", "occluded")


def read_labels(file: LabelFile, notes: ReadNotes) -> Iterator[LabelledImage]:
    """The image of a VOC file.

    Raises:
        RecordError: the file is not XML of this form.
    """
    facts: dict[str, Element] = {}
    objects: list[tuple[str, Element]] = []
    for element in iter_elements(file.path, ROOT):
        if element.tag == "object":
            objects.append((f"{file.path}:{element.line}", element))
        else:
            facts.setdefault(element.tag, element)
    try:
        spans = read_objects(objects, lambda element: _span(element, notes), notes)
        if spans is not None:
            name = facts["filename"].text if "filename" in facts else ""
            size_hw = _size_hw(facts.get("size"))
            yield str(file.path), labelled_image(name or file.path.stem, spans, size_hw, split=file.split)
    except OdkerasError as error:
        notes.refuse(str(file.path), error)


def read_image_sets(folder: Path) -> dict[str, str]:
    """The split of each image, by its name without suffix, from `ImageSets/Main/train.txt` and the like.

    Args:
        folder: the one that contains `ImageSets`.
    """
    splits: dict[str, str] = {}
    for split in ("test", "val", "train"):
        for kind in ("Main", "Segmentation", "Layout"):
            path = folder / "ImageSets" / kind / f"{split}.txt"
            if path.is_file():
                lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
                splits.update((line.split()[0], split) for line in lines if line.strip())
    return splits


def _size_hw(element: Element | None) -> tuple[int, int] | None:
    if element is None:
        return None
    height, width = (element.text_of(name) for name in ("height", "width"))
    if not height and not width:
        return None
    return read_size_hw(parse_number(height, "height"), parse_number(width, "width"))


def _span(element: Element, notes: ReadNotes) -> Span:
    label = read_label(element.text_of("name"))
    other = {name: 1 for name in _FLAGS if element.text_of(name) in ("1", "true", "True")}
    polygon = element.find("polygon")
    if polygon is not None and polygon.children:
        return polygon_span(label, _points(polygon), other)
    box = element.find("bndbox")
    if box is None:
        raise RecordError("the object has no bndbox")
    return box_span(label, [parse_number(box.text_of(side), side) for side in _SIDES], notes, other)


def _points(polygon: Element) -> list[tuple[float, float]]:
    """Of `<pt><x>1</x><y>2</y></pt>...` or `<x1>1</x1><y1>2</y1>...`."""
    if points := polygon.find_all("pt"):
        return [(parse_number(point.text_of("x"), "x"), parse_number(point.text_of("y"), "y")) for point in points]
    values = {child.tag: child.text for child in polygon.children}
    numbers = [tag[1:] for tag in values if tag[:1] == "x" and tag[1:].isdigit()]
    return [(parse_number(values[f"x{n}"], f"x{n}"), parse_number(values.get(f"y{n}"), f"y{n}")) for n in numbers]
