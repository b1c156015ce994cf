"""Pauses and stops training on request, between two steps or between two rounds."""

from __future__ import annotations

import time
from collections.abc import Callable

from odkeras.control import PAUSED, RUNNING, STOPPED, Control
from odkeras.training.status import Status, StatusFile

_POLL_S = 0.1
_BEAT_S = 2.0
_BETWEEN_ROUNDS = {
    PAUSED: "paused; new answers wait",
    STOPPED: "training is stopped; new answers wait until it is resumed",
}


class Pauses:
    """Carries out the requests of the control file and reports them in status.json.

    Args:
        control: the control file.
        status: the trainer's status.json.
        should_stop: polled; returns True when the process must exit, which also ends a pause.

    Attributes:
        held_s: total seconds that training was paused between steps.
    """

    def __init__(self, control: Control, status: StatusFile, should_stop: Callable[[], bool]) -> None:
        self._control = control
        self._status = status
        self._should_stop = should_stop
        self._before: Status | None = None
        self.held_s = 0.0

    def between_steps(self) -> bool:
        """Block while training is paused. Returns True if training must not take another step now."""
        if self._control.state == PAUSED and not self._should_stop():
            self._hold()
        return self._should_stop() or self._control.state == STOPPED

    @property
    def ends_round(self) -> bool:
        """Whether the current round ends at this step. False when the process exits: the next start resumes the
        round."""
        return self._control.state == STOPPED and not self._should_stop()

    def between_rounds(self) -> bool:
        """Returns True if no round may start now. Never blocks."""
        state = self._control.state
        if state == RUNNING:
            self._go_on()
        elif self._before is None or self._status.current.state != state:
            self._before = self._before or self._status.current
            self._status.update(state=state, reason=_BETWEEN_ROUNDS[state], round_step=0, round_steps=0)
        return state != RUNNING

    def _go_on(self) -> None:
        if self._before is not None:
            self._status.update(state=self._before.state, reason=self._before.reason)
            self._before = None

    def _hold(self) -> None:
        before, started = self._status.current, time.monotonic()
        where = f"at step {before.round_step} of {before.round_steps}"
        self._status.update(state=PAUSED, reason=f"paused in round {before.round}, {where}")
        beat_at = started
        while self._control.state == PAUSED and not self._should_stop():
            time.sleep(_POLL_S)
            if time.monotonic() - beat_at >= _BEAT_S:
                beat_at = time.monotonic()
                self._status.write()  # heartbeat: readers take an old status.json for a dead trainer
        self._status.update(state=before.state, reason=before.reason)
        self.held_s += time.monotonic() - started
