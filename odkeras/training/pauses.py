"""Where training is paused and stopped: between two steps, and between two rounds."""

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
    """Does what the control file says, and says so in status.json.

    Args:
        control: pause, resume and stop.
        status: of the trainer.
        should_stop: whether the process is to end, also out of a pause.

    Attributes:
        held_s: how long training was held between steps, in all.
    """

    def __init__(self, control: Control, status: StatusFile, should_stop: Callable[[], bool]) -> None:
        self._control = control
        self._status = status
        self._should_stop = should_stop
        self._before: Status | None = None
        self.held_s = 0.0

    def between_steps(self) -> bool:
        """Hold while training is paused; then whether no further step is to follow now."""
        if self._control.state == PAUSED and not self._should_stop():
            self._hold()
        return self._should_stop() or self._control.state == STOPPED

    @property
    def ends_round(self) -> bool:
        """Whether the round under way is to end where it is. The end of the process leaves it open instead."""
        return self._control.state == STOPPED and not self._should_stop()

    def between_rounds(self) -> bool:
        """Whether no round is to begin now."""
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
                self._status.write()  # it is alive
        self._status.update(state=before.state, reason=before.reason)
        self.held_s += time.monotonic() - started
