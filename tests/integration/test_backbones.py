"""Backbones of Keras Applications, with random weights instead of the published ones, in the API's detectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from odkeras.errors import WeightsError
from odkeras.model.fine_tune import restore_fine_tune_checkpoint
from odkeras.model.inference import build_detection_model
from odkeras.pipeline import parse_pipeline, read_template
from odkeras.pretrained.cache import WeightsCache
from odkeras.pretrained.catalogue import find_weights
from odkeras.pretrained.conversion import convert_backbone

pytestmark = pytest.mark.integration


def random_network(application: str) -> Any:
    """A network of Keras Applications whose weights are all different and whose features stay finite."""
    network = getattr(tf.keras.applications, application)(weights=None, include_top=False)
    random = np.random.default_rng(7)
    for weight in network.weights:
        if weight.dtype.is_floating and "kernel" not in weight.name:
            weight.assign(weight + random.uniform(0.0, 0.3, weight.shape))
    return network


def build_detector(template: str, feature_extractor: str) -> Any:
    config = parse_pipeline(read_template(template), source=template)
    kind = config.model.WhichOneof("model")
    getattr(config.model, kind).feature_extractor.type = feature_extractor
    if kind == "faster_rcnn":
        config.model.faster_rcnn.first_stage_max_proposals = 2
    detector = build_detection_model(config.model, is_training=False)
    detector.predict(*detector.preprocess(tf.zeros([1, 64, 64, 3])))  # quicker than `create_variables`, which traces it
    return detector


@pytest.mark.parametrize(
    ("name", "template", "feature_extractor", "image_size_hw"),
    [
        ("mobilenet_v2_imagenet", "ssd_mobilenet_v2_fpnlite_320", "ssd_mobilenet_v2_fpn_keras", (160, 192)),
        # Where a layer's input has an even size, the API pads the first pooling at one side, and Keras at the other.
        ("resnet50_imagenet", "faster_rcnn_resnet50_640", "faster_rcnn_resnet50_keras", (161, 193)),
        ("resnet50_imagenet", "centernet_resnet50_512", "resnet_v1_50_fpn", (160, 192)),
        ("efficientnet_b0_imagenet", "efficientdet_d0_512", "ssd_efficientnet-b0_bifpn_keras", (160, 192)),
    ],
)
def test_the_detector_s_backbone_computes_what_keras_does(
    tmp_path: Path, name: str, template: str, feature_extractor: str, image_size_hw: tuple[int, int]
) -> None:
    """All weights of the backbone come from Keras' file, and both networks see the same in a picture.

    Keras' ResNets have biases and expect BGR. Restored as they are, the API's would drop the biases and get RGB.
    """
    backbone: Any = find_weights(name)
    source = random_network(backbone.application)
    images = np.random.default_rng(1).uniform(0, 255, (1, *image_size_hw, 3)).astype(np.float32)
    if backbone.application.startswith("EfficientNet"):
        normalization = source.get_layer("normalization")  # part of the network, as in the published file
        normalization.adapt_mean.assign([0.485, 0.456, 0.406])
        normalization.adapt_variance.assign(np.square([0.229, 0.224, 0.225]))
        normalization.finalize_state()
        expected = tf.keras.Model(source.input, source.get_layer("block7a_project_bn").output)(images)
    else:
        module = {"MobileNetV2": "mobilenet_v2", "ResNet50": "resnet"}[backbone.application]
        expected = source(getattr(tf.keras.applications, module).preprocess_input(images.copy()))
    source.save_weights(str(tmp_path / backbone.file_name))

    detector = build_detector(template, feature_extractor)
    checkpoint = convert_backbone(
        backbone, tmp_path / backbone.file_name, feature_extractor, WeightsCache(tmp_path / "cache")
    )
    restore_fine_tune_checkpoint(detector, checkpoint, "classification")

    extractor = detector._feature_extractor
    outputs = extractor._efficientnet if hasattr(extractor, "_efficientnet") else extractor.classification_backbone
    features = outputs(extractor.preprocess(tf.constant(images)), training=False)
    last = features[-1] if isinstance(features, list) else features
    scale = float(np.std(expected))
    np.testing.assert_allclose(last / scale, expected / scale, atol=1e-3)


def test_a_file_with_other_weights_is_refused(tmp_path: Path) -> None:
    backbone: Any = find_weights("mobilenet_v2_imagenet")
    weights = WeightsCache(tmp_path / "cache")
    (tmp_path / "broken.h5").write_bytes(b"<html>")
    tf.keras.applications.MobileNetV2(weights=None, alpha=0.35).save_weights(str(tmp_path / "with_top.h5"))
    for name in ("broken.h5", "with_top.h5"):
        with pytest.raises(WeightsError, match=rf"{name} does not have the weights of MobileNetV2 .*_no_top.h5"):
            convert_backbone(backbone, tmp_path / name, "ssd_mobilenet_v2_keras", weights)
    assert not list((weights.folder / "backbones").glob("*"))
