"""Extend a checkpoint to more classes: the weights of the old classes stay as they are, bit for bit.

A layer that scores classes has its outputs on the last axis of its weights, as (groups, slots, unit): one group per
anchor, one slot per class and perhaps one for the background in front, and `unit` numbers per class (4 for the boxes of
a second stage). New classes take the slots behind the old ones.
"""

from __future__ import annotations

import copy
import logging
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from odkeras.errors import CheckpointError
from odkeras.model.checkpoint import UNREADABLE, list_checkpoints, model_keys, next_number
from odkeras.model.inference import build_detection_model, create_variables
from odkeras.model.weights import named_variables
from odkeras.pipeline import PipelineConfig, num_classes, set_num_classes, trained_config
from odkeras.project import sync_to_disk, temporary_name

_log = logging.getLogger(__name__)

NEW_CLASS_BIAS = -4.6
"""Largest logit with which a new class starts: a score of 1 %, as in the zoo's SSD models. With a larger one it would
be suggested all over before it is learned, and would take score from the old classes behind a softmax. Its kernel
starts at zero, so that it has this logit whatever the image: with random weights, places scored up to 27 %."""

_BOX_CODE = 4
_SCORES = re.compile(r"class_prediction|object_center")
_BOXES = re.compile(r"_box_prediction_head|_box_encoder|box_encodings")


@dataclass(frozen=True)
class OutputLayout:
    """How the outputs of a layer are ordered on the last axis of its weights.

    Args:
        groups: number of groups, such as the anchors of a cell.
        background: 1 if each group has a slot for the background in front of the classes, else 0.
        unit: numbers per slot.
    """

    groups: int
    background: int
    unit: int

    def extend(self, old: np.ndarray, new: np.ndarray, old_classes: int, new_classes: int) -> np.ndarray:
        """`new` with the values of `old` in the slots of the background and of the old classes.

        Args:
            old, new: of the same shape except for the last axis.
        """
        kept = self.background + old_classes
        shape = (*old.shape[:-1], self.groups)
        extended = new.reshape(*shape, self.background + new_classes, self.unit).copy()
        extended[..., :kept, :] = old.reshape(*shape, kept, self.unit)
        return extended.reshape(new.shape)


def output_layout(path: str, old_size: int, new_size: int, old_classes: int, new_classes: int) -> OutputLayout | None:
    """The layout of a layer's outputs; None if their number does not grow with the classes.

    Whether there is a background follows from the sizes: no pair of sizes fits with it and without it.

    Args:
        path: path of the variable in the model.
        old_size, new_size: length of the last axis with `old_classes` and `new_classes`.
    """
    for background in (1, 0):
        count, rest = divmod(old_size, old_classes + background)
        if rest == 0 and count * (new_classes + background) == new_size:
            unit = _BOX_CODE if _BOXES.search(path) and count % _BOX_CODE == 0 else 1
            return OutputLayout(count // unit, background, unit)
    return None


def extend_newest(model: Any, config: PipelineConfig, model_dir: Path) -> None:
    """`extend_checkpoint` if the checkpoints were trained with fewer classes than the config has.

    Args:
        model: a `DetectionModel` of `config`, whose variables exist.
        config: the resolved config.
        model_dir: see `extend_checkpoint`.

    Raises:
        CheckpointError: see `extend_checkpoint`.
    """
    trained = trained_config(model_dir)
    if trained is None or num_classes(trained) >= num_classes(config):
        return
    before, now = num_classes(trained), num_classes(config)
    if checkpoint := extend_checkpoint(model, model_dir, before, now):
        _log.info("the model is extended from %d to %d classes: %s", before, now, checkpoint)


def lower_first_scores(model: Any, config: PipelineConfig, ids: Collection[int]) -> None:
    """Let classes of a model that was just built start with a logit of at most `NEW_CLASS_BIAS`, whatever the image, as
    in an extended one.

    Meant for classes that were added after images had been answered: until others are answered, nothing is known about
    them, and they would keep the first score of the architecture, which is 10 % for CenterNet, all over each image.

    Args:
        model: a `DetectionModel` of `config`, whose variables exist.
        ids: the classes.
    """
    variables = named_variables(model)
    for path, layout in output_layouts(model, config).items():
        if _SCORES.search(path) is None:
            continue
        values = variables[path].numpy()
        columns = [layout.background + id - 1 for id in ids]
        slots = values.reshape(*values.shape[:-1], layout.groups, -1)
        slots[..., columns] = _first_values(path, slots[..., columns])
        variables[path].assign(slots.reshape(values.shape))


def output_layouts(model: Any, config: PipelineConfig) -> dict[str, OutputLayout]:
    """The layouts of all variables that grow with the classes, by path.

    Args: as `lower_first_scores`.
    """
    count = num_classes(config)
    larger_config = copy.deepcopy(config)
    set_num_classes(larger_config, count + 1)
    larger = build_detection_model(larger_config.model, is_training=False)
    create_variables(larger, larger_config.model)
    larger_variables = named_variables(larger)
    layouts = {}
    for path, variable in named_variables(model).items():
        if variable.shape != larger_variables[path].shape:
            layout = output_layout(path, variable.shape[-1], larger_variables[path].shape[-1], count, count + 1)
            assert layout is not None
            layouts[path] = layout
    return layouts


def extend_checkpoint(model: Any, model_dir: Path, old_classes: int, new_classes: int) -> str | None:
    """Write a checkpoint for `model` from the newest readable one, which has fewer classes.

    The step, the position in the loop and the optimizer's state are carried over; slots of new outputs start at zero.
    The process may be killed at any time: the new checkpoint appears as a whole, and the old ones stay.

    Args:
        model: a `DetectionModel` with `new_classes`, whose variables exist. Its values are the first values of the new
            outputs, except that each class starts with the same logit everywhere, of at most `NEW_CLASS_BIAS`.
        model_dir: directory of the checkpoints; its owner must hold the lock.
        old_classes, new_classes: number of classes of the checkpoints, and of `model`.

    Returns:
        Path prefix of the new checkpoint; None if the newest readable checkpoint fits already, or if there is none.

    Raises:
        CheckpointError: the checkpoint differs in more than the number of classes, or the disk is full.
    """
    variables = named_variables(model)
    for checkpoint in reversed(list_checkpoints(model_dir)):
        try:
            reader = tf.train.load_checkpoint(checkpoint)
            shapes = reader.get_variable_to_shape_map()
            extended = _extended_tensors(reader, shapes, variables, old_classes, new_classes)
            if not extended:
                return None
            tensors = {name: extended[name] if name in extended else reader.get_tensor(name) for name in shapes}
        except UNREADABLE as error:
            _log.warning("checkpoint %s cannot be read: %s", checkpoint, error)
            continue
        return _write(model_dir, tensors)
    return None


def _extended_tensors(
    reader: Any, shapes: Mapping[str, list[int]], variables: Mapping[str, tf.Variable], old_classes: int, classes: int
) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint whose shape differs from that in the model, by key, extended to the model's shape."""
    extended = {}
    for key, (path, slot) in model_keys(reader).items():
        variable, old_shape = variables.get(path), shapes[key]
        if variable is None or list(variable.shape) == old_shape or not old_shape:
            continue
        shape = list(variable.shape)
        layout = output_layout(path, old_shape[-1], shape[-1], old_classes, classes)
        if layout is None or old_shape[:-1] != shape[:-1]:
            raise CheckpointError(_mismatch(path, old_shape, shape))
        old = reader.get_tensor(key)
        first = _first_values(path, variable.numpy()) if slot in (None, "average") else np.zeros(shape, old.dtype)
        extended[key] = layout.extend(old, first, old_classes, classes)
    return extended


def _first_values(path: str, initial: np.ndarray) -> np.ndarray:
    """What a class has first in a variable that grows with the classes, given its initial values."""
    if _SCORES.search(path) is None:
        return initial
    return np.minimum(initial, NEW_CLASS_BIAS) if is_score_bias(path) else np.zeros_like(initial)


def is_score_bias(path: str) -> bool:
    """Whether a variable is the bias of the scores of classes. Args: path: as in `named_variables`."""
    return path.endswith("/bias") and _SCORES.search(path) is not None


def _mismatch(path: str, old: list[int], new: list[int]) -> str:
    advice = "restore the pipeline.config that the model was trained with, apart from num_classes"
    if "mask" in path:
        advice += f" (with mask_prediction_conv_depth: 0 it depends on num_classes: set it to {old[-1]})"
    return (
        f"the model cannot be extended to more classes: {path} has the shape {old} in its checkpoint and {new} with "
        f"this pipeline.config, and not only because of the number of classes; {advice}"
    )


def _write(model_dir: Path, tensors: Mapping[str, Any]) -> str:
    """Write a checkpoint under the next number. Its index appears last, as TensorFlow's own does."""
    target = model_dir / f"ckpt-{next_number(model_dir)}"
    folder = model_dir / temporary_name()
    names = sorted(tensors)
    try:
        folder.mkdir()
        values = [tf.convert_to_tensor(tensors[name]) for name in names]
        tf.raw_ops.SaveV2(
            prefix=str(folder / "ckpt"), tensor_names=names, shape_and_slices=[""] * len(names), tensors=values
        )
        for path in sorted(folder.iterdir(), key=lambda path: path.suffix == ".index"):
            sync_to_disk(path)
            path.replace(f"{target}{path.suffix}")
        sync_to_disk(model_dir)
    except (OSError, tf.errors.OpError) as error:
        raise CheckpointError(f"cannot write the extended checkpoint {target}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return str(target)
