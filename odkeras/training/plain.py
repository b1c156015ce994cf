"""Offline training on the records that a pipeline.config names, without the annotation loop (`odkeras train`)."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from odkeras.errors import ConfigError
from odkeras.model.inference import InferenceModel
from odkeras.model.setup import Setup, save_resolved
from odkeras.model.weights import RestoreReport, named_variables, restore_fine_tune_checkpoint
from odkeras.training.examples import what_is_dropped
from odkeras.training.inputs import training_dataset
from odkeras.training.lock import lock_model_dir
from odkeras.training.store import CheckpointStore
from odkeras.training.strategy import is_chief, is_multi_worker, make_strategy
from odkeras.training.summaries import TrainingSummaries
from odkeras.training.trainer import StepReport, Trainer, TrainingResult

_log = logging.getLogger(__name__)

_DEFAULT_CHECKPOINT_EVERY_S = 120.0
_CHECKPOINT_EVERY_STEPS = 1000  # in a cluster, whose workers must save at the same step


def train_on_records(
    setup: Setup,
    model_dir: Path,
    *,
    steps: int | None = None,
    strategy: str = "none",
    max_checkpoints_num: int = 5,
    checkpoint_every_s: float = _DEFAULT_CHECKPOINT_EVERY_S,
    on_step: Callable[[StepReport], None] = lambda report: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Train until the global step is `steps`, resuming from the newest checkpoint in `model_dir` if there is one.

    Args:
        setup: the result of `prepare_setup(..., purpose="train")`.
        model_dir: directory of checkpoints and TensorBoard events.
        steps: target global step; None takes `train_config.num_steps`.
        strategy: see `make_strategy`; every worker of a cluster runs the same command.
        max_checkpoints_num: checkpoints to keep; 0 or less keeps all.
        checkpoint_every_s: seconds between checkpoints; a cluster writes one every 1000 steps instead.
        on_step: callback after every step.
        should_stop: polled between steps; True ends the training after a last checkpoint. Ignored in a cluster, where
            one worker cannot stop without the others.

    Raises:
        ConfigError: no number of steps, no records, or fewer record files than workers.
        CheckpointError: the checkpoints do not fit the model.
        SetupError: another training is using `model_dir`.
        TrainingError: the loss stays non-finite (the newest checkpoint has the last good weights), or a batch cannot
            be read.
    """
    target = steps if steps is not None else setup.config.train_config.num_steps
    if target <= 0:
        raise ConfigError("how many steps? give --steps, or set train_config.num_steps in the pipeline.config")
    distribution = make_strategy(strategy)
    together = is_multi_worker(distribution)
    with _sole_writer(model_dir, distribution) as writes:
        trainer = Trainer(setup.config, distribution)
        store = CheckpointStore(trainer, model_dir, max_checkpoints_num)
        if store.restore() is None:
            start_from_fine_tune_checkpoint(trainer, setup)
        if writes:
            save_resolved(setup, model_dir)
            if dropped := what_is_dropped(setup.config.train_input_reader, setup.label_map):
                _log.warning("%s", dropped)
        dataset = _dataset(setup.config, trainer, distribution)
        with TrainingSummaries(model_dir, setup.label_map, step=trainer.step, write=writes) as summaries:
            summaries.describe(setup.config, ("train",))
            saver = _Saver(store, trainer, None if together else checkpoint_every_s)

            def note(report: StepReport) -> None:
                summaries.step(report)
                on_step(report)
                saver.save_when_due()

            batches = summaries.watch(iter(dataset), trainer.step)
            remaining = max(0, target - trainer.step)
            try:
                return trainer.train(
                    batches, remaining, on_step=note, should_stop=(lambda: False) if together else should_stop
                )
            finally:
                saver.save_at_end()


def start_from_fine_tune_checkpoint(trainer: Trainer, setup: Setup) -> RestoreReport | None:
    """Load the config's fine-tune checkpoint into the trainer.

    Returns:
        What was restored; None if the config names no fine-tune checkpoint.
    """
    train = setup.config.train_config
    if not train.fine_tune_checkpoint:
        return None
    inference = InferenceModel(setup.config.model)
    report = restore_fine_tune_checkpoint(inference.model, train.fine_tune_checkpoint, train.fine_tune_checkpoint_type)
    trainer.start_from(named_variables(inference.model))
    return report


@contextlib.contextmanager
def _sole_writer(model_dir: Path, strategy: tf.distribute.Strategy | None) -> Iterator[bool]:
    """Yields whether this process writes to `model_dir`, and holds its lock if so. Only the chief of a cluster does."""
    if not is_chief(strategy):
        yield False
        return
    with lock_model_dir(model_dir):
        yield True


def _dataset(config: Any, trainer: Trainer, strategy: tf.distribute.Strategy | None) -> Any:
    if strategy is None:
        return training_dataset(config, trainer.model)
    return strategy.distribute_datasets_from_function(
        lambda context: training_dataset(config, trainer.model, input_context=context)
    )


class _Saver:
    """Saves checkpoints periodically, and at the end if there are steps since the last one.

    Args:
        every_s: seconds between checkpoints; None saves every `_CHECKPOINT_EVERY_STEPS` steps.
    """

    def __init__(self, store: CheckpointStore, trainer: Trainer, every_s: float | None) -> None:
        self._store = store
        self._trainer = trainer
        self._every_s = every_s
        self._saved_s = time.monotonic()
        self._saved_step = trainer.step

    def save_when_due(self) -> None:
        """Save if the interval is over and all weights are finite. Called after every step."""
        if self._every_s is None:
            due = self._trainer.step - self._saved_step >= _CHECKPOINT_EVERY_STEPS
        else:
            due = time.monotonic() - self._saved_s > self._every_s
        if due:
            self._store.save_if_finite()
            self._note_saved()

    def save_at_end(self) -> None:
        """Save if steps were taken since the last checkpoint."""
        if self._trainer.step != self._saved_step:
            self._store.save()
            self._note_saved()

    def _note_saved(self) -> None:
        self._saved_s, self._saved_step = time.monotonic(), self._trainer.step
