"""The queue of the model server's predictions: clients take turns, so that one of them cannot starve the others.

queue = FairQueue(threads=4)
result = await queue.run("10.0.0.7", predict, request)
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from odkeras.errors import RequestError

MAX_WAITING = 256
"""Requests of one client that may wait."""

T = TypeVar("T")


class FairQueue:
    """Runs functions in a thread pool. Not thread-safe: for one event loop.

    Args:
        threads: number of functions that run at the same time. One client gets all but one of them.
        max_waiting: requests of a client that may wait; further ones are refused.
        thread_names: prefix of the threads' names.
    """

    def __init__(self, threads: int, *, max_waiting: int = MAX_WAITING, thread_names: str = "") -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=thread_names)
        self._free = threads
        self._max_running = max(1, threads - 1)
        self._max_waiting = max_waiting
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # the next client to be served is the first

    async def run(self, client: str, function: Callable[..., T], *arguments: Any) -> T:
        """Call the function when it is the client's turn.

        Args:
            client: its address.

        Raises:
            RequestError: 429, too many requests of this client wait.
        """
        await self._enter(client)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        finally:
            self._leave(client)

    def close(self) -> None:
        """Cancel what waits. Does not wait for what runs, which cannot be interrupted."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _enter(self, client: str) -> None:
        waiting = self._waiting.setdefault(client, deque())
        if len(waiting) >= self._max_waiting:
            raise RequestError(429, f"{len(waiting)} requests of {client} wait already; send fewer at the same time")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        self._start_next()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(client)
            raise

    def _leave(self, client: str) -> None:
        self._free += 1
        self._running[client] -= 1
        self._running += Counter()  # drops the clients without any
        self._start_next()

    def _start_next(self) -> None:
        while self._free:
            ready = (name for name in self._waiting if self._running[name] < self._max_running)
            client = next(ready, None)
            if client is None:
                return
            waiting = self._waiting.pop(client)
            turn = waiting.popleft()
            if waiting:
                self._waiting[client] = waiting  # at the end: the others are first now
            if not turn.done():  # else its request was cancelled
                self._free -= 1
                self._running[client] += 1
                turn.set_result(None)
