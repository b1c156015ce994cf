"""`odkeras trainer`, `train`, `eval` and `export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odkeras.cli import options
from odkeras.cli.options import Given, with_options
from odkeras.cli.progress import progress_bar
from odkeras.config.run import RunConfig, read_run
from odkeras.config.settings import TrainingSettings
from odkeras.errors import ConfigError
from odkeras.text import say

if TYPE_CHECKING:
    from odkeras.labels import LabelMap


def add_commands(app: typer.Typer) -> None:
    app.command("trainer", epilog="Example: odkeras trainer raccoons/ --steps-per-epoch 200")(trainer)
    app.command("train", epilog="Example: odkeras train raccoons/ --steps 3000")(train)
    app.command("eval", epilog="Example: odkeras eval raccoons/ --eval-steps 100")(evaluate)
    app.command("export", epilog="Example: odkeras export raccoons/ --checkpoint raccoons/model/ckpt-3000")(export)


@with_options("trainer")
def trainer(
    project: Annotated[Path | None, typer.Argument(metavar="CONFIG", help=options.CONFIG_HELP)] = None,
    run_config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="Take all options from this run.json, which `odkeras annotate` writes into the model directory; "
            "flags override it.",
            rich_help_panel=options.DIRECTORIES,
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="End when no answer is waiting.", rich_help_panel=options.TRAINING)
    ] = False,
    give_way: Annotated[
        bool,
        typer.Option(
            "--give-way",
            help="Let other processes on this machine have the processor first.",
            rich_help_panel=options.TRAINING,
        ),
    ] = False,
    stop_on_stdin_eof: Annotated[bool, typer.Option("--stop-on-stdin-eof", hidden=True)] = False,
    *,
    given: Given,
) -> None:
    """Run the trainer process: answers in DATA_DIR/inbox become versions in EXPORT_DIR.

    `annotate` and the Prodigy recipe start it themselves; start it by hand to train on another machine that sees the
    same three directories. It may be killed at any instant: the next start continues.

    With --strategy multi-worker start it on every machine, each with its own TF_CONFIG. The first worker is the chief:
    it takes the answers and writes versions, and the others train with it. A signal to one of them ends all.
    """
    from odkeras.heartbeat import send_heartbeats
    from odkeras.logs import configure_logging, quiet_import

    send_heartbeats(stalled_s=1800)  # before TensorFlow's import; building a large model can take many minutes
    settings = _trainer_settings(project, run_config, given)
    configure_logging(settings.tf_logging_level)
    quiet_import("tensorflow")
    from odkeras.training.process import run_trainer

    run_trainer(
        settings,
        once=once,
        stop_on_stdin_eof=stop_on_stdin_eof,
        give_way=give_way,
        live_version=_live_version(settings.serving_url, settings.model_name),
    )


def _trainer_settings(project: Path | None, run_config: Path | None, given: Given) -> RunConfig:
    if (project is None) == (run_config is None):
        raise ConfigError("give the project folder or its pipeline.config as CONFIG, or --config run.json")
    if run_config is None:
        return given.build(RunConfig)
    import msgspec

    return msgspec.structs.replace(read_run(run_config), **given.from_command_line())


def _live_version(serving_url: str, model_name: str) -> Callable[[], int | None]:
    if not serving_url:
        return lambda: None
    from odkeras.serving.client import ServingClient

    return ServingClient(serving_url, model_name, timeout_s=2.0, retries=0).available_version


@with_options("train")
def train(
    config: options.Config,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Train up to this global step; default: CONFIG's num_steps.", rich_help_panel=options.TRAINING
        ),
    ] = None,
    *,
    given: Given,
) -> None:
    """Train on CONFIG's own records, without the loop. Continues from the newest checkpoint; Ctrl-C writes one, and a
    second Ctrl-C ends at once.

    With --strategy multi-worker start it on every machine, each with its own TF_CONFIG, and with records of at least as
    many files as machines; Ctrl-C on one of them ends all.
    """
    from odkeras.logs import configure_logging, quiet_import

    settings = given.build(TrainingSettings)
    configure_logging(settings.tf_logging_level)
    quiet_import("tensorflow")
    import signal
    import threading

    from odkeras.model.setup import prepare_setup
    from odkeras.process import exit_on_second_signal
    from odkeras.training.strategy import grow_gpu_memory
    from odkeras.training.train import train_on_records

    grow_gpu_memory()
    setup = prepare_setup(settings, "train")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    steps_in_all = steps or setup.config.train_config.num_steps
    with exit_on_second_signal(), progress_bar("steps", steps_in_all) as advance:
        result = train_on_records(
            setup,
            settings,
            steps=steps,
            on_step=lambda report: advance(report.step, note=f"loss {report.loss:.3f}"),
            should_stop=stop.is_set,
        )
    loss = "" if result.loss is None else f", loss {result.loss:.3f}"
    say(f"{result.steps} steps in {result.seconds:.0f} s{loss}; checkpoints in {settings.project.model_dir}")


@with_options("eval")
def evaluate(
    config: options.Config,
    checkpoint: Annotated[
        str | None, typer.Option(help="Judge this checkpoint; default: the newest.", rich_help_panel=options.EVALUATION)
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(
            help="Judge this exported version instead, through its signature.", rich_help_panel=options.EVALUATION
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=options.EVALUATION)] = False,
    *,
    given: Given,
) -> None:
    """Evaluate a checkpoint, or an exported version, on CONFIG's eval_input_reader, with CONFIG's metrics_set.

    With --eval-steps, on a sample that is spread over all examples and always the same.
    """
    from odkeras.logs import configure_logging, quiet_import

    settings = given.build(TrainingSettings)
    configure_logging(settings.tf_logging_level, verbose=False)
    if version is not None and checkpoint is not None:
        raise ConfigError("--checkpoint and --version: give one of them")
    if version is None and given.is_flag("export_dir"):
        raise ConfigError("--export-dir: say with --version which version of it to judge")
    quiet_import("tensorflow")
    import json

    from odkeras.cli.eval_table import print_metrics
    from odkeras.model.setup import prepare_setup
    from odkeras.training.evaluation import evaluate_checkpoint, evaluate_version
    from odkeras.training.metrics import jsonable
    from odkeras.training.strategy import grow_gpu_memory

    grow_gpu_memory()
    setup = prepare_setup(settings, "eval", checkpoint=checkpoint, version=version)
    directories, sample = settings.project, settings.eval_steps
    with progress_bar("examples", sample) as advance:
        if version is None:
            metrics = evaluate_checkpoint(
                setup, directories.model_dir, checkpoint=checkpoint, max_examples=sample, progress=advance
            )
        else:
            metrics = evaluate_version(setup, directories.export_dir, version, max_examples=sample, progress=advance)
    if as_json:
        say(json.dumps(jsonable(metrics)))
    else:
        print_metrics(jsonable(metrics))
        say(_known_classes(setup.label_map, None if version is None else directories.export_dir / str(version)))


def _known_classes(label_map: LabelMap, version_dir: Path | None) -> str:
    """Which classes the evaluated model knows: a version may be older than a class."""
    from odkeras.export.info import read_export_info

    info = read_export_info(version_dir) if version_dir is not None else None
    ids = {id for id, _ in info.labels} if info is not None and info.labels else set(label_map.ids)
    known = ", ".join(label.name for label in label_map.labels if label.id in ids)
    unknown = ", ".join(label.name for label in label_map.labels if label.id not in ids)
    return f"\nknown classes: {known}" + (f"; not {unknown}" if unknown else "")


@with_options("export")
def export(
    config: options.Config,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Export this checkpoint; default: the newest, if any.", rich_help_panel=options.TRAINING),
    ] = None,
    *,
    given: Given,
) -> None:
    """Publish a SavedModel version for TensorFlow Serving. Without a checkpoint: freshly built weights."""
    from odkeras.logs import configure_logging, quiet_import

    settings = given.build(TrainingSettings)
    configure_logging(settings.tf_logging_level, verbose=False)
    quiet_import("tensorflow")
    from odkeras.export.command import export_version
    from odkeras.model.setup import prepare_setup
    from odkeras.training.strategy import grow_gpu_memory

    grow_gpu_memory()
    setup = prepare_setup(settings, "export", checkpoint=checkpoint)
    directories = settings.project
    result = export_version(setup, directories.model_dir, directories.export_dir, checkpoint=checkpoint)
    say(f"{result.directory}: step {result.step}, from {result.source}")
