"""COCO's detection JSON (cocodataset.org, "Data format"): `annotations/instances_SPLIT.json` for each split."""

from __future__ import annotations

import json
import tempfile
from typing import IO, Any

from odkeras.formats.coco import to_annotation, to_categories, to_keypoints, to_outline
from odkeras.formats.label_files import CROWD
from odkeras.formats.writers.writer import ExportedImage, LabelWriter, has_flag


class CocoWriter(LabelWriter):
    """The annotations of a split wait in a temporary file, because all images come before them."""

    holds_keypoints = True
    flags = frozenset({CROWD})

    def begin(self) -> None:
        self._splits = {split: _SplitFile(self, split) for split in self.target.splits}

    def write_image(self, image: ExportedImage) -> None:
        self._splits[image.split].write(image)

    def finish(self) -> None:
        for split in self._splits.values():
            split.finish()

    def spool(self) -> IO[str]:
        """A temporary file, which is closed at the end."""
        folder = str(self.target.folder)
        return self._files.enter_context(tempfile.TemporaryFile("w+", encoding="ascii", dir=folder))


class _SplitFile:
    def __init__(self, writer: CocoWriter, split: str) -> None:
        self._writer = writer
        self._target = writer.target
        self._file = writer.open(f"annotations/instances_{split}.json")
        self._annotations = writer.spool()
        self._image_count = self._annotation_count = 0
        info = {"description": self._target.description}
        self._file.write(f'{{"info": {json.dumps(info)}, "licenses": [], "images": [')

    def write(self, image: ExportedImage) -> None:
        height, width = image.size_hw
        self._image_count += 1
        entry: dict[str, Any] = {"id": self._image_count, "file_name": self._writer.file_name(image)}
        entry |= {"width": width, "height": height}
        if image.stored is None and isinstance(image.source, str):
            entry["coco_url"] = image.source
        _append(self._file, entry, self._image_count)
        for span in image.spans:
            self._annotation_count += 1
            category = self._target.ids[span.label]
            outline = to_outline(span, image.size_hw)
            annotation = to_annotation(self._annotation_count, self._image_count, category, outline)
            annotation.setdefault("segmentation", [])  # some tools expect the key
            annotation[CROWD] = int(has_flag(span, CROWD))
            points = {point.name: point for point in span.keypoints}
            annotation |= to_keypoints(points, self._target.keypoint_names[span.label])
            _append(self._annotations, annotation, self._annotation_count)

    def finish(self) -> None:
        self._file.write('\n], "annotations": [')
        self._annotations.seek(0)
        for line in self._annotations:
            self._file.write(line)
        categories = to_categories(self._target.ids, self._target.keypoint_names)
        self._file.write(f'\n], "categories": {json.dumps(categories)}}}\n')


def _append(file: IO[str], entry: dict[str, Any], number: int) -> None:
    file.write(f"{',' if number > 1 else ''}\n{json.dumps(entry)}")
