"""Limits how fast tokens can be guessed."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_WRONG = 30
WINDOW_S = 10.0
_MAX_CLIENTS = 1000


class TokenAttempts:
    """Counts the different wrong tokens of each client address. Used in one thread.

    The same wrong token again is no guess: after a restart, open tabs go on sending the old one.

    Args:
        clock: monotonic clock, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._salt = secrets.token_bytes(16)  # wrong tokens may be right elsewhere, so only their hashes are kept
        self._wrong: OrderedDict[str, tuple[float, set[bytes]]] = OrderedDict()

    def is_blocked(self, client: str) -> bool:
        """Whether the tokens of this client are not compared for now: it has sent `MAX_WRONG` different wrong ones
        within `WINDOW_S`. Everybody behind the same proxy is blocked with it."""
        started, wrong = self._wrong.get(client, (0.0, set()))
        return len(wrong) >= MAX_WRONG and self._clock() - started < WINDOW_S

    def note_wrong(self, client: str, token: str) -> None:
        now = self._clock()
        started, wrong = self._wrong.pop(client, (now, set()))
        if now - started >= WINDOW_S:
            started, wrong = now, set()
        wrong.add(hashlib.sha256(self._salt + token.encode("utf-8", "replace")).digest())
        self._wrong[client] = (started, wrong)
        if len(self._wrong) > _MAX_CLIENTS:
            self._wrong.popitem(last=False)
