from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from odkeras.data import records
from odkeras.errors import CheckpointError, ConfigError
from odkeras.model.setup import Setup
from odkeras.pipeline import PipelineConfig
from odkeras.training.evaluate import _without_padding, evaluate, evaluate_checkpoint
from tests.fixtures_training import LABEL_MAP

pytestmark = pytest.mark.integration

COCO_NAMES = {
    *(f"DetectionBoxes_Precision/mAP{rest}" for rest in ("", "@.50IOU", "@.75IOU")),
    *(f"DetectionBoxes_Precision/mAP ({size})" for size in ("small", "medium", "large")),
    *(f"DetectionBoxes_Recall/AR@{count}" for count in (1, 10, 100)),
    *(f"DetectionBoxes_Recall/AR@100 ({size})" for size in ("small", "medium", "large")),
}
MAP = "DetectionBoxes_Precision/mAP"


class Oracle:
    """Stands in for an `InferenceModel`: its detections are the true boxes of a record, in its order.

    Args:
        wrong_by: added to every class id.
        moved_by: added to the x of every box.
    """

    def __init__(self, inference: Any, record: Path, wrong_by: int = 0, moved_by: float = 0.0) -> None:
        self.model = inference.model
        self.calls = 0
        self._truths = [records.annotation_from_example(each).groundtruth for each in records.read_records(record)]
        self._wrong_by = wrong_by
        self._moved_by = np.float32([0.0, moved_by, 0.0, moved_by])

    def detect(self, images: tf.Tensor, true_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        assert images.shape == (1, 96, 128, 3)
        truth = self._truths[self.calls % len(self._truths)]
        self.calls += 1
        padding = 20 - len(truth)
        boxes = np.pad(truth.boxes + self._moved_by, [(0, padding), (0, 0)])
        scores = np.pad(np.full(len(truth), 0.9, np.float32), (0, padding))
        classes = np.pad(truth.classes + self._wrong_by, (0, padding), constant_values=1)
        count = tf.constant([float(len(truth))])
        return {
            "detection_boxes": tf.constant(boxes[np.newaxis], tf.float32),
            "detection_scores": tf.constant(scores[np.newaxis]),
            "detection_classes": tf.constant(classes[np.newaxis], tf.float32),
            "num_detections": count,
        }


@pytest.fixture
def oracle(inference: Any, shape_records: dict[str, Path]) -> Oracle:
    return Oracle(inference, shape_records["test"])


def metrics_set(config: PipelineConfig, *names: str) -> PipelineConfig:
    config.eval_config.metrics_set[:] = names
    return config


class TestMetrics:
    @pytest.mark.parametrize("names", [["coco_detection_metrics"], []], ids=["coco", "default"])
    def test_coco(self, inference: Any, config: PipelineConfig, names: list[str]) -> None:
        found = evaluate(inference, metrics_set(config, *names))
        assert set(found) == COCO_NAMES
        assert all(isinstance(value, float) for value in found.values())
        assert 0 <= found[MAP] <= 1

    def test_pascal(self, inference: Any, config: PipelineConfig) -> None:
        found = evaluate(inference, metrics_set(config, "pascal_voc_detection_metrics"))
        prefix = "PascalBoxes_"
        assert found.keys() == {
            f"{prefix}Precision/mAP@0.5IOU",
            *(f"{prefix}PerformanceByCategory/AP@0.5IOU/{name}" for name in LABEL_MAP.names),
        }

    def test_several_sets(self, oracle: Oracle, config: PipelineConfig) -> None:
        found = evaluate(oracle, metrics_set(config, "coco_detection_metrics", "pascal_voc_detection_metrics"))
        assert set(found) > COCO_NAMES
        assert found["PascalBoxes_Precision/mAP@0.5IOU"] == pytest.approx(1.0)

    def test_true_boxes_are_perfect(self, oracle: Oracle, config: PipelineConfig) -> None:
        """Class ids from 1 in label maps, from 0 in the API's evaluators' input: an offset would give nothing."""
        found = evaluate(oracle, config)
        assert found[MAP] == found[f"{MAP}@.75IOU"] == pytest.approx(1.0)
        assert found["DetectionBoxes_Recall/AR@100"] == pytest.approx(1.0)

    @pytest.mark.parametrize("wrong_by", [-1, 1])
    def test_wrong_classes_are_not(
        self, inference: Any, shape_records: dict[str, Path], config: PipelineConfig, wrong_by: int
    ) -> None:
        assert evaluate(Oracle(inference, shape_records["test"], wrong_by), config)[MAP] < 0.5

    def test_boxes_a_little_off(self, inference: Any, shape_records: dict[str, Path], config: PipelineConfig) -> None:
        found = evaluate(Oracle(inference, shape_records["test"], moved_by=0.02), config)
        assert 0.3 < found[MAP] < 1.0
        assert found[f"{MAP}@.50IOU"] == pytest.approx(1.0)

    def test_every_set_that_boxes_suffice_for(self, oracle: Oracle, config: PipelineConfig) -> None:
        names = ("oid_V2", "pascal_voc", "precision_at_recall", "weighted_pascal_voc")
        found = evaluate(oracle, metrics_set(config, *(f"{name}_detection_metrics" for name in names)))
        for prefix in ("OpenImagesV2", "PascalBoxes", "PrecisionAtRecallBoxes", "WeightedPascalBoxes"):
            assert found[f"{prefix}_Precision/mAP@0.5IOU"] == pytest.approx(1.0, abs=1e-3)

    def test_per_category_metrics_are_left_out(
        self, oracle: Oracle, config: PipelineConfig, caplog: pytest.LogCaptureFixture
    ) -> None:
        config.eval_config.include_metrics_per_category = True
        assert set(evaluate(oracle, config)) == COCO_NAMES
        assert "include_metrics_per_category" in caplog.text

    def test_nothing_is_printed(
        self, oracle: Oracle, config: PipelineConfig, capfd: pytest.CaptureFixture[str]
    ) -> None:
        evaluate(oracle, config)
        assert capfd.readouterr().out == ""


class TestExamples:
    @pytest.mark.parametrize(("max_examples", "expected"), [(None, 4), (0, 4), (-1, 4), (1, 1), (3, 3), (9, 4)])
    def test_as_many_as_were_asked_for(
        self, oracle: Oracle, config: PipelineConfig, max_examples: int | None, expected: int
    ) -> None:
        told: list[int] = []
        evaluate(oracle, config, max_examples=max_examples, progress=told.append)
        assert told == [*range(1, expected + 1)]
        assert oracle.calls == expected

    def test_several_readers(self, inference: Any, shape_records: dict[str, Path], config: PipelineConfig) -> None:
        config.eval_input_reader.add().CopyFrom(config.eval_input_reader[0])
        config.eval_input_reader[0].name = "raccoons"
        config.eval_input_reader[1].tf_record_input_reader.input_path[:] = [str(shape_records["train"])]
        oracle = Oracle(inference, shape_records["test"])
        found = evaluate(oracle, config)
        assert oracle.calls == 4 + 12
        assert {name.partition("/")[0] for name in found} == {"raccoons", "1"}
        assert found[f"raccoons/{MAP}"] == pytest.approx(1.0)
        assert found[f"1/{MAP}"] < 1.0  # it answers with boxes of the first reader's pictures

    def test_one_reader_needs_no_name(self, oracle: Oracle, config: PipelineConfig) -> None:
        config.eval_input_reader[0].name = "raccoons"
        assert set(evaluate(oracle, config, max_examples=1)) == COCO_NAMES

    def test_pictures_without_boxes(
        self, inference: Any, shape_records: dict[str, Path], config: PipelineConfig, tmp_path: Path
    ) -> None:
        path = tmp_path / "negatives.record"
        examples = []
        for serialized in records.read_records(shape_records["test"]):
            example = tf.train.Example.FromString(serialized)
            for name in [name for name in example.features.feature if "/object/" in name]:
                del example.features.feature[name]
            examples.append(example.SerializeToString())
        records.write_records(path, [*records.read_records(shape_records["test"]), *examples])
        config.eval_input_reader[0].tf_record_input_reader.input_path[:] = [str(path)]
        assert evaluate(Oracle(inference, path), config)[MAP] == pytest.approx(1.0)

    @pytest.mark.parametrize("empty_file", [True, False])
    def test_no_examples(self, oracle: Oracle, config: PipelineConfig, tmp_path: Path, empty_file: bool) -> None:
        path = tmp_path / "none.record"
        if empty_file:
            path.touch()
        config.eval_input_reader[0].tf_record_input_reader.input_path[:] = [str(path)]
        with pytest.raises(
            ConfigError, match="eval_input_reader: .*none.record" if empty_file else "eval_input_reader"
        ):
            evaluate(oracle, config)

    def test_no_reader(self, oracle: Oracle, config: PipelineConfig) -> None:
        del config.eval_input_reader[:]
        with pytest.raises(ConfigError, match="names no examples to evaluate on; add an eval_input_reader"):
            evaluate(oracle, config)

    def test_unknown_metrics(self, oracle: Oracle, config: PipelineConfig) -> None:
        with pytest.raises(ConfigError, match=r"metrics_set: .*coco_metrics.*; known: .*coco_detection_metrics"):
            evaluate(oracle, metrics_set(config, "coco_metrics"))


class TestCheckpoints:
    @pytest.fixture
    def setup(self, config: PipelineConfig) -> Setup:
        return Setup(config, LABEL_MAP)

    @pytest.fixture
    def judged(self, monkeypatch: pytest.MonkeyPatch, inference: Any) -> Iterator[list[float]]:
        """What `evaluate` was given: the mean of all weights."""
        means: list[float] = []

        def look(model: Any, *_: Any, **__: Any) -> dict[str, float]:
            means.append(float(np.mean([np.mean(variable) for variable in model.variables])))
            return {}

        monkeypatch.setattr("odkeras.training.evaluate.evaluate", look)
        monkeypatch.setattr("odkeras.training.evaluate.InferenceModel", lambda _: inference)
        yield means

    def test_the_newest_or_a_named_one(
        self, setup: Setup, inference: Any, judged: list[float], save: Callable[[int, float], str], tmp_path: Path
    ) -> None:
        paths = [save(number, float(number)) for number in (1, 2)]
        evaluate_checkpoint(setup, tmp_path)
        evaluate_checkpoint(setup, tmp_path, checkpoint=paths[0])
        assert judged == pytest.approx([2.0, 1.0])

    @pytest.fixture
    def save(self, inference: Any, tmp_path: Path) -> Callable[[int, float], str]:
        """Writes model_dir/ckpt-NUMBER with the same value everywhere."""

        def write(number: int, value: float) -> str:
            for variable in inference.variables:
                variable.assign(tf.fill(variable.shape, tf.cast(value, variable.dtype)))
            checkpoint = tf.train.Checkpoint(model=inference.model)
            checkpoint.save_counter.assign_add(1)  # as a CheckpointManager does
            return str(checkpoint.write(str(tmp_path / f"ckpt-{number}")))

        return write

    def test_there_is_none(self, setup: Setup, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"no checkpoint in .*; train first, or give --checkpoint or"):
            evaluate_checkpoint(setup, tmp_path / "model")

    def test_the_named_one_is_not_there(self, setup: Setup, save: Callable[[int, float], str], tmp_path: Path) -> None:
        save(1, 0.5)
        with pytest.raises(CheckpointError, match=r"no checkpoint '.*ckpt-9'; in .* there are: ckpt-1"):
            evaluate_checkpoint(setup, tmp_path, checkpoint=str(tmp_path / "ckpt-9"))


def test_labels_are_cut_to_the_real_boxes() -> None:
    labels = {
        "num_groundtruth_boxes": tf.constant([2]),
        "groundtruth_boxes": tf.zeros([1, 3, 4]),
        "groundtruth_weights": tf.ones([1, 3]),
        "groundtruth_verified_neg_classes": tf.zeros([1, 3]),  # as many classes as boxes, by chance
        "groundtruth_image_score": tf.zeros([1]),
    }
    assert {name: value.shape.as_list() for name, value in _without_padding(labels).items()} == {
        "num_groundtruth_boxes": [1],
        "groundtruth_boxes": [1, 2, 4],
        "groundtruth_weights": [1, 2],
        "groundtruth_verified_neg_classes": [1, 3],
        "groundtruth_image_score": [1],
    }
