"""CenterNet with MobileNetV2: built without a network, and with ImageNet weights where nothing else gives the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_keras.src.applications import mobilenet_v2

from odkeras.errors import WeightsError
from odkeras.model.imagenet import _mobilenet, load_imagenet_weights
from odkeras.model.inference import build_detection_model
from odkeras.pipeline import PipelineConfig
from odkeras.pretrained.cache import WeightsCache

pytestmark = pytest.mark.integration

FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"


@pytest.fixture(scope="module")
def keras_network() -> Any:
    """Stands for the published network: other weights than any that is built here."""
    return tf.keras.applications.MobileNetV2(weights=None, include_top=False)


@pytest.fixture(params=["mobilenet_v2", "mobilenet_v2_fpn"])
def model_config(config: PipelineConfig, request: pytest.FixtureRequest) -> Any:
    config.model.center_net.feature_extractor.type = request.param
    return config.model


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr(mobilenet_v2.data_utils, "get_file", refuse)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("ODKERAS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("folder", ["keras/models", "cache/backbones"])
def test_building_downloads_nothing_and_training_starts_from_the_file(
    model_config: Any, keras_network: Any, tmp_path: Path, folder: str
) -> None:
    """Without a network, building ended with "URL fetch failure", for an evaluation, too."""
    model = build_detection_model(model_config, is_training=True)
    (tmp_path / folder).mkdir(parents=True)
    keras_network.save_weights(str(tmp_path / folder / FILE))
    assert load_imagenet_weights(model, model_config)
    backbone = _mobilenet(model)
    assert len(backbone.weights) == len(keras_network.weights) == 260
    for layer in filter(lambda layer: layer.weights, keras_network.layers):
        for value, expected in zip(backbone.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(value, expected, err_msg=layer.name)


def test_without_the_file_and_without_a_network(
    model_config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(cache: WeightsCache, backbone: object) -> Path:
        raise WeightsError("cannot download https://x: no route to host")

    monkeypatch.setattr(WeightsCache, "keras_file", fail)
    model = build_detection_model(model_config, is_training=True)
    with pytest.raises(WeightsError) as caught:
        load_imagenet_weights(model, model_config)
    said = str(caught.value)
    assert "no route to host" in said and "train_config.fine_tune_checkpoint" in said and FILE in said
    assert str(tmp_path / "cache" / "backbones") in said


def test_other_models_start_from_no_such_weights(config: PipelineConfig) -> None:
    assert not load_imagenet_weights(None, config.model)
    config.model.center_net.feature_extractor.type = "mobilenet_v2"
    config.model.center_net.feature_extractor.depth_multiplier = 0.5
    assert not load_imagenet_weights(None, config.model)
