"""Adding a label in the page."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from desk import Desk, Server
from playwright.sync_api import expect

from odkeras.labels import LabelMap
from odkeras.pipeline.label_edits import LabelFiles, add_label
from odkeras.project import Project

NewDesk = Callable[..., Desk]


@pytest.fixture
def started(server: Server) -> Server:
    (server.directory / "pipeline.config").write_text("model { center_net { num_classes: 2 } }\n")
    return server.start()


def add(desk: Desk, name: str) -> None:
    desk.by("add-label").click()
    expect(desk.by("new-label")).to_be_focused()
    desk.page.keyboard.type(name)
    desk.page.keyboard.press("Enter")


def test_a_label_is_added_and_used(started: Server, new_desk: NewDesk) -> None:
    """The letters that are typed do not answer the image; the box drawn next has the new label, and its key is 3."""
    desk, other = new_desk().open(), new_desk().open()
    image = desk.image_id
    add(desk, "area")
    expect(desk.by("label-area")).to_have_attribute("aria-pressed", "true")
    expect(desk.by("add-label-form")).to_have_count(0)
    assert desk.image_id == image
    desk.draw((10, 8, 50, 36))
    assert desk.boxes == ["area drawn"]
    assert [span["label"] for span in started.stored(desk.answer("a"))["spans"]] == ["area"]
    expect(other.by("label-area")).to_be_visible()
    other.press("3")
    expect(other.by("label-area")).to_have_attribute("aria-pressed", "true")
    assert LabelMap.load(started.directory / "label_map.pbtxt").names == ("car", "person", "area")


def test_the_first_label_of_a_project(server: Server, new_desk: NewDesk) -> None:
    """The page asks for it."""
    (server.directory / "pipeline.config").write_text("model { center_net { num_classes: 1 } }\n")
    (server.directory / "label_map.pbtxt").write_text("")
    desk = new_desk()
    server.start()
    desk.open()
    desk.by("new-label").fill("area")
    desk.by("save-label").click()
    expect(desk.by("label-area")).to_have_attribute("aria-pressed", "true")
    desk.draw((10, 8, 50, 36))
    assert [span["label"] for span in server.stored(desk.answer("a"))["spans"]] == ["area"]


def test_a_name_that_is_refused_can_be_corrected(started: Server, new_desk: NewDesk) -> None:
    desk = new_desk().open()
    add(desk, "Car")
    expect(desk.page.get_by_role("alert")).to_contain_text("there is a label 'car' already")
    desk.by("new-label").fill("cart")
    desk.by("save-label").click()
    expect(desk.by("label-cart")).to_be_visible()
    desk.by("add-label").click()
    expect(desk.by("new-label")).to_be_focused()
    desk.page.keyboard.press("Escape")
    expect(desk.by("add-label-form")).to_have_count(0)
    desk.problems[:] = [text for text in desk.problems if "409" not in text]


def test_a_label_that_a_command_adds_appears(started: Server, new_desk: NewDesk) -> None:
    """With boxes that are drawn already, and many labels: the button is beside them."""
    desk = new_desk().open()
    desk.draw((10, 8, 50, 36))
    folder = started.directory
    project = Project(folder / "data", folder / "model", folder / "export")
    files = LabelFiles(folder / "pipeline.config", folder / "label_map.pbtxt", project)
    for number in range(10):
        add_label(files, f"part {number}")
    expect(desk.by("label-search")).to_contain_text("12 labels")
    assert desk.boxes == ["car drawn"]
    add(desk, "tail")
    expect(desk.by("label-search")).to_contain_text("13 labels")
    expect(desk.by("label-tail")).to_have_attribute("aria-pressed", "true")
