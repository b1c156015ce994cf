"""Read ground truth from a CSV file with one row per box: `path,xmin,ymin,xmax,ymax,label`, in pixels.

The columns `width` and `height`, if there are any, are the size that the boxes refer to. Boxes for a smaller or larger
copy of the image are scaled. Boxes that do not fit the image are refused: they would be trained on as they are.
"""

from __future__ import annotations

import csv
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from odkeras import boxes as box_ops
from odkeras.boxes import FloatArray
from odkeras.errors import RecordError

_COORDINATES = ("xmin", "ymin", "xmax", "ymax")
_SIZES = ("width", "height")
_MAX_OUTSIDE = 0.1
"""Share of the image's side by which a box may extend beyond the image. The Object Detection API refuses more."""
_NAMES = {"path": ("path", "filename"), **{name: (name,) for name in _COORDINATES}, "label": ("label", "class")}


class OtherCsvError(RecordError):
    """The columns are not ours, or the paths are those of another machine."""


@dataclass(frozen=True, eq=False)
class GroundtruthImage:
    """An image file and its ground truth.

    Args:
        path: the image file; may not exist.
        boxes_xyxy_px: float32 (N, 4), [xmin, ymin, xmax, ymax] in pixels, not clipped.
        labels: label name of each box.
        size_hw: height and width that the boxes refer to; None for those of the image.
        places: `file:line` of each box.
    """

    path: Path
    boxes_xyxy_px: FloatArray
    labels: tuple[str, ...]
    size_hw: tuple[float, float] | None = None
    places: tuple[str, ...] = ()

    def boxes(self, image_size_hw: tuple[int, int]) -> FloatArray:
        """The boxes, float32 (N, 4), normalised and clipped. A box without area inside the image has area 0.

        Args:
            image_size_hw: height and width of the upright image.

        Raises:
            RecordError: the boxes are for an image of another shape, or one is far outside the image.
        """
        size_hw = self.size_hw or image_size_hw
        if len(self.boxes_xyxy_px) and not box_ops.has_same_shape(size_hw, image_size_hw):
            raise RecordError(self._other_shape(size_hw, image_size_hw))
        boxes = box_ops.from_xyxy_px(self.boxes_xyxy_px, size_hw)
        for place, box, box_xyxy_px in zip(self.places, boxes, self.boxes_xyxy_px, strict=False):
            if box.min() < -_MAX_OUTSIDE or box.max() > 1 + _MAX_OUTSIDE:
                raise RecordError(
                    f"{place}: box {box_xyxy_px.tolist()} is far outside the image of {_size(size_hw)} pixels; are the "
                    "boxes for a copy of another size? Then add the columns width and height"
                )
        return box_ops.clip(boxes)

    def _other_shape(self, size_hw: tuple[float, float], image_size_hw: tuple[int, int]) -> str:
        turned = box_ops.has_same_shape(size_hw[::-1], image_size_hw)
        advice = (
            "its camera was turned: the boxes must be for the upright picture, as browsers and viewers show it"
            if turned
            else "correct the boxes, width and height"
        )
        sizes = f"the boxes are for {_size(size_hw)} pixels, but the image has {_size(image_size_hw)}"
        return f"{self.places[0]}: {sizes}; {advice}"


def read_truth_csv(csv_path: Path | str, images_dir: Path | str) -> list[GroundtruthImage]:
    """The images of a CSV file, in order of first appearance. The image files need not exist.

    The header is required. Columns may be in any order; unknown columns are ignored. `filename` is accepted for `path`
    and `class` for `label`. A row with only a path is an image without boxes.

    Args:
        images_dir: base directory of relative paths.

    Raises:
        OtherCsvError: a column is missing.
        RecordError: the file cannot be read, a row is incomplete or not a valid box, the rows of
            an image have different sizes, or all boxes of an image are normalised; the message names the line.
    """
    rows_by_path: dict[str, list[_BoxRow]] = {}
    for where, row in _rows(Path(csv_path)):
        if not row["path"]:
            raise RecordError(f"{where}: the path is empty")
        rows = rows_by_path.setdefault(row["path"], [])
        if any(row[name] for name in (*_COORDINATES, "label")):
            rows.append(_BoxRow(where, _box(row, where), _label(row, where), _size_hw(row, where)))
    for rows in rows_by_path.values():
        _check_pixels(rows)
    return [_truth_image(Path(images_dir) / path, rows) for path, rows in rows_by_path.items()]


def check_some_exist(truths: Sequence[GroundtruthImage], csv_path: Path | str, images_dir: Path | str) -> None:
    """Check that at least one image file exists. None does if `images_dir` is not the directory that the CSV's paths
    are relative to.

    Raises:
        RecordError: none exists; `OtherCsvError` if the paths are those of another machine. The message suggests the
            directory that contains the first image, if it is the directory of the CSV or directly below it.
    """
    if not truths or any(exists(truth.path) for truth in truths):
        return
    first = truths[0].path
    folder = Path(csv_path).parent
    below = _folder_with(first.relative_to(images_dir), folder) if first.is_relative_to(images_dir) else None
    first_dir = below or _folder_with(Path(first.name), folder)
    advice = f"give --images {shlex.quote(str(first_dir))}" if first_dir else "--images names their directory"
    reason = f"none of the {len(truths)} images of {csv_path} is in {images_dir} (the first would be {first}); {advice}"
    is_of_other_machine = not first.is_relative_to(images_dir) or "\\" in first.name
    raise OtherCsvError(reason) if is_of_other_machine else RecordError(reason)


def exists(path: Path) -> bool:
    """Whether the path exists. False also if that cannot be checked."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, no permission, or with a NUL
        return False


def _folder_with(name: Path, folder: Path) -> Path | None:
    """The first of `folder` and its subdirectories that contains `name`; None if none does."""
    try:
        below = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return None
    return next((candidate for candidate in (folder, *below) if exists(candidate / name)), None)


class _BoxRow(NamedTuple):
    where: str
    box_xyxy_px: list[float]
    label: str
    size_hw: tuple[float, float] | None


def _rows(csv_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(`file:line`, cells by our column names) of each non-empty row."""
    try:
        with csv_path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True)
            columns = _columns(next(reader, []), csv_path)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    row = {name: cells[at].strip() if at < len(cells) else "" for name, at in columns.items()}
                    yield f"{csv_path}:{reader.line_num}", row
    except OSError as error:
        raise RecordError(f"cannot read {csv_path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f"{csv_path} is not a CSV file in UTF-8: {error}") from error


def _columns(header: list[str], csv_path: Path) -> dict[str, int]:
    places = {cell.strip().lower(): at for at, cell in reversed(list(enumerate(header)))}
    columns = {
        name: places[alias] for name, known_as in _NAMES.items() for alias in reversed(known_as) if alias in places
    }
    columns |= {name: places[name] for name in _SIZES if name in places}
    missing = [name for name in _NAMES if name not in columns]
    if missing:
        cells = ", ".join(repr(cell) for cell in header) or "nothing"
        raise OtherCsvError(f"{csv_path}:1: the header lacks {', '.join(missing)}; it has {cells}")
    return columns


def _box(row: dict[str, str], where: str) -> list[float]:
    box = [_number(name, row[name], where) for name in _COORDINATES]
    for low, high in ((0, 2), (1, 3)):
        if box[low] > box[high]:
            names = f"{_COORDINATES[low]} {box[low]:g} is larger than {_COORDINATES[high]} {box[high]:g}"
            raise RecordError(f"{where}: {names}; are the columns in the order of the header?")
    return box


def _number(name: str, text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RecordError(f"{where}: {name} must be a number of pixels; got {text!r}")
    return value


def _size_hw(row: dict[str, str], where: str) -> tuple[float, float] | None:
    texts = [row.get(name, "") for name in _SIZES]
    if not any(texts):
        return None
    width, height = (_number(name, text, where) for name, text in zip(_SIZES, texts, strict=True))
    if width < 1 or height < 1:
        raise RecordError(f"{where}: width and height must be at least 1 pixel; got {width:g} and {height:g}")
    return height, width


def _check_pixels(rows: Sequence[_BoxRow]) -> None:
    """Raise a RecordError if the boxes of an image are normalised: as pixels, its objects would all be in a corner."""
    if rows and all(0 <= value <= 1 for row in rows for value in row.box_xyxy_px):
        raise RecordError(
            f"{rows[0].where}: all coordinates of this image are from 0 to 1 (here {rows[0].box_xyxy_px}); they must "
            "be pixels: multiply xmin and xmax by the image's width, ymin and ymax by its height"
        )


def _size(size_hw: tuple[float, float]) -> str:
    return f"{size_hw[1]:g} x {size_hw[0]:g}"


def _label(row: dict[str, str], where: str) -> str:
    if not row["label"]:
        raise RecordError(f"{where}: the box has no label")
    return row["label"]


def _truth_image(path: Path, rows: list[_BoxRow]) -> GroundtruthImage:
    for row in rows[1:]:
        if row.size_hw != rows[0].size_hw:
            raise RecordError(f"{row.where}: width and height differ from those of {rows[0].where}, for the same image")
    return GroundtruthImage(
        path,
        np.array([row.box_xyxy_px for row in rows], np.float32).reshape(-1, 4),
        tuple(row.label for row in rows),
        rows[0].size_hw if rows else None,
        tuple(row.where for row in rows),
    )
