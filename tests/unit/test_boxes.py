from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odkeras.boxes import Detections, Groundtruth, area, clip, from_xyxy_px, iou, to_xyxy_px

SIZE_HW = (48, 64)
unit = st.floats(0, 1, width=32)
boxes_strategy = st.lists(st.tuples(unit, unit, unit, unit), max_size=5)


@pytest.mark.parametrize(
    ("xyxy_px", "yxyx"),
    [
        ([0, 0, 64, 48], [0, 0, 1, 1]),  # the whole image
        ([32, 12, 48, 24], [0.25, 0.5, 0.5, 0.75]),  # x and y apart: a swap would show
        ([-16, -12, 80, 60], [-0.25, -0.25, 1.25, 1.25]),  # outside stays outside
        ([10, 10, 10, 10], [10 / 48, 10 / 64, 10 / 48, 10 / 64]),  # a point
    ],
)
def test_pixels_become_normalised_with_x_and_y_in_their_places(xyxy_px: list[float], yxyx: list[float]) -> None:
    boxes = from_xyxy_px([xyxy_px], SIZE_HW)
    assert boxes.dtype == np.float32
    np.testing.assert_allclose(boxes, [yxyx], rtol=1e-6)
    np.testing.assert_allclose(to_xyxy_px(boxes, SIZE_HW), [xyxy_px], rtol=1e-6, atol=1e-5)


@given(boxes_strategy, st.tuples(st.integers(1, 5000), st.integers(1, 5000)))
def test_to_pixels_and_back(rows: list[tuple[float, ...]], size_hw: tuple[int, int]) -> None:
    boxes = np.array(rows, np.float32).reshape(-1, 4)
    np.testing.assert_allclose(from_xyxy_px(to_xyxy_px(boxes, size_hw), size_hw), boxes, atol=1e-6)


@pytest.mark.parametrize("boxes", [[1, 2, 3, 4], [[1, 2, 3]], [[[1, 2, 3, 4]]], [[[]]]])
def test_other_shapes_are_refused(boxes) -> None:
    with pytest.raises(ValueError):
        area(boxes)
    with pytest.raises(ValueError):
        from_xyxy_px(boxes, SIZE_HW)


def test_the_message_gives_the_shape() -> None:
    with pytest.raises(ValueError, match=r"boxes must have shape \(N, 4\); got \(4,\)"):
        Groundtruth(np.zeros(4), np.zeros(4))
    with pytest.raises(ValueError, match=r"boxes_xyxy_px must have shape \(N, 4\); got \(4,\)"):
        from_xyxy_px([1, 2, 3, 4], SIZE_HW)


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
        ([-0.5, -0.5, 0.5, 1.5], [0, 0, 0.5, 1]),
        ([1.2, 0.1, 1.5, 0.4], [1, 0.1, 1, 0.4]),  # outside: no area left
    ],
)
def test_clip(box: list[float], clipped: list[float]) -> None:
    given_boxes = np.array([box], np.float32)
    before = given_boxes.copy()
    np.testing.assert_allclose(clip(given_boxes), [clipped], rtol=1e-6)
    np.testing.assert_array_equal(given_boxes, before)


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ([0, 0, 1, 1], [0, 0, 1, 1], 1),
        ([0, 0, 0.5, 1], [0.5, 0, 1, 1], 0),  # they touch
        ([0, 0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75], 1 / 7),
        ([0, 0, 1, 1], [0, 0, 0.5, 0.5], 0.25),  # one inside the other
        ([0.2, 0.2, 0.2, 0.2], [0.2, 0.2, 0.2, 0.2], 0),  # two points: no area, no NaN
        ([0.9, 0.9, 0.1, 0.1], [0, 0, 1, 1], 0),  # swapped corners
    ],
)
def test_iou(one: list[float], two: list[float], expected: float) -> None:
    assert iou([one], [two])[0, 0] == pytest.approx(expected, abs=1e-6)


def test_iou_is_a_row_per_first_and_a_column_per_second() -> None:
    assert iou([[0, 0, 1, 1]] * 2, [[0, 0, 1, 1]] * 3).shape == (2, 3)
    assert iou([], [[0, 0, 1, 1]]).shape == (0, 1)
    assert iou([[0, 0, 1, 1]], []).shape == (1, 0)


@given(boxes_strategy, boxes_strategy)
def test_iou_is_symmetric_and_between_0_and_1(one: list, two: list) -> None:
    ious = iou(one, two)
    assert ((ious >= 0) & (ious <= 1 + 1e-5)).all()
    np.testing.assert_allclose(ious, iou(two, one).T, atol=1e-6)


def test_groundtruth_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"classes must have shape \(1,\), one per box; got \(2,\)"):
        Groundtruth(np.zeros((1, 4)), np.zeros(2))
    with pytest.raises(ValueError, match="boxes must be finite"):
        Groundtruth(np.array([[0, 0, np.nan, 1]]), np.ones(1))


def test_values_compare_by_content_and_do_not_hash() -> None:
    one, same = Groundtruth(np.ones((1, 4)), np.ones(1)), Groundtruth(np.ones((1, 4)), np.ones(1))
    assert one == same
    assert one != Groundtruth(np.ones((1, 4)), np.array([2]))
    assert one != Detections(np.ones((1, 4)), np.ones(1), np.ones(1))
    assert Detections.empty() == Detections.empty()
    with pytest.raises(TypeError):
        hash(one)
    with pytest.raises(TypeError):
        hash(Detections.empty())


def test_detections_above_keeps_the_threshold_itself_and_never_nan() -> None:
    detections = Detections(np.arange(16).reshape(4, 4), np.array([0.9, 0.5, np.nan, 0.25]), np.array([1, 2, 3, 4]))
    kept = detections.above(0.5)
    assert kept.classes.tolist() == [1, 2]
    np.testing.assert_array_equal(kept.boxes, detections.boxes[:2])
    assert len(detections.above(0)) == 3
    assert len(detections) == 4


def test_detections_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="scores must have shape"):
        Detections(np.zeros((2, 4)), np.zeros(1), np.zeros(2))
    with pytest.raises(ValueError, match="classes must have shape"):
        Detections(np.zeros((2, 4)), np.zeros(2), np.zeros((2, 1)))
