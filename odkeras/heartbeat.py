"""A child process shows its parent that it does not hang: it writes a byte to a pipe every few seconds.

    child:  send_heartbeats(stalled_s=60)    # at its start, then report_progress() wherever its work advances
    parent: pipe = HeartbeatPipe()           # then Popen(..., env=pipe.env, pass_fds=[pipe.writing]), pipe.started()
            silent_s = pipe.silent_s(now)    # polled

A pipe, because a file has no heartbeat when the disk is full, and its time changes with the clock. The thread that
writes stops when the whole process does (SIGSTOP, swapping, a dead lock of the interpreter), and also when the work
has made no progress for `stalled_s`: a read that never returns, a dead lock inside TensorFlow.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

_FD_VARIABLE = "ODKERAS_HEARTBEAT_FD"
_EVERY_S = 2.0
_GAP_S = 10.0
_BUSY_S = 1800.0

_progress_at = 0.0
_busy_since: dict[object, float] = {}


def report_progress() -> None:
    """The work of this process has advanced. Cheap; without effect in a process that sends no heartbeats."""
    global _progress_at
    _progress_at = time.monotonic()


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """A piece of work, of any thread, that must end within half an hour."""
    token = object()
    _busy_since[token] = time.monotonic()
    try:
        yield
    finally:
        del _busy_since[token]


def send_heartbeats(stalled_s: float) -> None:
    """Send heartbeats from now on, if the parent process listens to them.

    Args:
        stalled_s: without `report_progress` for so long, no heartbeat is sent.
    """
    descriptor = os.environ.pop(_FD_VARIABLE, "")  # children of this process must not inherit it
    if not descriptor.isdecimal():
        return
    with suppress(OSError):
        os.set_inheritable(int(descriptor), False)
        os.set_blocking(int(descriptor), False)
        report_progress()
        threading.Thread(target=_send, args=(int(descriptor), stalled_s), name="heartbeat", daemon=True).start()


def _send(descriptor: int, stalled_s: float) -> None:
    while True:
        now = time.monotonic()
        if now - _progress_at < stalled_s and all(now - since < _BUSY_S for since in list(_busy_since.values())):
            try:
                os.write(descriptor, b".")
            except BlockingIOError:  # the parent does not read now
                pass
            except OSError:  # the parent is dead
                os.close(descriptor)
                return
        time.sleep(_EVERY_S)


class HeartbeatPipe:
    """The parent's side. Not thread-safe. Call `started` once the child is running, and `close` at the end.

    Attributes:
        writing: file descriptor that the child inherits.
    """

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._last_at = self._polled_at = time.monotonic()
        self.has_beaten = False

    @property
    def env(self) -> dict[str, str]:
        """The variable that tells the child its file descriptor."""
        return {_FD_VARIABLE: str(self.writing)}

    def started(self) -> None:
        """The child has inherited its end; close ours. Idempotent."""
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def silent_s(self, now: float) -> float:
        """Seconds since the last heartbeat, or since the start. Polled often: a gap between two polls, in which this
        process itself was suspended, does not count."""
        if now - self._polled_at > _GAP_S:
            self._last_at += now - self._polled_at
        self._polled_at = now
        with suppress(OSError):
            if os.read(self._reading, 4096):
                self.has_beaten, self._last_at = True, now
        return max(0.0, now - self._last_at)

    def close(self) -> None:
        """Close both ends. Idempotent."""
        self.started()
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1
