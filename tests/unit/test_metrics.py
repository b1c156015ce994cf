from __future__ import annotations

import sys
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odkeras.annotation import EditCounts
from odkeras.boxes import Detections, Groundtruth, from_xyxy_px
from odkeras.errors import SetupError
from odkeras.metrics import can_be_picked, coco_map, count_edits

SIZE_HW = (480, 640)
Box = list[float]


def truth(*boxes_xyxy_px: Box, classes: list[int] | None = None) -> Groundtruth:
    return Groundtruth(from_xyxy_px(boxes_xyxy_px, SIZE_HW), np.array(classes or [1] * len(boxes_xyxy_px)))


def seen(*boxes_xyxy_px: Box, classes: list[int] | None = None, scores: list[float] | None = None) -> Detections:
    count = len(boxes_xyxy_px)
    return Detections(
        from_xyxy_px(boxes_xyxy_px, SIZE_HW), np.array(scores or [0.9] * count), np.array(classes or [1] * count)
    )


A, B = [100, 100, 200, 200], [300, 250, 420, 330]


def shrunk(box: Box, iou: float) -> Box:
    """A box inside `box` whose IoU with it is `iou`."""
    return [box[0], box[1], box[0] + (box[2] - box[0]) * iou, box[3]]


# --- mAP


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (seen(A, B), (1, 1, 1)),
        (seen(), (0, 0, 0)),
        (seen(A, B, classes=[2, 2]), (0, 0, 0)),  # the right places, the wrong class
        (seen(shrunk(A, 0.8), shrunk(B, 0.8)), (0.7, 1, 1)),  # IoU 0.50 to 0.80: 7 of the 10 thresholds
        (seen(shrunk(A, 0.62), shrunk(B, 0.62)), (0.3, 1, 0)),
        (seen(A), (51 / 101, 51 / 101, 51 / 101)),  # half found: recall 0 to 0.50 in steps of 0.01
        (seen(A, B, [0, 0, 50, 50], scores=[0.9, 0.8, 0.1]), (1, 1, 1)),  # a false one after all true ones
        (seen([0, 0, 50, 50], A, B, scores=[0.9, 0.8, 0.7]), (2 / 3, 2 / 3, 2 / 3)),  # and one before
    ],
)
def test_map_of_two_true_boxes(found: Detections, expected: tuple[float, float, float]) -> None:
    result = coco_map([truth(A, B)], [found], [SIZE_HW])
    assert [*result] == ["mAP", "mAP50", "mAP75"]
    assert [*result.values()] == pytest.approx(expected, abs=1e-6)


def test_map_is_the_mean_over_classes_that_have_true_boxes() -> None:
    result = coco_map([truth(A, B, classes=[1, 7])], [seen(A, [0, 0, 9, 9], classes=[1, 3])], [SIZE_HW])
    assert result["mAP"] == pytest.approx(0.5)


def test_false_detections_in_images_without_objects_count() -> None:
    images = [truth(A), Groundtruth.empty()]
    clean = coco_map(images, [seen(A, scores=[0.5]), Detections.empty()], [SIZE_HW] * 2)
    false = coco_map(images, [seen(A, scores=[0.5]), seen(B, scores=[0.9])], [SIZE_HW] * 2)
    assert (clean["mAP50"], false["mAP50"]) == pytest.approx((1, 0.5))


def test_detections_of_one_image_do_not_match_another() -> None:
    result = coco_map([truth(A), truth(B)], [seen(B), seen(A)], [SIZE_HW] * 2)
    assert result["mAP50"] == 0


def test_without_any_true_box_map_is_undefined() -> None:
    assert coco_map([Groundtruth.empty()], [seen(A)], [SIZE_HW]) == {"mAP": -1.0, "mAP50": -1.0, "mAP75": -1.0}
    assert coco_map([], [], []) == {"mAP": -1.0, "mAP50": -1.0, "mAP75": -1.0}


def test_detections_that_are_not_finite_are_left_out() -> None:
    found = seen(A, B, [1, 1, 2, 2], scores=[0.9, float("nan"), 0.8])
    broken = Detections(np.where(np.arange(3)[:, None] == 2, np.nan, found.boxes), found.scores, found.classes)
    assert coco_map([truth(A)], [broken], [SIZE_HW])["mAP"] == pytest.approx(1)


def test_without_pycocotools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(SetupError, match="pip install pycocotools"):
        coco_map([truth(A)], [seen(A)], [SIZE_HW])


# --- effort


@pytest.mark.parametrize(
    ("true", "suggested", "expected"),
    [
        (truth(A, B), seen(A, B), EditCounts(kept=2, kept_80=2)),
        (truth(A, B), seen(), EditCounts(added=2)),
        (truth(), seen(A, B), EditCounts(deleted=2)),
        (truth(), seen(), EditCounts()),
        (truth(A), seen(shrunk(A, 0.95)), EditCounts(kept=1, kept_80=1)),
        (truth(A), seen(shrunk(A, 0.85)), EditCounts(kept_80=1, adjusted=1)),
        (truth(A), seen(shrunk(A, 0.75)), EditCounts(adjusted=1)),
        (truth(A), seen(shrunk(A, 0.6)), EditCounts(adjusted=1)),
        (truth(A), seen(shrunk(A, 0.4)), EditCounts(deleted=1, added=1)),
        (truth(A), seen(A, classes=[2]), EditCounts(relabelled=1)),
        (truth(A), seen(A, A, classes=[2, 1]), EditCounts(kept=1, kept_80=1, deleted=1)),  # the right class comes first
        (truth(A), seen(shrunk(A, 0.4), classes=[2]), EditCounts(deleted=1, added=1)),  # neither class nor place
        (truth(A), seen(shrunk(A, 0.6), A), EditCounts(kept=1, kept_80=1, deleted=1)),  # the better one counts
        (truth(A, A, classes=[1, 2]), seen(A, A, classes=[2, 1]), EditCounts(kept=2, kept_80=2)),
        (truth(A, shrunk(A, 0.8)), seen(shrunk(A, 0.9)), EditCounts(kept=1, kept_80=1, added=1)),  # one to one
        (truth(A), Detections(np.full((1, 4), np.nan), np.ones(1), np.ones(1)), EditCounts(deleted=1, added=1)),
    ],
)
def test_count_edits(true: Groundtruth, suggested: Detections, expected: EditCounts) -> None:
    assert count_edits(true, suggested) == expected


rows = st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 4, st.integers(1, 2)), max_size=6)


@given(rows, rows)
def test_every_box_is_accounted_for_once(true: list[Any], suggested: list[Any]) -> None:
    def split(values: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        return np.array([row[:4] for row in values]).reshape(-1, 4), np.array([row[4] for row in values], np.int32)

    boxes, classes = split(suggested)
    result = count_edits(Groundtruth(*split(true)), Detections(boxes, np.ones(len(boxes)), classes))
    matched = result.kept + result.adjusted
    assert matched + result.relabelled + result.deleted == len(suggested) == result.suggested
    assert matched + result.relabelled + result.added == len(true) == result.objects
    assert 0 <= result.kept <= result.kept_80 <= matched


def test_missing_boxes_are_picked_if_a_candidate_is_near_enough() -> None:
    """A suggested box is not picked; a candidate of another class gives the box all the same."""
    candidates = seen(A, shrunk(B, 0.85), classes=[1, 2])
    assert can_be_picked(truth(A, B), candidates) == [True, True]
    assert can_be_picked(truth(A, B), seen(shrunk(B, 0.7))) == [False, False]
    assert can_be_picked(truth(A), seen()) == [False]
    assert count_edits(truth(A, B), seen(A), [True, True]) == EditCounts(kept=1, kept_80=1, added=1, picked=1)


class TestPickableCandidates:
    """They are looked at in the order of the page, under the middle of the object."""

    OBJECT: ClassVar[Box] = [100, 100, 300, 300]
    LOOSE: ClassVar[list[Box]] = [[60, 60, 340, 340], [120, 150, 280, 250], [150, 110, 250, 290]]

    def test_the_first_three_are_looked_at(self) -> None:
        loose = seen(*self.LOOSE, self.OBJECT, scores=[0.9, 0.8, 0.7, 0.1])
        assert can_be_picked(truth(self.OBJECT), loose) == [False]
        better = seen(*self.LOOSE, self.OBJECT, scores=[0.9, 0.8, 0.1, 0.7])
        assert can_be_picked(truth(self.OBJECT), better) == [True]

    def test_nearly_the_same_one_is_not_looked_at_twice(self) -> None:
        loose = self.LOOSE[0]
        twins = [[left + 1, top, right, bottom] for left, top, right, bottom in [loose] * 5]
        candidates = seen(*twins, self.OBJECT, scores=[0.9] * 5 + [0.1])
        assert can_be_picked(truth(self.OBJECT), candidates) == [True]

    def test_one_around_the_pointer_comes_before_better_ones_beside_it(self) -> None:
        beside = [[120, 150, 420, 450], [-80, -20, 260, 280], [180, -60, 500, 240]]
        assert can_be_picked(truth(self.OBJECT), seen(*beside, self.OBJECT, scores=[0.9, 0.9, 0.9, 0.3])) == [True]

    def test_those_that_the_page_does_not_show(self) -> None:
        assert can_be_picked(truth(self.OBJECT), seen(self.OBJECT, scores=[0.04])) == [False]
        assert can_be_picked(truth(self.OBJECT), seen(self.OBJECT, scores=[0.05])) == [True]

    def test_boxes_without_area(self) -> None:
        assert can_be_picked(truth([100, 100, 100, 200], A), seen([50, 50, 50, 80], A)) == [False, True]
