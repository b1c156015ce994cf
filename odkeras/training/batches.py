"""Batches of training examples."""

from __future__ import annotations

import time
from collections.abc import Iterator

import tensorflow as tf

from odkeras.errors import TrainingError, UnreadableBatchError
from odkeras.model.building import reason

Batch = tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]
"""Features and labels, as `inputs.training_dataset` describes them."""


class TimedBatches(Iterator[Batch]):
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
            raise UnreadableBatchError(f"a batch of examples cannot be read: {reason(error)}") from error
        finally:
            self.seconds += time.monotonic() - started
