"""Context R-CNN: besides the image it takes features of other images of the same place, from the example.

Wu et al., "Context R-CNN: Long Term Temporal Context for Per-Camera Object Detection" (2020).
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

CONTEXT_FEATURES = "context_features"
"""Input of the model: float32 (N, M, L), padded with zeros."""
VALID_CONTEXT_SIZE = "valid_context_size"
"""Input of the model: int32 (N,), how many of the M features are none of the padding."""

_FEATURE = "image/context_features"
_LENGTH_FEATURE = "image/context_feature_length"


def context_shape(model_config: Any) -> tuple[int, int] | None:
    """(M, L): the largest number of context features of an image, and the length of each; None if the model takes none.

    Args:
        model_config: `model` part of a pipeline.config.
    """
    if model_config.WhichOneof("model") != "faster_rcnn" or not model_config.faster_rcnn.HasField("context_config"):
        return None
    context = model_config.faster_rcnn.context_config
    return context.max_num_context_features, context.context_feature_length


def context_length(model_config: Any) -> int:
    """The length of each context feature; 0 if the model takes none."""
    shape = context_shape(model_config)
    return shape[1] if shape else 0


def context_specs(model_config: Any) -> list[tf.TensorSpec]:
    """The inputs that the model takes besides one image: of context features and their number, or none."""
    shape = context_shape(model_config)
    if shape is None:
        return []
    return [
        tf.TensorSpec([1, *shape], tf.float32, name=CONTEXT_FEATURES),
        tf.TensorSpec([1], tf.int32, name=VALID_CONTEXT_SIZE),
    ]


def no_context(model_config: Any) -> dict[str, tf.Tensor]:
    """The inputs of `context_specs` by name, for an image without context features."""
    return {spec.name: tf.zeros(spec.shape, spec.dtype) for spec in context_specs(model_config)}


def read_context(serialized: tf.Tensor, model_config: Any) -> dict[str, tf.Tensor]:
    """The inputs of `context_specs` by name, from an example. Those beyond the M-th are left out.

    Args:
        serialized: a serialized `tf.train.Example`, string ().
    """
    shape = context_shape(model_config)
    if shape is None:
        return {}
    parsed = tf.io.parse_single_example(serialized, {_FEATURE: tf.io.VarLenFeature(tf.float32)})
    features = tf.reshape(parsed[_FEATURE].values, [-1, shape[1]])[: shape[0]]
    count = tf.shape(features)[0]
    padded = tf.ensure_shape(tf.pad(features, [[0, shape[0] - count], [0, 0]]), shape)
    return {CONTEXT_FEATURES: padded[tf.newaxis], VALID_CONTEXT_SIZE: count[tf.newaxis]}


def with_context(serialized: bytes, length: int) -> bytes:
    """The unchanged serialized example if it has context features; otherwise one with none, of this length."""
    example = tf.train.Example.FromString(serialized)
    if _LENGTH_FEATURE in example.features.feature:
        return serialized
    # Messages of protobuf that are concatenated are merged, so that the image is not copied twice.
    return serialized + context_example([], length)


def context_example(values: Any, length: int) -> bytes:
    """A serialized example with context features alone, to be appended to another one.

    Args:
        values: their numbers, one feature after the other.
        length: the length of each.
    """
    features = tf.train.Features()
    features.feature[_FEATURE].float_list.value.extend(values)
    features.feature[_LENGTH_FEATURE].int64_list.value.append(length)
    return bytes(tf.train.Example(features=features).SerializeToString())


def context_problem(features: Any, length: int) -> str:
    """Why the model cannot take the context features of an example; "" if it can.

    Args:
        features: feature name -> `tf.train.Feature`.
        length: the model's `context_feature_length`; 0: it takes none.
    """
    if not length:
        return ""
    found = list(features[_LENGTH_FEATURE].int64_list.value) if _LENGTH_FEATURE in features else []
    if found != [length]:
        stated = f"{found[0]}" if found else "missing"
        return f"{_LENGTH_FEATURE} is {stated}; the model takes features of length {length} (context_feature_length)"
    count = len(features[_FEATURE].float_list.value) if _FEATURE in features else 0
    if count % length:
        return f"{_FEATURE} has {count} numbers, which are no whole features of length {length}"
    return ""
