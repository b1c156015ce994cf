"""Prodigy's records: JSON objects for tasks and answers. The answer database, the inbox and JSONL files have the same.

Spans are in pixels of the upright image, with the origin at the top left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from odkeras import boxes as box_ops
from odkeras.annotation import (
    Annotation,
    Answer,
    Decision,
    Span,
    Suggestions,
    Task,
)
from odkeras.boxes import FloatArray, Groundtruth
from odkeras.errors import AnswerError, ImageError, LabelMapError
from odkeras.formats.spans import (
    keypoints_of_span,
    read_span,
    readable_candidates,
    readable_spans,
    write_candidate,
    write_span,
)
from odkeras.image_ref import ImageRef, is_data_uri
from odkeras.images import DEFAULT_MAX_PIXELS, EncodedImage
from odkeras.labels import LabelMap
from odkeras.numeric import is_number, is_whole
from odkeras.splits import own_split
from odkeras.text import is_utf8

Record = dict[str, Any]
"""A task or an answer as JSON."""
T = TypeVar("T")
HASHES = ("_input_hash", "_task_hash")
"""Keys of Prodigy's hashes, which it makes itself."""
_MAX_TIMESTAMP_S = 1e12
_MAX_VERSION = 2**63 - 1  # a directory name of TensorFlow Serving
_KEYS = frozenset(
    {
        *("image_id", "image", "path", "height", "width", "meta", "spans", "_suggestions"),
        *("answer", "_view_id", "_timestamp", "_session_id", "_annotator_id", "_active_s"),
    }
)
"""Keys that `Task` and `Answer` have fields for."""


@dataclass(frozen=True)
class ReadAnnotation:
    """What the trainer learns from an answer.

    Args:
        annotation: what to train on, if the answer was "accept".
        withdrawn_image_id: the image that must not be trained on (any longer), if it was "reject" or "ignore".
        problems: what was left out of an accepted answer, each with its reason.
    """

    annotation: Annotation | None
    withdrawn_image_id: str | None
    problems: tuple[str, ...] = ()


def write_task(task: Task) -> Record:
    """The task as a record for `image_manual`. `_suggestions` keeps what was suggested, for comparisons."""
    record: Record = {**task.other, "image_id": task.image_id}
    if task.image:
        record["image"] = task.image if isinstance(task.image, str) else task.image.data_uri
    if task.path is not None:
        record["path"] = task.path
    if task.image_size_hw is not None:
        record["height"], record["width"] = task.image_size_hw
    record["meta"] = write_meta(task)
    record["spans"] = [write_span(span) for span in task.spans]
    if task.suggestions is not None:
        record["_suggestions"] = _write_suggestions(task.suggestions)
    return record


def write_meta(task: Task) -> dict[str, Any]:
    """The facts that `image_manual` shows with the image: the file's name, and about suggestions that are not hidden
    the highest score and the model version."""
    meta = {**task.meta, "file": task.file}
    if task.suggestions is None or task.suggestions.hidden:
        return meta
    scores = [span.score for span in task.suggestions.spans if span.score is not None]
    facts = {"score": max(scores, default=None), "model version": task.suggestions.version}
    return {**meta, **{name: value for name, value in facts.items() if value is not None}}


def _write_suggestions(suggestions: Suggestions) -> Record:
    spans = [write_span(span) for span in suggestions.spans]
    record: Record = {
        "version": suggestions.version,
        "threshold": suggestions.threshold,
        "spans": [] if suggestions.hidden else spans,
        "uncertainty": suggestions.uncertainty,
    }
    if suggestions.candidates:
        record["candidates"] = [write_candidate(span) for span in suggestions.candidates]
    return {**record, "control": True, "hidden_spans": spans} if suggestions.hidden else record


def read_task(record: Record, image_id: str | None = None) -> Task:
    """The task of a record, or of an answer, whose spans it then has. What cannot be read is left out. Never raises.

    Args:
        image_id: the id of its image; None = the record's own.
    """
    image, path, id = (record.get(key) for key in ("image", "path", "image_id"))
    height, width = record.get("height"), record.get("width")
    size_hw = None
    if is_number(height) and is_number(width) and height >= 1 and width >= 1:
        size_hw = (int(height), int(width))
    meta = dict(record["meta"]) if isinstance(record.get("meta"), Mapping) else {}
    meta.pop("file", None)
    suggestions = _read_suggestions(record.get("_suggestions"))
    if suggestions is not None:
        meta.pop("score", None)
        meta.pop("model version", None)
    return Task(
        image_id=image_id or (id if isinstance(id, str) else ""),
        file=_file_name(record, image_id),
        image=image if isinstance(image, str) else "",
        image_size_hw=size_hw,
        path=path if isinstance(path, str) else None,
        spans=tuple(readable_spans(record.get("spans"))),
        suggestions=suggestions,
        meta=meta,
        other={key: value for key, value in record.items() if key not in _KEYS},
    )


def _read_suggestions(record: Any) -> Suggestions | None:
    if not isinstance(record, Mapping):
        return None
    version, threshold, uncertainty = (record.get(key) for key in ("version", "threshold", "uncertainty"))
    hidden = bool(record.get("control"))
    return Suggestions(
        version=version if is_whole(version, 0, _MAX_VERSION) else None,
        threshold=float(threshold) if is_number(threshold) else 0.0,
        spans=tuple(readable_spans(record.get("hidden_spans" if hidden else "spans"))),
        hidden=hidden,
        candidates=tuple(readable_candidates(record.get("candidates"))),
        uncertainty=float(uncertainty) if is_number(uncertainty) else 0.0,
    )


def write_answer(answer: Answer) -> Record:
    """The answer as Prodigy stores it. `_session_id` and `_annotator_id` are the session."""
    record = write_task(answer.task)
    record |= {"answer": answer.decision.value, "_view_id": "image_manual"}
    if answer.answered_at is not None:
        record["_timestamp"] = int(answer.answered_at)
    if answer.active_s is not None:
        record["_active_s"] = round(answer.active_s, 1)
    if answer.session:
        record |= {"_session_id": answer.session, "_annotator_id": answer.session}
    return record


def read_answer(record: Record, image_id: str | None = None) -> Answer:
    """The answer of a record. What cannot be read of its task is left out.

    Args:
        image_id: the id of its image; None = the record's own.

    Raises:
        AnswerError: it has no known decision.
    """
    session, active_s = (record.get(key) for key in ("_session_id", "_active_s"))
    return Answer(
        read_task(record, image_id),
        _read_decision(record),
        session if isinstance(session, str) else "",
        _answered_at(record),
        float(active_s) if is_number(active_s) and active_s >= 0 else None,
    )


def _answered_at(record: Record) -> float | None:
    at = record.get("_timestamp")
    return float(at) if is_number(at, _MAX_TIMESTAMP_S) else None


def read_annotation(
    answer: Record, label_map: LabelMap, *, batch: str = "", max_pixels: int = DEFAULT_MAX_PIXELS
) -> ReadAnnotation:
    """What the trainer learns from an answer.

    An accepted answer without spans is an image without objects. One whose spans are all unusable is not: it raises.

    Raises:
        AnswerError: the image cannot be read, no box is usable, or it is not an answer.
    """
    if not isinstance(answer, dict):
        raise AnswerError(f"an answer must be a JSON object; got {type(answer).__name__}")
    if _read_decision(answer) is not Decision.ACCEPT:
        return ReadAnnotation(None, _given_id(answer) or _read_image(answer, max_pixels).image_id)
    image = _read_image(answer, max_pixels)
    file = _file_name(answer)
    objects, problems = _read_objects(answer, image, label_map, file)
    boxes = np.array([item.box for item in objects], np.float32)
    groundtruth = Groundtruth(boxes, np.array([item.class_id for item in objects], np.int32))
    if label_map.num_keypoints:
        keypoints = np.array([item.keypoints for item in objects], np.float32)
        groundtruth = replace(groundtruth, keypoints=keypoints.reshape(len(objects), label_map.num_keypoints, 3))
    polygons = tuple(item.polygon for item in objects)
    image_id = _given_id(answer) or image.image_id
    split = own_split(answer.get("split")) or ""
    answered_s = _answered_at(answer)
    annotation = Annotation(image, groundtruth, image_id, file, batch, polygons, split, answered_s)
    return ReadAnnotation(annotation, None, problems)


def _read_decision(answer: Record) -> Decision:
    try:
        return Decision(answer.get("answer"))
    except ValueError as error:
        got = repr(answer.get("answer"))[:40]
        raise AnswerError(f"{_file_name(answer)}: answer must be 'accept', 'reject' or 'ignore'; got {got}") from error


class _Object(NamedTuple):
    """One usable span: label-map id, box (4,), polygon (V, 2) unless it is a rectangle, and keypoints (K, 3)."""

    class_id: int
    box: FloatArray
    polygon: FloatArray | None
    keypoints: FloatArray


def _given_id(answer: Record) -> str | None:
    """The answer's own id of its image. One that is not UTF-8 (a lone surrogate) cannot be written to a record."""
    image_id = answer.get("image_id")
    if not isinstance(image_id, str) or not image_id:
        return None
    if not is_utf8(image_id):
        raise AnswerError(f"image_id is not valid text: {image_id[:80]!r}")
    return image_id


def _file_name(answer: Record, image_id: str | None = None) -> str:
    """A name for people: the task's own, else that of the image's file, else its id."""
    meta = answer.get("meta")
    if isinstance(meta, dict) and isinstance(meta.get("file"), str) and meta["file"]:
        return str(meta["file"])
    for key in ("path", "image"):
        value = answer.get(key)
        if isinstance(value, str) and value and not is_data_uri(value):
            return value.partition("?")[0].rstrip("/").rpartition("/")[2] or value
    own = answer.get("image_id")
    return image_id or (own if isinstance(own, str) and own else "image")


def _read_image(answer: Record, max_pixels: int) -> EncodedImage:
    source = _file_name(answer)
    reference = ImageRef.of_record(answer, name=source)
    if not reference.places:
        raise AnswerError(f"{source}: the answer has neither 'image' nor 'path'")
    try:
        return reference.read(image_id=_given_id(answer) or "", max_pixels=max_pixels)
    except ImageError as error:
        raise AnswerError(f"{error.source or source}: {error.reason}") from error


def _read_objects(
    answer: Record, image: EncodedImage, label_map: LabelMap, file: str
) -> tuple[list[_Object], tuple[str, ...]]:
    size_hw = _frame_hw(answer, image.image_size_hw, file)
    return convert_spans(answer, lambda span: _read_object(span, size_hw, label_map), where=f"{file}: ")


def convert_spans(answer: Record, convert: Callable[[Span], T], *, where: str = "") -> tuple[list[T], tuple[str, ...]]:
    """The converted spans of an accepted answer, and why each of the others was left out.

    Args:
        convert: raises AnswerError or LabelMapError for a span that cannot be used.
        where: stands before each reason.

    Raises:
        AnswerError: `spans` is not a list, or it has spans and none is usable: the image's objects are not known.
    """
    spans = answer.get("spans") or []
    if not isinstance(spans, list):
        raise AnswerError(f"{where}'spans' must be a list; got {type(spans).__name__}")
    usable: list[T] = []
    problems: list[str] = []
    for number, span in enumerate(spans, start=1):
        try:
            usable.append(convert(read_span(span)))
        except (AnswerError, LabelMapError) as error:
            problems.append(f"{where}span {number}: {error}")
    if spans and not usable:
        raise AnswerError(f"accepted, but none of its {len(spans)} spans is usable: {'; '.join(problems)}")
    return usable, tuple(problems)


def _frame_hw(answer: Record, image_size_hw: tuple[int, int], file: str) -> tuple[float, float]:
    """The size that the spans refer to: the answer's own, if it has one. Another scale will do, another shape not."""
    width, height = answer.get("width"), answer.get("height")
    if not is_number(width) or not is_number(height) or width <= 0 or height <= 0:
        return image_size_hw
    if width < 1 or height < 1:
        raise AnswerError(f"{file}: 'width' and 'height' must be at least 1 pixel; got {width} x {height}")
    if not box_ops.has_same_shape((height, width), image_size_hw):
        actual = f"{image_size_hw[1]} x {image_size_hw[0]}"
        raise AnswerError(f"{file}: the spans are for an image of {width} x {height}, but this one has {actual} pixels")
    return height, width


def _read_object(span: Span, size_hw: tuple[float, float], label_map: LabelMap) -> _Object:
    class_id = label_map.id_of(span.label)
    if max(span.xyxy_px) <= 1 and min(span.xyxy_px) >= 0:
        advice = "multiply x by the image's width and y by its height"
        raise AnswerError(f"the coordinates of {span.label!r} are from 0 to 1; they must be pixels: {advice}")
    box, polygon = span.outline(size_hw)
    if box_ops.area(box[None])[0] <= 0:
        raise AnswerError(f"{span.label!r} has no area inside the image")
    return _Object(class_id, box, polygon, keypoints_of_span(span, label_map, size_hw))
