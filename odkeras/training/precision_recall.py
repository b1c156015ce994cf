"""Precision-recall curves, from the matches that COCO's evaluation makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

THRESHOLDS = 101
"""Number of score thresholds of a precision-recall curve, evenly spaced from 0 to 1."""

ALL_CLASSES = "all classes"
MAX_CLASSES = 10
"""Maximum number of single classes with a precision-recall curve."""

ALL_SIZES = 0
"""Index of COCO's area range "all"."""

_Counts = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PrecisionRecallCurve:
    """True and false positives at each score threshold. Adding two curves adds their counts.

    Args:
        true_positives: float64 (THRESHOLDS,): detections with at least that score that match an object (IoU >= 0.5).
        false_positives: float64 (THRESHOLDS,): detections with at least that score that match none.
        objects: number of groundtruth objects.
    """

    true_positives: _Counts
    false_positives: _Counts
    objects: int

    @classmethod
    def from_matches(cls, scores: Any, matched: Any, objects: int) -> PrecisionRecallCurve:
        """The curve of N detections.

        Args:
            scores: (N,), 0 to 1.
            matched: (N,), whether each detection matches an object.
            objects: number of groundtruth objects.
        """
        thresholds = np.floor(np.clip(scores, 0.0, 1.0) * (THRESHOLDS - 1)).astype(int)
        matched = np.asarray(matched, bool)

        def at_least(thresholds: Any) -> _Counts:
            return np.cumsum(np.bincount(thresholds, minlength=THRESHOLDS)[::-1])[::-1].astype(float)

        return cls(at_least(thresholds[matched]), at_least(thresholds[~matched]), objects)

    @property
    def false_negatives(self) -> _Counts:
        """float64 (THRESHOLDS,): objects that no detection with at least that score matches."""
        return self.objects - self.true_positives

    @property
    def precision(self) -> _Counts:
        """float64 (THRESHOLDS,). 0 where there are no detections; TensorBoard skips those thresholds."""
        return self.true_positives / np.maximum(self.true_positives + self.false_positives, 1e-7)

    @property
    def recall(self) -> _Counts:
        """float64 (THRESHOLDS,). 0 if there are no objects."""
        return self.true_positives / max(self.objects, 1)

    def __add__(self, other: PrecisionRecallCurve) -> PrecisionRecallCurve:
        return PrecisionRecallCurve(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.objects + other.objects,
        )


def coco_curves(evaluation: Any) -> dict[str, PrecisionRecallCurve]:
    """Curves keyed by class name: all classes together first, then the `MAX_CLASSES` classes with the most objects.

    Args:
        evaluation: a `COCOEvalWrapper` that has evaluated boxes or masks.

    Returns:
        An empty dict if there are no objects.
    """
    by_class: dict[str, PrecisionRecallCurve] = {}
    images = len(evaluation.params.imgIds)
    for number, category in enumerate(evaluation.params.catIds):
        start = (number * len(evaluation.params.areaRng) + ALL_SIZES) * images
        curve = _curve_of_class(evaluation.evalImgs[start : start + images], evaluation.params.iouThrs)
        if curve.objects:
            by_class[evaluation.GetCategory(category)["name"]] = curve
    if not by_class:
        return {}
    first, *others = by_class.values()
    largest = sorted(by_class, key=lambda name: -by_class[name].objects)[:MAX_CLASSES]
    return {ALL_CLASSES: sum(others, first), **{name: by_class[name] for name in by_class if name in largest}}


def _curve_of_class(results: Sequence[Any], iou_thresholds: Any) -> PrecisionRecallCurve:
    """The curve of one class, given COCOeval's result of each image."""
    half = int(np.flatnonzero(np.isclose(iou_thresholds, 0.5))[0])
    scores, matched, objects = [np.zeros(0)], [np.zeros(0, bool)], 0
    for result in results:
        if result is None:  # an image with neither objects nor detections of the class
            continue
        counts = ~np.asarray(result["dtIgnore"])[half].astype(bool)
        scores.append(np.asarray(result["dtScores"], float)[counts])
        matched.append(np.asarray(result["dtMatches"])[half][counts] > 0)
        objects += int(np.sum(np.asarray(result["gtIgnore"]) == 0))
    return PrecisionRecallCurve.from_matches(np.concatenate(scores), np.concatenate(matched), objects)
