"""`odkeras import`: labels of other tools into the database of answers."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odkeras.cli.database import Dataset, ProjectOption, data_directory, database_path
from odkeras.cli.options import Given, with_options
from odkeras.cli.progress import progress_bar
from odkeras.database_url import DatabaseLocation, DatabaseUrl
from odkeras.errors import ConfigError
from odkeras.text import say

if TYPE_CHECKING:
    from odkeras.formats.label_files import LabelFile
    from odkeras.formats.label_fitting import Exif
    from odkeras.labels import LabelMap
    from odkeras.web.import_report import LabelReport
    from odkeras.web.label_import import KnownFacts

_EXAMPLES = """Example: odkeras import raccoons labels/ --images images/ --project raccoons/

To see what would be imported, without changing anything: odkeras import raccoons labels/ --check --project raccoons/
"""

Paths = Annotated[list[Path], typer.Argument(help="Files of labels, and folders with them.", metavar="PATH")]
ImagesOption = Annotated[
    Path | None, typer.Option(help="The folder of the images; default: beside and below the labels.")
]
FormatOption = Annotated[
    str,
    typer.Option(
        "--format", help="auto (by content), coco, voc, yolo, csv, tfrecord, labelstudio, cvat or jsonl (Prodigy's)."
    ),
]


def add_commands(app: typer.Typer) -> None:
    app.command("import", epilog=_EXAMPLES)(import_labels)


@with_options("db")
def import_labels(
    dataset: Dataset,
    path: Paths,
    project: ProjectOption = None,
    format: FormatOption = "auto",
    images: ImagesOption = None,
    check: Annotated[bool, typer.Option("--check", help="Print the report only; nothing is changed.")] = False,
    exif: Annotated[
        str,
        typer.Option(
            help="What labels of photographs refer to that their camera turned: upright (as viewers show them), stored "
            "(the pixels of the file), or auto: whichever has the size that the labels state, else upright."
        ),
    ] = "auto",
    label_map: Annotated[
        Path | None,
        typer.Option("--label-map", "-lmp", help="Label map with the labels; default: the project's, if it has one."),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option("--rename", help="NAME=LABEL: objects with this name get this label; repeat for each."),
    ] = None,
    skip_other_labels: Annotated[
        bool, typer.Option("--skip-other-labels", help="Leave out objects whose names the label map lacks.")
    ] = False,
    *,
    given: Given,
) -> None:
    """Import labels of other tools: COCO, Pascal VOC, YOLO, CSV, TFRecord, Label Studio, CVAT, JSON lines.

    The next `annotate` trains on them. Images that a person has answered are left as they are. All or nothing is
    imported; a second call adds only what is new. Exit code 1: nothing was imported; with --check: something in the
    files cannot be used.
    """
    from odkeras.formats.label_formats import find_label_files

    how = HowToImport(images, checked_exif(exif), label_map, tuple(rename or ()), skip_other_labels)
    files = find_label_files(path, format)
    place = database_path(given, project, dataset, create=True)
    report = run_import(files, dataset, place, how, data_dir=data_directory(place, project), check=check)
    for line in report.lines():
        say(line)
    if check:
        raise typer.Exit(0 if report.is_clean else 1)
    say(f"{place}, {dataset}: {report.added} added, {report.known} known already")
    if not report.added and not report.known and not report.answered:
        raise typer.Exit(1)


@dataclass(frozen=True)
class HowToImport:
    """The options of an import; see the help of `odkeras import`."""

    images: Path | None = None
    exif: Exif = "auto"
    label_map: Path | None = None
    rename: tuple[str, ...] = ()
    skip_other_labels: bool = False


def run_import(
    files: list[LabelFile],
    dataset: str,
    database: DatabaseLocation,
    how: HowToImport,
    *,
    data_dir: Path | None,
    check: bool,
    known_facts: KnownFacts = lambda path: None,
) -> LabelReport:
    """Import label files with a progress bar. What is refused is printed.

    Args:
        database: the file or URL of the database; need not exist.
        data_dir: the data directory of the project, where the ids of the images are noted; None without a project.
        known_facts: see `web.label_import.import_labels`.
    """
    from odkeras.label_choice import LabelChoice, parse_renames
    from odkeras.session.image_ids import ImageIds
    from odkeras.session.sources import Item
    from odkeras.session.web_images import WebImages
    from odkeras.web.import_report import LabelReport
    from odkeras.web.label_import import ImportRules, import_labels

    labels = LabelChoice(_label_map(database, dataset, how.label_map), parse_renames(how.rename))
    beside = (database if isinstance(database, Path) else data_dir or Path("here")).absolute().parent
    written_dir = None if check else beside / "imported_images" / _folder_name(dataset)
    downloads = WebImages()
    rules = ImportRules(how.images, how.exif, how.skip_other_labels, written_dir, downloads.fetch)
    ids = ImageIds(image_ids_path(data_dir) if data_dir is not None and not check else None)
    say(LabelReport(files, labels).format_line(), file=sys.stderr)
    with downloads, progress_bar("images") as progress:
        report = import_labels(
            files,
            labels,
            rules,
            database=database,
            dataset=dataset,
            check=check,
            progress=progress,
            note_image=lambda path, image_id: ids.note(Item(str(path), path).fingerprint, image_id),
            known_facts=known_facts,
        )
    for line in report.refusals():
        say(line, file=sys.stderr)
    return report


def image_ids_path(data_dir: Path) -> Path:
    """Where a data directory has the ids of images; creates the directory."""
    from odkeras.project import Project

    with suppress(OSError):  # the ids only save time
        data_dir.mkdir(parents=True, exist_ok=True)
    return Project(data_dir, data_dir, data_dir).image_ids_path


def checked_exif(text: str) -> Exif:
    """Raises: ConfigError: not a value of --exif."""
    from odkeras.formats.label_fitting import EXIF

    for known in EXIF:
        if text == known:
            return known
    raise ConfigError(f"--exif must be one of {', '.join(EXIF)}; got {text!r}")


def _label_map(database: DatabaseLocation, dataset: str, given: Path | None) -> LabelMap | None:
    """The label map that is given, else that of the dataset, else the one beside the database."""
    from odkeras.labels import LabelMap
    from odkeras.web.database import AnswerDatabase
    from odkeras.web.dataset_labels import labels_of_dataset

    beside = (Path() if isinstance(database, DatabaseUrl) else database.absolute().parent) / "label_map.pbtxt"
    if given is None and (isinstance(database, DatabaseUrl) or database.is_file()):
        with AnswerDatabase.open(database) as opened:
            kept = opened.label_map(dataset)
            if kept is None or not kept[0].is_file():
                return labels_of_dataset(opened, dataset).label_map
            given = kept[0]  # the file: it may have got labels since
    if given is None and beside.is_file():
        given = beside
    return None if given is None else LabelMap.load(given)


def _folder_name(dataset: str) -> str:
    """The name of a dataset as that of a folder."""
    return re.sub(r"[^\w-]+", "_", dataset) or "dataset"
