"""Configs as the model zoo writes them, for TPUs and COCO, and what is left of them for a few dozen images."""

from __future__ import annotations

from typing import Any

import pytest

from odkeras.pipeline import Overrides, apply_overrides, check_pipeline, parse_pipeline, read_template
from odkeras.pipeline.few_images import LEARNING_RATE, tune_for_few_images
from odkeras.pipeline.proto import PipelineConfig, get_model

SSD, EFFICIENTDET, FASTER_RCNN, CENTERNET = (
    "ssd_mobilenet_v2_fpnlite_320",
    "efficientdet_d0_512",
    "faster_rcnn_resnet50_640",
    "centernet_resnet50_512",
)


def zoo_config(template: str, **model: Any) -> PipelineConfig:
    """The template's network with a training like the zoo's; `model` overrides fields such as feature_extractor."""
    config = parse_pipeline(read_template(template), source=template)
    network = get_model(config)
    network.num_classes = 90
    for name, value in model.items():
        if isinstance(value, dict):
            getattr(network, name).MergeFrom(type(getattr(network, name))(**value))
        else:
            setattr(network, name, value)
    if template in (SSD, EFFICIENTDET):
        network.feature_extractor.conv_hyperparams.batch_norm.decay = 0.997
        network.box_predictor.weight_shared_convolutional_box_predictor.conv_hyperparams.batch_norm.decay = 0.99
    train = config.train_config
    train.Clear()
    train.batch_size, train.num_steps, train.replicas_to_aggregate = 128, 300_000, 8
    train.sync_replicas = train.use_bfloat16 = True
    train.fine_tune_checkpoint, train.fine_tune_checkpoint_type = "PATH_TO_BE_CONFIGURED/ckpt-0", "classification"
    rate = train.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate
    rate.learning_rate_base, rate.total_steps = 0.08, 300_000
    train.data_augmentation_options.add().autoaugment_image.SetInParent()
    for reader in (config.train_input_reader, config.eval_input_reader[0]):
        reader.label_map_path = "PATH_TO_BE_CONFIGURED/label_map.txt"
        reader.tf_record_input_reader.input_path[:] = ["PATH_TO_BE_CONFIGURED/train-?????-of-00256.tfrecord"]
    return config


@pytest.mark.parametrize("template", [SSD, EFFICIENTDET, FASTER_RCNN, CENTERNET])
def test_the_network_is_the_zoo_s_and_the_training_the_template_s(template: str) -> None:
    config = zoo_config(template)
    before = config.SerializeToString(deterministic=True)
    tuned = tune_for_few_images(config)
    assert config.SerializeToString(deterministic=True) == before
    expected = parse_pipeline(read_template(template), source=template)
    if expected.train_config.optimizer.HasField("adam_optimizer"):
        rate = expected.train_config.optimizer.adam_optimizer.learning_rate.constant_learning_rate
        rate.learning_rate = LEARNING_RATE
    assert tuned.train_config == expected.train_config
    network = get_model(tuned)
    assert network.num_classes == 90
    network.num_classes = 1  # `odkeras init` sets it
    assert tuned.model == expected.model  # the decay of batch norm in it is 0.9
    assert (
        check_pipeline(
            apply_overrides(tuned, Overrides(label_map_path="x://", num_classes=1)), label_map=None, purpose="loop"
        )
        == []
    )


def test_other_parts_of_the_network_stay() -> None:
    config = zoo_config(SSD, inplace_batchnorm_update=True)
    get_model(config).feature_extractor.type = "ssd_mobilenet_v2_keras"
    get_model(config).anchor_generator.multiscale_anchor_generator.scales_per_octave = 5
    tuned = get_model(tune_for_few_images(config))
    assert tuned.inplace_batchnorm_update
    assert tuned.anchor_generator.multiscale_anchor_generator.scales_per_octave == 5


def fixed(size: int) -> dict[str, Any]:
    return {"fixed_shape_resizer": {"height": size, "width": size}}


@pytest.mark.parametrize(
    ("template", "resizer", "batch_size"),
    [
        (SSD, fixed(320), 8),
        (SSD, fixed(300), 8),
        (SSD, fixed(640), 2),
        (EFFICIENTDET, {"keep_aspect_ratio_resizer": {"min_dimension": 640, "max_dimension": 640}}, 2),
        (EFFICIENTDET, {"keep_aspect_ratio_resizer": {"min_dimension": 1536, "max_dimension": 1536}}, 1),
        (FASTER_RCNN, fixed(320), 2),
        (FASTER_RCNN, {"keep_aspect_ratio_resizer": {"min_dimension": 300, "max_dimension": 320}}, 2),
        (
            FASTER_RCNN,
            {"keep_aspect_ratio_resizer": {"min_dimension": 300, "max_dimension": 320, "pad_to_max_dimension": False}},
            1,  # images of different sizes
        ),
    ],
)
def test_larger_images_come_in_smaller_batches(template: str, resizer: dict[str, Any], batch_size: int) -> None:
    tuned = tune_for_few_images(zoo_config(template, image_resizer=resizer))
    assert tuned.train_config.batch_size == batch_size


def test_the_crops_have_the_size_of_the_images() -> None:
    resizer = {"keep_aspect_ratio_resizer": {"min_dimension": 640, "max_dimension": 640}}
    train = tune_for_few_images(zoo_config(EFFICIENTDET, image_resizer=resizer)).train_config
    assert train.data_augmentation_options[1].random_scale_crop_and_pad_to_square.output_size == 640


def test_layers_are_frozen_in_mobilenet_v2_alone() -> None:
    """The template's `freeze_variables` matches no weights of other networks; each training would warn of that."""
    mobilenet = tune_for_few_images(zoo_config(SSD)).train_config
    resnet = tune_for_few_images(zoo_config(SSD, feature_extractor={"type": "ssd_resnet50_v1_fpn_keras"})).train_config
    assert [len(each.freeze_variables) for each in (mobilenet, resnet)] == [1, 0]


@pytest.mark.parametrize("template", [SSD, EFFICIENTDET, CENTERNET])
def test_what_the_weights_know_is_not_unlearned(template: str) -> None:
    """With the templates' own rate, the boxes of a trained detector were no better than those of a new one."""
    rate = tune_for_few_images(zoo_config(template)).train_config.optimizer.adam_optimizer.learning_rate
    assert rate.constant_learning_rate.learning_rate == pytest.approx(3e-4)


def test_a_centernet_with_keypoints_becomes_one_for_boxes() -> None:
    config = zoo_config(CENTERNET, keypoint_label_map_path="PATH_TO_BE_CONFIGURED")
    task = config.model.center_net.keypoint_estimation_task.add(task_name="pose")
    task.keypoint_label_to_std["nose"] = 0.26
    tuned = tune_for_few_images(config)
    assert tuned.model == tune_for_few_images(zoo_config(CENTERNET)).model


def test_a_model_with_masks_goes_on_reading_masks() -> None:
    config = zoo_config(FASTER_RCNN)
    get_model(config).second_stage_box_predictor.mask_rcnn_box_predictor.predict_instance_masks = True
    get_model(config).image_resizer.fixed_shape_resizer.SetInParent()  # as the zoo's: the API cannot pad masks
    for reader in (config.train_input_reader, config.eval_input_reader[0]):
        reader.load_instance_masks, reader.mask_type = True, 2
    config.eval_config.metrics_set.append("coco_mask_metrics")
    overrides = Overrides(label_map_path="x://", eval_records=("x://eval",))
    tuned = apply_overrides(tune_for_few_images(config), overrides)
    assert check_pipeline(tuned, label_map=None, purpose="loop") == []
    assert tuned.eval_input_reader[0].load_instance_masks and "coco_mask_metrics" in tuned.eval_config.metrics_set
    assert list(tuned.eval_input_reader[0].tf_record_input_reader.input_path) == ["x://eval"]
