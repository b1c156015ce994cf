"""CSV with a row for each box, as `odkeras records from-csv` reads it: `SPLIT.csv` for each split.

The header is `path,width,height,xmin,ymin,xmax,ymax,label`; coordinates are pixels. An image without objects has one
row, without box.
"""

from __future__ import annotations

import csv

from odkeras.formats.spans import DECIMALS
from odkeras.formats.writers.writer import ExportedImage, LabelWriter

_HEADER = ("path", "width", "height", "xmin", "ymin", "xmax", "ymax", "label")


class CsvWriter(LabelWriter):
    """A row for each box."""

    holds_polygons = False

    def begin(self) -> None:
        self._files_by_split = {
            split: csv.writer(self.open(f"{split}.csv"), lineterminator="\n") for split in self.target.splits
        }
        for file in self._files_by_split.values():
            file.writerow(_HEADER)

    def write_image(self, image: ExportedImage) -> None:
        height, width = image.size_hw
        rows = [(*map(_number, span.xyxy_px), span.label) for span in image.spans]
        for row in rows or [("",) * 5]:
            self._files_by_split[image.split].writerow((image.place, width, height, *row))


def _number(value: float) -> str:
    return f"{value:.{DECIMALS}f}".rstrip("0").rstrip(".")
