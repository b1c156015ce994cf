"""Per-class metrics, which the API's COCO and LVIS evaluators do not report with the public pycocotools and lvis.

Both compute a precision for every class. Within `listening()`, patched evaluators store it; `per_class` reads it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from object_detection.metrics import coco_tools, lvis_tools

ABSENT = -1.0
"""COCO's value of a metric without groundtruth. Means leave it out."""

_ALL_SIZES, _MOST_DETECTIONS = 0, -1  # indices of COCO's area range "all" and of its largest `maxDets`

_finished: dict[str, Any] = {}  # the evaluation that has just finished, under "COCO" or "LVIS"


class _CocoEval(coco_tools.COCOEvalWrapper):
    """The API's evaluator, plus `category_stats`.

    The API reads `category_stats` for `all_metrics_per_category`, but only a patched pycocotools sets it.
    """

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
    """Within this block, the API's evaluators store the evaluation that `per_class` reads.

    It patches two module attributes of the API, so it is not thread-safe.
    """
    usual = coco_tools.COCOEvalWrapper, lvis_tools.LVISEvalWrapper
    _finished.clear()
    coco_tools.COCOEvalWrapper, lvis_tools.LVISEvalWrapper = _CocoEval, _LvisEval
    try:
        yield
    finally:
        coco_tools.COCOEvalWrapper, lvis_tools.LVISEvalWrapper = usual


def per_class(prefix: str) -> dict[str, dict[str, float]]:
    """Average precision by metric, then by class name, of the last evaluation within `listening()`.

    Args:
        prefix: prefix of the metrics' names, for example "DetectionBoxes_".

    Returns:
        The metrics `<prefix>PerformanceByCategory/mAP` and `.../mAP@.50IOU` after COCO's evaluation, `.../AP` and
        `.../AP50` after LVIS'; {} after any other. `ABSENT` for a class without groundtruth.
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
    """The last evaluation within `listening()`, with all matches; None if it was not COCO's."""
    return _finished.get("COCO")


def per_super_category(
    by_class: Mapping[str, float], super_categories: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """The mean of each super-category over its classes with groundtruth; `ABSENT` if none has any."""
    return {
        name: mean(np.array([by_class.get(label, ABSENT) for label in labels]))
        for name, labels in super_categories.items()
    }


def mean(values: Any) -> float:
    """The mean of the values that are not `ABSENT`; `ABSENT` if all are. The mean of COCO's precisions is the AP."""
    present = values[values > ABSENT]
    return float(np.mean(present)) if present.size else ABSENT


def _of_each_class(figures: Any) -> list[float]:
    """The mean of each class, of an array (thresholds, recalls, classes)."""
    return [mean(figures[:, :, number]) for number in range(figures.shape[2])]


def _half(thresholds: Any) -> Any:
    return np.isclose(thresholds, 0.5)


def _category_stats(evaluated: Mapping[str, Any], params: Any) -> Any:
    """COCO's twelve metrics of each class, (12, classes), in the order of pycocotools' `stats`."""
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
