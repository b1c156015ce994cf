"""Checkpoints on disk: list them, read their global step, and restore a model's weights."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from odkeras.errors import CheckpointError
from odkeras.model.weights import copy_weights, named_variables

_log = logging.getLogger(__name__)

UNREADABLE = (tf.errors.OpError, ValueError, IndexError, RuntimeError)  # what TensorFlow raises for damaged files
_NUMBERED = re.compile(r"ckpt-(\d+)\.(?:index|data-\d{5}-of-\d{5})", re.ASCII)
_NUMBER = re.compile(r"-(\d+)$", re.ASCII)
_PARTIAL = re.compile(r"ckpt-\d+_temp|checkpoint\.tmp[0-9a-f]+", re.ASCII)  # TensorFlow's temporary names


def list_checkpoints(model_dir: Path) -> list[str]:
    """Path prefixes of the checkpoints in a directory, oldest first.

    These are the checkpoints in TensorFlow's `checkpoint` file, followed by complete ones with larger numbers. The
    latter are missing from the file if the process was killed, or if the file was lost.
    """
    listed = _listed(model_dir)
    newest = max([-1, *(int(match[1]) for path in listed if (match := _NUMBER.search(path)))])
    unlisted = sorted(number for number in _whole_numbers(model_dir) if number > newest)
    return [path for path in listed if Path(f"{path}.index").is_file()] + [
        str(model_dir / f"ckpt-{number}") for number in unlisted
    ]


def choose_checkpoints(model_dir: Path, checkpoint: str | None = None) -> list[str]:
    """All checkpoints of a directory, oldest first, or only the given one.

    Args:
        checkpoint: path prefix; None for all in `model_dir`.

    Raises:
        CheckpointError: `checkpoint` does not exist.
    """
    checkpoints = list_checkpoints(model_dir)
    if checkpoint is None:
        return checkpoints
    if not Path(f"{checkpoint}.index").is_file():
        names = ", ".join(Path(path).name for path in checkpoints) or "none"
        raise CheckpointError(f"no checkpoint {checkpoint!r}; in {model_dir} there are: {names}")
    return [checkpoint]


def checkpoint_step(checkpoint: str) -> int:
    """The global step saved in a checkpoint; 0 if it has none.

    Raises:
        CheckpointError: it cannot be read.
    """
    return saved_number(checkpoint, "step")


def saved_number(checkpoint: str, path: str) -> int:
    """An integer saved in a checkpoint; 0 if it is not there.

    Args:
        path: object path of the variable in the checkpoint, for example "step".

    Raises:
        CheckpointError: it cannot be read.
    """
    name = f"{path}/.ATTRIBUTES/VARIABLE_VALUE"
    try:
        reader = tf.train.load_checkpoint(checkpoint)
        return int(reader.get_tensor(name)) if reader.has_tensor(name) else 0
    except UNREADABLE as error:
        raise CheckpointError(f"the checkpoint {checkpoint} cannot be read: {_first_line(error)}") from error


def newest_step(model_dir: Path) -> int | None:
    """The global step of the newest readable checkpoint; None if there is none."""
    for checkpoint in reversed(list_checkpoints(model_dir)):
        try:
            return checkpoint_step(checkpoint)
        except CheckpointError as error:
            _log.warning("%s", error)
    return None


def restore_newest(model: Any, checkpoints: list[str], whole: tf.train.Checkpoint | None = None) -> str | None:
    """Restore `model` from the newest usable checkpoint, written by odkeras or by the API's own tools.

    Args:
        model: every variable of it must be in the checkpoint.
        checkpoints: path prefixes, oldest first. If one cannot be used, the next older one is tried.
        whole: further objects to restore, such as the optimizer; what the checkpoint lacks keeps its value.

    Returns:
        The checkpoint that was restored; None if `checkpoints` is empty.

    Raises:
        CheckpointError: none of the checkpoints is readable and matches the model.
    """
    problems = []
    for path in reversed(checkpoints):
        try:
            tf.train.Checkpoint(model=model).read(path).expect_partial().assert_existing_objects_matched()
            if whole is not None:
                whole.restore(path).expect_partial()
            return path
        except (*UNREADABLE, AssertionError) as error:
            problems.append(f"{path}: {_first_line(error)}")
            _log.warning("checkpoint %s cannot be used: %s", path, _first_line(error))
    if problems:
        raise CheckpointError(
            "none of the checkpoints fits this model (was the pipeline.config changed?); restore the pipeline.config "
            "that they were trained with, or start a new model with another model directory and export directory: "
            + "; ".join(problems)
        )
    return None


def restore_for_prediction(model: Any, checkpoints: list[str]) -> str | None:
    """`restore_newest`, but with the moving averages of the weights if the optimizer kept them, as in published
    versions."""
    checkpoint = restore_newest(model, checkpoints)
    if checkpoint is not None:
        averages = saved_averages(checkpoint)
        copy_weights(averages, {path: var for path, var in named_variables(model).items() if path in averages})
    return checkpoint


def saved_averages(checkpoint: str) -> dict[str, np.ndarray]:
    """The moving averages of a model's weights in a checkpoint, keyed like `named_variables(model)`; {} if the
    optimizer kept none."""
    reader = tf.train.load_checkpoint(checkpoint)
    keys = model_keys(reader)
    return {path: reader.get_tensor(key) for key, (path, slot) in keys.items() if slot == "average"}


def model_keys(reader: Any) -> dict[str, tuple[str, str | None]]:
    """Key in the checkpoint -> (path of the model's variable, as in `named_variables`, and the optimizer's slot for it;
    None for the variable itself). {} for a checkpoint without a model.

    Args:
        reader: the result of `tf.train.load_checkpoint`.
    """
    nodes = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")).nodes
    paths = _paths_below(nodes, "model")
    keys: dict[str, tuple[str, str | None]] = {}
    for number, path in paths.items():
        if key := _value_key(nodes[number]):
            keys[key] = (path, None)
    for slot in (slot for node in nodes for slot in node.slot_variables):
        if slot.original_variable_node_id in paths:
            key = _value_key(nodes[slot.slot_variable_node_id])
            keys[key] = (paths[slot.original_variable_node_id], slot.slot_name)
    return keys


def free_number(model_dir: Path, wanted: int) -> int:
    """The smallest number >= `wanted` that no checkpoint file in the directory has."""
    taken = {number for _, number in _numbered_files(model_dir)}
    while wanted in taken:
        wanted += 1
    return wanted


def next_number(model_dir: Path) -> int:
    """A number for a checkpoint that makes it the newest of the directory."""
    numbers = [int(match[1]) for path in _listed(model_dir) if (match := _NUMBER.search(path))]
    return max([0, *numbers, *(number for _, number in _numbered_files(model_dir))]) + 1


def tidy_up(model_dir: Path) -> None:
    """Repair the directory after a process was killed while writing a checkpoint.

    Deletes partial checkpoints, and adds complete ones that are missing to TensorFlow's `checkpoint` file. Only the
    process that owns the directory may call it: it would delete a checkpoint that is being written.
    """
    _set_unreadable_list_aside(model_dir)
    whole = _whole_numbers(model_dir)
    parts = [path for path, number in _numbered_files(model_dir) if number not in whole and path.suffix != ".index"]
    for path in (*parts, *(path for path in model_dir.iterdir() if _PARTIAL.fullmatch(path.name))):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    checkpoints = list_checkpoints(model_dir)
    if set(checkpoints) - set(_listed(model_dir)):
        tf.compat.v1.train.update_checkpoint_state(str(model_dir), checkpoints[-1], checkpoints)


def _set_unreadable_list_aside(model_dir: Path) -> None:
    """Rename a `checkpoint` file that is empty or no text: TensorFlow raises a ValueError whenever it reads it."""
    path = model_dir / "checkpoint"
    try:
        tf.train.get_checkpoint_state(str(model_dir))
    except ValueError:
        path.replace(path.with_name("checkpoint.damaged"))
        _log.warning("%s is damaged; it is now %s.damaged, and made again from the checkpoints", path, path.name)


def _listed(model_dir: Path) -> list[str]:
    try:
        state = tf.train.get_checkpoint_state(str(model_dir))
    except ValueError:  # empty, or no text
        _log.warning("%s is damaged and not used", model_dir / "checkpoint")
        return []
    return list(state.all_model_checkpoint_paths) if state else []


def _numbered_files(model_dir: Path) -> list[tuple[Path, int]]:
    names = sorted(model_dir.iterdir()) if model_dir.is_dir() else []
    return [(path, int(match[1])) for path in names if (match := _NUMBERED.fullmatch(path.name))]


def _whole_numbers(model_dir: Path) -> set[int]:
    """Numbers of the complete checkpoints: those with a data file and an index, which TensorFlow writes last."""
    files = _numbered_files(model_dir)
    with_data = {number for path, number in files if path.suffix != ".index"}
    return {number for path, number in files if path.suffix == ".index" and number in with_data}


def _value_key(node: Any) -> str:
    """The key of a variable's value; "" for a node that is not a variable."""
    return next((str(value.checkpoint_key) for value in node.attributes if value.name == "VARIABLE_VALUE"), "")


def _paths_below(nodes: Any, name: str) -> dict[int, str]:
    """Node id -> path below the root's child `name`. The same breadth-first traversal as in `named_variables`, so that
    the paths agree."""
    start = next((child.node_id for child in nodes[0].children if child.local_name == name), None)
    paths: dict[int, str] = {}
    queue = [] if start is None else [("", start)]
    while queue:
        path, node = queue.pop(0)
        if node in paths:
            continue
        paths[node] = path
        children = sorted((child.local_name, child.node_id) for child in nodes[node].children)
        queue.extend((f"{path}/{child}" if path else child, number) for child, number in children)
    return paths


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
