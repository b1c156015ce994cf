"""Mixed precision: layers compute in 16 bits, and weights, losses and updates stay in 32 bits.

The weights are float32 in every precision. So checkpoints can be continued in another one, and versions are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from odkeras.config.devices import FLOAT32


@contextmanager
def layers_compute_in(precision: str) -> Iterator[None]:
    """Layers that are made within the block compute in this precision, and keep their weights in float32.

    Args:
        precision: one of `PRECISIONS`.
    """
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(FLOAT32 if precision == FLOAT32 else f"mixed_{precision}")
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


def in_float32(predictions: Any) -> Any:
    """The predictions of a model, whatever it computes in, for the loss."""

    def cast(value: Any) -> Any:
        is_short = isinstance(value, tf.Tensor) and value.dtype in (tf.float16, tf.bfloat16)
        return tf.cast(value, tf.float32) if is_short else value

    return tf.nest.map_structure(cast, predictions)
