"""The outbox of a page that is one of several: the page that leads delivers, for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from odkeras.web.deliveries import Deliveries
from odkeras.web.outbox import DeliveryRules, Outbox, Trainer

_POLL_S = 5.0
"""Messages of the other pages say when there is something to deliver; this is for one that was lost."""


class SharedOutbox(Outbox):
    """See `Outbox`.

    Args:
        send: sends a message to the other pages.
        leads: whether this page delivers.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        trainer: Trainer,
        rules: DeliveryRules,
        send: Callable[[Mapping[str, Any]], None],
        leads: Callable[[], bool],
        **callbacks: Any,
    ) -> None:
        super().__init__(deliveries, trainer, replace(rules, poll_s=_POLL_S), **callbacks)
        self._send = send
        self._leads = leads
        self._changes = 0
        self._count = (0, -1, 0.0)  # of pending answers, after so many changes, when

    def hold_back(self, session: str, image_id: str) -> None:
        super().hold_back(session, image_id)
        self._send({"kind": "correcting", "session": session, "image": image_id})

    def note_correction(self, session: str, image_id: str) -> None:
        """Another page corrects an answer."""
        super().hold_back(session, image_id)

    def deliver_now(self) -> int:
        if self._leads():
            return super().deliver_now()
        self._send({"kind": "train"})
        return self.pending

    def deliver_if_leading(self) -> None:
        """Another page asks for the delivery of all answers."""
        if self._leads():
            super().deliver_now()

    def notify(self, answers: Any = ()) -> None:
        self.count_again()
        super().notify(answers)

    def count_again(self) -> None:
        """The number of pending answers may have changed."""
        self._changes += 1

    @property
    def pending(self) -> int:
        changes, now = self._changes, time.monotonic()
        count, counted_changes, counted_at = self._count
        if counted_changes != changes or now - counted_at > _POLL_S:
            count = super().pending
            self._count = (count, changes, now)
        return count

    def _deliver_due(self) -> bool:
        return self._leads() and super()._deliver_due()
