"""Checkpoints on disk: which there are, what step they are of, and a model's weights out of them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import tensorflow as tf

from odkeras.errors import CheckpointError

_log = logging.getLogger(__name__)


def list_checkpoints(model_dir: Path) -> list[str]:
    """Path prefixes of the checkpoints in a directory, oldest first."""
    state = tf.train.get_checkpoint_state(str(model_dir))
    return [path for path in state.all_model_checkpoint_paths if Path(f"{path}.index").is_file()] if state else []


def checkpoint_step(checkpoint: str) -> int:
    """The global step saved in a checkpoint, 0 when there is none."""
    name = "step/.ATTRIBUTES/VARIABLE_VALUE"
    try:
        reader = tf.train.load_checkpoint(checkpoint)
        return int(reader.get_tensor(name)) if reader.has_tensor(name) else 0
    except (tf.errors.OpError, ValueError) as error:
        raise CheckpointError(f"the checkpoint {checkpoint} cannot be read: {error}") from error


def restore_newest(model: Any, checkpoints: list[str]) -> str | None:
    """Give `model` the weights of the newest of `checkpoints` (oldest first) that can be read; written here or by
    the API's tools.

    Returns:
        The checkpoint that was taken; None when there are none.

    Raises:
        CheckpointError: there are some, but none can be read or fits.
    """
    problems = []
    for path in reversed(checkpoints):
        try:
            tf.train.Checkpoint(model=model).restore(path).expect_partial().assert_existing_objects_matched()
            return path
        except (tf.errors.OpError, ValueError, AssertionError) as error:
            problems.append(f"{path}: {_first_line(error)}")
            _log.warning("checkpoint %s cannot be used: %s", path, _first_line(error))
    if problems:
        raise CheckpointError(
            "none of the checkpoints fits this model (was the pipeline.config changed?); name another --model-dir or "
            "move them away: " + "; ".join(problems)
        )
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
