"""`odkeras records`: TFRecords from known boxes and from exported answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odkeras.cli.progress import progress_bar

if TYPE_CHECKING:
    from odkeras.data.conversion import RecordsReport

LabelMapOption = Annotated[Path, typer.Option("--label-map", "-lmp", help="The label map (.pbtxt).")]


def add_commands(app: typer.Typer) -> None:
    records = typer.Typer(help="Make TFRecords.", no_args_is_help=True)
    records.command(
        "from-csv",
        epilog="Example: odkeras records from-csv train.csv train.record --label-map map.pbtxt --images images/",
    )(from_csv)
    records.command(
        "from-coco",
        epilog="Example: odkeras records from-coco instances.json train.record --label-map map.pbtxt --images images/",
    )(from_coco)
    records.command(
        "from-prodigy", epilog="Example: odkeras records from-prodigy answers.jsonl train.record --label-map map.pbtxt"
    )(from_prodigy)
    app.add_typer(records, name="records")


def from_csv(
    csv: Annotated[Path, typer.Argument(help="Columns path,xmin,ymin,xmax,ymax,label; pixels; a row per box.")],
    out: Annotated[Path, typer.Argument(help="The TFRecord to write.")],
    label_map: LabelMapOption,
    images: Annotated[Path | None, typer.Option(help="Base of relative paths; default: the CSV's directory.")] = None,
) -> None:
    """Make a TFRecord from a CSV of known boxes. A row with only a path is an image without objects."""
    from odkeras.labels import LabelMap
    from odkeras.logs import configure_logging, quiet_import

    configure_logging(verbose=False)
    loaded = LabelMap.load(label_map)
    with progress_bar("images") as progress:
        quiet_import("tensorflow")
        from odkeras.data.conversion import csv_to_records

        report = csv_to_records(csv, out, label_map=loaded, images_dir=images or csv.parent, progress=progress)
    _print_report(out, report)


def from_coco(
    json: Annotated[Path, typer.Argument(help="COCO's JSON: images, annotations and categories.")],
    out: Annotated[Path, typer.Argument(help="The TFRecord to write.")],
    label_map: LabelMapOption,
    images: Annotated[Path | None, typer.Option(help="Folder of the images; default: that of the JSON file.")] = None,
    masks: Annotated[
        bool, typer.Option("--masks", help="Masks, too; of an object without one, its filled box.")
    ] = False,
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
            json, out, label_map=loaded, images_dir=images or json.parent, masks=masks, progress=progress
        )
    _print_report(out, report)


def from_prodigy(
    jsonl: Annotated[Path, typer.Argument(help="Answers as `prodigy db-out` writes them.")],
    out: Annotated[Path, typer.Argument(help="The TFRecord to write.")],
    label_map: LabelMapOption,
    masks: Annotated[
        bool, typer.Option("--masks", help="Masks for all images; a rectangle's is its box, filled.")
    ] = False,
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

        report = prodigy_to_records(jsonl, out, label_map=loaded, masks=masks, progress=progress)
    _print_report(out, report)


def _print_report(out: Path, report: RecordsReport) -> None:
    for file, reason in report.skipped:
        print(f"skipped {file}: {reason}", file=sys.stderr)
    print(f"{out}: {report.images} images, {report.boxes} boxes, {report.negatives} without boxes")
