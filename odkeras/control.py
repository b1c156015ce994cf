"""Pause, resume and stop training by a file in the model directory, which the trainer polls between steps.

    Control(project.control_path).set("pause")       # from any machine that can write to the directory

running   training rounds run as answers arrive.
paused    the trainer waits between two steps; on resume it continues with the next step.
stopped   the current round ends at its current step and is published; no new round starts.

The state persists across restarts of the trainer.
"""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from odkeras.errors import ConfigError, SetupError
from odkeras.project import read_status, write_atomically

TrainingState = Literal["running", "paused", "stopped"]
TrainingAction = Literal["pause", "resume", "stop"]
RUNNING: Final = "running"
PAUSED: Final = "paused"
STOPPED: Final = "stopped"
_ACTIONS: dict[TrainingAction, TrainingState] = {"pause": PAUSED, "resume": RUNNING, "stop": STOPPED}
_LOOK_EVERY_S = 0.05


class Control:
    """One control file. Thread-safe.

    Args:
        path: the control file; while it does not exist, the state is "running".
        clock: monotonic time in seconds; tests replace it.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._looked_at = -1e9
        self._seen: tuple[int, int, int] | None = None
        self._state: TrainingState = RUNNING
        self._lock = threading.Lock()

    def check_running(self, project: Path, what: str) -> None:
        """Check that training is neither paused nor stopped.

        Args:
            project: the project directory, for the message.
            what: the consequence to name in the message, for example "`--once` would ...".

        Raises:
            ConfigError: training is paused or stopped.
        """
        if (state := self.state) == RUNNING:
            return
        model_dir = self._path.parent
        named = "" if model_dir == project / "model" else f" --model-dir {shlex.quote(str(model_dir))}"
        raise ConfigError(
            f"training is {state}, and {what}: `odkeras training resume {shlex.quote(str(project))}{named}`"
        )

    @property
    def state(self) -> TrainingState:
        """The state: "running", "paused" or "stopped". Cheap enough for every training step: the file is
        polled at most every 50 ms and read only if its inode, size or modification time changed."""
        with self._lock:
            now = self._clock()
            if now - self._looked_at >= _LOOK_EVERY_S:
                self._looked_at = now
                self._look()
            return self._state

    def set(self, action: TrainingAction) -> TrainingState:
        """Write a new state and return it.

        Args:
            action: "pause", "resume" or "stop".

        Raises:
            KeyError: any other action.
            SetupError: the file cannot be written.
        """
        state = _ACTIONS[action]
        try:
            write_atomically(self._path, json.dumps({"state": state, "changed": time.time()}) + "\n")
        except OSError as error:
            raise SetupError(f"cannot {action} training: {self._path}: {error.strerror or error}") from error
        with self._lock:
            self._looked_at = -1e9
        return state

    def _look(self) -> None:
        try:
            stat = self._path.stat()
        except OSError:
            self._seen, self._state = None, RUNNING
            return
        seen = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if seen != self._seen:
            written = (read_status(self._path) or {}).get("state")
            self._seen = seen
            self._state = next((state for state in _ACTIONS.values() if state == written), RUNNING)
