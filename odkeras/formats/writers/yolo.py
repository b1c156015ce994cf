"""YOLO's text files in the layout of Ultralytics: `images/SPLIT/NAME.jpg`, `labels/SPLIT/NAME.txt`, `data.yaml`.

A line has the class, from 0, and the centre, width and height of a box as shares of the image. If any object of the
dataset is a polygon, each line has the vertices of a polygon instead, also of a rectangle: a file with lines of both
kinds is read as if all were polygons. Detectors are trained on the bounding boxes of the polygons.

An image without objects has an empty file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from odkeras.annotation import Span
from odkeras.formats.writers.writer import ExportedImage, LabelWriter
from odkeras.text import replace_surrogates


class YoloWriter(LabelWriter):
    """One small file for each image."""

    needs_images = True

    def begin(self) -> None:
        labels = sorted(self.target.labels, key=lambda label: label.id)
        self._class_numbers = {label.name: number for number, label in enumerate(labels)}
        for split in self.target.splits:
            for folder in ("images", "labels"):
                (self.target.folder / folder / split).mkdir(parents=True, exist_ok=True)
        self.write_file("data.yaml", self._data_yaml())

    def write_image(self, image: ExportedImage) -> None:
        lines = [self.line(span, image.size_hw) for span in image.spans]
        self.write_file(f"labels/{image.split}/{image.stem}.txt", "".join(f"{line}\n" for line in lines))

    def remarks(self) -> list[str]:
        rows = []
        if self.writes_polygons:
            rows.append("each line of labels/ is a polygon, because the dataset has polygons")
        if "val" not in self.target.splits:
            rows.append("data.yaml: val is the same as train, because there is no val; --split 0.8/0.2 makes one")
        return rows

    @property
    def writes_polygons(self) -> bool:
        """Whether lines have polygons instead of boxes."""
        return self.target.has_polygons

    def extra_settings(self) -> str:
        """Further lines of data.yaml."""
        return ""

    def _data_yaml(self) -> str:
        # Ultralytics wants `train` and `val`. A relative `path` would be taken for one in its own datasets folder.
        splits = {split: f"images/{split}" for split in self.target.splits}
        first = next(iter(splits.values()))
        splits = {"train": splits.get("train", first), "val": splits.get("val", first), **splits}
        return "".join(
            [
                f"# {' '.join(replace_surrogates(self.target.description).split())}\n",
                "# The folder with this file; correct it when the folder is moved.\n",
                f"path: {_quoted(self.target.location.as_posix())}\n",
                *(f"{split}: {folder}\n" for split, folder in splits.items()),
                self.extra_settings(),
                "names:\n" if self._class_numbers else "names: {}\n",
                *(f"  {number}: {_quoted(name)}\n" for name, number in self._class_numbers.items()),
            ]
        )

    def line(self, span: Span, size_hw: tuple[int, int]) -> str:
        """The line of an object."""
        left, top, right, bottom = span.xyxy_px
        height, width = size_hw
        if self.writes_polygons:
            corners = ((left, top), (right, top), (right, bottom), (left, bottom))
            points = span.points_xy_px if span.is_polygon else corners
            values = [share for x, y in points for share in (x / width, y / height)]
        else:
            values = [(left + right) / 2 / width, (top + bottom) / 2 / height]
            values += [(right - left) / width, (bottom - top) / height]
        return " ".join([str(self._class_numbers[span.label]), *to_shares(values)])


def to_shares(values: Iterable[float]) -> Iterable[str]:
    """Numbers from 0 to 1 as text."""
    return (f"{value:.6f}".rstrip("0").rstrip(".") for value in values)


def _quoted(text: str) -> str:
    """A double-quoted YAML string. JSON's escapes are YAML's; what JSON leaves unescaped must be printable."""
    quoted = json.dumps(replace_surrogates(text), ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08X}" for char in quoted)
