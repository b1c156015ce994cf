"""Label Studio's JSON: `SPLIT.json` with the tasks of each split, and `label_config.xml`, its labelling setup.

Coordinates are in percent of the image. Label Studio serves images of a disk from a document root, which the tasks'
addresses start from: the parent of the folder with the images.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from odkeras.annotation import Span
from odkeras.formats.coco_files import relative_name
from odkeras.formats.writers.writer import ExportedImage, LabelWriter
from odkeras.formats.writers.xml_text import clean, to_text
from odkeras.text import replace_surrogates

_DECIMALS = 6
_IMAGE = "image"
_RECTANGLES, _POLYGONS = "box", "polygon"
"""Names of the controls in the labelling setup."""


class LabelStudioWriter(LabelWriter):
    """A task for each image."""

    def begin(self) -> None:
        self._tasks = {split: self.open(f"{split}.json") for split in self.target.splits}
        self._counts = dict.fromkeys(self.target.splits, 0)
        self._roots: dict[Path, None] = {}
        self.write_file("label_config.xml", to_text(self._config()))
        for file in self._tasks.values():
            file.write("[")

    def write_image(self, image: ExportedImage) -> None:
        answer = image.answer
        results = [_result(span, number, image.size_hw) for number, span in enumerate(image.spans, start=1)]
        annotation: dict[str, Any] = {"result": results, "was_cancelled": False, "ground_truth": False}
        if answer.active_s is not None:
            annotation["lead_time"] = round(answer.active_s, 1)
        data = {_IMAGE: self._address(image), "image_id": answer.task.image_id, "split": image.split}
        self._counts[image.split] += 1
        number = self._counts[image.split]  # Label Studio gives another id on import; its converter needs one
        separator = "," if number > 1 else ""
        task = json.dumps({"id": number, "data": data, "annotations": [{"id": number, **annotation}]})
        self._tasks[image.split].write(f"{separator}\n{task}")

    def finish(self) -> None:
        for file in self._tasks.values():
            file.write("\n]\n")

    def remarks(self) -> list[str]:
        return [
            "Label Studio finds the images with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true, "
            f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root.parent} and {root} as local storage of the project"
            for root in self._roots
        ]

    def _address(self, image: ExportedImage) -> str:
        if image.stored is not None:
            root, name = self.target.location, image.stored
        elif isinstance(image.source, Path):
            root = self.target.images_dir or image.source.parent
            name = relative_name(image.source, root)
        else:
            return image.place
        self._roots[root] = None
        return f"/data/local-files/?d={quote(replace_surrogates(f'{root.name}/{name}'))}"

    def _config(self) -> ElementTree.Element:
        view = ElementTree.Element("View")
        ElementTree.SubElement(view, "Image", {"name": _IMAGE, "value": f"${_IMAGE}"})
        kinds = [("RectangleLabels", _RECTANGLES)]
        if self.target.has_polygons:
            kinds.append(("PolygonLabels", _POLYGONS))
        for tag, name in kinds:
            control = ElementTree.SubElement(view, tag, {"name": name, "toName": _IMAGE})
            for label in self.target.labels:
                ElementTree.SubElement(control, "Label", {"value": clean(label.name)})
        return view


def _result(span: Span, number: int, size_hw: tuple[int, int]) -> dict[str, Any]:
    height, width = size_hw
    facts = {"id": f"object-{number}", "to_name": _IMAGE, "image_rotation": 0}
    facts |= {"original_width": width, "original_height": height}
    if span.is_polygon:
        points = [[_percent(x, width), _percent(y, height)] for x, y in span.points_xy_px]
        value: dict[str, Any] = {"points": points, "closed": True, "polygonlabels": [span.label]}
        return {**facts, "type": "polygonlabels", "from_name": _POLYGONS, "value": value}
    left, top, right, bottom = span.xyxy_px
    value = {"x": _percent(left, width), "y": _percent(top, height), "rotation": 0}
    value |= {"width": _percent(right - left, width), "height": _percent(bottom - top, height)}
    value["rectanglelabels"] = [span.label]
    return {**facts, "type": "rectanglelabels", "from_name": _RECTANGLES, "value": value}


def _percent(value: float, whole: int) -> float:
    return round(100 * value / whole, _DECIMALS)
