"""Checkpoints of a training: kept to the newest N, readable by the Object Detection API's own tools, exact to
resume from."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from odkeras.errors import CheckpointError
from odkeras.model.checkpoint import restore_newest
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
        model_dir: where to.
        max_to_keep: how many of the newest are kept; 0 or less keeps all.
    """

    def __init__(self, trainer: Trainer, model_dir: Path, max_to_keep: int) -> None:
        with trainer.strategy.scope():
            self.loop = LoopState()
        self._trainer = trainer
        self._checkpoint = tf.train.Checkpoint(
            model=trainer.model, optimizer=trainer.optimizer, step=trainer.step_variable, loop=self.loop
        )
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(model_dir), max_to_keep if max_to_keep > 0 else None
        )

    def save(self) -> str:
        """Write a checkpoint, delete the oldest ones, return its path prefix."""
        path = self._manager.save(checkpoint_number=self._trainer.step)
        if path is None:
            raise CheckpointError(f"no checkpoint could be written to {self._manager.directory}")
        return str(path)

    def restore(self) -> str | None:
        """Go on from the newest checkpoint that can be read; None when there is none.

        Raises:
            CheckpointError: there are checkpoints, but none fits this model.
        """
        path = restore_newest(self._trainer.model, list(self._manager.checkpoints))
        if path is not None:
            self._checkpoint.restore(path).expect_partial()  # one of the API's own tools has no state of the loop
        return path


def _counter(name: str) -> tf.Variable:
    return tf.Variable(
        0, trainable=False, dtype=tf.int64, name=name, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
    )
