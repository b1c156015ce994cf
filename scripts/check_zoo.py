"""Which pipeline.configs work, the whole way: training, evaluation, export, a prediction, and a round of the loop.

    python scripts/check_zoo.py centernet_*.config faster_rcnn/pipeline.config
    python scripts/check_zoo.py zoo/ --out models.md --timeout 900

Each config is tried in a process of its own, on drawn shapes. Only what any user must change is changed: classes,
paths, batch size, and the checkpoint to start from, which is left out. Configs that learn masks or keypoints get them.
The result is a Markdown table: for each part whether it works, seconds of a training step after the first ones, and the
memory of the process. What was found is kept beside --out, so that an interrupted run continues.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from odkeras.annotation import Annotation, Task
from odkeras.boxes import Groundtruth, from_xyxy_px, to_xyxy_px
from odkeras.config import TrainingSettings
from odkeras.formats.prodigy import write_task
from odkeras.groundtruth_csv import read_truth_csv
from odkeras.images import read_image
from odkeras.labels import Label, LabelMap
from odkeras.pipeline import PipelineConfig, load_pipeline, loads_masks, save_pipeline, set_num_classes
from odkeras.pipeline.checks import gives_one_size
from odkeras.pipeline.extractors import mask_parts
from odkeras.pipeline.keypoints import predicts_keypoints
from odkeras.pipeline.proto import CHECKPOINT_V2, PNG_MASKS, get_model
from odkeras.pipeline.weights import downloads_weights
from odkeras.shapes import CLASSES, ShapesDataset, generate_shapes

PARTS = ("train", "evaluate", "export", "predict", "loop")
STEPS = 3
IMAGES = 4
YES, NO = "yes", "no"
COCO_KEYPOINTS = 17
_HEADINGS = ("config", *PARTS, "s a step", "GB", "what does not work")


@dataclass
class Trial:
    """A config in a folder of its own, with records and a label map.

    Args:
        folder: has pipeline.config, and gets the three directories.
        config: the adapted config.
        label_map: the classes of the shapes, with keypoints if the config has them.
        annotations: pictures with their objects.
    """

    folder: Path
    config: PipelineConfig
    label_map: LabelMap
    annotations: list[Annotation]
    step_s: float = 0.0

    @property
    def settings(self) -> TrainingSettings:
        return TrainingSettings(config=self.folder / "pipeline.config", steps_per_epoch=2, extra_steps=0)

    def train(self) -> None:
        from odkeras.model.setup import prepare_setup
        from odkeras.training.train import train_on_records

        times = [time.perf_counter()]
        setup = prepare_setup(self.settings, "train")
        train_on_records(setup, self.settings, steps=STEPS, on_step=lambda _: times.append(time.perf_counter()))
        self.step_s = times[-1] - times[-2]

    def evaluate(self) -> None:
        from odkeras.model.setup import prepare_setup
        from odkeras.training.evaluation import evaluate_checkpoint

        metrics = evaluate_checkpoint(prepare_setup(self.settings, "eval"), self.settings.project.model_dir)
        if not all(np.isfinite(value) for value in metrics.values()):
            raise ValueError(f"metrics that are not finite: {metrics}")

    def export(self) -> None:
        from odkeras.export.command import export_version
        from odkeras.model.setup import prepare_setup

        project = self.settings.project
        export_version(prepare_setup(self.settings, "export"), project.model_dir, project.export_dir)

    def predict(self) -> None:
        from odkeras.serving.local import LocalModel, newest_version_dir

        LocalModel(newest_version_dir(self.settings.project.export_dir))([self.annotations[0].image])

    def loop(self) -> None:
        from odkeras.inbox import put_batch
        from odkeras.model.setup import prepare_setup
        from odkeras.project import read_jsonl
        from odkeras.training.process import open_rounds

        setup = prepare_setup(self.settings, "loop")
        put_batch(self.settings.project.inbox_dir, [self._answer(each) for each in self.annotations])
        with open_rounds(setup.config, setup.label_map, self.settings) as rounds:
            rounds.run_pending()
        rows = [row for row in read_jsonl(self.settings.project.metrics_path) if row["kind"] == "round"]
        if not rows or rows[-1].get("failed"):
            raise ValueError(rows[-1]["failed"] if rows else "no round was trained")

    def _answer(self, annotation: Annotation) -> dict[str, Any]:
        truth = annotation.groundtruth
        corners = to_xyxy_px(truth.boxes, annotation.image.image_size_hw).tolist()
        spans = [
            {"label": self.label_map.name_of(int(class_id)), "points": [[x1, y1], [x1, y2], [x2, y2], [x2, y1]]}
            for class_id, (x1, y1, x2, y2) in zip(truth.classes, corners, strict=True)
        ]
        return {**write_task(Task.of(annotation.image, file=annotation.file)), "spans": spans, "answer": "accept"}


def main() -> None:
    args = parse_arguments()
    if args.one is not None:
        print(json.dumps(try_config(args.one, args.batch_size)))
        return
    kept = args.out.with_suffix(".jsonl")
    found = {row["config"]: row for row in _read_rows(kept)}
    for path in configs_in(args.configs):
        name = name_of(path)
        if name not in found:
            print(f"trying {name}", file=sys.stderr, flush=True)
            found[name] = {"config": name, **in_own_process(path, args.batch_size, args.timeout)}
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found[name]) + "\n")
    table = "\n".join(table_of(found.values()))
    args.out.write_text(table + "\n", encoding="utf-8")
    print(table)


def configs_in(places: Iterable[Path]) -> list[Path]:
    """The files, and the `*.config` files below the folders."""
    return [path for place in places for path in (sorted(place.rglob("*.config")) if place.is_dir() else [place])]


def name_of(path: Path) -> str:
    """The name of a config: of its folder, if the file has the name that all have in the model zoo."""
    return path.parent.name if path.stem == "pipeline" else path.stem


def in_own_process(path: Path, batch_size: int, timeout_s: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", str(path), "--batch-size", str(batch_size)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return {"problem": f"not ready after {timeout_s:g} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        return {"problem": f"ended with status {done.returncode}: {reason}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def try_config(path: Path, batch_size: int) -> dict[str, Any]:
    """The result of each part, up to the first that fails; the loop is tried in any case."""
    from odkeras import compat

    compat.prepare()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="odkeras-zoo-") as folder:
        try:
            trial = prepare(path, Path(folder), batch_size)
        except Exception as error:
            return {"problem": _reason(error)}
        for part in PARTS:
            if found.get("problem") and part != "loop":
                continue
            run: Callable[[], None] = getattr(trial, part)
            try:
                run()
                found[part] = YES
            except Exception as error:
                found[part] = NO
                found["problem"] = "; ".join(filter(None, [found.get("problem"), f"{part}: {_reason(error)}"]))
        found["step_s"] = round(trial.step_s, 2)
    found["memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)
    return found


def prepare(path: Path, folder: Path, batch_size: int) -> Trial:
    """Adapt a config to the shapes, and write the records that it names."""
    from odkeras.data.records import example_from_annotation, write_records

    config = load_pipeline(path)
    pictures = generate_shapes(folder / "shapes", train_images=IMAGES, test_images=1)
    label_map = _label_map(config)
    annotations = read_annotations(pictures, label_map)
    masks = loads_masks(config) or bool(mask_parts(config))
    label_map.save(folder / "label_map.pbtxt")
    serialized = [example_from_annotation(each, label_map, masks=masks).SerializeToString() for each in annotations]
    write_records(folder / "shapes.record", serialized)
    _adapt(config, folder, label_map, batch_size, masks=masks)
    if downloads_weights(config):
        _start_from_random_weights(config, folder)
    save_pipeline(config, folder / "pipeline.config")
    trial = Trial(folder, config, label_map, annotations)
    trial.settings.project.create()
    return trial


def _label_map(config: PipelineConfig) -> LabelMap:
    """The classes of the shapes. The first one has the keypoints of the config."""
    labels = [Label(number, name) for number, name in enumerate(CLASSES, start=1)]
    if predicts_keypoints(config):
        names = sorted(config.model.center_net.keypoint_estimation_task[0].keypoint_label_to_std)
        count = int(config.train_input_reader.num_keypoints) or COCO_KEYPOINTS
        names += [f"point_{number}" for number in range(len(names), count)]
        labels[0] = Label(1, CLASSES[0], None, tuple(enumerate(names)))
    return LabelMap(tuple(labels))


def read_annotations(pictures: ShapesDataset, label_map: LabelMap) -> list[Annotation]:
    annotations = []
    for truth in read_truth_csv(pictures.train_csv, pictures.images_dir):
        image = read_image(truth.path)
        boxes = from_xyxy_px(truth.boxes_xyxy_px, image.image_size_hw)
        classes = np.array([label_map.id_of(label) for label in truth.labels], np.int32)
        keypoints = _keypoints_within(boxes, label_map.num_keypoints) if label_map.num_keypoints else None
        annotations.append(Annotation(image, Groundtruth(boxes, classes, keypoints), image.image_id, truth.path.name))
    return annotations


def _keypoints_within(boxes: Any, count: int) -> Any:
    """Keypoints on the diagonal of each box, float32 (N, K, 3)."""
    shares = np.linspace(0.1, 0.9, count)[None, :, None]
    points = boxes[:, None, :2] + shares * (boxes[:, None, 2:] - boxes[:, None, :2])
    return np.concatenate([points, np.full((*points.shape[:2], 1), 2.0)], axis=-1).astype(np.float32)


def _adapt(config: PipelineConfig, folder: Path, label_map: LabelMap, batch_size: int, *, masks: bool) -> None:
    set_num_classes(config, len(label_map))
    train = config.train_config
    train.batch_size = batch_size if gives_one_size(get_model(config).image_resizer) else 1
    for field in ("fine_tune_checkpoint", "fine_tune_checkpoint_type", "fine_tune_checkpoint_version"):
        train.ClearField(field)
    if not config.eval_input_reader:
        config.eval_input_reader.add()
    del config.eval_input_reader[1:]
    for reader in (config.train_input_reader, config.eval_input_reader[0]):
        reader.label_map_path = str(folder / "label_map.pbtxt")
        reader.ClearField("external_input_reader")
        reader.tf_record_input_reader.input_path[:] = [str(folder / "shapes.record")]
        reader.load_instance_masks = masks
        if masks:
            reader.mask_type = PNG_MASKS
        reader.num_keypoints = label_map.num_keypoints
    if predicts_keypoints(config):
        config.model.center_net.keypoint_label_map_path = str(folder / "label_map.pbtxt")
        del config.model.center_net.keypoint_estimation_task[1:]
        config.model.center_net.keypoint_estimation_task[0].keypoint_class_name = CLASSES[0]
        for metric in config.eval_config.parameterized_metric:
            metric.coco_keypoint_metrics.class_label = CLASSES[0]
            metric.coco_keypoint_metrics.ClearField("keypoint_label_to_sigmas")  # they go with the names


def _start_from_random_weights(config: PipelineConfig, folder: Path) -> None:
    """Name a checkpoint of random weights, so that none need to be downloaded."""
    import tensorflow as tf

    from odkeras.model.inference import InferenceModel

    train = config.train_config
    train.fine_tune_checkpoint = tf.train.Checkpoint(model=InferenceModel(config.model).model).write(
        str(folder / "random" / "ckpt-1")
    )
    train.fine_tune_checkpoint_type, train.fine_tune_checkpoint_version = "full", CHECKPOINT_V2


def table_of(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The Markdown table, a line for each config."""
    lines = [f"| {' | '.join(_HEADINGS)} |", f"|{' --- |' * len(_HEADINGS)}"]
    for row in rows:
        cells = [row.get(part, "") for part in PARTS]
        numbers = [str(row.get(key, "") or "") for key in ("step_s", "memory_gb")]
        problem = str(row.get("problem", "")).replace("|", "/")
        lines.append(f"| {' | '.join([row['config'], *cells, *numbers, problem])} |")
    return lines


def _read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:300] or type(error).__name__


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", type=Path, help="pipeline.configs, or folders of them")
    parser.add_argument("--out", type=Path, default=Path("models.md"), help="the table (default: models.md)")
    parser.add_argument("--batch-size", type=int, default=1, help="where images have one size (default: 1)")
    parser.add_argument("--timeout", type=float, default=1200.0, help="seconds for a config (default: 1200)")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is None and not args.configs:
        parser.error("name pipeline.configs, or a folder of them")
    return args


if __name__ == "__main__":
    main()
