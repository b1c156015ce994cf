"""Runs a program that must exit with its parent: `python -m odkeras.session.exit_with_parent PROGRAM [ARGUMENT ...]`.

It is for programs that lack `--stop-on-stdin-eof`, such as `tensorflow_model_server`. It ends the program on SIGTERM,
on SIGINT and when stdin closes, and exits with the program's exit status.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from odkeras.process import stop_with_parent

STOP_TIMEOUT_S = 2.5


def exit_with_parent(command: Sequence[str]) -> list[str]:
    """The command that runs `command` under this module."""
    return [sys.executable, "-m", "odkeras.session.exit_with_parent", *command]


def run_until_parent_exits(command: Sequence[str], stdin_fd: int = 0) -> int:
    """Run the program and return its exit status; 128 + the signal number if a signal ended it.

    Args:
        command: program and arguments.
        stdin_fd: file descriptor whose end-of-file ends the program.
    """
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _stop(process))
    stop_with_parent(lambda: _stop(process), stdin_fd)
    status = process.wait()
    return status if status >= 0 else 128 - status


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    killer = threading.Timer(STOP_TIMEOUT_S, process.kill)
    killer.daemon = True
    killer.start()


if __name__ == "__main__":
    sys.exit(run_until_parent_exits(sys.argv[1:]))
