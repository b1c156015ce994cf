"""Blocks until a model trained on a given batch is being served, for front ends that train synchronously."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from odkeras.errors import OdkerasError, ServingError
from odkeras.project import JsonlTail, Project, find_round

SILENT_S = 120.0
"""Timeout in seconds for a trainer that does not update status.json; building a large model takes up to a minute."""
AWAY_S = 30.0
"""Timeout in seconds for the server to serve the round's version."""
LOST_AFTER_S = 2.0
"""Seconds that the trainer must be idle, with the batch taken, before the batch counts as one without a round."""
_POLL_S = 0.1


class Waitable(Protocol):
    """The part of `AnnotationSession` that `BatchWait` uses."""

    project: Project

    def failure(self) -> OdkerasError | None: ...

    def trainer_status(self) -> dict[str, Any] | None: ...

    def available_version(self) -> int | None: ...


class BatchWait:
    """Waits for one batch.

    Args:
        session: the session that the batch was submitted to.
        batch: the batch's file.
        stop: polled; True ends the wait. So does the end of the main thread.
        warn: callback with the reason if the wait times out.
        clock, sleep: monotonic clock and sleep function, for tests.
    """

    def __init__(
        self,
        session: Waitable,
        batch: Path,
        *,
        stop: Callable[[], bool],
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._session = session
        self._batch = batch
        self._stop = stop
        self._warn = warn
        self._clock = clock
        self._sleep = sleep

    def run(self) -> dict[str, Any] | None:
        """Block until the round's version is being served, or until the round was held back.

        Returns:
            The round's line in metrics.jsonl. None if the batch has nothing to train on, the round failed, the wait
            timed out, or `stop` returned True.
        """
        row = self._wait_for_round()
        if row is None or row.get("failed"):
            return None
        if row.get("outcome") == "held back":
            return row
        return row if self._wait_for_version(int(row.get("version") or 1)) else None

    def _wait_for_round(self) -> dict[str, Any] | None:
        updated, updated_at, idle_since = object(), self._clock(), None
        metrics = JsonlTail(self._session.project.metrics_path)
        while not self._ended():
            if row := find_round(metrics.read(), self._batch.name):
                return row
            status, now = self._session.trainer_status() or {}, self._clock()
            if status.get("updated") != updated:
                updated, updated_at = status.get("updated"), now
            if now - updated_at > SILENT_S:
                self._warn(f"no longer waiting: no trainer has reported its status for {SILENT_S:g} s")
                return None
            idle = status.get("state") == "waiting" and not self._batch.exists()
            idle_since = (idle_since or now) if idle else None
            if idle_since is not None and now - idle_since > LOST_AFTER_S:
                return None  # no answer of the batch is to be trained on: rejected, ignored or unusable
            self._sleep(_POLL_S)
        return None

    def _wait_for_version(self, at_least: int) -> bool:
        seen_at = self._clock()
        while not self._ended():
            version = self._served()
            if version is not None and version >= at_least:
                return True
            if self._clock() - seen_at > AWAY_S:
                self._warn(f"no longer waiting: version {at_least} is not served after {AWAY_S:g} s")
                return False
            self._sleep(_POLL_S)
        return False

    def _served(self) -> int | None:
        try:
            return self._session.available_version()
        except ServingError:
            return None

    def _ended(self) -> bool:
        return self._stop() or self._session.failure() is not None or not threading.main_thread().is_alive()
