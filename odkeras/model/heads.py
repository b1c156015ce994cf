"""The heads of a detector, as the first weights of a model that is to find other classes.

The Object Detection API restores the feature extractor alone. Here the outputs that say where an object is (boxes,
masks, keypoints) start from the detector, too, so that boxes are tight after few answers; and so do the outputs of the
classes. A class that the detector knows by the same name starts with that class's weights: its objects are found at
once. The others start with the mean of all classes of the detector. What they have in common is that there is
an object, so that the boxes of unknown objects can be picked before anything was trained, and are found after few steps
(docs/benchmarks.md).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from odkeras.labels import LabelMap
from odkeras.model.checkpoint import model_keys
from odkeras.model.growth import OutputLayout, is_score_bias, output_layouts
from odkeras.model.weights import named_variables
from odkeras.pipeline import PipelineConfig, model_type, num_classes
from odkeras.pretrained.detector_classes import ids_by_name, trained_label_map

_log = logging.getLogger(__name__)

_BEHIND_THE_FIRST = 5.0
"""How much lower the logits of all unknown classes but the first are. With the same scores, each object would be
detected once for each of them, and the limit on detections would leave few objects."""


@dataclass(frozen=True)
class RestoredHeads:
    """What was restored of the heads.

    Args:
        restored: paths of the variables that have the checkpoint's values.
        adapted: the outputs of classes, which were made from those of other classes: path -> the value to start
            training from.
    """

    restored: frozenset[str]
    adapted: Mapping[str, np.ndarray]


def restore_heads(model: Any, config: PipelineConfig, label_map: LabelMap, checkpoint: str) -> RestoredHeads:
    """Restore all that the model has in common with a detector. What has another shape there, or is missing, stays.

    The model then predicts with the mean of the detector's classes where it does not know a class, the first of such
    classes before the others. Before it is trained, it needs the values in `RestoredHeads.adapted`, in which they are
    equal.

    Args:
        model: a `DetectionModel` of `config`, whose variables exist.
        config: the resolved config.
        label_map: the project's label map.
        checkpoint: path prefix of the detector's checkpoint.
    """
    reader = tf.train.load_checkpoint(checkpoint)
    variables, layouts = named_variables(model), output_layouts(model, config)
    restored, adapted, same = set[str](), dict[str, np.ndarray](), dict[int, int]()
    for key, (path, slot) in model_keys(reader).items():
        variable = variables.get(path)
        if variable is None or slot is not None:
            continue
        trained = reader.get_tensor(key)
        if path not in layouts:
            if trained.shape == tuple(variable.shape):
                variable.assign(trained)
                restored.add(path)
            continue
        layout = layouts[path]
        count = _class_count(layout, trained, variable)
        if count is None:
            continue
        known = trained_label_map(checkpoint, count)
        same = ids_by_name(label_map, known) if known else {}
        ids = known.ids if known else range(1, count + 1)
        sources = [[same[id]] if id in same else ids for id in range(1, num_classes(config) + 1)]
        unknown = [layout.background + id - 1 for id in range(1, num_classes(config) + 1) if id not in same]
        outputs = _outputs_of(sources, trained, layout)
        if _has_unused_background(config):
            background = variable.numpy().reshape(outputs.shape)[..., : layout.background, :]
            outputs[..., : layout.background, :] = background
        adapted[path] = outputs.reshape(variable.shape).copy()
        if is_score_bias(path):
            outputs[..., unknown[1:], :] -= _BEHIND_THE_FIRST
        variable.assign(outputs.reshape(variable.shape))
    if adapted:
        names = ", ".join(repr(label.name) for label in label_map.labels if label.id in same)
        _log.info("classes that %s knows by name: %s; the others are found as any object", checkpoint, names or "none")
    return RestoredHeads(frozenset(restored), adapted)


def _has_unused_background(config: PipelineConfig) -> bool:
    """Whether an output for the background exists, and training wants it to be 0 everywhere.

    A detector that was trained with another loss may have learned that it is 1 almost everywhere. The loss of the first
    hundred steps was then a few hundred, and the classes learned nothing meanwhile.
    """
    return model_type(config) == "ssd" and bool(config.model.ssd.encode_background_as_zeros)


def _class_count(layout: OutputLayout, trained: np.ndarray, variable: tf.Variable) -> int | None:
    """The number of classes of the checkpoint; None if its weights differ in more than that."""
    if trained.ndim == 0 or list(trained.shape[:-1]) != list(variable.shape[:-1]):
        return None
    slots, rest = divmod(trained.shape[-1], layout.groups * layout.unit)
    return slots - layout.background if rest == 0 and slots > layout.background else None


def _outputs_of(sources: Sequence[Sequence[int]], trained: np.ndarray, layout: OutputLayout) -> np.ndarray:
    """The weights of one variable: (..., groups, background and classes, unit).

    Args:
        sources: for each of our classes the ids of the detector's classes whose mean it gets.
        trained: the detector's weights.
        layout: the order of the outputs.
    """
    slots = trained.reshape(*trained.shape[:-1], layout.groups, -1, layout.unit)
    classes = [slots[..., [layout.background + id - 1 for id in ids], :].mean(axis=-2) for ids in sources]
    return np.concatenate([slots[..., : layout.background, :], np.stack(classes, axis=-2)], axis=-2)
