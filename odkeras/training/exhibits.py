"""Visualizations of an evaluation, besides its metrics: a few examples with their detections, and PR curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from odkeras.boxes import Detections, Groundtruth
from odkeras.training.curves import Curve
from odkeras.training.panels import fitted, from_any_range

MOST_EXAMPLES = 4


@dataclass(frozen=True, eq=False)
class ComparedExample:
    """One evaluated example.

    Args:
        image: uint8 (H, W, 3), resized by `panels.fitted`.
        truth: groundtruth boxes.
        found: all detections, of any score.
    """

    image: Any
    truth: Groundtruth
    found: Detections


@dataclass(frozen=True)
class Exhibits:
    """The visualizations of one evaluation.

    Args:
        examples: examples of the first reader, the same ones in every evaluation of the same examples.
        curves: precision-recall curves by metric name, such as "precision_recall/all classes".
    """

    examples: tuple[ComparedExample, ...] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)


class Gallery:
    """Keeps the first `MOST_EXAMPLES` examples with objects, filled up with the first ones without objects."""

    def __init__(self) -> None:
        self._with_objects: list[ComparedExample] = []
        self._without: list[ComparedExample] = []

    def add(self, eval_dict: Mapping[str, Any]) -> None:
        """Add one example, in the form that `model_lib_v2.prepare_eval_dict` returns."""
        has_objects = eval_dict["groundtruth_boxes"].shape[1] > 0
        kept = self._with_objects if has_objects else self._without
        if len(self._with_objects) < MOST_EXAMPLES and len(kept) < MOST_EXAMPLES:
            kept.append(_example_of(eval_dict))

    def examples(self) -> tuple[ComparedExample, ...]:
        """At most `MOST_EXAMPLES`, those with objects first."""
        return tuple([*self._with_objects, *self._without][:MOST_EXAMPLES])


def _example_of(eval_dict: Mapping[str, Any]) -> ComparedExample:
    """Convert an `eval_dict`, whose boxes are in pixels of the original image."""
    height, width = (int(value) for value in np.array(eval_dict["original_image_spatial_shape"])[0][:2])
    size = np.array([height, width, height, width], np.float32)
    image = from_any_range(np.array(eval_dict["original_image"])[0][:height, :width])
    count = int(np.array(eval_dict["num_detections"])[0])
    boxes, scores, classes = (
        np.array(eval_dict[f"detection_{name}"])[0][:count] for name in ("boxes", "scores", "classes")
    )
    truth = Groundtruth(
        np.array(eval_dict["groundtruth_boxes"])[0] / size, np.array(eval_dict["groundtruth_classes"])[0]
    )
    return ComparedExample(np.asarray(fitted(image)), truth, Detections(boxes / size, scores, classes))
