"""The files through which the trainer and other processes talk.

status.json has the current state of the trainer, metrics.jsonl its history. Through control.json (see
`odkeras.control`) other processes pause and stop the training.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from odkeras.control import PAUSED, RUNNING, STOPPED, Control
from odkeras.heartbeat import report_progress
from odkeras.project import append_jsonl, read_jsonl, write_atomically
from odkeras.training.limits import LoadLimits

_log = logging.getLogger(__name__)

_MIN_INTERVAL_S = 0.3
_POLL_S = 0.1
_HEARTBEAT_S = 2.0
_BETWEEN_ROUNDS = {
    PAUSED: "paused; new answers wait",
    STOPPED: "training is stopped; new answers wait until it is resumed",
}


@dataclass(frozen=True)
class Status:
    """The content of status.json, except `pid` and `updated` (seconds since the epoch).

    Args:
        state: starting, building, publishing, waiting, training, evaluating, paused (between two steps or rounds),
            stopped (no rounds until training is resumed), failed or ended (the process has exited).
        reason: explanation of the state for the user.
        round: number of the current round, or of the last one; 0 before the first.
        step: global step.
        round_step: steps taken in this round; 0 between rounds.
        round_steps: total steps of this round; 0 between rounds.
        loss: total loss of the last step; None before the first.
        version: newest version; None before the first.
    """

    state: str = "starting"
    reason: str = ""
    round: int = 0
    step: int = 0
    round_step: int = 0
    round_steps: int = 0
    loss: float | None = None
    version: int | None = None


class StatusFile:
    """Writes status.json: changes of state, reason or version at once, progress at most every 0.3 s.

    Args:
        path: status.json.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written_s = -1e9
        self.current = Status()

    def update(self, **changes: Any) -> None:
        """Change fields of `Status`, given by name."""
        report_progress()
        before = self.current
        self.current = replace(before, **changes)
        changed = any(getattr(before, name) != getattr(self.current, name) for name in ("state", "reason", "version"))
        if changed or time.monotonic() - self._written_s >= _MIN_INTERVAL_S:
            self.write()

    def write(self) -> None:
        """Write status.json now; readers detect a dead trainer by the file's age. Write errors are only logged."""
        content = {**asdict(self.current), "pid": os.getpid(), "updated": time.time()}
        self._written_s = time.monotonic()
        report_progress()
        try:
            write_atomically(self._path, json.dumps(content))
        except OSError as error:  # a full disk must not end the training just because of a progress report
            _log.warning("%s cannot be written: %s", self._path, error.strerror or error)


class MetricsLog:
    """Reads and appends to metrics.jsonl: rounds, evaluations and deletions, one JSON object per line.

    Args:
        path: the file; created by the first line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Add a line and return it. `kind` is "round", "extra" (steps after a round), "evaluation" or "garbage"
        (deleted versions and records)."""
        row = {"kind": kind, **values, "time": time.time()}
        append_jsonl(self._path, [row])
        return row

    def rounds(self) -> list[dict[str, Any]]:
        """The lines of kind "round", oldest first."""
        return [row for row in read_jsonl(self._path) if row.get("kind") == "round"]

    def last_round(self) -> int:
        """The highest round number in the log; 0 before the first round."""
        return max([0, *(int(row["round"]) for row in self.rounds())])

    def last_outcome(self) -> str:
        """Outcome of the last round or of the extra steps after it; "" before the first. Lines of odkeras 0.1 have no
        "outcome"."""
        rows = [row for row in read_jsonl(self._path) if row.get("kind") in ("round", "extra")]
        if not rows:
            return ""
        return str(rows[-1].get("outcome") or ("failed" if rows[-1].get("failed") else "published"))


class Pauses:
    """Carries out the requests of the control file and reports them in status.json.

    Args:
        control: the control file.
        status: the trainer's status.json.
        should_stop: polled; returns True when the process must exit, which also ends a pause.
        limits: how long training rests between steps; None for no limits.
        obstacle: polled; returns why no round may start now, "" if one may.
        on_wait: called every few seconds while training is paused, or rests, between steps.

    Attributes:
        paused_s: total seconds that training was paused, or rested, between steps.
    """

    def __init__(
        self,
        control: Control,
        status: StatusFile,
        should_stop: Callable[[], bool],
        limits: LoadLimits | None = None,
        obstacle: Callable[[], str] = lambda: "",
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        self._control = control
        self._status = status
        self._should_stop = should_stop
        self._limits = limits or LoadLimits()
        self._obstacle = obstacle
        self._on_wait = on_wait
        self._before: Status | None = None
        self.paused_s = 0.0

    def before_first_step(self) -> None:
        """Training begins; the limits do not count the time before."""
        self._limits.begin()

    def between_steps(self, should_end: Callable[[], bool] = lambda: False) -> bool:
        """Block while training is paused or must rest. Returns True if training must not take another step now.

        Args:
            should_end: polled; True ends a rest, too.
        """
        if (until := self._limits.next_step_at()) > time.monotonic():
            self._block_while(lambda: self._control.state == RUNNING and not should_end(), until)
        if self._control.state == PAUSED and not self._should_stop():
            self._wait()
        self._limits.step_starts()
        return self._should_stop() or self._control.state == STOPPED or should_end()

    @property
    def ends_round(self) -> bool:
        """Whether the current round ends at this step. False when the process exits: the next start resumes the
        round."""
        return self._control.state == STOPPED and not self._should_stop()

    def between_rounds(self) -> bool:
        """Returns True if no round may start now. Never blocks."""
        state = self._control.state
        reason = _BETWEEN_ROUNDS.get(state) or self._obstacle()
        if not reason:
            if self._before is not None:
                self._status.update(state=self._before.state, reason=self._before.reason)
                self._before = None
            return False
        shown = "waiting" if state == RUNNING else state
        if self._before is None or self._status.current.state != shown:
            self._before = self._before or self._status.current
            self._status.update(state=shown, reason=reason, round_step=0, round_steps=0)
        return True

    def _wait(self) -> None:
        before = self._status.current
        where = f"at step {before.round_step} of {before.round_steps}"
        self._status.update(state=PAUSED, reason=f"paused in round {before.round}, {where}")
        self._block_while(lambda: self._control.state == PAUSED)
        self._status.update(state=before.state, reason=before.reason)

    def _block_while(self, blocked: Callable[[], bool], until: float = math.inf) -> None:
        """Block while `blocked`, until a time of the monotonic clock at most. The end of the process ends it, too."""
        started = written = time.monotonic()
        while (left_s := until - time.monotonic()) > 0 and blocked() and not self._should_stop():
            time.sleep(min(_POLL_S, left_s))
            if time.monotonic() - written >= _HEARTBEAT_S:
                written = time.monotonic()
                self._on_wait()
                self._status.write()  # heartbeat: readers take an old status.json for a dead trainer
        self.paused_s += time.monotonic() - started
