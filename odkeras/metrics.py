"""Detection metrics: COCO mAP, and the number of edits that an annotator has to make."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from odkeras import boxes as box_ops
from odkeras.annotation import EditCounts
from odkeras.boxes import Detections, FloatArray, Groundtruth
from odkeras.errors import SetupError

MATCH_IOU = 0.5
KEEP_IOU = 0.8
"""From this IoU on, people leave a suggested box as it is; see `EditCounts.kept_80`."""
MIN_PICKABLE_SCORE = 0.05
"""Minimum score of a candidate in the page. Models that have hardly learned anything detect a lot below it."""
MAX_LOOKS = 3
"""Candidates under the pointer that a simulated annotator looks at before drawing a box."""
POINTING_SPREAD = 0.25
"""How far from its middle people point at an object, as a share of its size; the same as in candidates.ts."""
_SAME_IOU = 0.8
_NAMES = ("mAP", "mAP50", "mAP75")


def count_edits(truth: Groundtruth, suggestions: Detections, picked: Sequence[bool] | None = None) -> EditCounts:
    """Match suggestions to ground truth boxes, and count the edits between them.

    The matching is one-to-one and greedy by descending IoU (at least 0.5), first within each class. The remaining
    boxes are then matched across classes; those pairs count as relabelled.

    Args:
        picked: for each ground truth box, whether it was picked from the candidates if no suggestion matches it; None
            = none was.
    """
    ious = np.nan_to_num(box_ops.iou(truth.boxes, suggestions.boxes))
    same_class = truth.classes[:, None] == suggestions.classes[None, :]
    free_truth, free_suggestions = set(range(len(truth))), set(range(len(suggestions)))
    matched = _take_pairs(np.where(same_class, ious, 0.0), free_truth, free_suggestions)
    relabelled = len(_take_pairs(ious, free_truth, free_suggestions))
    kept = sum(iou >= 0.9 for iou in matched)
    return EditCounts(
        kept=kept,
        kept_80=sum(iou >= KEEP_IOU for iou in matched),
        adjusted=len(matched) - kept,
        relabelled=relabelled,
        deleted=len(free_suggestions),
        added=len(free_truth),
        picked=sum(picked[index] for index in free_truth) if picked is not None else 0,
    )


def can_be_picked(truth: Groundtruth, candidates: Detections) -> list[bool]:
    """For each ground truth box, whether an annotator finds a candidate, of any class, with an IoU of at least
    `KEEP_IOU` with it. Picking it gives the box; the annotator has chosen the label before.

    The annotator points at the middle of the object and looks at `MAX_LOOKS` candidates at most, in the order of the
    page (`candidatesAt` in frontend/src/candidates.ts).
    """
    shown = candidates.scores >= MIN_PICKABLE_SCORE
    boxes, scores = candidates.boxes[shown], candidates.scores[shown]
    return [bool(np.any(_candidates_at(box, boxes, scores) >= KEEP_IOU)) for box in truth.boxes]


def _candidates_at(target: FloatArray, boxes: FloatArray, scores: FloatArray) -> FloatArray:
    """The IoU of the target, (4,), with the first candidates under its middle."""
    middle, middles = (target[:2] + target[2:]) / 2, (boxes[:, :2] + boxes[:, 2:]) / 2
    sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    distance = np.linalg.norm((middles - middle) / sizes, axis=1)
    rank = scores / np.prod(sizes, axis=1) ** 0.25 * np.exp(-0.5 * (distance / POINTING_SPREAD) ** 2)
    is_under = np.all((boxes[:, :2] <= middle) & (middle <= boxes[:, 2:]), axis=1)
    looked_at: list[int] = []
    for index in np.argsort(-rank, kind="stable"):
        if is_under[index] and not np.any(box_ops.iou(boxes[[index]], boxes[looked_at]) > _SAME_IOU):
            looked_at.append(int(index))
            if len(looked_at) == MAX_LOOKS:
                break
    return np.nan_to_num(box_ops.iou(target[None], boxes[looked_at]))[0]


def coco_map(
    groundtruths: Sequence[Groundtruth], detections: Sequence[Detections], image_sizes_hw: Sequence[tuple[int, int]]
) -> dict[str, float]:
    """COCO's mAP (IoU 0.50:0.95), mAP50 and mAP75, computed by pycocotools.

    The three sequences have one entry per image. Detections in images without ground truth count as false positives.

    Returns:
        "mAP", "mAP50" and "mAP75", 0..1; all are -1.0, COCO's "undefined", if no image has ground truth.

    Raises:
        SetupError: pycocotools is not installed.
        ValueError: the sequences differ in length.
    """
    images = list(zip(groundtruths, detections, image_sizes_hw, strict=True))
    truth = [row for number, (true, _, size_hw) in enumerate(images) for row in _truth_rows(true, size_hw, number)]
    rows = [row for number, (_, seen, size_hw) in enumerate(images) for row in _detection_rows(seen, size_hw, number)]
    if not truth:
        return dict.fromkeys(_NAMES, -1.0)
    if not rows:
        return dict.fromkeys(_NAMES, 0.0)
    stats = _evaluate([{**row, "id": number} for number, row in enumerate(truth, start=1)], rows, len(images))
    return {name: max(0.0, float(value)) for name, value in zip(_NAMES, stats, strict=False)}


def _take_pairs(ious: np.ndarray, free_rows: set[int], free_columns: set[int]) -> list[float]:
    """Greedily pair free rows and columns with an IoU of at least `MATCH_IOU`, best first.

    Removes the paired indices from both sets, and returns the IoU of each pair.
    """
    rows = []
    for flat in np.argsort(-ious, axis=None, kind="stable"):
        row, column = divmod(int(flat), ious.shape[1])
        if ious[row, column] < MATCH_IOU:
            break
        if row in free_rows and column in free_columns:
            free_rows.remove(row)
            free_columns.remove(column)
            rows.append(float(ious[row, column]))
    return rows


def _truth_rows(truth: Groundtruth, size_hw: tuple[int, int], image_id: int) -> list[dict[str, Any]]:
    rows = _rows(truth.boxes, truth.classes, size_hw, image_id)
    return [{**row, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0} for row in rows]


def _detection_rows(seen: Detections, size_hw: tuple[int, int], image_id: int) -> list[dict[str, Any]]:
    finite = np.isfinite(seen.boxes).all(axis=1) & np.isfinite(seen.scores)
    rows = _rows(seen.boxes[finite], seen.classes[finite], size_hw, image_id)
    return [{**row, "score": float(score)} for row, score in zip(rows, seen.scores[finite], strict=True)]


def _rows(boxes: np.ndarray, classes: np.ndarray, size_hw: tuple[int, int], image_id: int) -> list[dict[str, Any]]:
    xyxy_px = box_ops.to_xyxy_px(boxes, size_hw).astype(float)
    xywh_px = np.concatenate([xyxy_px[:, :2], xyxy_px[:, 2:] - xyxy_px[:, :2]], axis=1).tolist()
    return [
        {"image_id": image_id, "category_id": int(class_id), "bbox": box}
        for class_id, box in zip(classes, xywh_px, strict=True)
    ]


def _evaluate(truth: list[dict[str, Any]], detections: list[dict[str, Any]], image_count: int) -> Sequence[float]:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise SetupError("mAP needs pycocotools; run 'pip install pycocotools'") from error
    coco = COCO()
    categories = sorted({row["category_id"] for row in truth + detections})
    coco.dataset = {
        "info": {},
        "images": [{"id": number} for number in range(image_count)],
        "categories": [{"id": category} for category in categories],
        "annotations": truth,
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and results
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)
