"""The panel's state as server-sent events for many pages.

Each answer changes the state of all pages, and the state lists all annotators: built for each page, its cost grows with
the square of their number. What all pages have in common is encoded once, and many pages get it less often.
"""

from __future__ import annotations

from odkeras.web.panel import Panel
from odkeras.web.replies import encode

SHOWN_EVERY_S = 0.25
PER_PAGE_S = 0.005
"""With 300 pages, each gets a new state every 1.5 s: 200 a second in all, as with 50 pages."""


class StateEvents:
    """Builds the events. Used in one thread."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._revision = -1
        self._shared = b""

    @staticmethod
    def interval_s(pages: int) -> float:
        """Seconds between two states of a page, when there are so many."""
        return max(SHOWN_EVERY_S, pages * PER_PAGE_S)

    def event(self, session: str) -> tuple[int, bytes]:
        """The revision, and the event with the state as this session sees it."""
        revision, own = self._panel.revision, self._panel.own_figures(session)
        if revision != self._revision:
            state = encode(self._panel.state(session), without=own)
            self._revision, self._shared = revision, state[:-1].encode()
        return revision, b"event: state\ndata: " + self._shared + b", " + encode(own)[1:].encode() + b"\n\n"
