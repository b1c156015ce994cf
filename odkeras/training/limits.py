"""Limits of the training load, for batteries and shared machines."""

from __future__ import annotations

import time
from collections.abc import Callable

from odkeras.config.settings import TrainingSettings


class LoadLimits:
    """Computes how long training must rest between two steps.

    Args:
        share: maximum share of the time that steps may take, 0 < share <= 1; 1 = no limit.
        steps_per_hour: maximum number of steps per hour; 0 = no limit.
        clock: monotonic clock, for tests.
    """

    def __init__(
        self, share: float = 1.0, steps_per_hour: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._share = share
        self._interval_s = 3600 / steps_per_hour if steps_per_hour else 0.0
        self._clock = clock
        self._step_started = -float("inf")
        self._in_step = False
        self._texts = (
            f"at most {share:.0%} of the time" if share < 1 else "",
            f"at most {steps_per_hour} steps per hour" if steps_per_hour else "",
        )

    @classmethod
    def of(cls, settings: TrainingSettings) -> LoadLimits:
        return cls(settings.training_share, settings.steps_per_hour)

    def add_to(self, *reasons: str) -> str:
        """Explain a state of the trainer by these reasons and the limits; empty reasons are left out."""
        return "; ".join(filter(None, (*reasons, *self._texts)))

    def begin(self) -> None:
        """Training starts or continues: the time before is not the time of a step."""
        self._in_step = False

    def next_step_at(self) -> float:
        """The time on the clock from which the next step may start. Call it between two steps, when one has ended."""
        rest_s = 0.0
        if self._in_step:
            step_s = self._clock() - self._step_started
            rest_s = step_s * (1 / self._share - 1)
        return max(self._clock() + rest_s, self._step_started + self._interval_s)

    def step_starts(self) -> None:
        self._step_started = self._clock()
        self._in_step = True
