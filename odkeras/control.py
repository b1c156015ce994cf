"""Pause, resume and stop of training: a file in the model directory, which the trainer looks at between its steps.

    Control(project.control_path).set("pause")       # from any machine that sees the directory

running   rounds of training follow one another as answers come.
paused    the trainer holds between two steps, and goes on from there.
stopped   the round under way ends where it is, is published, and no other one begins.

What was set stays, also over a restart of the trainer.
"""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path

from odkeras.errors import ConfigError, SetupError
from odkeras.project import read_status, write_atomically

RUNNING, PAUSED, STOPPED = "running", "paused", "stopped"
ACTIONS = {"pause": PAUSED, "resume": RUNNING, "stop": STOPPED}
_LOOK_EVERY_S = 0.05


class Control:
    """One control file. May be used by several threads.

    Args:
        path: of it; without a file training runs.
        clock: for tests.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._looked_at = -1e9
        self._seen: tuple[int, int, int] | None = None
        self._state = RUNNING
        self._lock = threading.Lock()

    def check_running(self, project: Path, what: str) -> None:
        """See that training is neither paused nor stopped.

        Args:
            project: its folder, for the message.
            what: what would not happen: "`--once` would ...".

        Raises:
            ConfigError: it is.
        """
        if (state := self.state) == RUNNING:
            return
        model_dir = self._path.parent
        named = "" if model_dir == project / "model" else f" --model-dir {shlex.quote(str(model_dir))}"
        raise ConfigError(
            f"training is {state}, and {what}: `odkeras training resume {shlex.quote(str(project))}{named}`"
        )

    @property
    def state(self) -> str:
        """running, paused or stopped. Cheap: the file is looked at a few times a second, and read when it is another
        one."""
        with self._lock:
            now = self._clock()
            if now - self._looked_at >= _LOOK_EVERY_S:
                self._looked_at = now
                self._look()
            return self._state

    def set(self, action: str) -> str:
        """`pause`, `resume` or `stop`; returns the state that this leads to.

        Raises:
            KeyError: another action.
            SetupError: the file cannot be written.
        """
        state = ACTIONS[action]
        try:
            write_atomically(self._path, json.dumps({"state": state, "changed": time.time()}) + "\n")
        except OSError as error:
            raise SetupError(f"cannot {action} training: {self._path}: {error.strerror or error}") from error
        with self._lock:
            self._looked_at = -1e9
        return state

    def _look(self) -> None:
        try:
            found = self._path.stat()
        except OSError:
            self._seen, self._state = None, RUNNING
            return
        seen = (found.st_ino, found.st_size, found.st_mtime_ns)
        if seen != self._seen:
            said = str((read_status(self._path) or {}).get("state"))
            self._seen, self._state = seen, said if said in ACTIONS.values() else RUNNING
