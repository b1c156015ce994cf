"""Labelling in a real browser: what a person does, and what is stored then."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable

import pytest
from desk import Desk, Server, box_of
from playwright.sync_api import BrowserContext, expect
from waiting import wait_until


class TestBoxes:
    def test_draw_and_accept(self, desk: Desk, server: Server) -> None:
        desk.draw((10, 8, 50, 36))
        image_id = desk.answer("a")
        answer = server.stored(image_id)
        (span,) = answer["spans"]
        assert (span["label"], span["type"], answer["answer"]) == ("car", "rect", "accept")
        assert box_of(span) == pytest.approx((10, 8, 50, 36), abs=0.6)

    def test_select_relabel_delete(self, desk: Desk, server: Server) -> None:
        desk.draw((5, 5, 30, 30))
        desk.draw((50, 10, 80, 40))
        desk.press("Escape")
        desk.click(17, 17)
        desk.press("2")
        expect(desk.by("box-item").filter(has_text="person")).to_have_count(1)
        desk.press("Escape")
        desk.click(65, 25)
        desk.press("Delete")
        expect(desk.by("box-item")).to_have_count(1)
        (span,) = server.stored(desk.answer("a"))["spans"]
        assert span["label"] == "person"
        assert box_of(span) == pytest.approx((5, 5, 30, 30), abs=0.6)

    def test_a_box_ends_at_the_images_edge(self, desk: Desk, server: Server) -> None:
        desk.drag((60, 40), (120, 90))
        expect(desk.by("box-item")).to_have_count(1)
        (span,) = server.stored(desk.answer("a"))["spans"]
        assert box_of(span) == pytest.approx((60, 40, 96, 64), abs=0.6)

    def test_zoomed_in_boxes_are_where_they_were_drawn(self, desk: Desk, server: Server) -> None:
        desk.by("zoom-in").click()
        desk.by("zoom-in").click()
        desk.page.evaluate("document.querySelector('[data-testid=image]').scrollIntoView({block: 'center'})")
        desk.draw((40, 25, 60, 40))
        desk.by("zoom-fit").click()
        (span,) = server.stored(desk.answer("a"))["spans"]
        assert box_of(span) == pytest.approx((40, 25, 60, 40), abs=0.6)


class TestAnswers:
    def test_each_decision_is_stored(self, desk: Desk, server: Server) -> None:
        ids = {desk.answer(key): decision for key, decision in (("a", "accept"), ("x", "reject"), (" ", "ignore"))}
        for image_id, decision in ids.items():
            assert server.stored(image_id)["answer"] == decision

    def test_the_buttons_do_the_same(self, desk: Desk, server: Server) -> None:
        for test_id, decision in (("accept", "accept"), ("reject", "reject"), ("ignore", "ignore")):
            desk.wait_ready()
            image_id = desk.image_id
            desk.by(test_id).click()
            expect(desk.stage).not_to_have_attribute("data-image-id", image_id)
            assert server.stored(image_id)["answer"] == decision

    def test_undo_brings_the_image_back_with_its_boxes(self, desk: Desk, server: Server) -> None:
        desk.draw((10, 8, 50, 36))
        image_id = desk.answer("a")
        desk.press("Backspace")
        expect(desk.stage).to_have_attribute("data-image-id", image_id)
        desk.wait_ready()
        expect(desk.by("box-item")).to_have_count(1)
        desk.draw((60, 40, 90, 60))
        assert desk.answer("a") == image_id
        wait_until(lambda: len(server.stored(image_id)["spans"]) == 2, "the corrected answer")

    def test_the_history_opens_an_answer_again(self, desk: Desk, server: Server) -> None:
        first = desk.answer("a")
        desk.answer("a")
        expect(desk.by("history-item")).to_have_count(2)
        desk.by("history-item").last.click()
        expect(desk.stage).to_have_attribute("data-image-id", first)
        desk.wait_ready()
        desk.answer("x")
        wait_until(lambda: server.stored(first)["answer"] == "reject", "the corrected answer")

    def test_a_held_key_accepts_one_image(self, desk: Desk, server: Server) -> None:
        desk.page.evaluate(
            "() => { for (let n = 0; n < 20; n++) document.body.dispatchEvent(new KeyboardEvent('keydown',"
            "{ key: 'a', repeat: n > 0, bubbles: true, cancelable: true })) }"
        )
        wait_until(lambda: len(server.answers()) > 0, "the answer")
        desk.page.wait_for_timeout(500)
        assert len(server.answers()) == 1


class TestKeyboardOnly:
    def test_a_whole_task(self, desk: Desk, server: Server) -> None:
        desk.press("2", "b")
        expect(desk.by("box-item")).to_have_count(1)
        desk.press("ArrowRight", "ArrowRight", "Shift+ArrowDown", "Alt+ArrowRight")
        desk.press("b")
        expect(desk.by("box-item")).to_have_count(2)
        desk.press("]", "]", "1")  # selected on purpose: the key relabels it
        desk.press("[")
        desk.press("Delete")
        expect(desk.by("box-item")).to_have_count(1)
        (span,) = server.stored(desk.answer("a"))["spans"]
        assert span["label"] == "car"

    def test_the_list_of_boxes_can_be_reached_with_tab(self, desk: Desk) -> None:
        desk.press("b", "Escape")
        for _ in range(60):
            desk.press("Tab")
            if desk.page.evaluate("document.activeElement?.closest('[data-testid=box-item]') !== null"):
                break
        else:
            pytest.fail("Tab does not get there")

    def test_help_lists_the_keys(self, desk: Desk) -> None:
        desk.press("h")
        expect(desk.by("help")).to_be_visible()
        expect(desk.by("help")).to_contain_text(re.compile("accept", re.IGNORECASE))
        before = desk.image_id
        desk.press("a")  # no answer while the dialog is open
        desk.press("Escape")
        expect(desk.by("help")).to_be_hidden()
        assert desk.image_id == before


class TestSuggestions:
    def annotate_until_suggested(self, desk: Desk, server: Server, answers: int = 8) -> None:
        for _ in range(answers):
            desk.answer("a")
        desk.press("Control+s")
        wait_until(lambda: server.trained_on() >= answers, "the trainer")
        for _ in range(5):  # the shown one and those that were fetched before there was a model
            if desk.by("box-item").count():
                break
            desk.page.wait_for_timeout(700)
            desk.answer("a")
        expect(desk.by("box-item")).to_have_count(1)

    def test_they_come_with_label_and_score_and_are_stored_when_accepted(self, desk: Desk, server: Server) -> None:
        self.annotate_until_suggested(desk, server)
        expect(desk.by("version")).to_be_visible()
        assert re.search(r"car.*90 ?%", desk.boxes[0]), desk.boxes
        version = desk.stage.get_attribute("data-version")
        answer = server.stored(desk.answer("a", next_image=False))  # it may be the last one
        (span,) = answer["spans"]
        assert span["score"] == 0.9
        assert str(answer["_suggestions"]["version"]) == version

    def test_they_can_be_hidden_and_removed(self, desk: Desk, server: Server) -> None:
        self.annotate_until_suggested(desk, server)
        desk.press("s")
        desk.press("s")
        expect(desk.by("box-item")).to_have_count(1)
        desk.press("d")
        expect(desk.by("box-item")).to_have_count(0)
        assert server.stored(desk.answer("a", next_image=False))["spans"] == []


class TestComingBack:
    def test_a_reload_shows_the_same_image(self, desk: Desk, server: Server) -> None:
        desk.answer("a")
        image_id = desk.image_id
        desk.page.reload()
        desk.wait_ready()
        assert desk.image_id == image_id
        expect(desk.by("history-item")).to_have_count(1)

    def test_two_sessions_get_different_images(self, server: Server, new_desk: Callable[..., Desk]) -> None:
        server.start()
        anna, ben = new_desk().open("anna"), new_desk().open("ben")
        seen = []
        for _ in range(3):
            seen += [anna.answer("a"), ben.answer("a")]
        assert len(set(seen)) == 6
        wait_until(lambda: len(server.answers()) == 6, "all answers")
        sessions = {answer["image_id"]: answer["_session_id"] for answer in server.answers()}
        assert [sessions[image_id] for image_id in seen] == ["things-anna", "things-ben"] * 3

    def test_two_tabs_of_one_session_get_different_images(
        self, server: Server, contexts: Callable[..., BrowserContext], new_desk: Callable[..., Desk]
    ) -> None:
        server.start()
        context = contexts()
        one, other = new_desk(context).open(), new_desk(context).open()
        assert one.image_id != other.image_id
        assert len({one.answer("a"), other.answer("a"), one.answer("a"), other.answer("a")}) == 4
        wait_until(lambda: len(server.answers()) == 4, "all answers")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
    def test_the_server_restarts(self, desk: Desk, server: Server, number: int) -> None:
        """Answers given while it is down are stored when it is back."""
        answered = [desk.answer("a")]
        desk.wait_ready()
        desk.page.wait_for_timeout(1000)  # what comes next is fetched ahead
        server.stop(number)
        desk.draw((10, 8, 50, 36))
        answered.append(desk.answer("a", next_image=False))
        expect(desk.by("banner").first).to_be_visible()
        server.start()
        wait_until(lambda: {each["image_id"] for each in server.answers()} == set(answered), "the answers")
        answered += [desk.answer("a") for _ in range(5)]
        wait_until(lambda: {each["image_id"] for each in server.answers()} == set(answered), "the answers")
        assert len(set(answered)) == 7
        assert len(server.stored(answered[1])["spans"]) == 1

    def test_a_tab_closed_while_the_server_is_away_loses_nothing(
        self, server: Server, contexts: Callable[..., BrowserContext], new_desk: Callable[..., Desk]
    ) -> None:
        server.start()
        context = contexts()
        desk = new_desk(context).open()
        server.stop()
        image_id = desk.answer("a", next_image=False)
        desk.page.close()
        server.start()
        new_desk(context).open()
        assert server.stored(image_id)["answer"] == "accept"


class TestPanel:
    def test_says_what_the_trainer_does(self, desk: Desk, server: Server) -> None:
        expect(desk.by("trainer-state")).to_contain_text(re.compile("waiting", re.IGNORECASE))
        server.stop()
        server.env["FAKE_TRAINER"] = "step_s=0.3"
        server.start()
        for _ in range(5):
            desk.answer("a")
        expect(desk.by("trainer-state")).to_contain_text(re.compile("step|training", re.IGNORECASE), timeout=20_000)
        expect(desk.by("version")).to_be_visible()

    def test_a_corrupt_image_is_skipped_with_a_note(self, server: Server, new_desk: Callable[..., Desk]) -> None:
        (server.directory / "images" / "00.png").write_bytes(b"no image at all")
        server.start()
        desk = new_desk().open()
        expect(desk.page.get_by_text("00.png").first).to_be_attached()
        server.stored(desk.answer("a"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("phone", {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}),
        ("wide", {"viewport": {"width": 2560, "height": 1300}}),
        ("dark", {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"}),
    ],
)
def test_fits(server: Server, new_desk: Callable[..., Desk], name: str, options: dict[str, object]) -> None:
    server.start()
    desk = new_desk(**options).open()
    wide = desk.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    assert not wide, "the page scrolls sideways"
    for test_id in ("accept", "reject", "ignore", "undo"):
        box = desk.by(test_id).bounding_box()
        assert box is not None and min(box["width"], box["height"]) >= 24, (test_id, box)
        expect(desk.by(test_id)).to_be_in_viewport()
    image_id = desk.image_id
    desk.by("accept").tap() if name == "phone" else desk.by("accept").click()
    server.stored(image_id)
