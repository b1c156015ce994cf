"""When a round of training starts, what the page says about it, and what a person can do about it."""

from __future__ import annotations

import re
from collections.abc import Callable

from desk import IMAGES, Desk, Server, wait_until
from playwright.sync_api import expect

from odkeras.control import Control

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


class TestWhenARoundStarts:
    def test_it_is_said_and_kept(self, desk: Desk, server: Server) -> None:
        """After ten seconds without an answer a round began with one image, and the next four waited for its end."""
        until = desk.by("until-training")
        expect(until).to_have_text("0 of 5 until training")
        expect(desk.by("left")).to_have_text(f"{IMAGES} of {IMAGES} left")
        for number in range(1, 5):
            desk.answer("a")
            expect(until).to_have_text(f"{number} of 5 until training")
            expect(desk.by("left")).to_have_text(f"{IMAGES - number} of {IMAGES} left")
        assert server.trained_on() == 0
        desk.answer("a")
        wait_until(lambda: server.trained_on() == 5, "the trainer")
        expect(until).to_have_text("0 of 5 until training")

    def test_the_last_few_do_not_wait(self, desk: Desk, server: Server) -> None:
        for _ in range(IMAGES - 1):
            desk.answer("a")
        desk.wait_ready()
        desk.press("a")
        expect(desk.by("done")).to_be_visible()
        wait_until(lambda: server.trained_on() == IMAGES, "the trainer")

    def test_another_number_and_a_restart(self, server: Server, new_desk: Callable[..., Desk]) -> None:
        server.options = [*server.options, "--answers-per-round", "3"]
        server.start()
        desk = new_desk(**PHONE).open()
        desk.answer("a")
        desk.answer("x")
        expect(desk.by("until-training")).to_have_text("2 of 3 until training")
        expect(desk.by("until-training")).to_be_in_viewport()
        server.stop()
        server.start()
        expect(desk.by("until-training")).to_have_text("2 of 3 until training")
        assert server.trained_on() == 0
        desk.answer("a")
        wait_until(lambda: server.trained_on() == 3, "the trainer")

    def test_train_now(self, desk: Desk, server: Server) -> None:
        desk.answer("a")
        expect(desk.by("until-training")).to_have_text("1 of 5 until training")
        desk.page.get_by_role("button", name="Train now").click()
        expect(desk.page.get_by_text("training starts with 1 answer")).to_be_visible()
        wait_until(lambda: server.trained_on() == 1, "the trainer")
        desk.page.get_by_role("button", name="Train now").click()
        expect(desk.page.get_by_text("no answer is waiting for training")).to_be_visible()


class TestPauseAndStop:
    def test_pause_resume_and_a_restart(self, server: Server, new_desk: Callable[..., Desk]) -> None:
        server.env["FAKE_TRAINER"] = "step_s=0.2"
        server.start()
        desk = new_desk().open()
        for _ in range(5):
            desk.answer("a")
        state = desk.by("trainer-state")
        expect(state).to_have_attribute("data-state", "training")
        desk.by("training-pause").focus()
        desk.press("Enter")
        expect(state).to_have_text(re.compile(r"paused in round 1, at step \d of 5"))
        expect(desk.by("until-training")).to_have_text("training is paused")
        expect(desk.by("training-pause")).to_have_count(0)
        desk.answer("a")
        assert server.trained_on() == 0
        server.stop()
        server.start()
        expect(state).to_have_attribute("data-state", "paused")
        assert server.trained_on() == 0
        desk.by("training-resume").click()
        expect(desk.page.get_by_text("training is resumed")).to_be_visible()
        wait_until(lambda: server.trained_on() == 5, "the trainer")
        expect(desk.by("until-training")).to_have_text("1 of 5 until training")

    def test_stop_ends_the_round_and_train_now_goes_on(self, server: Server, new_desk: Callable[..., Desk]) -> None:
        server.env["FAKE_TRAINER"] = "step_s=0.2"
        server.options = ["--steps-per-epoch", "60", "--answers-per-round", "2"]
        server.start()
        desk = new_desk(color_scheme="dark").open()
        first = desk.by("version").get_attribute("data-version")
        desk.answer("a")
        desk.answer("a")
        expect(desk.by("trainer-state")).to_have_attribute("data-state", "training")
        desk.by("training-stop").click()
        expect(desk.by("trainer-state")).to_have_attribute("data-state", "stopped")
        expect(desk.by("until-training")).to_have_text("training is stopped")
        assert server.trained_on() == 2, "what was learned until then is kept"
        expect(desk.by("version")).not_to_have_attribute("data-version", str(first))
        desk.answer("a")
        expect(desk.by("trainer-state")).to_have_attribute("data-state", "stopped")
        desk.press("Control+s")
        expect(desk.page.get_by_text("training is resumed, and starts with 1 answer")).to_be_visible()
        expect(desk.by("trainer-state")).to_have_attribute("data-state", "training")
        expect(desk.by("training-pause")).to_be_visible()

    def test_paused_by_a_command(self, desk: Desk, server: Server) -> None:
        Control(server.directory / "model" / "control.json").set("pause")
        expect(desk.by("until-training")).to_have_text("training is paused")
        expect(desk.by("training-resume")).to_be_visible()
