"""`odkeras bulk`: predictions, TFRecords, imports and hashes of any number of images."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from odkeras.cli.database import Dataset, ProjectOption, data_directory, database_path
from odkeras.cli.import_labels import (
    FormatOption,
    HowToImport,
    ImagesOption,
    Paths,
    checked_exif,
    image_ids_path,
    run_import,
)
from odkeras.cli.options import Given, with_options
from odkeras.config.bulk import BulkPredictSettings, BulkSettings
from odkeras.config.option import DIRECTORIES
from odkeras.errors import ConfigError, ImageError
from odkeras.text import say

if TYPE_CHECKING:
    from odkeras.bulk.job import Entry, Job
    from odkeras.bulk.run import Plan
    from odkeras.images import ImageFacts

Out = Annotated[
    str,
    typer.Option(help="Folder of the results, or a prefix such as s3://bucket/name.", rich_help_panel=DIRECTORIES),
]
Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGES", help="Folders, image files, JSONL files with `image`, prefixes of object storage, URLs."
    ),
]
_HELP = """Work on any number of images, in processes of this machine or on Apache Beam.

The images are divided into shards, one file of results each. Ctrl-C, a crash and kill -9 lose the shards that were not
finished; the same command continues. Exit status 1: images were refused; refused-*.jsonl has each with the reason, and
is itself a list of images."""


def add_commands(app: typer.Typer) -> None:
    bulk = typer.Typer(help=_HELP, no_args_is_help=True)
    bulk.command(
        "predict",
        epilog="""Example: odkeras bulk predict photos/ --export-dir raccoons/export --out scores/

On Flink: odkeras bulk predict s3://photos/2024/ --export-dir /mnt/export --out s3://scores/2024 --runner FlinkRunner
--beam-option flink_master=localhost:8081 --beam-option environment_type=LOOPBACK""",
    )(predict)
    bulk.command(
        "records",
        epilog="Example: odkeras bulk records instances.json --label-map map.pbtxt --images images/ --out records/",
    )(records)
    bulk.command(
        "import",
        epilog="Example: odkeras bulk import raccoons labels/ --images images/ --project raccoons/ --out hashes/",
    )(import_)
    bulk.command("hash", epilog="Example: odkeras bulk hash photos/ --project raccoons/ --out hashes/")(hash_)
    app.add_typer(bulk, name="bulk")


@with_options("bulk-predict")
def predict(
    images: Images,
    out: Out,
    format: Annotated[
        str,
        typer.Option(help="jsonl (tasks with boxes, for annotate and db in) or csv.", rich_help_panel=DIRECTORIES),
    ] = "jsonl",
    *,
    given: Given,
) -> None:
    """Score or pre-label images with an exported version. The results are those of `odkeras predict --out`."""
    from odkeras.bulk.listing import list_images
    from odkeras.bulk.run import Plan
    from odkeras.bulk.transforms import Predict
    from odkeras.serving.local import newest_version_dir

    settings = given.build(BulkPredictSettings)
    if format not in ("jsonl", "csv"):
        raise ConfigError(f"--format must be jsonl or csv; got {format!r}")
    version = newest_version_dir(settings.export_dir).absolute()
    label_map = "" if settings.label_map is None else _label_map_text(settings.label_map)
    transform = Predict(
        str(version), settings.min_score, format, settings.batch_seconds, settings.max_pixels, settings.gpu, label_map
    )
    identity = {
        "command": "predict",
        "list of images": list(images),
        "version": f"{version.name}, {_digest_of_version(version)}",
        "label map": _digest(label_map),
        "threshold": settings.min_score,
        "format": format,
    }
    _finish(_run(Plan(out, identity, lambda: list_images(images), transform, format), settings, "boxes"))


@with_options("bulk-records")
def records(
    path: Paths,
    out: Out,
    label_map: Annotated[Path, typer.Option("--label-map", "-lmp", help="The label map (.pbtxt).")],
    format: FormatOption = "auto",
    images: ImagesOption = None,
    masks: Annotated[bool, typer.Option("--masks", help="A mask for each object; a box's is the filled box.")] = False,
    exif: Annotated[str, typer.Option(help="As for `odkeras import`: auto, upright or stored.")] = "auto",
    *,
    given: Given,
) -> None:
    """Make TFRecords from labels of any tool, as `odkeras import` reads them: boxes, outlines of polygons, keypoints.

    Of several answers about an image in JSON lines, the last one counts. Images may be at URLs."""
    from odkeras.bulk.listing import list_labelled
    from odkeras.bulk.run import Plan
    from odkeras.bulk.transforms import MakeRecords
    from odkeras.formats.label_formats import find_label_files
    from odkeras.labels import LabelMap

    settings = given.build(BulkSettings)
    loaded, files = LabelMap.load(label_map), find_label_files(path, format)
    text = _label_map_text(label_map)
    identity = {
        "command": "records",
        "list of labels": list(map(str, path)),
        "label map": _digest(text),
        "folder of images": str(images),
        "choice of masks": masks,
        "choice of exif": exif,
    }
    transform = MakeRecords(text, masks, settings.max_pixels, checked_exif(exif))
    plan = Plan(out, identity, lambda: list_labelled(files, images, check_label=loaded.id_of), transform, "record")
    _finish(_run(plan, settings, "objects"))


@with_options("bulk-hash")
def hash_(
    images: Images,
    out: Out,
    project: ProjectOption = None,
    check_pixels: Annotated[
        bool, typer.Option("--check-pixels", help="Decode each image, to find damage in its pixels.")
    ] = False,
    *,
    given: Given,
) -> None:
    """Read images, and write the id and size of each, as lines that `odkeras annotate` takes as a source.

    With --project, its data directory notes the ids: `annotate` then finds the answered ones without reading them."""
    from odkeras.bulk.listing import list_images
    from odkeras.bulk.run import Plan
    from odkeras.bulk.transforms import Hash

    settings = given.build(BulkSettings)
    identity = {"command": "hash", "list of images": list(images), "choice of --check-pixels": check_pixels}
    transform = Hash(settings.max_pixels, check_pixels)
    outcome = _run(Plan(out, identity, lambda: list_images(images), transform, "jsonl"), settings)
    if project is not None:
        _note_ids(outcome.job, data_directory(Path(), project))
    _finish(outcome)


@with_options("bulk-import")
def import_(
    dataset: Dataset,
    path: Paths,
    out: Out,
    project: ProjectOption = None,
    format: FormatOption = "auto",
    images: ImagesOption = None,
    check: Annotated[bool, typer.Option("--check", help="Print the report only; the database is not changed.")] = False,
    exif: Annotated[str, typer.Option(help="As for `odkeras import`: auto, upright or stored.")] = "auto",
    label_map: Annotated[Path | None, typer.Option("--label-map", "-lmp", help="As for `odkeras import`.")] = None,
    rename: Annotated[list[str] | None, typer.Option("--rename", help="NAME=LABEL; repeat for each.")] = None,
    skip_other_labels: Annotated[
        bool, typer.Option("--skip-other-labels", help="Leave out objects whose names the label map lacks.")
    ] = False,
    *,
    given: Given,
) -> None:
    """`odkeras import`, whose images are read and hashed by many workers first. Then all or nothing is imported."""
    from odkeras.bulk.listing import distinct, list_labelled
    from odkeras.bulk.run import Plan
    from odkeras.bulk.transforms import Hash
    from odkeras.formats.label_formats import find_label_files

    settings = given.build(BulkSettings)
    how = HowToImport(images, checked_exif(exif), label_map, tuple(rename or ()), skip_other_labels)
    files = find_label_files(path, format)
    place = database_path(given, project, dataset, create=True)
    identity = {"command": "import", "list of labels": list(map(str, path)), "folder of images": str(images)}
    plan = Plan(out, identity, lambda: distinct(list_labelled(files, images)), Hash(settings.max_pixels), "jsonl")
    outcome = _run(plan, settings)
    facts = _known_facts(outcome.job)
    report = run_import(
        files, dataset, place, how, data_dir=data_directory(place, project), check=check, known_facts=facts.get
    )
    for line in report.lines():
        say(line)
    say(f"{place}, {dataset}: {report.added} added, {report.known} known already")
    if not report.added and not report.known and not report.answered:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Outcome:
    job: Job
    refused: int


def _run(plan: Plan, settings: BulkSettings, objects: str = "") -> _Outcome:
    """Run a plan, and say what was done."""
    from odkeras.bulk.run import run_plan
    from odkeras.cli.progress import progress_bar

    with progress_bar("images") as progress:
        job, done = run_plan(plan, settings, progress=progress, say=lambda line: say(line, file=sys.stderr))
    refused = 0
    for refused, entry in enumerate(job.refused(), start=1):
        if refused <= _SHOWN_REFUSED:
            say(f"refused {entry['image']}: {entry['reason']}", file=sys.stderr)
    if refused > _SHOWN_REFUSED:
        say(f"refused {refused - _SHOWN_REFUSED} more: see refused-*.jsonl", file=sys.stderr)
    left_out = f", {refused} refused" if refused else ""
    say(f"{plan.out}: {job.images} images in {len(job.shards)} shards{left_out}", file=sys.stderr)
    if done is not None and done.images:
        found = f", {done.objects} {objects}" if objects else ""
        hours = done.cpu_s / done.images * 1e6 / 3600
        say(
            f"this run: {done.images} images{found}, {done.cpu_s:.1f} s of CPU time; a million such: {hours:.2f} "
            "hours of one core",
            file=sys.stderr,
        )
    return _Outcome(job, refused)


_SHOWN_REFUSED = 10


def _finish(outcome: _Outcome) -> None:
    if outcome.refused:
        raise typer.Exit(1)


def _rows(job: Job) -> Iterable[Entry]:
    import json

    from odkeras.bulk.store import open_store

    store = open_store(job.place)
    for shard in job.shards:
        yield from map(json.loads, store.read(shard.name).splitlines())


def _known_facts(job: Job) -> dict[Path, ImageFacts | ImageError | None]:
    """What is known of the image files, by path."""
    from odkeras.images import ImageFacts
    from odkeras.session.sources import FILE_FACTS

    known: dict[Path, ImageFacts | ImageError | None] = {
        Path(entry["image"]): ImageError(entry["reason"], entry["image"]) for entry in job.refused()
    }
    for row in _rows(job):
        size_hw = row["height"], row["width"]
        known[Path(row["image"])] = ImageFacts(row["image_id"], size_hw, row[FILE_FACTS]["orientation"])
    return known


def _note_ids(job: Job, data_dir: Path | None) -> None:
    from odkeras.session.image_ids import ImageIds
    from odkeras.session.sources import FILE_FACTS

    if data_dir is None:
        return
    ids = ImageIds(image_ids_path(data_dir))
    for row in _rows(job):
        ids.note(row[FILE_FACTS]["id"], row["image_id"])


def _label_map_text(path: Path) -> str:
    from odkeras.labels import LabelMap

    return LabelMap.load(path).to_pbtxt()


def _digest(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:16]


def _digest_of_version(version: Path) -> Any:
    """A digest of the graph and of the checksums of the weights."""
    files = (version / "saved_model.pb", version / "variables" / "variables.index")
    try:
        return _digest(b"".join(file.read_bytes() for file in files if file.is_file()))
    except OSError as error:
        raise ConfigError(f"--export-dir {version} cannot be read: {error.strerror}") from error
