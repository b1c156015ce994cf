"""The seconds of work on an image, which are sent with its answer. The page's clock is moved on by hand; it goes on by
itself, too, so that the seconds have an upper bound only."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from desk import Box, Desk, Server
from playwright.sync_api import expect
from waiting import wait_until

FIRST: Box = (10, 8, 40, 30)
SLACK_S = 25.0
"""What the steps of a test may take by themselves, on a busy machine."""
SET_HIDDEN = """hidden => {
    Object.defineProperty(document, "visibilityState", {value: hidden ? "hidden" : "visible", configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));
}"""
SET_UNFOCUSED = """unfocused => {
    document.hasFocus = () => !unfocused;
    window.dispatchEvent(new Event(unfocused ? "blur" : "focus"));
}"""


@pytest.fixture
def timed(server: Server, new_desk: Callable[..., Desk]) -> Desk:
    server.start()
    desk = new_desk()
    desk.page.clock.install()
    return desk.open()


def wait_seconds(desk: Desk, *seconds: float) -> None:
    """The seconds pass, with a move of the pointer after each number of them."""
    for number, passed in enumerate(seconds):
        desk.page.clock.fast_forward(int(passed * 1000))
        desk.page.mouse.move(*desk.point(20 + number, 20))


def stored_s(desk: Desk, image_id: str) -> float:
    return float(desk.server.stored(image_id)["_active_s"])


def test_pauses_are_cut_to_30_seconds(timed: Desk) -> None:
    wait_seconds(timed, 20, 3600, 25)
    timed.draw(FIRST)
    first = timed.answer("a")
    second = timed.answer("a")
    assert 75 <= stored_s(timed, first) < 75 + SLACK_S
    assert stored_s(timed, second) < SLACK_S


@pytest.mark.parametrize("script", [SET_HIDDEN, SET_UNFOCUSED])
def test_time_while_the_page_is_hidden_or_not_focused_does_not_count(timed: Desk, script: str) -> None:
    wait_seconds(timed, 10)
    timed.page.evaluate(script, True)
    wait_seconds(timed, *[25] * 6)
    timed.page.evaluate(script, False)
    wait_seconds(timed, 10)
    assert 20 <= stored_s(timed, timed.answer("a")) < 20 + SLACK_S


def test_time_in_the_gallery_does_not_count(timed: Desk) -> None:
    timed.press("g")
    expect(timed.by("gallery")).to_be_visible()
    for _ in range(6):
        timed.page.clock.fast_forward(25_000)
        timed.press("Shift")
    timed.press("Escape")
    expect(timed.by("gallery")).to_be_hidden()
    assert stored_s(timed, timed.answer("a")) < SLACK_S


def test_a_correction_adds_its_time(timed: Desk) -> None:
    wait_seconds(timed, 20)
    image_id = timed.answer("a")
    assert 20 <= stored_s(timed, image_id) < 20 + SLACK_S
    wait_seconds(timed, 28)  # on the next image
    timed.press("Backspace")
    expect(timed.stage).to_have_attribute("data-image-id", image_id)
    timed.wait_ready()
    wait_seconds(timed, 20)
    timed.answer("x")
    wait_until(lambda: timed.server.stored(image_id)["answer"] == "reject", "the correction")
    assert 40 <= stored_s(timed, image_id) < 40 + SLACK_S


def test_a_draft_keeps_its_time_over_a_reload(timed: Desk) -> None:
    wait_seconds(timed, 25, 25)
    timed.draw(FIRST)
    timed.page.reload()
    timed.wait_ready()
    expect(timed.by("restored")).to_be_visible()
    wait_seconds(timed, 20)
    assert 70 <= stored_s(timed, timed.answer("a")) < 70 + SLACK_S
