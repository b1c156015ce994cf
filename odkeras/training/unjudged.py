"""Images that were answered before a class was added are no negatives for it: the class has no part in their loss, nor
in their evaluation, until they are answered again.

The ids of these classes travel with the example, as the feature `odkeras/unjudged`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from odkeras.data.current_classes import with_current_classes
from odkeras.data.stored_example import StoredExample
from odkeras.labels import LabelMap
from odkeras.pipeline.class_history import ClassHistory

UNJUDGED = "odkeras/unjudged"
"""Feature of an example: int64 ids. Key among the features of a training batch: float32 (N, num_classes), 1 where an
image is not judged for a class."""

_NO_SCORE = -1e4  # a logit whose sigmoid, and whose share of a softmax, is 0 in float32
_SCORES = ("class_predictions_with_background", "object_center", "segmentation/heatmap")
"""What the API's models predict per class, with the classes on the last axis."""


class ExampleReader:
    """Reads the examples of the loop, with the classes of today, with what `complete` adds and with the classes that
    each is not judged for.

    Args:
        complete: adds what the config's reader loads; see `inputs.example_completion`.
        label_map: the ids of the classes.
        history: when they were added, and what became of earlier ones.
    """

    def __init__(self, complete: Callable[[bytes], bytes], label_map: LabelMap, history: ClassHistory) -> None:
        self._complete = complete
        self._label_map = label_map
        self._history = history

    def __call__(self, example: StoredExample) -> bytes:
        serialized = example.read()
        names = {name: self._history.current(name, self._label_map.texts) for name in example.classes}
        if any(name != current for name, current in names.items()):
            serialized = with_current_classes(serialized, self._label_map, lambda name: names.get(name, name))
        serialized = self._complete(serialized)
        unjudged = self._history.unjudged(example.answered_s, {name for name in names.values() if name is not None})
        ids = [self._label_map.id_of(name) for name in sorted(unjudged) if name in self._label_map.names]
        return with_unjudged(serialized, ids) if ids else serialized


def with_unjudged(serialized: bytes, ids: Sequence[int]) -> bytes:
    """The serialized example with the ids of the classes that it is not judged for.

    Messages of protobuf that are concatenated are merged, so that the image is not copied twice.
    """
    feature = tf.train.Feature(int64_list=tf.train.Int64List(value=ids))
    features = tf.train.Features(feature={UNJUDGED: feature})
    return serialized + bytes(tf.train.Example(features=features).SerializeToString())


def unjudged_classes(serialized: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Which classes an example is not judged for: float32 (num_classes,).

    Args:
        serialized: a serialized `tf.train.Example`, string ().
    """
    return tf.reduce_sum(tf.one_hot(_unjudged_ids(serialized) - 1, num_classes), axis=0)


def without_unjudged(predictions: Mapping[str, Any], features: Mapping[str, tf.Tensor]) -> dict[str, Any]:
    """The predictions of a training step, with constant scores for the classes that an image is not judged for.

    These have no loss and no gradient then, whatever loss the model has: a weight per class would not do for a softmax,
    where a class also matters for the others.

    Args:
        predictions: the result of a `DetectionModel`'s `predict`.
        features: the features of the batch; without `UNJUDGED`, every image is judged for every class.
    """
    unjudged = features.get(UNJUDGED)
    if unjudged is None:
        return dict(predictions)
    return {name: _masked(value, unjudged) if name in _SCORES else value for name, value in predictions.items()}


def _masked(scores: Any, unjudged: tf.Tensor) -> Any:
    if isinstance(scores, (list, tuple)):
        return [_masked(each, unjudged) for each in scores]
    columns, classes = scores.shape[-1], unjudged.shape[-1]
    mask = tf.pad(unjudged, [[0, 0], [columns - classes, 0]])  # the background comes first
    if scores.shape.rank == 2:  # a second stage has its proposals, image after image, on the first axis
        mask = tf.repeat(mask, tf.shape(scores)[0] // tf.shape(mask)[0], axis=0)
    else:
        mask = tf.reshape(mask, [-1, *[1] * (scores.shape.rank - 2), columns])
    return tf.where(mask > 0, tf.constant(_NO_SCORE, scores.dtype), scores)


def judged_detections(outputs: Mapping[str, tf.Tensor], serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """The detections of one image without those of classes that it is not judged for.

    Args:
        outputs: what `InferenceModel.detect` describes, with a batch size of 1.
        serialized: the serialized example, string ().
    """
    ids = _unjudged_ids(serialized)
    if not len(ids):
        return dict(outputs)
    classes = tf.cast(outputs["detection_classes"][0], tf.int64)
    judged = tf.reduce_all(classes[:, tf.newaxis] != ids, axis=1)
    kept = {name: tf.boolean_mask(value, judged, axis=1) for name, value in outputs.items() if name != "num_detections"}
    is_counted = tf.sequence_mask(tf.cast(outputs["num_detections"], tf.int32), tf.shape(classes)[0])[0]
    return {**kept, "num_detections": tf.reduce_sum(tf.cast(judged & is_counted, tf.float32))[tf.newaxis]}


def _unjudged_ids(serialized: tf.Tensor) -> tf.Tensor:
    """int64 (K,)."""
    parsed = tf.io.parse_single_example(serialized, {UNJUDGED: tf.io.VarLenFeature(tf.int64)})
    return parsed[UNJUDGED].values
