"""Results per class, which the API's COCO and LVIS evaluators do not tell with the public pycocotools and lvis.

Both keep a precision for every class while they work. `listening()` gets hold of it, `per_class` reads it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from object_detection.metrics import coco_tools, lvis_tools

ABSENT = -1.0
"""COCO's value for what there is no groundtruth of; the means leave it out."""

_ALL_SIZES, _MOST_DETECTIONS = 0, -1

_finished: dict[str, Any] = {}  # what has just evaluated, by whose metrics it computes


class _CocoEval(coco_tools.COCOEvalWrapper):
    """The API's, which computes what `all_metrics_per_category` asks for from `category_stats`; only a patched
    pycocotools has that."""

    def summarize(self) -> None:
        super().summarize()
        if self.params.iouType in ("bbox", "segm"):
            self.category_stats = _category_stats(self.eval, self.params)
            _finished["COCO"] = self


class _LvisEval(lvis_tools.LVISEvalWrapper):
    def run(self) -> None:
        super().run()
        _finished["LVIS"] = self


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """The API's evaluators, where they evaluate in this block, leave behind what `per_class` reads."""
    usual = coco_tools.COCOEvalWrapper, lvis_tools.LVISEvalWrapper
    _finished.clear()
    coco_tools.COCOEvalWrapper, lvis_tools.LVISEvalWrapper = _CocoEval, _LvisEval
    try:
        yield
    finally:
        coco_tools.COCOEvalWrapper, lvis_tools.LVISEvalWrapper = usual


def per_class(prefix: str) -> dict[str, dict[str, float]]:
    """Average precision by kind, then by the class's name, of the evaluation that has just ended in `listening()`.

    Args:
        prefix: of the kinds' names, for example "DetectionBoxes_".

    Returns:
        For COCO's metrics `<prefix>PerformanceByCategory/mAP` and `.../mAP@.50IOU`, for LVIS' `.../AP` and `.../AP50`;
        `ABSENT` for a class without groundtruth. Nothing after an evaluation of another kind.
    """
    if "COCO" in _finished:
        evaluation, kinds = _finished["COCO"], ("mAP", "mAP@.50IOU")
        names = [evaluation.GetCategory(number)["name"] for number in evaluation.GetCategoryIdList()]
        precision = evaluation.eval["precision"][:, :, :, _ALL_SIZES, _MOST_DETECTIONS]
        half = _half(evaluation.params.iouThrs)
    elif "LVIS" in _finished:
        evaluation, kinds = _finished["LVIS"], ("AP", "AP50")
        names = [evaluation.lvis_gt.cats[number]["name"] for number in evaluation.params.cat_ids]
        precision = evaluation.eval["precision"][:, :, :, _ALL_SIZES]
        half = _half(evaluation.params.iou_thrs)
    else:
        return {}
    values = (_of_each_class(precision), _of_each_class(precision[half]))
    return {
        f"{prefix}PerformanceByCategory/{kind}": dict(zip(names, each, strict=True))
        for kind, each in zip(kinds, values, strict=True)
    }


def finished_coco() -> Any | None:
    """COCO's evaluation that has just ended in `listening()`, with all matches; None if it was of another kind."""
    return _finished.get("COCO")


def per_super_category(
    by_class: Mapping[str, float], super_categories: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """The mean over the classes of each super-category, as far as there is groundtruth of them."""
    return {
        name: mean(np.array([by_class.get(label, ABSENT) for label in labels]))
        for name, labels in super_categories.items()
    }


def mean(values: Any) -> float:
    """The mean of what is not `ABSENT`; `ABSENT` if all is. Of precisions, it is the average precision."""
    present = values[values > ABSENT]
    return float(np.mean(present)) if present.size else ABSENT


def _of_each_class(figures: Any) -> list[float]:
    """Of thresholds x recalls x classes, the mean of each class."""
    return [mean(figures[:, :, number]) for number in range(figures.shape[2])]


def _half(thresholds: Any) -> Any:
    return np.isclose(thresholds, 0.5)


def _category_stats(evaluated: Mapping[str, Any], params: Any) -> Any:
    """COCO's twelve figures of each class, in the order of pycocotools' own `stats`: 12 x classes."""
    precision, recall = evaluated["precision"], evaluated["recall"]
    half, three_quarters = _half(params.iouThrs), np.isclose(params.iouThrs, 0.75)
    last = len(params.maxDets) - 1
    rows = [
        precision[..., _ALL_SIZES, last],
        precision[half][..., _ALL_SIZES, last],
        precision[three_quarters][..., _ALL_SIZES, last],
        *(precision[..., size, last] for size in (1, 2, 3)),
        *(recall[..., _ALL_SIZES, most][:, np.newaxis] for most in range(last + 1)),
        *(recall[..., size, last][:, np.newaxis] for size in (1, 2, 3)),
    ]
    return np.array([_of_each_class(row) for row in rows])
