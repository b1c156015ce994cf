"""Several people: a link that asks for a name, and a page for those who have no link."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from desk import PHONE, Desk, Server
from playwright.sync_api import BrowserContext, Page, expect
from test_accessibility import findings
from waiting import wait_until


@pytest.fixture
def open_to_all(server: Server) -> Server:
    """Other machines may reach it, with a token."""
    server.options = [*server.options, "--host", "0.0.0.0", "--token", "correct-horse"]
    return server.start()


def elsewhere(server: Server, query: str = "token=correct-horse") -> str:
    """An address by which another machine could come: not one of the loopback interface."""
    return f"http://0.0.0.0:{server.port}/?{query}"


def goto(desk: Desk, address: str) -> Page:
    desk.page.goto(address)
    return desk.page


def test_the_link_for_a_colleague_asks_for_a_name(
    server: Server, contexts: Callable[..., BrowserContext], new_desk: Callable[..., Desk]
) -> None:
    """Copied in the page of the first person, who was not asked."""
    server.start()
    context = contexts()
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    first = new_desk(context).open()
    expect(first.by("name-form")).to_be_hidden()
    first.page.get_by_text("Work together").click()
    first.by("invite").click()
    first.by("copy-link").click()
    expect(first.by("panel")).to_contain_text("Copied")
    expect(first.by("panel")).to_contain_text("--host 0.0.0.0")
    link = first.page.evaluate("navigator.clipboard.readText()")
    assert link == f"{server.url}/?session="

    colleague = new_desk()
    goto(colleague, link)
    expect(colleague.by("name")).to_be_focused()
    assert colleague.stage.get_attribute("data-ready") is None, "nothing is handed out to a person without a name"
    colleague.page.keyboard.type("Anna Müller")
    expect(colleague.by("name-form")).to_contain_text("The others will see “Anna-Muller”")
    colleague.press("Enter")
    colleague.wait_ready()
    assert colleague.page.url == f"{server.url}/?session=Anna-Muller"
    assert colleague.image_id != first.image_id
    colleague.answer("x")
    wait_until(lambda: server.answers(), "the answer")
    assert server.answers()[0]["_session_id"] == "things-Anna-Muller"

    goto(colleague, link)
    expect(colleague.by("name")).to_have_value("Anna-Muller")
    colleague.page.reload()
    colleague.by("name-form").get_by_role("button").click()
    colleague.wait_ready()


def test_an_invalid_name_is_asked_for_again(server: Server, new_desk: Callable[..., Desk]) -> None:
    server.start()
    desk = new_desk()
    goto(desk, f"{server.url}/?session=")
    for name in ("", "   ", "王小明", "default", "Default"):
        desk.by("name").fill(name)
        desk.press("Enter")
        expect(desk.by("name-form")).to_contain_text("letters from a to z or digits")
        expect(desk.by("name")).to_be_focused()
    desk.by("name").fill("ben")
    desk.press("Enter")
    desk.wait_ready()


def test_from_another_machine(open_to_all: Server, new_desk: Callable[..., Desk]) -> None:
    """On a phone; the name is asked for once."""
    desk = new_desk(**PHONE)
    goto(desk, elsewhere(open_to_all))
    expect(desk.by("name-form")).to_be_visible()
    assert "token" not in desk.page.url
    assert findings(desk) == []
    desk.by("name").fill("ben")
    desk.by("name-form").get_by_role("button").tap()
    desk.wait_ready()
    assert desk.page.url.endswith("/?session=ben")
    goto(desk, elsewhere(open_to_all))
    desk.wait_ready()
    assert desk.page.url.endswith("/?session=ben")
    desk.page.get_by_text("Work together").tap()
    desk.by("invite").tap()
    expect(desk.by("shared-link")).to_have_text(elsewhere(open_to_all, "token=correct-horse&session="))
    desk.by("copy-link").tap()
    expect(desk.by("panel")).to_contain_text("Copied")


def test_on_the_machine_itself_no_name_is_needed(open_to_all: Server, new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    goto(desk, f"{open_to_all.url}/?token=correct-horse")
    desk.wait_ready()
    expect(desk.by("name-form")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_without_the_token_there_is_a_page_in_plain_words(
    open_to_all: Server, new_desk: Callable[..., Desk], scheme: str
) -> None:
    desk = new_desk(color_scheme=scheme)
    for query in ("", "session=anna", "token=wrong"):
        response = desk.page.goto(elsewhere(open_to_all, query))
        assert response is not None and response.status == 401
    expect(desk.page.get_by_role("heading")).to_have_text("This page needs its link")
    expect(desk.page.locator("main")).to_contain_text(re.compile("open the whole link that odkeras annotate printed"))
    assert desk.page.evaluate("getComputedStyle(document.body).maxWidth") != "none", "its style is allowed"
    assert findings(desk) == []
