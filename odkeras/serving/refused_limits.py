"""Slows down clients whose requests are refused again and again.

A refused request takes the event loop 1 ms, more with a large body, in which everybody else waits. Beyond a budget,
such an answer is delayed. Other answers are not, so a client does not slow down those who share its address.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

DELAY_S = 3.0
BURST = 100.0
PER_S = 30.0  # clients of ours that wait for a version ask ten times a second
BYTES_PER_REQUEST = 64 * 1024
_MAX_CLIENTS = 1000
_REFUSED = range(400, 500)


class RefusedLimits:
    """The budget of each client address, as a token bucket. Used in the thread of an event loop only.

    Args:
        max_delayed: number of delayed answers from which on an address gets no new connection.
        clock: monotonic clock, for tests.
    """

    def __init__(self, max_delayed: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_delayed = max_delayed
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, and when
        self._delayed: Counter[str] = Counter()
        self._stopped = asyncio.Event()

    def blocks(self, client: str) -> bool:
        """Whether new connections of the client are to be closed: it does not wait for its answers."""
        return self._delayed[client] >= self._max_delayed

    def spend(self, client: str, received: int = 0) -> bool:
        """Take a refused request off the client's budget. Returns whether there was any left.

        Args:
            received: bytes of its body that were read. 64 KiB count as one more request.
        """
        left = self._left_of(client)
        self._left.pop(client, None)
        self._left[client] = (max(-BURST, left - 1 - received / BYTES_PER_REQUEST), self._clock())
        if len(self._left) > _MAX_CLIENTS:
            self._left.popitem(last=False)
        return left >= 1

    def has_budget(self, client: str) -> bool:
        return self._left_of(client) >= 1

    def _left_of(self, client: str) -> float:
        left, at = self._left.get(client, (BURST, 0.0))
        return min(BURST, left + (self._clock() - at) * PER_S)

    async def delay(self, client: str) -> None:
        """Wait until an answer may be sent. It counts as delayed all the time, even if the client has gone."""
        self._delayed[client] += 1
        try:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), DELAY_S)
        finally:
            self._delayed[client] -= 1
            if not self._delayed[client]:
                del self._delayed[client]

    def stop(self) -> None:
        """End all delays, so that the server does not wait for them."""
        self._stopped.set()


class DelayRefused:
    """ASGI middleware that delays the refusals of a client without budget, and closes its connection after them. A body
    of more than 64 KiB is delayed before it is read, since memory would hold it meanwhile.

    The client is the one that a proxy on this machine names, if there is one.
    """

    def __init__(self, app: ASGIApp, limits: RefusedLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client, received, is_late = str((scope.get("client") or ("",))[0]), 0, False

        async def receive_counted() -> Message:
            nonlocal received, is_late
            if received > BYTES_PER_REQUEST and not is_late and not self._limits.has_budget(client):
                is_late = True
                await self._limits.delay(client)
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def send_delayed(message: Message) -> None:
            is_refusal = message["type"] == "http.response.start" and message["status"] in _REFUSED
            if is_refusal and not self._limits.spend(client, received):
                if received <= BYTES_PER_REQUEST:
                    await self._limits.delay(client)
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive_counted, send_delayed)
