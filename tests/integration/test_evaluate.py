from __future__ import annotations

import contextlib
import functools
import io
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from object_detection import inputs as odapi_inputs
from object_detection import model_lib_v2
from object_detection.utils.object_detection_evaluation import OpenImagesDetectionChallengeEvaluator

from odkeras.data import records
from odkeras.errors import CheckpointError, ConfigError
from odkeras.export.publish import Publisher
from odkeras.model.inference import InferenceModel
from odkeras.model.setup import Setup
from odkeras.model.weights import copy_weights, named_variables, snapshot
from odkeras.pipeline import PipelineConfig
from odkeras.pipeline.checks import METRICS_SETS
from odkeras.training.checkpoints import CheckpointStore
from odkeras.training.evaluation import (
    SavedModelDetector,
    _without_padding,
    evaluate,
    evaluate_checkpoint,
    evaluate_version,
)
from odkeras.training.inputs import (
    SERIALIZED,
    evaluation_dataset,
    examples_of_reader,
    smallest_hashes,
    training_dataset,
)
from odkeras.training.metrics import primary_metric
from odkeras.training.trainer import Trainer
from tests.fixtures_training import LABEL_MAP
from tests.integration.conftest import _state_of, kept_as_is
from tests.integration.test_masks import CENTER_NET

pytestmark = pytest.mark.integration

COCO_NAMES = {
    *(f"DetectionBoxes_Precision/mAP{rest}" for rest in ("", "@.50IOU", "@.75IOU")),
    *(f"DetectionBoxes_Precision/mAP ({size})" for size in ("small", "medium", "large")),
    *(f"DetectionBoxes_Recall/AR@{count}" for count in (1, 10, 100)),
    *(f"DetectionBoxes_Recall/AR@100 ({size})" for size in ("small", "medium", "large")),
}
MAP = "DetectionBoxes_Precision/mAP"
PER_CLASS = "DetectionBoxes_PerformanceByCategory"
NAMES = {label.id: label.name for label in LABEL_MAP.labels}
CLASS_NAMES = {f"{PER_CLASS}/{kind}/{name}" for kind in ("mAP", "mAP@.50IOU") for name in LABEL_MAP.names}
BOX_SETS = {
    "coco_detection_metrics": MAP,
    "pascal_voc_detection_metrics": "PascalBoxes_Precision/mAP@0.5IOU",
    "weighted_pascal_voc_detection_metrics": "WeightedPascalBoxes_Precision/mAP@0.5IOU",
    "oid_V2_detection_metrics": "OpenImagesV2_Precision/mAP@0.5IOU",
    "oid_challenge_detection_metrics": "OpenImagesDetectionChallenge_Precision/mAP@0.5IOU",
    "precision_at_recall_detection_metrics": "PrecisionAtRecallBoxes_Precision/mAP@0.5IOU",
}
MASK_SETS = {
    "coco_mask_metrics": "DetectionMasks_Precision/mAP",
    "lvis_mask_metrics": "DetectionMasks_AP",
    "pascal_voc_instance_segmentation_metrics": "PascalMasks_Precision/mAP@0.5IOU",
    "weighted_pascal_voc_instance_segmentation_metrics": "WeightedPascalMasks_Precision/mAP@0.5IOU",
    "oid_challenge_segmentation_metrics": "OpenImagesInstanceSegmentationChallenge_Precision/mAP@0.5IOU",
}


class Oracle:
    """Stands in for an `InferenceModel`: its detections are the true boxes of a record, in its order.

    Args:
        wrong_by: added to every class id.
        moved_by: added to the x of every box.
        masks: each box has one, all of it.
        blind_to: a class that it does not see.
    """

    def __init__(
        self,
        inference: Any,
        record: Path,
        wrong_by: int = 0,
        moved_by: float = 0.0,
        masks: bool = False,
        blind_to: int | None = None,
    ) -> None:
        self.model = inference.model
        self.calls = 0
        self._truths = [records.annotation_from_example(each).groundtruth for each in records.read_records(record)]
        self._wrong_by = wrong_by
        self._masks = masks
        self._blind_to = blind_to
        self._moved_by = np.float32([0.0, moved_by, 0.0, moved_by])

    def detect(self, images: tf.Tensor, true_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        assert images.shape == (1, 96, 128, 3)
        truth = self._truths[self.calls % len(self._truths)]
        self.calls += 1
        padding = 20 - len(truth)
        boxes = np.pad(truth.boxes + self._moved_by, [(0, padding), (0, 0)])
        scores = np.pad(np.where(truth.classes == self._blind_to, 0.0, 0.9).astype(np.float32), (0, padding))
        boxes[scores == 0] = 0.0
        classes = np.pad(truth.classes + self._wrong_by, (0, padding), constant_values=1)
        count = tf.constant([float(len(truth))])
        return {
            "detection_boxes": tf.constant(boxes[np.newaxis], tf.float32),
            "detection_scores": tf.constant(scores[np.newaxis]),
            "detection_classes": tf.constant(classes[np.newaxis], tf.float32),
            "num_detections": count,
            **({"detection_masks": tf.ones([1, 20, 15, 15])} if self._masks else {}),
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
        assert set(found) == COCO_NAMES | CLASS_NAMES
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
        found = evaluate(oracle, metrics_set(config, *BOX_SETS))
        assert {name: found[name] for name in BOX_SETS.values()} == pytest.approx(
            dict.fromkeys(BOX_SETS.values(), 1.0), abs=1e-3
        )
        assert primary_metric(found) == MAP

    def test_per_category_metrics_need_no_patched_pycocotools(self, oracle: Oracle, config: PipelineConfig) -> None:
        """`include_metrics_per_category` ended the API's evaluation: "Category stats do not exist"."""
        config.eval_config.include_metrics_per_category = True
        assert set(evaluate(oracle, config)) == COCO_NAMES | CLASS_NAMES

    def test_all_metrics_per_category(self, oracle: Oracle, config: PipelineConfig) -> None:
        config.eval_config.all_metrics_per_category = True
        found = evaluate(oracle, metrics_set(config, "coco_detection_metrics"))
        kinds = {name.removeprefix("DetectionBoxes_") for name in COCO_NAMES}
        assert set(found) == COCO_NAMES | CLASS_NAMES | {
            f"DetectionBoxes_{kind} ByCategory/{name}" for kind in kinds for name in LABEL_MAP.names
        }
        for kind in kinds:  # over the classes that have objects of the size
            values = [found[f"DetectionBoxes_{kind} ByCategory/{name}"] for name in LABEL_MAP.names]
            present = [value for value in values if value >= 0]
            assert found[f"DetectionBoxes_{kind}"] == pytest.approx(np.mean(present) if present else -1)

    def test_a_class_that_is_not_found(
        self, inference: Any, shape_records: dict[str, Path], config: PipelineConfig
    ) -> None:
        found = evaluate(Oracle(inference, shape_records["test"], blind_to=2), config)
        for kind in ("mAP", "mAP@.50IOU"):
            values = [found[f"{PER_CLASS}/{kind}/{name}"] for name in LABEL_MAP.names]
            assert values == pytest.approx([1.0, 0.0, 1.0])
        assert found[MAP] == pytest.approx(2 / 3)
        assert list(found)[:12] == [name for name in found if name in COCO_NAMES]  # overall first

    def test_super_categories(self, inference: Any, shape_records: dict[str, Path], config: PipelineConfig) -> None:
        config.eval_config.super_categories["round"] = "circle"
        config.eval_config.super_categories["edged"] = "triangle, square"
        found = evaluate(Oracle(inference, shape_records["test"], blind_to=2), config)
        groups = {name: found[f"DetectionBoxes_PerformanceBySuperCategory/{name}"] for name in ("round", "edged")}
        assert groups == pytest.approx({"round": 1.0, "edged": 0.5})

    def test_a_super_category_of_unknown_classes(
        self, inference: Any, shape_records: dict[str, Path], config: PipelineConfig, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A warning, as in the API: the configs of DeepMAC name the classes of COCO, whatever the label map has."""
        config.eval_config.super_categories["edged"] = "triangle,hexagon"
        config.eval_config.super_categories["vehicles"] = "car"
        found = evaluate(Oracle(inference, shape_records["test"]), config)
        groups = {name.rpartition("/")[2]: value for name, value in found.items() if "BySuperCategory" in name}
        assert groups == pytest.approx({"edged": 1.0})
        assert "'edged' names 'hexagon', which the label map lacks; they are left out" in caplog.text
        assert "'vehicles' names 'car', which the label map lacks; the super-category is left out" in caplog.text

    @pytest.mark.parametrize("name", ["coco_keypoint_metrics", "coco_panoptic_metrics"])
    def test_sets_that_are_not_for_boxes_or_masks(self, oracle: Oracle, config: PipelineConfig, name: str) -> None:
        with pytest.raises(ConfigError, match=f"eval_config.metrics_set: .*{name}"):
            evaluate(oracle, metrics_set(config, name))

    def test_mask_sets_without_masks(self, oracle: Oracle, config: PipelineConfig) -> None:
        with pytest.raises(ConfigError, match="coco_mask_metrics compares masks, and the examples have none; set load"):
            evaluate(oracle, metrics_set(config, "coco_mask_metrics"))

    def test_nothing_is_printed(
        self, oracle: Oracle, config: PipelineConfig, capfd: pytest.CaptureFixture[str]
    ) -> None:
        evaluate(oracle, config)
        assert capfd.readouterr().out == ""


class TestMasks:
    @pytest.fixture
    def masked(self, config: PipelineConfig, shape_records: dict[str, Path], tmp_path: Path) -> PipelineConfig:
        """Its examples have a filled box for each object."""
        record = tmp_path / "masks.record"
        records.write_records(record, map(records.with_masks, records.read_records(shape_records["test"])))
        reader = config.eval_input_reader[0]
        text_format.Merge("load_instance_masks: true mask_type: PNG_MASKS", reader)
        reader.tf_record_input_reader.input_path[:] = [str(record)]
        return metrics_set(config, *MASK_SETS)

    def test_true_masks_are_perfect(
        self, inference: Any, shape_records: dict[str, Path], masked: PipelineConfig
    ) -> None:
        masked.eval_config.super_categories["round"] = "circle"
        found = evaluate(Oracle(inference, shape_records["test"], masks=True), masked)
        values = {name: found[name] for name in MASK_SETS.values()}
        assert min(values.values()) > 0.8, values  # they are resampled
        for kind in ("mAP@.50IOU", "AP50"):
            by_class = [found[f"DetectionMasks_PerformanceByCategory/{kind}/{name}"] for name in LABEL_MAP.names]
            assert by_class == pytest.approx([1.0, 1.0, 1.0], abs=0.01)
        assert found["DetectionMasks_PerformanceBySuperCategory/round"] > 0.8

    def test_a_model_of_masks(self, masked: PipelineConfig) -> None:
        text_format.Merge(CENTER_NET, masked.model)
        found = evaluate(InferenceModel(masked.model), masked, max_examples=2)
        assert set(MASK_SETS.values()) < set(found)

    def test_a_model_without_masks(self, oracle: Oracle, masked: PipelineConfig) -> None:
        with pytest.raises(ConfigError, match="compares masks, and the model predicts none"):
            evaluate(oracle, masked)


@pytest.fixture(scope="module")
def trained_weights(session_config: PipelineConfig, session_trainer: Any) -> dict[str, np.ndarray]:
    """Of a model that finds something, but far from everything."""
    with kept_as_is(_state_of(session_trainer)):
        dataset = training_dataset(session_config, session_trainer.model)
        session_trainer.trace(dataset.element_spec)
        session_trainer.train(iter(dataset), 70)
        return snapshot(session_trainer.weights_for_prediction())


@pytest.fixture
def trained(inference: Any, trained_weights: dict[str, np.ndarray]) -> Any:
    copy_weights(trained_weights, named_variables(inference.model))
    return inference


class TestParity:
    """The same numbers as the Object Detection API's own evaluation loop, on the same weights and records."""

    def of_the_api(self, inference: Any, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch, *, cut: bool) -> Any:
        """`cut`: without the padding, which its PASCAL VOC and OpenImages evaluators take for objects of class 1."""
        config.eval_config.num_visualizations = 0
        v1 = model_lib_v2.tf
        monkeypatch.setattr(v1.keras.backend, "set_learning_phase", lambda training: None)  # for the whole process
        monkeypatch.setattr(v1, "function", functools.partial(tf.function, autograph=False))  # traced in a third
        reader = config.eval_input_reader[0]
        configs = {
            "train_config": config.train_config,
            "eval_input_config": reader,
            "eval_config": config.eval_config,
        }
        data = odapi_inputs.eval_input(config.eval_config, reader, config.model, model=inference.model)
        batches = [(features, _without_padding(labels)) for features, labels in data] if cut else data
        with contextlib.redirect_stdout(io.StringIO()):
            return model_lib_v2.eager_eval_loop(
                inference.model, configs, batches, global_step=tf.Variable(0, dtype=tf.int64)
            )

    def test_coco(self, trained: Any, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        ours = evaluate(trained, metrics_set(config, "coco_detection_metrics"))
        theirs = self.of_the_api(trained, config, monkeypatch, cut=False)
        assert {name: theirs[name] for name in COCO_NAMES} == {name: ours[name] for name in COCO_NAMES}
        assert 0.02 < ours[MAP] < 0.9
        assert ours[MAP] == pytest.approx(np.mean([ours[f"{PER_CLASS}/mAP/{name}"] for name in LABEL_MAP.names]))

    def test_all_that_boxes_suffice_for(
        self, trained: Any, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ours = evaluate(trained, metrics_set(config, *BOX_SETS))
        theirs = self.of_the_api(trained, config, monkeypatch, cut=True)
        same = {name for name in ours if name in theirs and "Challenge" not in name}
        assert {name: float(theirs[name]) for name in same} == {name: ours[name] for name in same}
        assert {name for name in set(ours) - same if "Challenge" not in name} == CLASS_NAMES
        assert 0.05 < ours["PascalBoxes_Precision/mAP@0.5IOU"] < 0.95

    def test_the_openimages_challenge(self, trained: Any, config: PipelineConfig) -> None:
        """The API's loop hands its evaluator a row of ones where that wants ids, so that boxes of classes which are not
        in an image are no mistakes, but those of the first class. Here it is told that all classes were looked for."""
        evaluator = OpenImagesDetectionChallengeEvaluator([{"id": id, "name": name} for id, name in NAMES.items()])
        for features, labels in evaluation_dataset(config, trained.model, config.eval_input_reader[0]):
            outputs = trained.detect(features["image"], features["true_image_shape"])
            count = int(labels["num_groundtruth_boxes"][0])
            key = int(features["hash"][0])
            truth = {
                "groundtruth_boxes": labels["groundtruth_boxes"][0, :count].numpy(),
                "groundtruth_classes": labels["groundtruth_classes"][0, :count].numpy().argmax(-1) + 1,
                "groundtruth_image_classes": np.array([1, 2, 3]),
            }
            evaluator.add_single_ground_truth_image_info(key, truth)
            evaluator.add_single_detected_image_info(
                key,
                {
                    "detection_boxes": outputs["detection_boxes"][0].numpy(),
                    "detection_scores": outputs["detection_scores"][0].numpy(),
                    "detection_classes": outputs["detection_classes"][0].numpy().astype(int),
                },
            )
        ours = evaluate(trained, metrics_set(config, "oid_challenge_detection_metrics"))
        assert ours == pytest.approx(evaluator.evaluate())

    def test_an_exported_version(self, trained: Any, config: PipelineConfig, saved_once: Path, tmp_path: Path) -> None:
        """Through its signature, which decodes and resizes the image itself."""
        publisher = Publisher(trained, tmp_path, LABEL_MAP)
        shutil.copytree(saved_once, tmp_path / "1")  # whose graph it takes
        version = publisher.publish(7)
        setup = Setup(metrics_set(config, "coco_detection_metrics", "pascal_voc_detection_metrics"), LABEL_MAP)
        ours = evaluate(trained, setup.config)
        assert evaluate_version(setup, tmp_path, version) == ours
        assert evaluate_version(setup, tmp_path, 1)[MAP] < ours[MAP]


class TestExamples:
    @pytest.fixture
    def many(self, config: PipelineConfig, shape_records: dict[str, Path], tmp_path: Path) -> Callable[[], list[str]]:
        """The ids of the examples that a sample of four of the twelve has, in the order of the record."""
        ids = [_id_of(each) for each in records.read_records(shape_records["train"])]
        reader = config.eval_input_reader[0]
        reader.tf_record_input_reader.input_path[:] = [str(shape_records["train"])]

        def sample() -> list[str]:
            chosen = [_id_of(each) for each in examples_of_reader(reader, 4).read()]
            assert len(chosen) == 4 and set(chosen) <= set(ids)
            return chosen

        return sample

    def test_a_sample_is_spread_and_the_same_again(
        self, many: Callable[[], list[str]], config: PipelineConfig, shape_records: dict[str, Path], tmp_path: Path
    ) -> None:
        """It was the first ones of the record."""
        first = many()
        serialized = list(records.read_records(shape_records["train"]))
        ids = [_id_of(each) for each in serialized]
        assert first != ids[:4] and first == many()
        records.write_records(tmp_path / "reversed.record", reversed(serialized))
        config.eval_input_reader[0].tf_record_input_reader.input_path[:] = [str(tmp_path / "reversed.record")]
        assert many() == first[::-1]

    def test_one_more_changes_it_by_one_at_most(self) -> None:
        names = [str(number) for number in range(101)]
        before, after = ({names[place] for place in smallest_hashes(names[:n], 20)} for n in (100, 101))
        assert len(before) == len(after) == 20 and len(before & after) >= 19

    def test_one_of_so_many(self, config: PipelineConfig, shape_records: dict[str, Path]) -> None:
        reader = config.eval_input_reader[0]
        reader.tf_record_input_reader.input_path[:] = [str(shape_records["train"]), str(shape_records["test"])]
        reader.sample_1_of_n_examples = 5
        assert len(list(examples_of_reader(reader).read())) == 4  # of sixteen

    def test_a_reader_without_an_end(self, oracle: Oracle, config: PipelineConfig) -> None:
        """Where num_epochs is not set, the API's own reader begins again for ever."""
        config.eval_input_reader[0].ClearField("num_epochs")
        config.eval_config.batch_size = 3  # one at a time all the same
        assert evaluate(oracle, config)[MAP] == pytest.approx(1.0)
        assert oracle.calls == 4

    def test_a_damaged_record(
        self, oracle: Oracle, config: PipelineConfig, shape_records: dict[str, Path], tmp_path: Path
    ) -> None:
        (tmp_path / "damaged.record").write_bytes(shape_records["test"].read_bytes()[:-1])
        config.eval_input_reader[0].tf_record_input_reader.input_path[:] = [str(tmp_path / "damaged.record")]
        with pytest.raises(ConfigError, match=r"eval_input_reader: .*damaged\.record"):
            evaluate(oracle, config)

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
        assert set(evaluate(oracle, config, max_examples=1)) == COCO_NAMES | CLASS_NAMES

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

    def test_classes_that_the_label_map_lacks_leave_nothing_to_measure(
        self,
        inference: Any,
        config: PipelineConfig,
        shape_records: dict[str, Path],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The metrics were -, without a word."""
        path = tmp_path / "other.record"
        examples = [tf.train.Example.FromString(each) for each in records.read_records(shape_records["test"])]
        for example in examples:
            texts = example.features.feature["image/object/class/text"].bytes_list
            texts.value[:] = [b"Thing"] * len(texts.value)
        records.write_records(path, (example.SerializeToString() for example in examples))
        config.eval_input_reader[0].tf_record_input_reader.input_path[:] = [str(path)]
        with caplog.at_level(logging.WARNING, "odkeras"):
            evaluate(inference, config)
        assert f"{path}: none of the {len(examples)} examples has a box of a class in the label map" in caplog.text

    def test_an_image_that_cannot_be_decoded_is_named(
        self, oracle: Oracle, config: PipelineConfig, shape_records: dict[str, Path], tmp_path: Path
    ) -> None:
        path = tmp_path / "bad.record"
        examples = [tf.train.Example.FromString(each) for each in records.read_records(shape_records["test"])]
        features = examples[1].features.feature
        features["image/encoded"].bytes_list.value[0] = features["image/encoded"].bytes_list.value[0][:99]
        records.write_records(path, (example.SerializeToString() for example in examples))
        config.eval_input_reader[0].tf_record_input_reader.input_path[:] = [str(path)]
        name = features["image/filename"].bytes_list.value[0].decode()
        with pytest.raises(ConfigError, match=rf"bad\.record: example 2: {name}: TensorFlow cannot decode the image"):
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

        monkeypatch.setattr("odkeras.training.evaluation.evaluate", look)
        monkeypatch.setattr("odkeras.training.evaluation.InferenceModel", lambda _: inference)
        yield means

    def test_the_newest_or_a_named_one(
        self, setup: Setup, inference: Any, judged: list[float], save: Callable[[int, float], str], tmp_path: Path
    ) -> None:
        paths = [save(number, float(number)) for number in (1, 2)]
        evaluate_checkpoint(setup, tmp_path)
        evaluate_checkpoint(setup, tmp_path, checkpoint=paths[0])
        assert judged == pytest.approx([2.0, 1.0])

    def test_the_moving_averages_where_there_are_any(
        self, setup: Setup, inference: Any, judged: list[float], tmp_path: Path
    ) -> None:
        """They are what is published; whatever `eval_config.use_moving_averages` says."""
        config = type(setup.config)()
        config.CopyFrom(setup.config)
        config.train_config.optimizer.use_moving_average = True
        averaging = Trainer(config)
        averaging.start_averages()
        for path, average in averaging.weights_for_prediction().items():
            if average is not averaging.variables[path]:
                average.assign(tf.fill(average.shape, 0.5))
        CheckpointStore(averaging, tmp_path, 1).save()
        evaluate_checkpoint(setup, tmp_path)
        names = {path for path, each in averaging.variables.items() if each.trainable}
        expected = [0.5 if path in names else np.mean(each) for path, each in averaging.variables.items()]
        assert judged == pytest.approx([float(np.mean(expected))], rel=1e-4)

    def test_averages_that_are_not_there(
        self,
        setup: Setup,
        judged: list[float],
        save: Callable[[int, float], str],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        save(1, 0.5)
        setup.config.eval_config.use_moving_averages = True
        monkeypatch.setattr(logging.getLogger("odkeras"), "propagate", True)
        evaluate_checkpoint(setup, tmp_path)
        assert "eval_config.use_moving_averages: " in caplog.text and "ckpt-1 has none" in caplog.text
        assert judged == pytest.approx([0.5])

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


class TestVersions:
    def test_no_such_version(self, config: PipelineConfig, tmp_path: Path) -> None:
        (tmp_path / "7").mkdir()
        with pytest.raises(CheckpointError, match=r"there is no version 3; in .* there are: 7"):
            evaluate_version(Setup(config, LABEL_MAP), tmp_path, 3)

    def test_one_that_cannot_be_loaded(self, config: PipelineConfig, tmp_path: Path) -> None:
        (tmp_path / "7").mkdir()
        with pytest.raises(CheckpointError, match=r"7 cannot be loaded as a SavedModel: "):
            evaluate_version(Setup(config, LABEL_MAP), tmp_path, 7)

    def test_one_of_another_tool(self, config: PipelineConfig, tmp_path: Path) -> None:
        """The API's exporter: `serving_default` takes the pixels of one image."""
        seen: list[Any] = []

        class Model(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([1, None, None, 3], tf.uint8, name="input_tensor")])
            def call(self, input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
                shape = tf.cast(tf.shape(input_tensor), tf.float32)
                return {
                    "detection_boxes": tf.zeros([1, 2, 4]),
                    "detection_scores": tf.reshape(shape[1:3], [1, 2]) / 1000.0,
                    "detection_classes": tf.ones([1, 2]),
                    "num_detections": tf.constant([2.0]),
                }

        model = Model()
        tf.saved_model.save(model, str(tmp_path / "7"), signatures={"serving_default": model.call})
        detect = SavedModelDetector(tmp_path / "7")
        for serialized in examples_of_reader(config.eval_input_reader[0]).read():
            found = detect({SERIALIZED: tf.constant([serialized])})
            seen.append([round(each * 1000) for each in found["detection_scores"][0].numpy().tolist()])
            assert seen[-1] == list(records.annotation_from_example(serialized).image.image_size_hw)
        assert evaluate_version(Setup(config, LABEL_MAP), tmp_path, 7)[MAP] == 0.0

    def test_one_that_is_no_detector(self, tmp_path: Path) -> None:
        class Model(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
            def call(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
                return {"length": tf.strings.length(text)}

        model = Model()
        tf.saved_model.save(model, str(tmp_path / "7"), signatures={"serving_default": model.call})
        with pytest.raises(
            CheckpointError, match="is not that of a detector: its inputs are text, and detection_boxes"
        ):
            SavedModelDetector(tmp_path / "7")


def _id_of(serialized: bytes) -> str:
    return records.annotation_from_example(serialized).image_id


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


def test_the_check_knows_the_api_s_sets_of_metrics() -> None:
    from object_detection.eval_util import EVAL_METRICS_CLASS_DICT

    assert set(METRICS_SETS) == set(EVAL_METRICS_CLASS_DICT)
