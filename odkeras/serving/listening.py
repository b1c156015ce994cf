"""The common parts of our HTTP servers, the model server and the page: a listening socket, uvicorn, and signals."""

from __future__ import annotations

import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import uvicorn

from odkeras.errors import SetupError


def open_listener(host: str, port: int, *, option: str = "") -> socket.socket:
    """Open a listening socket.

    Args:
        host: host name, IPv4 or IPv6 address to bind to.
        port: 0 takes a free port.
        option: the command line option that sets the port, for the error message.

    Raises:
        SetupError: the port is taken or not allowed, or there is no such host.
    """
    where = f"port {port} of {host}"
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # Accepted connections inherit the option. asyncio sets it only for sockets that it opened itself.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            how = f"with {option}" if option else "port"
            what = f"is already in use; stop the program that has it, or choose another {how} (0 takes a free one)"
            raise SetupError(f"{where} {what}") from None
        raise SetupError(f"cannot listen on {where}: {error.strerror or error}") from None


class HttpServer(uvicorn.Server):
    """A uvicorn server that leaves signals to the caller, and has a callback for when it is ready.

    Args:
        app: the ASGI application.
        on_ready: called once, when the server answers requests; never if the application fails to start.
        grace_s: seconds that running requests have to finish after `stop`.
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
        """Make `run` return. Idempotent, thread-safe, and safe to call from a signal handler."""
        self.should_exit = True

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `stop`.

        Raises:
            SetupError: the application failed to start. uvicorn has logged the reason.
        """
        # Newer versions of uvicorn end the process if the application's lifespan fails to start; older ones return.
        with suppress(SystemExit):
            super().run(sockets)
        if not self.started:
            raise SetupError("the HTTP server could not start; see the error above")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # no uvicorn handlers: they re-raise the signal after shutdown, and the exit status would not be 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()


@contextmanager
def stop_signals(stop: Callable[[], None]) -> Iterator[None]:
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
