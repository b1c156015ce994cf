"""The gallery in a real browser: find an image, look at it, correct it; copy the boxes of the previous image."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from desk import IMAGES, PHONE, Desk, Server, box_of, draw_picture
from playwright.sync_api import BrowserContext, Route, expect
from waiting import wait_until

NewDesk = Callable[..., Desk]
NAMES = [f"{number:02}.png" for number in range(IMAGES)]


def shown(desk: Desk) -> list[str]:
    return [str(each.get_attribute("data-file")) for each in desk.by("gallery-image").all()]


def open_gallery(desk: Desk) -> None:
    desk.press("g")
    expect(desk.by("gallery-grid")).to_be_focused()
    expect(desk.by("gallery-image").first).to_be_visible()


def tile(desk: Desk, file: str) -> str:
    return f'[data-testid="gallery-image"][data-file="{file}"]'


def count_is(desk: Desk, text: str) -> None:
    expect(desk.by("gallery-count")).to_have_text(text)


class TestFinding:
    def test_all_images_in_order_with_their_answers(self, desk: Desk, server: Server) -> None:
        desk.draw((10, 8, 50, 36))
        accepted = desk.answer("a")
        desk.answer("x")
        server.stored(accepted)
        wait_until(lambda: len(server.answers()) == 2, "both answers")
        open_gallery(desk)
        count_is(desk, f"{IMAGES} images")
        assert shown(desk) == NAMES
        first = desk.page.locator(tile(desk, "00.png"))
        expect(first).to_have_accessible_name("00.png accepted · 1 box")
        expect(first.locator("rect")).to_have_count(1)  # its box, over the thumbnail
        expect(desk.page.locator(tile(desk, "01.png"))).to_have_accessible_name("01.png rejected")
        expect(desk.page.locator(tile(desk, "02.png"))).to_have_accessible_name("02.png shown now")
        size = desk.page.evaluate("document.querySelector('.tile img').naturalWidth")
        assert size == 96, "the thumbnail is there"

    def test_filters(self, desk: Desk, server: Server) -> None:
        desk.draw((10, 8, 50, 36))
        desk.answer("a")
        desk.press("2")
        desk.draw((10, 8, 50, 36))
        desk.answer("a")
        desk.answer("x")
        wait_until(lambda: len(server.answers()) == 3, "the answers")
        open_gallery(desk)
        desk.by("filter-name").fill("1")
        count_is(desk, "5 images found")
        assert shown(desk) == ["01.png", "10.png", "11.png", "12.png", "13.png"]
        desk.by("filter-clear").click()
        count_is(desk, f"{IMAGES} images")
        for name, value, files in (
            ("state", "answered", ["00.png", "01.png", "02.png"]),
            ("decision", "reject", ["02.png"]),
            ("decision", "", ["00.png", "01.png", "02.png"]),
            ("label", "person", ["01.png"]),
            ("label", "", ["00.png", "01.png", "02.png"]),
            ("annotator", "default", ["00.png", "01.png", "02.png"]),
        ):
            desk.by(f"filter-{name}").select_option(value)
            count_is(desk, f"{len(files)} image{'s' if len(files) > 1 else ''} found")
            wait_until(lambda files=files: shown(desk) == files, f"{name} {value}")
        desk.by("filter-state").select_option("unanswered")  # by an annotator: none
        expect(desk.page.get_by_text("No image matches these filters.")).to_be_visible()

    def test_a_failed_request_is_retried_with_a_delay(self, desk: Desk) -> None:
        """A later page was asked for every 80 ms without end, the first one never again."""
        asked: list[str] = []

        def handle(route: Route) -> None:
            asked.append(route.request.url)
            if len(asked) > 2:
                route.continue_()
            else:
                route.fulfill(status=503, body="{}")

        desk.page.route("**/api/images*", handle)
        desk.press("g")
        expect(desk.by("gallery-refused")).to_be_visible()
        desk.page.wait_for_timeout(700)
        assert len(asked) == 1
        count_is(desk, f"{IMAGES} images")
        expect(desk.by("gallery-refused")).to_have_count(0)
        assert len(asked) == 3

    def test_what_is_typed_stays_and_filters_add_up(self, desk: Desk) -> None:
        """A space at the end was eaten, 7.5 became 8, and a filter took another one of a moment ago back."""
        desk.press("g")
        count_is(desk, f"{IMAGES} images")
        desk.by("filter-name").press_sequentially("0 ")
        desk.by("filter-state").select_option("unanswered")
        count_is(desk, "11 images found")
        expect(desk.by("filter-state")).to_have_value("unanswered")
        expect(desk.by("filter-name")).to_have_value("0 ")
        desk.by("filter-score-from").press_sequentially("7.")
        count_is(desk, "0 images found")
        desk.by("filter-score-from").press_sequentially("5")
        desk.page.wait_for_timeout(400)
        expect(desk.by("filter-score-from")).to_have_value("7.5")
        desk.press("Escape", "g")
        expect(desk.by("filter-score-from")).to_have_value("7.5")

    def test_ten_thousand_images_scroll_and_only_what_is_seen_is_asked_for(
        self, server: Server, new_desk: NewDesk
    ) -> None:
        picture = (server.directory / "images" / "00.png").read_bytes()
        for number in range(10_000):  # links to one file would be one image
            (server.directory / "images" / f"f{number}.png").write_bytes(picture)
        server.start()
        desk = new_desk().open()
        asked: list[str] = []
        desk.page.on("request", lambda request: asked.append(request.url))
        open_gallery(desk)
        count_is(desk, f"{10_000 + IMAGES:} images")
        assert desk.by("gallery-image").count() < 60
        took_ms = desk.page.evaluate(
            """async () => {
              const grid = document.querySelector('.grid'), frames = [];
              let last = performance.now();
              for (let at = 1; at <= 60; at++) {
                grid.scrollTop = grid.scrollHeight * at / 60;
                await new Promise((resolve) => requestAnimationFrame(resolve));
                const now = performance.now();
                frames.push(now - last);
                last = now;
              }
              return frames.sort((a, b) => a - b)[30];
            }"""
        )
        assert took_ms < 100, "the median of the frames"
        last = desk.page.locator(tile(desk, "f9999.png"))
        expect(last).to_be_visible()
        expect(last).to_have_attribute("aria-posinset", str(10_000 + IMAGES))
        thumbnails = [url for url in asked if "/thumbnails/" in url]
        assert len(thumbnails) < 200, "of those that flew by none was asked for"


class TestOpening:
    def test_an_answered_image_is_corrected_and_the_one_before_keeps_its_boxes(
        self, desk: Desk, server: Server
    ) -> None:
        accepted = desk.answer("a")
        desk.wait_ready()
        server.stored(accepted)
        waiting = desk.image_id
        desk.draw((5, 5, 25, 25))
        open_gallery(desk)
        desk.page.locator(tile(desk, "00.png")).click()
        expect(desk.by("gallery")).to_be_hidden()
        expect(desk.stage).to_have_attribute("data-image-id", accepted)
        desk.wait_ready()
        desk.draw((10, 8, 50, 36))
        desk.answer("a")
        expect(desk.stage).to_have_attribute("data-image-id", waiting)
        desk.wait_ready()
        assert len(desk.boxes) == 1, "what was drawn on it before is there"
        wait_until(lambda: len(server.stored(accepted)["spans"]) == 1, "the correction")

    def test_an_answer_that_another_tab_corrected(
        self, server: Server, new_desk: NewDesk, contexts: Callable[..., BrowserContext]
    ) -> None:
        """The page showed what it remembered, and accepting that again took the correction back."""
        server.start()
        context = contexts()
        desk, other = new_desk(context).open(), new_desk(context).open()
        desk.draw((5, 5, 25, 25))
        image_id = desk.answer("a")
        server.stored(image_id)
        open_gallery(other)
        other.page.locator(tile(other, "00.png")).click()
        expect(other.stage).to_have_attribute("data-image-id", image_id)
        other.wait_ready()
        other.draw((40, 30, 70, 50))
        other.answer("a")
        wait_until(lambda: len(server.stored(image_id)["spans"]) == 2, "the correction")
        open_gallery(desk)
        desk.page.locator(tile(desk, "00.png")).click()
        expect(desk.stage).to_have_attribute("data-image-id", image_id)
        desk.wait_ready()
        expect(desk.by("box-item")).to_have_count(2)

    def test_a_late_response_does_not_replace_the_image(self, desk: Desk) -> None:
        """It took the place of another image just as that one was answered."""
        held: list[Route] = []
        before = desk.image_id
        desk.page.route("**/api/open", lambda route: held.append(route))
        open_gallery(desk)
        desk.page.locator(tile(desk, "10.png")).click()
        expect(desk.page.locator(tile(desk, "10.png"))).to_contain_text("opening…")
        desk.press("Escape")
        expect(desk.by("gallery")).to_be_hidden()
        while not held:
            desk.page.wait_for_timeout(20)
        with desk.page.expect_response("**/api/open"):
            held[0].continue_()
        desk.draw((5, 5, 25, 25))
        assert desk.image_id == before
        open_gallery(desk)
        for file in ("11.png", "12.png"):
            desk.page.locator(tile(desk, file)).click()
        wait_until(lambda: desk.page.wait_for_timeout(20) or len(held) == 3, "both requests")
        with desk.page.expect_response("**/api/open"):
            held[1].continue_()
        expect(desk.by("gallery")).to_be_visible()
        held[2].continue_()
        expect(desk.by("gallery")).to_be_hidden()
        expect(desk.page.locator(".caption strong")).to_have_text("12.png")

    def test_answered_images_that_were_looked_at_need_no_answer(self, desk: Desk, server: Server) -> None:
        """Each of them waited in the queue, to be answered again."""
        answered = [desk.answer("a") for _ in range(3)]
        wait_until(lambda: len(server.answers()) == 3, "the answers")
        expect(desk.by("history-item")).to_have_count(3)
        desk.wait_ready()
        waiting = desk.image_id
        for file, image_id in zip(NAMES, answered, strict=False):
            open_gallery(desk)
            desk.page.locator(tile(desk, file)).click()
            expect(desk.stage).to_have_attribute("data-image-id", image_id)
            desk.wait_ready()
        desk.press("Backspace")  # the one before this one
        expect(desk.stage).to_have_attribute("data-image-id", answered[1])
        desk.answer("x")
        expect(desk.stage).to_have_attribute("data-image-id", waiting)

    def test_with_the_keyboard(self, desk: Desk, server: Server) -> None:
        """An image whose turn has not come: it is answered once."""
        open_gallery(desk)
        desk.press("End", "ArrowLeft", "Enter")
        expect(desk.by("gallery")).to_be_hidden()
        expect(desk.page.locator(".caption strong")).to_have_text("12.png")
        desk.wait_ready()
        desk.draw((10, 8, 50, 36))
        image_id = desk.answer("a")
        (span,) = server.stored(image_id)["spans"]
        assert box_of(span) == pytest.approx((10, 8, 50, 36), abs=0.6)
        for _ in range(IMAGES - 1):
            desk.answer("x", next_image=False)
        expect(desk.by("done")).to_be_visible()
        wait_until(lambda: len(server.answers()) == IMAGES, "all answers")
        assert len({each["image_id"] for each in server.answers()}) == IMAGES

    def test_by_touch_on_a_phone(self, server: Server, new_desk: NewDesk) -> None:
        server.start()
        desk = new_desk(**PHONE).open()
        desk.by("open-gallery").tap()
        expect(desk.by("gallery-image").first).to_be_visible()
        assert desk.page.evaluate("document.querySelector('.gallery').scrollWidth <= innerWidth")
        desk.page.locator(tile(desk, "05.png")).tap()
        expect(desk.by("gallery")).to_be_hidden()
        desk.wait_ready()
        expect(desk.page.locator(".caption strong")).to_have_text("05.png")
        image_id = desk.image_id
        desk.by("accept").tap()
        server.stored(image_id)

    def test_what_another_annotator_has_cannot_be_opened(
        self, server: Server, new_desk: NewDesk, contexts: Callable[..., BrowserContext]
    ) -> None:
        server.start()
        anna, ben = new_desk(contexts()).open("anna"), new_desk(contexts()).open("ben")
        open_gallery(ben)
        held = ben.page.locator(tile(ben, "00.png"))
        expect(held).to_contain_text("open by anna")
        held.click()
        expect(ben.by("gallery-refused")).to_contain_text("00.png: annotator anna has this image open")
        expect(ben.by("gallery")).to_be_visible()
        ben.problems.clear()  # the browser notes the status 409
        assert anna.image_id != ben.image_id


class TestCopying:
    def test_boxes_of_the_image_before_as_one_step(self, desk: Desk, server: Server) -> None:
        desk.draw((5, 5, 25, 25))
        desk.press("2")
        desk.draw((40, 10, 70, 30))
        desk.answer("a")
        desk.wait_ready()
        desk.press("c")
        expect(desk.by("box-item")).to_have_count(2)
        desk.press("c")  # they are there already
        expect(desk.page.get_by_text("all boxes of 00.png are already here").first).to_be_attached()
        expect(desk.by("box-item")).to_have_count(2)
        desk.press("Control+z")
        expect(desk.by("box-item")).to_have_count(0)
        desk.by("copy-boxes").click()
        expect(desk.by("box-item")).to_have_count(2)
        spans = server.stored(desk.answer("a"))["spans"]
        assert [span["label"] for span in spans] == ["car", "person"]
        assert box_of(spans[0]) == pytest.approx((5, 5, 25, 25), abs=0.6)
        assert len({span["id"] for span in spans}) == 2

    def test_no_strip_of_a_box_that_is_outside_of_a_smaller_image(self, server: Server, new_desk: NewDesk) -> None:
        """A box at the border of the larger image became one of a pixel or two, and was trained."""
        path = server.directory / "images" / "01.png"
        draw_picture(1).crop((0, 0, 60, 64)).save(path)
        server.start()
        desk = new_desk().open()
        desk.draw((58, 10, 90, 30))
        desk.draw((30, 35, 90, 60))
        desk.answer("a")
        desk.wait_ready()
        desk.press("c")
        expect(desk.by("box-item")).to_have_count(1)
        (span,) = server.stored(desk.answer("a"))["spans"]
        assert box_of(span) == pytest.approx((30, 35, 60, 60), abs=0.6)
