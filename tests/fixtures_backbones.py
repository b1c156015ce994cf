"""Backbones of a few layers in place of ResNet-50 and MobileNetV2, for tests of the heads.

    small_backbones = fixtures_backbones.small_backbones  # in a test module: for all of its models

Most of the time of such a test is the time in which TensorFlow traces the model, which grows with its layers. The real
backbones are in test_backbones.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module", autouse=True)
def small_backbones() -> Iterator[None]:
    """Until the end of the module, models are built with small backbones. Their strides, the sizes of their outputs and
    the names by which the Object Detection API finds these are those of the real ones."""
    from object_detection.models.keras_models import mobilenet_v2, resnet_v1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet_v1, "resnet_v1_50", _resnet)
        patch.setattr(mobilenet_v2, "mobilenet_v2", _mobilenet)
        yield


def _resnet(*, batchnorm_training: bool, **_: Any) -> Any:
    layers = {"conv4_block6_out": (16, 1024), "conv5_block3_out": (2, 2048)}
    return _backbone((None, None, 3), layers, training=batchnorm_training)


def _mobilenet(*, batchnorm_training: bool, input_shape: tuple[int | None, ...], **_: Any) -> Any:
    layers = {"block_2_add": (4, 24), "block_5_add": (2, 32), "block_12_add": (2, 96), "out_relu": (2, 1280)}
    return _backbone(input_shape, layers, training=batchnorm_training)


def _backbone(input_shape: tuple[int | None, ...], layers: dict[str, tuple[int, int]], *, training: bool) -> Any:
    """A convolution, batch normalisation and ReLU for each name: (stride, channels)."""
    import tensorflow as tf

    inputs = features = tf.keras.Input(input_shape)
    for name, (stride, channels) in layers.items():
        features = tf.keras.layers.Conv2D(channels, 1, stride, padding="same", name=f"{name}_conv")(features)
        features = tf.keras.layers.BatchNormalization(name=f"{name}_bn")(features, training=training)
        features = tf.keras.layers.ReLU(name=name)(features)
    return tf.keras.Model(inputs, features)
