"""`odkeras records`: TFRecords from known boxes and from exported answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odkeras.cli import options
from odkeras.cli.progress import progress_bar
from odkeras.config.settings import DEFAULT_MAX_PIXELS, TrainingSettings
from odkeras.project import config_path
from odkeras.text import say

if TYPE_CHECKING:
    from odkeras.data.conversion import RecordsReport

LabelMapOption = Annotated[Path, typer.Option("--label-map", "-lmp", help="The label map (.pbtxt).")]
MaxPixelsOption = Annotated[
    int,
    typer.Option("--max-pixels", min=1, help="Largest image: width times height in pixels; larger ones are skipped."),
]


def add_commands(app: typer.Typer) -> None:
    records = typer.Typer(help="Make TFRecords.", no_args_is_help=True)
    records.command(
        "from-csv",
        epilog="Example: odkeras records from-csv train.csv train.record --label-map map.pbtxt --images images/",
    )(from_csv)
    records.command(
        "from-labels", epilog="Example: odkeras records from-labels yolo/data.yaml train.record --label-map map.pbtxt"
    )(from_labels)
    records.command(
        "from-coco",
        epilog="Example: odkeras records from-coco instances.json train.record --label-map map.pbtxt --images images/",
    )(from_coco)
    records.command(
        "from-prodigy", epilog="Example: odkeras records from-prodigy answers.jsonl train.record --label-map map.pbtxt"
    )(from_prodigy)
    records.command(
        "add-context",
        epilog="Example: odkeras records add-context faster/pipeline.config train.record with-context.record",
    )(add_context)
    app.add_typer(records, name="records")


def from_csv(
    csv: Annotated[Path, typer.Argument(help="Columns path,xmin,ymin,xmax,ymax,label; pixels; a row per box.")],
    out: Annotated[Path, typer.Argument(help="The TFRecord to write.")],
    label_map: LabelMapOption,
    images: Annotated[Path | None, typer.Option(help="Base of relative paths; default: the CSV's directory.")] = None,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
) -> None:
    """Make a TFRecord from a CSV of known boxes. A row with only a path is an image without objects."""
    from_labels(csv, out, label_map, images, max_pixels)


def from_labels(
    labels: Annotated[Path, typer.Argument(help="A file or folder of labels, as for `odkeras import`.")],
    out: Annotated[Path, typer.Argument(help="The TFRecord to write.")],
    label_map: LabelMapOption,
    images: Annotated[Path | None, typer.Option(help="Folder of the images; default: beside and below LABELS.")] = None,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
) -> None:
    """Make a TFRecord from labels of another tool: the boxes, and those around polygons.

    The format is recognised: COCO, Pascal VOC, YOLO, CSV, Label Studio, CVAT, JSON lines. What cannot be used is named
    and left out. For masks, keypoints and splits, take `odkeras import` and then `odkeras export-labels`.
    """
    from odkeras.labels import LabelMap
    from odkeras.logs import configure_logging, quiet_import

    configure_logging(verbose=False)
    loaded = LabelMap.load(label_map)
    with progress_bar("images") as progress:
        quiet_import("tensorflow")
        from odkeras.data.conversion import labels_to_records

        report = labels_to_records(
            labels, out, label_map=loaded, images_dir=images, max_pixels=max_pixels, progress=progress
        )
    _print_report(out, report)


def from_coco(
    json: Annotated[Path, typer.Argument(help="COCO's JSON: images, annotations and categories.")],
    out: Annotated[Path, typer.Argument(help="The TFRecord to write.")],
    label_map: LabelMapOption,
    images: Annotated[Path | None, typer.Option(help="Folder of the images; default: that of the JSON file.")] = None,
    masks: Annotated[
        bool, typer.Option("--masks", help="Masks, too; of an object without one, its filled box.")
    ] = False,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
) -> None:
    """Make a TFRecord from a COCO file: boxes, with --masks the masks (PNG_MASKS), and the keypoints that the label
    map names. Categories that the label map lacks are left out."""
    from odkeras.labels import LabelMap
    from odkeras.logs import configure_logging, quiet_import

    configure_logging(verbose=False)
    loaded = LabelMap.load(label_map)
    with progress_bar("images") as progress:
        quiet_import("tensorflow")
        from odkeras.data.conversion import coco_to_records

        report = coco_to_records(
            json,
            out,
            label_map=loaded,
            images_dir=images or json.parent,
            masks=masks,
            max_pixels=max_pixels,
            progress=progress,
        )
    _print_report(out, report)


def from_prodigy(
    jsonl: Annotated[Path, typer.Argument(help="Answers as `prodigy db-out` writes them.")],
    out: Annotated[Path, typer.Argument(help="The TFRecord to write.")],
    label_map: LabelMapOption,
    masks: Annotated[
        bool, typer.Option("--masks", help="Masks for all images; a rectangle's is its box, filled.")
    ] = False,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
) -> None:
    """Make a TFRecord from exported answers: the latest answer for each image, if it is accept.

    An image with a polygon or a freehand shape gets masks (PNG_MASKS), all others only boxes. A model that learns
    masks needs them for all of its images: --masks.
    """
    from odkeras.labels import LabelMap
    from odkeras.logs import configure_logging, quiet_import

    configure_logging(verbose=False)
    loaded = LabelMap.load(label_map)
    with progress_bar("answers") as progress:
        quiet_import("tensorflow")
        from odkeras.data.conversion import prodigy_to_records

        report = prodigy_to_records(jsonl, out, label_map=loaded, masks=masks, max_pixels=max_pixels, progress=progress)
    _print_report(out, report)


def add_context(
    config: options.Config,
    record: Annotated[Path, typer.Argument(help="The TFRecord to read.")],
    out: Annotated[Path, typer.Argument(help="The TFRecord to write.")],
    checkpoint: Annotated[
        str | None, typer.Option(help="Describe the images with it; default: CONFIG's newest.")
    ] = None,
    place_feature: Annotated[
        str, typer.Option(help="Feature of the examples that says where an image was taken.")
    ] = "image/seq_id",
    date_feature: Annotated[
        str, typer.Option(help="The one that says when, as 2026-03-31 18:05:00; without it, dates are unknown.")
    ] = "image/date_captured",
    max_features: Annotated[
        int, typer.Option(min=1, help="At most so many other images for each: max_num_context_features of the model.")
    ] = 2000,
    min_score: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out images whose best detection has a lower score.")
    ] = 0.0,
) -> None:
    """Add to each example what the other images of its place show, for Context R-CNN.

    CONFIG is that of a trained Faster R-CNN, which describes the images. The model that takes the result has a
    context_config, and load_context_features in its readers.
    """
    from odkeras.logs import configure_logging, quiet_import

    settings = TrainingSettings(config=config_path(config))
    configure_logging(settings.tf_logging_level, verbose=False)
    quiet_import("tensorflow")
    from odkeras.model.setup import prepare_setup
    from odkeras.training.context_features import add_context as add
    from odkeras.training.strategy import grow_gpu_memory

    grow_gpu_memory()
    setup = prepare_setup(settings, "export", checkpoint=checkpoint)
    with progress_bar("images") as progress:
        report = add(
            setup.config,
            settings.project.model_dir,
            record,
            out,
            checkpoint=checkpoint,
            place_feature=place_feature,
            date_feature=date_feature,
            max_features=max_features,
            min_score=min_score,
            progress=progress,
        )
    say(
        f"{out}: {report.images} images of {report.places} places, up to {report.largest} others for one\n"
        f"in the config that trains on it: context_config {{ max_num_context_features: {max_features} "
        f"context_feature_length: {report.length} }}"
    )


def _print_report(out: Path, report: RecordsReport) -> None:
    for file, reason in report.skipped:
        say(f"skipped {file}: {reason}", file=sys.stderr)
    say(f"{out}: {report.images} images, {report.boxes} boxes, {report.negatives} without boxes")
