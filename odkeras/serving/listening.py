"""What our HTTP servers share: an open socket, uvicorn as we want it, signals that only set a flag."""

from __future__ import annotations

import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from odkeras.errors import SetupError


def open_listener(host: str, port: int, *, option: str = "") -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Args:
        option: the command line's option for the port, for the message.

    Raises:
        SetupError: the port is taken or not allowed, or there is no such host.
    """
    where = f"port {port} of {host}"
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio sets it on sockets of its own
        return listener
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            how = f"with {option}" if option else "port"
            what = f"is already in use; stop the program that has it, or choose another {how} (0 takes a free one)"
            raise SetupError(f"{where} {what}") from None
        raise SetupError(f"cannot listen on {where}: {error.strerror or error}") from None


class HttpServer(uvicorn.Server):
    """uvicorn, except that signals are the caller's, and that it tells when it listens.

    Args:
        app: the ASGI application.
        on_ready: called once, when requests are answered.
        grace_s: what running requests have to end, once asked to stop.
    """

    def __init__(self, app: object, on_ready: Callable[[], None], *, grace_s: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type]
                log_level="warning",
                access_log=False,
                server_header=False,
                ws="none",
                timeout_keep_alive=75,
                timeout_graceful_shutdown=grace_s,
            )
        )
        self._on_ready = on_ready

    def stop(self) -> None:
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # uvicorn's own would raise the signal again at the end, so that the exit status were not 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()


@contextmanager
def stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT only set a flag, in the main thread; elsewhere they are left alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
