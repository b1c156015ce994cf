"""Keypoints on the page: nothing that nobody placed is stored as placed, and what was placed is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from desk import IMAGES, PHONE, Box, Desk, Server, change_tasks
from playwright.sync_api import Locator, expect
from test_accessibility import findings
from test_corrections import line, rect_span, touch

from odkeras.labels import Label, LabelMap

NAMES = ("tail", "middle", "tip")
BOX: Box = (10, 8, 70, 56)
GRID = {"tail": (25, 20), "middle": (55, 20), "tip": (25, 44)}
"""Where the page puts the keypoints of `BOX` at first."""
Place = tuple[float, float]


@pytest.fixture
def project(project: Path) -> Path:
    """Cars have keypoints, persons have none."""
    LabelMap((Label(1, "car", None, tuple(enumerate(NAMES))), Label(2, "person"))).save(project / "label_map.pbtxt")
    edges = "keypoint_edge { start: 0 end: 1 } keypoint_edge { start: 1 end: 2 }"
    (project / "pipeline.config").write_text(f"eval_config {{ {edges} }}\n")
    return project


@pytest.fixture
def suggesting(server: Server, new_desk: Callable[..., Desk]) -> Callable[..., Desk]:
    """Opens a page whose images all have these boxes of the source."""

    def start(*spans: dict[str, Any], **options: object) -> Desk:
        images = [str(server.directory / "images" / f"{number:02}.png") for number in range(IMAGES)]
        lines = [json.dumps({"image": image, "spans": spans}) for image in images]
        (server.directory / "tasks.jsonl").write_text("\n".join(lines))
        server.options = ["127.0.0.1", "1"]  # no model server there
        server.start("tasks.jsonl")
        desk = new_desk(**options).open()
        expect(desk.by("box-item")).to_have_count(len(spans))
        return desk

    return start


def car(*places: tuple[str, float, float, int], box: Box = BOX, score: float | None = 0.8) -> dict[str, Any]:
    rows = [{"name": name, "x": x, "y": y, "visibility": visibility} for name, x, y, visibility in places]
    return {**rect_span("car", box, score), "keypoints": rows}


def keypoint(desk: Desk, name: str) -> Locator:
    return desk.page.locator(f"[data-testid=keypoint][data-name={name}]")


def visibilities(desk: Desk) -> list[int]:
    return [int(text) for text in desk.by("keypoint").evaluate_all("all => all.map(one => one.dataset.visibility)")]


def place(desk: Desk, name: str) -> Place:
    x, y = str(keypoint(desk, name).get_attribute("data-at")).split(",")
    return float(x), float(y)


def places(desk: Desk) -> dict[str, Place]:
    return {name: place(desk, name) for name in NAMES}


def near(x: float, y: float) -> Any:
    return pytest.approx((x, y), abs=0.3)


def stored(server: Server, image_id: str) -> list[list[tuple[str, float, float, int]]]:
    """The keypoints of each box of an answer."""
    spans = server.stored(image_id)["spans"]
    return [[tuple(point.values()) for point in span.get("keypoints", [])] for span in spans]


def select(desk: Desk, number: int = 0) -> None:
    desk.by("box-item").nth(number).click()


class TestNewBoxes:
    def test_their_keypoints_are_not_there_until_they_are_placed(self, desk: Desk, server: Server) -> None:
        desk.draw(BOX)
        assert (list(places(desk)), visibilities(desk)) == (list(NAMES), [0, 0, 0])
        assert places(desk) == {name: near(*at) for name, at in GRID.items()}
        expect(desk.by("keypoint-hint")).to_contain_text("3 of 3 keypoints are not there")
        assert desk.boxes[0].endswith("0 of 3 keypoints")
        first = desk.answer("a")
        assert [visibility for *_, visibility in stored(server, first)[0]] == [0, 0, 0]

    def test_one_key_confirms_them_where_they_are(self, desk: Desk, server: Server) -> None:
        desk.draw(BOX)
        desk.drag(GRID["tip"], (60, 50))
        desk.press("e")
        assert visibilities(desk) == [2, 2, 2]
        expect(desk.by("keypoint-hint")).to_be_hidden()
        desk.press("u")
        assert visibilities(desk) == [0, 0, 2]
        desk.by("confirm-keypoints").click()
        image_id = desk.answer("a")
        assert [(name, visibility) for name, _, _, visibility in stored(server, image_id)[0]] == [(n, 2) for n in NAMES]

    def test_the_next_box_has_them_where_the_last_one_had_them(self, desk: Desk) -> None:
        desk.draw(BOX)
        desk.drag(GRID["tip"], (70, 56))
        desk.drag(GRID["tail"], (10, 8))
        desk.answer("a")
        desk.draw((30, 20, 60, 44))
        assert visibilities(desk) == [0, 0, 0]
        assert (place(desk, "tail"), place(desk, "tip")) == (near(30, 20), near(60, 44))
        assert place(desk, "middle") == near(52.5, 26), "which nobody placed"

    def test_a_relabelled_box_has_those_of_its_label(self, desk: Desk, server: Server) -> None:
        desk.draw(BOX)
        desk.drag(GRID["tip"], (60, 50))
        select(desk)
        desk.press("2")
        expect(desk.by("keypoint")).to_have_count(0)
        desk.press("1")
        assert visibilities(desk) == [0, 0, 0]
        desk.press("u", "u")
        assert visibilities(desk) == [0, 0, 2]
        desk.press("2")
        assert stored(server, desk.answer("a")) == [[]]


class TestGestures:
    def test_a_drag_places_a_keypoint(self, desk: Desk, server: Server) -> None:
        desk.draw(BOX)
        before = desk.by("box-item").first.get_attribute("data-rect")
        desk.drag(GRID["tip"], (60.5, 50.25))
        assert (place(desk, "tip"), visibilities(desk)) == (near(60.5, 50.25), [0, 0, 2])
        assert desk.by("box-item").first.get_attribute("data-rect") == before
        desk.press("u")
        assert (place(desk, "tip"), visibilities(desk)) == (near(*GRID["tip"]), [0, 0, 0])
        desk.press("Control+y")
        tail, middle, tip = stored(server, desk.answer("a"))[0]
        assert (tail[3], middle[3], tip[0], tip[1:3], tip[3]) == (0, 0, "tip", near(60.5, 50.25), 2)

    def test_it_stays_inside_the_image(self, desk: Desk) -> None:
        desk.draw(BOX)
        desk.drag(GRID["tip"], (120, 90))
        assert place(desk, "tip") == (96, 64)

    def test_escape_cancels_the_drag(self, desk: Desk) -> None:
        desk.draw(BOX)
        mouse = desk.page.mouse
        mouse.move(*desk.point(*GRID["tip"]))
        mouse.down()
        mouse.move(*desk.point(60, 50), steps=3)
        assert place(desk, "tip") == near(60, 50)
        desk.press("Escape")
        mouse.up()
        assert (place(desk, "tip"), visibilities(desk)) == (near(*GRID["tip"]), [0, 0, 0])

    def test_clicks_change_the_visibility(self, desk: Desk) -> None:
        desk.draw(BOX)
        found = []
        for _ in range(3):
            desk.click(*GRID["middle"])
            found.append(visibilities(desk))
        assert found == [[0, 2, 0], [0, 1, 0], [0, 0, 0]]
        desk.press("u")
        assert visibilities(desk) == [0, 1, 0]

    def test_by_touch(self, server: Server, new_desk: Callable[..., Desk]) -> None:
        server.start()
        desk = new_desk(**PHONE).open()
        touch(desk, line(desk.point(*BOX[:2]), desk.point(*BOX[2:])))
        expect(desk.by("keypoint")).to_have_count(3)
        touch(desk, line(desk.point(*GRID["tip"]), desk.point(50, 50)))
        assert (place(desk, "tip"), visibilities(desk)) == (pytest.approx((50, 50), abs=1), [0, 0, 2])
        desk.page.touchscreen.tap(*desk.point(*GRID["tail"]))
        assert visibilities(desk) == [2, 0, 2]
        desk.by("confirm-keypoints").tap()
        assert visibilities(desk) == [2, 2, 2]

    def test_a_corner_with_a_keypoint_can_be_grabbed_beside_it(self, desk: Desk) -> None:
        desk.draw(BOX)
        desk.drag(GRID["tip"], BOX[2:])
        desk.drag((BOX[2] + 1.1, BOX[3] + 0.6), (81.1, 60.6))
        assert place(desk, "tip") == near(80, 60)
        assert desk.by("box-item").first.get_attribute("data-rect") == "10,8,70,52"

    def test_shift_draws_a_box_over_a_keypoint(self, desk: Desk) -> None:
        desk.draw(BOX)
        desk.draw((*GRID["tip"], 50, 54), across=True)
        expect(desk.by("box-item")).to_have_count(2)

    def test_keypoints_of_a_box_that_is_not_selected_are_not_dragged(self, desk: Desk) -> None:
        desk.draw(BOX)
        desk.press("e", "Escape")
        desk.draw((*GRID["tip"], 50, 54))
        assert desk.boxes[0].endswith("3 of 3 keypoints")
        select(desk)
        assert places(desk) == {name: near(*at) for name, at in GRID.items()}

    def test_a_keypoint_under_the_hint_can_be_dragged(self, desk: Desk) -> None:
        desk.draw((10, 8, 70, 63))
        hint = desk.by("keypoint-hint").locator("span").bounding_box()
        frame = desk.by("image").bounding_box()
        assert hint is not None and frame is not None
        scale = frame["width"] / 96
        under = ((hint["x"] + 9 - frame["x"]) / scale, (hint["y"] + 9 - frame["y"]) / scale)
        desk.drag(place(desk, "tip"), under)
        desk.drag(under, (30, 20))
        assert place(desk, "tip") == near(30, 20)


class TestTheBoxTakesThemAlong:
    def test_a_move(self, desk: Desk) -> None:
        desk.draw(BOX)
        desk.drag((50, 40), (60, 45))
        assert places(desk) == {name: near(x + 10, y + 5) for name, (x, y) in GRID.items()}
        desk.press("ArrowLeft")
        assert place(desk, "tip")[0] < GRID["tip"][0] + 10
        desk.press("u", "u")
        assert places(desk) == {name: near(*at) for name, at in GRID.items()}

    def test_a_polygon(self, suggesting: Callable[..., Desk]) -> None:
        corners = [[20, 10], [60, 14], [50, 50], [24, 44]]
        desk = suggesting({**car(("tip", 50, 20, 2)), "type": "polygon", "points": corners})
        select(desk)
        desk.press("Shift+ArrowRight")
        x, y = place(desk, "tip")
        assert x > 50.5 and y == 20
        desk.drag((40, 36), (46, 40))
        assert place(desk, "tip") == pytest.approx((x + 6, y + 4), abs=0.5)
        desk.press("u")
        assert place(desk, "tip") == (x, y)

    def test_a_resize_there_and_back(self, desk: Desk) -> None:
        """Also through a size at which all keypoints are at one place."""
        desk.draw(BOX)
        mouse = desk.page.mouse
        mouse.move(*desk.point(70, 56))
        mouse.down()
        mouse.move(*desk.point(10, 8), steps=4)
        mouse.move(*desk.point(40, 32), steps=4)
        mouse.up()
        assert place(desk, "tip") == near(17.5, 26)

    def test_resizing_leaves_what_is_not_there_as_it_is(self, desk: Desk) -> None:
        desk.draw(BOX)
        desk.drag((70, 56), (40, 32))
        assert visibilities(desk) == [0, 0, 0]


class TestKeys:
    def test_the_whole_work_without_a_mouse(self, desk: Desk, server: Server) -> None:
        desk.press("b", "k")
        expect(keypoint(desk, "tail")).to_be_focused()
        start = place(desk, "tail")
        desk.press("ArrowRight", "Shift+ArrowDown")
        x, y = place(desk, "tail")
        assert x > start[0] and y > start[1] and visibilities(desk) == [2, 0, 0]
        desk.press("k", "o", "k", "Enter", "o")
        expect(keypoint(desk, "tip")).to_be_focused()
        assert visibilities(desk) == [2, 2, 1]
        desk.press("Shift+K", "Delete")
        assert visibilities(desk) == [2, 0, 1]
        expect(desk.by("box-item")).to_have_count(1)
        desk.press("Escape", "ArrowRight")
        assert place(desk, "tail")[0] > x, "the arrows move the box again"
        desk.press("e")
        assert visibilities(desk) == [2, 2, 1]
        assert [point[3] for point in stored(server, desk.answer("a"))[0]] == [2, 2, 1]

    def test_keys_without_a_keypoint_say_what_to_do(self, desk: Desk) -> None:
        desk.press("k")
        expect(desk.page.get_by_text("select a box to reach its keypoints")).to_be_visible()
        desk.draw(BOX)
        desk.press("o")
        expect(desk.page.get_by_text("go to a keypoint first: k")).to_be_visible()
        desk.press("e", "e")
        expect(desk.page.get_by_text("no keypoints to confirm")).to_be_visible()

    def test_space_presses_a_focused_keypoint_and_answers_nothing(self, desk: Desk) -> None:
        desk.draw(BOX)
        image_id = desk.image_id
        desk.press("k", " ")
        assert (visibilities(desk), desk.image_id) == ([2, 0, 0], image_id)

    def test_nudges_are_one_step_of_undo(self, desk: Desk) -> None:
        desk.draw(BOX)
        desk.press("k", "ArrowRight", "ArrowRight", "ArrowRight", "u")
        assert (place(desk, "tail"), visibilities(desk)) == (near(*GRID["tail"]), [0, 0, 0])

    def test_names_for_screen_readers(self, desk: Desk) -> None:
        desk.draw(BOX)
        desk.press("k", "o")
        expect(desk.page.get_by_role("button", name="tail, visible, keypoint 1 of 3 of car")).to_be_focused()
        expect(desk.page.get_by_role("button", name="tip, not there, keypoint 3 of 3 of car")).to_be_visible()
        expect(desk.page.get_by_role("group", name="Keypoints of the selected box")).to_be_visible()
        expect(desk.page.get_by_role("button", name="car drawn · 1 of 3 keypoints, box 1")).to_be_visible()
        assert findings(desk) == []
        desk.press("h")
        expect(desk.by("help")).to_contain_text("go to the next keypoint")
        expect(desk.by("help")).to_contain_text("hidden (ring)")


class TestWhatIsKept:
    def test_suggested_keypoints_are_accepted_as_they_are(
        self, suggesting: Callable[..., Desk], server: Server
    ) -> None:
        desk = suggesting(car(("tip", 60.5, 50.25, 2), ("tail", 12, 10, 1)), rect_span("person", (4, 4, 20, 20)))
        lines = desk.page.locator(".keypoints .edge, .keypoints .dot")
        expect(lines).to_have_count(2)
        select(desk)
        assert visibilities(desk) == [1, 0, 2]
        expect(lines).to_have_count(2)
        image_id = desk.answer("a")
        first, second = stored(server, image_id)
        assert (first[0], first[1][3], first[2]) == (("tail", 12, 10, 1), 0, ("tip", 60.5, 50.25, 2))
        assert second == [] and server.stored(image_id)["spans"][0]["score"] == 0.8

    def test_a_placed_keypoint_is_a_change_of_the_suggestion(self, suggesting: Callable[..., Desk]) -> None:
        desk = suggesting(car(("tip", 60, 50, 2)))
        assert desk.by("box-item").get_attribute("data-origin") == "suggested"
        select(desk)
        desk.drag((60, 50), (50, 40))
        assert desk.by("box-item").get_attribute("data-origin") == "adjusted"

    def test_a_draft_after_a_reload(self, desk: Desk) -> None:
        desk.draw(BOX)
        desk.drag(GRID["tip"], (60, 50))
        expect(desk.by("box-item")).to_have_count(1)
        desk.page.reload()
        desk.wait_ready()
        expect(desk.by("restored")).to_be_visible()
        select(desk)
        assert (place(desk, "tip"), visibilities(desk)) == (near(60, 50), [0, 0, 2])

    @pytest.mark.parametrize("reload", [False, True])
    def test_a_correction(self, desk: Desk, server: Server, reload: bool) -> None:
        desk.draw(BOX)
        desk.drag(GRID["tip"], (60, 50))
        image_id = desk.answer("a")
        server.stored(image_id)
        if reload:
            desk.page.reload()
            desk.wait_ready()
        expect(desk.by("history-item")).to_have_count(1)
        desk.press("Backspace")
        expect(desk.stage).to_have_attribute("data-image-id", image_id)
        desk.wait_ready()
        select(desk)
        assert (place(desk, "tip"), visibilities(desk)) == (near(60, 50), [0, 0, 2])
        desk.drag(GRID["tail"], (12, 10))
        desk.answer("a")
        expect(desk.by("history-item").first).to_have_attribute("data-state", "saved")
        assert [point[3] for point in stored(server, image_id)[0]] == [2, 0, 2]

    def test_an_image_of_the_gallery(self, desk: Desk, server: Server) -> None:
        desk.draw(BOX)
        desk.drag(GRID["tip"], (60, 50))
        image_id = desk.answer("a")
        server.stored(image_id)
        desk.page.reload()
        desk.wait_ready()
        desk.press("g")
        desk.by("gallery-image").first.click()
        expect(desk.stage).to_have_attribute("data-image-id", image_id)
        desk.wait_ready()
        select(desk)
        assert (place(desk, "tip"), visibilities(desk)) == (near(60, 50), [0, 0, 2])

    def test_boxes_of_the_previous_image(self, desk: Desk) -> None:
        desk.draw(BOX)
        desk.drag(GRID["tip"], (60, 50))
        desk.answer("a")
        desk.press("c")
        expect(desk.by("box-item")).to_have_count(1)
        select(desk)
        assert (place(desk, "tip"), visibilities(desk)) == (near(60, 50), [0, 0, 2])

    def test_a_picked_candidate(self, server: Server, new_desk: Callable[..., Desk]) -> None:
        points = [
            {"name": "tip", "x": 60, "y": 50, "visibility": 2},
            {"name": "tail", "x": 12, "y": 9, "visibility": 0},
        ]
        more = [{"label": "car", "rect": [10, 8, 60, 48], "score": 0.4, "keypoints": points}]
        server.start()
        desk = new_desk()
        change_tasks(desk.page, lambda task: task.update(candidates=more))
        desk.open()
        desk.page.mouse.move(*desk.point(40, 30))
        desk.press("Enter")
        expect(desk.by("keypoint")).to_have_count(3)
        assert (visibilities(desk), place(desk, "tip"), place(desk, "tail")) == ([0, 0, 2], near(60, 50), near(12, 9))


def test_labels_without_keypoints_show_none(desk: Desk) -> None:
    desk.press("2")
    desk.draw(BOX)
    desk.press("k")
    expect(desk.by("keypoint")).to_have_count(0)
    expect(desk.page.get_by_text("boxes of this label have no keypoints")).to_be_visible()
    assert "keypoints" not in desk.boxes[0]


class TestAProjectWithoutKeypoints:
    @pytest.fixture
    def project(self, project: Path) -> Path:
        LabelMap.from_names(["car", "person"]).save(project / "label_map.pbtxt")
        return project

    def test_the_page_is_as_it_was(self, desk: Desk, server: Server) -> None:
        desk.draw(BOX)
        desk.press("k", "o", "e")
        expect(desk.by("keypoint")).to_have_count(0)
        expect(desk.page.locator(".keypoints")).to_be_hidden()
        desk.press("h")
        expect(desk.by("help")).not_to_contain_text("eypoint")
        desk.press("Escape")
        assert "keypoints" not in server.stored(desk.answer("a"))["spans"][0]
