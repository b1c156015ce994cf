"""Offline training on the records that a pipeline.config names, without the annotation loop (`odkeras train`)."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from odkeras.config.parsing import AUTO
from odkeras.config.settings import TrainingSettings
from odkeras.errors import ClusterError, ConfigError, TrainingError, UnreadableBatchError
from odkeras.model.context import context_length
from odkeras.model.fine_tune import RestoreReport
from odkeras.model.first_weights import load_first_weights
from odkeras.model.growth import extend_newest
from odkeras.model.imagenet import load_imagenet_weights
from odkeras.model.inference import InferenceModel
from odkeras.model.setup import Setup, save_resolved
from odkeras.model.weights import named_variables
from odkeras.training.batch_size import set_batch_size
from odkeras.training.checkpoints import CheckpointStore, PeriodicSaver, lock_model_dir
from odkeras.training.cluster import Cluster, join_cluster
from odkeras.training.crew import check_batch_size, check_cluster, start_together
from odkeras.training.inputs import distributed_training_dataset
from odkeras.training.record_checks import check_records, find_bad_example, numbered_examples
from odkeras.training.strategy import is_chief, make_strategy
from odkeras.training.tensorboard import TrainingSummaries
from odkeras.training.trainer import StepReport, Trainer, TrainingResult

_log = logging.getLogger(__name__)

CHECKPOINT_EVERY_S = 120.0


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
        should_stop: polled between steps; True ends the training after a last checkpoint, in a cluster on all workers.

    Raises:
        ConfigError: no number of steps, no records, records without examples or with boxes that are not normalised,
            fewer record files than workers, or batches that cannot be divided among the devices.
        ClusterError: another worker was lost, or has other settings. The newest checkpoint is at most as old as
            `--checkpoint-steps` says.
        CheckpointError: the checkpoints do not fit the model.
        SetupError: another training is using the model directory.
        WeightsError: the training starts from ImageNet weights, which cannot be downloaded.
        TrainingError: the loss stays non-finite (the newest checkpoint has the last good weights), or a batch cannot
            be read.
    """
    target = _target_step(setup, steps)
    # First of all: a cluster's collective operations cannot be set up once TensorFlow has run an operation.
    distribution, model_dir = make_strategy(settings.strategy), settings.project.model_dir
    if settings.batch_size != AUTO:
        check_batch_size(setup.config, distribution.num_replicas_in_sync if distribution is not None else 1)
    stop = threading.Event()
    cluster = join_cluster(distribution, stop)
    if cluster is not None:
        check_cluster(cluster, setup.config, settings)
    reader = setup.config.train_input_reader
    context = context_length(setup.config.model)
    warnings = check_records(reader, setup.label_map, "train_input_reader", settings.max_pixels, context_length=context)
    watching = cluster.watching() if cluster is not None else contextlib.nullcontext()
    with watching, _sole_writer(model_dir, distribution) as writes:
        if writes:
            for warning in warnings:
                _log.warning("%s", warning)
        trainer, store = _build_trainer(setup, settings, distribution, cluster, writes=writes)
        dataset = distributed_training_dataset(setup.config, trainer.model, distribution)
        trainer.trace(dataset.element_spec)
        with TrainingSummaries(model_dir, setup.label_map, step=trainer.step, write=writes) as summaries:
            summaries.describe(setup.config, ("train",))
            limits = (CHECKPOINT_EVERY_S, settings.checkpoint_steps)
            saver = PeriodicSaver(store, trainer, *limits, in_cluster=cluster is not None)

            def on_step_taken(report: StepReport) -> None:
                summaries.step(report)
                on_step(report)
                saver.save_when_due()

            def stops() -> bool:
                if should_stop():
                    stop.set()
                return stop.is_set()

            batches = summaries.watch(iter(dataset), trainer.step)
            remaining = _remaining_steps(model_dir, trainer.step, target)
            with _saved_at_end(saver, reader, context):
                return trainer.train(batches, remaining, on_step=on_step_taken, should_stop=stops)


def _build_trainer(
    setup: Setup,
    settings: TrainingSettings,
    strategy: tf.distribute.Strategy | None,
    cluster: Cluster | None,
    *,
    writes: bool,
) -> tuple[Trainer, CheckpointStore]:
    """A trainer with the newest weights, of the chief in a cluster, and its checkpoints."""
    trainer, model_dir = Trainer(setup.config, strategy, precision=settings.precision), settings.project.model_dir
    if writes:
        # In a cluster, the values of distributed weights can be read by all workers together only.
        model = trainer.model if cluster is None else InferenceModel(setup.config.model).model
        extend_newest(model, setup.config, model_dir)
    store = CheckpointStore(trainer, model_dir, settings.max_checkpoints_num)
    set_batch_size(setup.config, settings, trainer, cluster)
    if writes:
        if store.restore() is None:
            _load_first_weights(trainer, setup)
        save_resolved(setup, model_dir)
    if cluster is not None:
        start_together(cluster, trainer, store)
    return trainer, store


@contextlib.contextmanager
def _saved_at_end(saver: PeriodicSaver, reader: Any, context: int) -> Iterator[None]:
    """Save a checkpoint at the end of the block, also after an error, and name the example that cannot be read."""
    try:
        yield
    except UnreadableBatchError as error:
        reason = find_bad_example(numbered_examples(reader), reader.num_keypoints, context_length=context)
        raise TrainingError(reason or str(error)) from error
    except (ClusterError, tf.errors.OpError):
        saver.give_up()  # other workers are gone, without which nothing can be saved; or the disk is full
        raise
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
    if not setup.config.train_config.fine_tune_checkpoint:
        return None
    inference = InferenceModel(setup.config.model)
    report = load_first_weights(inference.model, setup.config, setup.label_map)
    trainer.start_from({**named_variables(inference.model), **(report.adapted if report else {})})
    return report


@contextlib.contextmanager
def _sole_writer(model_dir: Path, strategy: tf.distribute.Strategy | None) -> Iterator[bool]:
    """Yields whether this process writes to `model_dir`, and holds its lock if so. Only the chief of a cluster does."""
    if not is_chief(strategy):
        yield False
        return
    with lock_model_dir(model_dir):
        yield True
