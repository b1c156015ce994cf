"""Forwards stored answers to the trainer in batches, so that a round is worth its time and recent answers can still be
corrected. Pending answers stay in the database, also over a restart."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from odkeras.formats.prodigy import Task

HELD_BACK_S = 300.0
"""Seconds that an answer waits for its correction before it is forwarded as it is."""
MOST_TOGETHER = 50
_POLL_S = 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A stored answer: its id, the session and the image it belongs to, and the example for the trainer."""

    answer_id: str
    session: str
    image_id: str
    example: Task


class Handover:
    """Context manager with a thread that passes answers to `update`. `close` is idempotent. On closing, fewer than
    `batch_size` pending answers stay in the database for the next start.

    Args:
        update: takes a batch of examples; does not raise.
        done: callback with the ids of the answers that `update` has taken.
        batch_size: minimum number of answers in a batch; fewer only after `hand_on` or if `no_more` is true.
        shared: the sessions share the images, so only the latest answer for an image counts, from any session.
        no_more: whether no image is left to answer; polled by the thread.
        held_back_s: seconds that an answer waits for its correction.
        poll_s: polling interval in seconds.
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
        self._entries: dict[tuple[str, str], Entry] = {}  # latest answer per image (unless shared: per session, too)
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
        """Queue stored answers. An answer replaces an earlier one that is still pending."""
        with self._changed:
            for entry in entries:
                key = self._key_of(entry.session, entry.image_id)
                self._held_back.pop(key, None)
                self._entries.pop(key, None)
                self._entries[key] = entry
            self._changed.notify_all()

    def hold_back(self, session: str, image_id: str) -> None:
        """Defer the answer for an image, because it is being corrected."""
        with self._changed:
            self._held_back[self._key_of(session, image_id)] = time.monotonic()

    def hand_on(self) -> int:
        """Forward all pending answers now; returns their number."""
        with self._changed:
            self._now = True
            self._held_back.clear()
            self._changed.notify_all()
            return len(self._entries)

    @property
    def waiting(self) -> int:
        """Number of answers that the trainer does not have yet."""
        with self._changed:
            return len(self._entries)

    @property
    def ready(self) -> int:
        """Number of pending answers that are not being corrected."""
        with self._changed:
            return len(self._ready())

    @property
    def updating(self) -> bool:
        """Whether a call of `update` is in progress."""
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
        self._now = len(ready) > most  # forward the rest in the next iteration
        keys = ready[:most]
        self._updating = bool(keys)
        return [self._entries.pop(key) for key in keys]

    def _give(self, batch: Sequence[Entry]) -> None:
        try:
            self._update([entry.example for entry in batch])
            self._done([entry.answer_id for entry in batch])
        except Exception:  # the database still has them as not handed on: the next start retries
            _log.exception("%d answers were not handed on", len(batch))
        finally:
            self._updating = False
