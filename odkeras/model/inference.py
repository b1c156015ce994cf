"""The model that predicts: built once without training behaviour, its detection function traced once."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from object_detection.builders import model_builder
from object_detection.core import standard_fields
from object_detection.utils import config_util

from odkeras.errors import ConfigError

GRAPH_REVISION = 2  # of what `InferenceModel.detect` does beyond the configuration: part of the graph's fingerprint
CLASS_ID_OFFSET = 1  # the API's models count classes from 0, label maps from 1

_OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections", "detection_masks")


def build_detection_model(model_config: Any, *, is_training: bool) -> Any:
    """A `DetectionModel` of the Object Detection API, most of its variables not yet created.

    Args:
        model_config: `model` part of a pipeline.config (`object_detection.protos.model_pb2.DetectionModel`).
        is_training: batch normalisation and dropout behave as in training.

    Raises:
        ConfigError: the API refuses the configuration.
    """
    try:
        return model_builder.build(model_config, is_training=is_training, add_summaries=False)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        kind = model_config.WhichOneof("model") or "nothing"
        raise ConfigError(f"model {{ {kind} {{...}} }} of the pipeline.config cannot be built: {error}") from error


def create_variables(model: Any, model_config: Any) -> None:
    """Create every variable of `model` by tracing one prediction, without running it.

    Building them ahead lets a training step be traced once instead of twice, and lets checkpoints be restored
    before it.
    """
    height, width = _example_size_hw(model_config)
    was_training = model._is_training

    @tf.function(autograph=False)
    def trace() -> None:
        images, true_shapes = model.preprocess(tf.zeros([1, height, width, 3]))
        model.postprocess(model.predict(images, true_shapes), true_shapes)

    model._is_training = False  # while training, Faster R-CNN wants the truth before it predicts
    try:
        trace.get_concrete_function()
    finally:
        model._is_training = was_training


def static_image_size(model_config: Any) -> tuple[int, int] | None:
    """(height, width) in pixels that every image is resized to, or None when it depends on the image."""
    height, width = config_util.get_spatial_image_size(config_util.get_image_resizer_config(model_config))
    return (height, width) if height > 0 and width > 0 else None


def _example_size_hw(model_config: Any) -> tuple[int, int]:
    size = static_image_size(model_config)
    if size is not None:
        return size
    resizer = config_util.get_image_resizer_config(model_config).keep_aspect_ratio_resizer
    return (resizer.min_dimension, resizer.min_dimension)


class InferenceModel:
    """A detection model for prediction, with the weights it was given last.

    Building it takes seconds (the detection function is traced); new weights take milliseconds.

    Args:
        model_config: `model` part of a pipeline.config.

    Raises:
        ConfigError: the API refuses the configuration.
    """

    def __init__(self, model_config: Any) -> None:
        self.model_config = model_config
        self.model = build_detection_model(model_config, is_training=False)
        self.static_size = static_image_size(model_config)
        height, width = self.static_size or (None, None)
        self.detect = tf.function(
            self._detect,
            input_signature=[
                tf.TensorSpec([self._batch_size, height, width, 3], tf.float32, name="images"),
                tf.TensorSpec([self._batch_size, 3], tf.int32, name="true_shapes"),
            ],
            autograph=False,
        )
        self.detect.get_concrete_function()

    @property
    def batches_images(self) -> bool:
        """Whether several images go through the network at once.

        Not when they keep their own sizes, and not in a two-stage model, whose second stage takes hundreds of crops of
        every image: eight images of 640 x 640 took 18 GB.
        """
        is_two_stage = self.model_config.WhichOneof("model") == "faster_rcnn"
        return self.static_size is not None and not is_two_stage and self._batch_size is None

    @property
    def _batch_size(self) -> int | None:
        """Always 1 for CenterNet's masks: the API crops them in a loop whose result it declares as uint8 and computes
        as int32, which TensorFlow refuses unless the loop is unrolled. None, any, for all others."""
        return 1 if self.model_config.center_net.HasField("mask_estimation_task") else None

    @property
    def variables(self) -> list[tf.Variable]:
        """Every weight that a prediction uses, in a fixed order."""
        return list(self.model.variables)

    def preprocess(self, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One RGB image, uint8 (H, W, 3), to the model's input: float32 (h, w, 3) and its true shape int32 (3,)
        without padding."""
        images, true_shapes = self.model.preprocess(tf.cast(image, tf.float32)[tf.newaxis])
        return images[0], true_shapes[0]

    def _detect(self, images: tf.Tensor, true_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detections of preprocessed images.

        Returns:
            float32 tensors: `detection_boxes` (N, D, 4) [ymin, xmin, ymax, xmax] normalised, `detection_scores` (N, D),
            `detection_classes` (N, D) label-map ids, `num_detections` (N,), and `detection_masks` where the model
            makes them.
        """
        predictions = self.model.predict(images, true_shapes)
        detections = self.model.postprocess(predictions, true_shapes)
        fields = standard_fields.DetectionResultFields
        detections[fields.detection_classes] = (
            tf.cast(detections[fields.detection_classes], tf.float32) + CLASS_ID_OFFSET
        )
        return _real_ones_first(
            {name: tf.cast(detections[name], tf.float32) for name in _OUTPUTS if name in detections}
        )


def _real_ones_first(outputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Detections without an area, or that are not finite, become padding: score 0, box of zeros, behind the others and
    not counted in `num_detections`, as the API fills up an image with fewer than D detections.

    CenterNet gives boxes a width below 0 where its weights say so, cuts that to 0, and says its score all the same:
    freshly built weights answered with 77 boxes of width or height 0 and score 1 in four pictures. Such a box overlaps
    nothing, so no object can be meant, and nobody can see or correct it.
    """
    boxes, scores = outputs["detection_boxes"], outputs["detection_scores"]
    has_area = tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    is_finite = tf.reduce_all(tf.math.is_finite(boxes), axis=-1) & tf.math.is_finite(scores)
    counted = tf.sequence_mask(tf.cast(outputs["num_detections"], tf.int32), tf.shape(scores)[1])
    is_real = has_area & is_finite & counted
    order = tf.argsort(tf.cast(~is_real, tf.int32), stable=True)
    moved = {name: tf.gather(value, order, batch_dims=1) for name, value in outputs.items() if name != "num_detections"}
    keep = tf.gather(is_real, order, batch_dims=1)
    moved["detection_boxes"] = tf.where(keep[..., tf.newaxis], moved["detection_boxes"], 0.0)
    moved["detection_scores"] = tf.where(keep, moved["detection_scores"], 0.0)
    return {**moved, "num_detections": tf.reduce_sum(tf.cast(is_real, tf.float32), axis=-1)}
