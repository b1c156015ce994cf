"""CVAT's XML, "CVAT for images 1.1": `SPLIT.xml` for each split, to upload to a task with its images."""

from __future__ import annotations

from xml.etree import ElementTree

from odkeras.annotation import Span
from odkeras.formats.writers.writer import ExportedImage, LabelWriter, has_flag
from odkeras.formats.writers.xml_text import add, clean, to_text

_OCCLUDED = "occluded"


class CvatWriter(LabelWriter):
    """An element for each image. CVAT finds the image of the task by its name. Datumaro reads only images whose subset
    is the name of the file."""

    flags = frozenset({_OCCLUDED})

    def begin(self) -> None:
        self._images = dict.fromkeys(self.target.splits, 0)
        self._split_files = {split: self.open(f"{split}.xml") for split in self.target.splits}
        for file in self._split_files.values():
            file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
            file.write(to_text(self._meta(), indent="  "))

    def write_image(self, image: ExportedImage) -> None:
        height, width = image.size_hw
        number = self._images[image.split]
        self._images[image.split] += 1
        facts = {"id": number, "name": self.file_name(image), "subset": image.split, "width": width, "height": height}
        element = ElementTree.Element("image", {name: clean(str(value)) for name, value in facts.items()})
        for span in image.spans:
            element.append(_shape(span))
        self._split_files[image.split].write(to_text(element, indent="  "))

    def finish(self) -> None:
        for file in self._split_files.values():
            file.write("</annotations>\n")

    def _meta(self) -> ElementTree.Element:
        meta = ElementTree.Element("meta")
        task = ElementTree.SubElement(meta, "task")
        add(task, "name", self.target.description)
        labels = ElementTree.SubElement(task, "labels")
        for label in self.target.labels:
            element = ElementTree.SubElement(labels, "label")
            add(element, "name", label.name)
            ElementTree.SubElement(element, "attributes")
        return meta


def _shape(span: Span) -> ElementTree.Element:
    facts = {"label": clean(span.label), "source": "manual", _OCCLUDED: "0", "z_order": "0"}
    facts[_OCCLUDED] = str(int(has_flag(span, _OCCLUDED)))
    if span.is_polygon:
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in span.points_xy_px)
        return ElementTree.Element("polygon", {**facts, "points": points})
    sides = zip(("xtl", "ytl", "xbr", "ybr"), span.xyxy_px, strict=True)
    return ElementTree.Element("box", {**facts, **{name: f"{side:.2f}" for name, side in sides}})
