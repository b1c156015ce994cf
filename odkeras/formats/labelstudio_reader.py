"""Reads Label Studio's JSON: rectangles and polygons, in percent of the image; also its JSON_MIN."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from odkeras.annotation import Answer, Span
from odkeras.errors import OdkerasError, RecordError
from odkeras.formats.cvat_reader import turned_box
from odkeras.formats.label_files import (
    UNIT_SIZE_HW,
    LabelFile,
    LabelledImage,
    ReadNotes,
    box_span,
    labelled_image,
    polygon_span,
    read_label,
    read_objects,
    read_size_hw,
)
from odkeras.images import SUFFIXES
from odkeras.numeric import is_number

_KINDS = ("rectanglelabels", "polygonlabels")
_OTHER_KINDS = ("brushlabels", "keypointlabels", "ellipselabels", "choices", "textarea", "relations")


def read_labels(file: LabelFile, notes: ReadNotes) -> Iterator[LabelledImage]:
    """The tasks that have an annotation. Of several, the last that was not cancelled counts.

    Raises:
        RecordError: the file is not Label Studio's JSON.
    """
    for number, task in enumerate(_read_tasks(file)):
        where = f"{file.path}: task {repr(task.get('id', number))[:40] if isinstance(task, Mapping) else number}"
        try:
            if not isinstance(task, Mapping):
                raise RecordError(f"a task must be an object; got {repr(task)[:40]}")
            answer = _answer(task, where, file, notes)
        except OdkerasError as error:
            notes.refuse(where, error)
            continue
        if answer is not None:
            yield where, answer


def _read_tasks(file: LabelFile) -> list[Any]:
    try:
        tasks = msgspec.json.decode(file.path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except OSError as error:
        raise RecordError(f"cannot read {file.path}: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(f"{file.path} is not JSON: {error}") from error
    if not isinstance(tasks, list):
        raise RecordError(f"{file.path} is not Label Studio's JSON: it must be a list of tasks")
    return tasks


def _answer(task: Mapping[str, Any], where: str, file: LabelFile, notes: ReadNotes) -> Answer | None:
    data = task.get("data")
    image = _image_path(data if isinstance(data, Mapping) else task, task.get("file_upload"))
    results = _results(task)
    if results is None:
        notes.unlabelled += 1
        return None
    size_hw = next((size for result in results if (size := _size_hw(result)) is not None), None) or UNIT_SIZE_HW
    rows = ((f"{where}, result {number}", result) for number, result in enumerate(results, start=1))
    spans = read_objects(rows, lambda result: _span(result, size_hw, notes), notes)
    return None if spans is None else labelled_image(image, spans, size_hw, split=file.split)


def _results(task: Mapping[str, Any]) -> list[Any] | None:
    """The results of the annotation that counts; None if there is none."""
    annotations = task.get("annotations", task.get("completions"))
    if annotations is None and isinstance(task.get("label"), list):  # JSON_MIN
        return task["label"]
    if annotations is not None and not isinstance(annotations, list):
        raise RecordError(f"annotations must be a list; got {repr(annotations)[:40]}")
    done = [each for each in annotations or () if isinstance(each, Mapping) and not each.get("was_cancelled")]
    if not done:
        return None
    results = done[-1].get("result") or []
    if not isinstance(results, list):
        raise RecordError(f"result must be a list; got {repr(results)[:40]}")
    return results


def _image_path(data: Mapping[str, Any], uploaded: Any) -> str:
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    image = texts.get("image") or next((text for text in texts.values() if _is_image(text)), None) or uploaded
    if not isinstance(image, str):
        raise RecordError("the task names no image")
    return _local_name(image)


def _local_name(image: str) -> str:
    """`/data/local-files/?d=train/a.jpg` and URLs as paths."""
    try:
        parts = urlsplit(image)
    except ValueError:
        return image
    if "d" in (query := parse_qs(parts.query)):
        return query["d"][0]
    return unquote(parts.path) if parts.scheme or image.startswith("/data/") else image


def _is_image(text: str) -> bool:
    return _local_name(text).lower().endswith(tuple(SUFFIXES))


def _size_hw(result: Any) -> tuple[int, int] | None:
    if not isinstance(result, Mapping):
        return None
    return read_size_hw(result.get("original_height"), result.get("original_width"))


def _span(result: Any, size_hw: tuple[int, int], notes: ReadNotes) -> Span | None:
    if not isinstance(result, Mapping):
        raise RecordError(f"a result must be an object; got {repr(result)[:40]}")
    value = result.get("value", result)
    if not isinstance(value, Mapping):
        raise RecordError(f"value must be an object; got {repr(value)[:40]}")
    kind = next((kind for kind in (*_KINDS, *_OTHER_KINDS) if kind in value), str(result.get("type"))[:40])
    if kind not in _KINDS:
        notes.left_out[f"results of Label Studio's kind {kind}"] += 1
        return None
    labels = value[kind]
    if not isinstance(labels, list) or not labels:
        raise RecordError(f"{kind} must name a label; got {repr(labels)[:40]}")
    if len(labels) > 1:
        notes.left_out["second labels of one object"] += len(labels) - 1
    label, (height, width) = read_label(labels[0]), size_hw
    if kind == "polygonlabels":
        points = value.get("points")
        if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
            raise RecordError(f"points must be a list of [x, y]; got {repr(points)[:40]}")
        _check([coordinate for point in points for coordinate in point])
        return polygon_span(label, [[x * width / 100, y * height / 100] for x, y in points])
    x, y, box_width, box_height = _check([value.get(name) for name in ("x", "y", "width", "height")])
    corners = [x * width / 100, y * height / 100, (x + box_width) * width / 100, (y + box_height) * height / 100]
    angle = value.get("rotation") or 0
    if is_number(angle) and angle % 360:
        if size_hw == UNIT_SIZE_HW:
            raise RecordError("a turned rectangle needs original_width and original_height")
        return polygon_span(label, turned_box(corners, angle, (corners[0], corners[1])))
    return box_span(label, corners, notes)


def _check(values: list[Any]) -> list[float]:
    for value in values:
        if not is_number(value):
            raise RecordError(f"x, y, width and height must be finite numbers; got {repr(value)[:40]}")
    return values
