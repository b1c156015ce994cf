"""What an evaluation leaves to look at, beside its figures: a few examples with what was found, and curves."""

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
    """One example that was evaluated.

    Args:
        image: uint8 (H, W, 3), small enough to be kept.
        truth: its boxes.
        found: all detections.
    """

    image: Any
    truth: Groundtruth
    found: Detections


@dataclass(frozen=True)
class Exhibits:
    """Of one evaluation.

    Args:
        examples: of the first reader, always the same ones.
        curves: precision and recall, by what they are of.
    """

    examples: tuple[ComparedExample, ...] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)


class Gallery:
    """Keeps the first examples that have objects; the first ones without, where there are not enough of those."""

    def __init__(self) -> None:
        self._with_objects: list[ComparedExample] = []
        self._without: list[ComparedExample] = []

    def add(self, eval_dict: Mapping[str, Any]) -> None:
        """One example, as `model_lib_v2.prepare_eval_dict` makes it."""
        has_objects = eval_dict["groundtruth_boxes"].shape[1] > 0
        kept = self._with_objects if has_objects else self._without
        if len(self._with_objects) < MOST_EXAMPLES and len(kept) < MOST_EXAMPLES:
            kept.append(_example_of(eval_dict))

    def examples(self) -> tuple[ComparedExample, ...]:
        return tuple([*self._with_objects, *self._without][:MOST_EXAMPLES])


def _example_of(eval_dict: Mapping[str, Any]) -> ComparedExample:
    """Its boxes are in pixels of the original image."""
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
