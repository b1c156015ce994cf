"""A tiny project to train on: pictures of shapes, and a CenterNet that is built in half a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odkeras.annotation import Annotation, Task
from odkeras.boxes import Groundtruth, from_xyxy_px, to_xyxy_px
from odkeras.config import TrainingSettings
from odkeras.formats.prodigy import write_task
from odkeras.groundtruth_csv import read_truth_csv
from odkeras.images import read_image
from odkeras.inbox import put_batch
from odkeras.labels import LabelMap
from odkeras.pipeline import Overrides, PipelineConfig, apply_overrides, load_pipeline, save_pipeline
from odkeras.project import Project, read_jsonl, read_status
from odkeras.shapes import CLASSES, ShapesDataset

LABEL_MAP = LabelMap.from_names(CLASSES)
TEMPLATE = Path(__file__).parents[1] / "configs" / "shapes_96.config"
BATCH_SIZE = 2

Answer = dict[str, Any]


def tiny_config(**changes: Any) -> PipelineConfig:
    """The template with small batches, and without chance: no augmentation."""
    config = apply_overrides(load_pipeline(TEMPLATE), Overrides(batch_size=BATCH_SIZE, **changes))
    del config.train_config.data_augmentation_options[:]
    return config


def read_annotations(pictures: ShapesDataset, csv_path: Path) -> list[Annotation]:
    """The pictures of a truth file with their boxes, in its order."""
    annotations = []
    for truth in read_truth_csv(csv_path, pictures.images_dir):
        image = read_image(truth.path)
        boxes = from_xyxy_px(truth.boxes_xyxy_px, image.image_size_hw)
        classes = [LABEL_MAP.id_of(label) for label in truth.labels]
        annotations.append(Annotation(image, Groundtruth(boxes, classes), image.image_id, truth.path.name))
    return annotations


def answer(annotation: Annotation, decision: str = "accept") -> Answer:
    """What a person's browser sends about a picture: its true boxes, in pixels."""
    task = write_task(Task.of(annotation.image, file=annotation.file))
    truth, size_hw = annotation.groundtruth, annotation.image.image_size_hw
    spans = [
        {"label": LABEL_MAP.name_of(int(class_id)), "points": [[x1, y1], [x1, y2], [x2, y2], [x2, y1]]}
        for class_id, (x1, y1, x2, y2) in zip(truth.classes, to_xyxy_px(truth.boxes, size_hw).tolist(), strict=True)
    ]
    return {**task, "spans": spans, "answer": decision}


def give_boxes_an_area(inference: Any) -> None:
    """Freshly built weights find boxes without one, or outside the image: from now on all are as large, and inside."""
    from odkeras.model.weights import named_variables

    variables = named_variables(inference.model)
    for head, value in (("offset", 0), ("scale", 8)):  # in cells of 4 x 4 pixels
        last_layer = f"_prediction_head_dict/box/{head}/0/layer-2"
        kernel, bias = variables[f"{last_layer}/kernel"], variables[f"{last_layer}/bias"]
        kernel.assign(kernel * 0)
        bias.assign(bias * 0 + value)


@dataclass(frozen=True)
class TinyProject:
    """A pipeline.config, a label map and the three directories, all in one folder."""

    folder: Path

    @property
    def config_path(self) -> Path:
        return self.folder / "pipeline.config"

    @property
    def label_map_path(self) -> Path:
        return self.folder / "label_map.pbtxt"

    @property
    def directories(self) -> Project:
        return Project(self.folder / "data", self.folder / "model", self.folder / "export")

    def write(self, **changes: Any) -> TinyProject:
        self.directories.create()
        LABEL_MAP.save(self.label_map_path)
        self.save(tiny_config(label_map_path=str(self.label_map_path), **changes))
        return self

    def config(self) -> PipelineConfig:
        return load_pipeline(self.config_path)

    def settings(self, **options: Any) -> TrainingSettings:
        return TrainingSettings(config=self.config_path, **options)

    def save(self, config: PipelineConfig) -> None:
        save_pipeline(config, self.config_path)

    def put(self, annotations: Sequence[Annotation], decision: str = "accept") -> str:
        """Answers on their way to the trainer; returns the name of the batch."""
        return put_batch(self.directories.inbox_dir, [answer(each, decision) for each in annotations]).name

    def status(self) -> dict[str, Any]:
        return read_status(self.directories.status_path) or {}

    def metrics(self, kind: str = "round") -> list[dict[str, Any]]:
        return [row for row in read_jsonl(self.directories.metrics_path) if row["kind"] == kind]
