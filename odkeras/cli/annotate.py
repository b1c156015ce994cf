"""`odkeras annotate` and `odkeras simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from odkeras.cli import options
from odkeras.cli.usage import AnnotateCommand


def add_commands(app: typer.Typer) -> None:
    app.command(
        "annotate", cls=AnnotateCommand, epilog="Example: odkeras annotate raccoons images/ raccoons/ -spe 100"
    )(annotate)
    app.command("simulate", epilog="Example: odkeras simulate train.csv raccoons/ --images images/ --annotations 40")(
        simulate
    )


def annotate(
    dataset: Annotated[str, typer.Argument(help="Dataset that the answers are stored in.")],
    source: Annotated[
        str, typer.Argument(help="Directory of images, image, JSONL file, dataset:NAME, or - for JSONL on stdin.")
    ],
    config: options.Config,
    ip: Annotated[
        str | None, typer.Argument(help="Address of a running TensorFlow Serving; else a model server is started.")
    ] = None,
    port: Annotated[int, typer.Argument(help="Its REST port; 8501 if only IP is given.", show_default=False)] = 0,
    model_name: Annotated[str | None, typer.Argument(help="Its model's name; odkeras if not given.")] = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address of the page; any but this machine's own needs a token.", rich_help_panel=options.PAGE
        ),
    ] = ("127.0.0.1"),
    web_port: Annotated[
        int, typer.Option(help="Port of the page; 0 takes a free one.", rich_help_panel=options.PAGE)
    ] = 8080,
    db: options.Database = None,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Do not open the page in a browser.", rich_help_panel=options.PAGE)
    ] = False,
    overlap: Annotated[
        bool,
        typer.Option(
            "--overlap",
            help="Ask every annotator (?session=NAME) about every image.",
            rich_help_panel=options.SUGGESTIONS,
        ),
    ] = False,
    answers_per_round: Annotated[
        int,
        typer.Option(
            help="Answers that begin a round of training; 'Train now' in the page does not wait for them.",
            rich_help_panel=options.TRAINING,
        ),
    ] = 5,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="ODKERAS_TOKEN",
            help="Token of a page for other machines; made up if not given.",
            rich_help_panel=options.PAGE,
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A name, besides this machine's own, that the page is opened by.", rich_help_panel=options.PAGE
        ),
    ] = None,
    label_map_path: options.LabelMapPath = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--label",
            "-l",
            help="Comma-separated labels to choose from, or a file of them; default: all.",
            rich_help_panel=options.SUGGESTIONS,
        ),
    ] = None,
    model_dir: options.ModelDir = None,
    export_dir: options.ExportDir = None,
    data_dir: options.DataDir = None,
    steps_per_epoch: Annotated[
        int,
        typer.Option(
            "--steps-per-epoch",
            "-spe",
            help="Training steps per round; -1: once over all answers, at least 100.",
            rich_help_panel=options.TRAINING,
        ),
    ] = -1,
    threshold: options.Threshold = "0.5",
    control: options.Control = 0.0,
    order: options.Order = "sequential",
    temp_files_num: options.TempFilesNum = 5,
    max_checkpoints_num: options.MaxCheckpointsNum = 5,
    run_eval: options.RunEval = False,
    eval_steps: Annotated[
        int, typer.Option("--eval-steps", "-es", help="Images to evaluate on.", rich_help_panel=options.EVALUATION)
    ] = 50,
    eval_split: options.EvalSplit = 0.0,
    publish_if_better: options.PublishIfBetter = False,
    publish_tolerance: options.PublishTolerance = 0.01,
    use_display_name: Annotated[
        bool,
        typer.Option(
            "--use-display-name", "-D", help="Show the label map's display names.", rich_help_panel=options.SUGGESTIONS
        ),
    ] = False,
    tf_logging_level: options.TfLoggingLevel = 40,
    exclude: Annotated[
        str | None,
        typer.Option(
            "--exclude",
            "-e",
            help="Comma-separated datasets whose images are left out.",
            rich_help_panel=options.SUGGESTIONS,
        ),
    ] = None,
    replay: options.Replay = "on",
    sync: Annotated[
        bool,
        typer.Option(
            "--sync",
            "-S",
            help="Wait after each batch until the model trained on it is served.",
            rich_help_panel=options.TRAINING,
        ),
    ] = False,
    external_trainer: Annotated[
        bool,
        typer.Option(
            "--external-trainer",
            "-xt",
            help="`odkeras trainer` runs elsewhere on these directories.",
            rich_help_panel=options.TRAINING,
        ),
    ] = False,
    predict_batch_size: Annotated[
        int,
        typer.Option(
            "--predict-batch-size", "-pbs", help="Images per prediction request.", rich_help_panel=options.SUGGESTIONS
        ),
    ] = 5,
) -> None:
    """Label images in a browser while a model learns from the answers and suggests the next boxes.

    Starts the page, the trainer and the model server. Ctrl-C stops all; the same command goes on from there.
    The answers are in annotations.db beside CONFIG; `odkeras db out DATASET --project FOLDER` writes them.
    """
    given = dict(locals())
    from dataclasses import fields

    from odkeras.images import absolute_path
    from odkeras.logs import configure_logging
    from odkeras.session.arguments import TrainmodelArguments, split_commas, split_list
    from odkeras.web.options import WebOptions
    from odkeras.web.server import PageOptions, run_annotate

    configure_logging(verbose=False)
    changed = {
        "config_path": str(absolute_path(config)),
        "source": _absolute_source(source),
        "label": split_list(label),
        "exclude": split_commas(exclude),
        "threshold": threshold_of(threshold),
        "label_map_path": None if label_map_path is None else str(absolute_path(label_map_path)),
        **{name: _directory(name, given[name], config, ip) for name in ("data_dir", "model_dir", "export_dir")},
    }
    shared = {field.name: given[field.name] for field in fields(TrainmodelArguments) if field.name in given}
    arguments = TrainmodelArguments(**{**shared, **changed})
    page = PageOptions(
        host=host,
        port=web_port,
        token=token,
        allowed_hosts=tuple(allowed_host or ()),
        open_browser=not no_open,
    )
    run_annotate(arguments, WebOptions(db=db, overlap=overlap, answers_per_round=answers_per_round), page)


def threshold_of(text: str) -> float | str:
    """Raises: ConfigError: neither a number nor auto."""
    from odkeras.errors import ConfigError
    from odkeras.session.thresholds import read_threshold

    try:
        return read_threshold(text)
    except ValueError as error:
        raise ConfigError(f"--threshold: {error}") from error


def _absolute_source(source: str) -> str:
    """So that it means the same from everywhere; what is no path stays as it is."""
    from odkeras.images import absolute_path

    return str(absolute_path(source)) if Path(source).exists() else source


def _directory(name: str, given: Path | None, config: Path, ip: str | None) -> str:
    """The one that was given, else the one beside CONFIG. With IP it was one in the working directory, with the 2019
    recipe's name, which is used if it is there."""
    from odkeras.images import absolute_path

    if given is not None:
        return str(absolute_path(given))
    if ip and Path(name).is_dir():
        return str(Path(name).absolute())
    return str(absolute_path(config).parent / name.removesuffix("_dir"))


def simulate(
    truth: Annotated[Path, typer.Argument(help="Known boxes: columns path,xmin,ymin,xmax,ymax,label; pixels.")],
    config: options.Config,
    images: Annotated[
        Path | None,
        typer.Option(help="Where relative paths start; default: beside TRUTH.", rich_help_panel=options.DIRECTORIES),
    ] = None,
    annotations: Annotated[
        int, typer.Option(help="Images to answer in all.", rich_help_panel=options.SUGGESTIONS)
    ] = 40,
    batch_size: Annotated[int, typer.Option(help="Images per round.", rich_help_panel=options.TRAINING)] = 10,
    report: Annotated[
        Path | None,
        typer.Option(
            help="For curve.json and curve.png; default: report/ beside CONFIG.", rich_help_panel=options.DIRECTORIES
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(help="Known boxes to measure on; default: a fifth of TRUTH.", rich_help_panel=options.EVALUATION),
    ] = None,
    threshold: options.Threshold = "0.5",
    order: options.Order = "sequential",
    order_seed: Annotated[
        int, typer.Option(help="Another one gives another random order.", rich_help_panel=options.SUGGESTIONS)
    ] = 0,
    data_dir: options.DataDir = None,
    model_dir: options.ModelDir = None,
    export_dir: options.ExportDir = None,
    label_map_path: options.LabelMapPath = None,
    steps_per_epoch: options.StepsPerEpoch = 100,
    max_checkpoints_num: options.MaxCheckpointsNum = 5,
    temp_files_num: options.TempFilesNum = 5,
    run_eval: options.RunEval = False,
    eval_steps: options.EvalSteps = None,
    eval_split: options.EvalSplit = 0.0,
    publish_if_better: options.PublishIfBetter = False,
    publish_tolerance: options.PublishTolerance = 0.01,
    replay: options.Replay = "on",
    strategy: options.Strategy = "none",
    tf_logging_level: options.TfLoggingLevel = 40,
) -> None:
    """Play the annotator from known boxes, and draw how fast the model learns.

    Runs the whole loop: suggestions, answers, training, new versions. A second call with the same directories goes on.
    """
    from odkeras.simulation.simulate import simulate as run

    result = run(
        truth,
        config,
        images,
        annotations=annotations,
        batch_size=batch_size,
        report_dir=report,
        test_csv=test,
        threshold=threshold_of(threshold),
        order=order,
        order_seed=order_seed,
        data_dir=data_dir,
        model_dir=model_dir,
        export_dir=export_dir,
        label_map=Path(label_map_path) if label_map_path else None,
        steps_per_epoch=steps_per_epoch,
        max_checkpoints_num=max_checkpoints_num,
        temp_files_num=temp_files_num,
        run_eval=run_eval,
        eval_steps=eval_steps,
        eval_split=eval_split,
        publish_if_better=publish_if_better,
        publish_tolerance=publish_tolerance,
        replay=replay,
        strategy=strategy,
        tf_logging_level=tf_logging_level,
    )
    print(f"{result.curve_json}\n{result.curve_png}")
