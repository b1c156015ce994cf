"""`odkeras simulate`: hosts of the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from odkeras.cli import options


def add_commands(app: typer.Typer) -> None:
    app.command(
        "simulate", epilog="Example: odkeras simulate train.csv p/pipeline.config --images images/ --annotations 40"
    )(simulate)


def simulate(
    truth: Annotated[Path, typer.Argument(help="Known boxes: columns path,xmin,ymin,xmax,ymax,label; pixels.")],
    config: options.Config,
    images: Annotated[Path | None, typer.Option(help="Where relative paths start; default: beside TRUTH.")] = None,
    annotations: Annotated[int, typer.Option(help="Images to answer in all.")] = 40,
    batch_size: Annotated[int, typer.Option(help="Images per round.")] = 10,
    report: Annotated[
        Path | None, typer.Option(help="For curve.json and curve.png; default: report/ beside CONFIG.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Known boxes to measure on; default: a fifth of TRUTH.")] = None,
    threshold: Annotated[float, typer.Option("--threshold", "-t", help="Lowest score of a suggestion.")] = 0.5,
    data_dir: options.DataDir = None,
    model_dir: options.ModelDir = None,
    export_dir: options.ExportDir = None,
    label_map_path: options.LabelMapPath = None,
    steps_per_epoch: options.StepsPerEpoch = 100,
    max_checkpoints_num: options.MaxCheckpointsNum = 5,
    temp_files_num: options.TempFilesNum = 5,
    run_eval: options.RunEval = False,
    eval_steps: options.EvalSteps = None,
    replay: options.Replay = "on",
    strategy: options.Strategy = "none",
    tf_logging_level: options.TfLoggingLevel = 40,
) -> None:
    """Play the annotator from known boxes, and draw how fast the model learns.

    Runs the whole loop: suggestions, answers, training, new versions. A second call with the same directories goes on.
    """
    from odkeras.hosts.simulate import simulate as run

    result = run(
        truth,
        config,
        images,
        annotations=annotations,
        batch_size=batch_size,
        report_dir=report,
        test_csv=test,
        threshold=threshold,
        data_dir=data_dir,
        model_dir=model_dir,
        export_dir=export_dir,
        label_map=Path(label_map_path) if label_map_path else None,
        steps_per_epoch=steps_per_epoch,
        max_checkpoints_num=max_checkpoints_num,
        temp_files_num=temp_files_num,
        run_eval=run_eval,
        eval_steps=eval_steps,
        replay=replay,
        strategy=strategy,
        tf_logging_level=tf_logging_level,
    )
    print(f"{result.curve_json}\n{result.curve_png}")
