"""Adapt a pipeline.config of the model zoo, written for a hundred thousand images on a TPU, to a few dozen images."""

from __future__ import annotations

from typing import Any

from odkeras.pipeline.checks import gives_one_size
from odkeras.pipeline.proto import (
    PipelineConfig,
    feature_extractor_type,
    get_model,
    loads_masks,
    model_type,
    parse_pipeline,
)
from odkeras.pipeline.templates import read_template

MAX_BATCH_NORM_DECAY = 0.9
"""The zoo's 0.997 averages over some 1,000 steps, more than a training on few images has."""

_TEMPLATES = {
    "ssd": "ssd_mobilenet_v2_fpnlite_320",
    "faster_rcnn": "faster_rcnn_resnet50_640",
    "center_net": "centernet_resnet50_512",
}
LEARNING_RATE = 3e-4
"""For Adam. The templates' 0.001 suits heads that start from random weights. It takes from those of a trained detector
what they know about boxes: mAP 0.51 instead of 0.61 after 200 steps on 40 images (docs/benchmarks.md)."""


def tune_for_few_images(config: PipelineConfig) -> PipelineConfig:
    """A copy of `config` whose training is that of the template for this kind of model.

    The network stays as it is, so that all its weights fit. What changes in `model` is how it trains: batch norm
    follows its statistics faster, or in Faster R-CNN, whose decay cannot be set, keeps them. Of CenterNet only the task
    of keypoints is removed, which needs a label map that names them.

    Raises:
        ConfigError: `config` has no model, or one that is not supported.
    """
    model = get_model(config)
    is_efficientdet = "efficientnet" in feature_extractor_type(config)
    name = "efficientdet_d0_512" if is_efficientdet else _TEMPLATES[model_type(config)]
    template = parse_pipeline(read_template(name), source=f"template {name}")
    tuned = type(config)()
    tuned.CopyFrom(template)
    tuned.model.CopyFrom(config.model)
    _tune_model(tuned)
    if loads_masks(config):
        tuned.train_input_reader.load_instance_masks = True
        tuned.train_input_reader.mask_type = config.train_input_reader.mask_type
        tuned.eval_config.CopyFrom(config.eval_config)
        tuned.eval_input_reader[0].CopyFrom(config.eval_input_reader[0])
    train = tuned.train_config
    train.batch_size = _batch_size(template, model)
    height, width = _size_hw(model.image_resizer)
    for option in train.data_augmentation_options:
        if option.HasField("random_scale_crop_and_pad_to_square"):
            option.random_scale_crop_and_pad_to_square.output_size = max(height, width)
    if "mobilenet_v2" not in feature_extractor_type(config):
        train.ClearField("freeze_variables")  # the template's names are those of MobileNetV2
    keep_what_a_detector_knows(tuned)
    return tuned


def keep_what_a_detector_knows(config: PipelineConfig) -> None:
    """Limit the learning rate of a template, in place, for a training that starts from a detector's weights."""
    optimizer = config.train_config.optimizer
    if optimizer.HasField("adam_optimizer"):
        rate = optimizer.adam_optimizer.learning_rate.constant_learning_rate
        rate.learning_rate = min(rate.learning_rate, LEARNING_RATE)


def _tune_model(config: PipelineConfig) -> None:
    model = get_model(config)
    if model_type(config) == "faster_rcnn":
        model.feature_extractor.batch_norm_trainable = False
    if model_type(config) == "center_net":
        model.ClearField("keypoint_estimation_task")
        model.ClearField("keypoint_label_map_path")
    _limit_batch_norm_decay(model)


def _limit_batch_norm_decay(message: Any) -> None:
    """Change the decay in all batch_norm messages below `message`, in place."""
    from google.protobuf.message import Message

    for field, value in message.ListFields():
        if field.name == "batch_norm":
            value.decay = min(value.decay, MAX_BATCH_NORM_DECAY)
        elif field.message_type is not None:
            for child in (value,) if isinstance(value, Message) else value:
                if isinstance(child, Message):  # not the keys of a map
                    _limit_batch_norm_decay(child)


def _batch_size(template: PipelineConfig, model: Any) -> int:
    """The template's batch size, smaller by as much as the images are larger; 1 if they differ in size."""
    resizer = model.image_resizer
    if not gives_one_size(resizer):
        return 1
    height, width = _size_hw(resizer)
    template_height, template_width = _size_hw(get_model(template).image_resizer)
    size = template.train_config.batch_size * template_height * template_width / (height * width)
    return max(1, min(template.train_config.batch_size, int(size)))


def _size_hw(resizer: Any) -> tuple[int, int]:
    """Height and width in pixels that a resizer produces, or of the largest images if they differ."""
    if resizer.HasField("fixed_shape_resizer"):
        return resizer.fixed_shape_resizer.height, resizer.fixed_shape_resizer.width
    keep = resizer.keep_aspect_ratio_resizer
    return keep.max_dimension, keep.max_dimension
