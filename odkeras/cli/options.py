"""Options that several commands have, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from odkeras.project import config_path

DIRECTORIES = "Directories and files"
TRAINING = "Model and training"
EVALUATION = "Evaluation"
SUGGESTIONS = "Images and suggestions"
SERVING = "Serving"
PAGE = "Page"
COST = "What an action costs"


Config = Annotated[Path, typer.Argument(help="The project folder, or its pipeline.config.", callback=config_path)]
ModelDir = Annotated[
    Path | None,
    typer.Option(
        "--model-dir",
        "-md",
        help="Checkpoints and TensorBoard; default: model/ beside CONFIG.",
        rich_help_panel=DIRECTORIES,
    ),
]
ExportDir = Annotated[
    Path | None,
    typer.Option(
        "--export-dir", "-ed", help="Model versions; default: export/ beside CONFIG.", rich_help_panel=DIRECTORIES
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", "-dd", help="Answers and records; default: data/ beside CONFIG.", rich_help_panel=DIRECTORIES
    ),
]
LabelMapPath = Annotated[
    str | None,
    typer.Option(
        "--label-map-path",
        "-lmp",
        help="The label map; default: the one that CONFIG names.",
        rich_help_panel=DIRECTORIES,
    ),
]
StepsPerEpoch = Annotated[
    int,
    typer.Option(
        "--steps-per-epoch",
        "-spe",
        help="Training steps per round; -1: once over all answers, at least 100.",
        rich_help_panel=TRAINING,
    ),
]
Replay = Annotated[
    str,
    typer.Option(help="on = train on everything so far; off = on the newest answers only.", rich_help_panel=TRAINING),
]
MaxCheckpointsNum = Annotated[
    int, typer.Option("--max-checkpoints-num", "-mcn", help="Checkpoints to keep; 0 = all.", rich_help_panel=TRAINING)
]
TempFilesNum = Annotated[
    int,
    typer.Option("--temp-files-num", "-tfn", help="Records and versions to keep; 0 = all.", rich_help_panel=TRAINING),
]
RunEval = Annotated[
    bool,
    typer.Option(
        "--run-eval", "-E", help="Evaluate after each round, on CONFIG's eval_input_reader.", rich_help_panel=EVALUATION
    ),
]
EvalSteps = Annotated[
    int | None,
    typer.Option(
        "--eval-steps",
        "-es",
        help="Evaluate on a sample of so many examples; default: all.",
        rich_help_panel=EVALUATION,
    ),
]
EvalSplit = Annotated[
    float,
    typer.Option(
        "--eval-split",
        "-esp",
        help="Share of the answers, such as 0.2, that is not trained on, but evaluated on after each round.",
        rich_help_panel=EVALUATION,
    ),
]
PublishIfBetter = Annotated[
    bool,
    typer.Option(
        "--publish-if-better",
        "-pib",
        help="Evaluate first, and publish only what is not worse than the version that is served.",
        rich_help_panel=EVALUATION,
    ),
]
PublishTolerance = Annotated[
    float,
    typer.Option(
        "--publish-tolerance", "-pt", help="How much worse it may be, in mAP from 0 to 1.", rich_help_panel=EVALUATION
    ),
]
Strategy = Annotated[
    str,
    typer.Option(
        help="How to distribute training: none, mirrored (all GPUs of this machine), multi-worker.",
        rich_help_panel=TRAINING,
    ),
]
Threshold = Annotated[
    str,
    typer.Option(
        "--threshold",
        "-t",
        help="Lowest score of a suggestion, 0 to 1; auto: learnt for each class from the answers.",
        rich_help_panel=SUGGESTIONS,
    ),
]
Control = Annotated[
    float,
    typer.Option(
        "--control",
        "-ctl",
        help="Share of images shown without suggestions, for comparison: 0.05.",
        rich_help_panel=SUGGESTIONS,
    ),
]
Order = Annotated[
    str,
    typer.Option(
        "--order",
        "-o",
        help="Order of the images: sequential, random, uncertain (what the model is least sure about first).",
        rich_help_panel=SUGGESTIONS,
    ),
]
Database = Annotated[
    Path | None,
    typer.Option(
        "--db",
        envvar="ODKERAS_DB",
        help="The database of answers; default: annotations.db beside CONFIG, or where its answers are.",
        rich_help_panel=DIRECTORIES,
    ),
]
TfLoggingLevel = Annotated[
    int,
    typer.Option(
        "--tf-logging-level", "-tl", help="10 debug, 20 info, 30 warning, 40 error, 50 fatal.", rich_help_panel=TRAINING
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", help="Images per training step; default: CONFIG's.", rich_help_panel=TRAINING),
]


def beside(config: Path, given: Path | None, name: str) -> Path:
    """The directory that was given, else the one of that name beside the config."""
    return given if given is not None else config.parent / name
