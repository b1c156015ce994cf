"""The inner training loop: one model, one optimizer, one traced step.

    trainer = Trainer(config)
    trainer.start_from(weights)                      # or CheckpointStore(trainer, ...).restore()
    dataset = training_dataset(config, trainer.model)
    trainer.trace(dataset.element_spec)
    result = trainer.train(iter(dataset), steps=100)

The outer loop, over rounds, is `training.rounds`.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from object_detection import model_lib
from object_detection.core import standard_fields
from tf_keras.src import backend

from odkeras.config.devices import FLOAT32
from odkeras.errors import TrainingError, UnreadableBatchError
from odkeras.model.building import building, reason
from odkeras.model.inference import build_detection_model, create_variables
from odkeras.model.precision import in_float32, layers_compute_in
from odkeras.model.weights import copy_weights, named_variables, variables_to_train
from odkeras.pipeline.schedules import problem_past_end
from odkeras.training.batches import Batch, TimedBatches
from odkeras.training.cluster import Cluster
from odkeras.training.loss_scale import LEAST_SCALE, make_loss_scale
from odkeras.training.optimizers import build_optimizer
from odkeras.training.undo import OUT_OF_MEMORY, StepGuard
from odkeras.training.unjudged import without_unjudged

_log = logging.getLogger(__name__)

_TOTAL_LOSS = "Loss/total_loss"
_RECENT_LOSSES = 20


@dataclass(frozen=True)
class StepReport:
    """The result of one training step, for callbacks.

    Args:
        step: global step after this step.
        losses: value of each loss, and their sum as "Loss/total_loss".
        learning_rate: learning rate of this step.
        gradient_norm: global norm of the gradients before clipping, after their sum over the replicas.
    """

    step: int
    losses: Mapping[str, float]
    learning_rate: float
    gradient_norm: float

    @property
    def loss(self) -> float:
        """The total loss."""
        return self.losses[_TOTAL_LOSS]


@dataclass(frozen=True)
class TrainingResult:
    """The result of `Trainer.train`.

    Args:
        steps: steps taken, without those that were undone. Fewer than requested if the training was stopped.
        seconds: wall time of the call, including tracing in the first step of a process.
        loss: mean total loss of the last steps (at most 20); None if no step was taken.
        input_seconds: part of `seconds` spent in the batch iterator, including drawing images for TensorBoard.
    """

    steps: int
    seconds: float
    loss: float | None
    input_seconds: float = 0.0


class Trainer:
    """Trains one model with the optimizer, losses and clipping of a pipeline.config.

    Args:
        config: a resolved `TrainEvalPipelineConfig`.
        strategy: how to distribute the step; None runs it on the default device.
        precision: what the layers compute in, one of `PRECISIONS`.

    Attributes:
        cluster: the workers that take the same steps; None if this process trains alone.
        variables: all variables of the model, by path.
        trained_variables: the variables that steps update; frozen ones are left out.
        bad_images: `image_bucket`s of the images in batches whose step was undone, during the last call of `train`.

    Raises:
        ConfigError: the API refuses the configuration, or it freezes every weight.
    """

    def __init__(
        self, config: Any, strategy: tf.distribute.Strategy | None = None, *, precision: str = FLOAT32
    ) -> None:
        self.config = config
        self.strategy = strategy or tf.distribute.get_strategy()
        with self.strategy.scope():
            with layers_compute_in(precision):
                self.model = build_detection_model(config.model, is_training=True)
                create_variables(self.model, config.model)
            self._loss_scale = make_loss_scale(precision)
            self.step_variable = tf.Variable(
                0,
                trainable=False,
                dtype=tf.int64,
                name="global_step",
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            self.optimizer, self._learning_rate = build_optimizer(
                config.train_config.optimizer, self.model, self.step_variable
            )
        self.variables = named_variables(self.model)
        self.trained_variables = variables_to_train(self.model.trainable_variables, config.train_config)
        self.bad_images: set[int] = set()
        self.cluster: Cluster | None = None
        self._step_function: Any = None
        self._traced_spec: Any = None
        self._warned_past_schedule = False

    @property
    def step(self) -> int:
        """The global step: number of training steps behind the weights, across restarts."""
        return int(self.step_variable.numpy())

    def start_from(self, weights: Mapping[str, Any]) -> None:
        """Copy weights, keyed by variable path, from another model of the same configuration."""
        with self.strategy.scope():
            copy_weights(weights, self.variables)
        self.start_averages()

    def start_averages(self) -> None:
        """Set the moving averages, if the optimizer has any, to the current weights."""
        with self.strategy.scope():
            for variable, average in self._averages():
                average.assign(variable)

    def weights_for_prediction(self) -> dict[str, tf.Variable]:
        """The variables to predict with, by path: moving averages where the optimizer has them, else the weights."""
        averages = {variable.ref(): average for variable, average in self._averages()}
        return {path: averages.get(variable.ref(), variable) for path, variable in self.variables.items()}

    def _averages(self) -> list[tuple[tf.Variable, tf.Variable]]:
        if not self.config.train_config.optimizer.use_moving_average:
            return []
        return [(variable, self.optimizer.get_slot(variable, "average")) for variable in self.model.trainable_variables]

    @property
    def is_finite(self) -> bool:
        """Whether all weights and moving averages are finite.

        A finite loss does not imply that: it does not depend on the moving statistics of batch normalization, nor on
        the update that the step itself makes.
        """
        variables = [*self.variables.values(), *(average for _, average in self._averages())]
        return bool(tf.reduce_all([tf.reduce_all(tf.math.is_finite(v)) for v in variables if v.dtype.is_floating]))

    def optimizer_variables(self) -> dict[str, tf.Variable]:
        """The optimizer's state: momentum slots, moving averages and its own step counter."""
        variables = [*self.optimizer.weights, *(average for _, average in self._averages())]
        return {f"optimizer/{number}": variable for number, variable in enumerate(variables)}

    @property
    def state(self) -> dict[str, tf.Variable]:
        """All that a step changes: the weights, the optimizer and the global step."""
        return {**self.variables, **self.optimizer_variables(), "step": self.step_variable}

    def trace(self, element_spec: Any) -> None:
        """Trace the step, once for all batches of a dataset. Must be called before `train`.

        Does nothing if the step is traced for such batches already.

        Args:
            element_spec: the `element_spec` of the dataset. The spec of a single batch is not enough: an image resizer
                that keeps the aspect ratio produces batches of different sizes.

        Raises:
            ConfigError: the model and the batches do not fit each other.
        """
        if self._traced_spec == element_spec:
            return
        self._step_function = tf.function(
            self._distributed_step, autograph=_needs_autograph(self.config.model), input_signature=tuple(element_spec)
        )
        with building(f"model.{self.config.model.WhichOneof('model')}", "the training step"):
            self._step_function.get_concrete_function()
        self._traced_spec = element_spec

    def train(
        self,
        batches: Iterator[Batch],
        steps: int,
        *,
        on_step: Callable[[StepReport], None] = lambda report: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> TrainingResult:
        """Take `steps` steps.

        A step with a non-finite loss or gradient, or for which the memory is not enough, is undone: the weights of the
        last snapshot are restored, and training continues with the next batch. The weights themselves are checked at
        every snapshot and at the end, because non-finite weights must get neither into a checkpoint nor into a version.

        Args:
            batches: an iterator over batches of `inputs.training_dataset`.
            steps: number of steps.
            on_step: callback after every step that was not undone at once.
            should_stop: polled between steps; True ends the call early.

        Raises:
            UndoneStepsError: the loss or the weights stay non-finite, or the memory is not enough again and again.
            TrainingError: a step fails for another reason, or the batches end or cannot be read.
            ClusterError: a step fails on one worker of a cluster only, or a worker was lost.
        """
        assert self._step_function is not None, "call trace() before train()"
        started, first = time.monotonic(), self.step
        self.bad_images.clear()
        guard, timed = StepGuard(self), TimedBatches(batches)
        losses: deque[float] = deque(maxlen=_RECENT_LOSSES)
        while True:
            while self.step < first + steps:
                batch = self._next_batch(timed, stop=should_stop())
                if batch is None:
                    break
                report = self._take_step(batch, guard)
                if report is not None:
                    losses.append(report.loss)
                    on_step(report)
            if self.step == first or self.is_finite:
                break
            guard.undo()
        mean = sum(losses) / len(losses) if losses else None
        return TrainingResult(self.step - first, time.monotonic() - started, mean, timed.seconds)

    def fails_on(self, batches: Iterator[Batch]) -> bool:
        """Whether a step with the next of these batches fails. The trainer stays as it is."""
        guard, bad_images = StepGuard(self), set(self.bad_images)
        try:
            timed = TimedBatches(batches)
            while not guard.has_undone:  # an update that is skipped is tried again, with a smaller scale of the loss
                batch = self._next_batch(timed, stop=False)
                if batch is None:  # the cluster ends
                    return False
                if self._take_step(batch, guard) is not None:
                    return not self.is_finite
            return True
        except TrainingError:
            return True
        finally:
            guard.restore()
            self.bad_images = bad_images

    def _next_batch(self, batches: Iterator[Batch], *, stop: bool) -> Batch | None:
        """The next batch; None if training stops. The workers of a cluster stop, or fail, before the same step."""
        if self.cluster is None:
            return None if stop else next(batches)
        batch, failure = None, None
        try:
            batch = None if stop else next(batches)
        except TrainingError as error:
            failure = error
        agreed = self.cluster.agree(stop=stop, failed=failure is not None)
        if failure is not None:
            raise failure
        if agreed.failed is not None:
            raise UnreadableBatchError(f"{self.cluster.spec.name_of(agreed.failed)} cannot read a batch of examples")
        return None if agreed.stop else batch

    def _take_step(self, batch: Batch, guard: StepGuard) -> StepReport | None:
        features, labels = batch
        try:
            outputs = {name: float(value) for name, value in self._step_function(features, labels).items()}
        except tf.errors.OpError as error:
            if self.cluster is not None:  # the others wait for this worker, and cannot undo the step with it
                raise self.cluster.broken(error) from error
            if not isinstance(error, tf.errors.ResourceExhaustedError):
                _log.info("step %d failed", self.step, exc_info=True)
                raise TrainingError(f"step {self.step} failed: {reason(error)}") from error
            _log.warning("step %d is skipped: %s", self.step, reason(error))
            guard.undo(features, OUT_OF_MEMORY)
            return None
        gradient_norm = outputs.pop("gradient_norm")
        learning_rate = outputs.pop("learning_rate")
        loss_scale = outputs.pop("loss_scale", LEAST_SCALE)
        if math.isfinite(outputs[_TOTAL_LOSS]) and not math.isfinite(gradient_norm) and loss_scale > LEAST_SCALE:
            return None  # the update was skipped, and the scale halved
        if not (math.isfinite(outputs[_TOTAL_LOSS]) and math.isfinite(gradient_norm)):
            guard.undo(features)
            return None
        if not guard.accept():
            return None
        self._warn_past_schedule()
        return StepReport(self.step, outputs, learning_rate, gradient_norm)

    def _warn_past_schedule(self) -> None:
        """Warn, once, that the learning-rate schedule has ended: further steps hardly change the weights."""
        if not self._warned_past_schedule and (problem := problem_past_end(self.config, self.step - 1)):
            self._warned_past_schedule = True
            _log.warning("%s", problem)

    def _distributed_step(self, features: dict[str, tf.Tensor], labels: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        per_replica = self.strategy.run(self._replica_step, args=(features, labels))
        return {
            name: self.strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
            for name, value in per_replica.items()
        }

    def _replica_step(self, features: dict[str, tf.Tensor], labels: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Forward pass, backward pass and update on one replica.

        The losses are divided by the number of replicas, so that their sum over replicas is the mean. The gradients are
        summed before they are clipped: each replica's own norm would clip them at another threshold than one replica
        with the whole batch.
        """
        replicas = self.strategy.num_replicas_in_sync
        with learning_phase(training=True), tf.GradientTape() as tape:
            losses = {name: value / replicas for name, value in self.losses(features, labels).items()}
            scale = self._loss_scale.value if self._loss_scale is not None else None
            target = losses[_TOTAL_LOSS] if scale is None else losses[_TOTAL_LOSS] * scale
        variables = self.trained_variables
        pairs = zip(tape.gradient(target, variables), variables, strict=True)
        updates = [(gradient, variable) for gradient, variable in pairs if gradient is not None]
        gradients = [gradient if scale is None else gradient / scale for gradient, _ in updates]
        if replicas > 1:
            gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        norm = tf.linalg.global_norm(gradients)
        clip = self.config.train_config.gradient_clipping_by_norm
        if clip > 0:
            gradients, _ = tf.clip_by_global_norm(gradients, clip, use_norm=norm)
        rate = tf.cast(self._learning_rate(), tf.float32)

        def update(gradients: Sequence[tf.Tensor]) -> None:
            self.optimizer.apply_gradients(zip(gradients, (variable for _, variable in updates), strict=True))
            self.step_variable.assign_add(1)

        if self._loss_scale is None:
            update(gradients)
        else:
            self._loss_scale.update_if_finite(update, gradients, norm)
        numbers = {"gradient_norm": norm, "learning_rate": rate, **({} if scale is None else {"loss_scale": scale})}
        return {**losses, **{name: number / replicas for name, number in numbers.items()}}

    def losses(self, features: dict[str, tf.Tensor], labels: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The losses of a batch, and their sum. To be traced within `learning_phase`."""
        unstacked = model_lib.unstack_batch(
            labels, unpad_groundtruth_tensors=self.config.train_config.unpad_groundtruth_tensors
        )
        step = tf.convert_to_tensor(self.step_variable)  # Keras would track a variable and save it with the model
        model_lib.provide_groundtruth(self.model, unstacked, training_step=step)
        fields = standard_fields.InputDataFields
        shapes = features[fields.true_image_shape]
        predictions = self.model.predict(features[fields.image], shapes, **self.model.get_side_inputs(features))
        predictions = in_float32(predictions)
        losses = dict(self.model.loss(without_unjudged(predictions, features), shapes))
        if self.config.train_config.add_regularization_loss:
            penalties = self.model.regularization_losses()
            if penalties:
                losses["Loss/regularization_loss"] = tf.add_n(penalties)
        losses[_TOTAL_LOSS] = tf.add_n(list(losses.values()))
        return losses


@contextmanager
def learning_phase(*, training: bool) -> Iterator[None]:
    """Set Keras' learning phase, which layers without an explicit `training` argument read.

    It is read while a function is traced and is thread-local. A distributed step traces in one thread per replica, so
    it must be set inside the replica function.
    """
    with backend.deprecated_internal_learning_phase_scope(int(training)):
        yield


def _needs_autograph(model_config: Any) -> bool:
    """Whether the step needs autograph, which doubles the tracing time.

    Only DeepMAC does: its loss branches on a tensor in Python.
    """
    return model_config.HasField("center_net") and model_config.center_net.HasField("deepmac_mask_estimation")
