"""Checkpoints of a training: kept to the newest N, readable by the Object Detection API's own tools, exact to
resume from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import tensorflow as tf

from odkeras.model.checkpoint import (
    free_number,
    list_checkpoints,
    restore_newest,
    saved_averages,
    saved_number,
    tidy_up,
)
from odkeras.project import TEMPORARY_PREFIX
from odkeras.training.strategy import is_chief
from odkeras.training.trainer import Trainer


class LoopState(tf.Module):
    """Where the loop is, saved with the weights so that the two never disagree.

    Attributes:
        round: rounds finished.
        trained_record: number of the newest TFRecord that was trained on to the end.
        open_record: number of the newest TFRecord in the round under way, 0 between rounds.
        round_end_step: global step at which the round under way ends.
    """

    def __init__(self) -> None:
        super().__init__(name="loop")
        self.round = _counter("round")
        self.trained_record = _counter("trained_record")
        self.open_record = _counter("open_record")
        self.round_end_step = _counter("round_end_step")


class CheckpointStore:
    """The checkpoints in one model directory.

    Args:
        trainer: what is saved; the model under `model`, the optimizer under `optimizer`, the global step under `step`.
        model_dir: where to. In a cluster every worker must save, but only the chief's checkpoint stays.
        max_to_keep: how many of the newest are kept; 0 or less keeps all.
    """

    def __init__(self, trainer: Trainer, model_dir: Path, max_to_keep: int) -> None:
        with trainer.strategy.scope():
            self.loop = LoopState()
        self._trainer = trainer
        self._model_dir = model_dir
        self._writes = is_chief(trainer.strategy)
        self._directory = model_dir if self._writes else model_dir / f"{TEMPORARY_PREFIX}worker-{os.getpid()}"
        model_dir.mkdir(parents=True, exist_ok=True)
        if self._writes:
            tidy_up(model_dir)
        self._checkpoint = tf.train.Checkpoint(
            model=trainer.model, optimizer=trainer.optimizer, step=trainer.step_variable, loop=self.loop
        )
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(self._directory), max_to_keep if max_to_keep > 0 else None
        )

    def save(self) -> str:
        """Write a checkpoint, delete the oldest ones, return its path prefix.

        Its number is the global step, or the next free one: none is ever written over, since a process that is killed
        meanwhile would leave a mixture of two.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        path = str(self._manager.save(checkpoint_number=free_number(self._directory, self._trainer.step)))
        if not self._writes:
            shutil.rmtree(self._directory, ignore_errors=True)
        return path

    def save_if_finite(self) -> None:
        """`save`, amid training, where weights may have to be undone that nothing should go on from."""
        if self._trainer.is_finite:
            self.save()

    def restore(self) -> str | None:
        """Go on from the newest checkpoint that can be read; None when there is none.

        Raises:
            CheckpointError: there are checkpoints, but none fits this model.
        """
        path = restore_newest(self._trainer.model, list_checkpoints(self._model_dir), whole=self._checkpoint)
        if path is not None and not saved_averages(path):
            self._trainer.start_averages()
        return path


def rounds_in(checkpoint: str) -> int:
    """How many rounds had ended when a checkpoint was written; 0 for one of another tool.

    Raises:
        CheckpointError: it cannot be read.
    """
    return saved_number(checkpoint, "loop/round")


def _counter(name: str) -> tf.Variable:
    return tf.Variable(
        0, trainable=False, dtype=tf.int64, name=name, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
    )
