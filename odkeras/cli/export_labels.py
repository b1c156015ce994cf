"""`odkeras export-labels`: the accepted answers as labels of another tool."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odkeras.cli.database import Dataset, ProjectOption, data_directory, database_path, print_skipped
from odkeras.cli.options import Given, with_options
from odkeras.cli.progress import progress_bar
from odkeras.errors import ConfigError
from odkeras.text import say

if TYPE_CHECKING:
    from odkeras.image_store import ImageStore
    from odkeras.web.label_images import ImageMode

_MAX_SKIPPED = 20
_EXAMPLES = """Example: odkeras export-labels pets pets-yolo --format yolo --split 0.8/0.2 --project pets/

To hand on the images, too: odkeras export-labels pets pets-coco --format coco --copy-images --project pets/

Frames of videos (cat_0001.jpg, ...): odkeras export-labels cats cats-yolo --format yolo --split 0.8/0.1/0.1
--group-by '^(.*)_[0-9]+' --project cats/
"""


def add_commands(app: typer.Typer) -> None:
    app.command("export-labels", epilog=_EXAMPLES)(export_labels)


@with_options("db")
def export_labels(
    dataset: Dataset,
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    format: Annotated[
        str, typer.Option("--format", help="coco, voc, yolo, yolo-pose, csv, tfrecord, labelstudio, cvat or jsonl.")
    ],
    project: ProjectOption = None,
    split: Annotated[
        str, typer.Option(help="Shares of train, val and test, such as 0.8/0.2 or 0.8/0.1/0.1; default: all in train.")
    ] = "1",
    group_by: Annotated[
        str | None,
        typer.Option(
            help="Keep images of one group in one split: folder (the parent folder), or a regular expression whose "
            "first parenthesis is the group in the file name."
        ),
    ] = None,
    copy_images: Annotated[
        bool, typer.Option("--copy-images", help="Copy the images; default: the labels have their paths.")
    ] = False,
    link_images: Annotated[
        bool, typer.Option("--link-images", help="Link the images: hard links, on another disk symbolic ones.")
    ] = False,
    label_map: Annotated[
        Path | None,
        typer.Option(
            "--label-map", "-lmp", help="Label map with the classes; default: the one that `annotate` used last."
        ),
    ] = None,
    skip_other_labels: Annotated[
        bool, typer.Option("--skip-other-labels", help="Leave out objects whose label --label-map lacks.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in OUT.")] = False,
    *,
    given: Given,
) -> None:
    """Write the accepted answers of a dataset as a folder of labels for another tool, with its images and a manifest.

    It has the images whose latest answer of all annotators is accept, also those without objects. val has the images
    that `annotate --eval-split` with its share holds out from training; the split of an image never changes.
    """
    from odkeras.logs import configure_logging
    from odkeras.splits import GroupBy, Splits
    from odkeras.web import label_export
    from odkeras.web.database import AnswerDatabase
    from odkeras.web.label_export import ExportOptions

    configure_logging(verbose=False)
    if skip_other_labels and label_map is None:
        raise ConfigError("--skip-other-labels works with --label-map only")
    options = ExportOptions(
        format=format,
        splits=Splits.parse(split),
        group_by=None if group_by is None else GroupBy.parse(group_by),
        images=_image_mode(copy_images, link_images),
        label_map=label_map,
        skip_other_labels=skip_other_labels,
        overwrite=overwrite,
    )
    place = database_path(given, project, dataset)
    stores = _stores(data_directory(place, project))
    with AnswerDatabase.open(place, create=False) as database, progress_bar("images") as progress:
        report = label_export.export_labels(database, dataset, out, options, stores=stores, progress=progress)
    print_skipped(islice(report.skipped, _MAX_SKIPPED))
    if (more := len(report.skipped) - _MAX_SKIPPED) > 0:
        say(f"{more} more were left out; {out / label_export.MANIFEST_NAME} lists them", file=sys.stderr)
    for line in report.lines():
        say(line, file=sys.stderr)
    say(f"{out}: {report.summary()}")


def _image_mode(copy_images: bool, link_images: bool) -> ImageMode | None:
    from odkeras.web.label_images import ImageMode

    if copy_images and link_images:
        raise ConfigError("--copy-images and --link-images: give one of them")
    if copy_images:
        return ImageMode.COPY
    return ImageMode.LINK if link_images else None


def _stores(data_dir: Path | None) -> list[ImageStore]:
    """Where a project keeps images that have no file."""
    from odkeras.image_store import ImageStore
    from odkeras.inbox import images_dir
    from odkeras.project import Project

    if data_dir is None:
        return []
    project = Project(data_dir, data_dir, data_dir)
    return [ImageStore(images_dir(project.inbox_dir)), ImageStore(project.kept_images_dir)]
