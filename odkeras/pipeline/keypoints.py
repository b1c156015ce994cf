"""The keypoints of a pipeline.config: which ones its model predicts, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from odkeras.errors import ConfigError, LabelMapError
from odkeras.keypoints import COCO_PERSON, Skeleton
from odkeras.labels import LabelMap
from odkeras.pipeline.files import is_remote
from odkeras.pipeline.problems import Problem
from odkeras.pipeline.proto import PipelineConfig, get_label_map_path, is_placeholder, model_type

_LABEL_MAP = "model.center_net.keypoint_label_map_path"
_CLASS = "model.center_net.keypoint_estimation_task.keypoint_class_name"

KEYPOINT_TEMPLATE = "centernet_keypoints"
"""The template for projects whose labels have keypoints."""

_TASK = """
task_loss_weight: 1.0
loss {
  localization_loss { l1_localization_loss {} }
  classification_loss { penalty_reduced_logistic_focal_loss { alpha: 2.0 beta: 4.0 } }
}
keypoint_heatmap_loss_weight: 1.0
keypoint_offset_loss_weight: 1.0
keypoint_regression_loss_weight: 0.1
keypoint_candidate_score_threshold: 0.1
num_candidates_per_keypoint: 100
score_distance_offset: 1e-6
"""
_COCO_SIGMAS = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
}
"""How far annotators of COCO differ in the place of a keypoint, as a share of the square root of the object's area."""


def predicts_keypoints(config: PipelineConfig) -> bool:
    """Whether the model predicts keypoints. Of the API's models, CenterNet can."""
    return model_type(config) == "center_net" and bool(config.model.center_net.keypoint_estimation_task)


def read_skeleton(config: PipelineConfig) -> Skeleton | None:
    """The keypoints of a checked config, and the edges of its `eval_config.keypoint_edge`; None without keypoints.

    Raises:
        LabelMapError: the keypoint label map cannot be read.
    """
    if not predicts_keypoints(config):
        return None
    path = str(config.model.center_net.keypoint_label_map_path)
    names = () if is_remote(path) else LabelMap.load(path).keypoint_names
    return Skeleton(names, tuple((int(edge.start), int(edge.end)) for edge in config.eval_config.keypoint_edge))


def learn_keypoints(config: PipelineConfig, label_map: LabelMap, path: str, skeleton: Skeleton) -> None:
    """Make a CenterNet learn, evaluate and draw the keypoints of a label map, in place.

    Flips exchange the keypoints whose names differ in left and right.

    Args:
        label_map: the classes; those with keypoints learn them. They are numbered from 0 over all classes.
        path: where the label map is saved.
        skeleton: the keypoints of all classes by their id, and the lines between them.

    Raises:
        ConfigError: the model is not CenterNet, which alone can learn keypoints.
    """
    from google.protobuf import text_format

    if model_type(config) != "center_net":
        raise ConfigError(
            f"only CenterNet learns keypoints, and this model is {model_type(config)}; use the template "
            f"{KEYPOINT_TEMPLATE}, or weights whose name starts with centernet"
        )
    model = config.model.center_net
    model.ClearField("keypoint_estimation_task")
    model.keypoint_label_map_path = path
    for label in label_map.labels:
        if label.keypoints:
            task = text_format.Parse(_TASK, model.keypoint_estimation_task.add())
            task.task_name = task.keypoint_class_name = label.name
            metric = config.eval_config.parameterized_metric.add().coco_keypoint_metrics
            metric.class_label = label.name
            names = [name for _, name in label.keypoints]
            if set(names) <= set(COCO_PERSON.names):
                sigmas = {name: _COCO_SIGMAS[re.sub("^(left|right)_", "", name)] for name in names}
                metric.keypoint_label_to_sigmas.update(sigmas)
    for start, end in skeleton.edges:
        config.eval_config.keypoint_edge.add(start=start, end=end)
    for reader in (config.train_input_reader, *config.eval_input_reader):
        reader.num_keypoints = label_map.num_keypoints
    for option in config.train_config.data_augmentation_options:
        step = getattr(option, option.WhichOneof("preprocessing_step"))
        if hasattr(step, "keypoint_flip_permutation"):
            step.keypoint_flip_permutation[:] = skeleton.mirrored


def loop_keypoint_problems(config: PipelineConfig, label_map: LabelMap) -> Iterator[Problem]:
    """Find what keeps the loop from writing the keypoints that the model learns: its records have those of `label_map`.

    Args:
        config: without `keypoint_problems`.
        label_map: of the annotators' labels.
    """
    path = str(config.model.center_net.keypoint_label_map_path)
    if not predicts_keypoints(config) or is_remote(path) or not Path(path).is_file():
        return
    learned = [str(task.keypoint_class_name) for task in config.model.center_net.keypoint_estimation_task]
    known = {label.name: label.keypoints for label in LabelMap.load(path).labels if label.name in learned}
    named = {label.name: label.keypoints for label in label_map.labels if label.keypoints}
    if {name: sorted(points) for name, points in named.items()} != {name: sorted(known[name]) for name in known}:
        reason = f"names other keypoints ({_described(named)}) than {path} for the model ({_described(known)})"
        fix = f"add keypoints {{ id: 0 label: 'nose' }} to the items of the classes as in {path}, or give that file"
        yield Problem("train_input_reader.label_map_path", get_label_map_path(config) or "", reason, fix)


def _described(keypoints: Mapping[str, Sequence[tuple[int, str]]]) -> str:
    classes = [f"{name}: {', '.join(f'{id} {label}' for id, label in points)}" for name, points in keypoints.items()]
    return "; ".join(classes) or "none"


def keypoint_problems(config: PipelineConfig, *, trains: bool) -> Iterator[Problem]:
    """Find what keeps the API from building a model with keypoints, and what makes it mix them up.

    Args:
        trains: also check that the training reader loads as many keypoints as the model has.
    """
    if not predicts_keypoints(config):
        return
    path = str(config.model.center_net.keypoint_label_map_path)
    if is_remote(path):
        if trains and not config.train_input_reader.num_keypoints:
            reason = "must be set for a model that learns keypoints (model.center_net.keypoint_estimation_task)"
            yield Problem("train_input_reader.num_keypoints", "", reason, "set it, with records that have them")
        return
    if not path or is_placeholder(path) or not Path(path).is_file():
        reason = "no such label map with keypoints, which the keypoint_estimation_task needs"
        fix = "name one, or remove keypoint_estimation_task to train on boxes only"
        yield Problem(_LABEL_MAP, path, reason, fix)
        return
    try:
        label_map = LabelMap.load(path)
    except LabelMapError as error:
        yield Problem(_LABEL_MAP, path, str(error), "correct it")
        return
    problems = [*_class_problems(config, label_map)]
    yield from problems or _number_problems(config, label_map, trains=trains)


def _class_problems(config: PipelineConfig, label_map: LabelMap) -> Iterator[Problem]:
    with_keypoints = [label.name for label in label_map.labels if label.keypoints]
    for task in config.model.center_net.keypoint_estimation_task:
        if task.keypoint_class_name not in with_keypoints:
            known = ", ".join(map(repr, with_keypoints)) or "none"
            reason = f"is no class with keypoints in {config.model.center_net.keypoint_label_map_path}; it has: {known}"
            fix = "correct it, or add keypoints { id: 0 label: 'nose' } to the item of the class"
            yield Problem(_CLASS, task.keypoint_class_name, reason, fix)


def _number_problems(config: PipelineConfig, label_map: LabelMap, *, trains: bool) -> Iterator[Problem]:
    """The API takes the order of the label map for predictions, and the ids for the truth, so they must agree."""
    by_class = {label.name: label.keypoints for label in label_map.labels}
    classes = [str(task.keypoint_class_name) for task in config.model.center_net.keypoint_estimation_task]
    ids = [id for name in classes for id, _ in by_class[name]]
    names = [name for each in classes for _, name in by_class[each]]
    unordered = [name for name in classes if list(by_class[name]) != sorted(by_class[name])]
    path = str(config.model.center_net.keypoint_label_map_path)
    if sorted(ids) != list(range(len(ids))):
        reason = f"the ids of the keypoints must be 0 to {len(ids) - 1}, each once; got {', '.join(map(str, ids))}"
        yield Problem(_LABEL_MAP, path, reason, "number them from 0, over all classes of the model")
    elif "" in names or len(set(names)) < len(names):
        reason = f"each keypoint needs a label of its own; got {', '.join(map(repr, names))}"
        yield Problem(_LABEL_MAP, path, reason, "give each of them another label")
    elif unordered:
        reason = f"the keypoints of {', '.join(map(repr, unordered))} are not in the order of their ids"
        yield Problem(_LABEL_MAP, path, reason, "sort them: predictions and truth would not match otherwise")
    count = int(config.train_input_reader.num_keypoints)
    if trains and count != len(ids):
        reason = f"the model has {len(ids)} keypoints"
        yield Problem("train_input_reader.num_keypoints", str(count), reason, f"set num_keypoints: {len(ids)}")
