"""The optimizer of a pipeline.config, for gradients that are summed over the replicas already."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf
from object_detection.builders import optimizer_builder

from odkeras.model.building import building


def build_optimizer(optimizer_config: Any, model: Any, step: tf.Variable) -> tuple[Any, Callable[[], tf.Tensor]]:
    """Build the optimizer with its slots for `model`. Call it in the scope of the strategy.

    Its `apply_gradients` takes the gradients as they are. By default Keras' optimizers sum them over the replicas
    first; the training step does that itself, because it clips the sum.

    Args:
        optimizer_config: `train_config.optimizer`.
        model: the built detection model.
        step: the global step, which the learning-rate schedule reads.

    Returns:
        The optimizer, and a function that returns the learning rate of the current step.

    Raises:
        ConfigError: the API refuses the configuration.
    """
    with building("train_config.optimizer", "the optimizer"):
        optimizer, (rate,) = optimizer_builder.build(optimizer_config, global_step=step)
    inner = optimizer
    if optimizer_config.use_moving_average:
        optimizer.shadow_copy(model)
        inner = optimizer._optimizer  # the wrapper's own apply_gradients lacks the argument
    inner.apply_gradients = partial(inner.apply_gradients, experimental_aggregate_gradients=False)
    # Created ahead, so that the step is traced once and restoring a checkpoint finds the slots.
    optimizer._create_all_weights(model.trainable_variables)
    return optimizer, rate if callable(rate) else lambda: rate
