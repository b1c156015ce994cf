"""What TensorBoard gets: read back as TensorBoard reads it, and event by event."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.plugin_event_accumulator import TENSORS, EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2, metadata
from tensorboard.util import tensor_util

from odkeras.annotation import Annotation
from odkeras.boxes import Detections, Groundtruth
from odkeras.config.cost import CostModel
from odkeras.inbox import put_batch
from odkeras.training.pictures import (
    MAX_SIDE_PX,
    MIN_SIDE_PX,
    BoxAnnotator,
    EvaluatedExample,
    EvalVisualizations,
    best,
    resize_to_fit,
    to_uint8,
)
from odkeras.training.precision_recall import ALL_CLASSES, THRESHOLDS, PrecisionRecallCurve
from odkeras.training.process import open_rounds
from odkeras.training.tensorboard import CATEGORIES, TrainingSummaries, layout
from odkeras.training.trainer import StepReport
from odkeras.work import round_counts, round_scalars
from tests.fixtures_training import LABEL_MAP, Answer, TinyProject, answer

pytestmark = pytest.mark.integration


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={TENSORS: 0})
    found.Reload()
    return found


def steps(events: EventAccumulator, tag: str) -> list[int]:
    return [each.step for each in events.Tensors(tag)]


def values(events: EventAccumulator, tag: str) -> list[float]:
    return [float(tensor_util.make_ndarray(each.tensor_proto)) for each in events.Tensors(tag)]


def tags(events: EventAccumulator) -> set[str]:
    return set(events.Tags()["tensors"])


def picture(events: EventAccumulator, tag: str, number: int = -1) -> Image.Image:
    """As it is stored, its size checked against what is said of it."""
    width, height, data = tensor_util.make_ndarray(events.Tensors(tag)[number].tensor_proto).tolist()
    image = Image.open(io.BytesIO(data))
    assert image.size == (int(width), int(height))
    return image


def suggested(annotation: Annotation, version: int = 1, **changes: Any) -> Answer:
    """An answer that kept the only suggestion: the first true box."""
    made = answer(annotation)
    return {**made, "_suggestions": {"version": version, "spans": [{**made["spans"][0], "score": 0.9}]}, **changes}


@pytest.mark.usefixtures("shared_models")
def test_rounds_with_a_restart(project: TinyProject, shapes: list[Annotation], shape_records: dict[str, Path]) -> None:
    project.write(eval_records=(str(shape_records["test"]),))
    settings = project.settings(steps_per_epoch=10, run_eval=True)
    for start in (0, 2):
        with open_rounds(project.config(), LABEL_MAP, settings) as rounds:
            for number in (start, start + 1):
                put_batch(project.directories.inbox_dir, [suggested(shapes[number])])
                assert rounds.run_pending()
    train, evaluated, loop = (read(project.directories.model_dir / name) for name in ("train", "eval", "loop"))

    # one axis
    for tag in ("Loss/total_loss", "optimizer/learning_rate", "optimizer/gradient_norm", "speed/steps_per_s"):
        assert steps(train, tag) == [10, 20, 30, 40], tag
    assert values(train, "speed/images_per_s") == pytest.approx(
        [2 * each for each in values(train, "speed/steps_per_s")]
    )
    for tag in ("round/examples", "round/loss", "seconds/evaluate_s", "seconds/publish_s", "speed/steps_per_s"):
        assert steps(loop, tag) == [10, 20, 30, 40], tag
    assert values(loop, "round/examples") == [1, 2, 3, 4]
    assert steps(evaluated, "DetectionBoxes_Precision/mAP") == [10, 20, 30, 40]
    assert {f"DetectionBoxes_PerformanceByCategory/mAP@.50IOU/{label}" for label in LABEL_MAP.names} <= tags(evaluated)

    # pictures: at most three of a round's first batch, at most four that are evaluated
    assert {tag for tag in tags(train) if "examples" in tag} == {"training_examples/1", "training_examples/2"}
    assert steps(train, "training_examples/1") == [0, 10, 20, 30]
    assert max(picture(train, "training_examples/1").size) >= MIN_SIDE_PX
    assert {tag for tag in tags(evaluated) if "examples" in tag} == {f"evaluation_examples/{n}" for n in (1, 2, 3, 4)}
    first, last = (np.asarray(picture(evaluated, "evaluation_examples/1", number), float) for number in (0, -1))
    assert first.shape == last.shape and first.shape[1] > 2 * MIN_SIDE_PX * 0.7
    half = first.shape[1] // 2 - 8
    assert np.abs(first[:, :half] - last[:, :half]).mean() < 1  # the truth of the same example

    # curves
    curves = {tag for tag in tags(evaluated) if tag.startswith("precision_recall/")}
    assert curves == {f"precision_recall/{name}/pr_curves" for name in (ALL_CLASSES, *LABEL_MAP.names)}
    assert steps(evaluated, f"precision_recall/{ALL_CLASSES}/pr_curves") == [10, 20, 30, 40]

    # work saved
    (row,) = [row for row in project.metrics() if row["round"] == 3]
    others = len(shapes[2].groundtruth) - 1
    assert row["work"] == {
        "images": 1,
        "kept": 1,
        "kept_80": 1,
        "adjusted": 0,
        "relabelled": 0,
        "deleted": 0,
        "added": others,
        "picked": 0,
    }
    assert values(loop, "work/kept") == [1.0] * 4 and values(loop, "work/added_per_image")[2] == others

    # text, and the layout, which names what is there
    assert steps(train, "pipeline.config") == steps(train, "label_map") == [0, 20]
    config, label_table = (
        tensor_util.make_ndarray(train.Tensors(tag)[0].tensor_proto).item().decode()
        for tag in ("pipeline.config", "label_map")
    )
    assert "batch_size: 2" in config and "| 1 | circle | circle |" in label_table
    stored = layout_pb2.Layout.FromString(
        tensor_util.make_ndarray(train.Tensors(metadata.CONFIG_SUMMARY_TAG)[-1].tensor_proto).item()
    )
    assert stored.category[0].title == "Is it learning?"
    there = tags(train) | tags(evaluated) | tags(loop)
    for category in stored.category:
        for chart in category.chart:
            shown = [tag for tag in there for pattern in chart.multiline.tag if re.match(pattern, tag)]
            assert shown, chart.title


def report(step: int, loss: float = 1.0) -> StepReport:
    return StepReport(step, {"Loss/total_loss": loss}, 0.1, 2.0)


class TestOneAxis:
    def test_what_never_reached_a_checkpoint_is_taken_back(self, tmp_path: Path) -> None:
        """The process was killed at step 4; its checkpoint was of step 2."""
        with TrainingSummaries(tmp_path, every_steps=1) as summaries:
            for step in (1, 2, 3, 4):
                summaries.step(report(step))
            summaries.evaluation(2, {"mAP": 0.2})
        with TrainingSummaries(tmp_path, step=2, every_steps=1) as summaries:
            summaries.step(report(3, loss=9.0))
        assert steps(read(tmp_path / "train"), "Loss/total_loss") == [1, 2, 3]
        assert values(read(tmp_path / "train"), "Loss/total_loss") == [1.0, 1.0, 9.0]
        assert steps(read(tmp_path / "eval"), "mAP") == [2]

    def test_steps_that_were_undone(self, tmp_path: Path) -> None:
        with TrainingSummaries(tmp_path, every_steps=1) as summaries:
            for step in (1, 2, 3, 2, 3):
                summaries.step(report(step))
        assert steps(read(tmp_path / "train"), "Loss/total_loss") == [1, 2, 3]

    def test_a_worker_that_is_not_the_chief(self, tmp_path: Path) -> None:
        with TrainingSummaries(tmp_path, LABEL_MAP, every_steps=1, write=False) as summaries:
            summaries.describe("config")
            summaries.step(report(1))
            summaries.evaluation(1, {"mAP": 0.5}, EvalVisualizations())
            summaries.round(1, {"train_s": 1.0, "steps": 1})
        assert list(tmp_path.iterdir()) == []


class TestAnEvaluation:
    def test_what_there_is_no_groundtruth_of(self, tmp_path: Path) -> None:
        with TrainingSummaries(tmp_path) as summaries:
            summaries.evaluation(1, {"mAP": 0.0, "mAP (small)": -1.0, "mAP/square": float("nan")})
        assert tags(read(tmp_path / "eval")) == {"mAP"}

    def test_a_curve(self, tmp_path: Path) -> None:
        curve = PrecisionRecallCurve.from_matches([0.95, 0.6, 0.2], [True, False, True], 4)
        with TrainingSummaries(tmp_path) as summaries:
            summaries.evaluation(7, {}, EvalVisualizations((), {"precision_recall/circle": curve}))
        events = read(tmp_path / "eval")
        assert steps(events, "precision_recall/circle/pr_curves") == [7]
        (stored,) = events.Tensors("precision_recall/circle/pr_curves")
        table = tensor_util.make_ndarray(stored.tensor_proto)
        assert table.shape == (6, THRESHOLDS)
        at = {threshold: table[:, round(threshold * (THRESHOLDS - 1))].tolist() for threshold in (0.0, 0.5, 0.9, 1.0)}
        assert at[0.0] == pytest.approx([2, 1, 0, 2, 2 / 3, 0.5])
        assert at[0.5] == pytest.approx([1, 1, 0, 3, 0.5, 0.25])
        assert at[0.9] == pytest.approx([1, 0, 0, 3, 1.0, 0.25])
        assert at[1.0] == pytest.approx([0, 0, 0, 4, 0.0, 0.0])

    def test_curves_are_coco_s(self) -> None:
        """The area under a curve, taken as COCO takes it, is the class's average precision at IoU 0.5."""
        from object_detection.metrics import coco_evaluation

        from odkeras.training.metrics import MetricSet

        categories = [{"id": id, "name": LABEL_MAP.name_of(id)} for id in LABEL_MAP.ids]
        metric_set = MetricSet("coco_detection_metrics", coco_evaluation.CocoDetectionEvaluator(categories), {})
        rng = np.random.default_rng(1)
        for number in range(6):
            corners = rng.uniform(0, 60, (4, 2))
            truth = np.hstack([corners, corners + 30])
            moved = truth + rng.uniform(-9, 9, (4, 4))
            metric_set._evaluator.add_single_ground_truth_image_info(
                str(number), {"groundtruth_boxes": truth, "groundtruth_classes": np.array([1, 1, 2, 2])}
            )
            metric_set._evaluator.add_single_detected_image_info(
                str(number),
                {
                    "detection_boxes": moved,
                    "detection_scores": rng.uniform(0.005, 0.99, 4).round(2) + 0.001,
                    "detection_classes": np.array([1, 2, 2, 1]),
                },
            )
        metrics = metric_set.evaluate()
        curves = metric_set.curves
        assert set(curves) == {f"precision_recall/{name}" for name in (ALL_CLASSES, "circle", "triangle")}
        for label in ("circle", "triangle"):
            curve = curves[f"precision_recall/{label}"]
            assert curve.objects == 12 and curve.true_positives[0] + curve.false_positives[0] == 12
            expected = metrics[f"DetectionBoxes_PerformanceByCategory/mAP@.50IOU/{label}"]
            levels = np.linspace(0, 1, 101)
            area = np.mean([max([0.0, *curve.precision[curve.recall >= level - 1e-9]]) for level in levels])
            assert area == pytest.approx(expected, abs=0.02)


class TestPanels:
    @pytest.mark.parametrize(
        ("size_hw", "expected_wh"),
        [
            ((48, 64), (MIN_SIDE_PX, 240)),  # tiny: scaled up
            ((400, 300), (300, 400)),  # as it is
            ((1000, 2000), (MAX_SIDE_PX, 240)),  # scaled down
            ((2, 2000), (MAX_SIDE_PX, 1)),
        ],
    )
    def test_sizes(self, size_hw: tuple[int, int], expected_wh: tuple[int, int]) -> None:
        assert resize_to_fit(np.zeros((*size_hw, 3), np.uint8)).size == expected_wh

    def test_colours_are_those_of_the_page(self) -> None:
        image = np.full((300, 400, 3), 255, np.uint8)
        drawn = BoxAnnotator(LABEL_MAP).draw(image, Groundtruth([[0.25, 0.25, 0.75, 0.75]], [2]))
        assert drawn.getpixel((100, 150)) == (0x0A, 0x7F, 0xD1)
        assert drawn.getpixel((200, 150)) == (255, 255, 255)

    def test_side_by_side(self) -> None:
        image = np.full((300, 400, 3), 255, np.uint8)
        box, other = [0.1, 0.1, 0.5, 0.5], [0.5, 0.5, 0.9, 0.9]
        panel = BoxAnnotator(LABEL_MAP).draw_example(
            EvaluatedExample(image, Groundtruth([box], [1]), Detections([box, other], [0.8, 0.4], [1, 2]))
        )
        assert panel.size == (808, 324)
        orange, blue = (0xE6, 0x9F, 0x00), (0x0A, 0x7F, 0xD1)
        assert panel.getpixel((40, 24 + 90)) == panel.getpixel((448, 24 + 90)) == orange
        assert blue not in [colour for _, colour in panel.getcolors(10**6)]  # below 0.5

    def test_where_no_score_is_high_enough_the_best_few_are_shown(self) -> None:
        found = Detections(np.tile([0.1, 0.1, 0.5, 0.5], (5, 1)), [0.1, 0.4, np.nan, 0.3, 0.2], [1, 2, 1, 1, 1])
        image = np.zeros((30, 40, 3), np.uint8)
        np.testing.assert_allclose(best(found).scores, [0.4, 0.3, 0.2], rtol=1e-6)
        BoxAnnotator().draw_example(EvaluatedExample(image, Groundtruth.empty(), found))
        BoxAnnotator().draw_example(EvaluatedExample(image, Groundtruth.empty(), Detections.empty()))

    def test_strange_boxes_and_labels_do_no_harm(self) -> None:
        boxes = [[np.nan, 0, 1, 1], [0.9, 0.9, 0.1, 0.1], [-2, -2, 3, 3], [0, 0, 0, 0], [0.97, 0.97, 1, 1]]
        BoxAnnotator(LABEL_MAP).draw(np.zeros((30, 40, 3), np.uint8), Detections(boxes, np.ones(5), [1, 2, 99, 0, 3]))

    def test_whatever_the_model_s_preprocessing_made_of_it(self) -> None:
        image = to_uint8(np.array([[[-1.0, 0.0, 1.0]]], np.float32))
        assert image.dtype == np.uint8 and image.ravel().tolist() == [0, 127, 255]
        assert to_uint8(np.zeros((2, 2, 1), np.float32)).shape == (2, 2, 3)


ROW = {"image_id": "a", "session": "", "version": 1, "kept": 3, "kept_80": 4, "adjusted": 2, "relabelled": 1}


class TestWork:
    def test_counts(self) -> None:
        rows = [
            {**ROW, "deleted": 9, "added": 9},  # answered anew
            {**ROW, "deleted": 2, "added": 4},
            {**ROW, "image_id": "b", "kept": 1, "adjusted": 0, "deleted": 0, "added": 0, "control": True},
        ]
        counts = round_counts(rows)
        control = counts.pop("control")
        assert counts == {
            "images": 1,
            "kept": 3,
            "kept_80": 4,
            "adjusted": 2,
            "relabelled": 1,
            "deleted": 2,
            "added": 4,
            "picked": 0,
        }
        assert control["images"] == 1 and control["kept"] == 1
        assert round_counts([]) == {}

    def test_figures(self) -> None:
        counts = {"images": 2, "kept": 3, "kept_80": 4, "adjusted": 2, "relabelled": 1, "deleted": 2, "added": 4}
        figures = round_scalars({**counts, "control": {"images": 1, "kept": 1, "added": 1}})
        cost = CostModel()
        saved = 10 * cost.draw_seconds - (
            8 * cost.verify_seconds
            + 1 * cost.adjust_seconds
            + cost.relabel_seconds
            + 2 * cost.delete_seconds
            + 4 * cost.draw_seconds
        )
        assert figures == pytest.approx(
            {
                "kept": 3 / 8,
                "adjusted": 2 / 8,
                "relabelled": 1 / 8,
                "deleted": 2 / 8,
                "added_per_image": 2.0,
                "suggested_per_image": 4.0,
                "seconds_saved": saved,
                "seconds_saved_per_image": saved / 2,
                "precision": 5 / 8,
                "recall": 5 / 10,
                "control_precision": 1.0,
                "control_recall": 0.5,
            }
        )

    def test_before_the_first_suggestion(self) -> None:
        assert set(round_scalars({"images": 2, "added": 4})) == {
            *("added_per_image", "suggested_per_image", "seconds_saved", "seconds_saved_per_image", "recall")
        }
        assert round_scalars({}) == {}


def test_the_layout_names_each_chart_once() -> None:
    titles = [chart.title for charts in CATEGORIES.values() for chart in charts]
    assert len(titles) == len(set(titles))


def test_charts_that_would_stay_empty_are_left_out() -> None:
    def titles(*runs: str) -> dict[str, int]:
        return {category.title: len(category.chart) for category in layout(runs).category}

    assert titles("train") == {"Is it learning?": 1, "Losses": 3, "Speed": 2}
    assert titles("train", "loop")["Is it learning?"] == 2 and "Evaluation" not in titles("train", "loop")


def test_a_panel_in_an_evaluation(tmp_path: Path) -> None:
    example = EvaluatedExample(np.zeros((30, 40, 3), np.uint8), Groundtruth.empty(), Detections.empty())
    with TrainingSummaries(tmp_path, LABEL_MAP) as summaries:
        summaries.evaluation(3, {}, EvalVisualizations((example,)))
    (path,) = (tmp_path / "eval").iterdir()
    kinds = [
        value.metadata.plugin_data.plugin_name
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]
    assert kinds == ["images"]
