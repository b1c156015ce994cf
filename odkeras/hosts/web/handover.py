"""Stored answers on their way to the trainer: a stated number at a time, so that rounds are worth their time and the
last answers can still be corrected. Those that wait are in the database, and wait there over a restart."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from odkeras.formats.prodigy import Task

HELD_BACK_S = 300.0
"""An image that is being corrected is waited for no longer."""
MOST_TOGETHER = 50
_POLL_S = 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A stored answer: its id, which session's, about which image, and what the trainer gets."""

    answer_id: str
    session: str
    image_id: str
    example: Task


class Handover:
    """Context manager with a thread that gives answers to `update`; closing it (twice is fine) leaves fewer than
    `batch_size` where they are: in the database, for the next start.

    Args:
        update: takes examples; does not raise.
        done: told the ids of the answers that `update` has taken.
        shared: the sessions share the images: the last answer about an image counts, whoever gave it.
        batch_size: so many are given together; fewer only after `hand_on`, or when no more are to come.
        no_more: whether nobody has an image left to answer. Asked again and again, by the thread.
        held_back_s: how long an image that is being corrected is waited for.
    """

    def __init__(
        self,
        update: Callable[[Sequence[Task]], object],
        done: Callable[[Sequence[str]], None],
        *,
        batch_size: int,
        shared: bool = False,
        no_more: Callable[[], bool] = lambda: False,
        held_back_s: float = HELD_BACK_S,
        poll_s: float = _POLL_S,
    ) -> None:
        self._update = update
        self._done = done
        self._batch_size = batch_size
        self._shared = shared
        self._no_more = no_more
        self._held_back_s = held_back_s
        self._poll_s = poll_s
        self._entries: dict[tuple[str, str], Entry] = {}  # the last answer about an image, unless shared of a session
        self._held_back: dict[tuple[str, str], float] = {}
        self._now = False
        self._closing = False
        self._updating = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="odkeras-handover", daemon=True)

    def __enter__(self) -> Handover:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def add(self, entries: Iterable[Entry]) -> None:
        """Answers that are stored; one replaces an earlier one that still waits."""
        with self._changed:
            for entry in entries:
                key = self._key_of(entry.session, entry.image_id)
                self._held_back.pop(key, None)
                self._entries.pop(key, None)
                self._entries[key] = entry
            self._changed.notify_all()

    def hold_back(self, session: str, image_id: str) -> None:
        """The image is looked at again: its answer waits for what comes of it."""
        with self._changed:
            self._held_back[self._key_of(session, image_id)] = time.monotonic()

    def hand_on(self) -> int:
        """Give what waits now rather than later; returns how many answers that are."""
        with self._changed:
            self._now = True
            self._held_back.clear()
            self._changed.notify_all()
            return len(self._entries)

    @property
    def waiting(self) -> int:
        """Answers that the trainer does not have yet."""
        with self._changed:
            return len(self._entries)

    @property
    def ready(self) -> int:
        """Those of them that nobody corrects."""
        with self._changed:
            return len(self._ready())

    @property
    def updating(self) -> bool:
        """Whether `update` is at work."""
        return self._updating

    def _key_of(self, session: str, image_id: str) -> tuple[str, str]:
        return ("" if self._shared else session, image_id)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._is_due, timeout=self._poll_s)
                batch = self._take() if self._is_due() else []
                if not batch and self._closing:
                    return
            if batch:
                self._give(batch)

    def _is_due(self) -> bool:
        if self._closing or self._now:
            return True
        ready = len(self._ready())
        return ready >= self._batch_size or (ready > 0 and self._no_more())

    def _ready(self) -> list[tuple[str, str]]:
        now = time.monotonic()
        for key, since in list(self._held_back.items()):
            if now - since > self._held_back_s:
                del self._held_back[key]
        return [key for key in self._entries if key not in self._held_back]

    def _take(self) -> list[Entry]:
        ready = self._ready()
        if self._closing and not (self._now or len(ready) >= self._batch_size or self._no_more()):
            return []
        most = max(MOST_TOGETHER, self._batch_size)
        self._now = len(ready) > most  # the rest of so many is given, too
        keys = ready[:most]
        self._updating = bool(keys)
        return [self._entries.pop(key) for key in keys]

    def _give(self, batch: Sequence[Entry]) -> None:
        try:
            self._update([entry.example for entry in batch])
            self._done([entry.answer_id for entry in batch])
        except Exception:  # the database knows that they were not handed on: the next start does it
            _log.exception("%d answers were not handed on", len(batch))
        finally:
            self._updating = False
