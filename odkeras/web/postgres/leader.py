"""One page process of a dataset leads: it delivers the answers, and runs the trainer and the model server.

The leader holds an advisory lock of PostgreSQL, which lasts as long as its connection. When it ends, however, another
process gets the lock and takes over.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from odkeras.errors import OdkerasError
from odkeras.web.postgres.engine import PostgresEngine

LOOK_S = 1.0
_TRY = "SELECT pg_try_advisory_lock(hashtextextended('odkeras leader ' || %s::text, 0))"
_log = logging.getLogger(__name__)


class Leadership:
    """The lock, which a thread tries to get and keeps, from `start` to `close`, which is idempotent.

    Args:
        lead: called in the thread when it has got the lock. If it raises an OdkerasError, the lock is given back, and
            tried again.
        leading: called after that, when `leads` is True.
        follow: called in the thread when the lock was lost to another process.

    Attributes:
        leads: whether this process leads. It stays so while the database cannot be reached, as nobody else can lead.
    """

    def __init__(
        self,
        engine: PostgresEngine,
        dataset: str,
        *,
        lead: Callable[[], None],
        leading: Callable[[], None],
        follow: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._dataset = dataset
        self._lead = lead
        self._leading = leading
        self._follow = follow
        self.leads = False
        self._connection: psycopg.Connection[Any] | None = None
        self._problem = ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="odkeras-leadership", daemon=True)

    def try_lock(self) -> bool:
        """Take the lock if it is free, before `start` and without calling `lead`.

        Raises:
            SQLAlchemyError, psycopg.Error: the database cannot be reached.
        """
        self.leads = self._has_lock()
        return self.leads

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the lock is kept. Idempotent."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def close(self) -> None:
        """Give the lock back. Idempotent."""
        self.stop()
        self._hang_up()

    def look(self) -> None:
        """One look at the lock."""
        try:
            has_lock = self._has_lock()
        except (psycopg.Error, SQLAlchemyError):
            self._hang_up()
            return
        if has_lock and not self.leads:
            try:
                self._lead()
            except OdkerasError as error:
                if str(error) != self._problem:
                    _log.warning("this page cannot take over: %s", error)
                self._problem = str(error)
                self._hang_up()  # gives the lock back
            else:
                self.leads, self._problem = True, ""
                self._leading()
        elif self.leads and not has_lock:
            self.leads = False
            self._follow()

    def _has_lock(self) -> bool:
        if self._connection is not None:
            self._connection.execute("SELECT 1")
            return True
        connection = self._engine.listening_connection()
        try:
            row = connection.execute(_TRY, (self._dataset,)).fetchone()
        except BaseException:
            connection.close()
            raise
        if row is None or not row[0]:
            connection.close()
            return False
        self._connection = connection
        return True

    def _hang_up(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
        self._connection = None

    def _run(self) -> None:
        while not self._closing.wait(LOOK_S):
            try:
                self.look()
            except Exception:
                _log.exception("the page that trains cannot be chosen")
