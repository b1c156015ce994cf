from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from odkeras.annotation import EditCounts
from odkeras.formats.prodigy import Record, read_answer
from odkeras.formats.spans import write_span
from odkeras.keypoints import Keypoint
from odkeras.web import spans as page_spans
from odkeras.web.spans import MAX_SPANS
from odkeras.work import shown_edits

LABELS = ["car", "person"]
SIZE_HW = (48, 64)


def read_spans(spans: Any, labels: Collection[str], image_size_hw: tuple[int, int]) -> list[Record]:
    """The spans that the page sent, as they are stored."""
    return [write_span(span) for span in page_spans.read_spans(spans, labels, image_size_hw)]


def rect(x: Any = 8, y: Any = 6, width: Any = 32, height: Any = 24, **more: Any) -> dict[str, Any]:
    return {"id": "a", "label": "car", "type": "rect", "x": x, "y": y, "width": width, "height": height, **more}


def polygon(*points: Any, **more: Any) -> dict[str, Any]:
    return {"id": "a", "label": "car", "type": "polygon", "points": list(points), **more}


def extent(span: dict[str, Any]) -> tuple[float, ...]:
    return tuple(span[name] for name in ("x", "y", "width", "height"))


class TestReadSpans:
    def test_prodigy_s_form(self) -> None:
        assert read_spans([rect(1.5, 2, 30, 20, score=0.93)], LABELS, SIZE_HW) == [
            {
                "id": "a",
                "label": "car",
                "type": "rect",
                "x": 1.5,
                "y": 2,
                "width": 30,
                "height": 20,
                "center": [16.5, 12.0],
                "points": [[1.5, 2], [1.5, 22], [31.5, 22], [31.5, 2]],
                "score": 0.93,
            }
        ]

    def test_none(self) -> None:
        assert read_spans([], LABELS, SIZE_HW) == []

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (rect(0, 0, 64, 48), (0, 0, 64, 48)),  # all of it; a swap of width and height would cut it
            (rect(-10, -10, 30, 20), (0, 0, 20, 10)),
            (rect(50, 40, 30, 20), (50, 40, 14, 8)),
            (rect(-100, -100, 1000, 1000), (0, 0, 64, 48)),
            (rect(49, 5, 10, 10), (49, 5, 10, 10)),  # right of the height
            (rect(40, 30, -32, -24), (8, 6, 32, 24)),  # drawn towards the origin
            (rect(8, 6, 0.5, 0.5), (8, 6, 0.5, 0.5)),
            (rect(63.4, 6, 10, 5), (63.4, 6, 0.6, 5)),
            (rect(1.23456, 2.34567, 10.0001, 5.00001), (1.23, 2.35, 10.0, 5.0)),
            (rect(1, 2, True + 2, 4), (1, 2, 3, 4)),
        ],
    )
    def test_clipped_to_the_image(self, given: dict[str, Any], expected: tuple[float, ...]) -> None:
        (span,) = read_spans([given], LABELS, SIZE_HW)
        assert extent(span) == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("spans", "message"),
        [
            (None, "spans must be a list; got NoneType"),
            ({}, "spans must be a list; got dict"),
            ("car", "spans must be a list; got str"),
            ([rect(), "car"], "box 2 must be a JSON object; got str"),
            ([None], "box 1 must be a JSON object; got NoneType"),
            ([[]], "box 1 must be a JSON object; got list"),
            ([rect(label="cat")], "box 1 has the label 'cat'; known: car, person"),
            ([rect(label=None)], "box 1 has the label None"),
            ([rect(label=["car"])], r"box 1 has the label \['car'\]"),
            ([rect(label={})], "box 1 has the label {}"),
            ([rect(label="CAR")], "box 1 has the label 'CAR'"),
            ([{"x": 1, "y": 1, "width": 5, "height": 5}], "box 1 has the label None"),
            ([rect(type="ellipse")], "box 1 is a 'ellipse'; rect and polygon are supported"),
            ([rect(type=[])], r"box 1 is a \[\]"),
            ([rect(x=None)], "box 1: x must be a number of pixels; got None"),
            ([rect(y="6")], "box 1: y must be a number of pixels; got '6'"),
            ([rect(width=True)], "box 1: width must be a number of pixels; got True"),
            ([rect(height=math.nan)], "box 1: height must be a number of pixels; got nan"),
            ([rect(x=math.inf)], "box 1: x must be"),
            ([rect(x=-math.inf)], "box 1: x must be"),
            ([rect(x=1e8)], "box 1: x must be"),
            ([rect(x=[1])], "box 1: x must be"),
            ([{"label": "car", "type": "rect"}], "box 1: x must be"),
            ([rect(width=0)], "box 1 has no area within the image"),
            ([rect(width=0.4)], "box 1 has no area"),
            ([rect(height=0.4)], "box 1 has no area"),
            ([rect(x=64)], "box 1 has no area"),
            ([rect(y=48)], "box 1 has no area"),
            ([rect(x=-40)], "box 1 has no area"),
            ([rect(y=50, x=2)], "box 1 has no area"),  # inside, were the image as high as it is wide
            (
                [polygon([1, 1], [5, 5])],
                r"box 1: points must be a list of 3 to 5000 points \[x, y\]",
            ),
            ([polygon()], "box 1: points must be a list of 3 to"),
            ([rect(type="polygon", points="abc")], "box 1: points must be"),
            ([polygon(*[[number, number % 2] for number in range(5001)])], "box 1: points must be"),
            ([polygon([1, 1], [5, 5], [9])], "box 1: points must be"),
            ([polygon([1, 1], [5, 5], "ab")], "box 1: points must be"),
            ([polygon([1, 1], [5, 5], {"x": 1, "y": 2})], "box 1: points must be"),
            ([polygon([1, 1], [5, 5], [math.nan, 2])], "box 1: points must be"),
            ([polygon([1, 1], [5, 5], [2, None])], "box 1: points must be"),
            ([polygon([1, 1], [5, 1], [9, 1])], "box 1 has no area"),
            ([rect()] * (MAX_SPANS + 1), f"{MAX_SPANS + 1} boxes are more than {MAX_SPANS}"),
        ],
    )
    def test_unusable_boxes_are_refused_with_their_number(self, spans: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            read_spans(spans, LABELS, SIZE_HW)

    @pytest.mark.parametrize("name", ["x", "y", "width", "height"])
    @pytest.mark.parametrize("sign", [1, -1])
    def test_a_whole_number_that_no_float_can_hold(self, name: str, sign: int) -> None:
        """JSON has such numbers; `math.isfinite` raised OverflowError, which nobody expected: status 500."""
        with pytest.raises(ValueError, match=f"box 1: {name} must be a number of pixels"):
            read_spans([rect(**{name: sign * 10**400})], LABELS, SIZE_HW)
        assert "score" not in read_spans([rect(score=10**400)], LABELS, SIZE_HW)[0]

    def test_keypoints_are_kept_and_clipped_to_the_image(self) -> None:
        rows = [
            {"name": "tip", "x": 70, "y": -1, "visibility": 1},
            {"name": "tail", "x": 3.25, "y": 4, "visibility": 0},
        ]
        (span,) = page_spans.read_spans([rect(keypoints=rows)], LABELS, SIZE_HW, {"car": ["tail", "tip"]})
        assert span.keypoints == (Keypoint("tip", 64.0, 0.0, 1), Keypoint("tail", 3.25, 4.0, 0))

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ({}, "box 1: keypoints must be a list"),
            ([{"name": "nose", "x": 1, "y": 2}], "box 1: keypoint 'nose' is unknown; known: tail, tip"),
            (
                [{"name": "tip", "x": 10**400, "y": 2}],
                r"box 1: keypoint 1 \(tip\): x must be a finite number of pixels",
            ),
            ([{"name": "tip", "x": 1, "y": 2, "visibility": []}], "box 1: keypoint 1 .* visibility must be 0, 1 or 2"),
        ],
    )
    def test_wrong_keypoints_are_refused_with_their_place(self, rows: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            page_spans.read_spans([rect(keypoints=rows)], LABELS, SIZE_HW, {"car": ["tail", "tip"]})

    def test_keypoints_of_a_label_that_has_none_are_refused(self) -> None:
        with pytest.raises(ValueError, match="box 1: keypoint 'tip' is unknown; known: none"):
            read_spans([rect(keypoints=[{"name": "tip", "x": 1, "y": 2}])], LABELS, SIZE_HW)

    def test_as_many_as_may_be(self) -> None:
        assert len(read_spans([rect()] * MAX_SPANS, LABELS, SIZE_HW)) == MAX_SPANS

    @pytest.mark.parametrize("score", [None, True, "0.5", math.nan, math.inf, [0.5]])
    def test_a_score_that_is_none_is_left_out(self, score: Any) -> None:
        assert "score" not in read_spans([rect(score=score)], LABELS, SIZE_HW)[0]

    @pytest.mark.parametrize("identity", [None, "", 5, "x" * 65, [], {}])
    def test_a_box_without_a_usable_id_gets_one(self, identity: Any) -> None:
        first, second = read_spans([rect(id=identity)] * 2, LABELS, SIZE_HW)
        assert first["id"] != second["id"]
        assert 0 < len(first["id"]) <= 64

    def test_whatever_else_the_page_sends_is_left_out(self) -> None:
        (span,) = read_spans([rect(hidden=False, color="red", points=[[0, 0]], center=[0, 0])], LABELS, SIZE_HW)
        assert set(span) == {"id", "label", "type", "x", "y", "width", "height", "center", "points"}
        assert span["points"] == [[8, 6], [8, 30], [40, 30], [40, 6]]

    def test_rect_is_what_a_span_without_a_type_is(self) -> None:
        assert read_spans([{"label": "car", "x": 1, "y": 2, "width": 3, "height": 4}], LABELS, SIZE_HW)[0]["type"] == (
            "rect"
        )

    def test_a_polygon_keeps_its_points_and_gets_an_extent(self) -> None:
        (span,) = read_spans([polygon([10, 5], [70, 20], (30.123456, 60), [-5, 8])], LABELS, SIZE_HW)
        assert span["points"] == [[10, 5], [64, 20], [30.12, 48], [0, 8]]
        assert extent(span) == (0, 5, 64, 43)
        assert span["center"] == [32, 26.5]

    def test_the_arguments_are_left_alone(self) -> None:
        given = [rect(-5), polygon([-5, 5], [70, 20], [30, 60])]
        before = json.dumps(given)
        read_spans(given, LABELS, SIZE_HW)
        assert json.dumps(given) == before

    @given(
        x=st.floats(-100, 100),
        y=st.floats(-100, 100),
        width=st.floats(-150, 150),
        height=st.floats(-150, 150),
    )
    @example(x=10.005, y=10.005, width=100.0, height=100.0)
    @example(x=0.125, y=0.125, width=63.875, height=47.875)
    def test_what_is_read_is_within_the_image_and_read_the_same_again(
        self, x: float, y: float, width: float, height: float
    ) -> None:
        """Rounded one by one, the left edge and the width could add up to more than the image."""
        try:
            (span,) = read_spans([rect(x, y, width, height)], LABELS, SIZE_HW)
        except ValueError as error:
            assert "no area" in str(error)
            return
        assert span["x"] >= 0
        assert span["y"] >= 0
        assert round(span["x"] + span["width"], 6) <= 64
        assert round(span["y"] + span["height"], 6) <= 48
        assert all(0 <= x <= 64 and 0 <= y <= 48 for x, y in span["points"])
        (again,) = read_spans([span], LABELS, SIZE_HW)
        assert extent(again) == pytest.approx(extent(span))

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["car", "rect"]),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(
                    st.sampled_from(["label", "type", "points", "x", "y", "width", "height", "id", "score"])
                    | st.text(),
                    inner,
                )
            ),
        )
    )
    def test_any_input_raises_only_value_error(self, spans: Any) -> None:
        try:
            read = read_spans(spans, LABELS, SIZE_HW)
        except ValueError:
            return
        json.dumps(read, allow_nan=False)


def task(*suggested: dict[str, Any], version: int | None = 7) -> dict[str, Any]:
    return {
        "answer": "accept",
        "height": 48,
        "width": 64,
        "_suggestions": {"version": version, "spans": list(suggested)},
    }


class TestEffort:
    @pytest.mark.parametrize(
        ("suggested", "answered", "expected"),
        [
            ([], [], EditCounts()),
            ([], [rect()], EditCounts(added=1)),
            ([rect(score=0.9)], [], EditCounts(deleted=1)),
            ([rect(score=0.9)], [rect()], EditCounts(kept=1, kept_80=1)),
            ([rect(score=0.9)], [rect(width=20)], EditCounts(adjusted=1)),
            ([rect(x=40, y=5), rect(x=5, y=5)], [rect(x=5, y=5)], EditCounts(kept=1, kept_80=1, deleted=1)),
            ([rect()], [polygon([8, 6], [40, 6], [40, 30], [8, 30])], EditCounts(kept=1, kept_80=1)),
        ],
    )
    def test_what_a_person_did(
        self, suggested: list[dict[str, Any]], answered: list[dict[str, Any]], expected: EditCounts
    ) -> None:
        answer = {**task(*suggested), "spans": read_spans(answered, LABELS, SIZE_HW)}
        assert shown_edits(read_answer(answer)) == expected

    @pytest.mark.parametrize("label", ["person", "cat"])  # "cat" is no longer in the label map
    def test_a_box_with_another_label_is_not_kept(self, label: str) -> None:
        did = shown_edits(read_answer({**task(rect(label=label)), "spans": read_spans([rect()], LABELS, SIZE_HW)}))
        assert did is not None
        assert did.kept == did.adjusted == 0

    @pytest.mark.parametrize(
        "unsuggested",
        [{}, {"_suggestions": None}, {"_suggestions": {}}, {"_suggestions": []}, task(rect(), version=None)],
    )
    def test_unknown_without_a_model(self, unsuggested: dict[str, Any]) -> None:
        assert shown_edits(read_answer({"answer": "accept", **unsuggested})) is None
