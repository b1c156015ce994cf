"""What our processes have in common: listening sockets, the signals that stop them, and their end."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from odkeras.errors import SetupError

_BACKLOG = 2048
_SECOND_SIGNAL_S = 1.0  # `timeout` sends its signal to the process and to its group


def open_listener(host: str, port: int, *, option: str = "") -> socket.socket:
    """Open a listening socket.

    A server process may inherit it, and a restarted server uses it again. Connections made while no server is running
    wait in the backlog, so clients need a timeout.

    Args:
        host: host name, IPv4 or IPv6 address to bind to. "::" accepts IPv4 connections, too, where the system can.
        port: 0 takes a free port.
        option: the command line option that sets the port, for the error message.

    Raises:
        SetupError: the port is taken or not allowed, or there is no such host.
    """
    where = f"port {port} of {host}"
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        dual_stack = host == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=dual_stack)
        # Accepted connections inherit the option. asyncio sets it only for sockets that it opened itself.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            how = f"with {option}" if option else "port"
            what = f"is already in use; stop the program that uses it, or choose another {how} (0 selects a free one)"
            raise SetupError(f"{where} {what}") from None
        raise SetupError(f"cannot listen on {where}: {error.strerror or error}") from None
    except OverflowError as error:
        raise SetupError(f"cannot listen on {where}: {error}") from None


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM and SIGINT within the block. No effect outside the main thread: Python allows signal
    handlers only there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def default_signals() -> Iterator[None]:
    """SIGTERM and SIGINT end the process at once within the block: Python's handlers do not run while a call into
    TensorFlow waits, and there is nothing to lose. No effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def exit_on_second_signal() -> Iterator[None]:
    """End the process at once at a second SIGTERM or SIGINT within the block, at least `_SECOND_SIGNAL_S` after the
    first.

    The first one is for the handlers of `stop_on_signals`. Python runs them between two of its own instructions: not
    while the main thread waits inside TensorFlow for a batch that never comes. No effect outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # written to by the C handler, at any time
    threading.Thread(target=_exit_on_second_signal, args=(reading,), name="signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)  # ends the thread


def _exit_on_second_signal(reading: int) -> None:
    first_at: float | None = None
    while numbers := os.read(reading, 64):
        for number in numbers:
            now = time.monotonic()
            if number in (signal.SIGTERM, signal.SIGINT):
                first_at = first_at or now
                if now - first_at >= _SECOND_SIGNAL_S:
                    os._exit(128 + number)
    os.close(reading)


def stop_with_parent(stop: Callable[[], None], stdin_fd: int = 0) -> None:
    """Call `stop`, from another thread, when standard input closes.

    The parent process holds the other end of the pipe. The system closes it when the parent exits, even by SIGKILL.
    """

    def wait() -> None:
        with suppress(OSError):
            # Not `sys.stdin.read()`: it holds a lock while it blocks, and the interpreter needs that lock to exit.
            while os.read(stdin_fd, 1024):
                pass
        stop()

    threading.Thread(target=wait, name="stdin", daemon=True).start()


@contextmanager
def exit_with_parent(stop: Callable[[], None], stdin_fd: int, after_s: float) -> Iterator[None]:
    """`stop_with_parent`; and if the block has not ended `after_s` later, the process exits with status 1."""
    ended = threading.Event()

    def stop_or_exit() -> None:
        stop()
        if not ended.wait(after_s):
            os._exit(1)

    stop_with_parent(stop_or_exit, stdin_fd)
    try:
        yield
    finally:
        ended.set()


def exit_despite_threads(threads: Iterable[threading.Thread], wait_s: float) -> None:
    """Exit with status 0 at once if one of these threads is still running after `wait_s`; otherwise return.

    A thread that waits for a silent server or runs inside TensorFlow cannot be stopped, and a normal exit would wait
    for it. No effect outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    threads, deadline = list(threads), time.monotonic() + wait_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
