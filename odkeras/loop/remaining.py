"""How many images of a source are left to be answered, counted by what the images are.

Subtracting the number of answers from the number of images is wrong as soon as an answer is about an image that is not
in the source, or an image is unusable, or lies there twice, or is corrected.
"""

from __future__ import annotations

import threading


class Remaining:
    """Counts the images that are neither answered nor unusable. May be used by several threads.

    An item of the source of which nobody knows yet what it is counts as an image to be answered.

    Args:
        total: items in the source; None where that cannot be told.
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
        """The item at that place of the source is this image; None: nobody is to answer it."""
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
        """Whether `found` has been told of that place."""
        with self._lock:
            return number in self._found

    def lost(self) -> None:
        """A line of the source is no item at all."""
        with self._lock:
            self._unusable += 1

    def follow(self, session: str | None) -> None:
        """Count what this session has left; None: all sessions together."""
        with self._lock:
            self._answered.setdefault(session, set())
            self._open.setdefault(session, set(self._image_ids))

    def follows(self, session: str | None) -> bool:
        with self._lock:
            return session in self._answered

    def answered(self, session: str | None, image_id: str) -> None:
        """A session that is followed has answered about an image, which need not be in the source."""
        with self._lock:
            if session in self._answered:
                self._answered[session].add(image_id)
                self._open[session].discard(image_id)

    def left(self, session: str | None) -> int | None:
        """Images that are left for a session that is followed; None where the source has no length."""
        with self._lock:
            if self._total is None:
                return None
            unknown = self._total - self._unusable - len(self._found)
            return max(0, unknown) + len(self._open[session])
