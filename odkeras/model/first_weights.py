"""The weights that a model starts from before it has a checkpoint of its own."""

from __future__ import annotations

import logging
from typing import Any

from odkeras.labels import LabelMap
from odkeras.model.fine_tune import RestoreReport, restore_fine_tune_checkpoint
from odkeras.model.heads import restore_heads
from odkeras.model.imagenet import load_imagenet_weights
from odkeras.pipeline import PipelineConfig

_log = logging.getLogger(__name__)


def load_first_weights(model: Any, config: PipelineConfig, label_map: LabelMap) -> RestoreReport | None:
    """Load the config's fine-tune checkpoint, or else the ImageNet weights that the API would build the model with.

    From a detector (`fine_tune_checkpoint_type: "detection"`), the heads start with its weights, too.

    Args:
        model: a `DetectionModel` of `config`, whose variables exist.
        config: the resolved config.
        label_map: the project's label map.

    Returns:
        What was restored, with the first weights of training in `adapted` where they are others; None if the config
        names no fine-tune checkpoint.

    Raises:
        CheckpointError: the checkpoint cannot be restored.
        WeightsError: the ImageNet weights cannot be downloaded.
    """
    train = config.train_config
    if not train.fine_tune_checkpoint:
        from_imagenet = load_imagenet_weights(model, config.model)
        _log.info("starting from %s weights", "ImageNet" if from_imagenet else "random")
        return None
    kind = train.fine_tune_checkpoint_type or "detection"
    report = restore_fine_tune_checkpoint(model, train.fine_tune_checkpoint, kind)
    if kind == "detection":
        report = report.with_heads(restore_heads(model, config, label_map, train.fine_tune_checkpoint))
    _log.info("fine-tuning from %s: %s", train.fine_tune_checkpoint, report)
    return report
