"""The serving signatures of a published model."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from odkeras.model.context import no_context, read_context
from odkeras.model.inference import InferenceModel

DEFAULT_SIGNATURE = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
EXAMPLES_SIGNATURE = "tf_example"


class ServingModule(tf.Module):
    """The object that `tf.saved_model.save` writes: the weights, and one function per signature.

    It tracks only the variables. If it tracked the Keras layers, their call functions would be saved too, which would
    take most of the time.

    Signatures:
        serving_default: `image_bytes`, string (N,), encoded JPEG or PNG images.
        image_tensor: `image`, uint8 (N, H, W, 3), RGB.
        tf_example: `examples`, string (N,), serialized `tf.train.Example` with `image/encoded`. The only one with which
            Context R-CNN gets the features of other images.

    Outputs: see `InferenceModel.detect`.
    """

    def __init__(self, inference: InferenceModel) -> None:
        super().__init__(name="detector")
        self.weights = inference.variables
        self._inference = inference
        self._detect = inference.detect
        methods = {
            DEFAULT_SIGNATURE: (self._from_bytes, tf.TensorSpec([None], tf.string, name="image_bytes")),
            "image_tensor": (self._from_pixels, tf.TensorSpec([None, None, None, 3], tf.uint8, name="image")),
            EXAMPLES_SIGNATURE: (self._from_examples, tf.TensorSpec([None], tf.string, name="examples")),
        }
        self._functions = {
            name: tf.function(method, input_signature=[spec], autograph=False)
            for name, (method, spec) in methods.items()
        }

    @property
    def signatures(self) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
        """Signature name -> concrete function. Traced on first access."""
        return {name: function.get_concrete_function() for name, function in self._functions.items()}

    def _from_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._run(_decode, image_bytes)

    def _from_pixels(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._run(lambda pixels: pixels, image)

    def _from_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._run(_decode_example, examples, lambda item: read_context(item, self._inference.model_config))

    def _run(
        self,
        decode: Callable[[tf.Tensor], tf.Tensor],
        batch: tf.Tensor,
        context: Callable[[tf.Tensor], dict[str, tf.Tensor]] | None = None,
    ) -> dict[str, tf.Tensor]:
        if self._inference.batches_images:
            images, true_shapes = tf.map_fn(
                lambda item: self._inference.preprocess(decode(item)),
                batch,
                fn_output_signature=self._preprocessed_spec(),
            )
            return self._detect(images, true_shapes)
        return self._run_one_by_one(decode, batch, context or (lambda item: no_context(self._inference.model_config)))

    def _preprocessed_spec(self) -> tuple[tf.TensorSpec, tf.TensorSpec]:
        height, width = self._inference.static_size or (None, None)
        return tf.TensorSpec([height, width, 3], tf.float32), tf.TensorSpec([3], tf.int32)

    def _run_one_by_one(
        self,
        decode: Callable[[tf.Tensor], tf.Tensor],
        batch: tf.Tensor,
        context: Callable[[tf.Tensor], dict[str, tf.Tensor]],
    ) -> dict[str, tf.Tensor]:
        """Run the images one after the other, for models with `batches_images` False."""

        def detect_one(item: tf.Tensor) -> dict[str, tf.Tensor]:
            image, true_shape = self._inference.preprocess(decode(item))
            found = self._detect(image[tf.newaxis], true_shape[tf.newaxis], **context(item))
            return {name: value[0] for name, value in found.items()}

        outputs = self._inference.detect.get_concrete_function().structured_outputs
        spec = {name: tf.TensorSpec(value.shape[1:], value.dtype) for name, value in outputs.items()}
        return tf.map_fn(detect_one, batch, parallel_iterations=1, fn_output_signature=spec)


def _decode_example(serialized: tf.Tensor) -> tf.Tensor:
    parsed = tf.io.parse_single_example(serialized, {"image/encoded": tf.io.FixedLenFeature([], tf.string)})
    return _decode(parsed["image/encoded"])


def _decode(data: tf.Tensor) -> tf.Tensor:
    """Decode an encoded image, string (), to uint8 (H, W, 3)."""
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])
