"""Weights of detection models: name, copy, restore from a fine-tune checkpoint, and select those to train."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from odkeras.errors import CheckpointError, ConfigError

_log = logging.getLogger(__name__)

Weights = dict[str, np.ndarray]


def named_variables(root: Any) -> dict[str, tf.Variable]:
    """All variables below `root`, keyed by their path of attribute names.

    Two models built from the same config have the same paths. Variable names would differ: Keras adds per-process
    counters to them.
    """
    view = tf.train.TrackableView(root)
    variables: dict[str, tf.Variable] = {}
    seen: set[int] = set()
    queue: list[tuple[str, Any]] = [("", root)]
    while queue:
        path, node = queue.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, tf.Variable):
            variables[path] = node
            continue
        queue.extend((f"{path}/{name}" if path else name, child) for name, child in sorted(view.children(node).items()))
    return variables


def copy_weights(source: Mapping[str, Any], target: Mapping[str, tf.Variable]) -> None:
    """Assign to every variable of `target` the value with the same path in `source` (variables or arrays).

    Raises:
        CheckpointError: a path of `target` is missing in `source`; nothing is assigned then.
    """
    missing = sorted(target.keys() - source.keys())
    if missing:
        raise CheckpointError(f"{len(missing)} of {len(target)} variables have no counterpart, the first: {missing[0]}")
    for path, variable in target.items():
        variable.assign(source[path])


def snapshot(variables: Mapping[str, tf.Variable]) -> Weights:
    """The values of `variables`, copied to host memory."""
    return {path: variable.numpy() for path, variable in variables.items()}


@dataclass(frozen=True)
class RestoreReport:
    """Which variables were restored from a fine-tune checkpoint.

    Args:
        restored: paths of the restored variables.
        new: paths of the variables that keep their initial value.
    """

    restored: tuple[str, ...]
    new: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.restored) + len(self.new)
        parts = sorted({path.split("/")[0] for path in self.new})
        rest = f"; new: {len(self.new)} in {', '.join(parts)}" if self.new else ""
        return f"restored {len(self.restored)} of {total} variables{rest}"


def restore_fine_tune_checkpoint(model: Any, checkpoint: str, checkpoint_type: str) -> RestoreReport:
    """Initialise `model` from the weights of another training.

    Args:
        model: a `DetectionModel` whose variables have been created.
        checkpoint: path prefix of an object-based TensorFlow 2 checkpoint (".../ckpt-0").
        checkpoint_type: what to restore: "classification" (the backbone), "detection" (the feature extractor with its
            feature pyramid), "full" (everything; the number of classes must agree), or another type that the model
            supports.

    Raises:
        CheckpointError: no such checkpoint, a TensorFlow 1 checkpoint, an unsupported type, different shapes, or no
            variable of the feature extractor in it. The model keeps its previous weights then.
    """
    _check_readable(checkpoint)
    variables = named_variables(model)
    before = snapshot(variables)
    floating = {path: variable for path, variable in variables.items() if variable.dtype.is_floating}
    for variable in floating.values():
        # NaN is a marker: a variable that is still NaN after the restore was not in the checkpoint.
        variable.assign(tf.fill(variable.shape, tf.constant(np.nan, variable.dtype)))
    try:
        _restore_objects(model, checkpoint, checkpoint_type)
        restored = [path for path, variable in floating.items() if not np.isnan(np.ravel(variable.numpy())[:1]).any()]
        report = RestoreReport(tuple(restored), tuple(path for path in floating if path not in set(restored)))
        _check_feature_extractor(report, checkpoint, checkpoint_type)
    except BaseException:
        copy_weights(before, variables)
        raise
    for path in report.new:
        variables[path].assign(before[path])
    return report


def variables_to_train(variables: Sequence[Any], train_config: Any) -> list[Any]:
    """The variables that `update_trainable_variables` names (all if empty), minus those that `freeze_variables` names.

    Both are lists of regular expressions, searched for in Keras' variable names, as the API did with TensorFlow 1
    (`model_lib.py`). Both are ignored without a fine-tune checkpoint, because frozen random weights would never learn.
    Batch norm keeps updating its moving statistics in frozen layers.

    Args:
        variables: the trainable variables of a model.
        train_config: the `train_config` of a resolved, checked pipeline.config.

    Raises:
        ConfigError: no variable is left to train.
    """
    only, frozen = (
        [pattern for pattern in patterns if pattern]
        for patterns in (train_config.update_trainable_variables, train_config.freeze_variables)
    )
    if not (only or frozen):
        return list(variables)
    if not train_config.fine_tune_checkpoint:
        _log.info("no fine-tune checkpoint: all weights are trained, freeze_variables does not count")
        return list(variables)
    names = [variable.name.partition(":")[0] for variable in variables]
    examples = f"{names[0]} and {names[-1]}"
    for pattern in (*only, *frozen):
        if not any(re.search(pattern, name) for name in names):
            _log.warning("train_config: %r matches no weights; names look like %s", pattern, examples)

    def matches(patterns: Sequence[str], name: str) -> bool:
        return any(re.search(pattern, name) for pattern in patterns)

    trained = [
        variable
        for variable, name in zip(variables, names, strict=True)
        if (not only or matches(only, name)) and not matches(frozen, name)
    ]
    if not trained:
        raise ConfigError(
            f"train_config: freeze_variables: {frozen} with update_trainable_variables: {only} leaves no weights to "
            f"train; names look like {examples}"
        )
    _log.info("%d of %d weights are frozen", len(variables) - len(trained), len(variables))
    return trained


def _check_readable(checkpoint: str) -> None:
    if not Path(f"{checkpoint}.index").is_file():
        others = sorted(str(path)[: -len(".index")] for path in Path(checkpoint).parent.glob("*.index"))
        hint = f"; there is: {', '.join(others)}" if others else ""
        raise CheckpointError(
            f"fine_tune_checkpoint: no checkpoint {checkpoint!r} ({checkpoint}.index is not a file){hint}"
        )
    try:
        names = [name for name, _ in tf.train.list_variables(checkpoint)]
    except (tf.errors.OpError, ValueError) as error:
        raise CheckpointError(f"fine_tune_checkpoint: {checkpoint!r} cannot be read: {error}") from error
    if "_CHECKPOINTABLE_OBJECT_GRAPH" not in names:
        raise CheckpointError(
            f"fine_tune_checkpoint: {checkpoint!r} is a TensorFlow 1 checkpoint; take the model's TensorFlow 2 version"
        )


def _restore_objects(model: Any, checkpoint: str, checkpoint_type: str) -> None:
    try:
        objects = model.restore_from_objects(fine_tune_checkpoint_type=checkpoint_type)
    except (ValueError, NotImplementedError, KeyError) as error:
        raise CheckpointError(
            f"fine_tune_checkpoint_type: {checkpoint_type!r} does not exist for this model: {error}"
        ) from error
    try:
        tf.train.Checkpoint(**_as_trackables(objects)).restore(checkpoint).expect_partial()
    except (ValueError, tf.errors.OpError) as error:
        raise CheckpointError(
            f"fine_tune_checkpoint: {checkpoint!r} does not fit this model with fine_tune_checkpoint_type "
            f"{checkpoint_type!r} "
            f'(another number of classes? then use type "detection"): {str(error).splitlines()[0]}'
        ) from error


def _as_trackables(objects: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: tf.train.Checkpoint(**_as_trackables(value)) if isinstance(value, Mapping) else value
        for name, value in objects.items()
    }


def _check_feature_extractor(report: RestoreReport, checkpoint: str, checkpoint_type: str) -> None:
    if any("feature_extractor" in path for path in report.restored):
        return
    keys = ", ".join(_top_level(checkpoint))
    raise CheckpointError(
        f"fine_tune_checkpoint: nothing of the feature extractor was found in {checkpoint!r} with "
        f"fine_tune_checkpoint_type {checkpoint_type!r}; the checkpoint has: {keys}. It belongs to another "
        'architecture, or is of another type: "classification" (a backbone), "detection" or "full" (a detector)'
    )


def _top_level(checkpoint: str) -> Iterator[str]:
    """The distinct first two parts of the checkpoint's keys, sorted, at most six."""
    keys = {"/".join(name.split("/")[:2]) for name, _ in tf.train.list_variables(checkpoint) if "/.ATTRIBUTES/" in name}
    return iter(sorted(keys)[:6])
