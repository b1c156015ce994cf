"""Offline training on the records that a pipeline.config names, without the annotation loop (`odkeras train`)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

from odkeras.config.settings import TrainingSettings
from odkeras.errors import ConfigError, TrainingError, UnreadableBatchError
from odkeras.model.imagenet import load_imagenet_weights
from odkeras.model.inference import InferenceModel
from odkeras.model.setup import Setup, save_resolved
from odkeras.model.weights import RestoreReport, named_variables, restore_fine_tune_checkpoint
from odkeras.training.checkpoints import CheckpointStore, PeriodicSaver, lock_model_dir
from odkeras.training.inputs import distributed_training_dataset
from odkeras.training.record_checks import check_records, find_bad_example, numbered_examples
from odkeras.training.strategy import is_chief, is_multi_worker, make_strategy
from odkeras.training.tensorboard import TrainingSummaries
from odkeras.training.trainer import StepReport, Trainer, TrainingResult

_log = logging.getLogger(__name__)

CHECKPOINT_EVERY_S = 120.0  # a cluster writes one every 1000 steps instead


def train_on_records(
    setup: Setup,
    settings: TrainingSettings,
    *,
    steps: int | None = None,
    on_step: Callable[[StepReport], None] = lambda report: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Train until the global step is `steps`, resuming from the newest checkpoint in the model directory if there is
    one.

    Args:
        setup: the result of `prepare_setup(..., purpose="train")`.
        settings: the model directory, the number of checkpoints to keep, and the strategy (see `make_strategy`; every
            worker of a cluster runs the same command).
        steps: target global step; None takes `train_config.num_steps`.
        on_step: callback after every step.
        should_stop: polled between steps; True ends the training after a last checkpoint. Ignored in a cluster, where
            one worker cannot stop without the others.

    Raises:
        ConfigError: no number of steps, no records, records without examples or with boxes that are not normalised, or
            fewer record files than workers.
        CheckpointError: the checkpoints do not fit the model.
        SetupError: another training is using the model directory.
        WeightsError: the training starts from ImageNet weights, which cannot be downloaded.
        TrainingError: the loss stays non-finite (the newest checkpoint has the last good weights), or a batch cannot
            be read.
    """
    target = _target_step(setup, steps)
    # First of all: a cluster's collective operations cannot be set up once TensorFlow has run an operation.
    distribution, model_dir = make_strategy(settings.strategy), settings.project.model_dir
    in_cluster = is_multi_worker(distribution)
    reader = setup.config.train_input_reader
    warnings = check_records(reader, setup.label_map, "train_input_reader")
    with _sole_writer(model_dir, distribution) as writes:
        trainer = Trainer(setup.config, distribution)
        store = CheckpointStore(trainer, model_dir, settings.max_checkpoints_num)
        if store.restore() is None:
            _load_first_weights(trainer, setup)
        if writes:
            save_resolved(setup, model_dir)
            for warning in warnings:
                _log.warning("%s", warning)
        dataset = distributed_training_dataset(setup.config, trainer.model, distribution)
        trainer.trace(dataset.element_spec)
        with TrainingSummaries(model_dir, setup.label_map, step=trainer.step, write=writes) as summaries:
            summaries.describe(setup.config, ("train",))
            saver = PeriodicSaver(store, trainer, None if in_cluster else CHECKPOINT_EVERY_S)

            def on_step_taken(report: StepReport) -> None:
                summaries.step(report)
                on_step(report)
                saver.save_when_due()

            batches = summaries.watch(iter(dataset), trainer.step)
            stops = (lambda: False) if in_cluster else should_stop
            remaining = _remaining_steps(model_dir, trainer.step, target)
            try:
                return trainer.train(batches, remaining, on_step=on_step_taken, should_stop=stops)
            except UnreadableBatchError as error:
                reason = find_bad_example(numbered_examples(reader), reader.num_keypoints)
                raise TrainingError(reason or str(error)) from error
            finally:
                saver.save_at_end()


def _target_step(setup: Setup, steps: int | None) -> int:
    target = steps if steps is not None else int(setup.config.train_config.num_steps)
    if target <= 0:
        raise ConfigError("how many steps? give --steps, or set train_config.num_steps in the pipeline.config")
    return target


def _remaining_steps(model_dir: Path, step: int, target: int) -> int:
    if step >= target:
        _log.warning(
            "nothing to train: %s is at step %d already, and training ends at step %d; give --steps, or raise "
            "train_config.num_steps",
            model_dir,
            step,
            target,
        )
    return max(0, target - step)


def _load_first_weights(trainer: Trainer, setup: Setup) -> None:
    if start_from_fine_tune_checkpoint(trainer, setup) is None:
        with trainer.strategy.scope():
            load_imagenet_weights(trainer.model, setup.config.model)
        trainer.start_averages()


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
