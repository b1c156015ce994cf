"""`odkeras serve`, `odkeras predict`, `odkeras rollback` and `odkeras upload`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odkeras.cli import options
from odkeras.cli.options import Given, with_options
from odkeras.cli.progress import progress_bar
from odkeras.config.serving import PredictSettings, RollbackSettings, ServerSettings, UploadSettings
from odkeras.errors import ConfigError
from odkeras.text import say

if TYPE_CHECKING:
    from odkeras.keypoints import Skeleton
    from odkeras.serving.batches import PredictBatch
    from odkeras.serving.predict import FilePrediction


def add_commands(app: typer.Typer) -> None:
    app.command("serve", epilog="Example: odkeras serve --model-name raccoon --model-base-path raccoons/export")(serve)
    app.command("predict", epilog="Example: odkeras predict photos/ --export-dir raccoons/export --out boxes.csv")(
        predict
    )
    app.command("rollback", epilog="Example: odkeras rollback --export-dir raccoons/export")(rollback)
    app.command("upload", epilog="Example: odkeras upload s3://models/raccoon --export-dir raccoons/export")(upload)


@with_options("serve")
def serve(
    socket_fd: Annotated[int | None, typer.Option("--socket-fd", hidden=True)] = None,
    stop_on_stdin_eof: Annotated[bool, typer.Option("--stop-on-stdin-eof", hidden=True)] = False,
    *,
    given: Given,
) -> None:
    """Serve the newest version over TensorFlow Serving's REST API; new versions are loaded without
    interruption."""
    from odkeras.heartbeat import send_heartbeats
    from odkeras.logs import configure_logging

    send_heartbeats(stalled_s=60)  # the event loop reports progress ten times a second
    configure_logging(given["tf_logging_level"])
    from odkeras.serving.server import run_server

    run_server(given.build(ServerSettings, socket_fd=socket_fd, stop_on_stdin_eof=stop_on_stdin_eof))


@with_options("predict")
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES", help="Image files, and folders of images.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write to this file instead: .jsonl, .csv, .json (COCO).", rich_help_panel=options.DIRECTORIES
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="jsonl, csv or coco; overrides the suffix of --out.", rich_help_panel=options.DIRECTORIES),
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option(help="Write the images with their boxes into this folder.", rich_help_panel=options.DIRECTORIES),
    ] = None,
    *,
    given: Given,
) -> None:
    """Detect boxes in images with a served or an exported model; prints one line of JSON per image.

    With --out: tasks with boxes, as `annotate` and `db in` take them (jsonl); path, xmin, ymin, xmax, ymax, label and
    score, as `records from-csv` takes them (csv); or COCO's images, categories and annotations with scores (coco). An
    image that cannot be used is skipped with the reason; then the exit status is 1.
    """
    from odkeras.serving.predict import image_files, predict_files
    from odkeras.serving.prediction_files import choose_format

    settings = given.build(PredictSettings, **given.alternatives("model_name", "export_dir"))
    if (settings.model_name is None) == (settings.export_dir is None):
        raise ConfigError("give --model-name, for a model server, or --export-dir, for a version without a server")
    if format is not None and out is None:
        raise ConfigError("--format is for --out FILE")
    chosen = None if out is None else choose_format(out, format)
    files, (names, skeleton) = image_files(images), _names(settings)
    with ExitStack() as stack:
        model = _model(stack, settings)
        predictions = predict_files(
            files,
            model,
            threshold=settings.min_score,
            names=names,
            skeleton=skeleton,
            draw_dir=draw,
            max_pixels=settings.max_pixels,
        )
        if out is None or chosen is None:
            skipped = _print(predictions, len(files))
        else:
            skipped = _write(predictions, len(files), out, chosen, names)
    if skipped:
        raise typer.Exit(code=1)


def _names(settings: PredictSettings) -> tuple[dict[int, str], Skeleton | None]:
    """The names of classes and keypoints: the label map's, else those that an exported version brings along."""
    names: dict[int, str] = {}
    skeleton = None
    if settings.export_dir is not None:
        from odkeras.export.info import read_export_info
        from odkeras.serving.local import newest_version_dir

        info = read_export_info(newest_version_dir(settings.export_dir))
        if info is not None:
            names, skeleton = dict(info.labels), info.skeleton
    if settings.label_map is not None:
        from odkeras.keypoints import Skeleton
        from odkeras.labels import LabelMap

        label_map = LabelMap.load(settings.label_map)
        names = {label.id: label.name for label in label_map.labels}
        skeleton = skeleton or Skeleton(label_map.keypoint_names)
    return names, skeleton


def _model(stack: ExitStack, settings: PredictSettings) -> PredictBatch:
    if settings.export_dir is not None:
        from odkeras.logs import configure_logging
        from odkeras.serving.local import LocalModel, newest_version_dir

        configure_logging(verbose=False)
        return LocalModel(newest_version_dir(settings.export_dir))
    from odkeras.serving.client import ServingClient
    from odkeras.serving.predict import served, wait_for_model

    name = settings.model_name or ""
    with ServingClient(settings.url, name, timeout_s=2.0, connect_timeout_s=1.0, retries=0) as quick:
        wait_for_model(quick, connect_s=settings.wait)
    return served(stack.enter_context(ServingClient(settings.url, name)))


def _print(predictions: Iterable[FilePrediction], total: int) -> int:
    """Print a line of JSON for each image; returns how many were skipped."""
    from odkeras.web.exports import silence_standard_output

    skipped = 0
    with nullcontext() if sys.stdout.isatty() else progress_bar("images", total) as advance:
        for prediction in predictions if advance is None else _counted(predictions, advance):
            skipped += bool(prediction.error)
            try:
                say(json.dumps(prediction.to_json()), flush=True)
            except BrokenPipeError:  # the reader has closed the pipe
                silence_standard_output()
                break
    return skipped


def _write(predictions: Iterable[FilePrediction], total: int, out: Path, format: str, names: Mapping[int, str]) -> int:
    """Write the predictions to a file; returns how many images were skipped."""
    from odkeras.serving.prediction_files import write_predictions
    from odkeras.web.exports import opened_output

    with progress_bar("images", total) as advance, opened_output(out) as file:
        report = write_predictions(_counted(predictions, advance), file, format, names=names)
    for path, reason in report.skipped:
        say(f"skipped {path}: {reason}", file=sys.stderr)
    left_out = f", {len(report.skipped)} skipped" if report.skipped else ""
    say(f"{out}: {report.images} images, {report.boxes} boxes{left_out}", file=sys.stderr)
    return len(report.skipped)


def _counted(predictions: Iterable[FilePrediction], advance: Callable[..., None]) -> Iterator[FilePrediction]:
    for number, prediction in enumerate(predictions, start=1):
        yield prediction
        advance(number)


@with_options("rollback")
def rollback(*, given: Given) -> None:
    """Make an earlier version the newest again: a copy of it, under a new number, is served within a second or so.

    Nothing is deleted. The trainer's next round continues from its last checkpoint and publishes as usual.
    """
    from odkeras.export.rollback import plan_rollback, roll_back

    settings = given.build(RollbackSettings)
    plan = plan_rollback(settings.export_dir, settings.to)
    version = roll_back(settings.export_dir, plan)
    say(f"{settings.export_dir}: version {version}, a copy of {plan.source}, replaces {plan.newest}")


@with_options("upload")
def upload(
    url: Annotated[str, typer.Argument(metavar="URL", help="A prefix: s3://bucket/name, gs://bucket/name, az://...")],
    once: Annotated[bool, typer.Option("--once", help="Upload what is there, and end.")] = False,
    *,
    given: Given,
) -> None:
    """Copy versions into object storage as they are published, for model servers that read them there. Ctrl-C ends it.

    Older versions at the URL are deleted if odkeras uploaded them; nothing is deleted from the directory.
    """
    from odkeras.logs import configure_logging
    from odkeras.upkeep.upload import VersionUploader
    from odkeras.version_dirs import list_versions

    settings = given.build(UploadSettings)
    configure_logging()
    uploader = VersionUploader(settings.export_dir, url, settings.keep)

    def report(name: str) -> None:
        say(f"{uploader.url}/{name}", flush=True)

    if not once:
        say(f"uploading the versions of {settings.export_dir} to {uploader.url}; Ctrl-C ends it", file=sys.stderr)
        uploader.watch(report)
    if not list_versions(settings.export_dir):
        raise ConfigError(f"{settings.export_dir}: no versions to upload")
    uploader.upload_new(report)
