"""Labels and corrections: what a person means is what is stored, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from desk import IMAGES, PHONE, Box, Desk, Server, box_of
from playwright.sync_api import Locator, expect
from waiting import wait_until

Suggested = tuple[str, Box]


def labels(desk: Desk) -> list[str]:
    """The labels of the boxes, in the order in which they were made."""
    return desk.page.locator("[data-testid=box-item] .name").all_inner_texts()


def pressed(desk: Desk, label: str) -> Locator:
    return desk.page.locator(f"[data-testid=label-{label}][aria-pressed=true]")


def rect_span(label: str, box: Box, score: float | None = 0.8) -> dict[str, Any]:
    left, top, right, bottom = box
    place = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    corners = [[left, top], [left, bottom], [right, bottom], [right, top]]
    return {"label": label, "type": "rect", **place, "points": corners, **({} if score is None else {"score": score})}


@pytest.fixture
def suggesting(server: Server, new_desk: Callable[..., Desk]) -> Callable[..., Desk]:
    """Opens a page whose images all have these boxes, as a model would have suggested them."""

    def start(*suggested: Suggested | dict[str, Any], **options: object) -> Desk:
        spans = [each if isinstance(each, dict) else rect_span(*each) for each in suggested]
        images = [str(server.directory / "images" / f"{number:02}.png") for number in range(IMAGES)]
        lines = [json.dumps({"image": image, "spans": spans}) for image in images]
        (server.directory / "tasks.jsonl").write_text("\n".join(lines))
        server.options = ["127.0.0.1", "1"]  # no model server there: the boxes of the source are shown
        server.start("tasks.jsonl")
        desk = new_desk(**options).open()
        expect(desk.by("box-item")).to_have_count(len(spans))
        return desk

    return start


def rects(desk: Desk) -> list[Box]:
    """Left, top, right, bottom of each box, in pixels of the image."""
    texts = desk.by("box-item").evaluate_all("items => items.map(item => item.dataset.rect)")
    numbers = [[float(number) for number in text.split(",")] for text in texts]
    return [(x, y, x + width, y + height) for x, y, width, height in numbers]


def origins(desk: Desk) -> list[str]:
    return desk.by("box-item").evaluate_all("items => items.map(item => item.dataset.origin)")


def scale(desk: Desk) -> float:
    """Screen pixels per pixel of the image."""
    return desk.point(1, 0)[0] - desk.point(0, 0)[0]


def grip(desk: Desk) -> str | None:
    """What a drag from where the mouse is would take hold of."""
    return desk.page.locator(".scroll").get_attribute("data-grip")


def move_to(desk: Desk, at: tuple[float, float], off_px: tuple[float, float] = (0, 0)) -> None:
    """The mouse to a pixel of the image, and some pixels of the screen beside it."""
    x, y = desk.point(*at)
    desk.page.mouse.move(x + off_px[0], y + off_px[1])


def drag_px(desk: Desk, start: tuple[float, float], way_px: tuple[float, float], key: str = "") -> None:
    """From a pixel of the image, by pixels of the screen."""
    x, y = desk.point(*start)
    if key:
        desk.page.keyboard.down(key)
    desk.page.mouse.move(x, y)
    desk.page.mouse.down()
    desk.page.mouse.move(x + way_px[0] / 2, y + way_px[1] / 2)
    desk.page.mouse.move(x + way_px[0], y + way_px[1])
    desk.page.mouse.up()
    if key:
        desk.page.keyboard.up(key)


def touch(desk: Desk, *fingers: Sequence[tuple[float, float]], end: str = "touchEnd") -> None:
    """Fingers on the screen, each along its points (of the window); all of them have equally many."""
    session = desk.page.context.new_cdp_session(desk.page)
    for step, points in enumerate(zip(*fingers, strict=True)):
        kind = "touchMove" if step else "touchStart"
        at = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
    session.send("Input.dispatchTouchEvent", {"type": end, "touchPoints": []})
    session.detach()


def line(start: tuple[float, float], end: tuple[float, float], steps: int = 6) -> list[tuple[float, float]]:
    shares = [step / steps for step in range(steps + 1)]
    return [(start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])) for share in shares]


class TestLabelKeys:
    def test_after_drawing_they_choose_the_label_of_the_next_box(self, desk: Desk) -> None:
        """`1`, drag, `2`, drag made two boxes of label 2."""
        desk.press("1")
        desk.draw((5, 5, 30, 25))
        desk.press("2")
        expect(pressed(desk, "person")).to_have_count(1)
        desk.draw((50, 10, 80, 40))
        desk.press("1")
        desk.draw((10, 40, 40, 60))
        assert labels(desk) == ["car", "person", "car"]

    def test_a_box_that_was_moved_or_added_by_key_keeps_its_label(self, desk: Desk) -> None:
        desk.press("b", "ArrowRight", "2")
        desk.draw((5, 5, 30, 25))
        desk.drag((17, 15), (27, 20))
        desk.press("1")
        assert labels(desk) == ["car", "person"]

    def test_a_box_that_was_clicked_and_then_moved_keeps_its_label(self, desk: Desk) -> None:
        """It stayed chosen, and the key for the next box relabelled it."""
        desk.draw((5, 5, 30, 25))
        desk.click(17, 15)
        expect(desk.by("label-target")).to_have_text("Label of the selected box")
        desk.drag((17, 15), (27, 20))
        expect(desk.by("label-target")).to_have_text("Label of the next box")
        desk.press("2")
        desk.draw((50, 10, 80, 40))
        assert labels(desk) == ["car", "person"]

    @pytest.mark.parametrize("how", ["click", "brackets", "list"])
    def test_a_box_selected_on_purpose_is_relabelled(self, desk: Desk, how: str) -> None:
        """The next box has the label that was chosen for it, not the one that the selected box was given."""
        desk.draw((5, 5, 30, 25))
        {
            "click": lambda: desk.click(17, 15),
            "brackets": lambda: desk.press("Escape", "]"),
            "list": lambda: desk.by("box-item").first.click(),
        }[how]()
        expect(desk.by("label-target")).to_have_text("Label of the selected box")
        desk.press("2")
        expect(pressed(desk, "person")).to_have_count(1)
        assert labels(desk) == ["person"]
        desk.press("Escape")
        expect(desk.by("label-target")).to_have_text("Label of the next box")
        expect(pressed(desk, "car")).to_have_count(1)
        desk.draw((50, 10, 80, 40))
        assert labels(desk) == ["person", "car"]

    def test_by_touch(self, server: Server, new_desk: Callable[..., Desk]) -> None:
        server.start()
        desk = new_desk(**PHONE).open()
        desk.draw((5, 5, 30, 25))
        desk.by("label-person").tap()
        assert labels(desk) == ["car"]
        desk.page.touchscreen.tap(*desk.point(17, 15))
        expect(desk.by("label-target")).to_contain_text("selected box")
        desk.by("label-person").tap()
        assert labels(desk) == ["person"]


class TestHandles:
    def test_they_show_and_work_without_selecting_first(self, suggesting: Callable[..., Desk]) -> None:
        desk = suggesting(("car", (20, 16, 60, 48)))
        handles = desk.page.locator(".handles span")
        move_to(desk, (10, 8))
        expect(handles).to_have_count(0)
        move_to(desk, (40, 30))  # inside: the handles say that it can be taken hold of; a drag would draw
        expect(handles).to_have_count(4)
        assert grip(desk) == ""
        for at, name in (((20, 16), "nw"), ((60, 48), "se"), ((40, 16), "n"), ((60, 30), "e")):
            move_to(desk, at)
            assert grip(desk) == name
        expect(desk.by("box-item")).to_have_attribute("aria-pressed", "false")
        desk.drag((20, 16), (10, 8))
        desk.drag((60, 32), (70, 32))
        assert rects(desk) == [pytest.approx((10, 8, 70, 48), abs=0.3)]
        assert origins(desk) == ["adjusted"]
        desk.press("2")  # moved, not selected on purpose: it keeps its label
        assert labels(desk) == ["car"]

    @pytest.mark.parametrize("off_px", [-4, 5])
    def test_at_the_images_border_and_beyond_it(self, suggesting: Callable[..., Desk], off_px: float) -> None:
        """At 0, 2 and 5 pixels outside the image a drag drew a new box."""
        desk = suggesting(("car", (0, 0, 96, 64)))
        away = 10 * scale(desk)
        for at, out, way in (
            ((96, 30), (1, 0), (-away, 0)),
            ((0, 30), (-1, 0), (away, 0)),
            ((40, 0), (0, -1), (0, away)),
            ((40, 64), (0, 1), (0, -away)),
            ((96, 64), (1, 1), (-away, -away)),
        ):
            off = (out[0] * off_px / scale(desk), out[1] * off_px / scale(desk))
            drag_px(desk, (at[0] + off[0], at[1] + off[1]), way)
            expect(desk.by("box-item")).to_have_count(1)
            left, top, right, bottom = rects(desk)[0]
            moved = [x for x in (left, top, 96 - right, 64 - bottom) if abs(x - 10) < 0.3]
            assert len(moved) == sum(map(abs, out)), (at, rects(desk))
            desk.press("u")
            expect(desk.by("box-item")).to_have_attribute("data-origin", "suggested")

    def test_a_drag_inside_draws_and_shift_always_does(self, suggesting: Callable[..., Desk]) -> None:
        desk = suggesting(("person", (10, 8, 86, 56)))
        desk.drag((30, 20), (60, 40))
        expect(desk.by("box-item")).to_have_count(2)
        desk.press("Escape")
        desk.page.keyboard.down("Shift")
        move_to(desk, (10, 8))
        assert grip(desk) == ""
        desk.page.keyboard.up("Shift")
        assert grip(desk) == "nw"  # it follows the key, without a move of the mouse
        drag_px(desk, (10, 8), (80, 80), key="Shift")
        expect(desk.by("box-item")).to_have_count(3)

    def test_the_selected_box_comes_first_then_the_nearest_edge_then_the_smallest(
        self, suggesting: Callable[..., Desk]
    ) -> None:
        desk = suggesting(("car", (10, 10, 50, 50)), ("person", (10, 10, 40, 40)), ("car", (50.7, 20, 80, 60)))
        drag_px(desk, (10, 30), (-16, 0))  # two edges in the same place: the smaller box
        assert rects(desk)[1][0] < 9 and rects(desk)[0][0] == 10
        desk.press("u", "Escape")
        drag_px(desk, (50.1, 35), (16, 0))  # between two edges: the nearer one
        assert rects(desk)[0][2] > 51 and rects(desk)[2][0] == 50.7
        desk.press("u", "Escape")
        desk.click(70, 40)
        drag_px(desk, (50.1, 35), (16, 0))  # the same place, with the other box selected
        assert rects(desk)[2][0] > 52 and rects(desk)[0][2] == 50
        expect(desk.by("box-item")).to_have_count(3)

    def test_small_boxes_have_all_their_parts(self, suggesting: Callable[..., Desk]) -> None:
        """The corners' zones are larger than the box: its middle and its edges stay within reach."""
        desk = suggesting(("car", (40, 30, 43, 33)))
        side = 3 * scale(desk)
        assert side < 30
        for at, name in (((40, 30), "nw"), ((43, 33), "se"), ((41.5, 30), "n"), ((40, 31.5), "w"), ((41.5, 31.5), "")):
            move_to(desk, at)
            assert grip(desk) == name
        desk.click(41.5, 31.5)
        move_to(desk, (41.5, 31.6))
        assert grip(desk) == "move"
        drag_px(desk, (43, 33), (4 * side, 3 * side))
        assert rects(desk) == [pytest.approx((40, 30, 55, 42), abs=0.3)]

    def test_escape_cancels_a_drag_and_a_box_can_be_turned_inside_out(self, suggesting: Callable[..., Desk]) -> None:
        """Escape during a drag puts the box back; a box dragged over its opposite edge turns inside out."""
        desk = suggesting(("car", (20, 16, 60, 48)))
        move_to(desk, (60, 48))
        desk.page.mouse.down()
        move_to(desk, (80, 60))
        wait_until(lambda: rects(desk)[0][2] > 79, "the box to follow")
        desk.press("Escape")
        desk.page.mouse.up()
        assert rects(desk) == [(20, 16, 60, 48)]
        assert origins(desk) == ["suggested"]
        desk.drag((60, 48), (10, 8))
        assert rects(desk) == [pytest.approx((10, 8, 20, 16), abs=0.3)]

    def test_keys_during_a_drag(self, suggesting: Callable[..., Desk], server: Server) -> None:
        """An answer stored the box in mid-drag; removing a box between press and move was an error."""
        desk = suggesting(("car", (20, 16, 60, 48)))
        move_to(desk, (60, 48))
        desk.page.mouse.down()
        desk.press("d")
        move_to(desk, (70, 55))
        move_to(desk, (80, 60))
        desk.page.mouse.up()
        expect(desk.by("box-item")).to_have_count(0)
        desk.press("u")
        assert rects(desk) == [(20, 16, 60, 48)]
        move_to(desk, (60, 48))
        desk.page.mouse.down()
        move_to(desk, (80, 60))
        wait_until(lambda: rects(desk)[0][2] > 79, "the box to follow")
        desk.answer("a")
        desk.page.mouse.up()
        wait_until(server.answers, "the answer")
        assert [box_of(span) for span in server.answers()[0]["spans"]] == [(20, 16, 60, 48)]

    def test_hidden_suggestions_are_out_of_reach(self, suggesting: Callable[..., Desk]) -> None:
        desk = suggesting(("person", (20, 16, 60, 48)))
        desk.press("s")
        move_to(desk, (20, 16))
        assert grip(desk) == ""
        desk.drag((20, 16), (50, 40))
        expect(desk.by("box-item")).to_have_count(2)
        desk.press("s")
        assert rects(desk)[0] == (20, 16, 60, 48)


class TestPolygons:
    def test_they_stay_polygons(self, suggesting: Callable[..., Desk], server: Server) -> None:
        points = [[20, 10], [60, 14], [50, 40], [24, 44]]
        desk = suggesting({"label": "car", "type": "polygon", "points": points})
        move_to(desk, (20, 10))
        assert grip(desk) == ""  # no rectangle's handles on it
        desk.click(40, 25)
        desk.press("2", "ArrowRight", "Alt+ArrowRight")
        desk.drag((50, 40), (55, 50))  # one of its corners
        desk.press("Control+z")
        desk.drag((40, 25), (45, 25))
        desk.press("Escape")
        desk.draw((70, 10, 90, 30))
        image_id = desk.answer("a")
        wait_until(lambda: len(server.answers()) == 1, "the answer")
        (answer,) = server.answers()
        assert answer["image_id"] == image_id
        polygon, box = answer["spans"]
        step = 5 + 1 / scale(desk)
        assert (polygon["type"], polygon["label"], box["type"]) == ("polygon", "person", "rect")
        assert polygon["points"] == [pytest.approx([x + step, y], abs=0.3) for x, y in points]


class TestNoAccidents:
    def test_a_new_box_replaces_the_suggestion_that_it_covers(
        self, suggesting: Callable[..., Desk], server: Server
    ) -> None:
        desk = suggesting(("car", (20, 16, 60, 48)), ("person", (22, 18, 62, 50)), ("car", (70, 40, 90, 60)))
        desk.page.keyboard.down("Shift")
        desk.drag((16, 12), (58, 46))
        desk.page.keyboard.up("Shift")
        expect(desk.page.locator(".notice")).to_contain_text("replaces the suggestion car 80 %")
        assert sorted(zip(labels(desk), origins(desk), strict=True)) == [
            ("car", "drawn"),
            ("car", "suggested"),
            ("person", "suggested"),
        ]
        desk.press("u")  # one step
        assert sorted(rects(desk)) == [(20, 16, 60, 48), (22, 18, 62, 50), (70, 40, 90, 60)]
        desk.press("Control+y")
        desk.answer("a")
        wait_until(server.answers, "the answer")
        kept = sorted(box_of(span) for span in server.answers()[0]["spans"])
        assert kept[0] == pytest.approx((16, 12, 58, 46), abs=0.3)
        assert kept[1:] == [(22, 18, 62, 50), (70, 40, 90, 60)]

    def test_only_from_half_on_and_with_its_label_it_is_replaced(self, suggesting: Callable[..., Desk]) -> None:
        desk = suggesting(("car", (20, 16, 60, 48)))
        desk.drag((30, 22), (58, 46))  # IoU 0.52
        expect(desk.by("box-item")).to_have_count(1)
        assert origins(desk) == ["drawn"]
        desk.press("u", "2")
        desk.drag((30, 22), (58, 46))
        expect(desk.by("box-item")).to_have_count(2)
        desk.press("u", "1")
        desk.drag((34, 22), (58, 46))  # IoU 0.45
        expect(desk.by("box-item")).to_have_count(2)

    def test_a_short_drag_makes_no_box(self, desk: Desk) -> None:
        for way_px in ((4, 4), (60, 4), (4, 60)):
            drag_px(desk, (30, 30), way_px)
            expect(desk.page.locator(".notice")).to_contain_text("too small")
        drag_px(desk, (30, 30), (1, 1))
        expect(desk.by("box-item")).to_have_count(0)
        drag_px(desk, (30, 30), (30, 30))
        expect(desk.by("box-item")).to_have_count(1)

    def test_two_boxes_in_one_place_are_warned_of(self, desk: Desk) -> None:
        desk.draw((20, 16, 60, 48))
        desk.press("Escape", "2")
        drag_px(desk, (21, 17), (39 * scale(desk), 31 * scale(desk)), key="Shift")
        expect(desk.by("box-item")).to_have_count(2)
        expect(desk.by("box-warning")).to_have_count(0)  # of another label
        desk.press("u", "1")
        drag_px(desk, (21, 17), (39 * scale(desk), 31 * scale(desk)), key="Shift")
        expect(desk.by("box-warning")).to_contain_text("Two boxes “car” overlap by 94 %")
        desk.press("u")
        expect(desk.by("box-item")).to_have_count(1)
        expect(desk.by("box-warning")).to_have_count(0)
        drag_px(desk, (21, 17), (39 * scale(desk), 31 * scale(desk)), key="Shift")
        desk.by("box-warning").get_by_role("button", name="Keep").click()
        expect(desk.by("box-warning")).to_have_count(0)
        expect(desk.by("box-item")).to_have_count(2)

    def test_a_tiny_box_is_warned_of(self, desk: Desk) -> None:
        desk.draw((20, 16, 60, 48))
        desk.drag((60, 48), (22, 46))
        expect(desk.by("box-warning")).to_contain_text("tiny: 2 × 30 pixels")
        desk.by("box-warning").get_by_role("button", name="Undo").click()
        assert rects(desk) == [pytest.approx((20, 16, 60, 48), abs=0.3)]
        expect(desk.by("box-warning")).to_have_count(0)
        desk.press("a")
        desk.wait_ready()
        expect(desk.by("box-warning")).to_have_count(0)


class TestKeys:
    def test_each_edge_can_be_moved(self, suggesting: Callable[..., Desk]) -> None:
        desk = suggesting(("car", (20, 16, 60, 48)))
        desk.press("]")
        step = 10 / scale(desk)
        left, top, right, bottom = 20.0, 16.0, 60.0, 48.0
        for keys, (dl, dt, dr, db) in (
            ("Shift+Alt+ArrowRight", (0, 0, 1, 0)),
            ("Shift+Alt+ArrowUp", (0, 0, 0, -1)),
            ("Shift+Control+ArrowLeft", (-1, 0, 0, 0)),
            ("Shift+Control+ArrowDown", (0, 1, 0, 0)),
        ):
            desk.press(keys)
            left, top, right, bottom = left + dl * step, top + dt * step, right + dr * step, bottom + db * step
            assert rects(desk)[0] == pytest.approx((left, top, right, bottom), abs=0.05), keys
        desk.press(*["Shift+Control+ArrowRight"] * 60)  # it stops before the other edge
        assert rects(desk)[0] == pytest.approx((right - 1, top, right, bottom), abs=0.05)
        desk.press("Escape", "Control+ArrowLeft", "Alt+ArrowLeft")  # without a box: the page stays
        desk.wait_ready()

    def test_changes_are_taken_back_and_repeated_one_by_one(self, desk: Desk) -> None:
        desk.draw((20, 16, 60, 48))
        desk.press("ArrowRight", "ArrowRight", "ArrowRight")  # one step together
        desk.press("Delete")
        desk.press("u")
        expect(desk.by("box-item")).to_have_count(1)
        desk.press("u")
        assert rects(desk) == [pytest.approx((20, 16, 60, 48), abs=0.05)]
        desk.press("Control+z")
        expect(desk.by("box-item")).to_have_count(0)
        desk.press("u")
        expect(desk.page.locator(".notice")).to_contain_text("no change to undo")
        desk.press("Control+y", "Control+Shift+Z", "Control+y")
        expect(desk.by("box-item")).to_have_count(0)
        desk.press("Control+z")
        expect(desk.by("box-item")).to_have_count(1)


class TestRemoving:
    def test_trash_removes_the_selected_box(self, suggesting: Callable[..., Desk]) -> None:
        """It removed all suggestions."""
        desk = suggesting(("car", (5, 5, 30, 30)), ("car", (50, 10, 80, 40)))
        expect(desk.by("remove-selected")).to_be_disabled()
        desk.click(17, 17)
        desk.by("remove-selected").click()
        assert rects(desk) == [(50, 10, 80, 40)]
        expect(desk.by("remove-selected")).to_be_disabled()
        desk.draw((5, 40, 30, 60))
        desk.by("remove-selected").click()  # the box just drawn
        assert rects(desk) == [(50, 10, 80, 40)]
        desk.draw((5, 40, 30, 60))
        desk.by("remove-suggestions").click()
        assert origins(desk) == ["drawn"]
        desk.press("u")
        expect(desk.by("box-item")).to_have_count(2)

    def test_the_list_chooses_no_other_box_with_the_mouse(self, desk: Desk) -> None:
        """The box that took the place of the deleted one was selected as if on purpose: `2` relabelled it."""
        desk.draw((5, 5, 30, 25))
        desk.draw((50, 10, 80, 40))
        desk.press("Escape")
        desk.by("box-delete").first.click()
        expect(desk.by("box-item")).to_have_count(1)
        expect(desk.by("box-item")).to_have_attribute("aria-pressed", "false")
        desk.press("2")
        desk.draw((5, 5, 30, 25))
        assert labels(desk) == ["car", "person"]

    def test_the_list_keeps_the_focus_with_the_keyboard(self, desk: Desk) -> None:
        """Also on the next image: its first box was selected. And label keys changed the box that got the focus."""
        for box in ((5, 5, 30, 25), (50, 10, 80, 40), (10, 40, 40, 60)):
            desk.draw(box)
        desk.press("Escape")
        desk.by("box-item").first.focus()
        desk.press("Shift+Tab", "Tab", "Delete")
        expect(desk.by("box-item")).to_have_count(2)
        expect(desk.by("box-item").first).to_be_focused()
        expect(desk.by("box-item").first).to_have_attribute("aria-pressed", "true")
        expect(desk.by("label-target")).to_have_text("Label of the next box")
        desk.press("2", "Delete")
        assert labels(desk) == ["car"]
        desk.answer("a")
        desk.wait_ready()
        desk.press("c")
        expect(desk.by("box-item")).to_have_count(1)
        desk.press("Escape")
        desk.by("box-item").first.focus()
        desk.press("Shift+Tab", "Tab", "Backspace")  # to the image before, which has a box, too
        expect(desk.page.locator(".caption strong")).to_have_text("00.png")
        desk.wait_ready()
        expect(desk.by("box-item")).to_have_attribute("aria-pressed", "false")
        expect(desk.by("box-item")).not_to_be_focused()


class TestTouch:
    def test_a_corner_is_dragged_without_selecting_first(self, suggesting: Callable[..., Desk]) -> None:
        desk = suggesting(("car", (0, 16, 60, 48)), **PHONE)
        corner = desk.point(60, 48)
        touch(desk, line((corner[0] + 15, corner[1] + 15), desk.point(80, 60)))
        edge = desk.point(0, 30)
        touch(desk, line((edge[0] - 5, edge[1]), desk.point(10, 30)))
        expect(desk.by("box-item")).to_have_count(1)
        (left, top, right, bottom) = rects(desk)[0]
        off = 15 / scale(desk)
        assert (right, bottom) == pytest.approx((80 - off, 60 - off), abs=0.5)
        assert (left, top) == pytest.approx((10 + 5 / scale(desk), 16), abs=0.5)

    def test_two_fingers_zoom_and_change_no_box(self, suggesting: Callable[..., Desk]) -> None:
        """The first finger may come down on a corner, and move before the second one is there."""
        desk = suggesting(("car", (20, 16, 60, 48)), **PHONE)
        before = scale(desk)
        session = desk.page.context.new_cdp_session(desk.page)
        (x, y), (x2, y2) = desk.point(60, 48), desk.point(20, 16)

        def send(kind: str, *points: tuple[float, float]) -> None:
            at = [{"x": px, "y": py, "id": number} for number, (px, py) in enumerate(points)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

        send("touchStart", (x, y))
        send("touchMove", (x + 12, y + 12))
        send("touchStart", (x + 12, y + 12), (x2, y2))
        for step in range(1, 6):
            send("touchMove", (x + 12 + 6 * step, y + 12), (x2 - 6 * step, y2))
        send("touchEnd")
        assert scale(desk) > 1.2 * before
        assert rects(desk) == [(20, 16, 60, 48)]
        assert origins(desk) == ["suggested"]

    @pytest.mark.parametrize("box", [(0, 0, 96, 64), (70, 0, 96, 20)])
    def test_the_selected_box_has_a_delete_button(self, suggesting: Callable[..., Desk], box: Box) -> None:
        desk = suggesting(("car", box), **PHONE)
        expect(desk.by("box-button")).to_have_count(0)
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        desk.page.touchscreen.tap(*desk.point(*middle))
        button = desk.by("box-button")
        for _ in range(3):
            expect(button).to_be_in_viewport(ratio=1)
            place, stage = button.bounding_box(), desk.stage.bounding_box()
            assert place is not None and stage is not None
            assert min(place["width"], place["height"]) >= 44
            assert place["x"] >= stage["x"] and place["x"] + place["width"] <= stage["x"] + stage["width"]
            desk.by("zoom-in").tap()
        button.tap()
        expect(desk.by("box-item")).to_have_count(0)

    def test_there_is_no_delete_button_for_a_box_out_of_view(self, suggesting: Callable[..., Desk]) -> None:
        """It stayed at the border of the view, and removed a box that was not visible."""
        desk = suggesting(("car", (2, 2, 12, 10)), **PHONE)
        desk.page.touchscreen.tap(*desk.point(7, 6))
        expect(desk.by("box-button")).to_be_visible()
        for _ in range(6):
            desk.by("zoom-in").tap()
        scroll = desk.page.locator(".scroll")
        scroll.evaluate("scroll => scroll.scrollTo(scroll.scrollWidth, scroll.scrollHeight)")
        expect(desk.by("box-button")).to_have_count(0)
        scroll.evaluate("scroll => scroll.scrollTo(0, 0)")
        expect(desk.by("box-button")).to_be_visible()

    def test_a_change_is_taken_back_and_repeated(self, suggesting: Callable[..., Desk]) -> None:
        """There was a key for it alone, and the page named that key."""
        desk = suggesting(("car", (20, 16, 60, 48)), **PHONE)
        expect(desk.by("take-back")).to_be_disabled()
        touch(desk, line(desk.point(30, 22), desk.point(58, 46)))
        expect(desk.page.locator(".notice")).to_contain_text("the ↶ button undoes this")
        desk.page.wait_for_timeout(700)  # Chromium makes no click of a tap that follows a drag at once
        desk.by("take-back").tap()
        expect(desk.by("box-item")).to_have_attribute("data-origin", "suggested")
        expect(desk.by("take-back")).to_be_disabled()
        desk.by("repeat").tap()
        expect(desk.by("box-item")).to_have_attribute("data-origin", "drawn")
        expect(desk.by("repeat")).to_be_disabled()
