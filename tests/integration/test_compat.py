"""The Object Detection API on today's packages: every shim, what is said when something is missing, and a part of the
API's own tests."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from object_detection import eval_util
from object_detection.core import standard_fields
from object_detection.protos import eval_pb2
from PIL import ImageFont

from odkeras import compat

pytestmark = pytest.mark.integration

CONFIGS = Path(__file__).parents[2] / "configs"
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}


def run(script: str, *arguments: str, **env: str | None) -> subprocess.CompletedProcess[str]:
    """A script in a fresh interpreter; environment variables given as None are taken away."""
    merged: dict[str, str | None] = {**os.environ, **QUIET, **env}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={name: value for name, value in merged.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=120,
    )


HIDE = """
import importlib.machinery, sys
class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in {names} else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Finder
"""


def without(*names: str) -> str:
    """Code that makes an interpreter find these packages no more."""
    return HIDE.format(names=set(names))


class TestShims:
    def test_preparing_again_changes_nothing(self) -> None:
        before = {name: id(module) for name, module in sys.modules.items()}
        estimator, getsize = tf.compat.v1.estimator, ImageFont.FreeTypeFont.getsize
        compat.prepare()
        assert {name: id(module) for name, module in sys.modules.items() if name in before} == before
        assert tf.compat.v1.estimator is estimator
        assert ImageFont.FreeTypeFont.getsize is getsize

    def test_numpy_names(self) -> None:
        assert np.float is float
        assert np.isnan(np.NAN)

    def test_estimator_modes_and_type_annotations(self) -> None:
        from tensorflow.compat.v1 import estimator

        assert (estimator.ModeKeys.TRAIN, estimator.ModeKeys.EVAL, estimator.ModeKeys.PREDICT) == (
            "train",
            "eval",
            "infer",
        )
        assert isinstance(estimator.EstimatorSpec, type)

    def test_the_estimator_stand_in_does_not_confuse_python(self) -> None:
        """It had a class for every attribute, `__file__` too: after that `inspect.stack()` failed in the whole process,
        and with it debuggers, and half of the API's own tests."""
        assert getattr(sys.modules["tensorflow.compat.v1.estimator"], "__file__", None) is None
        assert inspect.stack()[0].function == "test_the_estimator_stand_in_does_not_confuse_python"

    def test_control_flow_ops_that_decode_records(self) -> None:
        from tensorflow.python.ops import control_flow_ops

        one, two = tf.constant(1), tf.constant(2)
        assert control_flow_ops.cond(one < two, lambda: one, lambda: two).numpy() == 1
        assert control_flow_ops.case([(one > two, lambda: one)], default=lambda: two).numpy() == 2

    def test_the_size_of_a_text(self) -> None:
        width, height = ImageFont.load_default().getsize("raccoon")
        assert width > height > 0

    @pytest.mark.parametrize(
        ("rgb", "lab"),
        [  # from the definition, two digits
            ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
            ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
            ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),
            ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
            ((0.02, 0.02, 0.02), (1.40, 0.0, 0.0)),  # in the linear part of both curves
        ],
    )
    def test_colours_for_deepmac(self, rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
        pixels = tf.constant([[rgb, rgb]])
        found = compat._rgb_to_lab(pixels).numpy()
        assert found.shape == (1, 2, 3)
        np.testing.assert_allclose(found[0, 1], lab, atol=0.05)

    def test_the_model_garden_s_two_parts(self) -> None:
        from official.legacy.image_classification.efficientnet import efficientnet_model
        from official.modeling.optimization import ema_optimizer

        assert callable(efficientnet_model.EfficientNet.from_name)
        assert issubclass(ema_optimizer.ExponentialMovingAverage, tf.keras.optimizers.legacy.Optimizer)


class TestWhatIsMissing:
    @pytest.mark.parametrize(
        ("package", "command"),
        [
            ("object_detection", compat.INSTALL_COMMAND),
            ("tf_keras", "pip install 'tf-keras>="),
            ("tensorflow", "pip install 'tensorflow>="),
        ],
    )
    def test_a_package_is_missing(self, package: str, command: str) -> None:
        script = f"""
from odkeras import compat
from odkeras.errors import SetupError
{without(package)}
try:
    compat.prepare()
except SetupError as error:
    print(error)
"""
        result = run(script)
        assert f"the Python package '{package}' is not installed; run: {command}" in result.stdout, result.stderr

    def test_keras_3_came_first(self) -> None:
        script = """
import tensorflow as tf
tf.keras.Model
from odkeras import compat
from odkeras.errors import SetupError
try:
    compat.prepare()
except SetupError as error:
    print(error)
"""
        result = run(script, TF_USE_LEGACY_KERAS=None)
        assert "TensorFlow is already running with Keras 3." in result.stdout, result.stderr
        assert "set TF_USE_LEGACY_KERAS=1" in result.stdout

    def test_without_the_model_garden_all_but_two_things_work(self) -> None:
        """Prepared a second time, as every package of ours does, it took its own stand-in for the real model garden
        and raised StopIteration."""
        script = f"""
from odkeras import compat
{without("official", "gin")}
compat.prepare()
compat.prepare()
import sys
from pathlib import Path
from odkeras.errors import SetupError
from odkeras.model.inference import InferenceModel
from odkeras.pipeline import load_pipeline
from odkeras.training.trainer import Trainer
config = load_pipeline(Path(sys.argv[1]))
print("variables", len(InferenceModel(config.model).variables))
config.train_config.optimizer.use_moving_average = True
try:
    Trainer(config)
except SetupError as error:
    print(error)
"""
        result = run(script, str(CONFIGS / "shapes_96.config"))
        assert re.search(r"^variables [1-9]\d+$", result.stdout, re.MULTILINE), result.stderr
        assert f"come from the Python package tf-models-official; run: {compat.INSTALL_COMMAND}" in result.stdout


OWN_TESTS = (
    "builders/optimizer_builder_tf2",
    "data_decoders/tf_example_decoder",
    "metrics/coco_evaluation",
    "utils/object_detection_evaluation",
)


@pytest.mark.timeout(240)
def test_the_api_s_own_tests_pass(tmp_path: Path) -> None:
    """Those of the modules that the shims keep alive."""
    spec = importlib.util.find_spec("object_detection")
    assert spec is not None and spec.submodule_search_locations
    root = Path(next(iter(spec.submodule_search_locations)))
    files = [root / f"{name}_test.py" for name in OWN_TESTS]
    present = [str(path) for path in files if path.is_file()]
    if len(present) < len(files):
        pytest.skip("this installation of the Object Detection API came without its tests")
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pytest", "-p", "odapi_plugin", "-p", "no:cacheprovider", "-q", "-c", os.devnull]
    env = {**os.environ, **QUIET, "PYTHONPATH": str(Path(__file__).parent), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [*command, "--rootdir", str(root), *present],
        cwd=tmp_path,
        env={**env, "ODAPI_REPORT": str(report)},
        capture_output=True,
        text=True,
        timeout=230,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert json.loads(report.read_text())["passed"] > 60


Fields, Detected = standard_fields.InputDataFields, standard_fields.DetectionResultFields
CATEGORIES = [
    {"id": 1, "name": "cat", "frequency": "f", "keypoints": {"left": 0, "right": 1}},
    {"id": 2, "name": "dog", "frequency": "f"},
]
SIZE_HW = (40, 60)
BOXES = np.array([[4, 6, 20, 30], [10, 30, 36, 54]], np.float32)  # absolute, not square
CLASSES = np.array([1, 2])


def masks_of(boxes: np.ndarray) -> np.ndarray:
    masks = np.zeros((len(boxes), *SIZE_HW), np.uint8)
    for mask, (top, left, bottom, right) in zip(masks, boxes.astype(int), strict=True):
        mask[top:bottom, left:right] = 1
    return masks


def example(metrics_set: str, image_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Truth and perfect detections of one image, as the evaluators want them fed."""
    truth: dict[str, Any] = {
        Fields.groundtruth_boxes: BOXES,
        Fields.groundtruth_classes: CLASSES.copy(),
        Fields.groundtruth_instance_masks: masks_of(BOXES),
        Fields.groundtruth_difficult: np.zeros(2, bool),
        Fields.groundtruth_group_of: np.zeros(2, bool),
        Fields.groundtruth_image_classes: CLASSES.copy(),  # the OpenImages evaluator changes it
        Fields.groundtruth_is_crowd: np.zeros(2, bool),
        Fields.groundtruth_verified_neg_classes: np.zeros(3, np.float32),
        Fields.groundtruth_not_exhaustive_classes: np.zeros(3, np.float32),
    }
    found: dict[str, Any] = {
        Detected.detection_boxes: BOXES,
        Detected.detection_scores: np.array([0.9, 0.8], np.float32),
        Detected.detection_classes: CLASSES.copy(),
        Detected.detection_masks: masks_of(BOXES),
    }
    if metrics_set == "coco_panoptic_metrics":
        del truth[Fields.groundtruth_boxes], found[Detected.detection_boxes], found[Detected.detection_scores]
    if metrics_set == "coco_keypoint_metrics":
        points = np.array([[[8, 10], [12, 20]], [[20, 40], [30, 50]]], np.float32)
        truth |= {
            Fields.groundtruth_keypoints: points,
            Fields.groundtruth_keypoint_visibilities: np.full((2, 2), 2, np.int32),
        }
        found |= {Detected.detection_keypoints: points}
    return truth, found


PERFECT = {
    "coco_detection_metrics": "DetectionBoxes_Precision/mAP",
    "coco_mask_metrics": "DetectionMasks_Precision/mAP",
    "coco_keypoint_metrics": "Keypoints_Precision/mAP ByCategory/cat",
    "coco_panoptic_metrics": "PanopticQuality@0.50IOU",
    "lvis_mask_metrics": "DetectionMasks_AP",
    "oid_V2_detection_metrics": "OpenImagesV2_Precision/mAP@0.5IOU",
    "oid_challenge_detection_metrics": "OpenImagesDetectionChallenge_Precision/mAP@0.5IOU",
    "oid_challenge_segmentation_metrics": "OpenImagesInstanceSegmentationChallenge_Precision/mAP@0.5IOU",
    "pascal_voc_detection_metrics": "PascalBoxes_Precision/mAP@0.5IOU",
    "pascal_voc_instance_segmentation_metrics": "PascalMasks_Precision/mAP@0.5IOU",
    "precision_at_recall_detection_metrics": "PrecisionAtRecallBoxes_Precision/mAP@0.5IOU",
    "weighted_pascal_voc_detection_metrics": "WeightedPascalBoxes_Precision/mAP@0.5IOU",
    "weighted_pascal_voc_instance_segmentation_metrics": "WeightedPascalMasks_Precision/mAP@0.5IOU",
}


def make_evaluator(metrics_set: str) -> Any:
    config = eval_pb2.EvalConfig()
    if metrics_set == "coco_keypoint_metrics":
        config.metrics_set.append("coco_detection_metrics")  # the default is added otherwise
        config.parameterized_metric.add().coco_keypoint_metrics.class_label = "cat"
    else:
        config.metrics_set.append(metrics_set)
    options = eval_util.evaluator_options_from_eval_config(config)
    return eval_util.get_evaluators(config, CATEGORIES, options)[-1]


@pytest.mark.parametrize("metrics_set", PERFECT)
def test_every_metric_of_the_api_runs(metrics_set: str) -> None:
    evaluator = make_evaluator(metrics_set)
    for number in range(3):
        truth, found = example(metrics_set, str(number))
        evaluator.add_single_ground_truth_image_info(str(number), truth)
        evaluator.add_single_detected_image_info(str(number), found)
    metrics = evaluator.evaluate()
    name = PERFECT[metrics_set]
    assert name in metrics, sorted(metrics)
    assert metrics[name] == pytest.approx(1.0, abs=1e-3)
