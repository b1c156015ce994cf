"""What other page processes do: they send messages with LISTEN and NOTIFY, when their transactions are committed."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from odkeras.errors import DatabaseError
from odkeras.web.postgres.engine import CHANNEL, PostgresEngine, describe

_LOOK_S = 0.5
_RETRY_S = 1.0
_log = logging.getLogger(__name__)


class Notifications:
    """Receives the messages in a thread, from `start` to `close`, which is idempotent.

    Args:
        received: called with each message of another process.
        connected: called after each connection, also the first: messages before it are lost.
        lost: called with the reason when the database cannot be reached any more.
    """

    def __init__(
        self,
        engine: PostgresEngine,
        *,
        received: Callable[[Mapping[str, Any]], None],
        connected: Callable[[], None],
        lost: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._received = received
        self._connected = connected
        self._lost = lost
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="odkeras-notifications", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                with closing(self._engine.listening_connection()) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    self._connected()
                    self._listen(connection)
            except (psycopg.Error, SQLAlchemyError, DatabaseError) as error:
                if not self._closing.is_set():
                    self._lost(describe(error))
            except Exception:
                _log.exception("a message of another page could not be used")
            self._closing.wait(_RETRY_S)

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        while not self._closing.is_set():
            for notification in connection.notifies(timeout=_LOOK_S):
                message = _read(notification.payload)
                if message.get("from") != self._engine.instance:
                    self._received(message)


def _read(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
