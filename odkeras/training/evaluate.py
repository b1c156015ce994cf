"""Evaluation with the Object Detection API's own evaluators: every metric set it knows, on the examples a
pipeline.config names."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from object_detection import eval_util, model_lib_v2
from object_detection.utils import label_map_util

from odkeras.errors import CheckpointError, ConfigError
from odkeras.model.checkpoint import choose_checkpoints, restore_for_prediction
from odkeras.model.inference import CLASS_ID_OFFSET, InferenceModel
from odkeras.model.setup import Setup
from odkeras.training.inputs import evaluation_dataset

_log = logging.getLogger(__name__)


def evaluate(
    inference: InferenceModel,
    config: Any,
    *,
    max_examples: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """Metrics of `inference` by name, as in `eval_config.metrics_set` (COCO detection metrics when empty).

    Args:
        inference: the model with the weights to judge.
        config: a resolved `TrainEvalPipelineConfig`; every `eval_input_reader` is evaluated, the names of all but a
            single one carry the reader's name.
        max_examples: stop after this many examples of each reader; None, 0 or less = all.
        progress: told the number of examples done.

    Raises:
        ConfigError: no examples, or an unknown metric set.
    """
    metrics: dict[str, float] = {}
    readers = list(config.eval_input_reader)
    for number, reader in enumerate(readers):
        prefix = "" if len(readers) == 1 else f"{reader.name or number}/"
        found = _evaluate_reader(inference, config, reader, max_examples, progress)
        metrics.update({f"{prefix}{name}": value for name, value in found.items()})
    if not readers:
        raise ConfigError(
            "eval_input_reader: the pipeline.config names no examples to evaluate on; add an eval_input_reader"
        )
    return metrics


def evaluate_checkpoint(
    setup: Setup,
    model_dir: Path,
    *,
    checkpoint: str | None = None,
    max_examples: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """Metrics of the newest checkpoint in `model_dir`, or of `checkpoint`; see `evaluate`.

    Raises:
        CheckpointError: there is none, or it does not fit the model.
        ConfigError: no examples, or an unknown metric set.
    """
    checkpoints = choose_checkpoints(model_dir, checkpoint)
    if not checkpoints:
        raise CheckpointError(
            f"there is no checkpoint in {model_dir}; train first, or give --checkpoint or --model-dir"
        )
    inference = InferenceModel(setup.config.model)
    restore_for_prediction(inference.model, checkpoints)
    return evaluate(inference, setup.config, max_examples=max_examples, progress=progress)


def _evaluate_reader(
    inference: InferenceModel, config: Any, reader: Any, max_examples: int | None, progress: Callable[[int], None]
) -> dict[str, float]:
    evaluators = _make_evaluators(config.eval_config, reader)
    dataset = evaluation_dataset(config, inference.model, reader)
    done = 0
    for features, labels in itertools.islice(dataset, max_examples if (max_examples or 0) > 0 else None):
        outputs = inference.detect(features["image"], features["true_image_shape"])
        detections = {**outputs, "detection_classes": outputs["detection_classes"] - CLASS_ID_OFFSET}
        eval_dict, _ = model_lib_v2.prepare_eval_dict(detections, _without_padding(labels), features)
        for evaluator in evaluators:
            evaluator.add_eval_dict(eval_dict)
        done += 1
        progress(done)
    if not done:
        raise ConfigError(f"eval_input_reader: no examples in {', '.join(reader.tf_record_input_reader.input_path)}")
    metrics: dict[str, float] = {}
    for evaluator in evaluators:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its own table
            metrics.update({str(name): float(value) for name, value in evaluator.evaluate().items()})
    return metrics


def _make_evaluators(eval_config: Any, reader: Any) -> list[Any]:
    settings = type(eval_config)()
    settings.CopyFrom(eval_config)
    if settings.include_metrics_per_category:
        _log.warning("eval_config.include_metrics_per_category needs a patched pycocotools; it is ignored")
        settings.include_metrics_per_category = False
    categories = list(label_map_util.create_category_index_from_labelmap(reader.label_map_path).values())
    try:
        options = eval_util.evaluator_options_from_eval_config(settings)
        return list(eval_util.get_evaluators(settings, categories, options))
    except ValueError as error:
        known = ", ".join(sorted(eval_util.EVAL_METRICS_CLASS_DICT))
        raise ConfigError(f"eval_config.metrics_set: {error}; known: {known}") from error


def _without_padding(labels: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The labels of the one image of a batch, cut to its real boxes."""
    count = int(labels["num_groundtruth_boxes"][0])
    per_box = {
        name
        for name, value in labels.items()
        if value.shape.rank >= 2 and value.shape[1] == labels["groundtruth_boxes"].shape[1]
    }
    per_image = {
        "groundtruth_verified_neg_classes",
        "groundtruth_not_exhaustive_classes",
        "groundtruth_image_classes",
        "groundtruth_labeled_classes",
    }
    return {name: value[:, :count] if name in per_box - per_image else value for name, value in labels.items()}
