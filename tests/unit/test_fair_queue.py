"""Clients of the model server take turns."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from waiting import wait_until

from odkeras.errors import RequestError
from odkeras.serving.fair_queue import FairQueue
from odkeras.serving.load import PixelBudget


class Work:
    """Functions that note who began, and end when they may."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.may_end = threading.Semaphore(0)

    def __call__(self, client: str) -> str:
        self.began.append(client)
        assert self.may_end.acquire(timeout=20)
        return client


def play(scene: Callable[[FairQueue, Work], Coroutine[Any, Any, None]], *, threads: int = 2, most: int = 99) -> Work:
    work = Work()

    async def run() -> None:
        queue = FairQueue(threads, max_waiting=most)
        try:
            await asyncio.wait_for(scene(queue, work), 30)
        finally:
            work.may_end.release(999)
            queue.close()

    asyncio.run(run())
    return work


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def ask(queue: FairQueue, work: Work, client: str) -> asyncio.Task[str]:
    return asyncio.ensure_future(queue.run(client, work, client))


def test_one_client_does_not_make_the_others_wait_for_all_of_its_requests() -> None:
    """Requests ran in the order in which they came: behind a thousand of one client, an annotator waited for all."""

    async def scene(queue: FairQueue, work: Work) -> None:
        greedy = [ask(queue, work, "greedy") for _ in range(30)]
        await until(lambda: len(work.began) == 1)
        others = [ask(queue, work, name) for name in ("anna", "ben", "anna")]
        await until(lambda: len(work.began) == 2)
        work.may_end.release(33)
        assert await asyncio.gather(*others) == ["anna", "ben", "anna"]
        assert await asyncio.gather(*greedy) == ["greedy"] * 30

    began = play(scene).began
    assert began[0] == "greedy" and max(began.index("anna"), began.index("ben")) <= 3
    assert [name for name in began[:7] if name == "anna"] == ["anna", "anna"]


def test_one_client_alone_leaves_a_thread_free() -> None:
    async def scene(queue: FairQueue, work: Work) -> None:
        tasks = [ask(queue, work, "greedy") for _ in range(9)]
        await until(lambda: len(work.began) == 3)
        tasks.append(ask(queue, work, "anna"))  # begins though no request has ended
        await until(lambda: "anna" in work.began)
        work.may_end.release(10)
        await asyncio.gather(*tasks)

    assert play(scene, threads=4).began[:4] == ["greedy"] * 3 + ["anna"]


def test_a_single_thread_is_used_by_a_single_client() -> None:
    async def scene(queue: FairQueue, work: Work) -> None:
        work.may_end.release(2)
        assert await ask(queue, work, "anna") == await ask(queue, work, "anna") == "anna"

    play(scene, threads=1)


def test_too_many_requests_of_one_client() -> None:
    async def scene(queue: FairQueue, work: Work) -> None:
        tasks = [ask(queue, work, "greedy") for _ in range(4)]
        await until(lambda: len(work.began) == 1)
        with pytest.raises(RequestError, match="3 requests of greedy wait already") as caught:
            await ask(queue, work, "greedy")
        assert caught.value.status == 429
        tasks.append(ask(queue, work, "anna"))
        work.may_end.release(5)
        await asyncio.gather(*tasks)

    play(scene, most=3)


def test_requests_that_are_cancelled_take_no_turn() -> None:
    async def scene(queue: FairQueue, work: Work) -> None:
        first = ask(queue, work, "anna")
        await until(lambda: len(work.began) == 1)
        waiting = [ask(queue, work, "anna") for _ in range(3)]
        await asyncio.sleep(0)
        for task in waiting[:2]:
            task.cancel()
        work.may_end.release(2)
        assert await first == await waiting[2] == "anna"
        assert len(work.began) == 2
        assert (queue._free, queue._running.total(), queue._waiting) == (2, 0, {})

    play(scene)


def test_an_error_frees_the_thread() -> None:
    def fail() -> None:
        raise ValueError("no")

    async def scene(queue: FairQueue, work: Work) -> None:
        for _ in range(3):
            with pytest.raises(ValueError, match="no"):
                await queue.run("anna", fail)
        assert queue._free == 2

    play(scene)


def test_large_requests_wait_for_room_in_their_order() -> None:
    """Whoever was quick got the room, so that a large request, or a small one behind many large ones, could wait for
    ever."""
    budget, entered, leave = PixelBudget(100), list[str](), threading.Event()

    def predict(name: str, pixels: int) -> None:
        with budget.reserve({"image": np.zeros((1, pixels, 1, 3), np.uint8)}):
            entered.append(name)
            leave.wait(20)

    def start(name: str, images: int) -> threading.Thread:
        thread = threading.Thread(target=predict, args=(name, images))
        thread.start()
        return thread

    threads = [start("first", 100), start("second", 60)]
    wait_until(lambda: len(entered) == 2)
    threads.append(start("large", 99))  # 159 of 200 are taken
    wait_until(lambda: len(budget._waiting) == 1)
    threads.append(start("small", 10))  # would fit
    wait_until(lambda: len(budget._waiting) == 2)
    assert "small" not in entered
    leave.set()
    for thread in threads:
        thread.join(20)
    assert entered[2:] == ["large", "small"] and budget._running == 0
