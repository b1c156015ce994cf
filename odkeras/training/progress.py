"""Progress reports and checkpoints during a round."""

from __future__ import annotations

import time

from odkeras.training.status import StatusFile
from odkeras.training.store import CheckpointStore
from odkeras.training.summaries import TrainingSummaries
from odkeras.training.trainer import StepReport


class RoundProgress:
    """Updates status.json and TensorBoard after each step of a round, and saves checkpoints periodically.

    Args:
        status: the trainer's status.json.
        summaries: the TensorBoard events.
        checkpoints: saves the checkpoints.
        last_step: global step at which the round ends.
        steps: number of steps that this call of `Trainer.train` takes.
        checkpoint_every_s: seconds between checkpoints. The caller saves one at the end of the round.
    """

    def __init__(
        self,
        status: StatusFile,
        summaries: TrainingSummaries,
        checkpoints: CheckpointStore,
        *,
        last_step: int,
        steps: int,
        checkpoint_every_s: float,
    ) -> None:
        self._status = status
        self._summaries = summaries
        self._checkpoints = checkpoints
        self._last_step = last_step
        self._steps = steps
        self._checkpoint_every_s = checkpoint_every_s
        self._saved_s = time.monotonic()

    def on_step(self, report: StepReport) -> None:
        """Callback for `Trainer.train`."""
        left = self._last_step - report.step
        self._status.update(step=report.step, round_step=self._steps - left, loss=report.loss)
        self._summaries.step(report)
        if left > 0 and time.monotonic() - self._saved_s > self._checkpoint_every_s:
            self._checkpoints.save_if_finite()
            self._saved_s = time.monotonic()
