"""`odkeras serve`, `odkeras predict` and `odkeras rollback`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from odkeras.cli import options

ModelName = Annotated[str, typer.Option("--model-name", "--model_name", help="Name of the model in the URL.")]


def add_commands(app: typer.Typer) -> None:
    app.command("serve", epilog="Example: odkeras serve --model-name raccoon --model-base-path raccoons/export")(serve)
    app.command("predict", epilog="Example: odkeras predict photo.jpg --model-name raccoon --draw out/")(predict)
    app.command("rollback", epilog="Example: odkeras rollback --export-dir raccoons/export")(rollback)


def serve(
    model_name: ModelName,
    model_base_path: Annotated[
        Path, typer.Option("--model-base-path", "--model_base_path", help="Directory with the numbered versions.")
    ],
    rest_api_port: Annotated[
        int, typer.Option("--rest-api-port", "--rest_api_port", help="0 takes a free one.")
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
    gpu: Annotated[bool, typer.Option("--gpu", help="Use the GPU, which is left to the trainer otherwise.")] = False,
    tf_logging_level: options.TfLoggingLevel = 40,
    socket_fd: Annotated[int | None, typer.Option("--socket-fd", hidden=True)] = None,
    stop_on_stdin_eof: Annotated[bool, typer.Option("--stop-on-stdin-eof", hidden=True)] = False,
) -> None:
    """Serve the newest version over TensorFlow Serving's REST API; new versions are taken up without an
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
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model_name: ModelName,
    url: Annotated[str, typer.Option(help="The model server.")] = "http://127.0.0.1:8501",
    threshold: Annotated[float, typer.Option("--threshold", "-t", help="Leave out boxes with a lower score.")] = 0.5,
    label_map: Annotated[
        Path | None, typer.Option("--label-map", "-lmp", help="To print names instead of ids.")
    ] = None,
    draw: Annotated[Path | None, typer.Option(help="Write the images with their boxes into this directory.")] = None,
) -> None:
    """Ask a model server for the boxes in images; prints one line of JSON per image."""
    import json

    from odkeras.labels import LabelMap
    from odkeras.serving.predict import predict_files

    names = LabelMap.load(label_map) if label_map else None
    failed = False
    for result in predict_files(images, url, model_name, threshold=threshold, label_map=names, draw_dir=draw):
        failed |= "error" in result
        print(json.dumps(result), flush=True)
    if failed:
        raise typer.Exit(code=1)


def rollback(
    export_dir: Annotated[Path, typer.Option("--export-dir", "-ed", help="Directory with the numbered versions.")],
    to: Annotated[int | None, typer.Option(help="Go back to this version; default: the one before the newest.")] = None,
) -> None:
    """Make an earlier version the newest again: a copy of it, under a new number, is served within a second or so.

    Nothing is deleted. The trainer leaves it at that until its next round, which trains on from its last checkpoint and
    publishes as usual.
    """
    from odkeras.export.rollback import plan_rollback, roll_back

    plan = plan_rollback(export_dir, to)
    version = roll_back(export_dir, plan)
    print(f"{export_dir}: version {version}, a copy of {plan.source}, takes the place of {plan.newest}")
