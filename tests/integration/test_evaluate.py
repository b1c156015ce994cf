from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from object_detection import eval_util

from odkeras.data.records import read_records, write_records
from odkeras.errors import CheckpointError, ConfigError
from odkeras.model.setup import Setup
from odkeras.pipeline import PipelineConfig
from odkeras.training.evaluate import evaluate, evaluate_checkpoint
from odkeras.training.inputs import evaluation_dataset
from odkeras.training.store import CheckpointStore
from tests.fixtures_training import LABEL_MAP

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("shared_models")]

MAP = "DetectionBoxes_Precision/mAP"
MAP50 = "DetectionBoxes_Precision/mAP@.50IOU"
BOX_METRICS = (
    "coco_detection_metrics",
    "oid_V2_detection_metrics",
    "pascal_voc_detection_metrics",
    "precision_at_recall_detection_metrics",
    "weighted_pascal_voc_detection_metrics",
)


class Oracle:
    """Detects what is there: the truth of each example in turn, moved to the right by `shift` of the image's width."""

    def __init__(self, config: PipelineConfig, model: Any, shift: float = 0.0) -> None:
        self.model = model
        self._truths = self._read(config)
        self._shift = shift

    def _read(self, config: PipelineConfig) -> Iterator[Any]:
        for reader in config.eval_input_reader:
            for _, labels in evaluation_dataset(config, self.model, reader):
                yield labels

    def detect(self, images: tf.Tensor, true_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        labels = next(self._truths)
        count = int(labels["num_groundtruth_boxes"][0])
        boxes, classes = np.zeros((1, 20, 4), np.float32), np.ones((1, 20), np.float32)
        boxes[0, :count] = labels["groundtruth_boxes"][0, :count] + np.float32([0, self._shift, 0, self._shift])
        classes[0, :count] = labels["groundtruth_classes"][0, :count].numpy().argmax(axis=1) + 1
        scores = np.float32([[0.9] * count + [0.0] * (20 - count)])
        return {
            "detection_boxes": tf.constant(boxes),
            "detection_scores": tf.constant(scores),
            "detection_classes": tf.constant(classes),
            "num_detections": tf.constant([float(count)]),
        }


class TestMetrics:
    def test_perfect_detections(self, config: PipelineConfig, trainer: Any) -> None:
        metrics = evaluate(Oracle(config, trainer.model), config)  # type: ignore[arg-type]
        assert metrics[MAP] == pytest.approx(1.0)
        assert len(metrics) == 12 and all(isinstance(value, float) for value in metrics.values())

    def test_boxes_a_little_off(self, config: PipelineConfig, trainer: Any) -> None:
        metrics = evaluate(Oracle(config, trainer.model, shift=0.02), config)  # type: ignore[arg-type]
        assert 0.3 < metrics[MAP] < 1.0
        assert metrics[MAP50] == pytest.approx(1.0)

    def test_a_model_that_knows_nothing(self, config: PipelineConfig, inference: Any) -> None:
        done: list[int] = []
        metrics = evaluate(inference, config, progress=done.append)
        assert 0.0 <= metrics[MAP] < 0.2
        assert done == [1, 2, 3, 4]

    @pytest.mark.parametrize(("limit", "examples"), [(1, 1), (3, 3), (9, 4), (0, 4), (-1, 4), (None, 4)])
    def test_a_number_of_examples(
        self, config: PipelineConfig, inference: Any, limit: int | None, examples: int
    ) -> None:
        """-1, which is "all" elsewhere, ended with a ValueError of itertools."""
        done: list[int] = []
        evaluate(inference, config, max_examples=limit, progress=done.append)
        assert done[-1] == examples

    def test_the_default_is_coco(self, config: PipelineConfig, trainer: Any) -> None:
        del config.eval_config.metrics_set[:]
        assert MAP in evaluate(Oracle(config, trainer.model), config)  # type: ignore[arg-type]

    def test_several_sets_at_once(self, config: PipelineConfig, trainer: Any) -> None:
        config.eval_config.metrics_set[:] = BOX_METRICS
        metrics = evaluate(Oracle(config, trainer.model), config)  # type: ignore[arg-type]
        for name in (
            MAP,
            "OpenImagesV2_Precision/mAP@0.5IOU",
            "PascalBoxes_Precision/mAP@0.5IOU",
            "PrecisionAtRecallBoxes_Precision/mAP@0.5IOU",
            "WeightedPascalBoxes_Precision/mAP@0.5IOU",
            "PascalBoxes_PerformanceByCategory/AP@0.5IOU/circle",
        ):
            assert metrics[name] == pytest.approx(1.0, abs=1e-3), name

    def test_per_category_which_pycocotools_does_not_have(self, config: PipelineConfig, trainer: Any) -> None:
        config.eval_config.include_metrics_per_category = True
        metrics = evaluate(Oracle(config, trainer.model), config)  # type: ignore[arg-type]
        assert metrics[MAP] == pytest.approx(1.0)
        assert config.eval_config.include_metrics_per_category is True

    def test_an_unknown_set(self, config: PipelineConfig, inference: Any) -> None:
        config.eval_config.metrics_set[:] = ["coco_detction_metrics"]
        with pytest.raises(ConfigError) as caught:
            evaluate(inference, config)
        known = ", ".join(sorted(eval_util.EVAL_METRICS_CLASS_DICT))
        assert str(caught.value) == (
            f"eval_config.metrics_set: Metric not found: coco_detction_metrics; known: {known}"
        )

    def test_two_readers(self, config: PipelineConfig, trainer: Any, shape_records: dict[str, Path]) -> None:
        config.eval_input_reader.add().CopyFrom(config.eval_input_reader[0])
        config.eval_input_reader[1].name = "training pictures"
        config.eval_input_reader[1].tf_record_input_reader.input_path[:] = [str(shape_records["train"])]
        metrics = evaluate(Oracle(config, trainer.model), config)  # type: ignore[arg-type]
        assert metrics[f"0/{MAP}"] == metrics[f"training pictures/{MAP}"] == pytest.approx(1.0)
        assert len(metrics) == 24

    def test_nothing_is_printed(self, config: PipelineConfig, trainer: Any, capsys: pytest.CaptureFixture[str]) -> None:
        evaluate(Oracle(config, trainer.model), config)  # type: ignore[arg-type]
        assert capsys.readouterr().out == ""

    def test_an_image_without_objects(
        self, config: PipelineConfig, inference: Any, shape_records: dict[str, Path], tmp_path: Path
    ) -> None:
        example = tf.train.Example.FromString(next(iter(read_records(shape_records["test"]))))
        for name in list(example.features.feature):
            if name.startswith("image/object/"):
                del example.features.feature[name]
        write_records(tmp_path / "empty.record", [example.SerializeToString()])
        config.eval_input_reader[0].tf_record_input_reader.input_path[:] = [str(tmp_path / "empty.record")]
        assert evaluate(inference, config)[MAP] == -1.0  # pycocotools' word for "there was nothing to find"


class TestNothingToEvaluateOn:
    def test_no_reader(self, config: PipelineConfig, inference: Any) -> None:
        del config.eval_input_reader[:]
        with pytest.raises(ConfigError, match="names no examples to evaluate on; add an eval_input_reader"):
            evaluate(inference, config)

    def test_an_empty_record(self, config: PipelineConfig, inference: Any, tmp_path: Path) -> None:
        write_records(tmp_path / "none.record", [])
        config.eval_input_reader[0].tf_record_input_reader.input_path[:] = [str(tmp_path / "none.record")]
        with pytest.raises(ConfigError, match=f"eval_input_reader: no examples in {tmp_path}/none.record"):
            evaluate(inference, config)


class TestCheckpoints:
    def test_the_newest_or_the_named_one(
        self, config: PipelineConfig, trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = CheckpointStore(trainer, tmp_path, 5)
        paths = []
        for step in (1, 2):
            trainer.step_variable.assign(step)
            for variable in trainer.variables.values():
                variable.assign(tf.fill(variable.shape, float(step)))
            paths.append(store.save())
        judged: list[float] = []
        monkeypatch.setattr(
            "odkeras.training.evaluate.evaluate",
            lambda inference, *_, **__: judged.append(float(inference.variables[0].numpy().ravel()[0])) or {},
        )
        setup = Setup(config, LABEL_MAP)
        evaluate_checkpoint(setup, tmp_path)
        evaluate_checkpoint(setup, tmp_path, checkpoint=paths[0])
        assert judged == [2.0, 1.0]

    def test_none(self, config: PipelineConfig, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"there is no checkpoint in .*; train first"):
            evaluate_checkpoint(Setup(config, LABEL_MAP), tmp_path)

    def test_one_that_does_not_exist(self, config: PipelineConfig, tmp_path: Path) -> None:
        """It was said to belong to another model."""
        with pytest.raises(CheckpointError, match=r"no checkpoint 'ckpt-9'; in .* there are: none"):
            evaluate_checkpoint(Setup(config, LABEL_MAP), tmp_path, checkpoint="ckpt-9")


def test_labels_are_cut_to_the_real_boxes() -> None:
    from odkeras.training.evaluate import _without_padding

    labels = {
        "num_groundtruth_boxes": tf.constant([2]),
        "groundtruth_boxes": tf.zeros([1, 3, 4]),
        "groundtruth_weights": tf.ones([1, 3]),
        "groundtruth_verified_neg_classes": tf.zeros([1, 3]),  # three classes, by chance
        "groundtruth_image_score": tf.zeros([1]),
    }
    shapes = {name: value.shape.as_list() for name, value in _without_padding(labels).items()}
    assert shapes == {
        "num_groundtruth_boxes": [1],
        "groundtruth_boxes": [1, 2, 4],
        "groundtruth_weights": [1, 2],
        "groundtruth_verified_neg_classes": [1, 3],
        "groundtruth_image_score": [1],
    }
