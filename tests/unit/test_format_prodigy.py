from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import draw_pixels, encode

from odkeras.annotation import Annotation, Answer, Decision, Span, Suggestions, Task
from odkeras.boxes import Detections, Groundtruth
from odkeras.errors import AnswerError
from odkeras.formats.prodigy import (
    Record,
    read_annotation,
    read_answer,
    read_task,
    write_answer,
    write_task,
)
from odkeras.images import encode_image
from odkeras.labels import Label, LabelMap
from odkeras.session.events import Listener
from odkeras.session.suggester import Suggester, SuggestionRules
from odkeras.session.thresholds import FixedThreshold

LABEL_MAP = LabelMap((Label(1, "car"), Label(4, "n01", "person")))
IMAGE = encode_image(encode(draw_pixels(), "JPEG"), source="fixture")


def rect(x: Any, y: Any, width: Any, height: Any, label: Any = "car") -> Record:
    """A span as Prodigy 1.10 and later write it."""
    points = [[x, y], [x, y + height], [x + width, y + height], [x + width, y]]
    return {"id": "0ef6", "label": label, "color": "yellow", "x": x, "y": y, "width": width, "height": height,
            "center": [x + width / 2, y + height / 2], "type": "rect", "points": points}  # fmt: skip


def accepted(*spans: Any, **extra: Any) -> Record:
    return {**write_task(Task.of(IMAGE, file="a.jpg")), "spans": list(spans), "answer": "accept", **extra}


def annotation_of(answer: Record, label_map: LabelMap = LABEL_MAP) -> Annotation:
    read = read_annotation(answer, label_map)
    assert read.annotation is not None
    assert read.withdrawn_image_id is None
    return read.annotation


# --- tasks


def test_a_task_has_what_the_page_needs() -> None:
    task = Task.of(IMAGE, file="a.jpg", path="/images/a.jpg")
    assert write_task(task) == {
        "image": IMAGE.data_uri,
        "width": 64,
        "height": 48,
        "image_id": IMAGE.image_id,
        "meta": {"file": "a.jpg"},
        "path": "/images/a.jpg",
        "spans": [],
    }
    assert "path" not in write_task(Task.of(IMAGE, file="a.jpg"))


DETECTIONS = Detections(
    np.array([[0.25, 0.5, 0.5, 0.75], [-0.1, 0.1, 0.5, 1.2], [0, 0, 1, 1]]),
    np.array([0.9, 0.4, 0.1]),
    np.array([4, 1, 1]),
)


class Found:
    """A served model that detects the same in every image."""

    def __init__(self, detections: Detections, version: int = 3) -> None:
        self._detections = detections
        self._version = version

    def available_version(self) -> int:
        return self._version

    def has_learned(self, version: int) -> bool:
        return True

    def predict(self, images: Sequence[bytes], *, batch_size: int, version: int | None) -> list[Detections]:
        return [self._detections] * len(images)


def suggested(model: Found, threshold: float, *, use_display_name: bool = False) -> Record:
    rules = SuggestionRules(FixedThreshold(threshold), use_display_name=use_display_name)
    (task,) = Suggester(model, LABEL_MAP, rules, Listener())([Task.of(IMAGE, file="a.jpg")])
    return write_task(task)


def test_suggestions_become_spans() -> None:
    record = suggested(Found(DETECTIONS, version=17), 0.4)
    first, second = record["spans"]
    assert first == {
        "type": "rect",
        "label": "n01",
        "score": 0.9,
        "x": 32.0,
        "y": 12.0,
        "width": 16.0,
        "height": 12.0,
        "center": [40.0, 18.0],
        "points": [[32.0, 12.0], [32.0, 24.0], [48.0, 24.0], [48.0, 12.0]],
    }
    assert (second["x"], second["y"], second["width"], second["height"]) == (6.4, 0.0, 57.6, 24.0)  # clipped
    assert record["meta"] == {"file": "a.jpg", "score": 0.9, "model version": 17}
    made = {"version": 17, "threshold": 0.4, "spans": record["spans"], "uncertainty": 0.64}
    candidates = [["n01", 0.9, [32, 12, 48, 24]], ["car", 0.4, [6.4, 0, 64, 24]], ["car", 0.1, [0, 0, 64, 48]]]
    assert record["_suggestions"] == {**made, "candidates": candidates}
    assert json.loads(json.dumps(record)) == record


def test_suggestions_use_display_names_when_asked_for() -> None:
    record = suggested(Found(DETECTIONS), 0.5, use_display_name=True)
    assert [span["label"] for span in record["spans"]] == ["person"]


@pytest.mark.parametrize(
    ("box", "score", "class_id"),
    [
        ([math.nan, 0, 1, 1], 0.9, 1),
        ([0, 0, math.inf, 1], 0.9, 1),
        ([0, 0, 1, 1], math.nan, 1),
        ([0.5, 0.5, 0.5, 0.9], 0.9, 1),  # no height
        ([0.2, 1.1, 0.5, 1.4], 0.9, 1),  # outside
        ([0.5, 0.5, 0.1, 0.1], 0.9, 1),  # swapped
        ([0, 0, 1, 1], 0.9, 2),  # a gap in the label map
        ([0, 0, 1, 1], 0.9, 0),
        ([0, 0, 1, 1], 0.39, 1),  # below the threshold
    ],
)
def test_detections_that_cannot_be_drawn_are_not_suggested(box: list[float], score: float, class_id: int) -> None:
    detections = Detections(np.array([box]), np.array([score]), np.array([class_id]))
    record = suggested(Found(detections), 0.4)
    assert record["spans"] == []
    assert record["meta"] == {"file": "a.jpg", "model version": 3}


CANDIDATE = Span("car", ((1.0, 2.0), (3.0, 4.0)), 0.3)
SHOWN = Span("car", ((1.0, 2.0), (13.0, 14.0)), 0.9, id="7")


@pytest.mark.parametrize(
    "suggestions",
    [
        None,
        Suggestions(None),
        Suggestions(17, 0.5, (SHOWN,), uncertainty=0.25),
        Suggestions(17, 0.5, (SHOWN,), hidden=True, candidates=(SHOWN, CANDIDATE)),
    ],
)
def test_what_is_written_is_read_again(suggestions: Suggestions | None) -> None:
    drawn = Span("car", ((1.0, 1.0), (9.0, 1.0), (5.0, 8.0)), other={"color": "red"})
    task = Task("ab", "a.jpg", "/a.jpg", (48, 64), "/a.jpg", (drawn,), suggestions, {"camera": 3}, {"own": [1]})
    record = write_task(task)
    read = read_task(json.loads(json.dumps(record)))
    assert dataclasses.replace(read, suggestions=None) == dataclasses.replace(task, suggestions=None)
    assert read.spans[0].other == {"color": "red"}
    assert write_task(read) == record
    answer = Answer(task, Decision.REJECT, "things-anna", 1700000000.0)
    assert write_answer(read_answer(write_answer(answer))) == write_answer(answer)


def test_active_seconds_are_tenths_of_a_second_in_the_record() -> None:
    written = write_answer(Answer(Task("ab", "a.jpg", "/a.jpg", (48, 64)), Decision.ACCEPT, active_s=12.34))
    assert written["_active_s"] == 12.3
    read = read_answer(written)
    assert (read.active_s, read.task.other) == (12.3, {})
    assert "_active_s" not in write_task(read.task)


@pytest.mark.parametrize("value", [None, "12", True, -1, float("nan")])
def test_active_seconds_that_are_no_number_are_unknown(value: Any) -> None:
    assert read_answer({"answer": "accept", "_active_s": value}).active_s is None


@pytest.mark.parametrize(
    "record",
    [
        {"meta": "front", "spans": {"x": 1}, "_suggestions": "none", "image": 5, "path": [], "height": "48"},
        {
            "spans": [5, {}, {"label": 3}],
            "_suggestions": {"version": "x", "spans": 1, "candidates": [[1], 2, ["a", 1, 2]]},
        },
        {"image_id": "\ud800", "width": True, "height": 0},
    ],
)
def test_what_cannot_be_read_is_left_out(record: Record) -> None:
    task = read_task(record)
    assert (task.spans, task.image_size_hw, task.version, task.path) == ((), None, None, None)
    assert task.suggestions is None or task.suggestions.candidates == ()


# --- accepted answers


def test_an_accepted_answer_becomes_an_annotation() -> None:
    annotation = annotation_of(accepted(rect(32, 12, 16, 12, "n01"), rect(0, 0, 6.4, 48)))
    np.testing.assert_allclose(annotation.groundtruth.boxes, [[0.25, 0.5, 0.5, 0.75], [0, 0, 1, 0.1]], atol=1e-6)
    assert annotation.groundtruth.classes.tolist() == [4, 1]
    assert annotation.image == IMAGE
    assert annotation.image_id == IMAGE.image_id
    assert annotation.file == "a.jpg"


POLYGON: Record = {"label": "car", "type": "polygon", "points": [[32, 14], [40, 12], [48, 20], [36, 24]]}


@pytest.mark.parametrize(
    "span",
    [
        rect(32, 12, 16, 12),
        {"label": "car", "points": [[32, 12], [32, 24], [48, 24], [48, 12]]},  # before Prodigy 1.10
        {"label": "car", "points": [[48, 24], [48, 12], [32, 12], [32, 24]]},  # drawn from another corner
        {"label": "car", "points": [(48, 24), (32, 12)]},
        {"label": "car", "x": 32, "y": 12, "width": 16, "height": 12},
        {"label": "car", "x": 32, "y": 12, "w": 16, "h": 12, "points": []},
        {"label": "car", "x": 48, "y": 24, "width": -16, "height": -12},  # drawn to the upper left
        {**rect(0, 0, 1, 1), "points": [[32, 12], [32, 24], [48, 24], [48, 12]]},  # points count
        POLYGON,
    ],
)
def test_boxes_of_all_versions_of_prodigy(span: Record) -> None:
    annotation = annotation_of(accepted(span))
    np.testing.assert_allclose(annotation.groundtruth.boxes, [[0.25, 0.5, 0.5, 0.75]], atol=1e-6)


# --- polygons


def polygons_px(annotation: Annotation) -> list[list[list[float]] | None]:
    """The polygons as [x, y] in pixels."""
    return [None if each is None else (each[:, ::-1] * (64, 48)).round(3).tolist() for each in annotation.polygons]


def test_polygons_are_kept_in_the_order_of_the_boxes() -> None:
    freehand = {"label": "n01", "type": "freehand", "points": [[0, 0], [8, 1], [16, 12], [3, 9], [1, 4]],
                "x": 0, "y": 0, "width": 16, "height": 12}  # fmt: skip
    annotation = annotation_of(accepted(POLYGON, rect(1, 2, 30, 4), freehand))
    np.testing.assert_allclose(
        annotation.groundtruth.boxes * (48, 64, 48, 64), [[12, 32, 24, 48], [2, 1, 6, 31], [0, 0, 12, 16]], atol=1e-4
    )
    assert annotation.groundtruth.classes.tolist() == [1, 1, 4]
    assert polygons_px(annotation) == [POLYGON["points"], None, freehand["points"]]
    assert {each.dtype for each in annotation.polygons if each is not None} == {np.dtype(np.float32)}


@pytest.mark.parametrize("kind", [None, "rect", "ellipse", "of tomorrow", 7])
def test_points_make_a_polygon_whatever_the_type_says(kind: Any) -> None:
    """The versions before 1.10 write none."""
    span = {**POLYGON, "type": kind} if kind else {name: POLYGON[name] for name in ("label", "points")}
    assert polygons_px(annotation_of(accepted(span))) == [POLYGON["points"]]


@pytest.mark.parametrize(
    "span",
    [
        rect(32, 12, 16, 12),
        {"label": "car", "points": [[32, 12], [48, 24]]},
        {"label": "car", "points": [[48, 24], [48, 12], [32, 12], [32, 24]]},
        {"label": "car", "points": [[48, 24], [32, 12], [48, 12], [32, 24]]},  # in no order
        {"label": "car", "points": [[32, 12], [32, 24], [48, 24], [48, 12], [32, 12]], "type": "polygon"},
        {"label": "car", "points": [[32, 12], [32.001, 24], [48, 24.003], [48, 12]]},  # rounded
        {"label": "car", "x": 32, "y": 12, "width": 16, "height": 12},
    ],
)
def test_rectangles_are_not_stored_as_polygons(span: Record) -> None:
    annotation = annotation_of(accepted(span))
    np.testing.assert_allclose(annotation.groundtruth.boxes, [[0.25, 0.5, 0.5, 0.75]], atol=1e-4)
    assert annotation.polygons == ()


@pytest.mark.parametrize(
    "points",
    [
        [[32, 12], [48, 24], [40, 18]],  # one line
        [[32, 12], [48, 24], [32, 12], [48, 24]],
        [[32, 12], [32, 12], [48, 24]],
    ],
)
def test_a_polygon_that_covers_nothing_is_its_bounding_box(points: list[list[float]]) -> None:
    annotation = annotation_of(accepted({"label": "car", "type": "polygon", "points": points}))
    np.testing.assert_allclose(annotation.groundtruth.boxes, [[0.25, 0.5, 0.5, 0.75]], atol=1e-6)
    assert annotation.polygons == ()


def test_a_polygon_across_the_edge_is_cut_there() -> None:
    span = {"label": "car", "type": "polygon", "points": [[-64, 24], [64, 8], [64, 40]]}
    annotation = annotation_of(accepted(span))
    np.testing.assert_allclose(annotation.groundtruth.boxes, [[8 / 48, 0, 40 / 48, 1]], atol=1e-6)
    (corners,) = polygons_px(annotation)
    assert corners is not None and sorted(corners) == [[0, 16], [0, 32], [64, 8], [64, 40]]


def test_an_unusable_span_does_not_shift_the_polygons() -> None:
    read = read_annotation(accepted(rect(1, 2, 3, 4), {**POLYGON, "label": "zebra"}, POLYGON), LABEL_MAP)
    assert read.annotation is not None and len(read.problems) == 1
    assert polygons_px(read.annotation) == [None, POLYGON["points"]]


TRUTH = Groundtruth(np.array([[0, 0, 1, 1], [0, 0, 0.5, 0.5]]), np.array([1, 4]))
TRIANGLE = np.array([[0, 0], [1, 0], [0, 1]])


def annotated(*polygons: Any) -> Annotation:
    return Annotation(IMAGE, TRUTH, "id", "a.jpg", polygons=polygons)


def test_annotations_are_equal_by_their_values() -> None:
    """Arrays in a dataclass's own comparison raise: "the truth value of an array is ambiguous"."""
    assert annotated(None, TRIANGLE) == annotated(None, TRIANGLE.copy())
    assert annotated(None, None) == annotated()
    for other in (annotated(TRIANGLE, None), annotated(TRIANGLE, TRIANGLE), annotated(None, TRIANGLE / 2), annotated()):
        assert annotated(None, TRIANGLE) != other
    assert annotated() != Annotation(IMAGE, TRUTH, "id", "b.jpg")
    assert annotated() != Annotation(IMAGE, Groundtruth.empty(), "id", "a.jpg")
    assert annotated() != "annotation"


def test_a_box_across_the_edge_is_clipped() -> None:
    boxes = annotation_of(accepted(rect(-10, -5, 42, 17), rect(60, 40, 99, 99))).groundtruth.boxes
    np.testing.assert_allclose(boxes, [[0, 0, 0.25, 0.5], [40 / 48, 60 / 64, 1, 1]], atol=1e-6)


@pytest.mark.parametrize("spans", [[], None, "absent"])
def test_accepted_without_boxes_is_an_image_without_objects(spans: Any) -> None:
    answer = accepted()
    answer["spans"] = spans
    if spans == "absent":
        del answer["spans"]
    read = read_annotation(answer, LABEL_MAP)
    assert read.annotation is not None
    assert len(read.annotation.groundtruth) == 0
    assert read.problems == ()


UNUSABLE: list[tuple[Any, str]] = [
    (rect(10, 10, 0, 5), "'car' has no area inside the image"),
    (rect(70, 10, 5, 5), "'car' has no area inside the image"),
    (rect(0.1, 0.2, 0.5, 0.8), "the coordinates of 'car' are from 0 to 1; they must be pixels"),
    (rect(math.nan, 10, 5, 5), "coordinates must be finite numbers; got nan"),
    ({"label": "car", "points": [[1, 2], [None, 4]]}, "got None"),
    ({"label": "car", "points": [["1", 2], [3, 4]]}, "got '1'"),
    ({"label": "car", "points": [[True, 2], [3, 4]]}, "got True"),
    ({"label": "car", "points": [[1, 2, 3]]}, "'points' must be a list of [x, y]"),
    ({"label": "car", "points": {"x": 1}}, "'points' must be a list of [x, y]"),
    ({"label": "car", "points": [[3, 4], [3, 9], [3, 7]], "type": "polygon"}, "'car' has no area inside the image"),
    ({"label": "car", "points": [[70, 4], [90, 9], [75, 30]], "type": "polygon"}, "no area inside the image"),
    ({"label": "car", "points": [[-40, 20], [20, -40], [-40, -40]]}, "no area inside the image"),  # but its bounds have
    ({"label": "car", "points": [[1, 2], [3, math.nan], [9, 9]], "type": "freehand"}, "got nan"),
    ({"label": "car", "x": 1, "y": 2, "width": 5}, "got None"),
    (rect(10, 10, 5, 5, None), "it has no label"),
    (rect(10, 10, 5, 5, 1), "it has no label"),
    (rect(10, 10, 5, 5, "zebra"), "label 'zebra' is not in the label map (known: car, n01)"),
    (rect(10, 10, 5, 5, "Car"), "did you mean 'car'?"),
    ("span", "a span must be a JSON object; got str"),
]


@pytest.mark.parametrize(("span", "problem"), UNUSABLE)
def test_an_unusable_box_is_left_out_and_reported(span: Any, problem: str) -> None:
    read = read_annotation(accepted(rect(32, 12, 16, 12), span), LABEL_MAP)
    assert read.annotation is not None
    assert len(read.annotation.groundtruth) == 1
    assert len(read.problems) == 1
    assert read.problems[0].startswith("a.jpg: span 2: ")
    assert problem in read.problems[0]


box = st.tuples(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.05, 0.1), st.floats(0.05, 0.1))


@given(st.lists(box, max_size=5), st.sampled_from([1, 4]))
def test_a_suggestion_accepted_as_it_is_comes_back(rows: list[tuple[float, ...]], class_id: int) -> None:
    boxes = np.array([[y, x, y + height, x + width] for y, x, height, width in rows], np.float32).reshape(-1, 4)
    detections = Detections(boxes, np.full(len(boxes), 0.8), np.full(len(boxes), class_id))
    task = suggested(Found(detections), 0.5)
    answer = json.loads(json.dumps({**task, "answer": "accept"}))
    truth = annotation_of(answer).groundtruth
    np.testing.assert_allclose(truth.boxes, boxes, atol=0.011 / 48)  # spans have two decimals of a pixel
    assert truth.classes.tolist() == [class_id] * len(boxes)


# --- rejected and other answers


@pytest.mark.parametrize("decision", ["reject", "ignore"])
def test_a_rejected_image_is_withdrawn(decision: str) -> None:
    read = read_annotation(accepted(rect(1, 1, 5, 5), answer=decision), LABEL_MAP)
    assert (read.annotation, read.withdrawn_image_id) == (None, IMAGE.image_id)


def test_a_rejected_image_without_an_id_is_withdrawn_by_its_bytes() -> None:
    assert (
        read_annotation({"image": IMAGE.data_uri, "answer": "reject"}, LABEL_MAP).withdrawn_image_id == IMAGE.image_id
    )


@pytest.mark.parametrize("decision", [None, "", "yes", 1, True, ["accept"]])
def test_unknown_decisions_are_refused(decision: Any) -> None:
    with pytest.raises(AnswerError, match="answer must be 'accept', 'reject' or 'ignore'; got "):
        read_annotation(accepted(answer=decision), LABEL_MAP)


def test_malformed_answers_are_refused() -> None:
    with pytest.raises(AnswerError, match="an answer must be a JSON object; got list"):
        read_annotation([], LABEL_MAP)  # type: ignore[arg-type]
    with pytest.raises(AnswerError, match="'spans' must be a list; got dict"):
        read_annotation(accepted(spans={"x": 1}), LABEL_MAP)


# --- where the image is


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "b.jpg").write_bytes(IMAGE.data)
    return str(tmp_path / "b.jpg")


@pytest.mark.parametrize(
    "keys",
    [
        {"image": "{path}"},  # as with --remove-base64
        {"image": "file://{path}"},
        {"path": "{path}"},  # the image key was deleted
        {"image": None, "path": "{path}"},
        {"image": "moved/b.jpg", "path": "{path}"},
        {"image": "http://127.0.0.1:8080/b.jpg", "path": "{path}"},
        {"image": "x" * 5000, "path": "{path}"},  # longer than a name may be
    ],
)
def test_the_image_may_be_a_file(path: str, keys: dict[str, Any]) -> None:
    answer = {key: value and value.replace("{path}", path) for key, value in keys.items()}
    annotation = annotation_of({**answer, "answer": "accept"})
    assert annotation.image == IMAGE
    assert annotation.image_id == IMAGE.image_id


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "has neither 'image' nor 'path'"),
        ({"image": 5}, "has neither 'image' nor 'path'"),
        ({"image": ""}, "has neither 'image' nor 'path'"),
        ({"image": "missing.jpg"}, "missing.jpg: cannot be read: No such file"),
        (
            {"image": "https://example.org/c.jpg?Expires=1"},
            "https://example.org/c.jpg?Expires=1: the image is a URL, which is not fetched",
        ),
        ({"image": "data:image/jpeg;base64,AAAA"}, "d.jpg: no image data: only zero bytes"),
        ({"image": "data:image/jpeg;base64,A"}, "d.jpg: broken base64"),
        ({"image": "data:image/jpeg;base64,"}, "d.jpg: empty file"),
        ({"image": IMAGE.data_uri[:-40]}, "d.jpg: truncated or damaged"),
    ],
)
def test_an_image_that_cannot_be_read(keys: dict[str, Any], message: str) -> None:
    if str(keys.get("image")).startswith("data:"):
        keys = {**keys, "meta": {"file": "d.jpg"}}
    with pytest.raises(AnswerError) as raised:
        read_annotation({**keys, "answer": "accept"}, LABEL_MAP)
    assert message in str(raised.value)


def test_our_own_image_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert annotation_of(accepted(rect(1, 1, 5, 5))).image == IMAGE


def test_an_id_that_does_not_match_the_bytes_is_not_trusted() -> None:
    with pytest.raises(AnswerError, match="truncated"):
        read_annotation(accepted(image=IMAGE.data_uri[:-40]), LABEL_MAP)


def test_the_id_of_the_task_is_kept() -> None:
    assert annotation_of(accepted(image_id="mine")).image_id == "mine"
    assert annotation_of(accepted(image_id=5)).image_id == IMAGE.image_id


@pytest.mark.parametrize(
    ("keys", "file"),
    [
        ({"meta": {"file": "m.jpg"}, "path": "/x/p.jpg"}, "m.jpg"),
        ({"meta": None, "path": "/x/p.jpg"}, "p.jpg"),
        ({"meta": {"file": 3}}, "5"),
        ({"meta": {}, "image_id": None}, "image"),
    ],
)
def test_the_file_name_comes_from_meta_path_or_id(keys: Record, file: str) -> None:
    assert annotation_of({**accepted(), "image_id": "5", **keys}).file == file


# --- the size that the spans refer to


def test_spans_on_a_scaled_copy_are_scaled_back() -> None:
    annotation = annotation_of(accepted(rect(320, 120, 160, 120), width=640, height=480))
    np.testing.assert_allclose(annotation.groundtruth.boxes, [[0.25, 0.5, 0.5, 0.75]], atol=1e-6)


def test_spans_on_an_image_of_another_shape_are_refused() -> None:
    """A page that ignores EXIF orientation draws on the lying image; its boxes would be nonsense on the upright one."""
    with pytest.raises(
        AnswerError, match=r"a\.jpg: the spans are for an image of 48 x 64, but this one has 64 x 48 pixels"
    ):
        read_annotation(accepted(rect(1, 1, 5, 5), width=48, height=64), LABEL_MAP)


@pytest.mark.parametrize(
    ("width", "height"), [(None, None), (0, 0), ("64", "48"), (-64, 48), (math.nan, 48), (64, None)]
)
def test_an_invalid_size_is_ignored(width: Any, height: Any) -> None:
    annotation = annotation_of(accepted(rect(32, 12, 16, 12), width=width, height=height))
    np.testing.assert_allclose(annotation.groundtruth.boxes, [[0.25, 0.5, 0.5, 0.75]], atol=1e-6)


@pytest.mark.parametrize(
    ("given", "split"), [("val", "val"), ("train", "train"), ("test", "test"), ("mine", ""), (None, ""), ([], "")]
)
def test_the_split_of_an_imported_answer(given: Any, split: str) -> None:
    """A value of another program is not one of ours."""
    read = read_annotation(accepted(rect(1, 2, 30, 4), split=given), LABEL_MAP)
    assert read.annotation is not None and read.annotation.split == split
