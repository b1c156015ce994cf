"""Runs TensorBoard beside the page, started on first use."""

from __future__ import annotations

import socket
import sys
import threading
import time
from pathlib import Path

from odkeras.errors import OdkerasError, SetupError
from odkeras.process import open_listener
from odkeras.session.exit_with_parent import exit_with_parent
from odkeras.session.supervisor import ChildSpec, Supervisor

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
FIRST_DASHBOARD = "custom_scalars"
"""The dashboard that shows the charts in the order of `training.tensorboard`."""


class TensorBoard:
    """Owns a TensorBoard process. `close` ends it and is idempotent.

    Args:
        logdir: the model directory.
        log_path: file for TensorBoard's output.
    """

    def __init__(self, logdir: Path, log_path: Path) -> None:
        self.logdir = logdir
        self._log_path = log_path
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._supervisor: Supervisor | None = None
        self._url = ""

    @property
    def command(self) -> str:
        """The shell command that starts the same TensorBoard."""
        return f"tensorboard --logdir {self.logdir}"

    def url(self) -> str:
        """The URL. Starts TensorBoard if necessary and waits until it accepts connections.

        Raises:
            SetupError: it cannot be started, or accepts no connection within `START_TIMEOUT_S`.
        """
        with self._lock:
            if self._supervisor is None or self._supervisor.failure() is not None:
                self._stop()
                self._start()
            return self._url

    def close(self) -> None:
        self._closing.set()  # first: a thread that waits in `url` holds the lock until it sees this
        with self._lock:
            self._stop()

    def _start(self) -> None:
        with open_listener(HOST, 0) as bound:
            port = bound.getsockname()[1]
        program = [sys.executable, "-m", "tensorboard.main", "--logdir", str(self.logdir)]
        command = exit_with_parent([*program, "--host", HOST, "--port", str(port), "--reload_interval", "5"])
        spec = ChildSpec("tensorboard", tuple(command), self._log_path, error=SetupError)
        self._supervisor = Supervisor([spec], stop_timeout_s=1.0)
        try:
            self._supervisor.__enter__()
            self._wait_for(port)
        except OdkerasError:
            self._stop()
            raise
        self._url = f"http://{HOST}:{port}/#{FIRST_DASHBOARD}"

    def _wait_for(self, port: int) -> None:
        assert self._supervisor is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if failure := self._supervisor.failure():
                raise failure
            if self._closing.is_set():
                break
            try:
                socket.create_connection((HOST, port), timeout=1.0).close()
                return
            except OSError:
                time.sleep(0.1)
        raise SetupError(f"TensorBoard does not answer after {START_TIMEOUT_S:g} s; see {self._log_path}")

    def _stop(self) -> None:
        if self._supervisor is not None:
            self._supervisor.close()
            self._supervisor = None
