"""The inference model: built once in inference mode, with its detection function traced once."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from object_detection.builders import model_builder
from object_detection.core import standard_fields
from object_detection.utils import config_util

from odkeras.model.building import building
from odkeras.model.context import CONTEXT_FEATURES, VALID_CONTEXT_SIZE, context_shape, context_specs, no_context
from odkeras.model.imagenet import without_downloads
from odkeras.model.precision import in_float32

GRAPH_REVISION = 2  # increment when `InferenceModel.detect` changes; part of the graph fingerprint
CLASS_ID_OFFSET = 1  # the API's models number classes from 0, label maps from 1

_OUTPUTS = (
    "detection_boxes",
    "detection_scores",
    "detection_classes",
    "num_detections",
    "detection_masks",
    "detection_keypoints",
    "detection_keypoint_scores",
)


def build_detection_model(model_config: Any, *, is_training: bool) -> Any:
    """Build a `DetectionModel` of the Object Detection API, with random weights. Most of its variables are not created
    yet.

    Args:
        model_config: `model` part of a pipeline.config (`object_detection.protos.model_pb2.DetectionModel`).
        is_training: whether batch normalisation and dropout run in training mode.

    Raises:
        ConfigError: the API refuses the configuration.
    """
    with building(_field(model_config), "the model"), without_downloads():
        return model_builder.build(model_config, is_training=is_training, add_summaries=False)


def create_variables(model: Any, model_config: Any) -> None:
    """Create all variables of `model` by tracing a prediction without running it.

    With existing variables the training step is traced once instead of twice, and checkpoints can be restored before
    it.

    Raises:
        ConfigError: the parts of the model do not fit each other, or the size of the images.
    """
    height, width = _example_size_hw(model_config)
    was_training = model._is_training

    @tf.function(autograph=False)
    def trace() -> None:
        images, true_shapes = model.preprocess(tf.zeros([1, height, width, 3]))
        predictions = in_float32(model.predict(images, true_shapes, **no_context(model_config)))
        model.postprocess(predictions, true_shapes)

    model._is_training = False  # in training mode, Faster R-CNN needs ground truth for a prediction
    try:
        with building(_field(model_config), "the model"):
            trace.get_concrete_function()
    finally:
        model._is_training = was_training


def _field(model_config: Any) -> str:
    return f"model.{model_config.WhichOneof('model') or 'nothing'}"


def static_image_size(model_config: Any) -> tuple[int, int] | None:
    """(height, width) in pixels to which every image is resized; None if the size depends on the image."""
    height, width = config_util.get_spatial_image_size(config_util.get_image_resizer_config(model_config))
    return (height, width) if height > 0 and width > 0 else None


def _example_size_hw(model_config: Any) -> tuple[int, int]:
    size = static_image_size(model_config)
    if size is not None:
        return size
    resizer = config_util.get_image_resizer_config(model_config).keep_aspect_ratio_resizer
    return (resizer.min_dimension, resizer.min_dimension)


class InferenceModel:
    """A detection model for inference. Assign `variables` to update its weights.

    Construction takes seconds, because the detection function is traced; updating the weights takes milliseconds.

    Args:
        model_config: `model` part of a pipeline.config.

    Raises:
        ConfigError: the API refuses the configuration, or its parts do not fit each other.
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
                *context_specs(model_config),
            ],
            autograph=False,
        )
        with building(_field(model_config), "the model"):
            self.detect.get_concrete_function()

    @property
    def batches_images(self) -> bool:
        """Whether a batch goes through the network at once, rather than image by image.

        False if images have different sizes. Also False for two-stage models, whose second stage processes hundreds of
        crops per image: a batch of eight 640 x 640 images took 18 GB of memory, one after the other 3 GB.
        """
        is_two_stage = self.model_config.WhichOneof("model") == "faster_rcnn"
        return self.static_size is not None and not is_two_stage and self._batch_size is None

    @property
    def _batch_size(self) -> int | None:
        """The static batch size; None for any.

        1 for CenterNet with masks or keypoints. The API crops the masks in a loop whose output it declares as uint8 but
        computes as int32. TensorFlow rejects that unless the loop is unrolled, which needs a static batch size. The
        keypoints of a batch come from a loop in Python, which needs one as well. 1 for Context R-CNN, too: its
        attention reshapes by the static number of proposals.
        """
        model = self.model_config.center_net
        needs_one = model.HasField("mask_estimation_task") or model.keypoint_estimation_task
        return 1 if needs_one or context_shape(self.model_config) else None

    @property
    def variables(self) -> list[tf.Variable]:
        """All variables that inference uses, in a fixed order."""
        return list(self.model.variables)

    def preprocess(self, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Preprocess one RGB image, uint8 (H, W, 3).

        Returns:
            The model's input, float32 (h, w, 3), and its shape without padding, int32 (3,).
        """
        images, true_shapes = self.model.preprocess(tf.cast(image, tf.float32)[tf.newaxis])
        return images[0], true_shapes[0]

    def _detect(
        self,
        images: tf.Tensor,
        true_shapes: tf.Tensor,
        context_features: tf.Tensor | None = None,
        valid_context_size: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Detect objects in preprocessed images.

        Args:
            images: float32 (N, h, w, 3).
            true_shapes: int32 (N, 3), the shapes without padding.
            context_features: of Context R-CNN; see `model.context`.
            valid_context_size: of Context R-CNN; see `model.context`.

        Returns:
            float32 tensors: `detection_boxes` (N, D, 4) [ymin, xmin, ymax, xmax] normalised, `detection_scores` (N, D),
            `detection_classes` (N, D) label-map ids, `num_detections` (N,), `detection_masks` if the model predicts
            masks, and if it predicts keypoints `detection_keypoints` (N, D, K, 2) [y, x] normalised and
            `detection_keypoint_scores` (N, D, K).
        """
        context = {CONTEXT_FEATURES: context_features, VALID_CONTEXT_SIZE: valid_context_size}
        given = {name: value for name, value in context.items() if value is not None}
        predictions = self.model.predict(images, true_shapes, **given)
        detections = self.model.postprocess(predictions, true_shapes)
        fields = standard_fields.DetectionResultFields
        detections[fields.detection_classes] = (
            tf.cast(detections[fields.detection_classes], tf.float32) + CLASS_ID_OFFSET
        )
        return _pad_invalid_detections(
            {name: tf.cast(detections[name], tf.float32) for name in _OUTPUTS if name in detections}
        )


def _pad_invalid_detections(outputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Turn detections that have no area or are not finite into padding: moved behind the others, with score 0 and a box
    of zeros, and not counted in `num_detections`. The API pads images with fewer than D detections in the same way.

    Reason: CenterNet can predict a negative width or height, which it clips to 0 while keeping the score. With random
    weights it returned 77 boxes of zero width or height and score 1 in four images. Such a box has IoU 0 with
    everything, and an annotator can neither see nor correct it.
    """
    boxes, scores = outputs["detection_boxes"], outputs["detection_scores"]
    has_area = tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    is_finite = tf.reduce_all(tf.math.is_finite(boxes), axis=-1) & tf.math.is_finite(scores)
    counted = tf.sequence_mask(tf.cast(outputs["num_detections"], tf.int32), tf.shape(scores)[1])
    is_valid = has_area & is_finite & counted
    order = tf.argsort(tf.cast(~is_valid, tf.int32), stable=True)
    ordered = {
        name: tf.gather(value, order, batch_dims=1) for name, value in outputs.items() if name != "num_detections"
    }
    keep = tf.gather(is_valid, order, batch_dims=1)
    ordered["detection_boxes"] = tf.where(keep[..., tf.newaxis], ordered["detection_boxes"], 0.0)
    ordered["detection_scores"] = tf.where(keep, ordered["detection_scores"], 0.0)
    return {**ordered, "num_detections": tf.reduce_sum(tf.cast(is_valid, tf.float32), axis=-1)}
