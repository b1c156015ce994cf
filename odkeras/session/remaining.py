"""Counts the images of a source that have no answer yet, by image id.

The number of images minus the number of answers would be wrong: an answer may be about an image that is not in the
source, or correct an earlier answer; an image may be unusable, or occur more than once in the source.
"""

from __future__ import annotations

import threading


class Remaining:
    """Counts the images that are neither answered nor unusable. Thread-safe.

    An item whose image id is not known yet counts as unanswered.

    Args:
        total: number of items in the source; None if unknown.
    """

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._unusable = 0
        self._found: set[int] = set()
        self._image_ids: set[str] = set()
        self._answered: dict[str | None, set[str]] = {}
        self._open: dict[str | None, set[str]] = {}
        self._lock = threading.Lock()

    def found(self, number: int, image_id: str | None) -> None:
        """Set the image id of the item at position `number` of the source; None if it needs no answer.

        Only the first call for a position counts.
        """
        with self._lock:
            if number in self._found:
                return
            self._found.add(number)
            if image_id is None or image_id in self._image_ids:
                return
            self._image_ids.add(image_id)
            for session, answered in self._answered.items():
                if image_id not in answered:
                    self._open[session].add(image_id)

    def knows(self, number: int) -> bool:
        """Whether `found` was called for this position."""
        with self._lock:
            return number in self._found

    def lost(self) -> None:
        """Count a line of the source that is not an item."""
        with self._lock:
            self._unusable += 1

    def follow(self, session: str | None) -> None:
        """Start counting for a session; None counts for all sessions together. Idempotent."""
        with self._lock:
            self._answered.setdefault(session, set())
            self._open.setdefault(session, set(self._image_ids))

    def follows(self, session: str | None) -> bool:
        """Whether `follow` was called for this session."""
        with self._lock:
            return session in self._answered

    def answered(self, session: str | None, *image_ids: str) -> None:
        """Record answers of a session. Ignored unless the session is followed. The images need not be in the source."""
        with self._lock:
            if session in self._answered:
                self._answered[session].update(image_ids)
                self._open[session].difference_update(image_ids)

    def left(self, session: str | None) -> int | None:
        """Number of images without an answer of a followed session; None if the source has no known length."""
        with self._lock:
            if self._total is None:
                return None
            unknown = self._total - self._unusable - len(self._found)
            return max(0, unknown) + len(self._open[session])
