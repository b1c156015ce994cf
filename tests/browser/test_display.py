"""How boxes, image and page look can be chosen, and is remembered."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from desk import PHONE, Desk, Server
from PIL import Image
from playwright.sync_api import BrowserContext, Locator, expect
from test_accessibility import findings

STYLES = Path(__file__).parents[2] / "frontend" / "src" / "styles"
BOX = ".a9s-annotation:not(.selected) .a9s-inner"


def style_of(desk: Desk, selector: str, name: str) -> str:
    return str(desk.page.eval_on_selector(selector, "(element, name) => getComputedStyle(element)[name]", name))


def brightness(locator: Locator) -> float:
    return float(np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("L")).mean())


def slide(desk: Desk, name: str, *keys: str) -> None:
    desk.by("display").get_by_role("slider", name=name).focus()
    desk.press(*keys)


@pytest.fixture
def open_settings(desk: Desk) -> Desk:
    """With one box that is not selected."""
    desk.draw((10, 8, 50, 36))
    desk.press("Escape")
    desk.by("display-button").click()
    expect(desk.by("display")).to_be_visible()
    return desk


def test_boxes(open_settings: Desk) -> None:
    desk = open_settings
    assert float(style_of(desk, BOX, "fillOpacity")) > 0
    desk.by("display").get_by_label("Fill").uncheck()
    assert float(style_of(desk, BOX, "fillOpacity")) == 0
    slide(desk, "Line width", "End")
    assert style_of(desk, BOX, "strokeWidth") == "8px"
    slide(desk, "Opacity", "Home")
    assert style_of(desk, ".a9s-annotation", "opacity") == "0.1"
    tag = desk.page.locator(".tag")
    expect(tag).to_be_visible()
    desk.by("display-names-none").click()
    expect(tag).to_be_hidden()
    desk.by("display-names-selected").click()
    expect(tag).to_be_hidden()
    desk.press("]")
    expect(tag).to_be_visible()
    assert style_of(desk, ".a9s-annotation", "opacity") == "1", "what one works on is seen"


def test_dark_pictures_can_be_brightened_and_the_boxes_stay_as_they_are(open_settings: Desk) -> None:
    desk = open_settings
    desk.press("v")
    before = brightness(desk.by("image"))
    desk.press("v")
    slide(desk, "Brightness", *["ArrowRight"] * 10)
    desk.press("v")
    assert brightness(desk.by("image")) > before * 1.1
    desk.press("v")
    slide(desk, "Contrast", *["ArrowRight"] * 3)
    assert style_of(desk, "[data-testid=image]", "filter") == "brightness(2) contrast(1.3)"
    assert style_of(desk, ".a9s-annotationlayer", "filter") == "none"


def test_what_was_chosen_is_kept_and_can_be_reset(
    server: Server, contexts: Callable[..., BrowserContext], new_desk: Callable[..., Desk]
) -> None:
    """In all tabs of the browser, also those that are open."""
    server.start()
    context = contexts()
    desk, other = new_desk(context).open(), new_desk(context).open()
    expect_light = desk.page.evaluate("getComputedStyle(document.body).backgroundColor")
    desk.press("v")
    desk.by("display-theme-dark").click()
    slide(desk, "Brightness", "End")
    desk.page.reload()
    desk.wait_ready()
    for each in (desk, other):
        each.page.wait_for_function(
            "before => getComputedStyle(document.body).backgroundColor !== before", arg=expect_light
        )
        expect(each.by("image")).to_have_css("filter", "brightness(4) contrast(1)")
    desk.press("v")
    desk.by("display-reset").click()
    expect(desk.by("display-reset")).to_be_disabled()
    assert style_of(desk, "[data-testid=image]", "filter") == "none"
    assert desk.page.evaluate("getComputedStyle(document.body).backgroundColor") == expect_light


def test_settings_of_another_version_or_another_program_are_as_by_default(desk: Desk) -> None:
    desk.by("display-button").click()
    desk.by("display-names-none").click()
    for strange in ("{", "null", "[]", '{"theme": "pink", "line": 1e9, "brightness": "x", "fill": 0, "opacity": null}'):
        desk.page.evaluate("text => localStorage.setItem('odkeras:display', text)", strange)
        desk.page.reload()
        desk.wait_ready()
        desk.press("v")
        expect(desk.by("display-reset")).to_be_disabled()


@pytest.mark.parametrize(("system", "chosen"), [("light", "dark"), ("dark", "light")])
def test_the_theme_overrides_the_systems(
    server: Server, new_desk: Callable[..., Desk], system: str, chosen: str
) -> None:
    server.start()
    desk = new_desk(color_scheme=system).open()
    desk.press("v")
    desk.by(f"display-theme-{chosen}").click()
    expect(desk.by(f"display-theme-{chosen}")).to_have_attribute("aria-pressed", "true")
    red = int(desk.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0]"))
    assert (red < 100) == (chosen == "dark")
    assert findings(desk) == []


def test_no_style_asks_for_the_systems_theme_alone() -> None:
    """It would not follow the switch: colours are written with light-dark()."""
    assert [path.name for path in STYLES.glob("*.css") if "prefers-color-scheme" in path.read_text()] == []


def test_lines_through_the_pointer(open_settings: Desk) -> None:
    """Also while a box is drawn; never in the way of the pointer."""
    desk = open_settings
    guides = desk.by("guides")
    desk.page.mouse.move(*desk.point(30, 20))
    expect(guides).to_be_hidden()
    desk.by("display").get_by_label("Lines through the pointer").check()
    x, y = desk.point(30, 20)
    desk.page.mouse.move(x, y)
    expect(guides).to_be_visible()
    stage = desk.stage.bounding_box()
    assert stage is not None
    place = guides.evaluate("e => ['--down', '--across'].map(name => parseFloat(e.style.getPropertyValue(name)))")
    assert place == pytest.approx([x - stage["x"], y - stage["y"]], abs=1)
    desk.draw((55, 40, 80, 60))
    expect(guides).to_be_visible()
    desk.by("accept").hover()
    expect(guides).to_be_hidden()


def test_with_the_keyboard_alone(desk: Desk) -> None:
    """The focus goes in and comes back; letters work on the image all the while, Escape closes."""
    desk.by("display-button").focus()
    desk.press("Enter")
    expect(desk.by("display-theme-auto")).to_be_focused()
    desk.press("Tab", "Tab", "Enter")
    expect(desk.by("display-theme-dark")).to_have_attribute("aria-pressed", "true")
    desk.press("Escape")
    expect(desk.by("display")).to_be_hidden()
    expect(desk.by("display-button")).to_be_focused()
    desk.press("v")
    slide(desk, "Opacity", "Home", "b", "ArrowRight")
    expect(desk.by("box-item")).to_have_count(1)
    expect(desk.by("display")).to_contain_text("15 %")
    image_id = desk.image_id
    desk.press("a")
    expect(desk.stage).not_to_have_attribute("data-image-id", image_id)
    desk.press("Escape")
    expect(desk.by("display")).to_be_hidden()


def test_after_a_click_keys_work_on_the_image(open_settings: Desk) -> None:
    """The space bar ignores the image, and does not tick the box again."""
    desk = open_settings
    fill = desk.by("display").get_by_label("Fill")
    desk.by("display").get_by_text("Fill").click()
    expect(fill).not_to_be_checked()
    image_id = desk.image_id
    desk.press(" ")
    expect(desk.stage).not_to_have_attribute("data-image-id", image_id)
    expect(fill).not_to_be_checked()


def test_on_a_phone(server: Server, new_desk: Callable[..., Desk]) -> None:
    server.start()
    desk = new_desk(**PHONE).open()
    desk.by("display-button").tap()
    expect(desk.by("display")).to_be_in_viewport()
    desk.by("display").get_by_label("Fill").tap()
    expect(desk.by("display").get_by_label("Fill")).not_to_be_checked()
    desk.by("display-theme-dark").tap()
    assert findings(desk) == []
    wide = desk.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    assert not wide, "the page scrolls sideways"
    desk.by("display").get_by_role("button", name="Close").tap()
    expect(desk.by("display")).to_be_hidden()


def test_a_long_state_of_the_trainer_is_cut_and_breaks_nothing_else_in_the_header(desk: Desk) -> None:
    before = desk.page.locator(".top").bounding_box()
    desk.page.eval_on_selector(".trainer", "element => { element.textContent = 'training further '.repeat(40) }")
    assert desk.page.locator(".top").bounding_box() == before
    assert desk.page.eval_on_selector(".where", "element => element.scrollWidth <= element.clientWidth")
