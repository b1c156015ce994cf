"""The HTTP server that the model server and the page have in common."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import uvicorn

from odkeras.errors import SetupError


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
