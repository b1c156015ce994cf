"""The ImageNet weights that CenterNet with MobileNetV2 starts from.

The Object Detection API downloads them while it builds the model, even where a checkpoint replaces them at once. Here a
model is built without them, and they are loaded only where nothing else gives its first weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf
from object_detection.models.keras_models import mobilenet_v2

from odkeras.errors import WeightsError
from odkeras.pipeline.extractors import DOWNLOADS_WEIGHTS
from odkeras.pretrained.cache import WeightsCache
from odkeras.pretrained.catalogue import KERAS_ADDRESS, Backbone, find_weights
from odkeras.pretrained.download import WAYS_OUT

BACKBONE = "mobilenet_v2_imagenet"
"""Its name in `odkeras weights list`."""


@contextmanager
def without_downloads() -> Iterator[None]:
    """Models that are built within the block download nothing."""
    original = mobilenet_v2.mobilenet_v2

    def build(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **{**kwargs, "weights": None})

    mobilenet_v2.mobilenet_v2 = build
    try:
        yield
    finally:
        mobilenet_v2.mobilenet_v2 = original


def load_imagenet_weights(model: Any, model_config: Any) -> bool:
    """Load the ImageNet weights that the API would have built the model with.

    They come from Keras' own cache or from that of odkeras, and are downloaded if neither has them.

    Args:
        model: a `DetectionModel`.
        model_config: `model` part of its pipeline.config.

    Returns:
        Whether the model starts from such weights. False leaves it as it is.

    Raises:
        WeightsError: they cannot be downloaded.
    """
    extractor = model_config.center_net.feature_extractor
    if extractor.type not in DOWNLOADS_WEIGHTS or extractor.depth_multiplier != 1.0:
        return False
    backbone = find_weights(BACKBONE)
    assert isinstance(backbone, Backbone)
    _mobilenet(model).load_weights(str(_find_file(backbone, extractor.type)))
    return True


def _mobilenet(model: Any) -> Any:
    """The network of Keras in a CenterNet: its backbone, or, without a feature pyramid, a layer of that."""
    backbone = model._feature_extractor.classification_backbone
    return next((layer for layer in backbone.layers if isinstance(layer, tf.keras.Model)), backbone)


def _find_file(backbone: Backbone, extractor: str) -> Path:
    keras_home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    if (file := keras_home / "models" / backbone.file_name).is_file():
        return file
    cache = WeightsCache()
    try:
        return cache.keras_file(backbone)
    except WeightsError as error:
        why = str(error).replace(f"; {WAYS_OUT}", "")
        raise WeightsError(
            f"{extractor} starts from ImageNet weights, and they are not on this machine: {why}. Download "
            f"{KERAS_ADDRESS}/{backbone.path} elsewhere and put it into {cache.folder / 'backbones'}; or name other "
            "weights in train_config.fine_tune_checkpoint (`odkeras init --weights FILE` does that)"
        ) from error
