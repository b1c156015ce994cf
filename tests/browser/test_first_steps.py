"""The page explains to a newcomer what the answers do, once, without covering anything."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from desk import PHONE, Desk, Server
from playwright.sync_api import BrowserContext, expect
from test_accessibility import findings
from waiting import wait_until

RANDOM = "model { ssd {} }"


def test_the_effect_of_each_answer_is_explained_until_dismissed(desk: Desk, server: Server) -> None:
    note = desk.by("first-steps")
    expect(note).to_contain_text("Accept: all boxes are correct, and the model learns from them")
    expect(note).to_contain_text("Without boxes, it learns that the image has no objects")
    expect(note).to_contain_text("Reject and ignore: the image is excluded from training")
    expect(note).to_contain_text("Training starts after 5 answers.")
    expect(note).not_to_contain_text("random weights")
    desk.draw((10, 8, 50, 36))
    desk.by("first-steps-close").focus()
    desk.press("Enter")
    expect(note).to_be_hidden()
    expect(desk.by("box-item")).to_have_count(1)
    desk.page.reload()
    desk.wait_ready()
    expect(note).to_be_hidden()
    assert server.answers() == [], "to read it is no answer"
    desk.press("h")
    expect(desk.by("help")).to_contain_text("it learns that the image has no objects")


def test_the_explanation_disappears_after_three_answers(
    server: Server, contexts: Callable[..., BrowserContext], new_desk: Callable[..., Desk]
) -> None:
    """Three answers are enough; neither another page of this browser nor another browser tells them again."""
    server.start()
    context = contexts()
    desk = new_desk(context).open()
    for _ in range(3):
        expect(desk.by("first-steps")).to_be_visible()
        desk.answer("x")
    expect(desk.by("first-steps")).to_be_hidden()
    expect(new_desk(context).open("anna").by("first-steps")).to_be_hidden()
    wait_until(lambda: len(server.answers()) == 3, "the answers")
    elsewhere = new_desk().open()
    expect(elsewhere.by("first-steps")).to_be_hidden()
    expect(new_desk().open("ben", ready=False).by("first-steps")).to_be_visible()


@pytest.mark.parametrize("with_key", [True, False])
def test_the_first_image_accepted_without_boxes_is_explained_and_can_be_taken_back(
    desk: Desk, server: Server, with_key: bool
) -> None:
    """The answer goes through; one key, or a click, brings the image back."""
    image_id = desk.answer("a")
    expect(desk.by("empty-accepted")).to_contain_text("the model learns that the image has no objects")
    wait_until(lambda: [each["image_id"] for each in server.answers()] == [image_id], "the answer")
    desk.press("Backspace") if with_key else desk.by("empty-undo").click()
    expect(desk.stage).to_have_attribute("data-image-id", image_id)
    desk.wait_ready()
    expect(desk.by("empty-accepted")).to_be_hidden()
    assert desk.answer("a") == image_id
    desk.wait_ready()
    expect(desk.by("empty-accepted")).to_be_hidden()


def test_other_answers_need_no_explanation(desk: Desk) -> None:
    desk.answer("x")
    desk.answer(" ")
    desk.wait_ready()
    desk.draw((10, 8, 50, 36))
    desk.answer("a")
    desk.wait_ready()
    expect(desk.by("empty-accepted")).to_be_hidden()
    desk.answer("a")
    desk.wait_ready()
    expect(desk.by("empty-accepted")).to_be_visible()
    desk.answer("a")
    desk.wait_ready()
    expect(desk.by("empty-accepted")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_random_weights_are_named_as_long_as_the_model_began_with_them(
    server: Server, new_desk: Callable[..., Desk], scheme: str
) -> None:
    (server.directory / "pipeline.config").write_text(RANDOM)
    server.start()
    desk = new_desk(color_scheme=scheme).open()
    expect(desk.by("first-steps")).to_contain_text("good suggestions take hundreds of images")
    expect(desk.by("random-weights")).to_contain_text("--weights")
    assert findings(desk) == []
    for _ in range(6):
        desk.answer("a")
    expect(desk.by("version")).to_be_visible()
    expect(desk.by("random-weights")).to_be_visible()


def test_on_a_phone_nothing_covers_the_image_or_the_answers(server: Server, new_desk: Callable[..., Desk]) -> None:
    (server.directory / "pipeline.config").write_text(RANDOM)
    server.start()
    desk = new_desk(**PHONE).open()
    note, stage = desk.by("first-steps").bounding_box(), desk.stage.bounding_box()
    assert note is not None and stage is not None
    assert note["y"] >= stage["y"] + stage["height"]
    assert note["x"] >= 0 and note["x"] + note["width"] <= 390
    for test_id in ("accept", "reject", "ignore", "undo"):
        expect(desk.by(test_id)).to_be_in_viewport(ratio=1)
    assert findings(desk) == []
    desk.by("first-steps-close").tap()
    expect(desk.by("first-steps")).to_be_hidden()
    desk.wait_ready()
    desk.by("accept").tap()
    desk.by("empty-undo").tap()
    expect(desk.by("empty-accepted")).to_be_hidden()
