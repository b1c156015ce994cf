"""The next steps once all images are answered, as shell commands for the machine where `odkeras annotate` runs.

They contain absolute, quoted paths and every option that the project needs, so they work from any directory.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from odkeras.config.settings import SessionSettings
from odkeras.database_url import DatabaseLocation, absolute_location
from odkeras.errors import OdkerasError
from odkeras.pipeline import check_pipeline, load_pipeline
from odkeras.session.setup import load_label_map
from odkeras.web.replies import NextStep


def next_steps(options: SessionSettings, dataset: str, db: DatabaseLocation) -> list[NextStep]:
    """Commands to evaluate and export the model, if one has been trained, and to export the labels.

    Args:
        db: the answer database.
    """
    trained = [*_evaluation(options), _export(options)] if _is_trained(options) else []
    return [*trained, *_labels(options, dataset, db)]


def _is_trained(options: SessionSettings) -> bool:
    """Whether there is a checkpoint. Without one, evaluation fails and an export would contain random weights."""
    return any(options.project.model_dir.glob("ckpt-*.index"))


def _evaluation(options: SessionSettings) -> list[NextStep]:
    project = options.project
    stats = _command("stats", options.config.absolute(), *_unless_usual(options, "data", project.data_dir))
    useful = NextStep("See how good the suggestions were", stats)
    if _has_examples_to_evaluate(options):
        return [NextStep("Evaluate the model", _command("eval", *_of_model(options))), useful]
    remark = (
        "mAP needs images that the model was not trained on: annotate with --eval-split 0.2, which keeps a fifth of "
        "the answers for that, or write records with odkeras records from-csv, and run odkeras eval."
    )
    return [NextStep(useful.title, useful.command, remark)]


def _export(options: SessionSettings) -> NextStep:
    target = options.config.absolute().parent / "final"
    return NextStep(
        "Export the model for TensorFlow Serving", _command("export", *_of_model(options), "--export-dir", target)
    )


def _labels(options: SessionSettings, dataset: str, db: DatabaseLocation) -> list[NextStep]:
    folder = options.config.absolute().parent

    def out(file: str, *more: str) -> str:
        return export_command(dataset, db, *more, out=folder / file)

    return [
        NextStep("Get the labels, as JSON lines", out("answers.jsonl")),
        NextStep("Get the labels, as COCO", out("answers_coco.json", "--format", "coco")),
        NextStep(
            "Get the labels and the images for another tool, here YOLO",
            _command(
                *("export-labels", "--db", absolute_location(db), "--format", "yolo", "--split", "0.8/0.2"),
                *_as_argument(dataset),
                folder / "answers_yolo",
            ),
            "--format has others: coco, voc, csv, tfrecord, labelstudio, cvat and jsonl.",
        ),
    ]


def export_command(dataset: str, db: DatabaseLocation, *options: str, out: Path | None = None) -> str:
    """The shell command of `odkeras db out`.

    Args:
        out: the file to write; standard output when None.
    """
    files = [] if out is None else [out]
    return _command("db", "out", "--db", absolute_location(db), *options, *_as_argument(dataset), *files)


def _as_argument(dataset: str) -> list[str]:
    return ["--", dataset] if dataset.startswith("-") else [dataset]


def _of_model(options: SessionSettings) -> list[str | Path]:
    given: list[str | Path] = [options.config.absolute(), *_unless_usual(options, "model", options.project.model_dir)]
    if options.label_map_path is not None:
        given += ["--label-map-path", options.label_map_path.absolute()]
    return given


def _unless_usual(options: SessionSettings, name: str, directory: Path) -> list[str | Path]:
    """The option for a directory; empty if the directory is where commands look by default."""
    if directory.absolute() == options.config.absolute().parent / name:
        return []
    return [f"--{name}-dir", directory.absolute()]


def _has_examples_to_evaluate(options: SessionSettings) -> bool:
    """Whether the config has what `odkeras eval` needs."""
    try:
        config = load_pipeline(options.config)
        problems = check_pipeline(config, label_map=load_label_map(options), purpose="eval")
    except OdkerasError:
        return False
    return not any(problem.severity == "error" for problem in problems)


def _command(*words: str | DatabaseLocation) -> str:
    return shlex.join([*_program(), *map(str, words)])


def _program() -> list[str]:
    """`odkeras` if a shell with our PATH finds this installation, else its absolute path."""
    ours = Path(sys.executable).with_name("odkeras")
    command = shutil.which("odkeras")
    if command is not None and Path(command).absolute() == ours.absolute():
        return ["odkeras"]
    return [str(ours)] if ours.is_file() else [sys.executable, "-m", "odkeras"]
