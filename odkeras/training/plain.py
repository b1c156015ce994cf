"""Plain training on the records a pipeline.config names: the loop's step without the loop."""

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
    """Train until the global step is `steps`; goes on from the newest checkpoint in `model_dir`.

    Args:
        setup: of `prepare_setup(..., purpose="train")`.
        model_dir: where checkpoints and TensorBoard events go.
        steps: None takes `train_config.num_steps`.
        strategy: see `make_strategy`; every worker of a cluster runs the same command.
        max_checkpoints_num: checkpoints kept; 0 or less keeps all.
        checkpoint_every_s: seconds between checkpoints; a cluster writes one every 1000 steps instead.
        on_step: told of every step.
        should_stop: asked between steps; a checkpoint is written before it ends. Not asked in a cluster, where one
            worker cannot end without the others.

    Raises:
        ConfigError: no number of steps, no records, or fewer files of them than workers.
        CheckpointError: the checkpoints do not fit the model.
        SetupError: another training is using `model_dir`.
        TrainingError: the loss stays non-finite; the last good weights are in the newest checkpoint.
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
    """Give the trainer the weights of the config's fine-tune checkpoint; None when it names none."""
    train = setup.config.train_config
    if not train.fine_tune_checkpoint:
        return None
    inference = InferenceModel(setup.config.model)
    report = restore_fine_tune_checkpoint(inference.model, train.fine_tune_checkpoint, train.fine_tune_checkpoint_type)
    trainer.start_from(named_variables(inference.model))
    return report


@contextlib.contextmanager
def _sole_writer(model_dir: Path, strategy: tf.distribute.Strategy | None) -> Iterator[bool]:
    """Whether this process writes to `model_dir`; if so, it is locked."""
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
    """Saves now and then, and at the end what has not been saved yet."""

    def __init__(self, store: CheckpointStore, trainer: Trainer, every_s: float | None) -> None:
        self._store = store
        self._trainer = trainer
        self._every_s = every_s
        self._saved_s = time.monotonic()
        self._saved_step = trainer.step

    def save_when_due(self) -> None:
        if self._every_s is None:
            due = self._trainer.step - self._saved_step >= _CHECKPOINT_EVERY_STEPS
        else:
            due = time.monotonic() - self._saved_s > self._every_s
        if due:
            self._store.save_if_finite()
            self._note_saved()

    def save_at_end(self) -> None:
        if self._trainer.step != self._saved_step:
            self._store.save()
            self._note_saved()

    def _note_saved(self) -> None:
        self._saved_s, self._saved_step = time.monotonic(), self._trainer.step
