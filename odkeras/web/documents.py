"""Tasks and boxes as the page gets them."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from odkeras import boxes as box_ops
from odkeras.annotation import Span, Task
from odkeras.formats.spans import write_keypoint, write_span
from odkeras.metrics import MIN_PICKABLE_SCORE
from odkeras.web import replies
from odkeras.web.requests import read_fields

_SHOWN_IOU = 0.9  # a candidate that overlaps more with a box of the task is that box


def span_document(span: Span) -> replies.Span:
    """A box."""
    own = replace(span, other={})  # keys of other tools may have other types
    return read_fields(replies.Span, {"id": "", **write_span(own)})


def task_document(task: Task) -> replies.Task:
    """The parts of a task that the page gets; file system paths are left out."""
    height, width = task.size_hw
    return replies.Task(
        image_id=task.image_id,
        image=f"/images/{task.image_id}",
        width=width,
        height=height,
        file=task.file,
        spans=[span_document(span) for span in task.spans],
        candidates=_candidates(task),
        version=task.version,
        threshold=None if task.suggestions is None else task.suggestions.threshold,
    )


def _candidates(task: Task) -> list[replies.Candidate]:
    """The model's detections that the annotator can pick: without those that the task's boxes show already."""
    if task.suggestions is None or task.suggestions.hidden:
        return []
    spans = [span for span in task.suggestions.candidates if (span.score or 0.0) >= MIN_PICKABLE_SCORE]
    overlap = box_ops.iou([span.xyxy_px for span in spans], [span.xyxy_px for span in task.spans])
    free = [span for span, shares in zip(spans, overlap, strict=True) if not (shares > _SHOWN_IOU).any()]
    return [_candidate(span) for span in free]


def _candidate(span: Span) -> replies.Candidate:
    left, top, right, bottom = span.xyxy_px
    rect = (round(left, 1), round(top, 1), round(right - left, 1), round(bottom - top, 1))
    keypoints = [read_fields(replies.Keypoint, write_keypoint(point)) for point in span.keypoints]
    return replies.Candidate(span.label, rect, span.score or 0.0, keypoints or msgspec.UNSET)
