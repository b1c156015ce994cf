"""The state for many pages: 300 annotators got less done than 100, because it was built anew for each of them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from odkeras.project import Project
from odkeras.session.events import SessionStatus
from odkeras.web import replies
from odkeras.web.panel import Panel
from odkeras.web.state_events import SHOWN_EVERY_S, StateEvents


def panel_of(tmp_path: Path, sessions: int) -> Panel:
    counts = {f"s{number}": {"accept": number, "reject": 1} for number in range(sessions)}
    panel = Panel(Project(tmp_path, tmp_path, tmp_path), counts=lambda: counts, edits=list)
    panel.set_status(SessionStatus(version=int(time.time()) - 100))
    panel.answered()
    panel.count()
    panel.update(left={None: 7, "s1": 3}, here=sorted(counts), total=9)
    return panel


def data_of(event: bytes) -> dict[str, Any]:
    name, data, *rest = event.decode("ascii").split("\n")
    assert (name, rest) == ("event: state", ["", ""])
    pairs = json.loads(data.removeprefix("data: "), object_pairs_hook=list)
    assert len(dict(pairs)) == len(pairs), "a key twice"
    return dict(json.loads(data.removeprefix("data: ")))


def test_each_session_gets_its_own_figures_of_one_state(tmp_path: Path) -> None:
    panel = panel_of(tmp_path, 3)
    states = StateEvents(panel)
    for session in ("s0", "s1", "s2", "somebody new"):
        revision, event = states.event(session)
        expected, got = json.loads(replies.encode(panel.state(session))), data_of(event)
        assert abs(expected.pop("published_s_ago") - got.pop("published_s_ago")) < 5
        assert (revision, got) == (panel.revision, expected)
    assert data_of(states.event("s1")[1])["left"] == 3
    panel.update(total=10)
    assert data_of(states.event("s1")[1])["total"] == 10


def test_the_state_is_built_once_for_all_pages(tmp_path: Path) -> None:
    panel, built = panel_of(tmp_path, 300), [0]
    states, state = StateEvents(panel), panel.state

    def counted(session: str) -> replies.PanelState:
        built[0] += 1
        return state(session)

    panel.state = counted  # type: ignore[method-assign]
    for round in range(3):
        panel.update(total=round)
        for number in range(300):
            states.event(f"s{number}")
    assert built == [3]


def test_many_pages_get_it_less_often() -> None:
    assert StateEvents.interval_s(1) == StateEvents.interval_s(50) == SHOWN_EVERY_S
    for pages in (100, 300, 1000):
        assert pages / StateEvents.interval_s(pages) <= 200
