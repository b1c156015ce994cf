"""An axe scan of each state of the page has no serious finding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from desk import IMAGES, Desk, Server
from playwright.sync_api import expect

AXE = Path(__file__).parents[2] / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
SERIOUS = ("serious", "critical")


def findings(desk: Desk) -> list[str]:
    """Injected past the content security policy, as a browser extension would."""
    desk.page.evaluate(AXE.read_text(encoding="utf-8"))
    result: dict[str, Any] = desk.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{found['id']} ({found['impact']}): {node['target']} {node['failureSummary']}"
        for found in result["violations"]
        if found["impact"] in SERIOUS
        for node in found["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_while_annotating(server: Server, new_desk: Callable[..., Desk], scheme: str) -> None:
    server.start()
    desk = new_desk(color_scheme=scheme).open()
    for _ in range(6):
        desk.draw((10, 8, 50, 36))
        desk.answer("a")
    desk.draw((10, 8, 50, 36))
    expect(desk.by("history-item").first).to_be_visible()
    assert findings(desk) == []
    desk.press("h")
    expect(desk.by("help")).to_be_visible()
    assert findings(desk) == []


def test_on_a_phone(server: Server, new_desk: Callable[..., Desk]) -> None:
    server.start()
    desk = new_desk(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True).open()
    assert findings(desk) == []


def test_when_all_is_answered_and_when_the_server_is_away(server: Server, new_desk: Callable[..., Desk]) -> None:
    server.start()
    desk = new_desk().open()
    for _ in range(IMAGES - 1):
        desk.answer("a")
    desk.wait_ready()
    desk.press("a")
    expect(desk.by("done")).to_be_visible()
    assert findings(desk) == []
    server.stop()
    expect(desk.by("banner").first).to_be_visible()
    assert findings(desk) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_labels_and_gallery(server: Server, new_desk: Callable[..., Desk], scheme: str) -> None:
    server.start()
    desk = new_desk(color_scheme=scheme).open()
    desk.draw((10, 8, 50, 36))
    desk.answer("a")
    desk.press("l")
    desk.by("assign-keys").click()
    expect(desk.by("label-option").first).to_be_visible()
    assert findings(desk) == []
    desk.press("Escape")
    expect(desk.by("label-picker")).to_be_hidden()
    desk.press("g")
    expect(desk.by("gallery-image").first).to_be_visible()
    assert findings(desk) == []
