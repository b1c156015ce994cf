"""Writes predictions as JSONL (tasks, for `odkeras annotate` and `db in`), CSV (for `records from-csv`) or COCO.

    report = write_predictions(predictions, file, "coco", names={1: "raccoon"})

The predictions are those of `serving.predict.predict_files`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from odkeras.errors import ConfigError
from odkeras.keypoints import VISIBLE
from odkeras.serving.predict import FilePrediction, Row

FORMATS = ("jsonl", "csv", "coco")
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".json": "coco"}
_COLUMNS = ("path", "xmin", "ymin", "xmax", "ymax", "label", "score")


@dataclass
class PredictionReport:
    """What was written.

    Args:
        images: number of images written, including those without boxes.
        boxes: total number of boxes.
        skipped: (file, reason) of each file that was not written.
    """

    images: int = 0
    boxes: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)


def choose_format(path: Path, given: str | None) -> str:
    """The given format; if None, the format that the file's suffix implies.

    Raises:
        ConfigError: an unknown format, or a suffix that implies none.
    """
    if given is not None and given not in FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(FORMATS)}; got {given!r}")
    format = given or _SUFFIXES.get(path.suffix.lower())
    if format is None:
        raise ConfigError(f"--out {path}: unknown suffix: use .jsonl, .csv or .json (COCO), or give --format")
    return format


def write_predictions(
    predictions: Iterable[FilePrediction], file: IO[str], format: str, *, names: Mapping[int, str]
) -> PredictionReport:
    """Write the predictions: JSONL and CSV line by line as they arrive, COCO at the end. Errors go to the report.

    Args:
        predictions: the predictions.
        file: a text file open for writing.
        format: one of `FORMATS`.
        names: class names by id, which become COCO's categories. An id without a name gets a category named by its
            label.
    """
    report = PredictionReport()
    usable = _usable(predictions, report)
    if format == "jsonl":
        for prediction in usable:
            file.write(json.dumps(_prodigy_task(prediction)) + "\n")
    elif format == "csv":
        table = csv.writer(file, lineterminator="\n")
        table.writerow(_COLUMNS)
        for prediction in usable:
            table.writerows(_csv_rows(prediction))
    else:
        json.dump(_coco_document(usable, names), file)
        file.write("\n")
    return report


def _usable(predictions: Iterable[FilePrediction], report: PredictionReport) -> Iterable[FilePrediction]:
    for prediction in predictions:
        if prediction.image is None:
            report.skipped.append((str(prediction.path), prediction.error))
            continue
        report.images += 1
        report.boxes += len(prediction.boxes)
        yield prediction


def _prodigy_task(prediction: FilePrediction) -> Row:
    assert prediction.image is not None
    height, width = prediction.image.image_size_hw
    place = prediction.place
    about = {"image_id": prediction.image.image_id, "meta": {"file": prediction.file}}
    spans = [_prodigy_span(box) for box in prediction.boxes]
    return {"image": place, "path": place, "width": width, "height": height, **about, "spans": spans}


def _prodigy_span(box: Row) -> Row:
    x, y, right, bottom = (box[name] for name in ("xmin", "ymin", "xmax", "ymax"))
    shape = {"type": "rect", "x": x, "y": y, "width": round(right - x, 1), "height": round(bottom - y, 1)}
    points = [[x, y], [x, bottom], [right, bottom], [right, y]]
    return {"label": box["label"], **shape, "points": points, "score": box["score"]}


def _csv_rows(prediction: FilePrediction) -> list[list[Any]]:
    path = prediction.place
    rows = [[path, *(box[name] for name in _COLUMNS[1:])] for box in prediction.boxes]
    return rows or [[path, *[""] * (len(_COLUMNS) - 1)]]


def _coco_document(predictions: Iterable[FilePrediction], names: Mapping[int, str]) -> Row:
    """COCO's detection JSON. Its annotations have scores; the `annotations` list alone is in COCO's results format."""
    images: list[Row] = []
    annotations: list[Row] = []
    categories = dict(names)
    keypoints: dict[int, list[str]] = {}
    for number, prediction in enumerate(predictions, start=1):
        assert prediction.image is not None
        height, width = prediction.image.image_size_hw
        name = prediction.place
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for box in prediction.boxes:
            categories.setdefault(box["class_id"], box["label"])
            _note_keypoint_names(keypoints, box)
            annotations.append(_coco_annotation(len(annotations) + 1, number, box))
    return {
        "info": {"description": "predictions, written by odkeras"},
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": id, "name": categories[id]} | ({"keypoints": keypoints[id]} if id in keypoints else {})
            for id in sorted(categories)
        ],
    }


def _note_keypoint_names(names: dict[int, list[str]], box: Row) -> None:
    """Add the names of the keypoints of a box to those of its class. One that no box has gets its number."""
    points = box.get("keypoints", ())
    known = names.setdefault(box["class_id"], [str(id) for id in range(len(points))]) if points else []
    for id, point in enumerate(points):
        if point is not None:
            known[id] = point["name"]


def _coco_annotation(id: int, image_id: int, box: Row) -> Row:
    width, height = round(box["xmax"] - box["xmin"], 1), round(box["ymax"] - box["ymin"], 1)
    return {
        "id": id,
        "image_id": image_id,
        "category_id": box["class_id"],
        "bbox": [box["xmin"], box["ymin"], width, height],
        "area": round(width * height, 2),
        "iscrowd": 0,
        "score": box["score"],
        **_coco_keypoints(box),
    }


def _coco_keypoints(box: Row) -> Row:
    """COCO's [x, y, visibility, ...] and the number of keypoints that were found; {} if the model predicts none."""
    if "keypoints" not in box:
        return {}
    points = box["keypoints"]
    values = [value for point in points for value in ((point["x"], point["y"], VISIBLE) if point else (0, 0, 0))]
    return {"keypoints": values, "num_keypoints": sum(point is not None for point in points)}
