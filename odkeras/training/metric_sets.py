"""The metric sets of the Object Detection API: builds its evaluators from a pipeline.config and collects their results,
overall metrics before per-class ones."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from object_detection import eval_util
from object_detection.core import standard_fields
from object_detection.utils import label_map_util

from odkeras.errors import ConfigError
from odkeras.training.curves import Curve, coco_curves
from odkeras.training.per_class import finished_coco, listening, per_class, per_super_category

_log = logging.getLogger(__name__)

LVIS = "lvis_mask_metrics"

_MASK_SETS = ("coco_mask_metrics", LVIS)  # and those with `segmentation` in their names
_CHALLENGES = ("oid_challenge_detection_metrics", "oid_challenge_segmentation_metrics")
_COCO = ("coco_detection_metrics", "coco_mask_metrics")
_PREFIXES = {
    "coco_detection_metrics": "DetectionBoxes_",
    "coco_mask_metrics": "DetectionMasks_",
    LVIS: "DetectionMasks_",
}
_NUM_DETECTIONS = standard_fields.DetectionResultFields.num_detections
_PER_CLASS = "PerformanceBy"  # the names of the API's own per-class metrics contain it, too


class MetricSet:
    """Computes one metric set: `add` every example, then call `evaluate`.

    Args:
        name: its key in `eval_config.metrics_set`.
        evaluator: the API's `DetectionEvaluator`.
        super_categories: class names of each super-category, by its name.

    Attributes:
        curves: precision-recall curves of the last `evaluate`, by metric name. {} for other evaluators than COCO's,
            which do not expose their matches.
    """

    def __init__(self, name: str, evaluator: Any, super_categories: Mapping[str, list[str]]) -> None:
        self.name = name
        self._evaluator = evaluator
        self._super_categories = super_categories
        self.curves: dict[str, Curve] = {}

    def add(self, eval_dict: Mapping[str, Any]) -> None:
        """Add one example, in the form that `model_lib_v2.prepare_eval_dict` returns.

        Raises:
            ConfigError: the metrics compare masks, and the example or the model has none.
        """
        if self.name in _MASK_SETS or "segmentation" in self.name:
            _check_masks(self.name, eval_dict)
        if self.name in _CHALLENGES:
            eval_dict = _with_class_ids(eval_dict)
        if self.name == LVIS:
            eval_dict = _with_a_detection(eval_dict)
        self._evaluator.add_eval_dict(eval_dict)

    def evaluate(self) -> dict[str, float]:
        """Metrics by name. The first one is the primary metric of the set (mAP)."""
        with listening(), contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its own table
            found = {str(name): float(value) for name, value in self._evaluator.evaluate().items()}
            classes = per_class(_PREFIXES.get(self.name, ""))
            self.curves = self._curves(finished_coco())
        found = {name: value for name, value in found.items() if not _is_repeated(name, classes)}
        for kind, by_class in classes.items():
            found |= {f"{kind}/{label}": value for label, value in by_class.items()}
        if classes and self._super_categories:
            prefix = f"{_PREFIXES[self.name]}PerformanceBySuperCategory"
            groups = per_super_category(next(iter(classes.values())), self._super_categories)
            found |= {f"{prefix}/{name}": value for name, value in groups.items()}
        return found

    def _curves(self, evaluation: Any | None) -> dict[str, Curve]:
        if evaluation is None or evaluation.params.iouType == "keypoints":
            return {}
        kind = "precision_recall_masks" if self.name in _MASK_SETS else "precision_recall"
        return {f"{kind}/{label}": curve for label, curve in coco_curves(evaluation).items()}


def make_metric_sets(eval_config: Any, label_map_path: str) -> list[MetricSet]:
    """One `MetricSet` for each name in `eval_config.metrics_set` (COCO detection metrics when empty).

    Raises:
        ConfigError: a metric set that is unknown or not supported, or a super-category with an unknown class.
    """
    categories = list(label_map_util.create_category_index_from_labelmap(label_map_path).values())
    groups = _super_categories(eval_config, [each["name"] for each in categories])
    names = list(eval_config.metrics_set) or [eval_util.EVAL_DEFAULT_METRIC]
    if eval_config.parameterized_metric:
        _log.warning("eval_config.parameterized_metric is left out: it judges keypoints, and odkeras predicts none")
    return [MetricSet(name, _make_evaluator(eval_config, name, categories), groups) for name in dict.fromkeys(names)]


def overall_first(metrics: Mapping[str, float]) -> dict[str, float]:
    """The same metrics, overall ones before per-class ones."""
    return dict(sorted(metrics.items(), key=lambda item: is_per_class(item[0])))  # the sort is stable


def is_per_class(name: str) -> bool:
    """Whether a metric is that of one class or super-category, rather than of all classes."""
    return _PER_CLASS in name or "ByCategory/" in name or "BySuperCategory/" in name


def primary_metric(metrics: Mapping[str, float]) -> str:
    """Name of the primary metric: the mAP of the first metric set, on the first reader."""
    return next(iter(metrics))


def jsonable(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """The same metrics with None for NaN, which JSON lacks. PASCAL VOC reports NaN for a class without groundtruth."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _make_evaluator(eval_config: Any, name: str, categories: list[dict[str, Any]]) -> Any:
    settings = type(eval_config)()
    settings.CopyFrom(eval_config)
    settings.metrics_set[:] = [name]
    settings.include_metrics_per_category = name in _COCO and settings.all_metrics_per_category
    settings.super_categories.clear()
    del settings.parameterized_metric[:]
    if name == LVIS:
        settings.all_metrics_per_category = False
        categories = [{"frequency": "f", **each} for each in categories]
    known = ", ".join(sorted(eval_util.EVAL_METRICS_CLASS_DICT))
    try:
        options = eval_util.evaluator_options_from_eval_config(settings)
        (evaluator,) = eval_util.get_evaluators(settings, categories, options)
    except ValueError as error:
        raise ConfigError(f"eval_config.metrics_set: {error}; known: {known}") from error
    except TypeError as error:  # coco_keypoint_metrics has required arguments that describe the keypoints
        raise ConfigError(f"eval_config.metrics_set: {name} cannot be used: odkeras predicts no keypoints") from error
    if not hasattr(evaluator, "add_eval_dict"):
        raise ConfigError(f"eval_config.metrics_set: the API computes {name} from files alone, not from a model")
    return evaluator


def _super_categories(eval_config: Any, labels: list[str]) -> dict[str, list[str]]:
    groups = {
        name: [label.strip() for label in text.split(",") if label.strip()]
        for name, text in sorted(eval_config.super_categories.items())
    }
    for name, members in groups.items():
        unknown = [label for label in members if label not in labels]
        if unknown:
            raise ConfigError(
                f"eval_config.super_categories: {name!r} names {unknown[0]!r}, which is not in the label map (known: "
                f"{', '.join(labels)})"
            )
    return groups


def _is_repeated(name: str, classes: Iterable[str]) -> bool:
    """Whether `classes` has this metric already: with `all_metrics_per_category` the API reports it, too."""
    return any(name.startswith(f"{kind}/") for kind in classes)


def _check_masks(name: str, eval_dict: Mapping[str, Any]) -> None:
    if standard_fields.InputDataFields.groundtruth_instance_masks not in eval_dict:
        raise ConfigError(
            f"eval_config.metrics_set: {name} compares masks, and the examples have none; set load_instance_masks: "
            "true in the eval_input_reader"
        )
    if standard_fields.DetectionResultFields.detection_masks not in eval_dict:
        raise ConfigError(f"eval_config.metrics_set: {name} compares masks, and the model makes none")


def _with_a_detection(eval_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Count one padding detection, of score 0, if there is none: LVIS's evaluator fails without any detection."""
    found = eval_dict.get(_NUM_DETECTIONS)
    return dict(eval_dict) if found is None else {**eval_dict, _NUM_DETECTIONS: tf.maximum(found, 1)}


def _with_class_ids(eval_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Replace k-hot vectors of image classes by class ids, as the OpenImages challenge evaluators expect.

    The API's input pipeline has a k-hot vector of the verified classes (all ones if the record has none), and its own
    evaluation loop passes that on as if it were a list of ids.
    """
    fields = standard_fields.InputDataFields
    changed = dict(eval_dict)
    for field, first_id in ((fields.groundtruth_image_classes, 1), (fields.groundtruth_labeled_classes, 0)):
        if field in changed:  # `prepare_eval_dict` has added the background class before the labeled classes
            ids = np.flatnonzero(np.array(changed[field])[0]) + first_id
            changed[field] = tf.constant(ids[np.newaxis], tf.int64)
    return changed
