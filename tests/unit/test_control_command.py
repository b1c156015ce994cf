"""`odkeras training`: the command as a process, and what it says."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from odkeras.cli import app
from odkeras.control import Control
from odkeras.errors import ConfigError
from odkeras.locks import locked


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "pipeline.config").write_text("")
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["training", *map(str, arguments)])


def says(project: Path, **status: Any) -> None:
    (project / "model" / "status.json").write_text(json.dumps({"updated": time.time(), **status}))


def state(project: Path) -> str:
    return Control(project / "model" / "control.json").state


def test_pause_as_a_process(project: Path) -> None:
    command = [sys.executable, "-m", "odkeras", "training", "pause", str(project)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "training is paused; no trainer has run here yet\n"
    assert done.stderr == ""
    assert state(project) == "paused"


@pytest.mark.parametrize(
    ("action", "set_to", "said"),
    [("pause", "paused", "paused"), ("stop", "stopped", "stopped"), ("resume", "running", "not paused")],
)
def test_each_action_changes_the_state_and_status_reports_it(
    project: Path, action: str, set_to: str, said: str
) -> None:
    says(project, state="waiting", reason="no new answers")
    expected = f"training is {said}; trainer status: waiting: no new answers\n"
    assert run(action, project).output == expected
    assert state(project) == set_to
    assert run("status", project / "pipeline.config").output == expected


def test_status_says_that_no_trainer_is_running(project: Path) -> None:
    says(project, state="waiting", reason="no new answers", updated=time.time() - 3600)
    assert run("status", project).output == (
        "training is not paused; no trainer is running; its last status: waiting: no new answers\n"
    )
    says(project, state="failed", reason="no GPU")
    assert "no trainer is running; its last status: failed: no GPU" in run("status", project).output


def test_model_dir_option_selects_the_trainer(project: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    run("pause", project, "--model-dir", tmp_path / "elsewhere")
    assert state(project) == "running"
    assert Control(tmp_path / "elsewhere" / "control.json").state == "paused"


def test_a_missing_model_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pipeline.config").touch()
    result = run("pause", tmp_path)
    assert result.exit_code != 0
    assert f"{tmp_path / 'model'}: no such model directory" in str(result.exception)


@pytest.mark.parametrize(
    ("action", "state", "reason", "expected"),
    [
        ("pause", "training", "training on 8 images", "training is paused\n"),
        ("resume", "paused", "paused in round 2", "training is not paused\n"),
        (
            "resume",
            "training",
            "training on 8 images",
            "training is not paused; trainer status: training on 8 images\n",
        ),
        ("stop", "building", "building the model", "training is stopped; trainer status: building the model\n"),
    ],
)
def test_the_reported_state_does_not_contradict_the_action(
    project: Path, action: str, state: str, reason: str, expected: str
) -> None:
    """`pause` said "training is paused; trainer status: training: training on 40 images": it had not seen it yet."""
    says(project, state=state, reason=reason)
    assert run(action, project).output == expected


def test_a_trainer_that_holds_the_lock_counts_as_running(project: Path) -> None:
    """It says nothing while it builds a large model or evaluates: `status` took it for dead after 30 s."""
    says(project, state="evaluating", reason="evaluating, to see whether to publish", updated=time.time() - 600)
    with locked(project / "model" / "trainer.lock", taken="", wait_s=0.0):
        assert "trainer status: evaluating, to see" in run("status", project).output
    assert "no trainer is running" in run("status", project).output


def test_an_ended_trainer_does_not_count_as_running(project: Path) -> None:
    """For 30 s it was."""
    says(project, state="ended", reason="the trainer was stopped")
    assert run("status", project).output.endswith(
        "no trainer is running; its last status: ended: the trainer was stopped\n"
    )


@pytest.mark.parametrize("wrong", ["racoons", "model"])
def test_a_mistyped_project_does_not_pause_another(project: Path, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped name is a path in the working directory: the project there was paused."""
    monkeypatch.chdir(project)
    (project / "model" / "status.json").write_text("{}")
    (project / "model" / "pipeline.config").touch()
    result = run("pause", wrong)
    assert isinstance(result.exception, ConfigError)
    assert state(project) == "running"
