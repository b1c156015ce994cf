from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from odkeras.colours import colour_of
from odkeras.drawing import LabelledBox, draw_boxes


def drawn(*boxes: LabelledBox, size_hw: tuple[int, int] = (48, 64)) -> np.ndarray:
    picture = Image.new("RGB", size_hw[::-1], "gray")
    draw_boxes(picture, boxes, line_px=2, font_px=11)
    return np.asarray(picture)


def is_of(pixels: np.ndarray, colour: str) -> np.ndarray:
    return (pixels == ImageColor.getrgb(colour)).all(axis=-1)


def test_a_box_has_its_colour_and_its_text_stands_above() -> None:
    pixels = is_of(drawn(LabelledBox((10, 30, 50, 44), "car", "#e69f00")), "#e69f00")
    assert pixels[30:45, 10].all() and pixels[44, 10:51].all()
    assert not pixels[34:42, 14:46].any()
    assert pixels[:30].any() and pixels[:30, :10].sum() == 0


def test_the_first_is_on_top() -> None:
    best, other = LabelledBox((10, 24, 50, 44), "", "#e69f00"), LabelledBox((10, 24, 50, 44), "", "#0a7fd1")
    assert is_of(drawn(best, other), best.colour)[44, 10:51].all()


@pytest.mark.parametrize("xyxy_px", [(60, 40, 63, 47), (0, 0, 63, 47), (-5, -5, 20, 20), (60, 0, 63, 5)])
def test_a_text_at_the_edge_is_inside_the_picture(xyxy_px: tuple[int, int, int, int]) -> None:
    """Those of `predict --draw` ran out of the picture at the right and at the bottom."""

    def lettering(xyxy_px: tuple[int, int, int, int]) -> int:
        return int(is_of(drawn(LabelledBox(xyxy_px, "car", "#e69f00")), "#000000").sum())

    assert lettering(xyxy_px) == lettering((10, 24, 50, 44)) > 0


def test_a_picture_smaller_than_the_text() -> None:
    assert drawn(LabelledBox((0, 0, 2, 2), "a long name 0.93", "#e69f00"), size_hw=(3, 4)).shape == (3, 4, 3)


def test_many_boxes_have_the_colours_of_their_labels() -> None:
    boxes = [LabelledBox((20 * n, 20, 20 * n + 15, 40), str(n), colour_of(n)) for n in range(3)]
    pixels = drawn(*boxes)
    assert all(is_of(pixels, box.colour)[40, 20 * n : 20 * n + 16].all() for n, box in enumerate(boxes))
