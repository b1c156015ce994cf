"""`odkeras training`: pause, resume and stop the training of a project, from wherever its directories are seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from odkeras.project import Project

_SILENT_S = 30.0

Where = Annotated[Path, typer.Argument(metavar="PROJECT", help="The project's folder, or its pipeline.config.")]
ModelDir = Annotated[
    Path | None, typer.Option("--model-dir", "-md", help="The trainer's model directory; default: model/ in PROJECT.")
]

training = typer.Typer(
    name="training",
    help="Pause, resume or stop training while people go on annotating. It stays so over a restart.",
    epilog="Example: odkeras training pause raccoons",
    no_args_is_help=True,
)


def add_commands(app: typer.Typer) -> None:
    app.add_typer(training)


@training.command("pause", epilog="Example: odkeras training pause raccoons")
def pause(project: Where, model_dir: ModelDir = None) -> None:
    """Hold training between two steps; `resume` goes on from there. Answers are kept."""
    _set("pause", project, model_dir)


@training.command("resume", epilog="Example: odkeras training resume raccoons")
def resume(project: Where, model_dir: ModelDir = None) -> None:
    """Go on with training that was paused or stopped."""
    _set("resume", project, model_dir)


@training.command("stop", epilog="Example: odkeras training stop raccoons/pipeline.config")
def stop(project: Where, model_dir: ModelDir = None) -> None:
    """End the round under way now, publish what it has learned, and begin no other one until `resume`."""
    _set("stop", project, model_dir)


@training.command("status", epilog="Example: odkeras training status raccoons --model-dir /shared/raccoons/model")
def status(project: Where, model_dir: ModelDir = None) -> None:
    """Say whether training is paused, and what the trainer does."""
    from odkeras.control import Control

    directories = _directories(project, model_dir)
    _say(Control(directories.control_path).state, directories)


def _set(action: str, project: Path, model_dir: Path | None) -> None:
    from odkeras.control import Control

    directories = _directories(project, model_dir)
    state = Control(directories.control_path).set(action)
    _say(state, directories)


def _say(state: str, directories: Project) -> None:
    from odkeras.control import RUNNING

    print(f"training is {'not paused' if state == RUNNING else state}; {_trainer_words(directories)}")


def _directories(project: Path, model_dir: Path | None) -> Project:
    """Raises: ConfigError: there is no model directory: nothing has been trained there."""
    from odkeras.errors import ConfigError
    from odkeras.project import Project

    folder = project if project.is_dir() else project.parent
    model_dir = model_dir or folder / "model"
    if not model_dir.is_dir():
        raise ConfigError(
            f"{model_dir}: no such model directory; name the project's folder or its pipeline.config, or give "
            "--model-dir. `odkeras annotate` and `odkeras trainer` make it"
        )
    return Project(folder / "data", model_dir, folder / "export")


def _trainer_words(directories: Project) -> str:
    import time

    from odkeras.project import read_status

    found: dict[str, Any] | None = read_status(directories.status_path)
    if found is None:
        return "no trainer has run here yet"
    said = f"{found.get('state')}: {found.get('reason')}" if found.get("reason") else str(found.get("state"))
    silent_s = time.time() - float(found.get("updated") or 0)
    if silent_s < _SILENT_S and found.get("state") != "failed":
        return f"the trainer says: {said}"
    return f"no trainer is at work; the last one said: {said}"
