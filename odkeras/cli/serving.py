"""`odkeras serve`, `odkeras predict` and `odkeras rollback`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odkeras.cli import options
from odkeras.cli.progress import progress_bar

if TYPE_CHECKING:
    from odkeras.serving.predict import FilePrediction, Predict

ModelName = Annotated[str, typer.Option("--model-name", "--model_name", help="Name of the model in the URL.")]


def add_commands(app: typer.Typer) -> None:
    app.command("serve", epilog="Example: odkeras serve --model-name raccoon --model-base-path raccoons/export")(serve)
    app.command("predict", epilog="Example: odkeras predict photos/ --export-dir raccoons/export --out boxes.csv")(
        predict
    )
    app.command("rollback", epilog="Example: odkeras rollback --export-dir raccoons/export")(rollback)


def serve(
    model_name: ModelName,
    model_base_path: Annotated[
        Path, typer.Option("--model-base-path", "--model_base_path", help="Directory with the numbered versions.")
    ],
    rest_api_port: Annotated[
        int, typer.Option("--rest-api-port", "--rest_api_port", help="0 selects a free port.")
    ] = 8501,
    file_system_poll_wait_seconds: Annotated[
        float,
        typer.Option(
            "--file-system-poll-wait-seconds",
            "--file_system_poll_wait_seconds",
            help="How often to look for a new version.",
        ),
    ] = 1.0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    gpu: Annotated[bool, typer.Option("--gpu", help="Use the GPU; by default only the trainer uses it.")] = False,
    tf_logging_level: options.TfLoggingLevel = 40,
    socket_fd: Annotated[int | None, typer.Option("--socket-fd", hidden=True)] = None,
    stop_on_stdin_eof: Annotated[bool, typer.Option("--stop-on-stdin-eof", hidden=True)] = False,
) -> None:
    """Serve the newest version over TensorFlow Serving's REST API; new versions are loaded without
    interruption."""
    from odkeras.logs import configure_logging

    configure_logging(tf_logging_level)
    from odkeras.serving.server import ServerOptions, run_server

    run_server(
        ServerOptions(
            model_name=model_name,
            model_base_path=model_base_path,
            rest_api_port=rest_api_port,
            host=host,
            file_system_poll_wait_seconds=file_system_poll_wait_seconds,
            socket_fd=socket_fd,
            stop_on_stdin_eof=stop_on_stdin_eof,
            gpu=gpu,
        )
    )


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, and folders of images.")],
    model_name: Annotated[
        str | None,
        typer.Option(
            "--model-name", "--model_name", help="Name of the model on the server.", rich_help_panel=options.SERVING
        ),
    ] = None,
    url: Annotated[str, typer.Option(help="The model server.", rich_help_panel=options.SERVING)] = (
        "http://127.0.0.1:8501"
    ),
    wait: Annotated[
        float,
        typer.Option(help="Seconds to wait for a server that is being started.", rich_help_panel=options.SERVING),
    ] = 1.0,
    export_dir: Annotated[
        Path | None,
        typer.Option(
            "--export-dir",
            "-ed",
            help="Without a server: load the newest version of this directory, or this version.",
            rich_help_panel=options.SERVING,
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", "-t", help="Leave out boxes with a lower score.", rich_help_panel=options.SUGGESTIONS
        ),
    ] = 0.5,
    label_map: Annotated[
        Path | None,
        typer.Option(
            "--label-map",
            "-lmp",
            help="Label map for names instead of ids; not needed with --export-dir.",
            rich_help_panel=options.SUGGESTIONS,
        ),
    ] = None,
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
) -> None:
    """Detect boxes in images with a served or an exported model; prints one line of JSON per image.

    With --out: tasks with boxes, as `annotate` and `db in` take them (jsonl); path, xmin, ymin, xmax, ymax, label and
    score, as `records from-csv` takes them (csv); or COCO's images, categories and annotations with scores (coco). An
    image that cannot be used is skipped with the reason; then the exit status is 1.
    """
    from odkeras.errors import ConfigError
    from odkeras.serving.predict import image_files
    from odkeras.serving.prediction_files import choose_format

    if (model_name is None) == (export_dir is None):
        raise ConfigError("give --model-name, for a model server, or --export-dir, for a version without a server")
    if format is not None and out is None:
        raise ConfigError("--format is for --out FILE")
    chosen = None if out is None else choose_format(out, format)
    files = image_files(images)
    names = _names(label_map, export_dir)
    with ExitStack() as stack:
        model = _model(stack, model_name, url, wait, export_dir)
        skipped = _predict(files, model, threshold, names, draw, out, chosen)
    if skipped:
        raise typer.Exit(code=1)


def _names(label_map: Path | None, export_dir: Path | None) -> dict[int, str]:
    """The label map's, else those that an exported version brings along."""
    if label_map is not None:
        from odkeras.labels import LabelMap

        return {label.id: label.name for label in LabelMap.load(label_map).labels}
    if export_dir is None:
        return {}
    from odkeras.export.info import read_export_info
    from odkeras.serving.local import newest_version_dir

    info = read_export_info(newest_version_dir(export_dir))
    return {} if info is None else dict(info.labels)


def _model(stack: ExitStack, model_name: str | None, url: str, wait_s: float, export_dir: Path | None) -> Predict:
    if export_dir is not None:
        from odkeras.logs import configure_logging
        from odkeras.serving.local import LocalModel, newest_version_dir

        configure_logging(verbose=False)
        return LocalModel(newest_version_dir(export_dir))
    from odkeras.serving.client import ServingClient
    from odkeras.serving.predict import served, wait_for_model

    assert model_name is not None
    with ServingClient(url, model_name, timeout_s=2.0, connect_timeout_s=1.0, retries=0) as quick:
        wait_for_model(quick, connect_s=wait_s)
    return served(stack.enter_context(ServingClient(url, model_name)))


def _predict(
    files: Sequence[Path],
    model: Predict,
    threshold: float,
    names: Mapping[int, str],
    draw: Path | None,
    out: Path | None,
    format: str | None,
) -> int:
    """How many images were skipped."""
    from odkeras.serving.predict import predict_files

    predictions = predict_files(files, model, threshold=threshold, names=names, draw_dir=draw)
    if out is None or format is None:
        with nullcontext() if sys.stdout.isatty() else progress_bar("images", len(files)) as advance:
            return _print(predictions if advance is None else _counted(predictions, advance))
    from odkeras.serving.prediction_files import write_predictions
    from odkeras.web.exports import opened_output

    with progress_bar("images", len(files)) as advance, opened_output(out) as file:
        report = write_predictions(_counted(predictions, advance), file, format, names=names)
    for path, reason in report.skipped:
        print(f"skipped {path}: {reason}", file=sys.stderr)
    left_out = f", {len(report.skipped)} skipped" if report.skipped else ""
    print(f"{out}: {report.images} images, {report.boxes} boxes{left_out}", file=sys.stderr)
    return len(report.skipped)


def _print(predictions: Iterable[FilePrediction]) -> int:
    from odkeras.web.exports import silence_standard_output

    skipped = 0
    for prediction in predictions:
        skipped += bool(prediction.error)
        try:
            print(json.dumps(prediction.to_json()), flush=True)
        except BrokenPipeError:  # the reader has closed the pipe
            silence_standard_output()
            return skipped
    return skipped


def _counted(predictions: Iterable[FilePrediction], advance: Callable[..., None]) -> Iterator[FilePrediction]:
    for number, prediction in enumerate(predictions, start=1):
        yield prediction
        advance(number)


def rollback(
    export_dir: Annotated[Path, typer.Option("--export-dir", "-ed", help="Directory with the numbered versions.")],
    to: Annotated[int | None, typer.Option(help="Go back to this version; default: the one before the newest.")] = None,
) -> None:
    """Make an earlier version the newest again: a copy of it, under a new number, is served within a second or so.

    Nothing is deleted. The trainer's next round continues from its last checkpoint and publishes as usual.
    """
    from odkeras.export.rollback import plan_rollback, roll_back

    plan = plan_rollback(export_dir, to)
    version = roll_back(export_dir, plan)
    print(f"{export_dir}: version {version}, a copy of {plan.source}, replaces {plan.newest}")
