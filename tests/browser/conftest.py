"""A real Chromium, and `odkeras annotate` as a process with a fake trainer and model server behind it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from desk import IMAGES, Desk, Server, draw_picture
from picking import open_with_candidates
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, sync_playwright

from odkeras.labels import LabelMap

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_OFFLINE = re.compile(r"ERR_(CONNECTION|INTERNET|NETWORK|INCOMPLETE|EMPTY)|status of (0|5\d\d|401)")
_PLAIN_HTTP = "Cross-Origin-Opener-Policy header has been ignored"  # from another machine, without TLS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")  # not longer: while Playwright runs, no other test of this thread can use asyncio
def browser() -> Iterator[Browser]:
    path = next((found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name))), None)
    if path is None:
        message = "no Chromium; `make browser` installs it on Debian and Ubuntu"
        if os.environ.get("ODKERAS_REQUIRE_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield found
        found.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Pictures of one bright rectangle each, `number.png`; its pixels are in `truth`."""
    (tmp_path / "pipeline.config").write_text("# the fakes do not read it\n")
    LabelMap.from_names(["car", "person"]).save(tmp_path / "label_map.pbtxt")
    (tmp_path / "images").mkdir()
    for number in range(IMAGES):
        draw_picture(number).save(tmp_path / "images" / f"{number:02}.png")
    return tmp_path


@pytest.fixture
def server(project: Path) -> Iterator[Server]:
    """Not started yet."""
    # A fixed threshold: which suggestions are shown must not depend on the answers.
    made = Server(project, options=["--steps-per-epoch", "5", "--threshold", "0.5"])
    yield made
    made.stop()


@pytest.fixture
def contexts(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    made: list[BrowserContext] = []

    def make(**options: object) -> BrowserContext:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})  # type: ignore[arg-type]
        context.set_default_timeout(15_000)
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()


@pytest.fixture
def new_desk(
    server: Server, contexts: Callable[..., BrowserContext], request: pytest.FixtureRequest
) -> Iterator[Callable[..., Desk]]:
    """Makes pages; at the end each leaves a screenshot and must not have complained on its console."""
    desks: list[Desk] = []

    def make(context: BrowserContext | None = None, **options: object) -> Desk:
        desk = Desk((context or contexts(**options)).new_page(), server)
        desk.page.on("console", lambda message: _note(desk, message))
        desk.page.on("pageerror", lambda error: desk.problems.append(f"uncaught: {error}"))
        desks.append(desk)
        return desk

    yield make
    name = re.sub(r"\W+", "-", request.node.name).strip("-")
    for number, desk in enumerate(desks):
        desk.screenshot(f"{name}-{number}" if number else name)
    assert [problem for desk in desks for problem in desk.problems] == []


def _note(desk: Desk, message: ConsoleMessage) -> None:
    """A server that is down is not an error of the page."""
    if _OFFLINE.search(message.text) or _PLAIN_HTTP in message.text:
        return
    if message.type in ("error", "warning"):
        desk.problems.append(message.text)


@pytest.fixture
def desk(server: Server, new_desk: Callable[..., Desk]) -> Desk:
    """One open page, on a started server."""
    server.start()
    return new_desk().open()


@pytest.fixture
def picking(server: Server, new_desk: Callable[..., Desk]) -> Callable[..., Desk]:
    """Opens a page whose images have candidates; see `open_with_candidates`."""
    return partial(open_with_candidates, server, new_desk)
