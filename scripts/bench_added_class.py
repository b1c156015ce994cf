"""What a class that is added in mid-project does to the old ones, and how soon it is suggested.

A trainer learns circles and squares from pictures that show triangles, too, which nobody has drawn. Then `triangle` is
added, and two rounds of pictures with all three follow. Measured on test pictures: the mAP of the old classes before
and after, the AP50 of the new one, and the share of its objects that are suggested with a score of at least 0.5. For
comparison, a copy of the project is trained on the same two rounds without the new class.

With --raccoon and --backbone, the old class is the raccoon. That data set has one class, so the new one is made up:
`part` is the upper middle quarter of each raccoon's box, about its head.

Examples:
    python scripts/bench_added_class.py --before 60 --round 20 --steps 400
    python scripts/bench_added_class.py --before 20 --round 10 --steps 100 --raccoon raccoon/ \\
        --backbone mobilenet_v2/ckpt-1

With --as-negatives the old pictures count as negatives of the new class, for comparison. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from measuring import DEFAULT_TEMPLATE, Row, report, say
from odkeras import boxes as box_ops
from odkeras.annotation import Task
from odkeras.config import TrainingSettings
from odkeras.data.conversion import labels_to_records
from odkeras.formats.prodigy import write_task
from odkeras.groundtruth_csv import GroundtruthImage, read_truth_csv
from odkeras.images import read_image
from odkeras.inbox import put_batch
from odkeras.init_project import init_project
from odkeras.labels import LabelMap
from odkeras.pipeline.class_history import note_classes, write_class_history
from odkeras.pipeline.label_edits import LabelFiles, add_label
from odkeras.project import read_jsonl
from odkeras.shapes import ShapesDataset, generate_shapes
from odkeras.training.process import run_trainer
from odkeras.version_dirs import list_versions, version_dir

SUGGESTED, FOUND_IOU = 0.5, 0.5
CORNERS = ("xmin", "ymin", "xmax", "ymax")
PART = (0.25, 0.0, 0.75, 0.5)
"""xmin, ymin, xmax and ymax of the made-up class in the raccoon's box, as shares of its width and height."""
ROWS = [
    Row("mAP of the old classes before", "old_before", ""),
    Row("  after two rounds with the new class", "old_after", ""),
    Row("  lost", "old_lost", "", at_most=0.03),
    Row("  after the same rounds without it", "old_without", ""),
    Row("AP50 of the new class, first round", "new_1", ""),
    Row("  second round", "new_2", ""),
    Row("its objects that are suggested, first round", "suggested_1", ""),
    Row("  second round", "suggested_2", ""),
]


@dataclass(frozen=True)
class Pictures:
    """The pictures of a measurement.

    Args:
        files: the pictures, with the boxes of all classes.
        old: the classes that the project begins with.
        new: the class that is added.
        template, backbone: what the project is made of; see `init_project`.
    """

    files: ShapesDataset
    old: tuple[str, ...]
    new: str
    template: str
    backbone: str | None = None


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="odkeras-bench-") as folder:
        found = measure(Path(folder), args)
    data = "shapes" if args.raccoon is None else "raccoon"
    report(
        "added_class", ROWS, found, data=data, seed=args.seed, before=args.before, round=args.round, steps=args.steps
    )


def parse_arguments() -> argparse.Namespace:
    description, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=int, default=60, help="pictures without the class (default: %(default)s)")
    parser.add_argument("--round", type=int, default=20, help="pictures of a round after it (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=400, help="steps per round (default: %(default)s)")
    parser.add_argument("--raccoon", type=Path, metavar="DIR", help="the Raccoon data set, instead of shapes")
    parser.add_argument("--backbone", metavar="CHECKPOINT", help="what the model for the raccoons starts from")
    parser.add_argument("--seed", type=int, default=0, help="order of the pictures; 0 is that of the file")
    parser.add_argument("--as-negatives", action="store_true", help="old pictures are negatives of the new class")
    args = parser.parse_args()
    if (args.raccoon is None) != (args.backbone is None):
        parser.error("--raccoon and --backbone go together")
    return args


def open_pictures(folder: Path, args: argparse.Namespace) -> Pictures:
    if args.raccoon is None:
        shapes = generate_shapes(folder, train_images=args.before + 2 * args.round, test_images=60)
        return Pictures(shapes, ("circle", "square"), "triangle", "shapes_96")
    folder.mkdir()
    for name in ("train.csv", "test.csv"):
        add_parts(args.raccoon / name, folder / name)
    raccoons = ShapesDataset(args.raccoon / "images", folder / "train.csv", folder / "test.csv", ("raccoon", "part"))
    return Pictures(raccoons, ("raccoon",), "part", DEFAULT_TEMPLATE, args.backbone)


def add_parts(truth_csv: Path, out: Path) -> None:
    """Copy a CSV of boxes, with a box of the made-up class for each of them."""
    with truth_csv.open(newline="") as source, out.open("w", newline="") as target:
        reader = csv.DictReader(source)
        writer = csv.DictWriter(target, reader.fieldnames or ())
        writer.writeheader()
        for row in reader:
            left, top, right, bottom = (float(row[name]) for name in CORNERS)
            corners = [
                round((left, top)[index % 2] + share * (right - left, bottom - top)[index % 2], 1)
                for index, share in enumerate(PART)
            ]
            writer.writerow(row)
            writer.writerow({**row, **dict(zip(CORNERS, corners, strict=True)), "label": "part"})


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    pictures = open_pictures(folder / "pictures", args)
    truths = list(read_truth_csv(pictures.files.train_csv, pictures.files.images_dir))
    if args.seed:
        random.Random(args.seed).shuffle(truths)
    project = folder / "project"
    init_project(project, pictures.old, template=pictures.template, fine_tune_checkpoint=pictures.backbone)
    settings = settings_of(project, args)
    settings.project.create()
    record_test_pictures(settings, pictures)
    for start in range(0, args.before, args.round):
        answer(settings, truths[start : min(args.before, start + args.round)], pictures.old)
        train(settings)
    rounds = [truths[start : start + args.round] for start in (args.before, args.before + args.round)]
    found: dict[str, Any] = {"old_before": old_map(settings, pictures)}
    without = settings_of(Path(shutil.copytree(project, folder / "without")), args)
    for number, images in enumerate(rounds, start=1):
        answer(without, images, pictures.old)
        train(without)
        found[f"old_without_{number}"] = old_map(without, pictures)
    files = LabelFiles(settings.config, project / "label_map.pbtxt", settings.project)
    add_label(files, pictures.new)
    history = note_classes(settings.project, files.load())
    if args.as_negatives:
        write_class_history(settings.project, replace(history, added_s=dict.fromkeys(history.added_s, 0.0)))
    for number, images in enumerate(rounds, start=1):
        answer(settings, images, (*pictures.old, pictures.new))
        train(settings)
        found[f"new_{number}"] = metrics(settings)[f"DetectionBoxes_PerformanceByCategory/mAP@.50IOU/{pictures.new}"]
        found[f"suggested_{number}"] = suggested_share(settings, pictures)
        found[f"old_{number}"] = old_map(settings, pictures)
    lost = found["old_before"] - found["old_2"]
    return {**found, "old_after": found["old_2"], "old_lost": lost, "old_without": found["old_without_2"]}


def settings_of(project: Path, args: argparse.Namespace) -> TrainingSettings:
    return TrainingSettings(config=project / "pipeline.config", steps_per_epoch=args.steps, run_eval=True)


def record_test_pictures(settings: TrainingSettings, pictures: Pictures) -> None:
    label_map = LabelMap.from_names([*pictures.old, pictures.new])
    record, files = settings.project.data_dir / "test_eval.record", pictures.files
    labels_to_records(files.test_csv, record, label_map=label_map, images_dir=files.images_dir)


def answer(settings: TrainingSettings, images: list[GroundtruthImage], labels: tuple[str, ...]) -> None:
    """What an annotator answers who knows these labels only."""
    answers = []
    for truth in images:
        image = read_image(truth.path)
        spans = [
            {"label": label, "points": [[x1, y1], [x1, y2], [x2, y2], [x2, y1]]}
            for label, (x1, y1, x2, y2) in zip(truth.labels, np.asarray(truth.boxes_xyxy_px).tolist(), strict=True)
            if label in labels
        ]
        answers.append({**write_task(Task.of(image, file=truth.path.name)), "spans": spans, "answer": "accept"})
    put_batch(settings.project.inbox_dir, answers)


def train(settings: TrainingSettings) -> None:
    run_trainer(settings, once=True)
    say(f"round {len([row for row in read_jsonl(settings.project.metrics_path) if row['kind'] == 'round'])}")


def metrics(settings: TrainingSettings) -> dict[str, float]:
    rows = [row for row in read_jsonl(settings.project.metrics_path) if row["kind"] == "evaluation"]
    return dict(rows[-1]["metrics"])


def old_map(settings: TrainingSettings, pictures: Pictures) -> float:
    values = metrics(settings)
    # An evaluation of a single class has no figures by class.
    names = [f"DetectionBoxes_PerformanceByCategory/mAP/{name}" for name in pictures.old]
    return float(
        np.mean([values[name] for name in names if name in values] or [values["DetectionBoxes_Precision/mAP"]])
    )


def suggested_share(settings: TrainingSettings, pictures: Pictures) -> float:
    """The share of the new class's objects that the newest version suggests."""
    export_dir = settings.project.export_dir
    model = tf.saved_model.load(str(version_dir(export_dir, list_versions(export_dir)[-1])))
    detect, found = model.signatures["serving_default"], []
    for truth in read_truth_csv(pictures.files.test_csv, pictures.files.images_dir):
        data = truth.path.read_bytes()
        width, height = Image.open(io.BytesIO(data)).size
        outputs = {name: value.numpy()[0] for name, value in detect(tf.constant([data])).items()}
        is_new = outputs["detection_classes"] == len(pictures.old) + 1
        detected = box_ops.to_xyxy_px(
            outputs["detection_boxes"][is_new & (outputs["detection_scores"] >= SUGGESTED)], (height, width)
        )
        true = [box for box, label in zip(truth.boxes_xyxy_px, truth.labels, strict=True) if label == pictures.new]
        if true:
            overlap = box_ops.iou(np.asarray(true, np.float32), np.asarray(detected, np.float32).reshape(-1, 4))
            found += [bool((shares > FOUND_IOU).any()) for shares in overlap]
    return float(np.mean(found))


if __name__ == "__main__":
    main()
