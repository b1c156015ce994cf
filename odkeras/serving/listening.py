"""The HTTP server that the model server and the page have in common."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from odkeras.errors import SetupError
from odkeras.heartbeat import report_progress
from odkeras.serving.connection_limits import ConnectionLimits, LimitedConnections, quiet_logs
from odkeras.serving.refused_limits import DelayRefused

_BACKLOG = 1024
_ACCEPTED_AT_ONCE = 2  # in one turn of the event loop: each, with its request, holds up the others for some 1 ms


@dataclass(frozen=True)
class Tls:
    """The certificate of a server.

    Args:
        certificate: PEM file with the certificate and those that it depends on.
        key: PEM file with its private key; None if that is in the same file.
    """

    certificate: Path
    key: Path | None = None

    def check(self) -> None:
        """
        Raises:
            SetupError: a file cannot be read, or they do not fit together.
        """
        try:
            # A key with a password would be asked for on the terminal, by OpenSSL.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key, password="")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, FileNotFoundError) else str(error)
            raise SetupError(
                f"--tls-cert {self.certificate}, --tls-key {self.key or self.certificate}: cannot be used: {reason}"
            ) from error


class HttpServer(uvicorn.Server):
    """A uvicorn server that leaves signals to the caller, and has a callback for when it is ready.

    Args:
        app: the ASGI application.
        on_ready: called once, when the server answers requests; never if the application fails to start.
        grace_s: seconds that running requests have to finish after `stop`.
        limits: of the connections; None for those that fit this process.
        tls: certificate and private key, for https; None serves http.

    Raises:
        SetupError: the certificate cannot be used.
    """

    def __init__(
        self,
        app: ASGIApp,
        on_ready: Callable[[], None],
        *,
        grace_s: int,
        limits: ConnectionLimits | None = None,
        tls: Tls | None = None,
    ) -> None:
        if tls is not None:
            tls.check()
        self.connections = LimitedConnections(limits or ConnectionLimits.of_process())
        super().__init__(
            uvicorn.Config(
                DelayRefused(app, self.connections.refused),
                log_level="warning",
                access_log=False,
                server_header=False,
                ws="none",
                http=self.connections.protocol(),
                backlog=_ACCEPTED_AT_ONCE,
                timeout_keep_alive=75,
                ssl_certfile=tls.certificate if tls is not None else None,
                ssl_keyfile=tls.key if tls is not None else None,
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
        with suppress(SystemExit), quiet_logs():
            super().run(sockets)
        if not self.started:
            raise SetupError("the HTTP server could not start; see the error above")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # no uvicorn handlers: they re-raise the signal after shutdown, and the exit status would not be 0

    async def on_tick(self, counter: int) -> bool:
        report_progress()
        self.connections.close_slow(time.monotonic())
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(_BACKLOG)  # asyncio has one number for both, and has used it for this one too
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.connections.refused.stop()
        await super().shutdown(sockets)
