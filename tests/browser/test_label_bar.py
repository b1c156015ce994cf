"""Few and many labels in a real browser: the bar, the keys, the search."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from desk import PHONE, Desk, Server
from playwright.sync_api import BrowserContext, expect

from odkeras.labels import LabelMap

NewDesk = Callable[..., Desk]


def name(number: int) -> str:
    return f"part {number:04}"


@pytest.fixture
def start(server: Server) -> Callable[[int], Server]:
    """Starts the server with so many labels; the last one is `Zebra crossing`."""

    def start(count: int) -> Server:
        names = [*(name(number) for number in range(1, count)), "Zebra crossing"]
        LabelMap.from_names(names).save(server.directory / "label_map.pbtxt")
        return server.start()

    return start


def labels_of(server: Server, image_id: str) -> list[str]:
    return [span["label"] for span in server.stored(image_id)["spans"]]


def bar(desk: Desk) -> list[str]:
    """The labels of the bar."""
    return desk.page.locator(".label .name").all_inner_texts()


def search(desk: Desk, text: str) -> None:
    desk.press("l")
    expect(desk.by("label-query")).to_be_focused()
    desk.by("label-query").fill(text)


def test_another_label_map_after_a_restart(start: Callable[[int], Server], new_desk: NewDesk) -> None:
    """The page kept the labels from before, and the server refused the answers with them."""
    server = start(3)
    desk = new_desk().open()
    desk.press("3")
    desk.draw((10, 8, 50, 36))
    assert desk.boxes == ["Zebra crossing drawn"]
    server.stop()
    LabelMap.from_names([name(1), name(2), "tram"]).save(server.directory / "label_map.pbtxt")
    server.start()
    expect(desk.by("label-tram")).to_be_visible(timeout=20_000)
    expect(desk.by("label-Zebra crossing")).to_have_count(0)
    before = desk.image_id
    desk.press("a")
    expect(desk.page.locator(".notice")).to_contain_text("“Zebra crossing” is no longer in the label map")
    assert desk.image_id == before
    desk.press("]", "3")
    assert labels_of(server, desk.answer("a")) == ["tram"]


def test_any_label_is_found_by_typing(start: Callable[[int], Server], new_desk: NewDesk) -> None:
    server = start(1000)
    desk = new_desk().open()
    search(desk, "zebra")
    expect(desk.by("label-option")).to_have_count(1)
    desk.press("Enter")
    expect(desk.by("label-picker")).to_be_hidden()
    desk.draw((10, 8, 50, 36))
    assert labels_of(server, desk.answer("a")) == ["Zebra crossing"]
    assert "Zebra crossing" in bar(desk), "what was used lately is in the bar"
    desk.press("/")  # the other key
    expect(desk.by("label-option").first).to_contain_text("Zebra crossing")  # the one used last comes first


def test_arrows_choose_and_escape_cancels(start: Callable[[int], Server], new_desk: NewDesk) -> None:
    server = start(1000)
    desk = new_desk().open()
    search(desk, "part 003")
    desk.press("ArrowDown", "ArrowDown", "ArrowUp", "Escape")
    expect(desk.by("label-picker")).to_be_hidden()
    expect(desk.by(f"label-{name(1)}")).to_have_attribute("aria-pressed", "true")
    search(desk, "part 003")
    desk.press("ArrowDown", "ArrowDown", "Enter")
    desk.draw((10, 8, 50, 36))
    assert labels_of(server, desk.answer("a")) == [name(32)]


def test_search_relabels_a_selected_box(start: Callable[[int], Server], new_desk: NewDesk) -> None:
    server = start(200)
    desk = new_desk().open()
    desk.draw((10, 8, 50, 36))
    desk.press("Escape")
    desk.click(30, 20)
    search(desk, "zebra")
    desk.by("label-option").click()
    desk.press("Escape")
    desk.draw((60, 40, 90, 60))
    assert labels_of(server, desk.answer("a")) == ["Zebra crossing", name(1)]


def test_a_person_gives_labels_their_keys(
    start: Callable[[int], Server], new_desk: NewDesk, contexts: Callable[..., BrowserContext]
) -> None:
    """They are kept for the dataset, in this browser."""
    server = start(28)
    context = contexts()
    desk = new_desk(context).open()
    assert bar(desk) == [name(number) for number in range(1, 11)]
    search(desk, "zebra")
    desk.by("assign-keys").click()
    desk.by("assign-3").click()
    desk.by("label-query").fill(name(1))
    desk.by("assign-4").click()  # swaps: 1 had it
    desk.press("Escape")
    expect(desk.by("label-picker")).to_be_hidden()
    keyed = ["Zebra crossing", name(4), name(1)]
    assert [bar(desk)[at] for at in (2, 0, 3)] == keyed
    desk.page.reload()
    desk.wait_ready()
    for key, box in (("3", (5, 5, 25, 25)), ("1", (40, 5, 60, 25)), ("4", (70, 5, 90, 25))):
        desk.press(key)
        desk.draw(box)
    assert labels_of(server, desk.answer("a")) == keyed
    desk.press("l")
    desk.by("assign-keys").click()
    desk.by("reset-keys").click()
    desk.press("Escape")
    assert bar(desk) == [name(number) for number in range(1, 11)] + ["Zebra crossing"]


def test_few_labels_are_all_in_the_bar(start: Callable[[int], Server], new_desk: NewDesk) -> None:
    start(3)
    desk = new_desk().open()
    assert bar(desk) == [name(1), name(2), "Zebra crossing"]
    expect(desk.by("label-search")).to_have_count(0)
    search(desk, "zebra")
    desk.press("Enter")
    expect(desk.by("label-Zebra crossing")).to_have_attribute("aria-pressed", "true")


def test_search_by_touch_on_a_phone(start: Callable[[int], Server], new_desk: NewDesk) -> None:
    server = start(1000)
    desk = new_desk(**PHONE).open()
    before = desk.stage.bounding_box()
    desk.by("label-search").tap()
    desk.by("label-query").fill("zebra")
    desk.by("label-option").tap()
    expect(desk.by("label-picker")).to_be_hidden()
    chosen = desk.by("label-Zebra crossing")
    expect(chosen).to_have_attribute("aria-pressed", "true")
    expect(chosen).to_be_in_viewport(ratio=1)
    assert desk.stage.bounding_box() == before, "the image stays where it is"
    desk.page.keyboard.press("b")
    assert labels_of(server, desk.answer("a")) == ["Zebra crossing"]
    assert desk.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize("count", [3, 28, 1000])
def test_no_row_of_labels_is_clipped(start: Callable[[int], Server], new_desk: NewDesk, count: int) -> None:
    start(count)
    desk = new_desk().open()
    for size in ((1440, 960), (1280, 720), (700, 900)):
        desk.page.set_viewport_size({"width": size[0], "height": size[1]})
        clipped = desk.page.evaluate(
            """() => {
              const bar = document.querySelector('.toolbar').getBoundingClientRect();
              const inside = ({left, top, right, bottom}) =>
                left >= bar.left && top >= bar.top && right <= bar.right && bottom <= bar.bottom;
              return [...document.querySelectorAll('.toolbar button')]
                .filter((button) => !inside(button.getBoundingClientRect())).map((button) => button.textContent);
            }"""
        )
        assert clipped == []
        box = desk.stage.bounding_box()
        assert box is not None and box["height"] > 0.5 * size[1], "the bar leaves the image its room"


def test_drawing_with_a_thousand_labels_is_quick(start: Callable[[int], Server], new_desk: NewDesk) -> None:
    """A button for each label was rendered at each movement of the mouse."""
    start(1000)
    desk = new_desk().open()
    assert desk.page.locator(".toolbar .label").count() <= 15
    desk.page.evaluate(
        """() => {
          window.changes = 0;
          new MutationObserver((list) => window.changes += list.length)
            .observe(document.querySelector('.label-bar'), {subtree: true, childList: true, attributes: true});
        }"""
    )
    desk.draw((10, 8, 50, 36))
    desk.drag((30, 20), (40, 30))
    assert desk.page.evaluate("window.changes") == 0
    took_ms = desk.page.evaluate(
        """async () => {
          const started = performance.now();
          for (let at = 0; at < 20; at++) document.querySelectorAll('.label')[at % 10].click();
          await new Promise((resolve) => requestAnimationFrame(resolve));
          return performance.now() - started;
        }"""
    )
    assert took_ms < 1000, "50 ms for each choice, on a machine that does other things as well"


def test_the_search_is_read_out(start: Callable[[int], Server], new_desk: NewDesk) -> None:
    start(200)
    desk = new_desk().open()
    search(desk, "part 001")
    desk.press("ArrowDown")
    active = str(desk.by("label-query").get_attribute("aria-activedescendant"))
    option = desk.page.locator(f"#{active}")
    expect(option).to_have_attribute("aria-selected", "true")
    expect(option).to_have_attribute("aria-setsize", "11")
    expect(option).to_contain_text(name(11))
    expect(desk.page.get_by_role("listbox")).to_be_visible()
    expect(desk.page.get_by_role("combobox", name=re.compile("Search labels"))).to_be_focused()
