"""Where the initial weights of a training come from."""

from __future__ import annotations

import math

from odkeras.pipeline import extractors
from odkeras.pipeline.proto import PipelineConfig, feature_extractor_type, get_fine_tune_checkpoint, get_model

RANDOM_WEIGHTS = (
    "The model starts from random weights: good suggestions take hundreds of images. With trained weights a "
    "few dozen images are enough."
)


def downloads_weights(config: PipelineConfig) -> bool:
    """Whether a training without a checkpoint starts from ImageNet weights, which are downloaded (`model.imagenet`).

    Raises:
        ConfigError: the config has no model.
    """
    is_offered = feature_extractor_type(config) in extractors.DOWNLOADS_WEIGHTS
    return is_offered and math.isclose(get_model(config).feature_extractor.depth_multiplier, 1.0)


def starts_from_random_weights(config: PipelineConfig) -> bool:
    """Whether training starts without a checkpoint and without downloaded weights. Good suggestions then take hundreds
    of images rather than dozens.

    Raises:
        ConfigError: the config has no model.
    """
    return get_fine_tune_checkpoint(config) is None and not downloads_weights(config)
