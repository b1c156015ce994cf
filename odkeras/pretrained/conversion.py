"""Convert weights of Keras Applications to checkpoints that the Object Detection API restores as "classification".

The API's networks are those of Keras with small differences, which are evened out here, so that both compute the same
features from the same picture:

- ResNet v1 in SSD and Faster R-CNN has no biases before its batch normalisation, and gets pictures in RGB, where Keras'
  weights expect BGR. CenterNet has Keras' own network and converts the picture itself.
- EfficientNet is that of tf-models-official, with other layer names but the same order of layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from odkeras import compat
from odkeras.errors import WeightsError
from odkeras.logs import quiet_import
from odkeras.pretrained.cache import WeightsCache
from odkeras.pretrained.catalogue import KERAS_ADDRESS, Backbone

CHECKPOINT_NAME = "ckpt-1"


def convert_backbone(backbone: Backbone, keras_file: Path, feature_extractor: str, cache: WeightsCache) -> str:
    """The prefix of a checkpoint with the weights of `keras_file`, converted if it is not in the cache yet.

    Args:
        keras_file: weights without the classification layer, as Keras Applications publishes them (.h5).
        feature_extractor: one of `backbone.feature_extractors`.

    Raises:
        WeightsError: the file has other weights or is damaged, or the cache cannot be written.
        SetupError: TensorFlow or the Object Detection API is not installed.
    """
    is_like_keras = feature_extractor.startswith("resnet_v1_")  # CenterNet's
    folder = cache.converted_folder(backbone, keras_file, "bgr" if is_like_keras else "rgb")
    with cache.writing(folder.name):
        if not folder.is_dir():
            quiet_import("tensorflow")
            compat.prepare()
            import tensorflow as tf

            network = _load(backbone, keras_file)
            if backbone.application.startswith("EfficientNet"):
                network = _as_official_efficientnet(backbone, network)
            elif backbone.application.startswith("ResNet") and "V2" not in backbone.application and not is_like_keras:
                network = _as_resnet_without_biases(backbone, network)
            with cache.new_folder(folder) as content:
                tf.train.Checkpoint(feature_extractor=network).write(str(content / CHECKPOINT_NAME))
    return str(folder / CHECKPOINT_NAME)


def _load(backbone: Backbone, keras_file: Path) -> Any:
    import tensorflow as tf

    network = getattr(tf.keras.applications, backbone.application)(weights=None, include_top=False)
    try:
        network.load_weights(str(keras_file))
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"{keras_file} does not have the weights of {backbone.application} without its top layer: {reason}; take "
            f"{KERAS_ADDRESS}/{backbone.path}"
        ) from error
    return network


def _as_resnet_without_biases(backbone: Backbone, source: Any) -> Any:
    """The API's ResNet v1 with the weights of Keras'. A bias is subtracted from the mean of the batch normalisation
    that follows, which gives the same output."""
    from object_detection.models.keras_models import resnet_v1

    build = getattr(resnet_v1, backbone.application.lower().replace("resnet", "resnet_v1_"))
    target = build(batchnorm_training=True, classes=None, weights=None, include_top=False)
    for layer in target.layers:
        if not layer.weights:
            continue
        values = source.get_layer(layer.name).get_weights()
        if layer.name.endswith("_bn"):
            bias = source.get_layer(f"{layer.name.removesuffix('_bn')}_conv").get_weights()[1]
            gamma, beta, mean, variance = values
            values = [gamma, beta, mean - bias, variance]
        elif layer.name.endswith("_conv"):
            kernel = values[0]
            values = [kernel[:, :, ::-1] if layer.name == "conv1_conv" else kernel]
        layer.set_weights(values)
    return target


def _as_official_efficientnet(backbone: Backbone, source: Any) -> Any:
    from official.legacy.image_classification.efficientnet import efficientnet_model

    name = backbone.application.lower().replace("efficientnetb", "efficientnet-b")
    target = efficientnet_model.EfficientNet.from_name(name, overrides={"rescale_input": False})
    # The first three are those of Keras' input normalisation. The API normalises in its feature extractor.
    values = [weight.numpy() for weight in source.weights][3:]
    for variable, value in zip(target.weights, values, strict=False):  # the target has a classification layer besides
        variable.assign(value)
    return target
