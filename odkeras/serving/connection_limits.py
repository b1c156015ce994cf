"""Limits on the connections of our HTTP servers: how many there are, and how long a request may take to arrive.

uvicorn closes a connection that is idle after a request, but not one on which no request was ever sent. As many of
those as the process may have files would block the server for everybody, without a token.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from odkeras.serving.refused_limits import RefusedLimits

log = logging.getLogger(__name__)

WANTED_FILES = 8192
_OTHER_FILES = 256  # files, databases and sockets of clients, and what is accepted in one turn of the event loop
_MAX_CONNECTIONS = 4096
_DEFAULT_FILES = 1024
_REPEATED_AFTER_S = 60.0
_LOOK_EVERY_S = 1.0
_CLOSED_AT_ONCE = 32  # closing a thousand connections, which then connect again, would hold up requests for 100 ms


@dataclass(frozen=True)
class ConnectionLimits:
    """How many connections there may be, and how long a request may take to arrive.

    Args:
        connections: maximum in all. For another one, the one that is idle for the longest time is closed.
        of_client: maximum of one address. Everybody behind a proxy has the same one, so it is not small.
        head_s: seconds from the first byte (or from the connection) to the end of the headers.
        body_s: seconds that a request's body may take, and
        body_bytes_per_s: a second more for so many bytes.
    """

    connections: int = _MAX_CONNECTIONS
    of_client: int = _MAX_CONNECTIONS
    head_s: float = 15.0
    body_s: float = 30.0
    body_bytes_per_s: int = 16 * 1024

    @classmethod
    def of_process(cls) -> ConnectionLimits:
        """The limits that fit the number of files that this process may open, which is raised as far as allowed. One
        address has half of the connections."""
        connections = max(16, min(_MAX_CONNECTIONS, raise_file_limit() - _OTHER_FILES))
        return cls(connections=connections, of_client=connections // 2)


def raise_file_limit(wanted: int = WANTED_FILES) -> int:
    """Raise the number of files that this process may open to `wanted`, as far as the system allows; returns it."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit on sockets
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            return allowed
    return soft if soft != resource.RLIM_INFINITY else wanted


class LimitedConnections:
    """The open connections of a server. Used in the thread of its event loop only."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.refused = RefusedLimits(max_delayed=max(1, limits.of_client // 4))
        self._open: dict[LimitedProtocol, None] = {}  # in the order of their last request
        self._of_client: Counter[str] = Counter()
        self._looked_at = float("-inf")

    def __len__(self) -> int:
        return len(self._open)

    def protocol(self) -> type[LimitedProtocol]:
        """The class that uvicorn makes connections of."""
        return type("LimitedProtocol", (LimitedProtocol,), {"limited": self})

    def add(self, connection: LimitedProtocol) -> bool:
        """Whether the connection may stay. Another one may have been closed for it."""
        host = connection.host
        if self.refused.blocks(host):
            return False
        client_is_full = self._of_client[host] >= self.limits.of_client
        if client_is_full or len(self._open) >= self.limits.connections:
            log.warning("too many connections: an idle one is closed for each new one")
            rivals = (each for each in self._open if each.host == host or not client_is_full)
            idle = next((each for each in rivals if each.is_idle), None)
            if idle is None:
                return False
            self.remove(idle)
            idle.transport.abort()
        self._open[connection] = None
        self._of_client[host] += 1
        return True

    def remove(self, connection: LimitedProtocol) -> None:
        if connection in self._open:
            del self._open[connection]
            self._of_client[connection.host] -= 1
            if not self._of_client[connection.host]:
                del self._of_client[connection.host]

    def touch(self, connection: LimitedProtocol) -> None:
        """Note that a request has come in."""
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None

    def close_slow(self, now: float) -> None:
        """Close connections whose request does not arrive in time. To be called often: it closes some at a time."""
        if now - self._looked_at < min(_LOOK_EVERY_S, self.limits.head_s / 4):
            return
        slow = list(islice((each for each in self._open if each.is_slow(now)), _CLOSED_AT_ONCE))
        if len(slow) < _CLOSED_AT_ONCE:
            self._looked_at = now
        for connection in slow:
            self.remove(connection)
            connection.transport.abort()


class LimitedProtocol(HttpToolsProtocol):
    """A connection of uvicorn that is counted, and timed while a request arrives."""

    limited: LimitedConnections
    host = ""
    _since: float | None = None  # when the request began to arrive; None while none does
    _has_headers = False
    _received = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.host = self.client[0] if self.client else ""
        self._since = time.monotonic()
        if not self.limited.add(self):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.limited.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        if self._since is None and self.is_idle:  # empty lines before a request: uvicorn does not time them either
            self._since = time.monotonic()

    def on_message_begin(self) -> None:
        self._since, self._has_headers, self._received = time.monotonic(), False, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._has_headers = True
        self.limited.touch(self)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._since, self._has_headers = None, False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP; later, if this client has sent too much of it."""
        if self.limited.refused.spend(self.host):
            super().send_400_response(msg)
            return
        self.transport.pause_reading()
        task = self.loop.create_task(self._refuse_later(msg))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _refuse_later(self, msg: str) -> None:
        await self.limited.refused.delay(self.host)
        super().send_400_response(msg)

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered: none has come, it is still arriving, or the last one is answered."""
        cycle: Any = self.cycle
        return cycle is None or cycle.response_complete

    def is_slow(self, now: float) -> bool:
        """Whether a request has been arriving for too long."""
        if self._since is None:
            return False
        limits, elapsed = self.limited.limits, now - self._since
        if not self._has_headers:
            return elapsed > limits.head_s
        if self.flow.read_paused:  # we do not take the body, so that it cannot arrive
            return False
        return elapsed > limits.body_s + self._received / limits.body_bytes_per_s


class OncePerMinute(logging.Filter):
    """Lets each message through once a minute, with the number of those left out: whoever can connect could fill the
    disk with them."""

    def __init__(self, every_s: float = _REPEATED_AFTER_S) -> None:
        super().__init__()
        self._every_s = every_s
        self._last: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key, now = f"{record.name}:{record.msg}", time.monotonic()
        last, left_out = self._last.get(key, (float("-inf"), 0))
        if now - last < self._every_s:
            self._last[key] = (last, left_out + 1)
            return False
        self._last[key] = (now, 0)
        if left_out:
            record.msg = f"{record.msg} (and {left_out} times more since the last such line)"
        return True


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Within the block, a message about connections appears once a minute."""
    repeated = OncePerMinute()
    loggers = [log, logging.getLogger("uvicorn.error"), logging.getLogger("asyncio")]
    for logger in loggers:
        logger.addFilter(repeated)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(repeated)
