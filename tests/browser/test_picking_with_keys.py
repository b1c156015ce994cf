"""Candidates without the mouse: Tab goes through those of the image, Enter or a label key picks one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from desk import PHONE, Box, Desk, Server, box_of, truth
from picking import LARGE, OTHER, SMALL, ghost
from playwright.sync_api import expect
from test_accessibility import findings
from test_corrections import labels, move_to, rects
from test_training_panel import wait_for_version


def has_left_the_image(desk: Desk) -> bool:
    return bool(desk.page.evaluate("document.activeElement !== document.body"))


class TestTab:
    def test_shows_all_of_them_best_first_and_then_moves_the_focus(self, picking: Callable[..., Desk]) -> None:
        desk = picking((LARGE, 0.5), (SMALL, 0.4), (OTHER, 0.6))
        for key, expected in (
            ("Tab", OTHER),
            ("Tab", LARGE),
            ("Tab", SMALL),
            ("Shift+Tab", LARGE),
            ("Tab", SMALL),
        ):
            desk.press(key)
            assert ghost(desk) == expected
        assert not has_left_the_image(desk)
        expect(desk.page.get_by_text("candidate: person, 40 %")).to_be_attached()  # for screen readers
        desk.press("Tab")
        assert ghost(desk) is None
        assert has_left_the_image(desk)
        desk.press("Enter")
        expect(desk.by("box-item")).to_have_count(0)

    def test_back_from_the_first_one_moves_the_focus(self, picking: Callable[..., Desk]) -> None:
        desk = picking((LARGE, 0.5), (OTHER, 0.6))
        desk.press("Tab", "Shift+Tab")
        assert ghost(desk) is None
        assert has_left_the_image(desk)

    def test_after_escape_it_moves_the_focus(self, picking: Callable[..., Desk]) -> None:
        """A keyboard must be able to leave the image without going through a hundred candidates."""
        desk = picking(LARGE, OTHER)
        desk.press("Tab", "Escape")
        assert ghost(desk) is None
        desk.press("Tab")
        assert has_left_the_image(desk)
        desk.answer("a")
        desk.wait_ready()
        desk.page.evaluate("document.activeElement.blur()")
        desk.press("Escape")
        desk.answer("a")
        desk.wait_ready()
        desk.press("Tab")
        assert ghost(desk) == LARGE, "the escape was one on the image before"

    @pytest.mark.parametrize(
        ("label", "chosen", "skipped"),
        [
            ("car", "1", True),
            ("person", "1", True),  # it would become a second car
            ("car", "2", True),  # the model means the object that has a box
            ("person", "2", False),  # a person on a horse
        ],
    )
    def test_skips_what_overlaps_a_box_of_its_label(
        self, picking: Callable[..., Desk], label: str, chosen: str, skipped: bool
    ) -> None:
        desk = picking((LARGE, 0.6), (OTHER, 0.5), label=label, boxes=[(10, 8, 70, 40)])  # IoU 0.67
        desk.press(chosen, "Tab")
        assert ghost(desk) == (OTHER if skipped else LARGE)

    def test_skips_what_is_nearly_the_same_as_a_better_one(self, picking: Callable[..., Desk]) -> None:
        desk = picking(((10, 8, 70, 58), 0.4), (LARGE, 0.5), (OTHER, 0.3))
        desk.press("Tab", "Tab")
        assert ghost(desk) == OTHER

    @pytest.mark.parametrize("how", ["suggestions hidden", "switched off", "hand tool"])
    def test_shows_none_where_the_pointer_shows_none(self, picking: Callable[..., Desk], how: str) -> None:
        desk = picking(LARGE)
        desk.press("Tab")
        assert ghost(desk) == LARGE
        if how == "switched off":
            desk.press("v")
            desk.by("display").get_by_label("Candidates").uncheck()
            desk.press("v")
            desk.page.evaluate("document.activeElement.blur()")
        else:
            desk.press("s" if how == "suggestions hidden" else "m")
        assert ghost(desk) is None
        desk.press("Tab")
        assert ghost(desk) is None
        assert has_left_the_image(desk)

    def test_scrolls_to_a_candidate_outside_the_view(self, picking: Callable[..., Desk]) -> None:
        """Also with the mouse over the image, which then moves under the mouse."""
        desk = picking((OTHER, 0.5), ((4, 44, 16, 60), 0.4))
        move_to(desk, (50, 62))
        desk.press(*["+"] * 5)
        for expected in (OTHER, (4, 44, 16, 60)):
            desk.press("Tab")
            assert ghost(desk) == expected
            inner, outer = desk.by("ghost").bounding_box(), desk.stage.bounding_box()
            assert inner is not None and outer is not None
            for start, length in (("x", "width"), ("y", "height")):  # scrolling is by whole pixels
                assert outer[start] - 1 <= inner[start]
                assert inner[start] + inner[length] <= outer[start] + outer[length] + 1
        desk.press("z")
        assert ghost(desk) == (4, 44, 16, 60)


class TestPicking:
    def test_enter_picks_and_tab_goes_on(self, picking: Callable[..., Desk], server: Server) -> None:
        desk = picking((LARGE, 0.5), (SMALL, 0.4), (OTHER, 0.6))
        desk.press("Tab", "Enter")
        assert (rects(desk), ghost(desk)) == ([OTHER], None)
        desk.press("Enter")  # a second one adds nothing
        desk.press("Tab", "Tab")
        assert ghost(desk) == SMALL
        desk.press("Enter", "Tab")
        assert ghost(desk) is None, "past the last one"
        desk.press("u", "u")
        assert rects(desk) == []
        desk.press("Control+y", "Control+y")
        spans = server.stored(desk.answer("a"))["spans"]
        assert [(box_of(span), span["picked"]) for span in spans] == [(OTHER, True), (SMALL, True)]
        desk.press("Tab")
        assert has_left_the_image(desk) or ghost(desk) == OTHER

    def test_a_label_key_picks_with_that_label(self, picking: Callable[..., Desk]) -> None:
        desk = picking((LARGE, 0.5), (OTHER, 0.6))
        desk.press("Tab", "2")
        assert (labels(desk), rects(desk)) == (["person"], [OTHER])
        desk.press("1")  # chooses the label of the next box, as after drawing
        assert labels(desk) == ["person"]
        desk.press("Tab", "Enter")
        assert (labels(desk), rects(desk)) == (["person", "car"], [OTHER, LARGE])

    @pytest.mark.parametrize(
        ("keys", "expected"),
        [
            (("]", "Tab", "2"), [("car", SMALL), ("person", OTHER)]),
            (("Tab", "]", "2"), [("person", SMALL)]),
        ],
    )
    def test_a_label_key_is_for_what_was_shown_or_selected_last(
        self, picking: Callable[..., Desk], keys: tuple[str, ...], expected: list[tuple[str, Box]]
    ) -> None:
        desk = picking(OTHER, boxes=[SMALL])
        desk.press(*keys)
        assert sorted(zip(labels(desk), rects(desk), strict=True)) == expected


class TestMouse:
    def test_a_movement_over_the_image_shows_what_is_there(self, picking: Callable[..., Desk]) -> None:
        desk = picking((LARGE, 0.5), (OTHER, 0.6))
        move_to(desk, (85, 50))
        desk.press("Tab")
        assert ghost(desk) == OTHER
        move_to(desk, (86, 50))
        assert ghost(desk) is None
        desk.press("Tab")
        assert ghost(desk) == LARGE
        move_to(desk, (12, 10))
        desk.press("2")
        assert rects(desk) == [], "under the pointer, a label key chooses the label"

    def test_a_click_picks_what_is_under_it(self, picking: Callable[..., Desk]) -> None:
        desk = picking((LARGE, 0.5), (OTHER, 0.6))
        move_to(desk, (85, 50))
        desk.press("Tab")
        desk.page.mouse.down()
        desk.page.mouse.up()
        assert rects(desk) == []
        desk.click(30, 30)
        assert rects(desk) == [LARGE]

    def test_a_tap_on_a_box_selects_it(self, picking: Callable[..., Desk]) -> None:
        desk = picking(OTHER, boxes=[LARGE], **PHONE)
        desk.press("Tab")
        assert ghost(desk) == OTHER
        desk.page.touchscreen.tap(*desk.point(30, 30))
        expect(desk.by("label-target")).to_contain_text("selected box")
        assert (rects(desk), ghost(desk)) == ([LARGE], None)

    def test_one_that_rests_where_the_next_image_comes_does_not_choose(self, picking: Callable[..., Desk]) -> None:
        desk = picking((LARGE, 0.5), (SMALL, 0.4), (OTHER, 0.6))
        move_to(desk, (30, 30))
        desk.press("Tab")
        assert ghost(desk) == LARGE, "the other one under the pointer"
        desk.answer("a")
        desk.wait_ready()
        desk.press("Tab")
        assert ghost(desk) == OTHER, "the best one of the image"

    def test_the_wheel_shows_the_next_one_under_the_pointer(self, picking: Callable[..., Desk]) -> None:
        desk = picking((LARGE, 0.5), (SMALL, 0.4))
        move_to(desk, (32, 24))
        turn(desk, 100)
        assert ghost(desk) == LARGE
        turn(desk, 30)
        assert ghost(desk) == LARGE, "a little on a touch pad is not a step yet"
        turn(desk, 30)
        assert ghost(desk) == SMALL
        turn(desk, -100)
        assert ghost(desk) == LARGE

    def test_where_the_wheel_scrolls_or_zooms_it_does_only_that(self, picking: Callable[..., Desk]) -> None:
        desk = picking((LARGE, 0.1), (SMALL, 0.9))
        move_to(desk, (32, 24))
        before = desk.point(0, 0)
        desk.page.keyboard.down("Control")
        turn(desk, -200)
        desk.page.keyboard.up("Control")
        assert desk.point(0, 0)[1] < before[1]
        assert ghost(desk) == SMALL
        scrolled_px = desk.page.evaluate("document.querySelector('.scroll').scrollTop")
        turn(desk, 40)
        moved = "before => document.querySelector('.scroll').scrollTop > before"
        desk.page.wait_for_function(moved, arg=scrolled_px)
        assert ghost(desk) == SMALL


def turn(desk: Desk, delta_px: float) -> None:
    """The mouse's wheel, until the page has had the event."""
    seen = "new Promise(resolve => addEventListener('wheel', () => setTimeout(resolve), { once: true, capture: true }))"
    desk.page.evaluate(f"window.wheelSeen = {seen}; null")
    desk.page.mouse.wheel(0, delta_px)
    desk.page.evaluate("window.wheelSeen.then(() => null)")


class TestNewVersion:
    def test_its_candidates_come_at_once_where_nothing_is_suggested(
        self, server: Server, new_desk: Callable[..., Desk]
    ) -> None:
        """They came only with the next image, because no box was offered."""
        server.options = [*server.options, "--threshold", "0.95", "--answers-per-round", "100"]
        server.start()
        desk, other = new_desk().open(), new_desk()
        first = wait_for_version(desk)
        image = int(desk.page.locator(".caption strong").inner_text().partition(".")[0])
        left, top, right, bottom = truth(image)
        middle = ((left + right) / 2, (top + bottom) / 2)
        drawn = (74, 46, 92, 60)
        desk.draw(drawn)
        before = rects(desk)
        other.open("ben")
        for answers, expected in ((2, self.shifted(truth(image))), (6, truth(image))):
            for _ in range(answers):
                other.answer("a")
            other.press("Control+s")
            first = wait_for_version(desk, first)
            expect(desk.stage).to_have_attribute("data-version", str(first))
            expect(desk.by("show-offer")).to_have_count(0)
            assert rects(desk) == before
            desk.press("Escape")
            move_to(desk, middle)
            assert ghost(desk) == pytest.approx(expected, abs=0.1)
        desk.press("u")
        assert rects(desk) == []
        expect(desk.stage).to_have_attribute("data-version", str(first))
        desk.press("Control+y")
        assert rects(desk) == before
        desk.click(*middle)
        answer = server.stored(desk.answer("a"))
        assert answer["_suggestions"]["version"] == first
        assert [span.get("picked", False) for span in answer["spans"]] == [False, True]

    def shifted(self, box: Box) -> Box:
        """What the fake model detects after a few answers."""
        off = (box[2] - box[0]) / 4
        return box[0] + off, box[1], box[2] + off, box[3]


class TestHint:
    @pytest.mark.parametrize("end", ["pick", "close"])
    def test_picking_is_explained_until_the_first_pick(self, picking: Callable[..., Desk], end: str) -> None:
        desk = picking(LARGE)
        hint = desk.by("picking")
        expect(hint).to_contain_text("Click on one to add it, or press tab and enter.")
        assert findings(desk) == []
        desk.answer("a")
        expect(hint).to_be_visible()
        desk.press("Tab", "Enter") if end == "pick" else hint.get_by_role("button", name="Got it").click()
        expect(hint).to_be_hidden()
        desk.page.reload()
        desk.wait_ready()
        expect(hint).to_be_hidden()

    def test_without_candidates_it_is_not(self, desk: Desk) -> None:
        expect(desk.by("picking")).to_be_hidden()

    def test_a_phone_is_told_to_tap(self, picking: Callable[..., Desk]) -> None:
        desk = picking(LARGE, **PHONE)
        expect(desk.by("picking")).to_contain_text("Tap on one to add it.")
        assert "tab" not in desk.by("picking").inner_text()
        assert findings(desk) == []
