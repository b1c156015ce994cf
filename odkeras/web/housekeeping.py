"""Background work of `odkeras annotate`: frees the tasks of closed tabs, and keeps the panel's figures current."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence

from odkeras.session.stream import TaskStream
from odkeras.web.database import AnswerDatabase
from odkeras.web.journal import Journal
from odkeras.web.panel import Panel
from odkeras.web.queue import TaskQueue

HOUSEKEEPING_S = 0.25
LOOK_UP_AFTER_S = 3.0
"""When answered images are looked up though nobody has a task yet. The first task does not compete with that: in a
source of a million images it takes seconds of one core."""
_POLL_S = 0.05


class ImagesLeft:
    """Counts the images of the source that have no answer yet, for all sessions together or, with overlap, for each.

    Thread-safe.
    """

    def __init__(
        self, stream: TaskStream, database: AnswerDatabase, answered: Callable[[str | None], set[str]], *, overlap: bool
    ) -> None:
        self._stream = stream
        self._database = database
        self._answered = answered
        self._overlap = overlap
        if not overlap:
            self._follow(None)

    def answered(self, session: str, image_id: str) -> None:
        """Record an answer."""
        self._stream.remaining.answered(session if self._overlap else None, image_id)

    def counts(self, sessions: Sequence[str]) -> dict[str | None, int | None]:
        """Number of images left: under None for all sessions, or with overlap for each of `sessions`. The number is
        None if the length of the source is unknown."""
        audiences = sessions if self._overlap else [None]
        for audience in audiences:
            if not self._stream.remaining.follows(audience):
                self._follow(audience)
        return {audience: self._stream.remaining.left(audience) for audience in audiences}

    def find_answered(self, datasets: Collection[str], *, stop: Callable[[], bool]) -> None:
        """Find the images of the source that these datasets have answers for, so that the counts are right before the
        stream reaches them."""
        files = {name for dataset in datasets for name in self._database.files(dataset)}
        self._stream.look_up(files, stop=stop)

    def _follow(self, audience: str | None) -> None:
        self._stream.remaining.follow(audience)  # first: an answer that arrives meanwhile must be counted
        self._stream.remaining.answered(audience, *self._answered(audience))


class Housekeeping:
    """Runs in its own threads from `start` to `close`, which is idempotent.

    Args:
        figures: returns further fields for the panel; see `Panel.update`.
        datasets: the datasets whose answered images are looked up once; see `ImagesLeft.find_answered`.
    """

    def __init__(
        self,
        queue: TaskQueue,
        panel: Panel,
        left: ImagesLeft,
        journal: Journal,
        *,
        figures: Callable[[], dict[str, object]],
        datasets: Collection[str],
    ) -> None:
        self._queue = queue
        self._panel = panel
        self._left = left
        self._journal = journal
        self._figures = figures
        self._datasets = datasets
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=f"odkeras-{name}", daemon=True)
            for name, target in (("housekeeping", self._run), ("look-up", self._find_answered))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._closing.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def look_after(self) -> None:
        """One pass."""
        self._queue.release_gone()
        self._panel.count()
        here = sorted(self._queue.sessions_here())
        self._panel.update(left=self._left.counts(here), here=here, **self._figures())

    def _run(self) -> None:
        problem = ""
        while not self._closing.wait(HOUSEKEEPING_S):
            try:
                self.look_after()
            except Exception as error:  # the page shows older figures; annotation continues
                if repr(error) != problem:
                    self._journal.warn(f"the page's figures are outdated: {error}")
                problem = repr(error)

    def _find_answered(self) -> None:
        started = time.monotonic()
        while not self._queue.has_begun and time.monotonic() - started < LOOK_UP_AFTER_S:
            if self._closing.wait(_POLL_S):
                return
        try:
            self._left.find_answered(self._datasets, stop=self._closing.is_set)
        except Exception as error:  # the count becomes right as the stream reaches the images
            self._journal.warn(f"the remaining images cannot be counted yet: {error}")
