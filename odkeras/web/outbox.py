"""Delivers stored answers to the trainer in batches, so that a round is worth its time and recent answers can still be
corrected.

The rows of the answer database are the outbox: a row says whether its answer was delivered, and in which batch. The
batch's name is noted before the batch is written. After a kill in between, the same batch is written again under the
same name, and the trainer skips it if it has it already.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from odkeras.formats.prodigy import Record
from odkeras.web.deliveries import Deliveries
from odkeras.web.stored import PendingAnswer

MAX_TOGETHER = 50
_MAX_BACKOFF_S = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeliveryRules:
    """When answers are delivered.

    Args:
        batch_size: minimum number of answers in a batch; fewer only on `deliver_now` or if no image is left.
        shared: the sessions share the images, so only the latest answer for an image counts, from any session.
        sync: wait after each batch until the model trained on it is served.
        correction_s: seconds that an answer waits for its correction before it is delivered as it is.
        poll_s: seconds between two looks into the database, which another process may write, too.
    """

    batch_size: int
    shared: bool = True
    sync: bool = False
    correction_s: float = 300.0
    poll_s: float = 0.5


class Trainer(Protocol):
    """The part of `AnnotationSession` that the outbox uses."""

    def new_batch_name(self) -> str: ...

    def submit(self, answers: Sequence[Record], *, batch: str | None = None) -> Path | None: ...

    def wait_until_served(self, batch: Path, *, stop: Callable[[], bool]) -> float | None: ...


class Outbox:
    """Delivers answers in its own thread, from `start` to `close`, which is idempotent. Answers that are not delivered
    by then stay in the database for the next start. Thread-safe.

    Args:
        no_more: whether no image is left to answer; polled by the thread.
        delivered: callback after each delivery.
        warn: callback, once per problem, when answers cannot be delivered. The delivery is retried.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        trainer: Trainer,
        rules: DeliveryRules,
        *,
        no_more: Callable[[], bool] = lambda: False,
        delivered: Callable[[], None] = lambda: None,
        warn: Callable[[str], None] = _log.warning,
    ) -> None:
        self._deliveries = deliveries
        self._trainer = trainer
        self._rules = rules
        self._no_more = no_more
        self._delivered = delivered
        self._warn = warn
        self._corrected: dict[tuple[str, str], float] = {}  # answers that are open for correction, and since when
        self._now = False
        self._changed = False
        self._closing = False
        self._delivering = 0
        self._problem = ""
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="odkeras-outbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Deliver a batch that is due, and end the thread."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def notify(self, answers: Sequence[tuple[str, str]] = ()) -> None:
        """Answers, as (session, image id), were stored in the database. They end the corrections of these images."""
        with self._condition:
            for session, image_id in answers:
                self._corrected.pop(self._key(session, image_id), None)
            self._changed = True
            self._condition.notify_all()

    def hold_back(self, session: str, image_id: str) -> None:
        """Defer the answer for an image, because it is being corrected."""
        with self._condition:
            self._corrected[self._key(session, image_id)] = time.monotonic()

    def deliver_now(self) -> int:
        """Deliver all pending answers, also those that are being corrected; returns their number."""
        count = self.pending
        with self._condition:
            self._now = True
            self._corrected.clear()
            self._condition.notify_all()
        return count

    @property
    def pending(self) -> int:
        """Number of answers that the trainer does not have yet, without those that are on their way."""
        return self._deliveries.count_pending(in_no_batch=self._delivering > 0)

    @property
    def ready(self) -> int:
        """Number of pending answers that are not being corrected, at most a batch."""
        return len(self._next(self._rules.batch_size))

    @property
    def delivering(self) -> bool:
        """Whether a batch is on its way, or (with `sync`) trained on."""
        return self._delivering > 0

    def _key(self, session: str, image_id: str) -> tuple[str, str]:
        return ("" if self._rules.shared else session, image_id)

    def _run(self) -> None:
        failures = 0
        while True:
            with self._condition:
                wait_s = min(self._rules.poll_s * 2**failures, _MAX_BACKOFF_S)
                self._condition.wait_for(lambda: self._closing or self._now or self._changed, timeout=wait_s)
                closing, self._changed = self._closing, False
            try:
                more = self._deliver_due()
            except Exception as error:  # the answers stay in the database
                failures, more = min(failures + 1, 16), False
                self._report(error)
            else:
                failures, self._problem = 0, ""
            if closing:
                return
            if more:
                self.notify()

    def _report(self, error: Exception) -> None:
        problem = f"{type(error).__name__}: {error}"
        if problem != self._problem:
            _log.warning("answers were not delivered", exc_info=error)
            self._warn(f"stored answers are not delivered to the trainer yet; retrying: {error}")
        self._problem = problem

    def _deliver_due(self) -> bool:
        """Deliver a batch if one is due; returns whether another one may be due at once."""
        limit = max(MAX_TOGETHER, self._rules.batch_size)
        with self._condition:
            now, self._now = self._now, False
        batch = self._next(limit)
        interrupted = bool(batch) and batch[0].batch is not None
        if not batch or not (now or interrupted or len(batch) >= self._rules.batch_size or self._no_more()):
            return False
        try:
            self._delivering = len(batch)
            self._deliver(batch)
        except BaseException:
            self._now = now  # the person's request stands
            raise
        finally:
            self._delivering = 0
        if now and (len(batch) == limit or interrupted):
            self._now = True
        return True

    def _next(self, limit: int) -> list[PendingAnswer]:
        """The next batch: one whose delivery was interrupted, whatever its size, else at most `limit` answers that are
        not under correction."""
        with self._condition:
            oldest = time.monotonic() - self._rules.correction_s
            self._corrected = {key: since for key, since in self._corrected.items() if since > oldest}
            corrected = set(self._corrected)
        pending = self._deliveries.pending(limit + len(corrected))
        if pending and pending[0].batch is not None and not self._delivering:
            return self._deliveries.pending_in(pending[0].batch)
        ready = [row for row in pending if row.batch is None]
        return [row for row in ready if self._key(row.session, row.image_id) not in corrected][:limit]

    def _deliver(self, batch: Sequence[PendingAnswer]) -> None:
        ids = [row.answer_id for row in batch]
        name = batch[0].batch
        if name is None:
            name = self._trainer.new_batch_name()
            self._deliveries.assign_batch(ids, name)
        path = self._trainer.submit(self._deliveries.read_examples(ids), batch=name)
        self._deliveries.mark_delivered(ids)
        self._delivered()
        if path is not None and self._rules.sync:
            self._trainer.wait_until_served(path, stop=lambda: self._closing)
