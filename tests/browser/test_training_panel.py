"""When a round of training starts, what the page says about it, and what a person can do about it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from desk import IMAGES, PHONE, Desk, Server
from playwright.sync_api import Route, expect
from waiting import wait_until

from odkeras.project import append_jsonl


class TestWhenARoundStarts:
    def test_the_panel_counts_answers_until_training(self, desk: Desk, server: Server) -> None:
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
        expect(desk.page.get_by_text("there are no new answers to train on")).to_be_visible()


class TestPauseAndStop:
    def test_pause_resume_and_a_restart(self, server: Server, new_desk: Callable[..., Desk]) -> None:
        server.env["FAKE_TRAINER"] = "step_s=0.6"
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
        expect(desk.page.get_by_text("training is resumed and starts with 1 answer")).to_be_visible()
        expect(desk.by("trainer-state")).to_have_attribute("data-state", "training")
        expect(desk.by("training-pause")).to_be_visible()


def wait_for_version(desk: Desk, after: int = 0) -> int:
    """The number of the version that is served, once it is a newer one."""
    desk.page.wait_for_function(
        "after => Number(document.querySelector('[data-testid=version]')?.dataset.version || 0) > after", arg=after
    )
    return int(desk.by("version").get_attribute("data-version") or 0)


class TestVersions:
    """A version has one name, and its suggestions come on the screen when the person asks for them."""

    @pytest.fixture
    def suggesting(self, server: Server, new_desk: Callable[..., Desk]) -> Desk:
        """The image on the screen has suggestions of the first round."""
        server.options = [*server.options, "--answers-per-round", "2"]
        server.start()
        desk = new_desk().open()
        first = wait_for_version(desk)
        desk.answer("a")
        desk.answer("a")
        wait_for_version(desk, first)
        expect(desk.by("show-offer")).to_be_visible()
        assert desk.boxes == []
        desk.press("n")
        expect(desk.by("box-item")).to_have_count(1)
        return desk

    def newer(self, desk: Desk) -> tuple[int, int]:
        """Train while an image with suggestions is on the screen: its version, and the newer one."""
        desk.answer("a")
        expect(desk.by("box-item")).to_have_count(1)
        shown = int(desk.stage.get_attribute("data-version") or 0)
        desk.press("Control+s")
        newest = wait_for_version(desk, shown)
        expect(desk.by("show-offer")).to_be_visible()
        return shown, newest

    def test_one_name_everywhere(self, suggesting: Desk, server: Server) -> None:
        desk = suggesting
        version = wait_for_version(desk)
        name = f"round 1, {time.strftime('%H:%M', time.localtime(version))}"
        number = f"version {version}"
        expect(desk.by("version")).to_contain_text(name)
        expect(desk.by("version")).to_have_attribute("title", number)
        expect(desk.by("origin")).to_contain_text(f"1 suggestion by the model of {name}; score")
        expect(desk.by("origin")).to_have_attribute("title", number)
        line = desk.by("news").get_by_role("listitem").filter(has_text=f"model of {name} is served")
        expect(line).to_have_attribute("title", number)
        server.stored(desk.answer("a"))
        row = desk.page.get_by_role("rowheader", name=name)
        expect(row).to_have_attribute("title", re.compile(number))
        assert str(version) not in desk.page.locator("body").inner_text()

    def test_newer_suggestions_leave_the_person_s_own_boxes(self, suggesting: Desk, server: Server) -> None:
        desk = suggesting
        shown, newest = self.newer(desk)
        assert int(desk.stage.get_attribute("data-version") or 0) == shown, "not by itself"
        desk.draw((70, 45, 92, 60))
        expect(desk.by("show-offer")).to_be_visible()
        expect(desk.page.get_by_text("Your own boxes are kept.")).to_be_visible()
        desk.press("n")
        expect(desk.stage).to_have_attribute("data-version", str(newest))
        expect(desk.by("show-offer")).to_have_count(0)
        assert sorted(text.split()[-1] for text in desk.boxes) == ["%", "drawn"]
        answer = server.stored(desk.answer("a"))
        assert answer["_suggestions"]["version"] == newest
        assert len(answer["spans"]) == 2

    def test_a_newer_suggestion_of_the_persons_own_box_is_left_out(self, suggesting: Desk, server: Server) -> None:
        """It came on top of that box, with the same label: both were trained."""
        desk = suggesting
        self.newer(desk)
        (rect,) = desk.by("box-item").evaluate_all("items => items.map(item => item.dataset.rect)")
        left, top, width, height = (float(number) for number in rect.split(","))
        desk.press("]", "Delete")
        expect(desk.by("box-item")).to_have_count(0)
        desk.draw((left + 1, top + 1, left + width, top + height))
        desk.press("n")
        expect(desk.by("show-offer")).to_have_count(0)
        expect(desk.page.locator(".notice")).to_contain_text("0 suggestions")
        assert desk.boxes == ["car drawn"]

    def test_in_a_reopened_answer_drawn_boxes_are_not_suggestions(self, suggesting: Desk, server: Server) -> None:
        """The answer came with the version that had been judged: all its boxes were dashed, and `d` removed them."""
        desk = suggesting
        desk.draw((70, 45, 92, 60))
        answer = server.stored(desk.answer("a"))
        desk.page.reload()
        desk.wait_ready()
        desk.press("g")
        desk.page.locator(f'[data-testid="gallery-image"][data-file="{answer["meta"]["file"]}"]').click()
        expect(desk.stage).to_have_attribute("data-image-id", answer["image_id"])
        desk.wait_ready()
        expect(desk.by("box-item")).to_have_count(2)
        assert sorted(text.split()[-1] for text in desk.boxes) == ["%", "drawn"], "what was accepted keeps its score"
        desk.draw((71, 46, 92, 60), across=True)  # a second box over it does not replace it
        desk.press("u", "d")
        assert desk.boxes == ["car drawn"]

    def test_a_step_back_over_an_offer_is_one_to_its_version(self, suggesting: Desk) -> None:
        """The caption still named the newer version, and after a reload the suggestions were drawn boxes."""
        desk = suggesting
        shown, newest = self.newer(desk)
        before = desk.boxes
        desk.press("n")
        expect(desk.stage).to_have_attribute("data-version", str(newest))
        desk.press("u")
        expect(desk.stage).to_have_attribute("data-version", str(shown))
        expect(desk.by("origin")).to_have_attribute("title", f"version {shown}")
        desk.press("Control+y")
        expect(desk.stage).to_have_attribute("data-version", str(newest))
        desk.press("u")
        desk.page.reload()
        desk.wait_ready()
        expect(desk.stage).to_have_attribute("data-version", str(shown))
        assert desk.boxes == before

    def test_requests_that_fail_do_not_count(self, suggesting: Desk, server: Server) -> None:
        """After four of them, while the server was away for six seconds, a version was never offered."""
        desk = suggesting
        failed: list[str] = []

        def fail(route: Route) -> None:
            failed.append(route.request.url)
            route.abort()

        desk.page.route("**/api/suggestions", fail)
        desk.answer("a")
        shown = int(desk.stage.get_attribute("data-version") or 0)
        desk.press("Control+s")
        wait_for_version(desk, shown)
        wait_until(lambda: desk.page.wait_for_timeout(100) or failed, "a request")
        desk.page.unroute("**/api/suggestions")
        expect(desk.by("show-offer")).to_be_visible(timeout=15_000)
        desk.problems.clear()  # the browser notes the failed requests


class TestFailure:
    def test_a_sentence_and_the_log_on_demand(self, server: Server, new_desk: Callable[..., Desk]) -> None:
        """Fifteen lines of the trainer's log stood over the image."""
        server.env["FAKE_TRAINER"] = "wrong-config"
        server.start()
        desk = new_desk(color_scheme="dark").open()
        banner = desk.by("banner")
        expect(banner).to_contain_text("the trainer ended with status 2: ConfigError: train_config.batch_size is 0")
        assert "fake trainer" not in desk.page.locator("body").inner_text()
        expect(desk.page.locator("[aria-live] [data-testid=show-log]")).to_have_count(0)  # read out whole
        desk.by("show-log").first.focus()
        desk.press("Enter")
        expect(desk.by("log")).to_contain_text("fake trainer")
        desk.draw((5, 5, 25, 25))
        image_id, boxes = desk.image_id, desk.by("box-item").first.get_attribute("data-rect")
        desk.by("log").focus()
        desk.press(" ", "ArrowUp", "PageDown")  # they scroll: space answered the image, arrows moved the box
        assert (desk.image_id, desk.by("box-item").first.get_attribute("data-rect")) == (image_id, boxes)
        desk.by("show-log").first.focus()
        desk.press("Enter")
        expect(desk.by("log")).to_have_count(0)
        server.stored(desk.answer("a"))
        wait_until(
            lambda: re.search(r"the end of \S*model/logs/trainer.log:", "".join(server.output)),
            "the lines on the terminal",
        )


def test_the_loss_is_explained_and_map50_is_beside_map(desk: Desk, server: Server) -> None:
    metrics = {"DetectionBoxes_Precision/mAP": 0.431, "DetectionBoxes_Precision/mAP@.50IOU": 0.812}
    append_jsonl(
        server.directory / "model" / "metrics.jsonl",
        [{"kind": "round", "round": 1, "loss": 2.31}, {"kind": "evaluation", "round": 1, "metrics": metrics}],
    )
    expect(desk.by("precision")).to_contain_text("0.43 · 0.81")
    expect(desk.page.get_by_role("img", name="mAP50 per evaluation, 0 to 1: round 1 0.81")).to_be_visible()
    for _ in range(5):
        desk.answer("a")
    expect(desk.by("loss")).to_contain_text("lower is better; 2.31 after round 1")
    expect(desk.by("news")).to_contain_text("evaluation after round 1: mAP 0.431, mAP50 0.812")
