"""Threads like those of a web server: callbacks run on one or another, and not on the same one twice."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


class Workers:
    """Runs every call on a new thread, and waits for it.

    A thread outlives its call until the next one has started: else that one might get the same thread id, and pass for
    the same thread in code that is only fine on one.
    """

    def __init__(self) -> None:
        self._names = (f"prodigy-worker-{number}" for number in itertools.count(1))
        self._lock = threading.Lock()
        self._let_go = threading.Event()

    def run(self, call: Callable[[], Result]) -> Result:
        future: Future[Result] = Future()
        let_go = threading.Event()
        with self._lock:
            worker = threading.Thread(target=_work, args=(call, future, let_go), name=next(self._names), daemon=True)
            worker.start()
            self._let_go.set()
            self._let_go = let_go
        return future.result()

    def close(self) -> None:
        self._let_go.set()


def _work(call: Callable[[], Result], future: Future[Result], let_go: threading.Event) -> None:
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)
    let_go.wait()
