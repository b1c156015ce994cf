"""Labels and corrections: what a person means is what is stored, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from desk import Desk, Server
from playwright.sync_api import Locator, expect


def labels(desk: Desk) -> list[str]:
    """The labels of the boxes, in the order in which they were made."""
    return desk.page.locator("[data-testid=box-item] .name").all_inner_texts()


def pressed(desk: Desk, label: str) -> Locator:
    return desk.page.locator(f"[data-testid=label-{label}][aria-pressed=true]")


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

    def test_the_label_bar_shows_the_selected_boxs_label(self, desk: Desk) -> None:
        desk.press("2")
        desk.draw((5, 5, 30, 25))
        desk.press("1")
        expect(pressed(desk, "car")).to_have_count(1)
        expect(desk.page.get_by_role("group", name="Label of the next box")).to_be_visible()
        desk.click(17, 15)
        expect(pressed(desk, "person")).to_have_count(1)
        expect(desk.page.get_by_role("group", name="Label of the selected box")).to_be_visible()

    def test_by_touch(self, server: Server, new_desk: Callable[..., Desk]) -> None:
        server.start()
        desk = new_desk(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True).open()
        desk.draw((5, 5, 30, 25))
        desk.by("label-person").tap()
        assert labels(desk) == ["car"]
        desk.page.touchscreen.tap(*desk.point(17, 15))
        expect(desk.by("label-target")).to_contain_text("selected box")
        desk.by("label-person").tap()
        assert labels(desk) == ["person"]
