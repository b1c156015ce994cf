"""status.json: the current state of the trainer, for other processes. (metrics.jsonl has the history.)"""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from odkeras.project import write_atomically

_log = logging.getLogger(__name__)

_MIN_INTERVAL_S = 0.3


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
        before = self.current
        self.current = replace(before, **changes)
        changed = (before.state, before.reason, before.version) != (
            self.current.state,
            self.current.reason,
            self.current.version,
        )
        if changed or time.monotonic() - self._written_s >= _MIN_INTERVAL_S:
            self.write()

    def write(self) -> None:
        """Write status.json now; readers detect a dead trainer by the file's age. Write errors are only logged."""
        content = {**asdict(self.current), "pid": os.getpid(), "updated": time.time()}
        self._written_s = time.monotonic()
        try:
            write_atomically(self._path, json.dumps(content))
        except OSError as error:  # a full disk must not end the training just because of a progress report
            _log.warning("%s cannot be written: %s", self._path, error.strerror or error)
