"""Detectors for evaluation: a model in this process, or an exported version called through its signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import tensorflow as tf

from odkeras.errors import CheckpointError
from odkeras.export.signatures import DEFAULT_SIGNATURE
from odkeras.training.inputs import SERIALIZED

Detector = Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]
"""Maps the features of one example (see `evaluation_dataset`) to the detections that `InferenceModel.detect` describes,
with a batch size of 1."""

_NEEDED = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
_MASKS = "detection_masks"


class Detects(Protocol):
    """The part of `InferenceModel` that an evaluation uses."""

    model: Any

    def detect(self, images: Any, true_shapes: Any) -> dict[str, tf.Tensor]: ...


def in_process(inference: Detects) -> Detector:
    """A detector that calls `inference`, with the weights that the model has at the time of each call."""
    return lambda features: inference.detect(features["image"], features["true_image_shape"])


class SavedDetector:
    """A detector that calls the `serving_default` signature of an exported version.

    The signature gets the encoded image, as it would from a client. Models of other tools may take pixels instead;
    they get the decoded image, (1, H, W, 3) in the signature's dtype.

    Raises:
        CheckpointError: the directory has no SavedModel that can be loaded, or its signature is not that of a detector.
    """

    def __init__(self, version_dir: Path) -> None:
        self._where = version_dir
        try:
            # Kept, because the signature alone does not keep the variables alive.
            self._loaded = tf.saved_model.load(str(version_dir))
            self._signature = self._loaded.signatures[DEFAULT_SIGNATURE]
        except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointError(f"{version_dir} cannot be loaded as a SavedModel: {reason}") from error
        inputs = self._signature.structured_input_signature[1]
        missing = [name for name in _NEEDED if name not in self._signature.structured_outputs]
        if len(inputs) != 1 or missing:
            raise CheckpointError(
                f"the signature {DEFAULT_SIGNATURE} of {version_dir} is none of a detector: its inputs are "
                f"{', '.join(sorted(inputs))}, and {', '.join(missing) or 'nothing'} is missing among its outputs"
            )
        ((self._input, self._spec),) = inputs.items()

    def __call__(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        encoded = tf.io.parse_example(features[SERIALIZED], {"image/encoded": tf.io.FixedLenFeature([], tf.string)})
        images = encoded["image/encoded"]
        if self._spec.dtype != tf.string:
            pixels = tf.io.decode_image(images[0], channels=3, expand_animations=False)
            images = tf.cast(pixels[tf.newaxis], self._spec.dtype)
        outputs = self._signature(**{self._input: images})
        return {name: tf.cast(outputs[name], tf.float32) for name in (*_NEEDED, _MASKS) if name in outputs}
