"""The event log of `odkeras annotate`: one line per event on the terminal and in the page."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress

from odkeras.session.events import Event, Listener, SessionStatus
from odkeras.text import say
from odkeras.web.panel import Panel


class Journal(Listener):
    """Prints events and, once `show_in` was called, forwards them and the session's status to the page's panel."""

    def __init__(self) -> None:
        self._panel: Panel | None = None
        self._lock = threading.Lock()

    def show_in(self, panel: Panel) -> None:
        """Forward events to this panel from now on."""
        self._panel = panel

    def event(self, event: Event) -> None:
        """Log an event. Never raises: a closed terminal must not stop the caller."""
        details = f"\n{event.details}" if event.urgent and isinstance(event.details, str) else ""
        with suppress(Exception), self._lock:
            say(f"{event.line}{details}", file=sys.stderr if event.urgent else sys.stdout, flush=True)
        if self._panel is not None:
            self._panel.log(event)

    def status(self, status: SessionStatus) -> None:
        if self._panel is not None:
            self._panel.set_status(status)

    def skipped(self, name: str, reason: str) -> None:
        self.warn(f"skipped {name}: {reason}")
        if self._panel is not None:
            self._panel.skipped(name, reason)

    def say(self, text: str) -> None:
        self.event(Event(text))

    def warn(self, text: str) -> None:
        self.event(Event.problem(text))
