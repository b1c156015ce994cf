"""Models that learn masks, in the loop: polygons in the inbox become a version that answers with masks."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from odkeras.annotation import Annotation
from odkeras.data.conversion import prodigy_to_records
from odkeras.data.ingest import ingest
from odkeras.data.replay import ReplayStore
from odkeras.inbox import put_batch
from odkeras.model.setup import prepare_setup
from odkeras.pipeline import PipelineConfig, Purpose
from odkeras.pipeline.proto import PNG_MASKS
from odkeras.project import append_jsonl
from odkeras.training.rounds import Rounds
from odkeras.training.trainer import StepReport
from odkeras.training.undo import image_bucket
from odkeras.version_dirs import list_versions
from tests import fixtures_backbones
from tests.fixtures_training import LABEL_MAP, Answer, TinyProject, answer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

small_backbones = fixtures_backbones.small_backbones

# Anchors as large as the picture, so that a proposal lies on the object of `polygon_answer`, and hardly any weights to
# begin with, so that it stays there.
MASK_R_CNN = """
faster_rcnn {
  number_of_stages: 3
  num_classes: 3
  image_resizer { fixed_shape_resizer { height: 96 width: 128 } }
  feature_extractor { type: "faster_rcnn_resnet50_keras" batch_norm_trainable: false }
  first_stage_anchor_generator {
    grid_anchor_generator { scales: 0.5 aspect_ratios: 1.0 height_stride: 16 width_stride: 16 }
  }
  first_stage_box_predictor_conv_hyperparams {
    op: CONV
    regularizer { l2_regularizer { weight: 0.0 } }
    initializer { truncated_normal_initializer { stddev: 0.00001 } }
  }
  first_stage_box_predictor_depth: 16
  first_stage_nms_iou_threshold: 0.9
  first_stage_max_proposals: 8
  first_stage_minibatch_size: 16
  first_stage_localization_loss_weight: 1.0
  first_stage_objectness_loss_weight: 1.0
  clip_anchors_to_image: true
  initial_crop_size: 14
  maxpool_kernel_size: 2
  maxpool_stride: 2
  second_stage_batch_size: 8
  second_stage_box_predictor {
    mask_rcnn_box_predictor {
      fc_hyperparams {
        op: FC
        regularizer { l2_regularizer { weight: 0.0 } }
        initializer { truncated_normal_initializer { stddev: 0.00001 } }
      }
      conv_hyperparams {
        op: CONV
        regularizer { l2_regularizer { weight: 0.0 } }
        initializer { truncated_normal_initializer { stddev: 0.00001 } }
      }
      predict_instance_masks: true
      mask_prediction_conv_depth: 16
      mask_height: 15
      mask_width: 15
    }
  }
  second_stage_post_processing {
    batch_non_max_suppression { iou_threshold: 0.9 max_detections_per_class: 2 max_total_detections: 4 }
    score_converter: SOFTMAX
  }
  second_stage_localization_loss_weight: 1.0
  second_stage_classification_loss_weight: 1.0
  second_stage_mask_prediction_loss_weight: 1.0
}
"""
CENTER_NET = """
center_net {
  mask_estimation_task {
    task_loss_weight: 1.0
    classification_loss { weighted_sigmoid {} }
    mask_height: 33
    mask_width: 33
  }
}
"""
NUMERICAL_MASKS = 1
MASK_LOSS = {"faster_rcnn": "Loss/BoxClassifierLoss/mask_loss", "center_net": "Loss/segmentation/heatmap"}
MASK_SIZE = {"faster_rcnn": 15, "center_net": 33}


def mask_config(project: TinyProject, model: str) -> PipelineConfig:
    config = project.config()
    if "faster_rcnn" in model:
        config.model.Clear()
    text_format.Merge(model, config.model)
    config.train_config.batch_size = 1
    config.train_config.optimizer.adam_optimizer.learning_rate.constant_learning_rate.learning_rate = 1e-5
    text_format.Merge("load_instance_masks: true mask_type: PNG_MASKS", config.train_input_reader)
    text_format.Merge("load_instance_masks: true mask_type: PNG_MASKS", config.eval_input_reader[0])
    config.eval_config.metrics_set[:] = ["coco_mask_metrics"]
    return config


def polygon_answer(shape: Annotation) -> Answer:
    """A triangle that fills half of nearly the whole picture."""
    height, width = shape.image.image_size_hw
    corners = [[2, 2], [width - 2, 2], [2, height - 2]]
    return {**answer(shape), "spans": [{"label": "triangle", "type": "polygon", "points": corners}]}


class MaskLoop:
    """One round of a mask model on a polygon, and on an older answer whose example was stored without masks."""

    def __init__(self, folder: Path, model: str, shapes: list[Annotation]) -> None:
        self.project = TinyProject(folder).write()
        self.shapes = shapes
        self.reports: list[StepReport] = []
        config = mask_config(self.project, model)
        config.eval_input_reader[0].tf_record_input_reader.input_path[:] = [str(self._eval_record())]
        self.project.save(config)
        self._store_without_masks(polygon_answer(shapes[0]))
        put_batch(self.project.directories.inbox_dir, [polygon_answer(shapes[1])])
        settings = self.project.settings(steps_per_epoch=2, run_eval=True)
        self.rounds = Rounds(config, LABEL_MAP, settings)
        self._listen()
        assert self.rounds.run_pending()

    @property
    def kind(self) -> str:
        return str(self.project.config().model.WhichOneof("model"))

    def _listen(self) -> None:
        step = self.rounds._summaries.step
        self.rounds._summaries.step = lambda report: (self.reports.append(report), step(report))  # type: ignore[method-assign]

    def _eval_record(self) -> Path:
        append_jsonl(self.project.folder / "eval.jsonl", [polygon_answer(self.shapes[2])])
        prodigy_to_records(self.project.folder / "eval.jsonl", self.project.folder / "eval.record", label_map=LABEL_MAP)
        return self.project.folder / "eval.record"

    def _store_without_masks(self, given: Answer) -> None:
        """The box of the answer alone, by a trainer whose config did not ask for masks."""
        (span,) = given["spans"]
        (left, top), (right, bottom) = np.min(span["points"], axis=0), np.max(span["points"], axis=0)
        box = {"label": "triangle", "x": left, "y": top, "width": right - left, "height": bottom - top}
        span = {name: value if isinstance(value, str) else float(value) for name, value in box.items()}
        put_batch(self.project.directories.inbox_dir, [{**given, "spans": [span]}])
        ingest(self.project.directories, ReplayStore(self.project.directories), LABEL_MAP)


@pytest.fixture(scope="module", params=["faster_rcnn", "center_net"])
def loop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shapes: list[Annotation]
) -> MaskLoop:
    model = MASK_R_CNN if request.param == "faster_rcnn" else CENTER_NET
    return MaskLoop(tmp_path_factory.mktemp(request.param), model, shapes)


def test_masks_are_learned(loop: MaskLoop) -> None:
    assert len(loop.reports) == 2
    for report in loop.reports:
        assert math.isfinite(report.loss)
        assert 0 < report.losses[MASK_LOSS[loop.kind]] < report.loss
    (row,) = loop.project.metrics()
    assert (row["steps"], row["examples"]) == (2, 2) and "failed" not in row


def test_every_example_has_masks(loop: MaskLoop) -> None:
    """An example from before the config asked for masks was trained on with masks of zeros."""
    new, old = (image_bucket(shape.image_id) for shape in (loop.shapes[1], loop.shapes[0]))
    shares = {}
    for features, labels in islice(loop.rounds._crew._dataset, 4):
        masks = labels["groundtruth_instance_masks"][0].numpy()
        assert masks.shape[1:] == (96, 128) and masks[1:].sum() == 0
        shares[int(features["hash"][0])] = masks[0].mean()
    height, width = loop.shapes[0].image.image_size_hw
    box = (height - 4) * (width - 4) / (height * width)
    assert shares == {new: pytest.approx(box / 2, rel=0.05), old: pytest.approx(box, rel=0.02)}


def test_the_published_version_answers_with_masks(loop: MaskLoop) -> None:
    """CenterNet's could not be asked: "op elements int32 but list elements uint8"."""
    version = list_versions(loop.project.directories.export_dir)[-1]
    loaded = tf.saved_model.load(str(loop.project.directories.export_dir / str(version)))
    images = tf.constant([shape.image.data for shape in loop.shapes[:2]])
    found = loaded.signatures["serving_default"](image_bytes=images)
    boxes, masks = found["detection_boxes"], found["detection_masks"].numpy()
    assert boxes.shape[0] == 2
    assert masks.shape == (*boxes.shape[:2], MASK_SIZE[loop.kind], MASK_SIZE[loop.kind])
    assert masks.dtype == np.float32 and masks.min() >= 0 and masks.max() <= 1


def test_masks_are_evaluated(loop: MaskLoop) -> None:
    (row,) = loop.project.metrics("evaluation")
    assert "failed" not in row
    assert 0 <= row["metrics"]["DetectionMasks_Precision/mAP"] <= 1


@pytest.mark.parametrize(("purpose", "expected"), [("loop", PNG_MASKS), ("train", NUMERICAL_MASKS)])
def test_the_loop_reads_what_it_writes(project: TinyProject, purpose: Purpose, expected: int) -> None:
    """PNGs, though the config says nothing or otherwise; plain training reads records that other tools wrote."""
    config = project.config()
    config.train_input_reader.load_instance_masks = True
    config.train_input_reader.tf_record_input_reader.input_path[:] = [str(project.folder / "a.record")]
    (project.folder / "a.record").write_bytes(b"")
    project.save(config)
    setup = prepare_setup(project.settings(), purpose)
    assert setup.config.train_input_reader.mask_type == expected
