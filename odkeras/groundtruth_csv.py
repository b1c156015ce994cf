"""Read ground truth from a CSV file with one row per box: `path,xmin,ymin,xmax,ymax,label`, in pixels."""

from __future__ import annotations

import csv
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from odkeras.boxes import FloatArray
from odkeras.errors import RecordError

_COORDINATES = ("xmin", "ymin", "xmax", "ymax")
_NAMES = {"path": ("path", "filename"), **{name: (name,) for name in _COORDINATES}, "label": ("label", "class")}


@dataclass(frozen=True, eq=False)
class GroundtruthImage:
    """An image file and its ground truth.

    Args:
        path: the image file; may not exist.
        boxes_xyxy_px: float32 (N, 4), [xmin, ymin, xmax, ymax] in pixels, not clipped.
        labels: label name of each box.
    """

    path: Path
    boxes_xyxy_px: FloatArray
    labels: tuple[str, ...]


def read_truth_csv(csv_path: Path | str, images_dir: Path | str) -> list[GroundtruthImage]:
    """The images of a CSV file, in order of first appearance. The image files need not exist.

    The header is required. Columns may be in any order; unknown columns are ignored. `filename` is accepted for `path`
    and `class` for `label`. A row with only a path is an image without boxes.

    Args:
        images_dir: base directory of relative paths.

    Raises:
        RecordError: the file cannot be read, a column is missing, or a row is incomplete or not a valid box; the
            message names the line.
    """
    boxes_by_path: dict[str, list[tuple[list[float], str]]] = {}
    for where, row in _rows(Path(csv_path)):
        if not row["path"]:
            raise RecordError(f"{where}: the path is empty")
        boxes = boxes_by_path.setdefault(row["path"], [])
        if any(row[name] for name in (*_COORDINATES, "label")):
            boxes.append((_box(row, where), _label(row, where)))
    return [_truth_image(Path(images_dir) / path, boxes) for path, boxes in boxes_by_path.items()]


def check_some_exist(truths: Sequence[GroundtruthImage], csv_path: Path | str, images_dir: Path | str) -> None:
    """Check that at least one image file exists. None does if `images_dir` is not the directory that the CSV's paths
    are relative to.

    Raises:
        RecordError: none exists. The message suggests the directory that contains the first image, if it is the
            directory of the CSV or directly below it.
    """
    if not truths or any(exists(truth.path) for truth in truths):
        return
    first = truths[0].path
    folder = Path(csv_path).parent
    below = _folder_with(first.relative_to(images_dir), folder) if first.is_relative_to(images_dir) else None
    first_dir = below or _folder_with(Path(first.name), folder)
    advice = f"give --images {shlex.quote(str(first_dir))}" if first_dir else "--images names their directory"
    raise RecordError(
        f"none of the {len(truths)} images of {csv_path} is in {images_dir} (the first would be {first}); {advice}"
    )


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
    missing = [name for name in _NAMES if name not in columns]
    if missing:
        cells = ", ".join(repr(cell) for cell in header) or "nothing"
        raise RecordError(f"{csv_path}:1: the header lacks {', '.join(missing)}; it has {cells}")
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


def _label(row: dict[str, str], where: str) -> str:
    if not row["label"]:
        raise RecordError(f"{where}: the box has no label")
    return row["label"]


def _truth_image(path: Path, boxes: list[tuple[list[float], str]]) -> GroundtruthImage:
    boxes_xyxy_px = np.array([box for box, _ in boxes], np.float32).reshape(-1, 4)
    return GroundtruthImage(path, boxes_xyxy_px, tuple(label for _, label in boxes))
