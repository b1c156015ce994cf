"""Models with keypoints, the whole way: COCO's file, records, training, evaluation, export, predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from object_detection.data_decoders.tf_example_decoder import TfExampleDecoder
from PIL import Image

from odkeras.config import TrainingSettings
from odkeras.data.conversion import coco_to_records
from odkeras.data.records import annotation_from_example, read_records, write_records
from odkeras.errors import ConfigError
from odkeras.export.info import read_export_info
from odkeras.export.publish import Publisher
from odkeras.images import read_image
from odkeras.keypoints import Skeleton
from odkeras.model.inference import InferenceModel
from odkeras.model.setup import Setup
from odkeras.pipeline import PipelineConfig, check_pipeline, read_skeleton
from odkeras.serving.local import LocalModel
from odkeras.serving.predict import predict_files
from odkeras.serving.prediction_files import write_predictions
from odkeras.training.evaluation import (
    Evaluator,
    SavedModelDetector,
    evaluate_checkpoint,
    model_detector,
    named_sources,
)
from odkeras.training.pictures import BoxAnnotator
from odkeras.training.record_checks import check_records
from odkeras.training.train import train_on_records
from tests.fixtures_keypoints import ARROWS, KEYPOINTS, SIZE_HW, arrow_config, write_arrows
from tests.fixtures_training import give_boxes_an_area

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

METRIC = "Keypoints_Precision/mAP ByCategory/arrow"
EDGES = ((0, 1), (1, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO file and its record."""
    folder = tmp_path_factory.mktemp("arrows")
    report = coco_to_records(
        write_arrows(folder, 6), folder / "arrows.record", label_map=ARROWS, images_dir=folder, masks=False
    )
    assert (report.images, report.boxes, report.negatives, report.skipped) == (6, 5, 1, [])
    return folder


@pytest.fixture
def config(folder: Path) -> PipelineConfig:
    return arrow_config(folder / "label_map.pbtxt", folder / "arrows.record")


@pytest.fixture(scope="module")
def inference(folder: Path) -> InferenceModel:
    inference = InferenceModel(arrow_config(folder / "label_map.pbtxt", folder / "arrows.record").model)
    give_boxes_an_area(inference)
    return inference


@pytest.fixture(scope="module")
def version(inference: InferenceModel, folder: Path) -> Path:
    config = arrow_config(folder / "label_map.pbtxt", folder / "arrows.record")
    publisher = Publisher(inference, folder / "export", ARROWS, read_skeleton(config))
    return folder / "export" / str(publisher.publish(3))


def test_the_api_decodes_the_keypoints_of_the_coco_file(folder: Path) -> None:
    decoder = TfExampleDecoder(num_keypoints=3)
    decoded = [decoder.decode(tf.constant(example)) for example in read_records(folder / "arrows.record")]
    points = decoded[1]["groundtruth_keypoints"].numpy()[0] * SIZE_HW
    assert points == pytest.approx(np.array([[15, 13], [30, 38], [45, 63]], np.float32), abs=1e-3)
    assert decoded[0]["groundtruth_keypoint_visibilities"].numpy().tolist() == [[True, False, True]]
    assert decoded[5]["groundtruth_keypoints"].shape == (0, 3, 2)
    again = [annotation_from_example(example).groundtruth for example in read_records(folder / "arrows.record")]
    assert again[0].keypoints is not None and again[0].keypoints[0, :, 2].tolist() == [2, 0, 1]
    assert again[5].keypoints is None and len(again[5]) == 0


def test_training_evaluation_and_pictures(config: PipelineConfig, folder: Path, tmp_path: Path) -> None:
    assert [
        problem for problem in check_pipeline(config, label_map=None, purpose="train") if problem.severity == "error"
    ] == []
    setup = Setup(config, ARROWS)
    losses: list[Mapping[str, float]] = []
    settings = TrainingSettings(config=tmp_path / "pipeline.config", model_dir=tmp_path)
    train_on_records(setup, settings, steps=2, on_step=lambda report: losses.append(report.losses))
    assert any("keypoint" in name for name in losses[-1])
    metrics = evaluate_checkpoint(setup, tmp_path)
    assert 0 <= metrics[METRIC] <= 1 and next(iter(metrics)) == "DetectionBoxes_Precision/mAP"


class Truth:
    """A detector that knows the truth, in the coordinates of the resized image."""

    def __init__(self, record: Path, offset: float = 0.0) -> None:
        self._truths = [annotation_from_example(example).groundtruth for example in read_records(record)]
        self._offset = offset

    def __call__(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        truth = self._truths.pop(0)
        points = np.zeros((len(truth), 3, 3), np.float32) if truth.keypoints is None else truth.keypoints
        return {
            "detection_boxes": tf.constant(truth.boxes[np.newaxis]),
            "detection_scores": tf.ones([1, len(truth)]),
            "detection_classes": tf.constant(truth.classes[np.newaxis], tf.float32),
            "num_detections": tf.constant([float(len(truth))]),
            "detection_keypoints": tf.constant(points[np.newaxis, ..., :2] + np.float32(self._offset)),
            "detection_keypoint_scores": tf.ones([1, len(truth), 3]),
        }


def evaluated(config: PipelineConfig, detect: Any, inference: InferenceModel) -> tuple[dict[str, float], Evaluator]:
    evaluator = Evaluator(config, inference.model)
    return evaluator.evaluate(detect, named_sources(config)), evaluator


def test_true_keypoints_are_perfect_and_wrong_ones_are_not(
    config: PipelineConfig, folder: Path, inference: InferenceModel
) -> None:
    record = folder / "arrows.record"
    perfect, evaluator = evaluated(config, Truth(record), inference)
    wrong, _ = evaluated(config, Truth(record, offset=0.3), inference)
    assert (perfect[METRIC], wrong[METRIC]) == (pytest.approx(1.0), 0.0)
    assert wrong["DetectionBoxes_Precision/mAP"] == pytest.approx(1.0)
    example = evaluator.visualizations.examples[1]
    assert example.groundtruth.keypoints is not None and example.detections.keypoints is not None
    assert example.detections.keypoints[0, :, :2] == pytest.approx(example.groundtruth.keypoints[0, :, :2], abs=1e-4)
    annotator = BoxAnnotator(ARROWS)
    plain = np.asarray(annotator.draw_example(example))
    annotator.edges = EDGES
    assert (np.asarray(annotator.draw_example(example)) != plain).any(), "the edges are drawn"


def test_a_version_answers_as_the_model_of_the_api(
    config: PipelineConfig, folder: Path, inference: InferenceModel, version: Path
) -> None:
    image = read_image(folder / "1.png")
    outputs = tf.saved_model.load(str(version)).signatures["serving_default"](tf.constant([image.data, image.data]))
    pixels = tf.io.decode_image(image.data, channels=3)[tf.newaxis]
    preprocessed, shapes = inference.model.preprocess(tf.cast(pixels, tf.float32))
    raw = inference.model.postprocess(inference.model.predict(preprocessed, shapes), shapes)
    has_area = (raw["detection_boxes"][0, :, 2:] > raw["detection_boxes"][0, :, :2]).numpy().all(axis=1)
    count = int(outputs["num_detections"][1])
    assert count == has_area.sum() > 0
    for name in ("detection_boxes", "detection_scores", "detection_keypoints", "detection_keypoint_scores"):
        assert outputs[name].numpy()[1, :count] == pytest.approx(raw[name].numpy()[0][has_area], abs=1e-5)
    assert outputs["detection_keypoints"].shape[2:] == (3, 2)


def test_predictions_with_a_skeleton(version: Path, folder: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    info = read_export_info(version)
    assert info is not None and info.skeleton == Skeleton(KEYPOINTS, EDGES)
    (prediction,) = predict_files(
        [folder / "1.png"],
        LocalModel(version),
        threshold=0.0,
        names=dict(info.labels),
        skeleton=info.skeleton,
        draw_dir=tmp_path / "drawn",
    )
    points = [point for box in prediction.boxes for point in box["keypoints"] if point is not None]
    assert points and {point["name"] for point in points} <= set(KEYPOINTS)
    assert {len(box["keypoints"]) for box in prediction.boxes} == {3}
    with Image.open(tmp_path / "drawn" / "1.png") as drawn:
        assert drawn.size == SIZE_HW[::-1]
    out = tmp_path / "found.json"
    with out.open("w") as file:
        write_predictions([prediction], file, "coco", names=dict(info.labels))
    document = json.loads(out.read_text())
    assert document["categories"][0]["name"] == "arrow" and len(document["categories"][0]["keypoints"]) == 3
    assert {len(row["keypoints"]) for row in document["annotations"]} == {9}
    COCO(str(out)).loadRes(document["annotations"])


def test_an_exported_version_can_be_evaluated(config: PipelineConfig, inference: InferenceModel, version: Path) -> None:
    exported, _ = evaluated(config, SavedModelDetector(version), inference)
    here, _ = evaluated(config, model_detector(inference), inference)
    assert exported[METRIC] == pytest.approx(here[METRIC], abs=1e-5)


def test_metrics_without_keypoints(config: PipelineConfig, folder: Path, inference: InferenceModel) -> None:
    record = folder / "arrows.record"

    def without(features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {name: value for name, value in Truth(record)(features).items() if "keypoint" not in name}

    with pytest.raises(ConfigError, match="compares keypoints, and the model predicts none"):
        evaluated(config, without, inference)
    config.eval_input_reader[0].num_keypoints = 0
    with pytest.raises(ConfigError, match="the examples have none; set num_keypoints in the eval_input_reader"):
        evaluated(config, Truth(record), inference)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class_label": "dart"}, r"class_label: 'dart' is not in the label map \(known: arrow\)"),
        ({"keypoint_label_to_sigmas": {"tip": 0.1}}, "keypoint_label_to_sigmas: tail, middle missing"),
    ],
)
def test_metrics_that_do_not_fit_the_label_map(
    config: PipelineConfig, folder: Path, inference: InferenceModel, change: dict[str, Any], said: str
) -> None:
    parameters = config.eval_config.parameterized_metric[0].coco_keypoint_metrics
    parameters.class_label = change.get("class_label", "arrow")
    for name, sigma in change.get("keypoint_label_to_sigmas", {}).items():
        parameters.keypoint_label_to_sigmas[name] = sigma
    with pytest.raises(ConfigError, match=said):
        evaluated(config, Truth(folder / "arrows.record"), inference)


def changed(example: bytes, name: str, values: list[Any]) -> bytes:
    message = tf.train.Example.FromString(example)
    feature = message.features.feature[f"image/object/keypoint/{name}"]
    kind = feature.int64_list if name == "visibility" else feature.float_list
    kind.value[:] = values
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("x", [0.1, 0.2], "image/object/keypoint/x has 2 values; 3 keypoints"),
        ("visibility", [2], "image/object/keypoint/visibility has 1 values"),
        ("y", [0.1, 55.0, 0.3], "object 0, keypoint 1 are .* and 55: keypoints must be shares of the image"),
        ("y", [0.1, float("nan"), 0.3], "object 0, keypoint 1 are .* and nan"),
    ],
)
def test_records_with_wrong_keypoints(
    config: PipelineConfig, folder: Path, tmp_path: Path, name: str, values: list[Any], said: str
) -> None:
    good = list(read_records(folder / "arrows.record"))
    write_records(tmp_path / "bad.record", [good[0], changed(good[1], name, values)])
    reader = config.train_input_reader
    reader.tf_record_input_reader.input_path[:] = [str(tmp_path / "bad.record")]
    with pytest.raises(ConfigError, match=rf"bad.record, example 2 \(1.png\): .*{said}"):
        check_records(reader, ARROWS, "train_input_reader")
