"""Check a pipeline.config, before TensorFlow starts, for settings that would fail later or not do what they say."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from odkeras.errors import LabelMapError
from odkeras.labels import LabelMap
from odkeras.odapi import ODAPI_INSTALL_COMMAND
from odkeras.pipeline import extractors
from odkeras.pipeline.architecture import architecture_problems
from odkeras.pipeline.augmentation import augmentation_problems
from odkeras.pipeline.files import checkpoint_kind, checkpoint_problems, is_remote, record_problems
from odkeras.pipeline.keypoints import keypoint_problems, loop_keypoint_problems
from odkeras.pipeline.problems import Problem, Severity
from odkeras.pipeline.proto import (
    CHECKPOINT_V2,
    PipelineConfig,
    feature_extractor_type,
    get_fine_tune_checkpoint,
    get_fine_tune_type,
    get_label_map_path,
    get_model,
    is_placeholder,
    loads_masks,
    model_type,
    num_classes,
)
from odkeras.pipeline.schedules import horizon_problems, schedule_problems
from odkeras.pipeline.weights import downloads_weights

Purpose = Literal["loop", "train", "eval", "export"]

FINE_TUNE_TYPES = ("classification", "detection", "full")
"""The types that the `restore_from_objects` methods of the API's meta-architectures support."""

METRICS_SETS = (
    "coco_detection_metrics",
    "coco_keypoint_metrics",
    "coco_mask_metrics",
    "coco_panoptic_metrics",
    "lvis_mask_metrics",
    "oid_V2_detection_metrics",
    "oid_challenge_detection_metrics",
    "oid_challenge_segmentation_metrics",
    "pascal_voc_detection_metrics",
    "pascal_voc_instance_segmentation_metrics",
    "precision_at_recall_detection_metrics",
    "weighted_pascal_voc_detection_metrics",
    "weighted_pascal_voc_instance_segmentation_metrics",
)
"""The API's names for `eval_config.metrics_set`; it has them where TensorFlow is needed."""


@dataclass(frozen=True)
class _CheckContext:
    """The input of every check; for the fields see `check_pipeline`."""

    config: PipelineConfig
    label_map: LabelMap | None
    purpose: Purpose
    step: int | None

    @property
    def trains(self) -> bool:
        return self.purpose in ("loop", "train")


def check_pipeline(
    config: PipelineConfig, *, label_map: LabelMap | None, purpose: Purpose, step: int | None = None
) -> list[Problem]:
    """Find all problems, in the order of the file: model, training, readers.

    Args:
        label_map: the label map to use instead of the config's label_map_path; None loads that one.
        purpose: what the config is used for. "loop" trains on records that odkeras writes during annotation; "train"
            trains on the records of the config.
        step: the global step that training resumes from (the newest checkpoint); None or 0 for a new training.
    """
    if config.model.WhichOneof("model") in (None, "experimental_model"):
        value = config.model.WhichOneof("model") or ""
        return [
            Problem("model", value, "no model that can be built", "use model { ssd {...} }, faster_rcnn or center_net")
        ]
    question = _CheckContext(config, label_map, purpose, step)
    return [problem for check in _CHECKS for problem in check(question)]


def _check_feature_extractor(question: _CheckContext) -> Iterator[Problem]:
    config, name = question.config, feature_extractor_type(question.config)
    field = f"model.{model_type(config)}.feature_extractor.type"
    if name in extractors.TF1_ONLY:
        replacement = extractors.TF1_ONLY[name]
        fix = (
            f"use {replacement}, with a checkpoint from the TensorFlow 2 zoo" if replacement else "choose another model"
        )
        yield Problem(field, name, "this feature extractor exists for TensorFlow 1 only", fix)
    elif name not in extractors.known(model_type(config)) and not extractors.is_registered(name):
        fix = extractors.near(name, model_type(config))
        yield Problem(field, name, f"no such feature extractor for {model_type(config)}", fix)
    elif name in extractors.NEEDS_OFFICIAL and not _has_official("legacy/image_classification/efficientnet"):
        yield Problem(field, name, "needs the package tf-models-official", f"run: {ODAPI_INSTALL_COMMAND}")
    elif question.trains and not question.step and downloads_weights(config) and not get_fine_tune_checkpoint(config):
        reason = "starts from ImageNet weights, which are downloaded if they are not on this machine"
        fix = "without a network, name other weights in train_config.fine_tune_checkpoint"
        yield Problem(field, name, reason, fix, "warning")


def _check_architecture(question: _CheckContext) -> Iterator[Problem]:
    """Skipped for an extractor that is not in our lists: its sizes and levels are unknown."""
    if feature_extractor_type(question.config) in extractors.known(model_type(question.config)):
        yield from architecture_problems(question.config)


def _check_tf1_settings(question: _CheckContext) -> Iterator[Problem]:
    config = question.config
    if model_type(config) == "ssd" and config.model.ssd.matcher.WhichOneof("matcher_oneof") == "bipartite_matcher":
        yield Problem("model.ssd.matcher", "bipartite_matcher", "exists for TensorFlow 1 only", "use argmax_matcher")
    if model_type(config) == "faster_rcnn" and config.model.faster_rcnn.inplace_batchnorm_update:
        field = "model.faster_rcnn.inplace_batchnorm_update"
        yield Problem(field, "true", "is not supported by Faster R-CNN in TensorFlow 2", "remove the line")
    if config.HasField("graph_rewriter"):
        reason = "quantisation while training exists for TensorFlow 1 only and is ignored"
        yield Problem("graph_rewriter", "", reason, "remove it; quantise the exported SavedModel instead", "warning")


def _check_keypoints(question: _CheckContext) -> Iterator[Problem]:
    problems = list(keypoint_problems(question.config, trains=question.trains))
    yield from problems
    if question.purpose == "loop" and not problems:
        label_map = question.label_map or _read_label_map(get_label_map_path(question.config))[1]
        if label_map is not None:
            yield from loop_keypoint_problems(question.config, label_map)


def _check_inputs_suffice(question: _CheckContext) -> Iterator[Problem]:
    """Check that the model gets all that it takes besides the image, and learns from. If it needs more, it cannot be
    built, or computing the first loss fails."""
    if extractors.takes_context(question.config):
        yield from _check_context(question)
    if not question.trains:
        return
    if field := extractors.cannot_train(question.config):
        reason = "learns from offsets between images, which the input pipeline of the API does not read"
        yield Problem(field, "", reason, "remove it")
    for field, what, loaded_by in extractors.needs_more_than_shapes(question.config):
        if question.purpose == "loop":
            reason = f"learns from {what}, but the annotations are boxes, polygons and keypoints"
            yield Problem(field, "", reason, "remove it, or train with `odkeras train` on records that have them")
        elif not getattr(question.config.train_input_reader, loaded_by):
            reason = f"must be set for a model that learns from {what} ({field})"
            yield Problem(f"train_input_reader.{loaded_by}", "", reason, "set it, with records that have them")


_CONTEXT_OF_TF1 = {
    "use_self_attention": False,
    "use_long_term_attention": True,
    "self_attention_in_sequence": False,
    "num_attention_heads": 1,
    "num_attention_layers": 1,
}
"""Fields of `context_config`, each with the only value that the API implements for TensorFlow 2."""


def _check_context(question: _CheckContext) -> Iterator[Problem]:
    context = question.config.model.faster_rcnn.context_config
    for name, only in _CONTEXT_OF_TF1.items():
        value = getattr(context, name)
        if value != only:
            field = f"model.faster_rcnn.context_config.{name}"
            text, fix = (str(each).lower() for each in (value, only))
            yield Problem(field, text, "exists for TensorFlow 1 only", f"set {name}: {fix}, or remove the line")
    readers = [("train_input_reader", question.config.train_input_reader)] if question.trains else []
    if question.purpose != "export":
        named = (each for each in question.config.eval_input_reader if each.tf_record_input_reader.input_path)
        readers += [("eval_input_reader", reader) for reader in named]
    for field, reader in readers:
        if not reader.load_context_features:
            reason = "must be true for a model that takes features of other images (model.faster_rcnn.context_config)"
            yield Problem(f"{field}.load_context_features", "", reason, "set load_context_features: true")


def _check_masks_are_loaded(question: _CheckContext) -> Iterator[Problem]:
    """Check that a model that learns masks gets them, and can resize them. Otherwise computing the first loss fails."""
    parts = extractors.mask_parts(question.config)
    if question.trains and parts and not loads_masks(question.config):
        reason = f"must be true for a model that learns masks ({parts[0]})"
        fix = "set load_instance_masks: true and mask_type: PNG_MASKS"
        yield Problem("train_input_reader.load_instance_masks", "", reason, fix)
    if question.trains and parts and model_type(question.config) == "faster_rcnn":
        resizer = question.config.model.faster_rcnn.image_resizer.keep_aspect_ratio_resizer
        if resizer.pad_to_max_dimension:
            field = "model.faster_rcnn.image_resizer.keep_aspect_ratio_resizer.pad_to_max_dimension"
            fix = "use fixed_shape_resizer, or pad_to_max_dimension: false with batch_size: 1"
            yield Problem(field, "true", "the API cannot pad the masks of a model of two stages", fix)


def _check_classes(question: _CheckContext) -> Iterator[Problem]:
    field, count = f"model.{model_type(question.config)}.num_classes", num_classes(question.config)
    label_map = question.label_map
    if label_map is None:
        problem, label_map = _read_label_map(get_label_map_path(question.config))
        yield from problem
    if label_map is None:
        if count < 1:
            yield Problem(field, str(count), "a model needs at least one class", "set it to the label map's highest id")
    elif count < label_map.max_id:
        reason = f"the label map has ids up to {label_map.max_id} ({label_map.name_of(label_map.max_id)!r})"
        yield Problem(field, str(count), reason, f"set num_classes: {label_map.max_id}")
    elif count > label_map.max_id:
        reason = f"the label map's highest id is {label_map.max_id}: {count - label_map.max_id} outputs are never used"
        yield Problem(field, str(count), reason, f"set num_classes: {label_map.max_id}", "warning")


def _read_label_map(path: str | None, reader: str = "train_input_reader") -> tuple[list[Problem], LabelMap | None]:
    field = f"{reader}.label_map_path"
    fix = "put the path of your label map here, or give --label-map-path"
    if path is None:
        return [Problem(field, "", "no label map is given", fix)], None
    if is_placeholder(path):
        return [Problem(field, path, "is a placeholder", fix)], None
    if is_remote(path):
        return [], None
    try:
        return [], LabelMap.load(path)
    except LabelMapError as error:
        return [Problem(field, path, str(error), fix)], None


def _check_batch(question: _CheckContext) -> Iterator[Problem]:
    if not question.trains:
        return
    batch_size = question.config.train_config.batch_size
    if batch_size < 1:
        yield Problem("train_config.batch_size", str(batch_size), "must be at least 1", "8 suits most machines")
    resizer = get_model(question.config).image_resizer
    kind = resizer.WhichOneof("image_resizer_oneof")
    field = f"model.{model_type(question.config)}.image_resizer"
    if kind in (None, "pad_to_multiple_resizer"):
        yield Problem(
            field, kind or "", "cannot be used for training", "use fixed_shape_resizer or keep_aspect_ratio_resizer"
        )
    elif batch_size > 1 and not gives_one_size(resizer):
        reason = f"produces images of different sizes, which do not fit into one batch of {batch_size}"
        yield Problem(
            field, kind, reason, "set pad_to_max_dimension: true in keep_aspect_ratio_resizer, or batch_size: 1"
        )


def gives_one_size(resizer: PipelineConfig) -> bool:
    """Whether an image_resizer produces images of one size, so that they fit into a batch."""
    kind = resizer.WhichOneof("image_resizer_oneof")
    return kind == "fixed_shape_resizer" or (
        kind == "keep_aspect_ratio_resizer" and bool(resizer.keep_aspect_ratio_resizer.pad_to_max_dimension)
    )


def _check_optimizer(question: _CheckContext) -> Iterator[Problem]:
    if not question.trains:
        return
    problems = list(schedule_problems(question.config))
    yield from problems or horizon_problems(question.config, question.step or 0)
    optimizer = question.config.train_config.optimizer
    if optimizer.use_moving_average and not _has_official("modeling/optimization/ema_optimizer.py"):
        reason = "moving averages (on where the field is not set) need the package tf-models-official"
        fix = f"set use_moving_average: false, or run: {ODAPI_INSTALL_COMMAND}"
        yield Problem("train_config.optimizer.use_moving_average", "true", reason, fix)


def _check_train_config(question: _CheckContext) -> Iterator[Problem]:
    if not question.trains:
        return
    train = question.config.train_config
    yield from augmentation_problems(question.config)
    for field in ("freeze_variables", "update_trainable_variables"):
        for pattern in getattr(train, field):
            if problem := _regex_error(pattern):
                yield Problem(
                    f"train_config.{field}", pattern, f"is an invalid regular expression: {problem}", "correct it"
                )
    if train.use_bfloat16:
        yield Problem(
            "train_config.use_bfloat16",
            "true",
            "is for TPUs and is ignored",
            "remove the line; `odkeras train --precision bfloat16` computes in it",
            "warning",
        )


def _regex_error(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        return str(error)
    return ""


def _check_fine_tuning(question: _CheckContext) -> Iterator[Problem]:
    """Check the fine-tune checkpoint. Skipped if training resumes from its own checkpoint (step > 0), because the
    fine-tune checkpoint is not read then."""
    train, path = question.config.train_config, get_fine_tune_checkpoint(question.config)
    if not question.trains or question.step or not train.fine_tune_checkpoint:
        return
    field = "train_config.fine_tune_checkpoint"
    if path is None:
        severity: Severity = "warning" if question.purpose == "loop" else "error"
        reason = "is a placeholder, so training would start from random weights, which takes thousands of images"
        fix = "put the path of a checkpoint here, or remove the line if random weights are intended"
        yield Problem(field, str(train.fine_tune_checkpoint), reason, fix, severity)
        return
    yield from checkpoint_problems(path, field=field)
    if train.fine_tune_checkpoint_version != CHECKPOINT_V2:
        value = "V1" if train.HasField("fine_tune_checkpoint_version") else ""
        reason = "TensorFlow 2 restores V2 checkpoints only (where the field is not set, it is V1)"
        yield Problem(f"{field}_version", value, reason, "set fine_tune_checkpoint_version: V2")
    yield from _fine_tune_type_problems(question.config, path)


def _fine_tune_type_problems(config: PipelineConfig, path: str) -> Iterator[Problem]:
    field, kind = "train_config.fine_tune_checkpoint_type", get_fine_tune_type(config)
    extractor, checkpoint_type = feature_extractor_type(config), checkpoint_kind(path)
    allowed = [kind for kind in FINE_TUNE_TYPES if kind != "classification" or extractor not in extractors.NO_BACKBONE]
    if kind == "fine_tune" and model_type(config) == "center_net":
        yield Problem(field, kind, "is no longer supported by CenterNet", "use detection, which does the same")
    elif kind not in allowed:
        reason = f"cannot be restored by {model_type(config)} with {extractor}"
        yield Problem(field, kind, reason, f"use {' or '.join(allowed)}")
    elif checkpoint_type is not None and (kind == "classification") != (checkpoint_type == "classification"):
        yield Problem(field, kind, f"the checkpoint {path} holds a {checkpoint_type} model", f"use {checkpoint_type}")


def _check_readers(question: _CheckContext) -> Iterator[Problem]:
    config = question.config
    if question.purpose == "train":
        yield from _reader_problems(config.train_input_reader, "train_input_reader", "error")
    if question.purpose == "eval" and not config.eval_input_reader:
        yield Problem("eval_input_reader", "", "there are no records to evaluate on", "add one with an input_path")
    for reader in config.eval_input_reader:
        paths = list(reader.tf_record_input_reader.input_path)
        if question.purpose == "eval" or any(not is_placeholder(path) for path in paths if question.purpose == "train"):
            yield from _reader_problems(
                reader, "eval_input_reader", "error" if question.purpose == "eval" else "warning"
            )
        if question.purpose == "eval" and reader.label_map_path:
            problem, _ = _read_label_map(str(reader.label_map_path), "eval_input_reader")
            yield from problem


def _check_metrics_sets(question: _CheckContext) -> Iterator[Problem]:
    """Check the names of the metric sets: the API looks at them when the first evaluation begins."""
    for name in question.config.eval_config.metrics_set:
        if name not in METRICS_SETS:
            near = difflib.get_close_matches(name, METRICS_SETS, n=1)
            fix = f"did you mean {near[0]}?" if near else f"use one of {', '.join(METRICS_SETS)}"
            severity: Severity = "error" if question.purpose == "eval" else "warning"
            yield Problem("eval_config.metrics_set", name, "no such set of metrics", fix, severity)


def _reader_problems(reader: PipelineConfig, name: str, severity: Severity) -> Iterator[Problem]:
    field = f"{name}.tf_record_input_reader.input_path"
    paths = list(reader.tf_record_input_reader.input_path)
    if not paths:
        fix = 'name your TFRecord files, for example "data/*_train.record"'
        yield Problem(field, "", "no records are given", fix, severity)
    yield from record_problems(paths, field=field, severity=severity)


def _has_official(path: str) -> bool:
    """Whether tf-models-official has this file. Searched on disk, since importing the package loads TensorFlow and
    takes seconds."""
    spec = importlib.util.find_spec("official")
    return spec is not None and any((Path(root) / path).exists() for root in spec.submodule_search_locations or ())


_CHECKS: tuple[Callable[[_CheckContext], Iterator[Problem]], ...] = (
    _check_feature_extractor,
    _check_architecture,
    _check_tf1_settings,
    _check_keypoints,
    _check_inputs_suffice,
    _check_masks_are_loaded,
    _check_classes,
    _check_batch,
    _check_optimizer,
    _check_train_config,
    _check_fine_tuning,
    _check_readers,
    _check_metrics_sets,
)
