"""What suggestions were worth: rows, totals, and seconds under a stated cost."""

from __future__ import annotations

from typing import Any

import pytest

from odkeras.annotation import Answer, EditCounts
from odkeras.formats.prodigy import read_answer
from odkeras.work import (
    CostModel,
    Work,
    by_session,
    by_version,
    last_rows,
    of_control,
    totals,
    withdrawn_row,
    work_row,
)

SIZE_HW = (48, 64)
CAR, PERSON = (4, 4, 24, 20), (30, 10, 60, 40)
COST = CostModel(draw_seconds=10, verify_seconds=1, adjust_seconds=4, relabel_seconds=2, delete_seconds=3)


def span(box: tuple[float, float, float, float], label: str = "car", score: float = 0.8) -> dict[str, Any]:
    left, top, right, bottom = box
    size = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    points = [[left, top], [left, bottom], [right, bottom], [right, top]]
    return {"label": label, "type": "rect", "score": score, **size, "points": points}


def answer(*suggested: dict[str, Any], version: int | None = 7, **more: Any) -> dict[str, Any]:
    made = {"version": version, "threshold": 0.5, "spans": list(suggested), **more}
    return {
        "image_id": "a" * 32,
        "width": SIZE_HW[1],
        "height": SIZE_HW[0],
        "answer": "accept",
        "spans": [span(CAR), span(PERSON, "person")],
        "_session_id": "things-anna",
        "_timestamp": 1700000000,
        "_suggestions": made,
    }


def read(*suggested: dict[str, Any], **more: Any) -> Answer:
    return read_answer(answer(*suggested, **more))


class TestRow:
    def test_counts_what_became_of_the_suggestions(self) -> None:
        row = work_row(read(span(CAR), span(PERSON, "car"), span((0, 30, 10, 40))))
        assert row == {
            "image_id": "a" * 32,
            "session": "things-anna",
            "version": 7,
            "kept": 1,
            "kept_80": 1,
            "adjusted": 0,
            "relabelled": 1,
            "deleted": 1,
            "added": 0,
            "picked": 0,
            "answered_at": 1700000000,
        }

    def test_a_control_image_is_judged_by_what_was_not_shown(self) -> None:
        row = work_row(read(control=True, hidden_spans=[span(CAR)]))
        assert row is not None
        assert (row["control"], row["kept"], row["added"]) == (True, 1, 1)

    @pytest.mark.parametrize(
        "made",
        [None, "x", {}, {"version": None, "spans": []}, {"version": "7", "spans": []}],
    )
    def test_without_a_model_there_is_nothing_to_note(self, made: Any) -> None:
        assert work_row(read_answer({**answer(), "_suggestions": made})) is None

    def test_measured_seconds_are_in_the_row(self) -> None:
        row = work_row(read_answer({**answer(span(CAR)), "_active_s": 12.3}))
        assert row is not None
        assert row["active_s"] == 12.3

    def test_labels_are_compared_as_the_annotator_saw_them(self) -> None:
        """A display name that is also another label's name was counted as the wrong class."""
        row = work_row(read(span(CAR, "lorry"), span(CAR)))
        assert row is not None
        assert (row["kept"], row["deleted"]) == (1, 1)


class TestWork:
    def test_seconds(self) -> None:
        work = Work(2, EditCounts(kept=3, kept_80=4, adjusted=2, deleted=1, added=5, relabelled=1, picked=2))
        assert work.seconds_without(COST) == 11 * 10
        assert work.seconds_with(COST) == 7 * 1 + 1 * 4 + 1 * 2 + 1 * 3 + 3 * 10 + 2 * 3
        assert work.seconds_saved(COST) == pytest.approx(110 - 52)

    def test_precision_and_recall(self) -> None:
        work = Work(1, EditCounts(kept=2, kept_80=2, adjusted=1, deleted=1, added=2, relabelled=1))
        assert work.precision == pytest.approx(3 / 5)
        assert work.recall == pytest.approx(3 / 6)
        assert (Work().precision, Work().recall) == (None, None)


class TestTotals:
    ROWS = (
        {"image_id": "a", "session": "x", "version": 2, "kept": 1},
        {"image_id": "b", "session": "y", "version": 1, "deleted": 2},
        {"image_id": "c", "session": "x", "version": 2, "added": 3},
        {"image_id": "d", "session": "x", "version": 2, "control": True, "kept": 5},
    )

    def test_by_version_and_by_session(self) -> None:
        rows = list(self.ROWS)
        assert by_version(rows) == {
            1: Work(1, EditCounts(deleted=2)),
            2: Work(2, EditCounts(kept=1, kept_80=1, added=3)),
        }
        assert list(by_version(rows)) == [1, 2]
        assert by_session(rows)["y"] == Work(1, EditCounts(deleted=2))
        assert of_control(rows) == Work(1, EditCounts(kept=5, kept_80=5))
        assert totals([], lambda row: row) == {}

    def test_the_last_row_of_an_image_counts(self) -> None:
        """A batch is read again after a crash; an answer may be corrected."""
        again = [{**self.ROWS[0], "kept": 0, "adjusted": 1}]
        assert by_session(last_rows([*self.ROWS, *again]))["x"].edits == EditCounts(adjusted=1, added=3)

    def test_an_image_that_is_rejected_later_does_not_count(self) -> None:
        """`odkeras stats` counted it for good, and disagreed with `odkeras db stats`."""
        rejected = withdrawn_row(read_answer({"image_id": "a", "_session_id": "x", "answer": "reject"}))
        assert [row["image_id"] for row in last_rows([*self.ROWS, rejected])] == ["b", "c", "d"]
        assert len(last_rows([*self.ROWS, rejected, self.ROWS[0]])) == 4
