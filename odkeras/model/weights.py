"""Weights of detection models: name, copy, and select those to train."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
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
        variable.assign(source[path], read_value=False)  # in a cluster, reading needs all workers


def snapshot(variables: Mapping[str, tf.Variable]) -> Weights:
    """The values of `variables`, copied to host memory."""
    return {path: variable.numpy() for path, variable in variables.items()}


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
