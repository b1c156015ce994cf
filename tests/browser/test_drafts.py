"""The boxes of the image at hand outlive a reload, a closed tab, and a restart of the server."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from desk import Box, Desk, Server, box_of, change_tasks
from playwright.sync_api import BrowserContext, Page, expect
from waiting import wait_until

MINE: Box = (10, 8, 50, 36)
SUGGESTED: Box = (60, 40, 90, 60)
SPAN = {"id": "suggested", "label": "car", "type": "rect", "x": 60, "y": 40, "width": 30, "height": 20, "score": 0.9}


def suggest(page: Page, version: int = 1_790_000_000) -> None:
    """From now on a model has suggested one box in each image."""

    change_tasks(page, lambda task: task.update(spans=[SPAN], version=version, threshold=0.5))


def drafts(desk: Desk) -> list[str]:
    return list(desk.page.evaluate("Object.keys(localStorage).filter(key => key.startsWith('odkeras:draft:'))"))


def draft_is_written(desk: Desk, count: int = 1) -> None:
    wait_until(lambda: len(drafts(desk)) == count, "the draft")


def test_a_reload_at_once_keeps_what_was_drawn(desk: Desk, server: Server) -> None:
    image_id = desk.image_id
    desk.draw(MINE)
    desk.page.reload()
    desk.wait_ready()
    assert desk.image_id == image_id
    expect(desk.by("box-item")).to_have_count(1)
    expect(desk.by("restored")).to_contain_text("Your unsaved boxes were restored")
    desk.draw(SUGGESTED)
    desk.page.reload()
    desk.wait_ready()
    expect(desk.by("box-item")).to_have_count(2)
    desk.by("keep-draft").click()
    expect(desk.by("restored")).to_be_hidden()
    assert desk.answer("a") == image_id
    assert [box_of(span) for span in server.stored(image_id)["spans"]] == [
        pytest.approx(box, abs=0.6) for box in (MINE, SUGGESTED)
    ]
    assert drafts(desk) == []
    desk.page.reload()
    desk.wait_ready()
    expect(desk.by("restored")).to_be_hidden()


def test_a_reload_during_a_correction_keeps_its_image(desk: Desk, server: Server) -> None:
    """Another image came, and the correction was nowhere to be seen."""
    image_id = desk.answer("a")
    server.stored(image_id)["spans"]
    desk.wait_ready()
    waiting = desk.image_id
    desk.press("Backspace")
    expect(desk.stage).to_have_attribute("data-image-id", image_id)
    desk.wait_ready()
    desk.draw(MINE)
    desk.page.reload()
    desk.wait_ready()
    assert desk.image_id == image_id
    expect(desk.by("box-item")).to_have_count(1)
    desk.answer("a")
    wait_until(lambda: len(server.stored(image_id)["spans"]) == 1, "the correction")
    expect(desk.stage).to_have_attribute("data-image-id", waiting)
    desk.page.reload()
    desk.wait_ready()
    assert desk.image_id == waiting


def test_a_removed_suggestion_stays_removed(server: Server, new_desk: Callable[..., Desk]) -> None:
    server.start()
    desk = new_desk()
    suggest(desk.page)
    desk.open()
    expect(desk.by("box-item")).to_have_count(1)
    desk.press("d")
    expect(desk.by("box-item")).to_have_count(0)
    desk.page.reload()
    desk.wait_ready()
    expect(desk.by("restored")).to_be_visible()
    expect(desk.by("box-item")).to_have_count(0)


def test_a_new_tab_takes_over_the_image_of_a_closed_one(
    server: Server, contexts: Callable[..., BrowserContext], new_desk: Callable[..., Desk]
) -> None:
    """It was another tab to the server, which kept the image for the closed one for 20 seconds."""
    server.start()
    context = contexts()
    desk = new_desk(context).open()
    image_id = desk.image_id
    desk.draw(MINE)
    desk.page.close(run_before_unload=True)
    again = new_desk(context).open()
    assert again.image_id == image_id
    expect(again.by("box-item")).to_have_count(1)
    other = new_desk(context).open()
    assert other.image_id != image_id, "the closed tab is taken over once"
    expect(other.by("restored")).to_be_hidden()


def test_the_persons_boxes_win_over_newer_suggestions(desk: Desk, server: Server) -> None:
    """After a restart of the server; the answer is not counted as one about the newer suggestions."""
    image_id, version = desk.image_id, desk.stage.get_attribute("data-version")
    desk.draw(MINE)
    draft_is_written(desk)
    server.stop()
    server.start()
    suggest(desk.page)
    desk.page.reload()
    desk.wait_ready()
    assert desk.image_id == image_id
    assert desk.boxes == ["car drawn"]
    assert desk.stage.get_attribute("data-version") == version, "the boxes are not about the newer version's"
    assert desk.answer("a") == image_id
    (span,) = server.stored(image_id)["spans"]
    assert box_of(span) == pytest.approx(MINE, abs=0.6)


def test_start_over_from_the_suggestions_with_the_keyboard(desk: Desk) -> None:
    desk.draw(MINE)
    draft_is_written(desk)
    suggest(desk.page)
    desk.page.reload()
    desk.wait_ready()
    start_over = desk.by("start-over")
    expect(start_over).to_have_text("Start over from the suggestions")
    start_over.focus()
    desk.press("Enter")
    expect(desk.by("restored")).to_be_hidden()
    expect(desk.by("box-item")).to_have_text("car suggested 90 %")
    assert drafts(desk) == []


def test_drafts_of_other_sessions_and_other_images_stay_apart(
    server: Server, contexts: Callable[..., BrowserContext], new_desk: Callable[..., Desk]
) -> None:
    server.options = [*server.options, "--overlap"]
    server.start()
    context = contexts()
    anna, ben = new_desk(context).open("anna"), new_desk(context).open("ben")
    assert anna.image_id == ben.image_id
    anna.draw(MINE)
    draft_is_written(anna)
    ben.page.reload()
    ben.wait_ready()
    expect(ben.by("box-item")).to_have_count(0)
    ben.answer("a")
    anna.page.reload()
    anna.wait_ready()
    expect(anna.by("box-item")).to_have_count(1)


def test_a_full_storage_makes_room_and_strange_drafts_are_ignored(desk: Desk) -> None:
    """The oldest drafts are deleted first; malformed drafts and drafts with unknown labels are ignored."""
    desk.page.evaluate(
        """() => {
            const old = JSON.stringify({ spans: [], first: [], saved_at_ms: 5, filling: 'x'.repeat(100000) });
            for (let n = 0; n < 9; n++) localStorage.setItem('odkeras:draft:things:default:old' + n, old);
            try { for (let n = 0; ; n++) localStorage.setItem('other' + n, 'x'.repeat(50000)) } catch {}
            try { for (let n = 0; ; n++) localStorage.setItem('small' + n, 'x') } catch {}
        }"""
    )
    image_id = desk.image_id
    desk.draw(MINE)
    key = f"odkeras:draft:things:default:{image_id}"
    wait_until(lambda: key in drafts(desk), "the draft")
    desk.page.reload()
    desk.wait_ready()
    expect(desk.by("box-item")).to_have_count(1)
    for strange in ("{", "7", '{"spans": [{"id": "1"}], "first": []}', '{"spans": 5, "first": []}'):
        desk.page.evaluate("([key, text]) => localStorage.setItem(key, text)", [key, strange])
        desk.page.reload()
        desk.wait_ready()
        expect(desk.by("box-item")).to_have_count(0)
    unknown = {"spans": [{**SPAN, "label": "unicorn"}], "first": [], "version": None, "threshold": 0.5}
    desk.page.evaluate("([key, text]) => localStorage.setItem(key, text)", [key, json.dumps(unknown)])
    desk.page.reload()
    desk.wait_ready()
    expect(desk.by("box-item")).to_have_count(0)


def test_only_so_many_drafts_are_kept(desk: Desk) -> None:
    desk.page.evaluate(
        """() => {
            const draft = (n) => JSON.stringify({ spans: [], first: [], saved_at_ms: n });
            for (let n = 0; n < 60; n++) localStorage.setItem('odkeras:draft:more:anna:' + n, draft(n));
        }"""
    )
    desk.draw(MINE)
    draft_is_written(desk, 40)
    kept = drafts(desk)
    assert f"odkeras:draft:things:default:{desk.image_id}" in kept
    assert "odkeras:draft:more:anna:59" in kept and "odkeras:draft:more:anna:20" not in kept
