"""Load, check, modify and save the Object Detection API's pipeline.config, without TensorFlow.

Example:

    config = load_pipeline("pipeline.config")
    config = apply_overrides(config, Overrides(label_map_path="label_map.pbtxt", num_classes=2))
    problems = check_pipeline(config, label_map=None, purpose="loop")
    raise_for_problems(problems)
"""

from odkeras.odapi import ODAPI_INSTALL_COMMAND, ODAPI_REQUIREMENTS
from odkeras.pipeline.checks import Purpose, check_pipeline
from odkeras.pipeline.keypoints import read_skeleton
from odkeras.pipeline.overrides import Overrides, apply_overrides, checkpoint_prefix
from odkeras.pipeline.problems import Problem, Severity, raise_for_problems
from odkeras.pipeline.proto import (
    PipelineConfig,
    feature_extractor_type,
    get_fine_tune_checkpoint,
    get_fine_tune_type,
    get_label_map_path,
    is_placeholder,
    load_pipeline,
    loads_masks,
    model_type,
    num_classes,
    parse_pipeline,
    read_png_masks,
    save_pipeline,
    set_num_classes,
)
from odkeras.pipeline.schedules import learning_rate_at
from odkeras.pipeline.templates import list_templates, read_template, template_header
from odkeras.pipeline.trained_classes import (
    LABEL_MAP_NAME,
    check_trained_classes,
    check_training_continues,
    check_version_classes,
    has_checkpoints,
    trained_config,
)
from odkeras.pipeline.weights import RANDOM_WEIGHTS, starts_from_random_weights

__all__ = [
    "LABEL_MAP_NAME",
    "ODAPI_INSTALL_COMMAND",
    "ODAPI_REQUIREMENTS",
    "RANDOM_WEIGHTS",
    "Overrides",
    "PipelineConfig",
    "Problem",
    "Purpose",
    "Severity",
    "apply_overrides",
    "check_pipeline",
    "check_trained_classes",
    "check_training_continues",
    "check_version_classes",
    "checkpoint_prefix",
    "feature_extractor_type",
    "get_fine_tune_checkpoint",
    "get_fine_tune_type",
    "get_label_map_path",
    "has_checkpoints",
    "is_placeholder",
    "learning_rate_at",
    "list_templates",
    "load_pipeline",
    "loads_masks",
    "model_type",
    "num_classes",
    "parse_pipeline",
    "raise_for_problems",
    "read_png_masks",
    "read_skeleton",
    "read_template",
    "save_pipeline",
    "set_num_classes",
    "starts_from_random_weights",
    "template_header",
    "trained_config",
]
