"""Loss scaling, which training in float16 needs: most gradients would be zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from odkeras.config.devices import FLOAT16

_FIRST_SCALE = 2.0**15
LEAST_SCALE = 1.0  # an overflow with it has another reason
_GROWS_AFTER = 2000  # steps without an overflow, as in Keras' loss scaling


def make_loss_scale(precision: str) -> LossScale | None:
    """The scaling that a precision needs: float16 alone has too few exponents. Call it in the scope of the strategy."""
    return LossScale() if precision == FLOAT16 else None


class LossScale:
    """Scales the loss, so that small gradients are not zero in float16.

    An update whose gradients are not finite is skipped, and the scale halved; after `_GROWS_AFTER` steps without one it
    is doubled. The scale is not saved: after a restart, a few updates may be skipped until it fits again.
    """

    def __init__(self) -> None:
        first = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self._scale = tf.Variable(_FIRST_SCALE, trainable=False, name="loss_scale", aggregation=first)
        self._good_steps = tf.Variable(0, trainable=False, name="loss_scale_steps", aggregation=first)

    @property
    def value(self) -> tf.Tensor:
        """The factor of the loss, float32."""
        return tf.convert_to_tensor(self._scale)

    def update_if_finite(self, update: Callable[[Any], None], gradients: Sequence[tf.Tensor], norm: tf.Tensor) -> None:
        """Call `update` with the gradients if they are finite, and adapt the scale. In a replica of the step.

        Args:
            update: applies the gradients of a replica.
            gradients: summed over the replicas, without the scale.
            norm: their global norm.
        """
        finite = tf.math.is_finite(norm)
        tf.distribute.get_replica_context().merge_call(self._in_all_replicas, args=(update, gradients, finite))

    def _in_all_replicas(
        self, strategy: tf.distribute.Strategy, update: Callable[[Any], None], gradients: Any, finite: Any
    ) -> None:
        # The condition is outside the replicas: the optimizer leaves them to update the weights, which it cannot do
        # from within a condition.
        def apply() -> tf.Tensor:
            strategy.extended.call_for_each_replica(update, args=(gradients,))
            grows = self._good_steps + 1 >= _GROWS_AFTER
            self._scale.assign(tf.where(grows, self._scale * 2.0, self._scale), read_value=False)
            self._good_steps.assign(tf.where(grows, 0, self._good_steps + 1), read_value=False)
            return tf.constant(0)

        def skip() -> tf.Tensor:
            self._scale.assign(tf.maximum(self._scale / 2.0, LEAST_SCALE), read_value=False)
            self._good_steps.assign(0, read_value=False)
            return tf.constant(0)

        tf.cond(strategy.experimental_local_results(finite)[0], apply, skip)
