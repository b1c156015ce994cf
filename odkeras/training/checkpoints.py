"""Checkpoints of a training. They are readable by the Object Detection API's own tools, and training resumes from them
exactly: they include the optimizer and the position in the loop."""

from __future__ import annotations

import math
import os
import shutil
import time
from contextlib import AbstractContextManager
from pathlib import Path

import tensorflow as tf

from odkeras.locks import locked
from odkeras.model.checkpoint import (
    free_number,
    list_checkpoints,
    restore_newest,
    saved_averages,
    saved_number,
    tidy_up,
)
from odkeras.project import LOCK_NAME, TEMPORARY_PREFIX
from odkeras.training.strategy import is_chief
from odkeras.training.trainer import Trainer

LOCK_WAIT_S = 30.0
CLUSTER_CHECKPOINT_STEPS = 100  # the workers of a cluster must save at the same step, whatever their clocks say


def lock_model_dir(model_dir: Path, wait_s: float | None = None) -> AbstractContextManager[None]:
    """Lock the model directory until the block ends, because its checkpoints are of one training.

    The system releases the lock if the process is killed.

    Args:
        model_dir: created if missing.
        wait_s: seconds to wait for another training that is being stopped; None = `LOCK_WAIT_S`.

    Raises:
        InUseError: another training holds the lock.
    """
    taken = f"another training is using {model_dir}; stop it, or name another --model-dir"
    return locked(model_dir / LOCK_NAME, taken=taken, wait_s=LOCK_WAIT_S if wait_s is None else wait_s)


def lock_data_dir(data_dir: Path) -> AbstractContextManager[None]:
    """Lock the data directory until the block ends: a trainer takes answers from its inbox, which another trainer with
    another model directory would never see.

    Raises:
        InUseError: another trainer holds the lock.
    """
    taken = f"another trainer takes the answers of {data_dir}; stop it, or name another --data-dir"
    return locked(data_dir / LOCK_NAME, taken=taken, wait_s=LOCK_WAIT_S)


class LoopState(tf.Module):
    """The position in the loop, saved in the same checkpoint as the weights so that they are always consistent.

    Attributes:
        round: number of finished rounds.
        trained_record: number of the newest TFRecord of a finished round.
        open_record: number of the newest TFRecord in the current round; 0 between rounds.
        round_end_step: global step at which the current round ends.
    """

    def __init__(self) -> None:
        super().__init__(name="loop")

        def counter(name: str) -> tf.Variable:
            first = tf.VariableAggregation.ONLY_FIRST_REPLICA
            return tf.Variable(0, trainable=False, dtype=tf.int64, name=name, aggregation=first)

        self.round = counter("round")
        self.trained_record = counter("trained_record")
        self.open_record = counter("open_record")
        self.round_end_step = counter("round_end_step")


class CheckpointStore:
    """The checkpoints in one model directory.

    Args:
        trainer: what to save: the model as `model`, the optimizer as `optimizer`, the global step as `step`.
        model_dir: the directory. In a cluster every worker must save, because saving is a collective operation; only
            the chief's checkpoints are kept.
        max_to_keep: number of newest checkpoints to keep; 0 or less keeps all.

    Attributes:
        model_dir: the directory.
        loop: the position in the loop, saved as `loop`.
        last_saved: file name of the last checkpoint that this object saved; None before.
    """

    def __init__(self, trainer: Trainer, model_dir: Path, max_to_keep: int) -> None:
        with trainer.strategy.scope():
            self.loop = LoopState()
        self.last_saved: str | None = None
        self._trainer = trainer
        self.model_dir = model_dir
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

    @property
    def round(self) -> int:
        """Number of rounds that have ended."""
        return int(self.loop.round.numpy())

    def save(self) -> str:
        """Write a checkpoint, delete the oldest ones, return its path prefix.

        Its number is the global step, or the next free number if that is taken. A checkpoint is never overwritten: if
        the process were killed meanwhile, its files would be a mixture of two checkpoints.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        path = str(self._manager.save(checkpoint_number=free_number(self._directory, self._trainer.step)))
        if not self._writes:
            shutil.rmtree(self._directory, ignore_errors=True)
        self.last_saved = Path(path).name
        return path

    def restore(self) -> str | None:
        """Restore the newest readable checkpoint and return its path prefix; None if there is no checkpoint.

        Moving averages that the checkpoint lacks start at the restored weights.

        Raises:
            CheckpointError: there are checkpoints, but none fits this model.
        """
        path = restore_newest(self._trainer.model, list_checkpoints(self.model_dir), whole=self._checkpoint)
        if path is not None and not saved_averages(path):
            self._trainer.start_averages()
        return path


class PeriodicSaver:
    """Saves checkpoints periodically during a training.

    Args:
        store: saves them.
        trainer: the trainer.
        every_s: seconds between checkpoints.
        every_steps: most steps between checkpoints; 0 for no limit.
        in_cluster: the steps alone decide; `CLUSTER_CHECKPOINT_STEPS` if there is no limit.
    """

    def __init__(
        self,
        store: CheckpointStore,
        trainer: Trainer,
        every_s: float,
        every_steps: int = 0,
        *,
        in_cluster: bool = False,
    ) -> None:
        self._store = store
        self._trainer = trainer
        self._every_s = math.inf if in_cluster else every_s
        self._every_steps = every_steps or (CLUSTER_CHECKPOINT_STEPS if in_cluster else math.inf)
        self._saved_s = time.monotonic()
        self._saved_step = trainer.step

    def save_when_due(self) -> None:
        """Save if the interval is over and all weights are finite: other steps are undone later."""
        taken = self._trainer.step - self._saved_step
        if taken >= self._every_steps or time.monotonic() - self._saved_s > self._every_s:
            if self._trainer.is_finite:
                self._store.save()
            self._saved_s, self._saved_step = time.monotonic(), self._trainer.step

    def give_up(self) -> None:
        """Save nothing at the end: the other workers of the cluster are gone."""
        self._saved_step = self._trainer.step

    def save_at_end(self) -> None:
        """Save if steps were taken since the last checkpoint."""
        if self._trainer.step != self._saved_step:
            self._store.save()
            self._saved_s, self._saved_step = time.monotonic(), self._trainer.step


def rounds_in(checkpoint: str) -> int:
    """Number of finished rounds in a checkpoint; 0 for a checkpoint of another tool.

    Raises:
        CheckpointError: the checkpoint cannot be read.
    """
    return saved_number(checkpoint, "loop/round")
