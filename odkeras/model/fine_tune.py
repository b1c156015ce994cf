"""Weights of another training to start from: the config's fine-tune checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from odkeras.errors import CheckpointError
from odkeras.model.heads import RestoredHeads
from odkeras.model.weights import copy_weights, named_variables, snapshot


@dataclass(frozen=True)
class RestoreReport:
    """Which variables were restored from a fine-tune checkpoint.

    Args:
        restored: paths of the restored variables.
        new: paths of the variables that keep their initial value.
        adapted: as in `RestoredHeads`.
    """

    restored: tuple[str, ...]
    new: tuple[str, ...]
    adapted: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __str__(self) -> str:
        total = len(self.restored) + len(self.new) + len(self.adapted)
        parts = [f"restored {len(self.restored)} of {total} variables"]
        for what, paths in (("adapted to the classes", self.adapted), ("new", self.new)):
            if paths:
                parts.append(f"{what}: {len(paths)} in {', '.join(sorted({path.split('/')[0] for path in paths}))}")
        return "; ".join(parts)

    def with_heads(self, heads: RestoredHeads) -> RestoreReport:
        """The report after the heads were restored, too."""
        known = heads.restored | heads.adapted.keys()
        restored = (
            *(path for path in self.restored if path not in heads.adapted),
            *(path for path in self.new if path in heads.restored),
        )
        return RestoreReport(restored, tuple(path for path in self.new if path not in known), heads.adapted)


def restore_fine_tune_checkpoint(model: Any, checkpoint: str, checkpoint_type: str) -> RestoreReport:
    """Initialise `model` from the weights of another training.

    Args:
        model: a `DetectionModel` whose variables have been created.
        checkpoint: path prefix of an object-based TensorFlow 2 checkpoint (".../ckpt-0").
        checkpoint_type: what to restore: "classification" (the backbone), "detection" (the feature extractor; for the
            heads see `odkeras.model.heads`), "full" (everything; the number of classes must agree), or another type
            that the model supports.

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
