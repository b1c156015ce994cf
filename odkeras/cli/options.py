"""Options that several commands have, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path, typer.Argument(help="The pipeline.config.")]
ModelDir = Annotated[
    Path | None, typer.Option("--model-dir", "-md", help="Checkpoints and TensorBoard; default: model/ beside CONFIG.")
]
ExportDir = Annotated[
    Path | None, typer.Option("--export-dir", "-ed", help="Model versions; default: export/ beside CONFIG.")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", "-dd", help="Answers and records; default: data/ beside CONFIG.")
]
LabelMapPath = Annotated[
    str | None, typer.Option("--label-map-path", "-lmp", help="The label map; default: the one that CONFIG names.")
]
StepsPerEpoch = Annotated[
    int,
    typer.Option(
        "--steps-per-epoch", "-spe", help="Training steps per round; -1 = once over the training set, 0 = at least 100."
    ),
]
Replay = Annotated[str, typer.Option(help="on = train on everything so far; off = on the newest answers only.")]
MaxCheckpointsNum = Annotated[int, typer.Option("--max-checkpoints-num", "-mcn", help="Checkpoints to keep; 0 = all.")]
TempFilesNum = Annotated[int, typer.Option("--temp-files-num", "-tfn", help="Records and versions to keep; 0 = all.")]
RunEval = Annotated[
    bool, typer.Option("--run-eval", "-E", help="Evaluate after each round, on CONFIG's eval_input_reader.")
]
EvalSteps = Annotated[
    int | None, typer.Option("--eval-steps", "-es", help="Evaluate on a sample of so many examples; default: all.")
]
EvalSplit = Annotated[
    float,
    typer.Option(
        "--eval-split",
        "-esp",
        help="Share of the answers, such as 0.2, that is not trained on, but evaluated on after each round.",
    ),
]
PublishIfBetter = Annotated[
    bool,
    typer.Option(
        "--publish-if-better",
        "-pib",
        help="Evaluate first, and publish only what is not worse than the version that is served.",
    ),
]
PublishTolerance = Annotated[
    float, typer.Option("--publish-tolerance", "-pt", help="How much worse it may be, in mAP from 0 to 1.")
]
Strategy = Annotated[
    str, typer.Option(help="How to distribute training: none, mirrored (all GPUs of this machine), multi-worker.")
]
Threshold = Annotated[
    str,
    typer.Option(
        "--threshold", "-t", help="Lowest score of a suggestion, 0 to 1; auto: learnt for each class from the answers."
    ),
]
Control = Annotated[
    float, typer.Option("--control", "-ctl", help="Share of images shown without suggestions, for comparison: 0.05.")
]
Order = Annotated[
    str, typer.Option("--order", "-o", help="Order of the images: sequential, random, uncertain (see README).")
]
Database = Annotated[Path, typer.Option("--db", envvar="ODKERAS_DB", help="The database of answers.")]
TfLoggingLevel = Annotated[
    int, typer.Option("--tf-logging-level", "-tl", help="10 debug, 20 info, 30 warning, 40 error, 50 fatal.")
]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Images per training step; default: CONFIG's.")]


def beside(config: Path, given: Path | None, name: str) -> Path:
    """The directory that was given, else the one of that name beside the config."""
    return given if given is not None else config.parent / name
