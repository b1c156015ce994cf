"""Renaming, recolouring, merging and retiring labels in the page."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from desk import Desk, Server
from playwright.sync_api import expect
from test_accessibility import findings
from waiting import wait_until

from odkeras.labels import LabelMap

NewDesk = Callable[..., Desk]


@pytest.fixture
def started(server: Server) -> Server:
    (server.directory / "pipeline.config").write_text("model { center_net { num_classes: 2 } }\n")
    return server.start()


def names(server: Server) -> tuple[str, ...]:
    return LabelMap.load(server.directory / "label_map.pbtxt").names


def open_menu(desk: Desk) -> None:
    desk.by("edit-labels").click()
    expect(desk.by("label-menu")).to_be_visible()


def message(desk: Desk, text: str) -> None:
    expect(desk.by("label-menu-message")).to_have_text(text)


def without_refusals(desk: Desk) -> None:
    """Chromium reports each refused request on the console."""
    desk.problems[:] = [text for text in desk.problems if "409" not in text]


def test_rename_with_keys_alone(started: Server, new_desk: NewDesk) -> None:
    """The boxes on the screen, their undo steps and the answers get the name, the label keeps its key."""
    desk = new_desk().open()
    desk.draw((10, 8, 50, 36))
    first = desk.answer("a")
    desk.draw((10, 8, 50, 36))
    desk.draw((60, 40, 80, 60))
    image = desk.image_id
    desk.press("l")
    expect(desk.by("label-query")).to_be_focused()
    desk.press("Tab", "Tab", "Tab")
    expect(desk.by("open-label-menu")).to_be_focused()
    desk.press("Enter")
    desk.by("rename-car").focus()
    desk.press("Enter")
    expect(desk.by("label-value")).to_be_focused()
    expect(desk.by("label-edit-effect")).to_contain_text("in 1 answered image get the new name")
    desk.page.keyboard.type(" motor car ")
    desk.press("Enter")
    message(desk, "“car” is “motor car” now")
    assert desk.image_id == image and names(started) == ("motor car", "person")
    desk.press("Escape")
    expect(desk.by("label-menu")).to_be_hidden()
    assert desk.boxes == ["motor car drawn"] * 2
    desk.press("u")
    assert desk.boxes == ["motor car drawn"]
    desk.press("2", "1")
    desk.draw((60, 40, 80, 60))
    second = desk.answer("a")
    for image_id in (first, second):
        assert {span["label"] for span in started.stored(image_id)["spans"]} == {"motor car"}


def test_names_that_are_refused_and_cancelled(started: Server, new_desk: NewDesk) -> None:
    desk = new_desk().open()
    open_menu(desk)
    desk.by("rename-car").click()
    for name, reason in (("Person", "there is a label 'person' already"), ("a, b", "without a comma")):
        desk.by("label-value").fill(name)
        desk.by("apply-label-edit").click()
        expect(desk.page.get_by_role("alert")).to_contain_text(reason)
    desk.page.get_by_role("button", name="Cancel").click()
    expect(desk.by("label-form")).to_have_count(0)
    expect(desk.by("rename-car")).to_be_focused()
    assert names(started) == ("car", "person")
    without_refusals(desk)


def test_merge_a_label_that_has_answers(started: Server, new_desk: NewDesk) -> None:
    desk = new_desk().open()
    desk.press("2")
    desk.draw((10, 8, 50, 36))
    image_id = desk.answer("a")
    assert [span["label"] for span in started.stored(image_id)["spans"]] == ["person"]
    open_menu(desk)
    desk.by("merge-person").click()
    expect(desk.by("apply-label-edit")).to_be_disabled()
    desk.by("label-value").select_option("car")
    expect(desk.by("label-edit-effect")).to_contain_text("in 1 answered image become “car”")
    desk.by("apply-label-edit").click()
    message(desk, "“person” is “car” now")
    expect(desk.by("merge-car")).to_be_disabled()
    expect(desk.by("retire-car")).to_be_disabled()
    assert [span["label"] for span in started.stored(image_id)["spans"]] == ["car"]
    assert names(started) == ("car",)


def test_retire_and_recolour(started: Server, new_desk: NewDesk) -> None:
    """The suggestions of the retired label go away, also those of the image that is shown; own boxes stay."""
    desk = new_desk().open()
    for _ in range(5):
        desk.draw((10, 8, 50, 36))
        desk.answer("a")
    expect(desk.by("show-offer")).to_be_visible(timeout=20_000)
    desk.press("n")
    assert [text.split()[0] for text in desk.boxes] == ["car"]
    desk.draw((60, 40, 80, 60))
    open_menu(desk)
    desk.by("colour-person").fill("#123456")
    expect(desk.page.locator('[data-testid="label-person"]')).to_have_attribute("style", "--box: #123456; --ink: #fff;")
    desk.by("retire-car").click()
    expect(desk.by("apply-label-edit")).to_be_focused()
    expect(desk.by("label-edit-effect")).to_contain_text("Its boxes in 5 answered images stay in the answers")
    desk.press("Enter")
    message(desk, "“car” is retired")
    desk.press("Escape")
    expect(desk.by("label-car")).to_have_count(0)
    assert desk.boxes == ["car drawn"]
    desk.press("a")
    expect(desk.page.get_by_text("label “car” is no longer in the label map: relabel its boxes")).to_be_visible()
    desk.press("]", "1")
    image_id = desk.answer("a")
    assert [span["label"] for span in started.stored(image_id)["spans"]] == ["person"]
    expect(desk.by("box-item")).to_have_count(0)


def test_two_people_at_once(started: Server, new_desk: NewDesk) -> None:
    """Ben has the form open for the label that Anna renames; his unfinished boxes get the name, too."""
    anna, ben = new_desk().open("anna"), new_desk().open("ben")
    ben.draw((10, 8, 50, 36))
    open_menu(ben)
    ben.by("merge-car").click()
    open_menu(anna)
    anna.by("rename-car").click()
    anna.by("label-value").fill("van")
    anna.by("apply-label-edit").click()
    message(ben, "“car” is “van” now")
    expect(ben.by("label-form")).to_have_count(0)
    ben.by("rename-person").click()
    ben.by("label-value").fill("Van")
    ben.by("apply-label-edit").click()
    expect(ben.page.get_by_role("alert")).to_contain_text("there is a label 'van' already")
    ben.press("Escape")
    assert ben.boxes == ["van drawn"]
    image_id = ben.answer("a")
    assert [span["label"] for span in started.stored(image_id)["spans"]] == ["van"]
    without_refusals(ben)


def test_an_unfinished_image_after_a_reload(started: Server, new_desk: NewDesk) -> None:
    """The draft in the browser has the name from before."""
    desk, other = new_desk().open(), new_desk().open("other")
    desk.draw((10, 8, 50, 36))
    image_id = desk.image_id
    wait_until(lambda: "odkeras:draft:" in desk.page.evaluate("Object.keys(localStorage).join()"), "the draft")
    desk.page.goto("about:blank")
    open_menu(other)
    other.by("rename-car").click()
    other.by("label-value").fill("van")
    other.press("Enter")
    message(other, "“car” is “van” now")
    desk.open()
    assert desk.image_id == image_id and desk.boxes == ["van drawn"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(server: Server, new_desk: NewDesk, scheme: str) -> None:
    """Also with many labels, in a narrow window."""
    LabelMap.from_names([f"part {number}" for number in range(120)]).save(server.directory / "label_map.pbtxt")
    server.start()
    desk = new_desk(color_scheme=scheme, viewport={"width": 380, "height": 700}).open()
    open_menu(desk)
    assert findings(desk) == []
    expect(desk.by("label-menu-row")).to_have_count(100)
    desk.by("label-menu-query").fill("part 117")
    expect(desk.by("label-menu-row")).to_have_count(1)
    for action in ("rename", "merge", "retire"):
        desk.by(f"{action}-part 117").click()
        assert findings(desk) == []
