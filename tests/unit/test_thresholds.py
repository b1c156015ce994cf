"""A threshold that is learnt from the answers: shown is what saves work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odkeras.annotation import Answer, Span
from odkeras.boxes import Detections
from odkeras.config.cost import CostModel
from odkeras.config.parsing import read_threshold
from odkeras.formats.prodigy import read_answer
from odkeras.labels import LabelMap
from odkeras.session.thresholds import (
    HIDDEN,
    MIN_JUDGED,
    AutoThreshold,
    FixedThreshold,
    choose_threshold,
    judge,
    list_candidates,
    worth_of_outcomes,
)

# kept +9, adjusted +5, deleted -3
COST = CostModel(draw_seconds=10, verify_seconds=1, adjust_seconds=4, relabel_seconds=1, delete_seconds=2)
WORTH = worth_of_outcomes(COST, can_pick=False)
LABEL_MAP = LabelMap.from_names(["car", "person"])


def span(left: float, top: float, right: float, bottom: float, label: str = "car") -> dict[str, Any]:
    return {"label": label, "points": [[left, top], [left, bottom], [right, bottom], [right, top]]}


def answer(candidates: list[Any], spans: list[Any], decision: str = "accept") -> dict[str, Any]:
    return {"answer": decision, "spans": spans, "_suggestions": {"version": 1, "candidates": candidates}}


def read(candidates: list[Any], spans: list[Any], decision: str = "accept") -> Answer:
    return read_answer(answer(candidates, spans, decision))


class TestChoose:
    def test_few_judged_candidates_say_nothing(self) -> None:
        assert choose_threshold([(0.9, "deleted")] * (MIN_JUDGED - 1), WORTH) == HIDDEN

    def test_the_score_from_which_on_showing_saves_most(self) -> None:
        good = [(0.9 - number / 100, "kept") for number in range(6)]
        bad = [(0.4 - number / 100, "deleted") for number in range(6)]
        assert choose_threshold(good + bad, WORTH) == pytest.approx(0.85)

    def test_low_scores_are_shown_when_they_are_right(self) -> None:
        judged = [(0.2 + number / 100, "kept") for number in range(10)]
        assert choose_threshold(judged, WORTH) == pytest.approx(0.2)

    def test_hidden_while_they_cost_more_than_they_save(self) -> None:
        assert choose_threshold([(0.9, "deleted")] * 20, WORTH) == HIDDEN

    def test_never_more_deleted_than_not(self) -> None:
        """Even where one kept box is worth many deleted ones."""
        cheap = CostModel(
            draw_seconds=1000, verify_seconds=0.1, adjust_seconds=1, relabel_seconds=1, delete_seconds=0.1
        )
        judged = [(0.9, "kept"), *[(0.8 - number / 100, "deleted") for number in range(8)], (0.1, "kept")]
        assert choose_threshold(judged, worth_of_outcomes(cheap, can_pick=False)) == pytest.approx(0.9)

    def test_equal_scores_stay_together(self) -> None:
        judged = [(0.5, "kept"), (0.5, "deleted"), (0.5, "deleted"), (0.5, "deleted")] * 3
        assert choose_threshold(judged, WORTH) == HIDDEN


class TestJudge:
    def test_the_best_score_gets_the_box(self) -> None:
        candidates = [["car", 0.4, [10, 10, 30, 30]], ["car", 0.9, [10, 10, 30, 31]], ["person", 0.8, [10, 10, 30, 30]]]
        found = judge(read(candidates, [span(10, 10, 30, 30)]), LABEL_MAP)
        assert found == {1: [(0.9, "kept"), (0.4, "deleted")], 2: [(0.8, "deleted")]}

    def test_a_moved_suggestion_counts_as_adjusted(self) -> None:
        found = judge(read([["car", 0.7, [10, 10, 30, 24]]], [span(10, 10, 30, 30)]), LABEL_MAP)
        assert found == {1: [(0.7, "adjusted")]}

    @pytest.mark.parametrize("decision", ["reject", "ignore"])
    def test_other_decisions_say_nothing_about_boxes(self, decision: str) -> None:
        assert judge(read([["car", 0.9, [0, 0, 9, 9]]], [], decision), LABEL_MAP) == {}


class TestAuto:
    def auto(self, tmp_path: Path, label_map: LabelMap) -> AutoThreshold:
        return AutoThreshold(label_map, tmp_path / "thresholds.json", cost=COST)

    def test_thresholds_are_learned_per_class_and_kept_across_restarts(
        self, tmp_path: Path, label_map: LabelMap
    ) -> None:
        auto = self.auto(tmp_path, label_map)
        assert auto.of(1) == auto.of(2) == HIDDEN
        good = answer([["car", 0.3, [10, 10, 30, 30]]], [span(10, 10, 30, 30)])
        bad = answer([["person", 0.9, [10, 10, 30, 30]]], [])
        auto.note([good, bad] * MIN_JUDGED)
        assert (auto.of(1), auto.of(2)) == (pytest.approx(0.3), HIDDEN)
        again = self.auto(tmp_path, label_map)
        assert (again.of(1), again.of(2)) == (pytest.approx(0.3), HIDDEN)

    @pytest.mark.parametrize(
        "strange",
        [
            {},
            {"answer": "accept", "_suggestions": {"candidates": [["car", "high", [1, 2, 3, 4]]]}, "spans": []},
            {"answer": "accept", "_suggestions": {"candidates": 5}, "spans": []},
            answer([["car", 0.5, [1, 2, 3, 4]]], [{"label": "car", "points": "x"}]),
            answer([["car", 0.5, [1, 2]]], [span(1, 1, 9, 9)]),
        ],
    )
    def test_malformed_answers_are_ignored(self, tmp_path: Path, label_map: LabelMap, strange: dict[str, Any]) -> None:
        auto = self.auto(tmp_path, label_map)
        auto.note([strange])
        assert auto.of(1) == HIDDEN

    def test_a_damaged_file_is_replaced(self, tmp_path: Path, label_map: LabelMap) -> None:
        (tmp_path / "thresholds.json").write_text("[1, 2")
        assert self.auto(tmp_path, label_map).of(1) == HIDDEN


def test_candidates_are_what_was_found_the_best_first(label_map: LabelMap) -> None:
    found = Detections(
        np.array([[0.0, 0.0, 0.5, 0.5], [0.25, 0.5, 0.75, 1.0], [0, 0, 1, 1], [0, 0, 1, 1]], np.float32),
        np.array([0.3, 0.6, 0.9, 0.001], np.float32),
        np.array([1, 2, 9, 1], np.int32),  # 9 is none of ours
    )
    assert list_candidates(found, label_map, (40, 80)) == (
        Span("person", ((40.0, 10.0), (80.0, 30.0)), 0.6),
        Span("car", ((0.0, 0.0), (40.0, 20.0)), 0.3),
    )


def test_a_fixed_threshold_applies_to_all_classes() -> None:
    fixed = FixedThreshold(0.4)
    fixed.note([{}])
    assert (fixed.of(1), fixed.of(2)) == (0.4, 0.4)


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), (" Auto ", "auto"), ("0.3", 0.3), ("1", 1.0)])
def test_read_threshold(text: str, value: str | float) -> None:
    assert read_threshold(text) == value


def test_an_invalid_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="high"):
        read_threshold("high")
