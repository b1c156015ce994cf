"""What the trainer tells the world: status.json now, metrics.jsonl for each round, TensorBoard for people."""

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
    """Contents of status.json, beside `pid` and `updated` (seconds since the epoch).

    Args:
        state: starting, building, publishing, waiting, training, paused, stopped (no rounds until it is resumed),
            evaluating, failed or ended (the process has).
        reason: why, for a person.
        round: number of the round under way, or of the last one.
        step: global step.
        round_step: steps of this round taken.
        round_steps: steps of this round in all.
        loss: latest total loss.
        version: newest published version.
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
    """Keeps status.json up to date: every change of state at once, progress a few times a second.

    Args:
        path: status.json.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written_s = -1e9
        self.current = Status()

    def update(self, **changes: Any) -> None:
        """Change some fields of the status."""
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
        """Write status.json now; readers tell a live trainer by its age. A disk that is full is only logged."""
        content = {**asdict(self.current), "pid": os.getpid(), "updated": time.time()}
        self._written_s = time.monotonic()
        try:
            write_atomically(self._path, json.dumps(content))
        except OSError as error:  # a full disk must not end the training for the sake of a progress report
            _log.warning("%s cannot be written: %s", self._path, error.strerror or error)
