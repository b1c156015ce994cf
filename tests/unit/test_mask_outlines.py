"""Masks as polygons: what is filled is the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from odkeras import polygons
from odkeras.formats.outlines import join_rings, trace_mask

SIZE_HW = (5, 7)


def filled(points: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    return polygons.fill(polygons.from_xy_px(points, size_hw), size_hw)


def small_masks() -> st.SearchStrategy[np.ndarray]:
    return arrays(bool, SIZE_HW)


@given(small_masks())
def test_every_small_mask_is_filled_again(mask: np.ndarray) -> None:
    """Also with parts that touch at a corner, and with holes."""
    rings = trace_mask(mask, tolerance_px=0)
    if mask.any():
        assert np.array_equal(filled(join_rings(rings), SIZE_HW), mask)
    else:
        assert rings == []


def test_a_ring_with_a_hole() -> None:
    mask = np.zeros((40, 60), bool)
    mask[5:35, 10:50] = True
    mask[15:25, 20:40] = False
    rings = trace_mask(mask)
    assert sorted(map(len, rings)) == [4, 4]
    assert np.array_equal(filled(join_rings(rings), mask.shape), mask)


def test_two_parts() -> None:
    mask = np.zeros((40, 60), bool)
    mask[2:10, 3:20] = mask[20:39, 30:58] = True
    assert np.array_equal(filled(join_rings(trace_mask(mask)), mask.shape), mask)


@pytest.mark.parametrize("same_way", [False, True])
def test_a_disc_has_few_corners(same_way: bool) -> None:
    ys, xs = np.mgrid[0:80, 0:120]
    mask = (ys - 40) ** 2 + (xs - 70) ** 2 < 30**2
    joined = join_rings(trace_mask(mask), same_way=same_way)
    again = filled(joined, mask.shape)
    assert len(joined) < 40
    assert (again & mask).sum() / (again | mask).sum() > 0.97


def test_parts_drawn_in_either_direction_are_all_filled() -> None:
    """COCO's polygons of one object go round as they were drawn; where two overlap, nothing may become a hole."""
    one = np.array([[2, 2], [20, 2], [20, 20], [2, 20]], float)
    other = np.array([[10, 10], [10, 30], [30, 30], [30, 10]], float)
    both = filled(join_rings([one, other], same_way=True), (40, 60))
    assert np.array_equal(both, filled(one, (40, 60)) | filled(other, (40, 60)))
