from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odkeras.polygons import as_polygon, bounds, clip, draw_mask, fill, from_xy_px, is_flat, is_rectangle

SIZE_HW = (48, 64)


def px(*points_xy_px: tuple[float, float]) -> np.ndarray:
    return from_xy_px(points_xy_px, SIZE_HW)


def rows_of(mask: np.ndarray) -> list[str]:
    return ["".join(".#"[int(pixel)] for pixel in row) for row in mask]


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ([[0, 0], [1, 1]], r"shape \(K, 2\) with K >= 3; got \(2, 2\)"),
        ([0, 1, 2], r"got \(3,\)"),
        ([[0, 0, 0]] * 3, r"got \(3, 3\)"),
        ([[0, 0], [1, 0], [1, math.nan]], r"must be finite; got \[ 1\. nan\]"),
    ],
)
def test_invalid_polygons_are_refused(corners: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_polygon(corners)


CORNERS = [(8, 6), (8, 30), (40, 30), (40, 6)]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (CORNERS, True),
        (CORNERS[::-1], True),
        ([CORNERS[i] for i in (2, 0, 3, 1)], True),  # in no order at all
        ([*CORNERS, CORNERS[0]], True),  # closed
        ([(8.004, 6), (8, 30), (40, 29.996), (40, 6)], True),  # rounded
        ([(8.1, 6), (8, 30), (40, 30), (40, 6)], False),
        (CORNERS[:3], False),
        ([*CORNERS, (20, 30)], False),  # a point on a side: drawn by hand
        ([(24, 6), (8, 18), (24, 30), (40, 18)], False),  # on its tip
    ],
)
def test_rectangles(points: list[tuple[float, float]], expected: bool) -> None:
    assert is_rectangle(points) is expected


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(8, 6), (40, 30)], True),
        ([(8, 6), (40, 30), (8, 6)], True),
        ([(8, 6)] * 4, True),
        ([(8, 6), (24, 18), (40, 30), (16, 12)], True),  # one line, to and fro
        ([(8, 6), (24, 18.1), (40, 30)], False),
        ([(8, 6), (40, 30), (8, 30), (40, 6)], False),  # an hourglass, whose signed areas cancel
    ],
)
def test_flat_polygons_are_recognised(points: list[tuple[float, float]], expected: bool) -> None:
    assert is_flat(px(*points)) is expected


class TestClipping:
    def test_inside_nothing_changes(self) -> None:
        polygon = px((0, 0), (64, 24), (10, 48))
        np.testing.assert_array_equal(clip(polygon), polygon)

    def test_a_corner_outside_leaves_the_sides_where_they_are(self) -> None:
        """Moving the corner to the edge would turn the sides: this one would end at (0, 24)."""
        clipped = clip(px((-64, 24), (64, 8), (64, 40)))
        np.testing.assert_allclose(sorted((clipped * SIZE_HW).tolist()), [[8, 64], [16, 0], [32, 0], [40, 64]])

    @pytest.mark.parametrize("offset_px", [(-70, 0), (70, 0), (0, -50), (0, 50)])
    def test_outside_nothing_is_left(self, offset_px: tuple[int, int]) -> None:
        clipped = clip(px(*[(x + offset_px[0], y + offset_px[1]) for x, y in [(8, 6), (8, 40), (60, 30)]]))
        assert clipped.shape == (0, 2)
        assert bounds(clipped).tolist() == [0, 0, 0, 0]

    def test_around_the_image_it_is_the_image(self) -> None:
        clipped = clip(px((-200, -200), (300, -200), (300, 300), (-200, 300)))
        assert bounds(clipped).tolist() == [0, 0, 1, 1]
        assert fill(clipped, SIZE_HW).all()


class TestFilling:
    def test_a_known_shape(self) -> None:
        """A pixel counts when its centre is inside."""
        triangle = from_xy_px([(0, 0), (8, 0), (0, 4)], (4, 8))
        assert rows_of(fill(triangle, (4, 8))) == ["#######.", "#####...", "###.....", "#......."]

    def test_where_it_overlaps_itself_it_is_filled(self) -> None:
        """A line that goes round twice, as a hand may draw it; the even-odd rule would leave a hole."""
        twice = px(*[(8, 6), (40, 6), (40, 30), (8, 30)] * 2)
        assert fill(twice, SIZE_HW).sum() == 32 * 24

    @given(st.lists(st.tuples(st.floats(-0.5, 1.5, width=32), st.floats(-0.5, 1.5, width=32)), min_size=3, max_size=7))
    def test_clipped_or_not_the_pixels_are_the_same(self, corners: list[tuple[float, float]]) -> None:
        """But for centres on a side, where the rounding of the new corners decides."""
        polygon = np.array(corners, np.float32)
        whole, clipped = fill(polygon, SIZE_HW), clip(polygon)
        cut = fill(clipped, SIZE_HW) if len(clipped) else np.zeros(SIZE_HW, bool)
        shifted = [fill(polygon + shift, SIZE_HW) for shift in ([1e-5, 0], [-1e-5, 0], [0, 1e-5], [0, -1e-5])]
        on_a_side = np.any([each != whole for each in shifted], axis=0)
        np.testing.assert_array_equal(cut[~on_a_side], whole[~on_a_side])

    @settings(max_examples=50)
    @given(st.lists(st.tuples(st.integers(0, 48), st.integers(0, 64)), min_size=3, max_size=6))
    def test_it_is_what_the_winding_number_says(self, corners: list[tuple[int, int]]) -> None:
        polygon = np.array(corners, np.float64)
        ys, xs = np.mgrid[0:48, 0:64] + 0.5
        angles = np.arctan2(polygon[:, 0, None, None] - ys, polygon[:, 1, None, None] - xs)
        turns = np.diff(np.concatenate([angles, angles[:1]]), axis=0)
        turns = (turns + np.pi) % (2 * np.pi) - np.pi
        on_a_side = (np.abs(np.abs(turns) - np.pi) < 1e-6).any(axis=0)
        inside = np.abs(turns.sum(axis=0)) > np.pi
        found = fill(polygon / SIZE_HW, SIZE_HW)
        np.testing.assert_array_equal(found[~on_a_side], inside[~on_a_side])


class TestMasks:
    BOX = np.array([6 / 48, 8 / 64, 30 / 48, 40 / 64], np.float32)

    def test_of_a_rectangle_it_is_the_box(self) -> None:
        mask = draw_mask(self.BOX, None, SIZE_HW)
        assert mask.dtype == np.bool_ and mask[6:30, 8:40].all() and mask.sum() == 24 * 32

    def test_a_polygon_between_the_centres_fills_its_box(self) -> None:
        there_and_back = px((8, 6), (40, 6), (40, 30), (40, 6))
        assert draw_mask(self.BOX, there_and_back, SIZE_HW).sum() == 24 * 32

    @pytest.mark.parametrize(
        ("box_px", "pixel"), [((10.6, 20.6, 10.8, 20.8), (10, 20)), ((47.9, 63.9, 48, 64), (47, 63))]
    )
    def test_never_without_a_pixel(self, box_px: tuple[float, ...], pixel: tuple[int, int]) -> None:
        """What is smaller than a pixel, also in the last corner."""
        mask = draw_mask(np.array(box_px) / (48, 64, 48, 64), None, SIZE_HW)
        assert [tuple(each) for each in np.argwhere(mask).tolist()] == [pixel]
