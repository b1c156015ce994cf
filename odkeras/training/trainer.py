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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from object_detection import inputs as odapi_inputs
from object_detection import model_lib
from object_detection.builders import optimizer_builder
from object_detection.core import standard_fields
from tf_keras.src import backend

from odkeras.errors import TrainingError, UnreadableBatchError
from odkeras.model.building import building, reason
from odkeras.model.inference import build_detection_model, create_variables
from odkeras.model.weights import copy_weights, named_variables, snapshot, variables_to_train
from odkeras.pipeline.schedules import problem_past_end

_log = logging.getLogger(__name__)

_TOTAL_LOSS = "Loss/total_loss"
_SNAPSHOT_EVERY_STEPS = 50
_MAX_RESTORES = 3
_RECENT_LOSSES = 20


Batch = tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]


@dataclass(frozen=True)
class StepReport:
    """The result of one training step, for callbacks.

    Args:
        step: global step after this step.
        losses: value of each loss, and their sum as "Loss/total_loss".
        learning_rate: learning rate of this step.
        gradient_norm: global norm of the gradients before clipping.
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

    Attributes:
        variables: all variables of the model, by path.
        trained_variables: the variables that steps update; frozen ones are left out.
        bad_images: `image_bucket`s of the images in batches with a non-finite loss, during the last call of `train`.

    Raises:
        ConfigError: the API refuses the configuration, or it freezes every weight.
    """

    def __init__(self, config: Any, strategy: tf.distribute.Strategy | None = None) -> None:
        self.config = config
        self.strategy = strategy or tf.distribute.get_strategy()
        with self.strategy.scope():
            self.model = build_detection_model(config.model, is_training=True)
            create_variables(self.model, config.model)
            self.step_variable = tf.Variable(
                0,
                trainable=False,
                dtype=tf.int64,
                name="global_step",
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            with building("train_config.optimizer", "the optimizer"):
                self.optimizer, (rate,) = optimizer_builder.build(
                    config.train_config.optimizer, global_step=self.step_variable
                )
            if config.train_config.optimizer.use_moving_average:
                self.optimizer.shadow_copy(self.model)
            # Created ahead, so that the step is traced once and restoring a checkpoint finds the slots.
            self.optimizer._create_all_weights(self.model.trainable_variables)
        self._learning_rate: Callable[[], tf.Tensor] = rate if callable(rate) else lambda: rate
        self.variables = named_variables(self.model)
        self.trained_variables = variables_to_train(self.model.trainable_variables, config.train_config)
        self.bad_images: set[int] = set()
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

        A step with a non-finite loss or gradient is undone: the weights of the last snapshot are restored, and training
        continues with the next batch. The weights themselves are checked every `_SNAPSHOT_EVERY_STEPS` steps and at the
        end, because non-finite weights must get neither into a checkpoint nor into a version.

        Args:
            batches: an iterator over batches of `inputs.training_dataset`.
            steps: number of steps.
            on_step: callback after every step that was not undone at once.
            should_stop: polled between steps; True ends the call early.

        Raises:
            TrainingError: the loss or the weights stay non-finite, a step fails (out of memory, for example), or the
                batches end or cannot be read.
        """
        assert self._step_function is not None, "call trace() before train()"
        started, first = time.monotonic(), self.step
        self.bad_images.clear()
        guard, timed = _NonFiniteGuard(self), _TimedBatches(batches)
        losses: deque[float] = deque(maxlen=_RECENT_LOSSES)
        while True:
            while self.step < first + steps and not should_stop():
                report = self._take_step(timed, guard)
                if report is not None:
                    losses.append(report.loss)
                    on_step(report)
            if self.step == first or self.is_finite:
                break
            guard.undo()
        mean = sum(losses) / len(losses) if losses else None
        return TrainingResult(self.step - first, time.monotonic() - started, mean, timed.seconds)

    def _take_step(self, batches: Iterator[Batch], guard: _NonFiniteGuard) -> StepReport | None:
        features, labels = next(batches)
        try:
            outputs = {name: float(value) for name, value in self._step_function(features, labels).items()}
        except tf.errors.OpError as error:
            _log.info("step %d failed", self.step, exc_info=True)
            raise TrainingError(f"step {self.step} failed: {reason(error)}") from error
        gradient_norm = outputs.pop("gradient_norm")
        learning_rate = outputs.pop("learning_rate")
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

        The losses are divided by the number of replicas, so that their sum over replicas is the mean.
        """
        replicas = self.strategy.num_replicas_in_sync
        with learning_phase(training=True), tf.GradientTape() as tape:
            losses = {name: value / replicas for name, value in self._losses(features, labels).items()}
        variables = self.trained_variables
        gradients = tape.gradient(losses[_TOTAL_LOSS], variables)
        norm = tf.linalg.global_norm([gradient for gradient in gradients if gradient is not None])
        clip = self.config.train_config.gradient_clipping_by_norm
        if clip > 0:
            gradients, _ = tf.clip_by_global_norm(gradients, clip, use_norm=norm)
        rate = tf.cast(self._learning_rate(), tf.float32)
        self.optimizer.apply_gradients((g, v) for g, v in zip(gradients, variables, strict=True) if g is not None)
        self.step_variable.assign_add(1)
        return {**losses, "gradient_norm": norm / replicas, "learning_rate": rate / replicas}

    def _losses(self, features: dict[str, tf.Tensor], labels: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        unstacked = model_lib.unstack_batch(
            labels, unpad_groundtruth_tensors=self.config.train_config.unpad_groundtruth_tensors
        )
        step = tf.convert_to_tensor(self.step_variable)  # Keras would track a variable and save it with the model
        model_lib.provide_groundtruth(self.model, unstacked, training_step=step)
        fields = standard_fields.InputDataFields
        shapes = features[fields.true_image_shape]
        predictions = self.model.predict(features[fields.image], shapes, **self.model.get_side_inputs(features))
        losses = dict(self.model.loss(predictions, shapes))
        if self.config.train_config.add_regularization_loss:
            penalties = self.model.regularization_losses()
            if penalties:
                losses["Loss/regularization_loss"] = tf.add_n(penalties)
        losses[_TOTAL_LOSS] = tf.add_n(list(losses.values()))
        return losses


class _TimedBatches(Iterator[Batch]):
    """Yields the same batches, measures the time spent waiting for them, and raises TrainingError for their errors."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self.seconds = 0.0

    def __next__(self) -> Batch:
        started = time.monotonic()
        try:
            return next(self._batches)
        except StopIteration:
            raise TrainingError("there are no more examples to train on") from None
        except tf.errors.OpError as error:
            raise UnreadableBatchError(f"a batch of examples cannot be read: {error.message}") from error
        finally:
            self.seconds += time.monotonic() - started


class _NonFiniteGuard:
    """Takes snapshots of good weights during a call of `Trainer.train`, and restores them after a non-finite step.

    The snapshot includes the optimizer: its momentum slots keep a NaN forever.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._state = {**trainer.variables, **trainer.optimizer_variables()}
        self._good = snapshot(self._state)
        self._good_step = trainer.step
        self._since_snapshot = 0
        self._restores = 0

    def accept(self) -> bool:
        """Accept a step with a finite loss. Every `_SNAPSHOT_EVERY_STEPS` steps the weights are checked, too.

        Returns:
            False if the weights are not finite; the step is undone then.
        """
        self._since_snapshot += 1
        if self._since_snapshot >= _SNAPSHOT_EVERY_STEPS:
            if not self._trainer.is_finite:
                self.undo()
                return False
            self._good = snapshot(self._state)
            self._good_step = self._trainer.step
            self._since_snapshot = 0
            self._restores = 0
        return True

    def undo(self, features: Mapping[str, Any] | None = None) -> None:
        """Restore the last snapshot.

        Args:
            features: features of the batch that caused it; None if the batch is unknown.

        Raises:
            TrainingError: `_MAX_RESTORES` restores since the last snapshot.
        """
        step = self._trainer.step
        if features is not None:
            for buckets in self._trainer.strategy.experimental_local_results(features[odapi_inputs.HASH_KEY]):
                self._trainer.bad_images.update(int(bucket) for bucket in tf.reshape(buckets, [-1]).numpy())
        with self._trainer.strategy.scope():
            copy_weights(self._good, self._state)
            self._trainer.step_variable.assign(self._good_step)
        self._since_snapshot = 0
        self._restores += 1
        if self._restores >= _MAX_RESTORES:
            raise TrainingError(
                f"the loss or the weights were not finite {self._restores} times in less than {_SNAPSHOT_EVERY_STEPS} "
                f"steps, the last time at step {step}; the weights of step {self._good_step} are kept. Lower the "
                "learning rate, set gradient_clipping_by_norm, or look at the images that the log names"
            )


def image_bucket(image_id: str) -> int:
    """The number that identifies an image in a batch: the Object Detection API's input pipeline hashes the image id."""
    return int(tf.strings.to_hash_bucket_fast(image_id, odapi_inputs.HASH_BINS).numpy())


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
