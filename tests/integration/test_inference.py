from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from odkeras.annotation import Annotation
from odkeras.errors import ConfigError
from odkeras.images import decode_rgb
from odkeras.model.inference import (
    InferenceModel,
    _pad_invalid_detections,
    build_detection_model,
    create_variables,
    static_image_size,
)
from odkeras.pipeline import PipelineConfig
from tests.fixtures_training import give_boxes_an_area

pytestmark = pytest.mark.integration


def preprocessed(inference: InferenceModel, annotations: list[Annotation]) -> tuple[tf.Tensor, tf.Tensor]:
    pairs = [inference.preprocess(tf.constant(decode_rgb(each.image))) for each in annotations]
    return tf.stack([image for image, _ in pairs]), tf.stack([shape for _, shape in pairs])


def test_a_detection_is_made_of_boxes_scores_and_label_map_ids(
    inference: InferenceModel, shapes: list[Annotation]
) -> None:
    give_boxes_an_area(inference)
    found = inference.detect(*preprocessed(inference, shapes[:2]))
    assert {name: value.shape.as_list() for name, value in found.items()} == {
        "detection_boxes": [2, 20, 4],
        "detection_scores": [2, 20],
        "detection_classes": [2, 20],
        "num_detections": [2],
    }
    assert {value.dtype for value in found.values()} == {tf.float32}
    assert set(np.unique(found["detection_classes"])) <= {1.0, 2.0, 3.0}
    scores = found["detection_scores"].numpy()
    assert (np.diff(scores, axis=1) <= 0).all() and 0 < scores.max() <= 1
    assert found["num_detections"].numpy().tolist() == [20.0, 20.0]


def test_classes_are_the_model_s_plus_one(inference: InferenceModel, shapes: list[Annotation]) -> None:
    give_boxes_an_area(inference)
    images, true_shapes = preprocessed(inference, shapes[:1])
    raw = inference.model.postprocess(inference.model.predict(images, true_shapes), true_shapes)
    found = inference.detect(images, true_shapes)
    np.testing.assert_array_equal(found["detection_classes"], np.asarray(raw["detection_classes"]) + 1)
    np.testing.assert_allclose(found["detection_boxes"], raw["detection_boxes"], atol=1e-5)


def test_freshly_built_weights_give_no_flat_boxes(inference: InferenceModel, shapes: list[Annotation]) -> None:
    """They answered with boxes of width or height 0 and score 1, to every image."""
    images, true_shapes = preprocessed(inference, shapes[:4])
    raw = inference.model.postprocess(inference.model.predict(images, true_shapes), true_shapes)
    sides = raw["detection_boxes"][..., 2:] - raw["detection_boxes"][..., :2]
    is_flat = np.min(sides, axis=-1) <= 0
    assert (np.asarray(raw["detection_scores"])[is_flat] > 0.99).any(), "else there is nothing to leave out"
    found = {name: value.numpy() for name, value in inference.detect(images, true_shapes).items()}
    is_real = found["detection_scores"] > 0
    assert (found["detection_boxes"][..., 2:] > found["detection_boxes"][..., :2]).all(axis=-1)[is_real].all()
    assert found["num_detections"].tolist() == is_real.sum(axis=1).tolist() == (~is_flat).sum(axis=1).tolist()


def test_invalid_detections_become_padding() -> None:
    nan, box = float("nan"), [0.1, 0.2, 0.3, 0.4]
    flat, narrow, turned = [0.1, 0.2, 0.1, 0.4], [0.1, 0.2, 0.3, 0.2], [0.5, 0.2, 0.3, 0.4]
    outputs = {
        "detection_boxes": tf.constant([[flat, box, [nan] * 4, box, narrow, turned, box, box]]),
        "detection_scores": tf.constant([[1.0, 0.9, 0.8, nan, 0.7, 0.6, 0.5, 0.4]]),
        "detection_classes": tf.constant([[1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 3.0, 1.0]]),
        "detection_masks": tf.reshape(tf.range(8.0), [1, 8, 1, 1]),
        "num_detections": tf.constant([7.0]),  # the last one is padding already
    }
    found = {name: value.numpy()[0].tolist() for name, value in _pad_invalid_detections(outputs).items()}
    assert found["num_detections"] == 2.0
    assert np.allclose(found["detection_boxes"], [box, box] + [[0.0] * 4] * 6)
    assert np.allclose(found["detection_scores"], [0.9, 0.5] + [0.0] * 6)
    assert found["detection_classes"][:2] == [2.0, 3.0]
    assert [mask[0][0] for mask in found["detection_masks"]][:2] == [1.0, 6.0]


def test_a_batch_says_the_same_as_its_images_alone(inference: InferenceModel, shapes: list[Annotation]) -> None:
    give_boxes_an_area(inference)
    images, true_shapes = preprocessed(inference, shapes[:3])
    together = inference.detect(images, true_shapes)
    for number in range(3):
        alone = inference.detect(images[number : number + 1], true_shapes[number : number + 1])
        for name, value in alone.items():
            np.testing.assert_allclose(value[0], together[name][number], atol=1e-4, err_msg=name)


def test_other_weights_other_detections_without_tracing_again(
    inference: InferenceModel, shapes: list[Annotation]
) -> None:
    give_boxes_an_area(inference)
    images, true_shapes = preprocessed(inference, shapes[:1])
    before = inference.detect(images, true_shapes)["detection_scores"].numpy()
    traced = inference.detect.experimental_get_tracing_count()
    for variable in inference.variables:
        variable.assign(variable * 0.5)  # fresh weights saturate the scores; larger ones would too
    assert not np.allclose(inference.detect(images, true_shapes)["detection_scores"], before)
    assert inference.detect.experimental_get_tracing_count() == traced


@pytest.mark.parametrize(
    ("resizer", "expected"),
    [
        ("fixed_shape_resizer { height: 96 width: 128 }", (96, 128)),
        ("keep_aspect_ratio_resizer { min_dimension: 96 max_dimension: 160 }", None),
        ("keep_aspect_ratio_resizer { min_dimension: 96 max_dimension: 160 pad_to_max_dimension: true }", (160, 160)),
    ],
)
def test_the_size_of_all_images_if_they_have_one(
    config: PipelineConfig, resizer: str, expected: tuple[int, int] | None
) -> None:
    from google.protobuf import text_format

    config.model.center_net.image_resizer.Clear()
    text_format.Parse(resizer, config.model.center_net.image_resizer)
    assert static_image_size(config.model) == expected


def test_a_configuration_that_the_api_refuses(config: PipelineConfig) -> None:
    config.model.center_net.feature_extractor.type = "hourglass_11"
    with pytest.raises(ConfigError, match=r"^model\.center_net: the model cannot be built: hourglass_11"):
        InferenceModel(config.model)
    with pytest.raises(ConfigError, match=r"^model\.nothing: the model cannot be built: "):
        InferenceModel(type(config)().model)


def test_all_variables_are_there_before_the_first_step(config: PipelineConfig, inference: Any) -> None:
    model = build_detection_model(config.model, is_training=True)
    with pytest.raises(ValueError, match="not yet been created"):
        _ = model.variables
    create_variables(model, config.model)
    assert len(model.variables) == len(inference.variables) > 50
    assert model._is_training is True
