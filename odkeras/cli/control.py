"""`odkeras training`: pause, resume and stop the training of a project, from wherever its directories are seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from odkeras.cli.options import Given, ProjectFolder, with_options
from odkeras.config.settings import TrainingSettings
from odkeras.text import say

if TYPE_CHECKING:
    from odkeras.control import TrainingAction
    from odkeras.project import Project

_SILENT_S = 30.0
_HELD = ("paused", "stopped")
_GONE = ("failed", "ended")
_AT_WORK = "trainer status:"

training = typer.Typer(
    name="training",
    help="Pause, resume or stop training while annotation continues. The setting survives a restart.",
    epilog="Example: odkeras training pause raccoons",
    no_args_is_help=True,
)


def add_commands(app: typer.Typer) -> None:
    app.add_typer(training)


@training.command("pause", epilog="Example: odkeras training pause raccoons")
@with_options("training")
def pause(project: ProjectFolder, *, given: Given) -> None:
    """Pause training after the current step; `resume` continues from there. Answers are kept."""
    _set("pause", given)


@training.command("resume", epilog="Example: odkeras training resume raccoons")
@with_options("training")
def resume(project: ProjectFolder, *, given: Given) -> None:
    """Resume training that was paused or stopped."""
    _set("resume", given)


@training.command("stop", epilog="Example: odkeras training stop raccoons/pipeline.config")
@with_options("training")
def stop(project: ProjectFolder, *, given: Given) -> None:
    """End the current round now, publish its model, and start no other round until `resume`."""
    _set("stop", given)


@training.command("status", epilog="Example: odkeras training status raccoons --model-dir /shared/raccoons/model")
@with_options("training")
def status(project: ProjectFolder, *, given: Given) -> None:
    """Print whether training is paused, and the trainer's status."""
    from odkeras.control import Control

    directories = _directories(given)
    _say(Control(directories.control_path).state, directories)


def _set(action: TrainingAction, given: Given) -> None:
    from odkeras.control import Control

    directories = _directories(given)
    state = Control(directories.control_path).set(action)
    _say(state, directories)


def _say(state: str, directories: Project) -> None:
    """What was set, and what the trainer does unless it says the opposite: it has not seen the change yet."""
    from odkeras.control import RUNNING
    from odkeras.project import read_status

    status = read_status(directories.status_path)
    trainer_state = str((status or {}).get("state"))
    lags = trainer_state in _HELD if state == RUNNING else trainer_state == "training"
    words = _trainer_words(directories, status)
    tail = "" if lags and words.startswith(_AT_WORK) else f"; {words}"
    say(f"training is {'not paused' if state == RUNNING else state}{tail}")


def _directories(given: Given) -> Project:
    """Raises: ConfigError: no such project, or no model directory: nothing has been trained there."""
    from odkeras.errors import ConfigError

    if given.config is None or not given.config.is_file():
        raise ConfigError(f"{given.config}: no such project; name its folder or its pipeline.config")
    project = given.build(TrainingSettings).project
    if not project.model_dir.is_dir():
        raise ConfigError(
            f"{project.model_dir}: no such model directory; name the project's folder or its pipeline.config, or give "
            "--model-dir. `odkeras annotate` and `odkeras trainer` create it"
        )
    return project


def _trainer_words(directories: Project, status: dict[str, Any] | None) -> str:
    if status is None:
        return "no trainer has run here yet"
    state, reason = str(status.get("state")), str(status.get("reason") or "")
    says_it_again = reason and (reason.startswith(state) or state == "stopped")
    text = reason if says_it_again else f"{state}: {reason}" if reason else state
    if _is_at_work(directories, status):
        return f"{_AT_WORK} {text}"
    return f"no trainer is running; its last status: {text}"


def _is_at_work(directories: Project, status: dict[str, Any]) -> bool:
    """By its lock, since it says nothing for minutes while it builds a large model or evaluates; or by its last words,
    if it runs on another machine whose locks are not seen here."""
    import time

    from odkeras.errors import SetupError
    from odkeras.locks import locked

    try:
        with locked(directories.lock_path, taken="", wait_s=0.0):
            pass
    except SetupError:
        return True
    except OSError:  # the directory can only be read
        pass
    return status.get("state") not in _GONE and time.time() - float(status.get("updated") or 0) < _SILENT_S
