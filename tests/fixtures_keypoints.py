"""Pictures of arrows in COCO's format, each with the keypoints tail, middle and tip, and a model that learns them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from PIL import Image, ImageDraw

from odkeras.labels import Label, LabelMap
from odkeras.pipeline import Overrides, PipelineConfig, apply_overrides, set_num_classes
from tests.fixtures_training import tiny_config

SIZE_HW = (96, 128)
KEYPOINTS = ("tail", "middle", "tip")
ARROWS = LabelMap((Label(1, "arrow", None, tuple(enumerate(KEYPOINTS))),))
TASK = """
keypoint_label_map_path: "PATH"
keypoint_estimation_task {
  task_name: "arrow_keypoints"
  task_loss_weight: 1.0
  loss {
    localization_loss { l1_localization_loss {} }
    classification_loss { penalty_reduced_logistic_focal_loss { alpha: 2.0 beta: 4.0 } }
  }
  keypoint_class_name: "arrow"
  keypoint_candidate_score_threshold: 0.1
  num_candidates_per_keypoint: 10
}
"""


def write_arrows(folder: Path, count: int) -> Path:
    """Pictures, a label map, and a COCO file, whose path is returned. The middle of every other arrow is not labelled;
    the last picture has no arrow."""
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    height, width = SIZE_HW
    for number in range(count):
        x, y = 10 + 3 * number % 40, 10 + 5 * number % 30
        tail, tip = (x, y), (x + 50, y + 30)
        picture = Image.fromarray(np.full((height, width, 3), 30 + number, np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        if number < count - 1:
            ImageDraw.Draw(picture).line((*tail, *tip), fill="#f0e040", width=5)
            middle = (x + 25, y + 15, 2) if number % 2 else (0, 0, 0)
            annotations.append(
                {
                    "id": number + 1,
                    "image_id": number,
                    "category_id": 7,
                    "bbox": [x, y, 50, 30],
                    "area": 1500,
                    "iscrowd": 0,
                    "keypoints": [*tail, 2, *middle, *tip, 1],
                    "num_keypoints": 3 if number % 2 else 2,
                }
            )
        picture.save(folder / f"{number}.png")
    categories = [{"id": 7, "name": "arrow", "keypoints": list(KEYPOINTS), "skeleton": [[1, 2], [2, 3]]}]
    path = folder / "arrows.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    ARROWS.save(folder / "label_map.pbtxt")
    return path


def arrow_config(label_map_path: Path, record: Path) -> PipelineConfig:
    """The tiny CenterNet with the keypoints of arrows, which trains and evaluates on one record."""
    config = apply_overrides(
        tiny_config(label_map_path=str(label_map_path), train_records=(str(record),), eval_records=(str(record),)),
        Overrides(),
    )
    set_num_classes(config, 1)
    text_format.Merge(TASK.replace("PATH", str(label_map_path)), config.model.center_net)
    for reader in (config.train_input_reader, config.eval_input_reader[0]):
        reader.num_keypoints = len(KEYPOINTS)
    config.eval_config.parameterized_metric.add().coco_keypoint_metrics.class_label = "arrow"
    for start, end in ((0, 1), (1, 2)):
        config.eval_config.keypoint_edge.add(start=start, end=end)
    return config
