"""Pascal VOC's XML in the layout of its development kit: `Annotations/NAME.xml`, `JPEGImages`, `ImageSets/Main`.

`labelmap.txt` names the classes for CVAT and Datumaro, which know only those of the challenge without it.
The sides of a box are whole pixels, counted from 0 as by most tools, and not from 1 as in the challenge of 2007.
"""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

from odkeras.annotation import Span
from odkeras.formats.writers.writer import ExportedImage, LabelWriter, Loss, has_flag
from odkeras.formats.writers.xml_text import add, to_text

_DATABASE = "odkeras"
_FLAGS = ("truncated", "difficult", "occluded")
_SIDES = ("xmin", "ymin", "xmax", "ymax")


class VocWriter(LabelWriter):
    """One small file for each image."""

    images_folder = "JPEGImages"
    allows_spaces = False  # in lines of ImageSets, a space ends the name
    holds_polygons = False
    flags = frozenset(_FLAGS)

    def begin(self) -> None:
        lines = [f"{label.name}:::\n" for label in self.target.labels]
        self.write_file("labelmap.txt", "".join(["# label:color_rgb:parts:actions\n", *lines]))
        self._lists = {split: [self.open(f"ImageSets/Main/{split}.txt")] for split in self.target.splits}
        if {"train", "val"} <= set(self._lists):
            both = self.open("ImageSets/Main/trainval.txt")
            for split in ("train", "val"):
                self._lists[split].append(both)

    def write_image(self, image: ExportedImage) -> None:
        height, width = image.size_hw
        root = ElementTree.Element("annotation")
        add(root, "folder", self.images_folder if image.stored is not None else _folder(image))
        add(root, "filename", image.name if image.stored is not None else _file_name(image))
        add(root, "path", image.place)
        add(ElementTree.SubElement(root, "source"), "database", _DATABASE)
        size = ElementTree.SubElement(root, "size")
        for tag, value in (("width", width), ("height", height), ("depth", 3)):
            add(size, tag, value)
        add(root, "segmented", 0)
        for span in image.spans:
            root.append(self._object(span, image.size_hw))
        self.write_file(f"Annotations/{image.stem}.xml", to_text(root))
        for file in self._lists[image.split]:
            file.write(f"{image.stem}\n")

    def _object(self, span: Span, size_hw: tuple[int, int]) -> ElementTree.Element:
        element = ElementTree.Element("object")
        add(element, "name", span.label)
        add(element, "pose", "Unspecified")
        for flag in _FLAGS:
            add(element, flag, int(has_flag(span, flag)))
        box = ElementTree.SubElement(element, "bndbox")
        sides = whole_pixels(span.xyxy_px, size_hw)
        self.losses[Loss.FRACTIONS] += sides != span.xyxy_px
        for tag, side in zip(_SIDES, sides, strict=True):
            add(box, tag, side)
        return element


def whole_pixels(xyxy_px: tuple[float, float, float, float], size_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box with its sides rounded to whole pixels inside the image, at least one pixel wide and high."""
    left, top, right, bottom = xyxy_px
    (x0, x1), (y0, y1) = _rounded(left, right, size_hw[1]), _rounded(top, bottom, size_hw[0])
    return x0, y0, x1, y1


def _rounded(low: float, high: float, limit: int) -> tuple[int, int]:
    if round(low) < round(high):
        return round(low), round(high)
    start = min(math.floor(low), limit - 1)
    return start, start + 1


def _folder(image: ExportedImage) -> str:
    return image.source.parent.name if isinstance(image.source, Path) else ""


def _file_name(image: ExportedImage) -> str:
    return image.source.name if isinstance(image.source, Path) else image.name
