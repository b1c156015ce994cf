"""The trainers of all workers of a cluster, which do the same in the same order; or one trainer alone.

Operations on distributed weights are collective, so that all workers must take part: a step, a checkpoint, a copy of
the weights. The chief runs the rounds (`Rounds`) and tells the others before each of them; they run `Crew.follow`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import tensorflow as tf

from odkeras.config.devices import PRECISIONS
from odkeras.config.settings import TrainingSettings
from odkeras.data.example_set import DrawnExamples
from odkeras.data.stored_example import StoredExample
from odkeras.errors import ConfigError, TrainingError
from odkeras.model.checkpoint import list_checkpoints
from odkeras.model.weights import snapshot
from odkeras.training.checkpoints import CheckpointStore, PeriodicSaver
from odkeras.training.cluster import Cluster, Order, OrderKind
from odkeras.training.feed import ExampleFeed
from odkeras.training.inputs import distributed_training_dataset, example_source
from odkeras.training.trainer import Batch, StepReport, Trainer, TrainingResult

CHECKPOINT_EVERY_S = 60.0  # within a long round


class Crew:
    """One worker's part.

    Args:
        trainer, checkpoints: of this worker. In a cluster they are built by all workers at the same time.
        feed: what `dataset` reads.
        dataset: the training dataset of this worker.
        checkpoint_steps: most steps between two checkpoints; 0: see `PeriodicSaver`.
        cluster: None if this process trains alone.
    """

    def __init__(
        self,
        trainer: Trainer,
        checkpoints: CheckpointStore,
        feed: ExampleFeed,
        dataset: Any,
        checkpoint_steps: int = 0,
        cluster: Cluster | None = None,
    ) -> None:
        self._trainer = trainer
        self._checkpoints = checkpoints
        self._feed = feed
        self._dataset = dataset
        self._checkpoint_steps = checkpoint_steps
        self._cluster = cluster

    def start(self) -> None:
        """Continue with the weights of the chief, and trace the step."""
        if self._cluster is not None:
            start_together(self._cluster, self._trainer, self._checkpoints)
        self._trainer.trace(self._dataset.element_spec)

    def train(
        self,
        drawn: DrawnExamples,
        steps: int,
        *,
        watch: Callable[[Iterator[Batch]], Iterator[Batch]],
        on_step: Callable[[StepReport], None],
        should_stop: Callable[[], bool],
    ) -> TrainingResult:
        """Train on these examples, with checkpoints in between; see `Trainer.train`.

        Args:
            drawn: what to train on.
            steps: number of steps.
            watch: wraps the batches.
            on_step, should_stop: as in `Trainer.train`.
        """
        self._tell(OrderKind.TRAIN, steps, self._feed.draw(drawn, steps))
        return self._train(steps, watch, on_step, should_stop)

    def fails(self, example: StoredExample) -> bool:
        """Whether a step with nothing but this example fails. The weights stay as they are."""
        self._tell(OrderKind.TRY, 1, self._feed.draw(DrawnExamples([example]), 1))
        return self._trainer.fails_on(iter(self._dataset))

    def save(self) -> None:
        """Save a checkpoint."""
        self._tell(OrderKind.SAVE)
        self._checkpoints.save()

    def weights(self) -> Mapping[str, Any]:
        """The weights to predict with, by path: variables or arrays."""
        if self._cluster is None:
            return self._trainer.weights_for_prediction()
        self._tell(OrderKind.READ)
        return snapshot(self._trainer.weights_for_prediction())

    def idle(self) -> None:
        """Nothing is to be done now; a worker that was asked to end says so."""
        if self._cluster is not None:
            self._cluster.idle()

    def end(self) -> None:
        """The training ends, on all workers."""
        self._tell(OrderKind.END)

    def follow(self) -> None:
        """Do what the chief does, until it ends. For the other workers.

        Raises:
            ClusterError: a worker was lost, or this machine does not see the plan of the chief.
        """
        assert self._cluster is not None
        while (order := self._cluster.next_order()).kind is not OrderKind.END:
            if order.kind in (OrderKind.TRAIN, OrderKind.TRY):
                self._feed.follow(order.plan)
            with suppress(TrainingError):  # the chief has the same error at the same step, and decides
                self._do(order)

    def _do(self, order: Order) -> None:
        if order.kind is OrderKind.TRAIN:
            self._train(order.steps, lambda batches: batches, lambda report: None, lambda: False)
        elif order.kind is OrderKind.TRY:
            self._trainer.fails_on(iter(self._dataset))
        elif order.kind is OrderKind.SAVE:
            self._checkpoints.save()
        elif order.kind is OrderKind.READ:
            snapshot(self._trainer.weights_for_prediction())

    def _train(
        self,
        steps: int,
        watch: Callable[[Iterator[Batch]], Iterator[Batch]],
        on_step: Callable[[StepReport], None],
        should_stop: Callable[[], bool],
    ) -> TrainingResult:
        last_step, in_cluster = self._trainer.step + steps, self._cluster is not None
        limits = (CHECKPOINT_EVERY_S, self._checkpoint_steps)
        saver = PeriodicSaver(self._checkpoints, self._trainer, *limits, in_cluster=in_cluster)

        def on_step_taken(report: StepReport) -> None:
            on_step(report)
            if report.step < last_step:  # the round saves a checkpoint at its end
                saver.save_when_due()

        batches = watch(iter(self._dataset))
        return self._trainer.train(batches, steps, on_step=on_step_taken, should_stop=should_stop)

    def _tell(self, kind: OrderKind, steps: int = 0, plan: int = 0) -> None:
        if self._cluster is not None:
            self._cluster.order(Order(kind, steps, plan))


def start_together(cluster: Cluster, trainer: Trainer, checkpoints: CheckpointStore) -> None:
    """From now on the trainers of all workers have the weights of the chief, and take the same steps."""

    def describe() -> str:
        newest = Path((list_checkpoints(checkpoints.model_dir) or [""])[-1]).name
        kept = f"the newest checkpoint is {newest}" if newest else "there is no checkpoint yet"
        return f"after step {trainer.step} ({kept})"

    cluster.describe = describe
    cluster.share(trainer.state)
    trainer.cluster = cluster


def check_cluster(cluster: Cluster, config: Any, settings: TrainingSettings) -> None:
    """Check that the workers can train together.

    Raises:
        ClusterError: the workers have different settings.
    """
    train = config.train_config
    parts = {
        "model": config.model,
        "optimizer": train.optimizer,
        "data_augmentation_options": type(train)(data_augmentation_options=train.data_augmentation_options),
    }
    checksums = {name: zlib.crc32(part.SerializeToString(deterministic=True)) for name, part in parts.items()}
    clip = round(train.gradient_clipping_by_norm * 1e6)
    cluster.check_same(
        {
            **checksums,
            "gradient_clipping_by_norm": clip,
            "--batch-size": train.batch_size,
            "--checkpoint-steps": settings.checkpoint_steps,
            "--precision": PRECISIONS.index(settings.precision),
        }
    )


def check_batch_size(config: Any, replicas: int) -> None:
    """Check that the batch can be divided among the devices.

    Raises:
        ConfigError: it cannot.
    """
    size = config.train_config.batch_size
    if size % replicas:
        fitting = sorted({max(replicas, size - size % replicas), size + replicas - size % replicas})
        raise ConfigError(
            f"batch size {size} cannot be divided among {replicas} devices; give --batch-size "
            + " or ".join(map(str, fitting))
        )


def build_crew(
    config: Any,
    trainer: Trainer,
    checkpoints: CheckpointStore,
    feed: ExampleFeed,
    settings: TrainingSettings,
    strategy: tf.distribute.Strategy | None,
    cluster: Cluster | None,
) -> Crew:
    """The crew with its dataset."""
    dataset = distributed_training_dataset(config, trainer.model, strategy, example_source(feed.generate))
    return Crew(trainer, checkpoints, feed, dataset, settings.checkpoint_steps, cluster)
