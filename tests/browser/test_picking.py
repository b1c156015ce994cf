"""Boxes picked from the model's candidates, and boxes fitted to the image's edges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from desk import IMAGES, PHONE, Box, Desk, Server, box_of, truth
from picking import LARGE, OTHER, SMALL, ghost
from PIL import Image
from playwright.sync_api import expect
from test_corrections import drag_px, grip, labels, move_to, rects, scale, touch
from test_training_panel import wait_for_version


class TestGhost:
    def test_the_best_candidate_under_the_pointer_is_shown(self, picking: Callable[..., Desk]) -> None:
        """The small object, not the large one behind it, unless the pointer is in the middle of that; not what is far
        too unlikely."""
        desk = picking((LARGE, 0.5), (SMALL, 0.4), ((28, 20, 36, 30), 0.06))
        expect(desk.by("box-item")).to_have_count(0)
        here = {(5, 5): None, (12, 10): LARGE, (32, 24): SMALL, (41, 33): LARGE, (60, 50): LARGE, (80, 60): None}
        for at, expected in here.items():
            move_to(desk, at)
            assert ghost(desk) == expected
        move_to(desk, (32, 24))
        desk.press("+", "+")
        # It is drawn again, at the new zoom; the pointer may be in the middle of the large one now.
        assert ghost(desk) in (SMALL, LARGE)
        desk.by("accept").hover()
        assert ghost(desk) is None

    def test_a_click_picks_it_with_the_chosen_label(self, picking: Callable[..., Desk], server: Server) -> None:
        desk = picking(LARGE, OTHER)
        desk.click(12, 10)
        expect(desk.by("box-item")).to_have_count(1)
        assert ghost(desk) is None
        desk.press("2")
        move_to(desk, (80, 10))
        expect(desk.by("ghost")).to_have_attribute("data-label", "person")
        desk.press("Enter")
        assert labels(desk) == ["car", "person"]
        desk.draw((74, 40, 94, 60))
        desk.press("u", "u")  # each is a step
        assert rects(desk) == [LARGE]
        desk.press("Control+y", "Control+y")
        move_to(desk, (94, 60))
        answer = server.stored(desk.answer("a"))
        assert [(span["label"], box_of(span), span.get("picked", False)) for span in answer["spans"]] == [
            ("car", LARGE, True),
            ("person", OTHER, True),
            ("person", pytest.approx((74, 40, 94, 60), abs=0.3), False),
        ]

    def test_a_picked_box_stays_picked_when_it_is_adjusted_or_its_answer_is_opened_again(
        self, picking: Callable[..., Desk], server: Server
    ) -> None:
        desk = picking(LARGE)
        desk.click(12, 10)
        desk.drag((70, 56), (72, 58))
        desk.press("]", "2")
        image_id = desk.answer("a")
        desk.press("Backspace")
        expect(desk.by("box-item")).to_have_count(1)
        desk.press("]", "ArrowRight")
        desk.answer("a")
        (span,) = server.stored(image_id)["spans"]
        assert (span["label"], span["picked"]) == ("person", True)

    def test_what_is_a_box_already_is_no_candidate(self, picking: Callable[..., Desk]) -> None:
        desk = picking(LARGE, (10, 8, 70, 58), (76, 4, 94, 24))  # the second is nearly the first
        desk.click(12, 10)
        move_to(desk, (12, 10))
        desk.press("Escape", "Tab")
        assert ghost(desk) == (76, 4, 94, 24), "the only one that is left"
        desk.draw((74, 4, 93, 24), across=True)
        desk.press("Escape")
        move_to(desk, (80, 12))
        desk.press("Tab")
        assert ghost(desk) is None

    def test_tab_shows_the_others_until_the_pointer_leaves(self, picking: Callable[..., Desk]) -> None:
        desk = picking((LARGE, 0.5), (SMALL, 0.4))
        move_to(desk, (32, 24))
        assert ghost(desk) == SMALL
        desk.press("Tab")
        move_to(desk, (30, 22))
        assert ghost(desk) == LARGE
        desk.press("Tab")
        assert ghost(desk) == SMALL
        desk.press("Shift+Tab")
        assert ghost(desk) == LARGE
        desk.click(30, 22)
        assert rects(desk) == [LARGE]
        assert ghost(desk) is None
        desk.press("Tab")  # over a box
        assert ghost(desk) == SMALL
        desk.click(30, 22)
        assert rects(desk) == [LARGE, SMALL]
        move_to(desk, (5, 60))
        desk.press("Tab")
        assert ghost(desk) is None
        assert desk.page.evaluate("document.activeElement !== document.body"), "Tab moves the focus as ever"

    def test_over_boxes_a_click_selects(self, picking: Callable[..., Desk]) -> None:
        desk = picking(SMALL, OTHER, boxes=[LARGE])
        move_to(desk, (32, 24))
        assert (ghost(desk), grip(desk)) == (None, "")
        desk.click(32, 24)
        expect(desk.by("label-target")).to_have_text("Label of the selected box")
        move_to(desk, (80, 12))
        assert ghost(desk) is None
        desk.click(80, 12)  # deselects; the next click picks
        expect(desk.by("label-target")).to_have_text("Label of the next box")
        expect(desk.by("box-item")).to_have_count(1)
        desk.click(80, 12)
        assert rects(desk) == [LARGE, OTHER]

    def test_escape_hides_it_until_the_pointer_moves(self, picking: Callable[..., Desk]) -> None:
        """Otherwise Tab could not leave the image with the pointer over it."""
        desk = picking(LARGE)
        move_to(desk, (30, 20))
        desk.press("Escape")
        assert ghost(desk) is None
        desk.press("Tab")
        assert desk.page.evaluate("document.activeElement !== document.body")
        move_to(desk, (31, 20))
        assert ghost(desk) == LARGE

    def test_it_can_be_switched_off(self, picking: Callable[..., Desk]) -> None:
        desk = picking(LARGE)
        desk.press("v")
        desk.by("display").get_by_label("Candidates").uncheck()
        desk.page.reload()
        desk.wait_ready()
        move_to(desk, (30, 20))
        assert ghost(desk) is None
        desk.click(30, 20)
        expect(desk.by("box-item")).to_have_count(0)
        desk.draw((14, 10, 70, 56))
        assert rects(desk) == [pytest.approx((14, 10, 70, 56), abs=0.3)]

    def test_it_is_hidden_with_the_suggestions(self, picking: Callable[..., Desk]) -> None:
        desk = picking(LARGE)
        move_to(desk, (30, 20))
        desk.press("s")
        assert ghost(desk) is None
        desk.press("s")
        assert ghost(desk) == LARGE

    def test_a_tap_picks(self, picking: Callable[..., Desk]) -> None:
        desk = picking((LARGE, 0.5), (SMALL, 0.4), **PHONE)
        desk.page.touchscreen.tap(*desk.point(32, 24))
        assert rects(desk) == [SMALL]
        desk.page.touchscreen.tap(*desk.point(85, 60))
        expect(desk.by("box-item")).to_have_count(1)
        desk.page.touchscreen.tap(*desk.point(32, 24))
        expect(desk.by("label-target")).to_contain_text("selected box")
        touch(desk, [desk.point(60, 50)] * 2)  # deselects
        expect(desk.by("box-item")).to_have_count(1)
        touch(desk, [desk.point(60, 50)] * 2)
        assert rects(desk) == [SMALL, LARGE]


class TestSnapping:
    """A drag with Alt."""

    def test_a_rough_box_is_fitted_to_the_candidate(self, picking: Callable[..., Desk], server: Server) -> None:
        desk = picking(((14, 10, 74, 60), 0.2), (LARGE, 0.6), (SMALL, 0.9))
        drag(desk, (14, 12, 66, 50), key="Alt")
        expect(desk.page.locator(".notice")).to_contain_text("fitted to a detection; u restores")
        assert rects(desk) == [LARGE]
        desk.press("u")
        assert rects(desk) == [pytest.approx((14, 12, 66, 50), abs=0.3)]
        desk.press("u")
        assert rects(desk) == []
        desk.press("Control+y", "Control+y")
        (span,) = server.stored(desk.answer("a"))["spans"]
        assert (box_of(span), span.get("picked", False)) == (LARGE, False), "it was drawn"

    def test_only_with_alt_and_from_half_on(self, picking: Callable[..., Desk]) -> None:
        desk = picking(LARGE)
        drag(desk, (14, 12, 66, 50))
        assert rects(desk) == [pytest.approx((14, 12, 66, 50), abs=0.3)]
        desk.press("u")
        drag(desk, (40, 14, 70, 56), key="Alt")  # IoU 0.44
        assert rects(desk) == [pytest.approx((40, 14, 70, 56), abs=0.3)]
        expect(desk.page.locator(".notice")).to_contain_text("detected nothing there")

    def test_what_is_a_box_already_is_left_out(self, picking: Callable[..., Desk]) -> None:
        desk = picking(LARGE)
        desk.click(12, 10)
        desk.press("Escape", "2")
        drag(desk, (14, 12, 66, 50), key="Alt")
        assert rects(desk) == [LARGE, pytest.approx((14, 12, 66, 50), abs=0.3)]


def drag(desk: Desk, box: Box, key: str = "") -> None:
    drag_px(desk, box[:2], ((box[2] - box[0]) * scale(desk), (box[3] - box[1]) * scale(desk)), key=key)


def test_suggestions_that_cost_more_than_they_save_are_shown_on_request(
    picking: Callable[..., Desk], server: Server
) -> None:
    """With --threshold auto, a class is hidden until showing it is known to save time."""
    desk = picking((LARGE, 0.9), (OTHER, 0.3), threshold=1)
    notice = desk.by("not-worth-it")
    expect(notice).to_contain_text("Suggestions are hidden: so far, they would cost you more time than they save.")
    notice.get_by_role("button", name="Show 1 box").click()
    assert rects(desk) == [LARGE]
    expect(notice).to_be_hidden()
    desk.press("u")
    expect(notice).to_be_visible()
    notice.get_by_role("button").click()
    (span,) = server.stored(desk.answer("a"))["spans"]
    assert (span["label"], box_of(span), span["picked"]) == ("person", LARGE, True)


def test_no_notice_where_suggestions_are_shown(picking: Callable[..., Desk]) -> None:
    desk = picking((LARGE, 0.9), threshold=0.5)
    expect(desk.by("not-worth-it")).to_be_hidden()


def test_without_candidates_nothing_changes(desk: Desk) -> None:
    move_to(desk, (30, 20))
    assert ghost(desk) is None
    desk.click(30, 20)
    desk.press("Enter")
    expect(desk.by("box-item")).to_have_count(0)
    desk.draw((14, 12, 66, 50))
    assert rects(desk) == [pytest.approx((14, 12, 66, 50), abs=0.3)]


def test_a_detection_of_the_served_model_under_the_threshold_is_picked(
    server: Server, new_desk: Callable[..., Desk]
) -> None:
    """The whole way. After eight answers the fake model finds the true box, with a score of 0.9."""
    server.options = [*server.options, "--threshold", "0.95", "--answers-per-round", "8"]
    server.start()
    desk = new_desk().open()
    first = wait_for_version(desk)
    for _ in range(8):
        desk.answer("a")
    newest = wait_for_version(desk, first)
    number = IMAGES - 1  # the page had fetched the images before it already
    for _ in range(number - 8):
        desk.answer("x")
    expect(desk.stage).to_have_attribute("data-version", str(newest))
    desk.wait_ready()
    left, top, right, bottom = truth(number)
    desk.click((left + right) / 2, (top + bottom) / 2)
    assert rects(desk) == [pytest.approx(truth(number), abs=0.1)]
    answer = server.stored(desk.answer("a", next_image=False))
    assert answer["spans"][0]["picked"] is True
    assert [candidate[1] for candidate in answer["_suggestions"]["candidates"]] == [0.9]


class TestTightening:
    def test_each_edge_moves_to_the_edge_of_the_object(self, desk: Desk) -> None:
        left, top, right, bottom = truth(0)
        desk.draw((left - 3, top - 2, right + 2, bottom + 3))
        before = rects(desk)
        desk.press("t")
        assert rects(desk) == [truth(0)]
        desk.press("t")
        expect(desk.page.locator(".notice")).to_contain_text("no stronger edges")
        desk.press("u")
        assert rects(desk) == before

    def test_out_of_reach_and_at_the_border_edges_stay(self, desk: Desk) -> None:
        """Two edges are more than 4 pixels away; the others are those of the image."""
        desk.draw((2, 2, 90, 62))
        desk.drag((2, 30), (0, 30))
        desk.drag((40, 2), (40, 0))
        before = rects(desk)
        desk.press("t")
        assert rects(desk) == before

    def test_a_near_edge_counts_more_than_a_far_one(self, server: Server, new_desk: Callable[..., Desk]) -> None:
        """Else edges inside the object win, such as the widest part of a round one."""
        pixels = np.full((64, 96, 3), 20, np.uint8)
        pixels[16:48, 20:60] = 80
        pixels[16:48, 23:60] = 200
        desk = self.open_with(pixels, server, new_desk)
        drag(desk, (19.5, 15, 61, 49))
        desk.press("t")
        assert rects(desk) == [(20, 16, 60, 48)]

    def test_of_a_large_photograph(self, server: Server, new_desk: Callable[..., Desk]) -> None:
        """Parts of more than 1000 pixels are examined at a lower resolution."""
        pixels = np.random.default_rng(0).integers(60, 90, (1500, 2400, 3), np.uint8)
        pixels[200:1400, 300:2100, 0] += 60
        desk = self.open_with(pixels, server, new_desk)
        desk.draw((280, 230, 2150, 1360))
        desk.press("t")
        assert rects(desk) == [pytest.approx((300, 200, 2100, 1400), abs=3)]

    def open_with(self, pixels: np.ndarray, server: Server, new_desk: Callable[..., Desk]) -> Desk:
        """A page with this image alone."""
        images = server.directory / "images"
        for path in images.iterdir():
            path.unlink()
        Image.fromarray(pixels).save(images / "a.png")
        server.start()
        return new_desk().open()


def test_arrow_keys_that_are_held_down_move_faster(desk: Desk) -> None:
    desk.draw((20, 16, 40, 30))
    step = 1 / scale(desk)
    (before,) = rects(desk)
    for _ in range(10):  # the first is no repeat, the next six are as short
        desk.page.keyboard.down("ArrowRight")
    desk.page.keyboard.up("ArrowRight")
    assert rects(desk)[0][0] == pytest.approx(before[0] + (7 + 3 * 5) * step, abs=0.1)
    desk.press("ArrowRight")
    assert rects(desk)[0][0] == pytest.approx(before[0] + (8 + 3 * 5) * step, abs=0.1)
