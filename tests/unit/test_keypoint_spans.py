"""Keypoints of spans: their JSON, what the trainer and COCO's format make of them, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pictures import draw_pixels, encode

from odkeras.annotation import Answer, Decision, Span, Suggestions, Task
from odkeras.boxes import Detections
from odkeras.errors import AnswerError
from odkeras.formats.coco import to_coco
from odkeras.formats.prodigy import Record, read_annotation, read_answer, read_task, write_answer, write_task
from odkeras.formats.spans import read_span, write_span
from odkeras.images import encode_image
from odkeras.keypoints import Keypoint, from_array
from odkeras.labels import Label, LabelMap
from odkeras.session.events import Listener
from odkeras.session.suggester import Suggester, SuggestionRules
from odkeras.session.thresholds import FixedThreshold

LABEL_MAP = LabelMap((Label(1, "car"), Label(2, "arrow", None, ((1, "tip"), (0, "tail")))))
WITHOUT = LabelMap.from_names(["car", "arrow"])
IMAGE = encode_image(encode(draw_pixels(), "JPEG"), source="fixture")  # 64 x 48
TIP, TAIL = Keypoint("tip", 32.0, 12.0, 2), Keypoint("tail", 16.0, 24.0, 1)


def arrow(*keypoints: Keypoint, label: str = "arrow") -> Span:
    return Span(label, ((10.0, 10.0), (40.0, 30.0)), id="a", keypoints=keypoints)


def accepted(*spans: Span | Record) -> Record:
    rows = [write_span(span) if isinstance(span, Span) else span for span in spans]
    return {**write_task(Task.of(IMAGE, file="a.jpg")), "spans": rows, "answer": "accept"}


def with_rows(rows: Any) -> Record:
    return {**write_span(arrow()), "keypoints": rows}


def test_the_json_of_a_span_has_its_keypoints() -> None:
    written = write_span(arrow(TIP, Keypoint("tail", 16.123, 24, 0)))
    assert written["keypoints"] == [
        {"name": "tip", "x": 32.0, "y": 12.0, "visibility": 2},
        {"name": "tail", "x": 16.12, "y": 24, "visibility": 0},
    ]
    assert read_span(written).keypoints == (TIP, Keypoint("tail", 16.12, 24.0, 0))
    assert "keypoints" not in write_span(arrow())


def test_a_keypoint_without_visibility_is_visible_and_one_not_labelled_needs_no_place() -> None:
    rows = [{"name": "tip", "x": 1, "y": 2}, {"name": "tail", "visibility": 0}]
    assert read_span(with_rows(rows)).keypoints == (Keypoint("tip", 1.0, 2.0, 2), Keypoint("tail", 0.0, 0.0, 0))


def test_an_answer_keeps_the_keypoints_of_spans_suggestions_and_candidates() -> None:
    suggested, other = arrow(TIP), Span("arrow", ((1.0, 1.0), (9.0, 9.0)), 0.25, keypoints=(TAIL,))
    suggestions = Suggestions(3, 0.5, (suggested,), candidates=(other, Span("car", ((0, 0), (5, 5)), 0.125)))
    task = Task("id", "a.jpg", "a.jpg", (48, 64), spans=(arrow(TIP, TAIL),), suggestions=suggestions)
    again = read_answer(write_answer(Answer(task, Decision.ACCEPT))).task
    assert again.suggestions is not None
    assert [span.keypoints for span in (*again.spans, *again.suggestions.spans)] == [(TIP, TAIL), (TIP,)]
    assert [span.keypoints for span in again.suggestions.candidates] == [(TAIL,), ()]


def test_the_groundtruth_has_the_keypoints_by_their_ids() -> None:
    read = read_annotation(accepted(arrow(TIP, TAIL), arrow(), arrow(label="car")), LABEL_MAP)
    assert read.annotation is not None and read.problems == ()
    keypoints = read.annotation.groundtruth.keypoints
    assert keypoints is not None and keypoints.shape == (3, 2, 3)
    assert keypoints[0] == pytest.approx(np.array([[0.5, 0.25, 1], [0.25, 0.5, 2]]))
    assert not keypoints[1:].any()


def test_keypoints_scale_with_the_size_that_the_answer_names() -> None:
    answer = {**accepted(arrow(TIP)), "width": 128, "height": 96}
    read = read_annotation(answer, LABEL_MAP)
    assert read.annotation is not None and read.annotation.groundtruth.keypoints is not None
    assert read.annotation.groundtruth.keypoints[0, 1] == pytest.approx([0.125, 0.25, 2])


def test_an_image_without_objects_has_keypoints_of_the_right_shape() -> None:
    read = read_annotation(accepted(), LABEL_MAP)
    assert read.annotation is not None and read.annotation.groundtruth.keypoints is not None
    assert read.annotation.groundtruth.keypoints.shape == (0, 2, 3)


def test_a_proposed_keypoint_is_not_trained() -> None:
    read = read_annotation(accepted(arrow(Keypoint("tip", 32.0, 12.0, 0))), LABEL_MAP)
    assert read.annotation is not None and read.annotation.groundtruth.keypoints is not None
    assert not read.annotation.groundtruth.keypoints.any()


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("tip", "keypoints must be a list of objects with name, x, y and visibility; got 'tip'"),
        ([1, 2, 2], "keypoint 1 must be an object with name, x, y and visibility; got 1"),
        ([{"x": 1, "y": 2}], "keypoint 1: name must be a text; got None"),
        (
            [{"name": "tip", "x": 1, "y": 2, "visibility": 3}],
            r"keypoint 1 \(tip\): visibility must be 0, 1 or 2; got 3",
        ),
        (
            [{"name": "tip", "x": 1, "y": 2, "visibility": True}],
            r"keypoint 1 \(tip\): visibility must be 0, 1 or 2; got True",
        ),
        ([{"name": "tip", "x": float("nan"), "y": 2}], r"keypoint 1 \(tip\): x must be a finite number of pixels"),
        ([{"name": "tip", "x": 1}], r"keypoint 1 \(tip\): y must be a finite number of pixels; got None"),
        ([{"name": "tip", "visibility": 0}] * 2, "keypoints: 'tip' is there twice"),
        ([{"name": "nose", "x": 1, "y": 2}], r"'arrow': keypoint 'nose' is not in the label map \(known: tip, tail\)"),
        ([{"name": "tip", "x": 70, "y": 2}], "'arrow': keypoint 'tip' is outside the image: x is 70, must be 0 to 64"),
    ],
)
def test_wrong_keypoints_cost_their_object_alone(rows: Any, reason: str) -> None:
    read = read_annotation(accepted(arrow(TIP), with_rows(rows)), LABEL_MAP)
    assert read.annotation is not None and len(read.annotation.groundtruth) == 1
    with pytest.raises(AnswerError, match=f"span 2: {reason}"):
        raise AnswerError(*read.problems)


def test_keypoints_of_a_class_that_has_none_are_refused() -> None:
    read = read_annotation(accepted(arrow(), arrow(TIP, label="car")), LABEL_MAP)
    assert "'car': keypoint 'tip' is not in the label map (known: none)" in read.problems[0]


@pytest.mark.parametrize("rows", [[1, 2, 2], [{"name": "nose", "x": 900, "y": 2}], None])
def test_a_label_map_without_keypoints_ignores_and_keeps_them(rows: Any) -> None:
    answer = accepted(with_rows(rows))
    read = read_annotation(answer, WITHOUT)
    assert read.annotation is not None and read.annotation.groundtruth.keypoints is None and read.problems == ()
    written = write_task(read_task(answer))["spans"][0].get("keypoints")
    assert written == (rows if rows is None or rows[0] == 1 else [{**rows[0], "visibility": 2}])


def test_rounding_may_put_a_keypoint_just_outside() -> None:
    read = read_annotation(accepted(arrow(Keypoint("tip", 64.6, -0.4))), LABEL_MAP)
    assert read.annotation is not None and read.annotation.groundtruth.keypoints is not None
    assert read.annotation.groundtruth.keypoints[0, 1].tolist() == [0, 1, 2]


def test_a_model_proposes_keypoints_and_labels_the_certain_ones() -> None:
    points = np.array([[0.5, 0.25, 0.9], [0.5, 1.5, 0.3], [0.1, 0.1, 0.0], [np.nan, 0.1, 0.9]], np.float32)
    named = ((1, "b"), (0, "a"), (2, "c"), (3, "d"), (9, "e"))
    assert from_array(points, named, (48, 64), 2) == (Keypoint("b", 64.0, 24.0, 0), Keypoint("a", 16.0, 24.0, 2))


class Detecting:
    """A served model that detects one arrow with the keypoints tail and tip, and a car."""

    def __init__(self, num_keypoints: int = 2) -> None:
        keypoints = np.full((2, num_keypoints, 3), 0.5, np.float32)
        keypoints[0, 1, 2] = 0.25
        boxes = np.array([[0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1]], np.float32)
        self._found = Detections(boxes, np.array([0.9, 0.8]), np.array([2, 1]), keypoints)

    def available_version(self) -> int:
        return 3

    def has_learned(self, version: int) -> bool:
        return True

    def predict(self, images: Sequence[bytes], *, batch_size: int, version: int | None) -> list[Detections]:
        return [self._found] * len(images)


def suggested(model: Detecting) -> Task:
    (task,) = Suggester(model, LABEL_MAP, SuggestionRules(FixedThreshold(0.5)), Listener())([Task.of(IMAGE, file="a")])
    return task


def test_suggestions_and_candidates_have_the_models_keypoints() -> None:
    task = suggested(Detecting())
    assert task.suggestions is not None
    expected = (Keypoint("tip", 32.0, 24.0, 0), Keypoint("tail", 32.0, 24.0, 2))
    for spans in (task.spans, task.suggestions.candidates):
        assert [(span.label, span.keypoints) for span in spans] == [("arrow", expected), ("car", ())]


def test_keypoints_of_another_training_are_not_suggested() -> None:
    assert [span.keypoints for span in suggested(Detecting(num_keypoints=3)).spans] == [(), ()]


@pytest.mark.parametrize("label_map", [LABEL_MAP, None])
def test_coco_gets_the_keypoints(label_map: LabelMap | None) -> None:
    spans = (arrow(TAIL, TIP), arrow(Keypoint("tail", 3.0, 3.0, 0)), arrow(label="car"))
    export = to_coco([("1", accepted(*spans))], label_map)
    category = next(category for category in export.categories if category["name"] == "arrow")
    assert (category["keypoints"], category["skeleton"]) == (["tail", "tip"], [])
    first, second, car = export.annotations
    assert (first["keypoints"], first["num_keypoints"]) == ([16.0, 24.0, 1, 32.0, 12.0, 2], 2)
    assert (second["keypoints"], second["num_keypoints"]) == ([0] * 6, 0)
    assert "keypoints" not in car and "num_keypoints" not in car


def test_coco_skips_an_object_with_wrong_keypoints() -> None:
    export = to_coco([("1", accepted(arrow(), arrow(Keypoint("nose", 1.0, 1.0))))], LABEL_MAP)
    assert len(export.annotations) == 1 and "'nose' is not in the label map" in export.skipped[0][1]


def test_coco_without_keypoints_is_as_before() -> None:
    export = to_coco([("1", accepted(arrow(TIP)))], WITHOUT)
    assert "keypoints" not in export.annotations[0] and "keypoints" not in export.categories[1]
