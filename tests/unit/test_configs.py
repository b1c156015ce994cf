"""The templates in configs/: they can be used as they are, are tuned for few images, and say what to expect of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from odkeras.init_project import DEFAULT_TEMPLATE
from odkeras.labels import LabelMap
from odkeras.pipeline import (
    PipelineConfig,
    Problem,
    check_pipeline,
    get_label_map_path,
    is_placeholder,
    learning_rate_at,
    list_templates,
    model_type,
    num_classes,
    parse_pipeline,
    read_template,
    template_header,
)
from odkeras.pipeline.proto import CHECKPOINT_V2, get_model

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(params=list_templates())
def template(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def config(template: str) -> PipelineConfig:
    return parse_pipeline(read_template(template), source=template)


def messages(message: Any) -> Iterator[Any]:
    """The message and all messages in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if field.is_repeated else [value]:
                yield from messages(each)


def test_the_templates_are_the_files_of_the_folder() -> None:
    assert list_templates() == sorted(path.stem for path in CONFIGS.glob("*.config"))
    assert DEFAULT_TEMPLATE in list_templates()


def test_the_header_says_how_it_is_used_and_what_comes_of_it(template: str) -> None:
    header = template_header(read_template(template))
    for title in ("Command:", "Hardware:", "Measured:"):
        assert re.search(rf"^# {title} +\S", header, re.MULTILINE), f"{template} has no line '# {title} ...'"
    assert all(len(line) <= 120 for line in header.splitlines())


def problems_of(config: PipelineConfig, label_map: LabelMap, step: int | None = None) -> list[Problem]:
    """All but the remark that a network's own weights are not on this machine, which depends on the machine."""
    problems = check_pipeline(config, label_map=label_map, purpose="loop", step=step)
    return [each for each in problems if not (each.severity == "warning" and "downloaded" in each.reason)]


def test_nothing_stands_in_the_way_of_the_loop(config: PipelineConfig) -> None:
    names = [f"label {number}" for number in range(num_classes(config))]
    assert problems_of(config, LabelMap.from_names(names)) == []
    assert problems_of(config, LabelMap.from_names(names), step=10**7) == []


def test_no_paths_are_left_in(config: PipelineConfig, template: str) -> None:
    assert get_label_map_path(config) is None
    assert config.train_config.fine_tune_checkpoint == ""
    assert not [line for line in read_template(template).splitlines() if is_placeholder(line)]


def test_training_has_no_horizon(config: PipelineConfig) -> None:
    assert learning_rate_at(config, 10**9) == learning_rate_at(config, 0) > 0


def test_training_is_made_for_small_batches_and_other_machines(config: PipelineConfig) -> None:
    train = config.train_config
    assert 1 <= train.batch_size <= 16
    assert train.gradient_clipping_by_norm == 10.0
    assert train.fine_tune_checkpoint_version == CHECKPOINT_V2
    assert not train.optimizer.use_moving_average
    assert not train.use_bfloat16
    assert train.max_number_of_boxes == config.train_input_reader.max_number_of_boxes


def test_batch_norm_follows_within_some_hundred_steps(config: PipelineConfig) -> None:
    """With the zoo's 0.997 a model of 300 steps predicts with statistics of its untrained state: mAP 0.04 for 0.60."""
    decays = {round(each.decay, 4) for each in messages(config.model) if each.DESCRIPTOR.name == "BatchNorm"}
    if model_type(config) == "ssd":  # the others have no setting for it
        assert decays == {0.9}


def test_the_default_freezes_layers_that_its_backbone_has() -> None:
    config = parse_pipeline(read_template(DEFAULT_TEMPLATE), source="template")
    (pattern,) = config.train_config.freeze_variables
    frozen = ("Conv1/kernel", "bn_Conv1/gamma", "expanded_conv_depthwise/depthwise_kernel", "block_6_project_BN/beta")
    trained = ("block_7_expand/kernel", "block_13_expand/kernel", "Conv_1/kernel", "top_down/smoothing_1")
    assert all(re.search(pattern, name) for name in frozen)
    assert not any(re.search(pattern, name) for name in trained)


def test_as_many_boxes_come_out_as_go_in_whatever_their_score(config: PipelineConfig) -> None:
    """Which of them are shown is for the annotator to say."""
    model, most = get_model(config), config.train_config.max_number_of_boxes
    if model.DESCRIPTOR.name == "CenterNet":
        assert model.object_center_params.max_box_predictions == most
        return
    post_processing = model.post_processing if model.DESCRIPTOR.name == "Ssd" else model.second_stage_post_processing
    assert post_processing.batch_non_max_suppression.max_total_detections == most
    assert post_processing.batch_non_max_suppression.score_threshold == pytest.approx(1e-8)


def test_the_default_has_the_architecture_of_the_zoo_s_model() -> None:
    """Else the zoo's checkpoint does not fit."""
    ssd = parse_pipeline(read_template(DEFAULT_TEMPLATE), source="template").model.ssd
    predictor, anchors = ssd.box_predictor.weight_shared_convolutional_box_predictor, ssd.anchor_generator
    assert ssd.feature_extractor.type == "ssd_mobilenet_v2_fpn_keras"
    assert (ssd.feature_extractor.fpn.min_level, ssd.feature_extractor.fpn.max_level) == (3, 7)
    assert ssd.feature_extractor.fpn.additional_layer_depth == predictor.depth == 128
    assert (predictor.num_layers_before_predictor, predictor.kernel_size) == (4, 3)
    assert predictor.share_prediction_tower and predictor.use_depthwise and ssd.feature_extractor.use_depthwise
    assert list(anchors.multiscale_anchor_generator.aspect_ratios) == [1.0, 2.0, 0.5]
    assert anchors.multiscale_anchor_generator.scales_per_octave == 2
    assert ssd.post_processing.score_converter == 1  # SIGMOID
    assert ssd.post_processing.batch_non_max_suppression.iou_threshold == pytest.approx(0.6)
