"""Selects the weights to train: `freeze_variables` and `update_trainable_variables` of a config."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from odkeras.errors import ConfigError

_log = logging.getLogger(__name__)


class Named(Protocol):
    """The part of a `tf.Variable` that this module uses."""

    @property
    def name(self) -> str: ...


V = TypeVar("V", bound=Named)


def variables_to_train(variables: Sequence[V], train_config: Any) -> list[V]:
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
    for pattern in (*only, *frozen):
        if not any(re.search(pattern, _name(variable)) for variable in variables):
            _log.warning("train_config: %r matches no weights; names look like %s", pattern, _examples(variables))
    kept = [each for each in variables if (not only or _matches(only, each)) and not _matches(frozen, each)]
    if not kept:
        raise ConfigError(
            f"train_config: freeze_variables: {frozen} with update_trainable_variables: {only} leaves no weights to "
            f"train; names look like {_examples(variables)}"
        )
    _log.info("%d of %d weights are frozen", len(variables) - len(kept), len(variables))
    return kept


def _matches(patterns: Sequence[str], variable: Named) -> bool:
    return any(re.search(pattern, _name(variable)) for pattern in patterns)


def _name(variable: Named) -> str:
    return variable.name.partition(":")[0]


def _examples(variables: Sequence[Named]) -> str:
    return f"{_name(variables[0])} and {_name(variables[-1])}"
