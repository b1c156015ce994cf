"""Starts `odkeras annotate` by forking a process that has imported everything.

A fresh interpreter takes one to two seconds to import what the command needs, and most browser tests start one.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

RUN_PAGE = Path(__file__).with_name("run_page.py")


class Forked:
    """A process, with the part of `subprocess.Popen` that the tests use."""

    def __init__(self, zygote: Zygote, pid: int, stdout: IO[str]) -> None:
        self.pid, self.stdout = pid, stdout
        self._zygote = zygote

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout_s: float) -> int:
        return self._zygote.ask({"wait": self.pid}, timeout_s)


class Zygote:
    """`run_page.py --zygote`, which forks a process for each `start`."""

    def __init__(self) -> None:
        self._connection, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, str(RUN_PAGE), "--zygote", str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

    def start(self, arguments: Sequence[str], directory: Path, env: Mapping[str, str]) -> Forked:
        ours, theirs = os.pipe()
        start = {"arguments": list(arguments), "directory": str(directory), "env": dict(env)}
        try:
            pid = self.ask({"start": start}, 60.0, theirs)
        finally:
            os.close(theirs)
        return Forked(self, pid, os.fdopen(ours, encoding="utf-8"))

    def ask(self, request: dict[str, Any], timeout_s: float, *descriptors: int) -> int:
        """The process id, or the exit status, that the request is answered with.

        Raises:
            TimeoutError: the reply did not come in time.
        """
        self._connection.settimeout(timeout_s)
        socket.send_fds(self._connection, [json.dumps(request).encode() + b"\n"], descriptors)
        return int(self._connection.recv(64))


@functools.cache
def zygote() -> Zygote:
    """The one of this test process; it ends when this process does."""
    return Zygote()
