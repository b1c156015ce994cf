"""Precision-recall curves, computed from COCO's matches at IoU 0.5."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

THRESHOLDS = 101
"""Number of score thresholds, evenly spaced from 0 to 1."""

ALL_CLASSES = "all classes"
MOST_CLASSES = 10
"""Maximum number of single classes with a curve in TensorBoard."""

_ALL_SIZES = 0  # index of COCO's area range "all"
_Counts = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """True and false positives at each score threshold. Adding two curves adds their counts.

    Args:
        true_positives: float64 (THRESHOLDS,): detections with at least that score that match an object (IoU >= 0.5).
        false_positives: float64 (THRESHOLDS,): detections with at least that score that match none.
        objects: number of groundtruth objects.
    """

    true_positives: _Counts
    false_positives: _Counts
    objects: int

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

    def __add__(self, other: Curve) -> Curve:
        return Curve(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.objects + other.objects,
        )


def curve_of(scores: Any, matched: Any, objects: int) -> Curve:
    """The curve of N detections.

    Args:
        scores: (N,), 0 to 1.
        matched: (N,), whether each detection matches an object.
        objects: number of groundtruth objects.
    """
    places = np.floor(np.clip(scores, 0.0, 1.0) * (THRESHOLDS - 1)).astype(int)
    hits = np.asarray(matched, bool)
    return Curve(_at_least(places[hits]), _at_least(places[~hits]), objects)


def coco_curves(evaluation: Any) -> dict[str, Curve]:
    """Curves keyed by class name: all classes together first, then the `MOST_CLASSES` classes with the most objects.

    Args:
        evaluation: a `COCOEvalWrapper` that has evaluated boxes or masks.

    Returns:
        An empty dict if there are no objects.
    """
    by_class: dict[str, Curve] = {}
    images = len(evaluation.params.imgIds)
    half = int(np.flatnonzero(np.isclose(evaluation.params.iouThrs, 0.5))[0])
    for number, category in enumerate(evaluation.params.catIds):
        first = (number * len(evaluation.params.areaRng) + _ALL_SIZES) * images
        curve = _of_images(evaluation.evalImgs[first : first + images], half)
        if curve.objects:
            by_class[evaluation.GetCategory(category)["name"]] = curve
    if not by_class:
        return {}
    first_curve, *others = by_class.values()
    together = sum(others, first_curve)
    most = sorted(by_class, key=lambda name: -by_class[name].objects)[:MOST_CLASSES]
    return {ALL_CLASSES: together, **{name: curve for name, curve in by_class.items() if name in most}}


def _of_images(results: Iterable[Any], half: int) -> Curve:
    """The curve of one class, given COCOeval's result of each image.

    COCOeval has None for an image with neither objects nor detections of the class.
    """
    found = [each for each in results if each is not None]
    scores = [np.asarray(each["dtScores"], float)[~_ignored(each, half)] for each in found]
    matched = [np.asarray(each["dtMatches"])[half][~_ignored(each, half)] > 0 for each in found]
    objects = sum(int(np.sum(np.asarray(each["gtIgnore"]) == 0)) for each in found)
    return curve_of(np.concatenate([[], *scores]), np.concatenate([np.zeros(0, bool), *matched]), objects)


def _ignored(result: Any, half: int) -> Any:
    return np.asarray(result["dtIgnore"])[half].astype(bool)


def _at_least(places: Any) -> _Counts:
    return np.cumsum(np.bincount(places, minlength=THRESHOLDS)[::-1])[::-1].astype(float)
