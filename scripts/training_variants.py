"""Named changes to a training configuration, tried before its hyper-parameters were chosen."""

from __future__ import annotations

from collections.abc import Callable

from odkeras.pipeline import PipelineConfig, model_type

ZOO_OPTIMIZER = """
    momentum_optimizer {
      learning_rate {
        cosine_decay_learning_rate {
          learning_rate_base: 0.08 total_steps: 50000 warmup_learning_rate: 0.026666 warmup_steps: 1000
        }
      }
      momentum_optimizer_value: 0.9
    }
    use_moving_average: false
"""
ZOO_BATCH_NORM_DECAY = 0.997
ZOO_L2 = 4e-5
MOMENTUM = """
    momentum_optimizer {
      learning_rate { constant_learning_rate { learning_rate: 0.01 } }
      momentum_optimizer_value: 0.9
    }
    use_moving_average: false
"""

CROPS_OF_ALL_SIZES = """
    random_crop_image {
      min_object_covered: 0.3 min_aspect_ratio: 0.5 max_aspect_ratio: 2.0 min_area: 0.2 max_area: 1.0
      overlap_thresh: 0.3 random_coef: 0.15
    }
"""

Change = Callable[[PipelineConfig], None]


def as_in_the_zoo(config: PipelineConfig) -> None:
    """The model zoo's training, but with our model and batch size."""
    set_optimizer(config, ZOO_OPTIMIZER)
    config.train_config.ClearField("gradient_clipping_by_norm")
    train_all_layers(config)
    set_batch_norm_decay(config, ZOO_BATCH_NORM_DECAY)
    for hyperparams in ssd_hyperparams(config):
        hyperparams.regularizer.l2_regularizer.weight = ZOO_L2


def train_all_layers(config: PipelineConfig) -> None:
    config.train_config.ClearField("freeze_variables")


def freeze_fewer_layers(config: PipelineConfig) -> None:
    """Freeze four blocks of MobileNetV2 instead of seven."""
    config.train_config.freeze_variables[:] = ["^((bn_)?Conv1/|expanded_conv_|block_[1-3]_)"]


def freeze_backbone(config: PipelineConfig) -> None:
    """Freeze all of MobileNetV2: only the feature pyramid and the box predictor learn."""
    config.train_config.freeze_variables[:] = ["^((bn_)?Conv1/|Conv1_bn|expanded_conv_|block_|Conv_1)"]


def predict_large_objects_from_finer_maps(config: PipelineConfig) -> None:
    """Anchors of twice the size on levels 3 to 5: no object is predicted from the coarse maps of levels 6 and 7."""
    anchors = config.model.ssd.anchor_generator.multiscale_anchor_generator
    anchors.anchor_scale = 8.0
    anchors.max_level = config.model.ssd.feature_extractor.fpn.max_level = 5


def spread_anchors_over_three_levels(config: PipelineConfig) -> None:
    """The default's range of sizes in six sizes, on levels 3 to 5."""
    generator = config.model.ssd.anchor_generator
    generator.Clear()
    for level, sizes_px in ((3, (32, 50)), (4, (77, 119)), (5, (185, 286))):
        grid = generator.flexible_grid_anchor_generator.anchor_grid.add()
        for ratio in (1.0, 2.0, 0.5):
            grid.base_sizes.extend(sizes_px)
            grid.aspect_ratios.extend([ratio] * len(sizes_px))
        grid.height_stride = grid.width_stride = 2**level
        grid.height_offset = grid.width_offset = 2 ** (level - 1)
    config.model.ssd.feature_extractor.fpn.max_level = 5


def crop_more(config: PipelineConfig) -> None:
    from google.protobuf import text_format

    leave_crops_out(config)
    text_format.Parse(CROPS_OF_ALL_SIZES, config.train_config.data_augmentation_options.add())


def leave_crops_out(config: PipelineConfig) -> None:
    options = config.train_config.data_augmentation_options
    kept = [each for each in options if each.WhichOneof("preprocessing_step") != "random_crop_image"]
    del options[:]
    options.extend(kept)


def learning_rate(rate: float) -> Change:
    def change(config: PipelineConfig) -> None:
        config.train_config.optimizer.adam_optimizer.learning_rate.constant_learning_rate.learning_rate = rate

    return change


def batches_of(size: int) -> Change:
    def change(config: PipelineConfig) -> None:
        config.train_config.batch_size = size

    return change


def weigh_boxes(weight: float) -> Change:
    """The weight of the boxes' loss beside that of the classes."""

    def change(config: PipelineConfig) -> None:
        config.model.ssd.loss.localization_weight = weight

    return change


def average_weights(decay: float) -> Change:
    """Publish the exponential moving average of the weights."""

    def change(config: PipelineConfig) -> None:
        config.train_config.optimizer.use_moving_average = True
        config.train_config.optimizer.moving_average_decay = decay

    return change


def set_optimizer(config: PipelineConfig, text: str) -> None:
    from google.protobuf import text_format

    config.train_config.optimizer.Clear()
    text_format.Parse(text, config.train_config.optimizer)


def set_batch_norm_decay(config: PipelineConfig, decay: float) -> None:
    for hyperparams in ssd_hyperparams(config):
        hyperparams.batch_norm.decay = decay


def ssd_hyperparams(config: PipelineConfig) -> list[PipelineConfig]:
    """The hyper-parameters of feature extractor and box predictor; empty for other architectures."""
    if model_type(config) != "ssd":
        return []
    ssd = config.model.ssd
    predictor = ssd.box_predictor.weight_shared_convolutional_box_predictor
    return [ssd.feature_extractor.conv_hyperparams, predictor.conv_hyperparams]


VARIANTS: dict[str, Change] = {
    "zoo": as_in_the_zoo,
    "all-layers": train_all_layers,
    "fewer-frozen": freeze_fewer_layers,
    "batch-4": batches_of(4),
    "rate-0.0003": learning_rate(0.0003),
    "rate-0.003": learning_rate(0.003),
    "momentum-0.01": lambda config: set_optimizer(config, MOMENTUM),
    "batch-norm-0.997": lambda config: set_batch_norm_decay(config, ZOO_BATCH_NORM_DECAY),
    "no-crops": leave_crops_out,
    "more-crops": crop_more,
    "frozen-backbone": freeze_backbone,
    "large-anchors": predict_large_objects_from_finer_maps,
    "three-levels": spread_anchors_over_three_levels,
    "box-loss-4": weigh_boxes(4.0),
    "average-0.95": average_weights(0.95),
    "average-0.98": average_weights(0.98),
}
