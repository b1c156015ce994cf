"""Metrics of an evaluation: runs the Object Detection API's evaluators, and adds what they leave out.

With the public pycocotools and lvis, the API reports neither per-class metrics nor precision-recall curves, although
both packages compute what they need: a precision for every class, and every match.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from object_detection import eval_util
from object_detection.core import standard_fields
from object_detection.metrics import coco_evaluation, coco_tools, lvis_tools
from object_detection.utils import label_map_util

from odkeras.errors import ConfigError
from odkeras.labels import label_map_for_api
from odkeras.training.precision_recall import ALL_SIZES, PrecisionRecallCurve, coco_curves

_log = logging.getLogger(__name__)

LVIS = "lvis_mask_metrics"
KEYPOINTS = "coco_keypoint_metrics"

ABSENT = -1.0
"""COCO's value of a metric without groundtruth. Means leave it out."""

_MASK_SETS = ("coco_mask_metrics", LVIS)  # and those with `segmentation` in their names
_CHALLENGES = ("oid_challenge_detection_metrics", "oid_challenge_segmentation_metrics")
_COCO = ("coco_detection_metrics", "coco_mask_metrics")
_PREFIXES = {
    "coco_detection_metrics": "DetectionBoxes_",
    "coco_mask_metrics": "DetectionMasks_",
    LVIS: "DetectionMasks_",
}
_PER_CLASS = ("PerformanceBy", "ByCategory/", "BySuperCategory/")  # in the names that odkeras and the API use
_MAX_DETECTIONS = -1  # index of COCO's largest `maxDets`


class MetricSet:
    """Computes one metric set: `add` every example, then call `evaluate`.

    Args:
        name: its key in `eval_config.metrics_set`, or in a `parameterized_metric`.
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
        self.curves: dict[str, PrecisionRecallCurve] = {}

    def add(self, eval_dict: Mapping[str, Any]) -> None:
        """Add one example, in the form that `model_lib_v2.prepare_eval_dict` returns.

        Raises:
            ConfigError: the metrics compare masks or keypoints, and the example or the model has none.
        """
        if self.name == KEYPOINTS:
            _check_keypoints(eval_dict)
        if self.name in _MASK_SETS or "segmentation" in self.name:
            _check_masks(self.name, eval_dict)
        if self.name in _CHALLENGES:
            eval_dict = _with_class_ids(eval_dict)
        if self.name == LVIS:
            count = standard_fields.DetectionResultFields.num_detections
            if count in eval_dict:  # LVIS's evaluator fails without any detection: keep one of the padding, of score 0
                eval_dict = {**eval_dict, count: tf.maximum(eval_dict[count], 1)}
        self._evaluator.add_eval_dict(eval_dict)

    def evaluate(self) -> dict[str, float]:
        """Metrics by name. The first one is the primary metric of the set (mAP)."""
        prefix = _PREFIXES.get(self.name, "")
        with _capture_evaluation() as captured, contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints a table
            metrics = {str(name): float(value) for name, value in self._evaluator.evaluate().items()}
        by_class = _per_class(captured, prefix)
        self.curves = self._curves(captured.get("COCO"))
        # With `all_metrics_per_category` the API reports some of the per-class metrics, too.
        prefixes = tuple(f"{metric}/" for metric in by_class)
        metrics = {name: value for name, value in metrics.items() if not name.startswith(prefixes)}
        for metric, values in by_class.items():
            metrics |= {f"{metric}/{label}": value for label, value in values.items()}
        if by_class:
            precisions = next(iter(by_class.values()))
            for name, labels in self._super_categories.items():
                members = np.array([precisions.get(label, ABSENT) for label in labels])
                metrics[f"{prefix}PerformanceBySuperCategory/{name}"] = _mean(members)
        return metrics

    def _curves(self, evaluation: Any | None) -> dict[str, PrecisionRecallCurve]:
        if evaluation is None or evaluation.params.iouType == "keypoints":
            return {}
        kind = "precision_recall_masks" if self.name in _MASK_SETS else "precision_recall"
        return {f"{kind}/{label}": curve for label, curve in coco_curves(evaluation).items()}


def make_metric_sets(eval_config: Any, label_map_path: str) -> list[MetricSet]:
    """One `MetricSet` for each name in `eval_config.metrics_set` (COCO detection metrics when empty), and one for each
    `eval_config.parameterized_metric`, which are those of keypoints.

    Raises:
        ConfigError: a metric set that is unknown or not supported, or whose class has no keypoints in the label map.
    """
    with label_map_for_api(label_map_path) as path:
        categories = list(label_map_util.create_category_index_from_labelmap(path).values())
    groups = _super_categories(eval_config, [category["name"] for category in categories])
    names = list(eval_config.metrics_set) or [eval_util.EVAL_DEFAULT_METRIC]
    sets = [MetricSet(name, _make_evaluator(eval_config, name, categories), groups) for name in dict.fromkeys(names)]
    parameters = [metric.coco_keypoint_metrics for metric in eval_config.parameterized_metric]
    return sets + [MetricSet(KEYPOINTS, _make_keypoint_evaluator(each, categories), {}) for each in parameters]


def overall_first(metrics: Mapping[str, float]) -> dict[str, float]:
    """The same metrics, overall ones before those of one class or super-category."""
    return dict(sorted(metrics.items(), key=lambda item: any(part in item[0] for part in _PER_CLASS)))  # a stable sort


def primary_metric(metrics: Mapping[str, float]) -> str:
    """Name of the primary metric: the mAP of the first metric set, on the first reader."""
    return next(iter(metrics))


def jsonable(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """The same metrics with None for NaN, which JSON lacks. PASCAL VOC reports NaN for a class without groundtruth."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


@contextlib.contextmanager
def _capture_evaluation() -> Iterator[dict[str, Any]]:
    """Yields a dict that gets the evaluation that finishes within the block, under "COCO" or "LVIS".

    It patches two module attributes of the API, so it is not thread-safe.
    """
    captured: dict[str, Any] = {}
    originals = coco_tools.COCOEvalWrapper, lvis_tools.LVISEvalWrapper

    class CocoEval(coco_tools.COCOEvalWrapper):
        def summarize(self) -> None:
            super().summarize()
            if self.params.iouType in ("bbox", "segm"):
                # The API reads it for `all_metrics_per_category`, but only a patched pycocotools sets it.
                self.category_stats = _category_stats(self.eval, self.params)
                captured["COCO"] = self

    class LvisEval(lvis_tools.LVISEvalWrapper):
        def run(self) -> None:
            super().run()
            captured["LVIS"] = self

    coco_tools.COCOEvalWrapper, lvis_tools.LVISEvalWrapper = CocoEval, LvisEval
    try:
        yield captured
    finally:
        coco_tools.COCOEvalWrapper, lvis_tools.LVISEvalWrapper = originals


def _per_class(captured: Mapping[str, Any], prefix: str) -> dict[str, dict[str, float]]:
    """Average precision by metric, then by class name.

    The metrics are `<prefix>PerformanceByCategory/mAP` and `.../mAP@.50IOU` after COCO's evaluation, `.../AP` and
    `.../AP50` after LVIS'; none after any other. `ABSENT` for a class without groundtruth.
    """
    if "COCO" in captured:
        evaluation, metrics = captured["COCO"], ("mAP", "mAP@.50IOU")
        labels = [evaluation.GetCategory(number)["name"] for number in evaluation.GetCategoryIdList()]
        precision = evaluation.eval["precision"][:, :, :, ALL_SIZES, _MAX_DETECTIONS]
        half = np.isclose(evaluation.params.iouThrs, 0.5)
    elif "LVIS" in captured:
        evaluation, metrics = captured["LVIS"], ("AP", "AP50")
        labels = [evaluation.lvis_gt.cats[number]["name"] for number in evaluation.params.cat_ids]
        precision = evaluation.eval["precision"][:, :, :, ALL_SIZES]
        half = np.isclose(evaluation.params.iou_thrs, 0.5)
    else:
        return {}
    values = (_mean_of_each_class(precision), _mean_of_each_class(precision[half]))
    return {
        f"{prefix}PerformanceByCategory/{metric}": dict(zip(labels, column, strict=True))
        for metric, column in zip(metrics, values, strict=True)
    }


def _mean(values: Any) -> float:
    """The mean of the values that are not `ABSENT`; `ABSENT` if all are. The mean of COCO's precisions is the AP."""
    present = values[values > ABSENT]
    return float(np.mean(present)) if present.size else ABSENT


def _mean_of_each_class(values: Any) -> list[float]:
    """The means over the first two axes of an array (thresholds, recalls, classes)."""
    return [_mean(values[:, :, number]) for number in range(values.shape[2])]


def _category_stats(evaluated: Mapping[str, Any], params: Any) -> Any:
    """COCO's twelve metrics of each class, (12, classes), in the order of pycocotools' `stats`."""
    precision, recall = evaluated["precision"], evaluated["recall"]
    last = len(params.maxDets) - 1
    rows = [
        precision[..., ALL_SIZES, last],
        precision[np.isclose(params.iouThrs, 0.5)][..., ALL_SIZES, last],
        precision[np.isclose(params.iouThrs, 0.75)][..., ALL_SIZES, last],
        *(precision[..., size, last] for size in (1, 2, 3)),
        *(recall[..., ALL_SIZES, index][:, np.newaxis] for index in range(last + 1)),
        *(recall[..., size, last][:, np.newaxis] for size in (1, 2, 3)),
    ]
    return np.array([_mean_of_each_class(row) for row in rows])


def _make_evaluator(eval_config: Any, name: str, categories: list[dict[str, Any]]) -> Any:
    settings = type(eval_config)()
    settings.CopyFrom(eval_config)
    settings.metrics_set[:] = [name]
    settings.include_metrics_per_category = name in _COCO and settings.all_metrics_per_category
    settings.super_categories.clear()
    del settings.parameterized_metric[:]
    if name == LVIS:
        settings.all_metrics_per_category = False
        categories = [{"frequency": "f", **category} for category in categories]
    known = ", ".join(sorted(eval_util.EVAL_METRICS_CLASS_DICT))
    try:
        options = eval_util.evaluator_options_from_eval_config(settings)
        (evaluator,) = eval_util.get_evaluators(settings, categories, options)
    except ValueError as error:
        raise ConfigError(f"eval_config.metrics_set: {error}; known: {known}") from error
    except TypeError as error:  # coco_keypoint_metrics has required arguments that describe the keypoints
        raise ConfigError(
            f"eval_config.metrics_set: {name} needs to know the class; remove it, and add eval_config "
            f"{{ parameterized_metric {{ {name} {{ class_label: 'person' }} }} }} with the name of your class"
        ) from error
    if not hasattr(evaluator, "add_eval_dict"):
        raise ConfigError(f"eval_config.metrics_set: the API computes {name} from files alone, not from a model")
    return evaluator


def _make_keypoint_evaluator(parameters: Any, categories: Sequence[Mapping[str, Any]]) -> Any:
    """The API's evaluator of one class's keypoints. The API itself leaves out a class that the label map lacks, and
    fails on a keypoint without a sigma.

    Raises:
        ConfigError: one of these.

    Args:
        parameters: an `eval_pb2.ParameterizedMetric.CocoKeypointMetrics`.
        categories: as `label_map_util` reads them, with `keypoints`: name -> id.
    """
    field = f"eval_config.parameterized_metric.{KEYPOINTS}"
    label = parameters.class_label
    category = next((each for each in categories if each["name"] == label), None)
    if category is None:
        known = ", ".join(str(each["name"]) for each in categories)
        raise ConfigError(f"{field}.class_label: {label!r} is not in the label map (known: {known})")
    keypoints = category.get("keypoints")
    if not keypoints:
        raise ConfigError(
            f"{field}.class_label: {label!r} has no keypoints in the label map; add them to its item, for example "
            "keypoints { id: 0 label: 'nose' }"
        )
    sigmas = dict(parameters.keypoint_label_to_sigmas)
    missing = [name for name in keypoints if name not in sigmas] if sigmas else []
    if missing:
        raise ConfigError(
            f"{field}.keypoint_label_to_sigmas: {', '.join(missing)} missing; give the sigma of every keypoint of "
            f"{label!r}, or of none, which takes 0.05 for all"
        )
    points = [{"id": id, "name": name} for name, id in keypoints.items()]
    return coco_evaluation.CocoKeypointEvaluator(category["id"], points, label, sigmas)


def _super_categories(eval_config: Any, labels: list[str]) -> dict[str, list[str]]:
    """The known classes of each super-category. As in the API, other classes are left out: DeepMAC's configs name those
    of COCO, whatever the label map has."""
    groups = {}
    for name, text in sorted(eval_config.super_categories.items()):
        members = [label.strip() for label in text.split(",") if label.strip()]
        known = [label for label in members if label in labels]
        if unknown := [label for label in members if label not in labels]:
            _log.warning(
                "eval_config.super_categories: %r names %s, which the label map lacks; %s",
                name,
                ", ".join(map(repr, unknown)),
                "they are left out" if known else "the super-category is left out",
            )
        if known:
            groups[name] = known
    return groups


def _check_keypoints(eval_dict: Mapping[str, Any]) -> None:
    field = f"eval_config.parameterized_metric: {KEYPOINTS} compares keypoints, and"
    if standard_fields.InputDataFields.groundtruth_keypoints not in eval_dict:
        raise ConfigError(f"{field} the examples have none; set num_keypoints in the eval_input_reader")
    if standard_fields.DetectionResultFields.detection_keypoints not in eval_dict:
        raise ConfigError(f"{field} the model predicts none")


def _check_masks(name: str, eval_dict: Mapping[str, Any]) -> None:
    if standard_fields.InputDataFields.groundtruth_instance_masks not in eval_dict:
        raise ConfigError(
            f"eval_config.metrics_set: {name} compares masks, and the examples have none; set load_instance_masks: "
            "true in the eval_input_reader"
        )
    if standard_fields.DetectionResultFields.detection_masks not in eval_dict:
        raise ConfigError(f"eval_config.metrics_set: {name} compares masks, and the model predicts none")


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
