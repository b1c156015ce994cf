"""`odkeras db`: the answers of `odkeras annotate`, out of its database, into it, and in numbers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from odkeras.cli.database import Dataset, ProjectOption, database_path, print_skipped
from odkeras.cli.options import Given, with_options
from odkeras.cli.progress import progress_bar
from odkeras.cli.tables import print_table
from odkeras.errors import ConfigError
from odkeras.text import say

if TYPE_CHECKING:
    from odkeras.web.database import AnswerDatabase
    from odkeras.web.stats import DatasetStats

_FORMATS = ("jsonl", "coco", "tfrecord")
Advance = Callable[..., None]


def add_commands(app: typer.Typer) -> None:
    db = typer.Typer(help="Export answers from the database of `annotate`, or import them.", no_args_is_help=True)
    example = "Example: odkeras db"
    db.command("out", epilog=f"{example} out raccoons answers.json --format coco --project raccoons/")(out)
    db.command("in", epilog=f"{example} in raccoons answers.jsonl --project raccoons/")(read_in)
    db.command("stats", epilog=f"{example} stats raccoons --project raccoons/ --json")(stats)
    app.add_typer(db, name="db")


@with_options("db")
def out(
    dataset: Dataset,
    out: Annotated[str, typer.Argument(help="The file to write; - is standard output (jsonl, coco).")] = "-",
    project: ProjectOption = None,
    format: Annotated[
        str, typer.Option("--format", help="jsonl = as `prodigy db-out` writes it; coco; tfrecord.")
    ] = "jsonl",
    answer: Annotated[str | None, typer.Option(help="Only accept, reject or ignore. jsonl only.")] = None,
    label_map: Annotated[
        Path | None,
        typer.Option("--label-map", "-lmp", help="Label map with the ids; default: the one that `annotate` used last."),
    ] = None,
    all: Annotated[bool, typer.Option("--all", help="Also answers that a later one replaced. jsonl only.")] = False,
    images: Annotated[
        bool, typer.Option("--images", help="Put the images into the file, as data URIs. jsonl only.")
    ] = False,
    images_dir: Annotated[
        Path | None, typer.Option(help="Base directory of file names; default: the folder of all images. coco only.")
    ] = None,
    masks: Annotated[bool, typer.Option("--masks", help="Masks for all images. tfrecord only.")] = False,
    *,
    given: Given,
) -> None:
    """Write the answers of a dataset to a file.

    jsonl has each session's latest answer for each image. coco and tfrecord have the images whose latest answer of all
    sessions is accept.
    """
    from odkeras.web.database import AnswerDatabase
    from odkeras.web.exports import check_dataset, silence_standard_output

    path = None if out == "-" else Path(out)
    _check_format(format, path, images_dir, {"--answer": answer, "--all": all, "--images": images}, masks)
    if answer is not None:
        _check_decision(answer)
    with AnswerDatabase.open(database_path(given, project, dataset), create=False) as database:
        check_dataset(database, dataset)
        try:
            if format == "jsonl":
                written = _write_jsonl(database, dataset, path, answer, all, images)
            elif format == "coco":
                written = _write_coco(database, dataset, path, label_map, images_dir)
            else:
                assert path is not None
                written = _write_tfrecord(database, dataset, path, label_map, masks)
        except BrokenPipeError:
            silence_standard_output()
            return
    say(f"{path or 'standard output'}: {written}", file=sys.stderr)


@with_options("db")
def read_in(
    dataset: Dataset,
    jsonl: Annotated[str, typer.Argument(help="Answers as `prodigy db-out` writes them; - is standard input.")],
    project: ProjectOption = None,
    answer: Annotated[str, typer.Option(help="Answer of examples without one: accept, reject or ignore.")] = "accept",
    *,
    given: Given,
) -> None:
    """Add answers to a dataset. Answers that it has already are skipped; the next `annotate` trains on the new ones.

    Relative paths of images start beside the file.
    """
    from odkeras.web.database import AnswerDatabase
    from odkeras.web.imports import STDIN, count_lines, import_answers, open_lines

    _check_decision(answer)
    total = count_lines(jsonl)
    lines = open_lines(jsonl)
    base_dir = Path() if jsonl == STDIN else Path(jsonl).parent
    place = database_path(given, project, dataset, create=True)
    with AnswerDatabase.open(place) as database, progress_bar("answers", total) as progress:
        report = import_answers(database, dataset, lines, base_dir=base_dir, decision=answer, progress=progress)
    name = "stdin" if jsonl == STDIN else jsonl
    print_skipped((f"{name}:{number}", reason) for number, reason in report.skipped)
    say(f"{place}, {dataset}: {report.added} added, {report.known} known already, {len(report.skipped)} skipped")
    if not report.added and not report.known:
        raise typer.Exit(1)


@with_options("db")
def stats(
    dataset: Annotated[str | None, typer.Argument(help="Name of the dataset; default: all.")] = None,
    project: ProjectOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs; shares are from 0 to 1.")] = False,
    *,
    given: Given,
) -> None:
    """Show the answers of the datasets, and the share of each model version's suggestions that was kept.

    Shares: kept, moved and deleted of the suggestions; added of the objects.
    """
    from odkeras.web.database import AnswerDatabase
    from odkeras.web.exports import check_dataset
    from odkeras.web.stats import DatasetStats

    place = database_path(given, project, dataset)
    with AnswerDatabase.open(place, create=False) as database:
        if dataset is not None:
            check_dataset(database, dataset)
        names = database.datasets if dataset is None else [dataset]
        statistics = [DatasetStats.of(database, name) for name in names]
    if as_json:
        say(json.dumps([dataset_stats.to_json() for dataset_stats in statistics], indent=1))
    elif statistics:
        for dataset_stats in statistics:
            _show(dataset_stats)
    else:
        say(f"{place}: no answers yet")


def _check_format(
    format: str, out: Path | None, images_dir: Path | None, jsonl_only: dict[str, Any], masks: bool
) -> None:
    if format not in _FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(_FORMATS)}; got {format!r}")
    if format != "jsonl" and (given := [name for name, value in jsonl_only.items() if value]):
        raise ConfigError(f"--format {format} contains accepted images only; leave out {', '.join(given)}")
    if masks and format != "tfrecord":
        raise ConfigError("--masks works with --format tfrecord only")
    if format == "tfrecord" and out is None:
        raise ConfigError("--format tfrecord needs a file: odkeras db out DATASET train.record --format tfrecord")
    if images_dir is not None and format != "coco":
        raise ConfigError("--images-dir works with --format coco only")


def _check_decision(answer: str) -> None:
    from odkeras.annotation import DECISIONS

    if answer not in DECISIONS:
        raise ConfigError(f"--answer must be one of {', '.join(DECISIONS)}; got {answer!r}")


def _write_jsonl(
    database: AnswerDatabase, dataset: str, out: Path | None, answer: str | None, all: bool, images: bool
) -> str:
    from odkeras.web.exports import with_image, write_jsonl

    gone = 0

    def examples(advance: Advance) -> Iterator[dict[str, Any]]:
        nonlocal gone
        for number, (image_id, example) in enumerate(
            database.iter_examples(dataset, decision=answer, replaced=all), start=1
        ):
            whole = with_image(image_id, example) if images else example
            gone += whole is None
            yield whole or example
            advance(number)

    with progress_bar("answers") as progress:
        number = write_jsonl(examples(progress), out)
    if gone:
        return f"{number} answers, {gone} of them without an image, because its file is missing"
    return f"{number} answers"


def _write_coco(
    database: AnswerDatabase, dataset: str, out: Path | None, label_map: Path | None, images_dir: Path | None
) -> str:
    from odkeras.web.exports import coco_of_dataset, write_coco

    with progress_bar("images") as progress:
        export = coco_of_dataset(database, dataset, label_map=label_map, images_dir=images_dir, progress=progress)
    print_skipped(export.coco.skipped)
    write_coco(export, out)
    for remark in export.remarks():
        say(remark, file=sys.stderr)
    coco = export.coco
    return f"{len(coco.images)} images, {len(coco.annotations)} boxes, {coco.negatives} without boxes"


def _write_tfrecord(database: AnswerDatabase, dataset: str, out: Path, label_map: Path | None, masks: bool) -> str:
    from odkeras.logs import configure_logging, quiet_import
    from odkeras.web.dataset_labels import labels_of_dataset

    configure_logging(verbose=False)
    labels = labels_of_dataset(database, dataset, label_map)
    if labels.label_map is None:
        raise ConfigError("--format tfrecord needs --label-map: none is known for this dataset")
    with progress_bar("images") as progress:
        quiet_import("tensorflow")
        from odkeras.data.conversion import answers_to_records

        # A row's id is the image's id, as the database tells images apart; an example may have none.
        answers = (
            (dataset, {**example, "image_id": image_id})
            for image_id, example in database.iter_latest(dataset, decision="accept")
        )
        report = answers_to_records(
            answers, out, label_map=labels.label_map, source=f"dataset {dataset}", masks=masks, progress=progress
        )
    print_skipped(report.skipped)
    say(f"class ids: {labels.origin}", file=sys.stderr)
    return f"{report.images} images, {report.boxes} boxes, {report.negatives} without boxes"


def _show(dataset_stats: DatasetStats) -> None:
    from odkeras.web.stats import VERSION_COLUMNS

    say(dataset_stats.dataset)
    for name, text in dataset_stats.lines():
        say(f"  {name:<14}{text}")
    if dataset_stats.versions:
        print_table("suggestions, by model version", VERSION_COLUMNS, dataset_stats.version_rows())
